//! Where a layer is unpacked until it is complete: `tmp/layer-<digest>`, locked.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::FlockOperation;

use super::{Inner, LayerRecord, Pending, Store, StoreError, layout, lock, tree};
use crate::digest::Digest;
use crate::memory::Share;

/// The right to unpack one blob into the store, exclusively. Dropped before it is complete, it
/// removes what was written.
#[derive(Debug)]
pub struct LayerStaging {
    inner: Arc<Inner>,
    blob: Digest,
    path: PathBuf,
    dir: OwnedFd,
    /// What was known to have failed when it began.
    failures: u64,
    installed: bool,
}

/// The answer to [`Store::try_begin_layer`].
#[derive(Debug)]
pub enum Begun {
    /// The layer is there already.
    Present,
    /// It is to be unpacked.
    Staging(LayerStaging),
    /// Another process, or another thread of this one, is unpacking it.
    Busy,
}

impl Store {
    /// Begins a layer: `None` if it is there already. While another process unpacks the same blob
    /// this waits, and then looks again.
    ///
    /// Either way the layer is claimed: it is not collected before [`Store::commit_image`] names
    /// it, or all clones of this store are dropped. Do not call this while the same thread holds
    /// another staging that waits for something: two processes could then wait for each other.
    pub fn begin_layer(&self, blob: &Digest) -> Result<Option<LayerStaging>, StoreError> {
        match self.begin(blob, FlockOperation::LockExclusive)? {
            Begun::Staging(staging) => Ok(Some(staging)),
            Begun::Present | Begun::Busy => Ok(None),
        }
    }

    /// The same without waiting.
    pub fn try_begin_layer(&self, blob: &Digest) -> Result<Begun, StoreError> {
        self.begin(blob, FlockOperation::NonBlockingLockExclusive)
    }

    fn begin(&self, blob: &Digest, operation: FlockOperation) -> Result<Begun, StoreError> {
        let inner = &self.inner;
        inner.claim([blob])?;
        let begun = inner.clone().stage(blob, operation);
        if !matches!(begun, Ok(Begun::Present | Begun::Staging(_))) {
            inner.claims.release([blob]);
        }
        begun
    }
}

impl Inner {
    /// From here on failures to write are noticed.
    pub(super) fn begin_writing(&self) -> Result<u64, StoreError> {
        let layers = self.layout.layers();
        let watched = self.syncs.watch(|| layout::open_dir(&layers));
        watched.map_err(StoreError::io("open", &layers))
    }

    fn stage(
        self: Arc<Inner>,
        blob: &Digest,
        operation: FlockOperation,
    ) -> Result<Begun, StoreError> {
        let path = self
            .layout
            .tmp()
            .join(format!("layer-{}", blob.file_name()));
        loop {
            if self.has_layer(blob) {
                return Ok(Begun::Present);
            }
            let Some(dir) = lock_dir(&path, operation)? else {
                return Ok(Begun::Busy);
            };
            if !layout::is_still(&path, &dir).map_err(StoreError::io("look at", &path))? {
                continue;
            }
            if self.has_layer(blob) {
                tree::remove(&path).map_err(StoreError::io("remove", &path))?;
                return Ok(Begun::Present);
            }
            tree::empty(dir.as_fd()).map_err(StoreError::io("clear", &path))?;
            let failures = self.begin_writing()?;
            return Ok(Begun::Staging(LayerStaging {
                inner: self,
                blob: blob.clone(),
                path,
                dir,
                failures,
                installed: false,
            }));
        }
    }
}

/// Makes `path` unless it is there, and locks it; `None` if that would mean to wait and must not.
pub(super) fn lock_dir(
    path: &Path,
    operation: FlockOperation,
) -> Result<Option<OwnedFd>, StoreError> {
    loop {
        match fs::DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made.map_err(StoreError::io("make", path))?,
        }
        let dir = match layout::open_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            dir => dir.map_err(StoreError::io("open", path))?,
        };
        let locked = lock::try_lock(&dir, operation).map_err(StoreError::io("lock", path))?;
        return Ok(locked.then_some(dir));
    }
}

impl LayerStaging {
    /// The blob.
    pub fn blob(&self) -> &Digest {
        &self.blob
    }

    pub(crate) fn ownership(&self) -> super::Ownership {
        self.inner.ownership
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn dir(&self) -> &OwnedFd {
        &self.dir
    }

    /// What the layer may take of the memory that all layers share.
    pub(crate) fn memory(&self, limit: usize) -> Share {
        self.inner.memory.share(limit)
    }

    /// Returns once everything written so far is on the disk.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.inner.syncs.sync(self.failures)
    }

    /// Publishes the layer, whose files are in `fs` by now and belong to a blob that was verified.
    pub(crate) fn install(
        mut self,
        record: &LayerRecord,
        pending: &Pending,
    ) -> Result<(), StoreError> {
        record.write(&self.path)?;
        pending.write(&self.path)?;
        self.sync().map_err(StoreError::io("sync", &self.path))?;
        let layer = self.inner.layout.layer(&self.blob);
        fs::rename(&self.path, &layer).map_err(StoreError::io("make", &layer))?;
        // That it was renamed is synced with the image that needs it. Should it be lost before, it
        // is fetched again.
        self.installed = true;
        Ok(())
    }
}

impl Drop for LayerStaging {
    fn drop(&mut self) {
        if !self.installed {
            // What cannot be removed now is unlocked in a moment, and collected later.
            let _ = tree::remove(&self.path);
            self.inner.claims.release([&self.blob]);
        }
    }
}
