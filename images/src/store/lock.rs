//! Locks of the store. All are flock: they belong to an open file, so they vanish with the last
//! process that holds it, however that ends.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::StoreError;
use crate::digest::Digest;

/// Takes a lock, waiting for it as long as it takes.
pub(crate) fn lock(file: impl AsFd, operation: FlockOperation) -> io::Result<()> {
    loop {
        match rustix::fs::flock(&file, operation) {
            Err(Errno::INTR) => {}
            done => return Ok(done?),
        }
    }
}

/// Takes a lock if nobody is in the way.
pub(crate) fn try_lock(file: impl AsFd, operation: FlockOperation) -> io::Result<bool> {
    match lock(file, operation) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        done => done.map(|()| true),
    }
}

pub(crate) fn open_lock_file(path: &Path) -> Result<OwnedFd, StoreError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(StoreError::io("open the lock", path))?;
    Ok(file.into())
}

/// The layers that a pull of this process relies on and no image names yet. While there are any,
/// `v1/lock` is held shared, so that no other process collects them.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    held: Option<OwnedFd>,
    layers: HashMap<Digest, usize>,
}

impl Claims {
    fn state(&self) -> MutexGuard<'_, State> {
        // Each change below is complete before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims layers; waits for a collector, which never takes long. Says whether these are the
    /// first claims.
    pub(crate) fn add<'a>(
        &self,
        lock_file: &Path,
        layers: impl IntoIterator<Item = &'a Digest>,
    ) -> Result<bool, StoreError> {
        let mut state = self.state();
        let first = state.held.is_none();
        if first {
            let file = open_lock_file(lock_file)?;
            lock(&file, FlockOperation::LockShared).map_err(StoreError::io("lock", lock_file))?;
            state.held = Some(file);
        }
        for layer in layers {
            *state.layers.entry(layer.clone()).or_default() += 1;
        }
        Ok(first)
    }

    /// Gives up all claims on `layers`: an image names them now.
    pub(crate) fn settle<'a>(&self, layers: impl IntoIterator<Item = &'a Digest>) {
        let mut state = self.state();
        for layer in layers {
            state.layers.remove(layer);
        }
        if state.layers.is_empty() {
            state.held = None;
        }
    }

    /// Gives up one claim on each of `layers`.
    pub(crate) fn release<'a>(&self, layers: impl IntoIterator<Item = &'a Digest>) {
        let mut state = self.state();
        for layer in layers {
            if let Some(count) = state.layers.get_mut(layer) {
                *count -= 1;
                if *count == 0 {
                    state.layers.remove(layer);
                }
            }
        }
        if state.layers.is_empty() {
            state.held = None;
        }
    }
}
