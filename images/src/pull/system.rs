//! Filling the cache that all users of a host share, from a registry.
//!
//! Runs as root, with root's configuration alone. Documents are read as far as it takes to know
//! what blobs there are; layers are stored as they come, and nothing is unpacked.

use std::sync::{Mutex, PoisonError};

use futures_util::stream::{self, StreamExt as _};

use super::error::Failure;
use super::{PullError, PullOptions};
use crate::cache::{Cache, CacheError, Filling};
use crate::digest::Digest;
use crate::document::{Blob, Document};
use crate::progress::{LayerEvent, Progress};
use crate::reference::Reference;
use crate::registry::{FailureKind, Registry, pipe};

/// Puts all blobs of `reference` into `cache`. Returns the digest of its manifest.
///
/// # Errors
///
/// One line that names the reference. Blobs that were complete by then stay.
pub fn fill(
    cache: &Cache,
    reference: &Reference,
    options: &PullOptions,
    progress: &dyn Progress,
) -> Result<Digest, PullError> {
    let fill = Fill {
        reference,
        options,
        progress,
    };
    fill.run(cache).map_err(|failure| failure.of(reference))
}

struct Fill<'a> {
    reference: &'a Reference,
    options: &'a PullOptions,
    progress: &'a dyn Progress,
}

impl From<CacheError> for Failure {
    fn from(error: CacheError) -> Self {
        Failure::new(FailureKind::Store, error.to_string())
    }
}

impl Fill<'_> {
    fn run(&self, cache: &Cache) -> Result<Digest, Failure> {
        let options = self.options;
        options.policy.check(self.reference)?;
        let filling = cache.fill()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| Failure::new(FailureKind::Config, format!("cannot start: {e}")))?;
        let registry = Registry::new(
            self.reference,
            options.registries.clone(),
            options.timeouts,
            options.retry,
        )?;
        let done = runtime.block_on(self.documents(&registry, &filling));
        let done = done.and_then(|(digest, layers)| {
            self.layers(&runtime, &registry, &filling, layers)?;
            Ok(digest)
        });
        drop(registry);
        runtime.shutdown_background();
        done
    }

    /// Fetches indexes, manifest and configuration. Returns the manifest's digest and the layers.
    async fn documents(
        &self,
        registry: &Registry,
        filling: &Filling,
    ) -> Result<(Digest, Vec<Blob>), Failure> {
        let limits = &self.options.limits;
        let (tag, digest) = (self.reference.tag(), self.reference.digest());
        let mut found = registry
            .manifest(tag, digest, limits.manifest, self.progress)
            .await?;
        let mut size = None;
        for _ in 0..=limits.index_depth {
            if size.is_some_and(|size| size != found.bytes.len() as u64) {
                let message = "a manifest has another size than the index says";
                return Err(Failure::new(FailureKind::Digest, message));
            }
            let document = Document::parse(&found.bytes, found.media_type.as_deref(), limits)?;
            let digest = match self.reference.digest() {
                // In the algorithm that the reference has.
                Some(digest) if size.is_none() => digest.clone(),
                _ => Digest::of(&found.bytes),
            };
            filling.add(&digest, found.bytes.len() as u64, &found.bytes[..])?;
            match document {
                Document::Manifest(manifest) => {
                    let (config, size) = (&manifest.config.digest, manifest.config.size);
                    let bytes = registry
                        .small_blob(config, size, limits.config, self.progress)
                        .await?;
                    manifest.parse_config(&bytes, limits)?;
                    filling.add(config, size, &bytes[..])?;
                    return Ok((digest, manifest.layers));
                }
                Document::Index(index) => {
                    let entry = index.select(&self.options.platform)?;
                    size = Some(entry.size);
                    found = registry
                        .manifest(None, Some(&entry.digest), limits.manifest, self.progress)
                        .await?;
                }
            }
        }
        let message = "an index within an index, too deep";
        Err(Failure::new(FailureKind::Document, message))
    }

    /// Fetches the layers that are not there, several at once.
    fn layers(
        &self,
        runtime: &tokio::runtime::Runtime,
        registry: &Registry,
        filling: &Filling,
        mut layers: Vec<Blob>,
    ) -> Result<(), Failure> {
        let sizes: Vec<_> = layers.iter().map(|l| (l.digest.clone(), l.size)).collect();
        self.progress.layers(self.reference, &sizes);
        layers.sort_by(|a, b| (b.size, &b.digest).cmp(&(a.size, &a.digest)));
        layers.dedup();
        let failure: Mutex<Option<Failure>> = Mutex::new(None);
        let note = |error: Failure| {
            let mut first = failure.lock().unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert(error);
        };
        std::thread::scope(|scope| {
            let (note, failure) = (&note, &failure);
            let downloads = stream::iter(layers).map(|layer| async move {
                if failure
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .is_some()
                {
                    return;
                }
                let (digest, size) = (layer.digest, layer.size);
                if filling.has(&digest, size) {
                    return self.progress.layer(&digest, LayerEvent::AlreadyThere);
                }
                let (writer, reader, failed) = pipe();
                let name = digest.clone();
                scope.spawn(move || {
                    let added = filling.add(&name, size, reader);
                    match (added, failed.take()) {
                        (Ok(()), _) => self.progress.layer(&name, LayerEvent::Done),
                        (Err(_), Some(error)) => note(error.into()),
                        (Err(CacheError::Io { source, .. }), None)
                            if source.kind() == std::io::ErrorKind::InvalidData =>
                        {
                            let message = format!("layer {name}: {source}");
                            note(Failure::new(FailureKind::Digest, message));
                        }
                        (Err(error), None) => note(error.into()),
                    }
                });
                registry
                    .download(&digest, size, writer, self.progress)
                    .await;
            });
            let at_once = self.options.downloads.max(1);
            runtime.block_on(downloads.buffer_unordered(at_once).for_each(async |()| ()));
        });
        let failure = failure.into_inner().unwrap_or_else(PoisonError::into_inner);
        failure.map_or(Ok(()), Err)
    }
}
