//! From a reference to an image in the store.
//!
//! Runs in the pulling process, inside the pod's user namespace where there is
//! one. The caller sees a plain function; within, one thread drives all network
//! traffic and a few others unpack, so that fetching, hashing, inflating and
//! writing overlap within a layer and across layers.
//!
//! What costs what: a reference with a digest that is in the store costs no
//! request and no HTTP client; a tag whose image is there costs one manifest
//! request; and a layer that is there, from whatever image, is not fetched.

mod error;
mod layers;
mod system;

use std::collections::HashSet;

use oci_spec::image::{Arch, ImageConfiguration, Os, Platform};

pub use error::PullError;
pub use system::fill;

use crate::cache::Cache;
use crate::digest::Digest;
use crate::document::{Document, DocumentError, Manifest, platform_name};
use crate::limits::Limits;
use crate::platform;
use crate::policy::Policy;
use crate::progress::Progress;
use crate::reference::Reference;
use crate::registry::{FailureKind, Registry, RegistryConfig, RequestError, RetryPolicy, Timeouts};
use crate::store::{Image, Store};
use error::Failure;
pub(crate) use error::hint;

/// How to pull.
#[derive(Debug, Clone)]
pub struct PullOptions {
    /// Which of a multi-platform image's manifests is wanted.
    pub platform: Platform,
    /// Which images may be pulled at all; others are refused before anything is asked.
    pub policy: Policy,
    /// Blobs that all users of the host share, looked at before a registry is asked for them.
    pub cache: Option<Cache>,
    /// Bounds on what a registry may send.
    pub limits: Limits,
    /// How registries are reached.
    pub registries: RegistryConfig,
    /// How long to wait for them.
    pub timeouts: Timeouts,
    /// How often to ask them.
    pub retry: RetryPolicy,
    /// Layers that are fetched at once, at least one.
    pub downloads: usize,
    /// Of those, layers that are unpacked at once, at least one. The others
    /// wait with a megabyte each.
    pub unpackers: usize,
}

impl Default for PullOptions {
    fn default() -> Self {
        Self {
            platform: platform::host(),
            policy: Policy::default(),
            cache: None,
            limits: Limits::default(),
            registries: RegistryConfig::default(),
            timeouts: Timeouts::default(),
            retry: RetryPolicy::default(),
            // A single connection seldom fills the line, whatever the cores; and
            // what comes slowly costs no more when it is unpacked as it comes.
            downloads: 6,
            unpackers: 6,
        }
    }
}

/// Makes `reference` an image in `store`, and returns it.
///
/// A tag is always looked up at the registry; whether an image that is there
/// will do is the caller's decision ([`Store::image`]).
///
/// # Errors
///
/// One line that names the reference, with the registry's own words and what to
/// do. Layers that were complete by then stay in the store for the next attempt.
pub fn pull(
    store: &Store,
    reference: &Reference,
    options: &PullOptions,
    progress: &dyn Progress,
) -> Result<Image, PullError> {
    let pull = Pull {
        store,
        reference,
        options,
        progress,
    };
    pull.run().map_err(|failure| failure.of(reference))
}

struct Pull<'a> {
    store: &'a Store,
    reference: &'a Reference,
    options: &'a PullOptions,
    progress: &'a dyn Progress,
}

/// What a reference stands for.
enum Resolved {
    /// It is in the store, perhaps under other names.
    Present(Box<Image>),
    Missing(Box<Missing>),
}

/// An image whose layers are to be fetched.
struct Missing {
    bytes: Vec<u8>,
    manifest: Manifest,
    config_bytes: Vec<u8>,
    config: ImageConfiguration,
}

impl Pull<'_> {
    fn run(&self) -> Result<Image, Failure> {
        self.options.policy.check(self.reference)?;
        if let Some(image) = self.pinned()? {
            return Ok(image);
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| Failure::new(FailureKind::Config, format!("cannot start: {e}")))?;
        let options = self.options;
        let registry = Registry::new(
            self.reference,
            options.registries.clone(),
            options.timeouts,
            options.retry,
        )?;
        let result = self.fetch(&runtime, &registry);
        drop(registry);
        // A name lookup that hangs must not hold up the error.
        runtime.shutdown_background();
        result
    }

    fn fetch(
        &self,
        runtime: &tokio::runtime::Runtime,
        registry: &Registry,
    ) -> Result<Image, Failure> {
        let missing = match runtime.block_on(self.resolve(registry))? {
            Resolved::Present(image) => {
                self.store.tag(&image, self.reference)?;
                return Ok(*image);
            }
            Resolved::Missing(missing) => missing,
        };
        // From here on only as bytes: parsed, they take several times as much.
        let Missing {
            bytes,
            manifest,
            config_bytes,
            config,
        } = *missing;
        let layers = manifest.layer_descriptors(&config)?;
        drop((manifest, config));
        let sizes: Vec<_> = layers.iter().map(|l| (l.digest.clone(), l.size)).collect();
        self.progress.layers(self.reference, &sizes);
        let mut seen = HashSet::new();
        let mut queue = layers;
        queue.retain(|layer| seen.insert(layer.digest.clone()));
        layers::fetch(self, runtime, registry, queue)?;
        let names = std::slice::from_ref(self.reference);
        let image = self.store.commit_image(&bytes, &config_bytes, names)?;
        Ok(image)
    }

    /// The image of a reference with a digest, if it is in the store.
    fn pinned(&self) -> Result<Option<Image>, Failure> {
        let Some(digest) = self.reference.digest() else {
            return Ok(None);
        };
        if let Some(image) = self.store.image(self.reference)?
            && self.check_platform(&image.config).is_ok()
        {
            return Ok(Some(image));
        }
        match self.store.image_by_digest(digest)? {
            Some(image) => {
                self.check_platform(&image.config)?;
                self.store.tag(&image, self.reference)?;
                Ok(Some(image))
            }
            None => Ok(None),
        }
    }

    /// Asks the registry what the reference stands for: through indexes, down
    /// to a manifest and its configuration.
    async fn resolve(&self, registry: &Registry) -> Result<Resolved, Failure> {
        let limits = &self.options.limits;
        let (tag, digest) = (self.reference.tag(), self.reference.digest());
        let mut found = self.manifest(registry, tag, digest).await?;
        let mut announced: Option<String> = None;
        for depth in 0.. {
            let document = Document::parse(&found.bytes, found.media_type.as_deref(), limits)?;
            if announced.is_some() {
                // What the index said of it must be true as well.
                Document::parse(&found.bytes, announced.as_deref(), limits)?;
            }
            let index = match document {
                Document::Manifest(manifest) => {
                    return self.resolve_manifest(registry, found.bytes, manifest).await;
                }
                Document::Index(index) => index,
            };
            if depth >= limits.index_depth {
                let message = format!("an index within an index, more than {depth} deep");
                return Err(Failure::new(FailureKind::Document, message));
            }
            let entry = index.select(&self.options.platform)?;
            if let Some(image) = self.store.image_by_digest(&entry.digest)? {
                self.check_platform(&image.config)?;
                return Ok(Resolved::Present(Box::new(image)));
            }
            if entry.size > limits.manifest as u64 {
                let message = format!(
                    "its manifest has {} bytes, {} are allowed",
                    entry.size, limits.manifest
                );
                return Err(Failure::new(FailureKind::TooLarge, message));
            }
            found = self.manifest(registry, None, Some(&entry.digest)).await?;
            if found.bytes.len() as u64 != entry.size {
                let message = format!(
                    "manifest {} has {} bytes, but the index says {}",
                    entry.digest,
                    found.bytes.len(),
                    entry.size
                );
                return Err(Failure::new(FailureKind::Digest, message));
            }
            announced = Some(entry.media_type.clone());
        }
        unreachable!("the depth is bounded")
    }

    /// A manifest or index: one that is named by digest need not come from the registry.
    async fn manifest(
        &self,
        registry: &Registry,
        tag: Option<&str>,
        digest: Option<&Digest>,
    ) -> Result<crate::registry::Manifest, Failure> {
        let limit = self.options.limits.manifest;
        let shared = self.options.cache.as_ref();
        if let (Some(cache), Some(digest)) = (shared, digest)
            && let Some(bytes) = cache.read(digest, limit)
        {
            let media_type = None;
            return Ok(crate::registry::Manifest { bytes, media_type });
        }
        Ok(registry.manifest(tag, digest, limit, self.progress).await?)
    }

    async fn resolve_manifest(
        &self,
        registry: &Registry,
        bytes: Vec<u8>,
        manifest: Manifest,
    ) -> Result<Resolved, Failure> {
        if let Some(image) = self.store.image_by_digest(&Digest::of(&bytes))? {
            self.check_platform(&image.config)?;
            return Ok(Resolved::Present(Box::new(image)));
        }
        let limits = &self.options.limits;
        let (digest, size) = (&manifest.config.digest, manifest.config.size);
        let shared = self.options.cache.as_ref();
        let config_bytes = match shared.and_then(|c| c.read(digest, limits.config)) {
            Some(bytes) => bytes,
            None => {
                let (max, progress) = (limits.config, self.progress);
                registry.small_blob(digest, size, max, progress).await?
            }
        };
        let config = manifest.parse_config(&config_bytes, limits)?;
        self.check_platform(&config)?;
        Ok(Resolved::Missing(Box::new(Missing {
            bytes,
            manifest,
            config_bytes,
            config,
        })))
    }

    /// An index may lie, and a single manifest says nothing: the configuration
    /// decides. One that is silent is believed.
    fn check_platform(&self, config: &ImageConfiguration) -> Result<(), DocumentError> {
        let wanted = &self.options.platform;
        let silent_os = *config.os() == Os::Other(String::new());
        let silent_arch = *config.architecture() == Arch::Other(String::new());
        let fits = (silent_os || config.os() == wanted.os())
            && (silent_arch || config.architecture() == wanted.architecture());
        if fits {
            return Ok(());
        }
        let mut offered = Platform::default();
        offered.set_os(config.os().clone());
        offered.set_architecture(config.architecture().clone());
        offered.set_variant(config.variant().clone());
        Err(DocumentError::Platform {
            wanted: platform_name(wanted),
            available: vec![platform_name(&offered)],
        })
    }
}

impl From<RequestError> for Failure {
    fn from(error: RequestError) -> Self {
        Failure::new(error.kind, error.message)
    }
}
