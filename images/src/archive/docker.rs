//! `docker save` archives: a `manifest.json` of our own reading, for nothing specifies it but what
//! Docker, Podman and the builders write.

use std::io::Read as _;

use serde::{Deserialize, Serialize};

use super::source::Part;
use super::{Found, LoadError, Loader, Named};
use crate::digest::{Algorithm, Digest, Hasher};
use crate::document::{self, DOCKER_CONFIG, DOCKER_MANIFEST};
use crate::layer::{Compression, LayerDescriptor};
use crate::reference::Reference;

const MANIFEST: &str = "manifest.json";

/// An entry of `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// The manifest that such an archive lacks. Its fields in this order make the image's digest.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NewManifest {
    schema_version: u32,
    media_type: &'static str,
    config: NewDescriptor,
    layers: Vec<NewDescriptor>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NewDescriptor {
    media_type: &'static str,
    size: u64,
    digest: Digest,
}

impl Loader<'_> {
    /// The images of the archive.
    pub(super) fn find_docker(&self) -> Result<Vec<Named>, LoadError> {
        let bytes = self.source.read(MANIFEST, self.limits.manifest)?;
        let entries: Vec<Entry> = serde_json::from_slice(&bytes)
            .map_err(|error| self.content(MANIFEST, error.to_string()))?;
        if entries.is_empty() {
            return Err(self.content(MANIFEST, "it has no image"));
        }
        entries
            .into_iter()
            .map(|entry| self.docker_image(entry))
            .collect()
    }

    fn docker_image(&self, entry: Entry) -> Result<Named, LoadError> {
        let mut names: Vec<Reference> = Vec::new();
        for tag in entry.repo_tags.unwrap_or_default() {
            names.push(tag.parse().map_err(|source| LoadError::Name {
                path: self.source.path().into(),
                source,
            })?);
        }
        let config = self.source.read(&entry.config, self.limits.config)?;
        let parsed = document::parse_config(&config)
            .and_then(|config| self.check_platform(&config).map(|()| config))
            .map_err(self.document(&entry.config))?;
        let diff_ids = parsed.rootfs().diff_ids();
        if diff_ids.len() != entry.layers.len() || diff_ids.len() > self.limits.layers {
            let why = format!(
                "it has {} layers, the configuration {} diff_ids, and {} are allowed",
                entry.layers.len(),
                diff_ids.len(),
                self.limits.layers
            );
            return Err(self.content(MANIFEST, why));
        }
        let mut layers = Vec::new();
        for (file, diff_id) in entry.layers.into_iter().zip(diff_ids) {
            let diff_id: Digest = diff_id
                .parse()
                .map_err(|error| self.content(&entry.config, format!("{error}")))?;
            layers.push((self.docker_layer(&file, diff_id)?, file));
        }
        document::check_size(layers.iter().map(|(layer, _)| layer.size), self.limits)
            .map_err(self.document(MANIFEST))?;
        let manifest = NewManifest {
            schema_version: 2,
            media_type: DOCKER_MANIFEST,
            config: NewDescriptor {
                media_type: DOCKER_CONFIG,
                size: config.len() as u64,
                digest: Digest::of(&config),
            },
            layers: layers
                .iter()
                .map(|(layer, _)| NewDescriptor {
                    media_type: layer.compression.docker_media_type(),
                    size: layer.size,
                    digest: layer.digest.clone(),
                })
                .collect(),
        };
        let manifest = serde_json::to_vec(&manifest)
            .map_err(|error| self.content(MANIFEST, error.to_string()))?;
        Ok(Named {
            names,
            found: Found {
                manifest,
                config,
                layers,
            },
        })
    }

    fn docker_layer(&self, file: &str, diff_id: Digest) -> Result<LayerDescriptor, LoadError> {
        let part = self.source.get(file)?;
        let (size, failed) = (part.size(), |source| LoadError::Io {
            path: self.source.path().into(),
            source,
        });
        let compression = part.compression().map_err(failed)?;
        let digest = match compression {
            // Uncompressed, the two are the same, and are verified when it is unpacked.
            Compression::None => diff_id.clone(),
            Compression::Gzip | Compression::Zstd => digest(part).map_err(failed)?,
        };
        Ok(LayerDescriptor {
            digest,
            size,
            compression,
            diff_id,
        })
    }
}

fn digest(mut part: Part) -> std::io::Result<Digest> {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut buffer = vec![0; 256 << 10];
    loop {
        match part.read(&mut buffer)? {
            0 => return Ok(hasher.finish()),
            count => hasher.update(&buffer[..count]),
        }
    }
}
