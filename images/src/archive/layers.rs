//! Bringing a found image into the store: its layers, several at once, then itself.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::{Found, LoadError, Loader};
use crate::digest::Digest;
use crate::layer::{LayerDescriptor, LayerProgress};
use crate::progress::{LayerEvent, Progress};
use crate::reference::Reference;
use crate::store::{Begun, Image, LayerStaging};

/// Tells what becomes of a layer.
struct Watched<'a> {
    progress: &'a dyn Progress,
    layer: &'a Digest,
}

impl LayerProgress for Watched<'_> {
    fn expanded(&self, total: u64) {
        let event = LayerEvent::Unpacking { expanded: total };
        self.progress.layer(self.layer, event);
    }
}

impl Loader<'_> {
    /// Adds an image with these names.
    pub(super) fn bring(&self, found: &Found, names: &[Reference]) -> Result<Image, LoadError> {
        let digest = Digest::of(&found.manifest);
        let sizes = found.layers.iter().map(|(l, _)| (l.digest.clone(), l.size));
        let sizes: Vec<(Digest, u64)> = sizes.collect();
        let unnamed = || format!("localhost/unnamed@{digest}").parse().ok();
        if let Some(name) = names.first().cloned().or_else(unnamed) {
            self.progress.layers(&name, &sizes);
        }
        // Taken from the end: the biggest first, for it takes the longest.
        let mut seen = HashSet::new();
        let mut layers: Vec<_> = found.layers.iter().collect();
        layers.retain(|(layer, _)| seen.insert(&layer.digest));
        layers.sort_by_key(|(layer, _)| layer.size);
        let (queue, failure) = (Mutex::new(layers), Mutex::new(None));
        let work = || {
            loop {
                let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop();
                let Some((layer, file)) = next else { return };
                if let Err(error) = self.unpack(layer, file) {
                    queue.lock().unwrap_or_else(PoisonError::into_inner).clear();
                    let mut first = failure.lock().unwrap_or_else(PoisonError::into_inner);
                    first.get_or_insert(error);
                }
            }
        };
        let cores = thread::available_parallelism().map_or(1, usize::from);
        thread::scope(|scope| {
            for _ in 0..cores.clamp(2, 4).min(found.layers.len()) {
                scope.spawn(work);
            }
        });
        if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        let image = self
            .store
            .commit_image(&found.manifest, &found.config, names)?;
        Ok(image)
    }

    fn unpack(&self, layer: &LayerDescriptor, file: &str) -> Result<(), LoadError> {
        let watched = Watched {
            progress: self.progress,
            layer: &layer.digest,
        };
        let staging: Option<LayerStaging> = match self.store.try_begin_layer(&layer.digest)? {
            Begun::Staging(staging) => Some(staging),
            Begun::Present => None,
            Begun::Busy => {
                self.progress.layer(&layer.digest, LayerEvent::Waiting);
                self.store.begin_layer(&layer.digest)?
            }
        };
        let Some(staging) = staging else {
            self.progress.layer(&layer.digest, LayerEvent::AlreadyThere);
            return Ok(());
        };
        let part = self.source.get(file)?;
        staging
            .unpack(part, layer, self.limits, &watched)
            .map_err(|source| LoadError::Layer {
                path: self.source.path().into(),
                source: Box::new(source),
            })?;
        self.progress.layer(&layer.digest, LayerEvent::Done);
        Ok(())
    }
}
