//! Manifests, indexes and configurations: from hostile bytes to what the rest may rely on.
//!
//! Follows the OCI image specification (`manifest.md`, `image-index.md`, `config.md`) and Docker's
//! schema 2 equivalents. Pure: bytes in, checked values or one line of refusal out. A document that
//! could be read as both manifest and index is refused (CVE-2021-41190), as are foreign layers and
//! descriptors with `urls`: nothing is ever fetched from where a document points.

use oci_spec::image::{Arch, ImageConfiguration, Os, Platform};
use serde::Deserialize;

use crate::digest::{Digest, Mismatch, ParseDigestError, Verifier};
use crate::layer::{Compression, LayerDescriptor};
use crate::limits::Limits;

/// OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Docker schema 2 manifest.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker schema 2 manifest list.
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// The media types to ask a registry for.
pub const ACCEPT: [&str; 4] = [OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST];

/// Why a document is refused.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Larger than the configured limit.
    #[error("{what} has more than the {limit} bytes that are allowed")]
    TooLarge {
        /// `manifest` or `configuration`.
        what: &'static str,
        /// The limit in bytes.
        limit: usize,
    },
    /// More values than any document needs.
    #[error("{what} has more than the {limit} values that are allowed")]
    TooMany {
        /// `manifest` or `configuration`.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// Not JSON of the right shape.
    #[error("{what} cannot be read: {source}")]
    Json {
        /// Which document.
        what: &'static str,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// A digest in it is not one.
    #[error("{what}: {source}")]
    Digest {
        /// Which document.
        what: &'static str,
        /// The digest's own complaint.
        source: ParseDigestError,
    },
    /// It has the fields of a manifest and of an index.
    #[error("the document is both a manifest and an index, which is never right")]
    Ambiguous,
    /// Schema 1, or something that is no image at all.
    #[error("{0}")]
    Unsupported(String),
    /// The content is not what the media type says.
    #[error("the document was announced as {announced} but is {found}")]
    MediaType {
        /// From the descriptor, or the registry's Content-Type.
        announced: String,
        /// What the content is.
        found: String,
    },
    /// A layer that is to come from elsewhere.
    #[error("layer {0} is a foreign layer or names other addresses; such images are not supported")]
    Foreign(Digest),
    /// More layers than the configured limit.
    #[error("the image has {found} layers, more than the {limit} that are allowed")]
    Layers {
        /// Layers of the manifest.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// Larger layers, together, than the configured limit.
    #[error(
        "the image's layers have {found} bytes together, more than the {limit} that are allowed"
    )]
    Size {
        /// Bytes of the compressed layers.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// The configuration's `rootfs.diff_ids` do not fit the manifest.
    #[error("the manifest has {layers} layers but the configuration has {diff_ids} diff_ids")]
    DiffIds {
        /// Layers of the manifest.
        layers: usize,
        /// diff_ids of the configuration.
        diff_ids: usize,
    },
    /// The configuration is not the one the manifest names.
    #[error("the configuration is not the one the manifest names: {0}")]
    Config(Mismatch),
    /// No manifest for the platform.
    #[error("there is no image for {wanted}; there are: {}", .available.join(", "))]
    Platform {
        /// As `os/architecture[/variant]`.
        wanted: String,
        /// The platforms there are.
        available: Vec<String>,
    },
}

/// A reference to content: a descriptor, reduced to what is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// The media type as written.
    pub media_type: String,
    /// Digest of the content.
    pub digest: Digest,
    /// Size of the content in bytes.
    pub size: u64,
    /// For entries of an index.
    pub platform: Option<Platform>,
    /// The annotation `org.opencontainers.image.ref.name`, of entries of an image layout's index.
    pub ref_name: Option<String>,
    /// The annotation `io.containerd.image.name`: a full reference, where ref_name is only a tag.
    pub image_name: Option<String>,
}

/// An image manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The image configuration.
    pub config: Descriptor,
    /// The layers, lowest first.
    pub layers: Vec<Blob>,
}

/// A layer as a manifest names it; with its diff_id it becomes a [`LayerDescriptor`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// Digest of the blob as stored and transferred.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// How it is compressed, from its media type.
    pub compression: Compression,
}

/// An image index: manifests (or further indexes) by platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// The entries, in the order written.
    pub manifests: Vec<Descriptor>,
}

/// What a registry or a layout answers when asked for a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant)] // One at a time, and taken apart at once.
pub enum Document {
    /// An image for one platform.
    Manifest(Manifest),
    /// A choice.
    Index(Index),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDocument {
    schema_version: Option<u32>,
    media_type: Option<String>,
    config: Option<RawDescriptor>,
    layers: Option<Vec<RawDescriptor>>,
    manifests: Option<Vec<RawDescriptor>>,
    fs_layers: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDescriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default)]
    urls: Option<Vec<String>>,
    #[serde(default)]
    platform: Option<RawPlatform>,
    #[serde(default)]
    annotations: Option<serde_json::Map<String, serde_json::Value>>,
}

#[derive(Deserialize)]
struct RawPlatform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: Option<String>,
}

const DOCUMENT: &str = "the manifest";
const CONFIG: &str = "the image configuration";

impl RawDescriptor {
    fn check(self) -> Result<Descriptor, DocumentError> {
        let digest = parse_digest(DOCUMENT, &self.digest)?;
        if self.urls.is_some_and(|urls| !urls.is_empty()) {
            return Err(DocumentError::Foreign(digest));
        }
        let annotation = |key: &str| {
            let value = self.annotations.as_ref()?.get(key)?;
            value.as_str().map(str::to_string)
        };
        Ok(Descriptor {
            ref_name: annotation("org.opencontainers.image.ref.name"),
            image_name: annotation("io.containerd.image.name"),
            media_type: self.media_type,
            digest,
            size: self.size,
            platform: self.platform.map(|raw| {
                let mut platform = Platform::default();
                platform.set_os(Os::from(raw.os.as_str()));
                platform.set_architecture(Arch::from(raw.architecture.as_str()));
                platform.set_variant(raw.variant.filter(|variant| !variant.is_empty()));
                platform
            }),
        })
    }
}

fn parse_digest(what: &'static str, text: &str) -> Result<Digest, DocumentError> {
    text.parse()
        .map_err(|source| DocumentError::Digest { what, source })
}

/// Values of a document. An image of 499 layers has some five thousand.
const VALUES: usize = 100_000;

fn bounded<'a>(
    what: &'static str,
    bytes: &'a [u8],
    limit: usize,
) -> Result<&'a [u8], DocumentError> {
    if bytes.len() > limit {
        return Err(DocumentError::TooLarge { what, limit });
    }
    // Of three bytes each, what is parsed can be fifty times as large as the text.
    let separators = bytes
        .iter()
        .filter(|byte| matches!(byte, b',' | b'[' | b'{'));
    if separators.count() > VALUES {
        return Err(DocumentError::TooMany {
            what,
            limit: VALUES,
        });
    }
    Ok(bytes)
}

impl Document {
    /// Reads a manifest or an index. `announced` is the media type of the descriptor or of the
    /// registry's answer, where there was one; it must agree with what the content says and is.
    pub fn parse(
        bytes: &[u8],
        announced: Option<&str>,
        limits: &Limits,
    ) -> Result<Document, DocumentError> {
        let bytes = bounded(DOCUMENT, bytes, limits.manifest)?;
        let raw: RawDocument =
            serde_json::from_slice(bytes).map_err(|source| DocumentError::Json {
                what: DOCUMENT,
                source,
            })?;
        let index = raw.manifests.is_some();
        let manifest = raw.config.is_some() || raw.layers.is_some();
        if index && manifest {
            return Err(DocumentError::Ambiguous);
        }
        if raw.fs_layers.is_some() || raw.schema_version == Some(1) {
            return Err(DocumentError::Unsupported(
                "the image has a schema 1 manifest, which is no longer supported: push it again with a current client".into(),
            ));
        }
        if raw.schema_version != Some(2) {
            return Err(DocumentError::Unsupported(
                "the manifest has no schemaVersion 2".into(),
            ));
        }
        let found = if index {
            "an index"
        } else {
            "an image manifest"
        };
        for media_type in [announced, raw.media_type.as_deref()].into_iter().flatten() {
            let fits = match media_type {
                OCI_INDEX | DOCKER_INDEX => index,
                OCI_MANIFEST | DOCKER_MANIFEST => manifest,
                // Registries answer with these for stored content of any kind.
                "" | "application/json" | "application/octet-stream" => true,
                _ => false,
            };
            if !fits {
                return Err(DocumentError::MediaType {
                    announced: media_type.chars().take(100).collect(),
                    found: found.into(),
                });
            }
        }
        if let Some(manifests) = raw.manifests {
            let manifests = manifests.into_iter().map(RawDescriptor::check);
            return Ok(Document::Index(Index {
                manifests: manifests.collect::<Result<_, _>>()?,
            }));
        }
        let (Some(config), Some(layers)) = (raw.config, raw.layers) else {
            return Err(DocumentError::Unsupported(
                "the document is neither an image manifest nor an index".into(),
            ));
        };
        let config = config.check()?;
        if config.media_type != OCI_CONFIG && config.media_type != DOCKER_CONFIG {
            return Err(DocumentError::Unsupported(format!(
                "it is not a container image: its configuration is of type {:?}",
                config.media_type.chars().take(100).collect::<String>()
            )));
        }
        if layers.len() > limits.layers {
            return Err(DocumentError::Layers {
                found: layers.len(),
                limit: limits.layers,
            });
        }
        let layers = layers.into_iter().map(|layer| layer.check()?.into_blob());
        let layers: Vec<Blob> = layers.collect::<Result<_, _>>()?;
        check_size(layers.iter().map(|layer| layer.size), limits)?;
        Ok(Document::Manifest(Manifest { config, layers }))
    }
}

/// Refuses layers of these sizes if they are too large together.
pub(crate) fn check_size(
    sizes: impl Iterator<Item = u64>,
    limits: &Limits,
) -> Result<(), DocumentError> {
    let found = sizes.fold(0, u64::saturating_add);
    let limit = limits.image;
    if found > limit {
        return Err(DocumentError::Size { found, limit });
    }
    Ok(())
}

impl Descriptor {
    fn into_blob(self) -> Result<Blob, DocumentError> {
        let compression = match self.media_type.as_str() {
            "application/vnd.oci.image.layer.v1.tar"
            | "application/vnd.docker.image.rootfs.diff.tar" => Compression::None,
            "application/vnd.oci.image.layer.v1.tar+gzip"
            | "application/vnd.docker.image.rootfs.diff.tar.gzip" => Compression::Gzip,
            "application/vnd.oci.image.layer.v1.tar+zstd"
            | "application/vnd.docker.image.rootfs.diff.tar.zstd" => Compression::Zstd,
            other if other.contains("nondistributable") || other.contains("foreign") => {
                return Err(DocumentError::Foreign(self.digest));
            }
            other => {
                return Err(DocumentError::Unsupported(format!(
                    "layer {} is of a type that is not supported: {:?}",
                    self.digest,
                    other.chars().take(100).collect::<String>()
                )));
            }
        };
        Ok(Blob {
            digest: self.digest,
            size: self.size,
            compression,
        })
    }
}

impl Manifest {
    /// The layers with their diff_ids, lowest first.
    pub fn layer_descriptors(
        &self,
        config: &ImageConfiguration,
    ) -> Result<Vec<LayerDescriptor>, DocumentError> {
        let diff_ids = config.rootfs().diff_ids();
        if diff_ids.len() != self.layers.len() {
            return Err(DocumentError::DiffIds {
                layers: self.layers.len(),
                diff_ids: diff_ids.len(),
            });
        }
        let descriptors = self.layers.iter().zip(diff_ids).map(|(blob, diff_id)| {
            Ok(LayerDescriptor {
                digest: blob.digest.clone(),
                size: blob.size,
                compression: blob.compression,
                diff_id: parse_digest(CONFIG, diff_id)?,
            })
        });
        descriptors.collect()
    }

    /// Reads `bytes` as the configuration this manifest names: size and digest are verified.
    pub fn parse_config(
        &self,
        bytes: &[u8],
        limits: &Limits,
    ) -> Result<ImageConfiguration, DocumentError> {
        let bytes = bounded(CONFIG, bytes, limits.config)?;
        let mut verifier = Verifier::new(&self.config.digest, self.config.size);
        let verified = verifier.update(bytes).and_then(|()| verifier.finish());
        verified.map_err(DocumentError::Config)?;
        let config = parse_config(bytes)?;
        self.layer_descriptors(&config)?;
        Ok(config)
    }
}

/// Reads a configuration that was verified before.
pub(crate) fn parse_config(bytes: &[u8]) -> Result<ImageConfiguration, DocumentError> {
    let config: ImageConfiguration =
        serde_json::from_slice(bytes).map_err(|source| DocumentError::Json {
            what: CONFIG,
            source,
        })?;
    if config.rootfs().typ() != "layers" {
        return Err(DocumentError::Unsupported(format!(
            "the image's rootfs is of type {:?}, not layers",
            config.rootfs().typ().chars().take(100).collect::<String>()
        )));
    }
    Ok(config)
}

impl Index {
    /// The entry to use on `platform`: the same system and architecture, and of those the same
    /// variant, else the newest one that this processor can run.
    pub fn select(&self, platform: &Platform) -> Result<&Descriptor, DocumentError> {
        let score = |entry: &&Descriptor| match &entry.platform {
            Some(offered) => rank(platform, offered),
            None => None,
        };
        let best = self.manifests.iter().filter(|e| score(e).is_some());
        // max_by_key keeps the last of equals; the specification wants the first.
        if let Some(entry) = best.rev().max_by_key(score) {
            return Ok(entry);
        }
        // An index of one image need not say what it is for.
        if let [only] = self.manifests.as_slice()
            && only.platform.is_none()
        {
            return Ok(only);
        }
        let known = self.manifests.iter().filter_map(|e| e.platform.as_ref());
        let mut available: Vec<String> = known
            .map(platform_name)
            .filter(|name| !name.starts_with("unknown/"))
            .take(40)
            .collect();
        available.dedup();
        Err(DocumentError::Platform {
            wanted: platform_name(platform),
            available,
        })
    }
}

/// `os/architecture[/variant]`, as command lines write it.
pub fn platform_name(platform: &Platform) -> String {
    let base = format!("{}/{}", platform.os(), platform.architecture());
    match platform.variant() {
        Some(variant) => format!("{base}/{variant}"),
        None => base,
    }
}

/// Refuses what `offered` means if `wanted` cannot run it.
pub(crate) fn check_platform(wanted: &Platform, offered: Platform) -> Result<(), DocumentError> {
    if wanted.os() == offered.os() && wanted.architecture() == offered.architecture() {
        return Ok(());
    }
    Err(DocumentError::Platform {
        wanted: platform_name(wanted),
        available: vec![platform_name(&offered)],
    })
}

/// How well `offered` serves `wanted`: larger is better, `None` not at all.
fn rank(wanted: &Platform, offered: &Platform) -> Option<u32> {
    if wanted.os() != offered.os() || wanted.architecture() != offered.architecture() {
        return None;
    }
    let level = |platform: &Platform| {
        let default = match platform.architecture() {
            Arch::ARM => 7,
            Arch::ARM64 => 8,
            _ => 1,
        };
        let Some(variant) = platform.variant() else {
            return Some(default);
        };
        variant.strip_prefix('v')?.parse::<u32>().ok()
    };
    if wanted.variant() == offered.variant() {
        return Some(u32::MAX);
    }
    match (level(wanted), level(offered)) {
        (Some(mine), Some(theirs)) if theirs <= mine => Some(theirs),
        _ => None,
    }
}

/// Reads a manifest from the store, where only images whose manifest was checked are put.
pub(crate) fn parse_stored_manifest(bytes: &[u8]) -> Result<Manifest, DocumentError> {
    let unlimited = Limits {
        manifest: usize::MAX,
        layers: usize::MAX,
        image: u64::MAX,
        ..Limits::default()
    };
    match Document::parse(bytes, None, &unlimited)? {
        Document::Manifest(manifest) => Ok(manifest),
        Document::Index(_) => Err(DocumentError::Unsupported(
            "an index is not an image".into(),
        )),
    }
}
