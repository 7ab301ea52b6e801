//! Places in `tmp` for what is being put together: locked, and gone when dropped.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use super::{Inner, Store, StoreError, layout, staging, tree};

/// A directory in `tmp` of which this process alone knows.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
    dir: OwnedFd,
}

impl Store {
    pub(crate) fn scratch(&self, kind: &str) -> Result<Scratch, StoreError> {
        self.inner.scratch(kind)
    }
}

impl Inner {
    /// A new, empty directory in `tmp`.
    pub(super) fn scratch(&self, kind: &str) -> Result<Scratch, StoreError> {
        let mut n = 0;
        loop {
            // Another process can have this name only in another pid namespace, or as remains.
            let name = format!("{kind}-{}-{n}", std::process::id());
            let path = self.layout.tmp().join(name);
            let operation = FlockOperation::NonBlockingLockExclusive;
            if let Some(dir) = staging::lock_dir(&path, operation)?
                && layout::is_still(&path, &dir).map_err(StoreError::io("look at", &path))?
            {
                tree::empty(dir.as_fd()).map_err(StoreError::io("clear", &path))?;
                return Ok(Scratch { path, dir });
            }
            n += 1;
        }
    }
}

impl Scratch {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A new file in it, to write and read.
    pub(crate) fn file(&self, name: &str) -> Result<File, StoreError> {
        let path = self.path.join(name);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        options.open(&path).map_err(StoreError::io("make", &path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Once it is renamed, the name may be another's. What cannot be removed now is unlocked in a
        // moment, and collected later.
        if layout::is_still(&self.path, &self.dir).is_ok_and(|still| still) {
            let _ = tree::remove(&self.path);
        }
    }
}
