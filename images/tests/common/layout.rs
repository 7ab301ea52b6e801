//! Images as OCI layouts, made of archives.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use podspawn_images::digest::Digest;
use podspawn_images::layer::{Compression, LayerDescriptor};
use serde_json::{Value, json};

/// A blob with its description.
#[derive(Clone, Debug)]
pub struct Layer {
    pub blob: Vec<u8>,
    pub descriptor: LayerDescriptor,
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

impl Layer {
    pub fn new(archive: &[u8], compression: Compression) -> Layer {
        let blob = match compression {
            Compression::None => archive.to_vec(),
            Compression::Gzip => gzip(archive),
            Compression::Zstd => zstd(archive),
        };
        Layer::of_blob(blob, compression, Digest::of(archive))
    }

    pub fn of_blob(blob: Vec<u8>, compression: Compression, diff_id: Digest) -> Layer {
        let descriptor = LayerDescriptor {
            digest: Digest::of(&blob),
            size: blob.len() as u64,
            compression,
            diff_id,
        };
        Layer { blob, descriptor }
    }

    fn media_type(&self) -> &'static str {
        match self.descriptor.compression {
            Compression::None => "application/vnd.oci.image.layer.v1.tar",
            Compression::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Compression::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }
}

/// An image and its documents.
#[derive(Clone, Debug)]
pub struct Built {
    pub layers: Vec<Layer>,
    pub config: Vec<u8>,
    pub manifest: Vec<u8>,
}

impl Built {
    /// An image of these layers, lowest first.
    pub fn new(layers: impl IntoIterator<Item = Layer>) -> Built {
        let layers: Vec<Layer> = layers.into_iter().collect();
        let diff_ids = layers.iter().map(|l| l.descriptor.diff_id.to_string());
        let config = json!({
            "architecture": "amd64",
            "os": "linux",
            "config": {"Env": ["PATH=/bin"], "Cmd": ["/bin/sh"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids.collect::<Vec<_>>()},
            "history": [],
        });
        Built::with_config(layers, &config)
    }

    pub fn with_config(layers: Vec<Layer>, config: &Value) -> Built {
        let config = serde_json::to_vec(config).unwrap();
        let descriptors = layers.iter().map(|layer| {
            json!({
                "mediaType": layer.media_type(),
                "digest": layer.descriptor.digest,
                "size": layer.descriptor.size,
            })
        });
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": Digest::of(&config),
                "size": config.len(),
            },
            "layers": descriptors.collect::<Vec<_>>(),
        });
        Built {
            layers,
            config,
            manifest: serde_json::to_vec(&manifest).unwrap(),
        }
    }

    /// Of archives, compressed with gzip.
    pub fn of(archives: impl IntoIterator<Item = Vec<u8>>) -> Built {
        let layers = archives.into_iter();
        Built::new(layers.map(|archive| Layer::new(&archive, Compression::Gzip)))
    }

    pub fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }

    /// The image's entry in an index.
    pub fn descriptor(&self, annotations: Value) -> Value {
        json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": self.digest(),
            "size": self.manifest.len(),
            "annotations": annotations,
        })
    }

    /// The files of a layout that has this image alone, tagged `latest`.
    pub fn files(&self) -> Vec<(String, Vec<u8>)> {
        let latest = json!({"org.opencontainers.image.ref.name": "latest"});
        let index = json!({"schemaVersion": 2, "manifests": [self.descriptor(latest)]});
        let mut files = vec![
            (
                "oci-layout".into(),
                br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec(),
            ),
            ("index.json".into(), serde_json::to_vec(&index).unwrap()),
        ];
        files.extend(self.blobs());
        files
    }

    pub fn blobs(&self) -> Vec<(String, Vec<u8>)> {
        let blobs = self.layers.iter().map(|layer| &layer.blob);
        let blobs = blobs.chain([&self.config, &self.manifest]);
        blobs.map(|blob| blob_file(blob)).collect()
    }

    /// Writes the layout into a new directory.
    pub fn write(&self, at: &Path) -> PathBuf {
        write_files(at, &self.files());
        at.into()
    }
}

pub fn blob_file(blob: &[u8]) -> (String, Vec<u8>) {
    (
        format!("blobs/sha256/{}", Digest::of(blob).hex()),
        blob.to_vec(),
    )
}

pub fn write_files(at: &Path, files: &[(String, Vec<u8>)]) {
    for (name, content) in files {
        let path = at.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}
