//! Small images, made here.

use std::io::Write as _;

use podspawn_images::digest::Digest;
use serde_json::{Value, json};

pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// An archive of plain files.
pub fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, content) in files {
        let mut header = [0u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..108].copy_from_slice(b"0000644\0");
        header[108..116].copy_from_slice(b"0000000\0");
        header[116..124].copy_from_slice(b"0000000\0");
        header[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
        header[136..148].copy_from_slice(b"00000000000\0");
        header[148..156].copy_from_slice(b"        ");
        header[156] = b'0';
        header[257..265].copy_from_slice(b"ustar\x0000");
        let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        archive.extend_from_slice(&header);
        archive.extend_from_slice(content);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.resize(archive.len() + 1024, 0);
    archive
}

/// Bytes that do not compress.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A layer: its blob, and the digest of what is in it.
#[derive(Clone)]
pub struct Layer {
    pub blob: Vec<u8>,
    pub diff_id: Digest,
}

impl Layer {
    pub fn new(files: &[(&str, &[u8])]) -> Layer {
        let archive = tar(files);
        let level = flate2::Compression::fast();
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
        encoder.write_all(&archive).unwrap();
        Layer {
            blob: encoder.finish().unwrap(),
            diff_id: Digest::of(&archive),
        }
    }

    /// One file of `length` bytes that do not compress.
    pub fn big(seed: u64, length: usize) -> Layer {
        Layer::new(&[(&format!("big{seed}"), &noise(seed, length))])
    }

    pub fn digest(&self) -> Digest {
        Digest::of(&self.blob)
    }

    pub fn descriptor(&self) -> Value {
        descriptor(OCI_LAYER, &self.blob)
    }
}

/// A manifest with everything it names.
#[derive(Clone)]
pub struct Image {
    pub layers: Vec<Layer>,
    pub config: Vec<u8>,
    pub manifest: Vec<u8>,
}

impl Image {
    pub fn new(layers: Vec<Layer>) -> Image {
        Image::for_architecture(layers, host_architecture())
    }

    pub fn for_architecture(layers: Vec<Layer>, architecture: &str) -> Image {
        let diff_ids: Vec<_> = layers.iter().map(|l| l.diff_id.to_string()).collect();
        let config = json!({
            "architecture": architecture,
            "os": "linux",
            "config": {"Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = serde_json::to_vec(&config).unwrap();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": descriptor(OCI_CONFIG, &config),
            "layers": layers.iter().map(Layer::descriptor).collect::<Vec<_>>(),
        });
        let manifest = serde_json::to_vec(&manifest).unwrap();
        Image {
            layers,
            config,
            manifest,
        }
    }

    /// A few small layers.
    pub fn small(seed: u64) -> Image {
        let text = format!("image {seed}\n");
        Image::new(vec![
            Layer::new(&[("base", b"the same in all"), ("etc", b"x")]),
            Layer::new(&[("seed", text.as_bytes())]),
        ])
    }

    /// The manifest, changed.
    pub fn with(&self, change: impl FnOnce(&mut Value)) -> Image {
        let mut manifest: Value = serde_json::from_slice(&self.manifest).unwrap();
        change(&mut manifest);
        Image {
            manifest: serde_json::to_vec(&manifest).unwrap(),
            ..self.clone()
        }
    }

    pub fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }
}

pub fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({
        "mediaType": media_type,
        "digest": Digest::of(content).to_string(),
        "size": content.len(),
    })
}

/// An index of manifests by platform (`os/architecture`).
pub fn index(entries: &[(&str, &str, &[u8])]) -> Vec<u8> {
    let manifests: Vec<_> = entries
        .iter()
        .map(|(platform, media_type, content)| {
            let mut entry = descriptor(media_type, content);
            let (os, architecture) = platform.split_once('/').unwrap();
            entry["platform"] = json!({"os": os, "architecture": architecture});
            entry
        })
        .collect();
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests});
    serde_json::to_vec(&index).unwrap()
}

pub fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

pub fn host_platform() -> String {
    format!("linux/{}", host_architecture())
}
