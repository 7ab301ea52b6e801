//! Taking away what dead pods left on disk.
//!
//! Runs in the verbs about pods, in the user's namespace, which the files belong
//! to. Under the pod lock, so that nobody makes the pod meanwhile; what takes
//! long is done without it. Nothing depends on it: a new supervisor of the same
//! pod clears away what the one before it left.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{AtFlags, unlinkat};

use super::ask::somebody_listens;
use super::claim::forget;
use super::find::enter_run;
use super::{FindError, Lock, LockMode, PathsError, PodPaths};
use crate::supervisor::storage;

/// What became of a dead pod's remains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleared {
    /// They are gone.
    Done,
    /// The pod is alive, or somebody is making it.
    InUse,
}

/// Why they could not be taken away.
#[derive(Debug, thiserror::Error)]
pub enum ClearError {
    /// The run directory cannot be used.
    #[error(transparent)]
    Find(#[from] FindError),
    /// The storage directory cannot be used.
    #[error(transparent)]
    Paths(#[from] PathsError),
    /// Something of the pod still runs.
    #[error("it is in use")]
    InUse,
    /// A file cannot be taken away.
    #[error("cannot remove {path}")]
    Remove {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Takes away what a pod that was killed left: its run directory, and what it
/// wrote unless that is to stay.
///
/// # Errors
///
/// When something cannot be removed.
pub fn clear(paths: &PodPaths) -> Result<Cleared, ClearError> {
    let mut done = false;
    // Of a live pod too: its supervisor may not have come to it.
    storage::sweep(paths.storage());
    if let Some(dead) = Dead::find(paths)? {
        dead.set_aside()?;
        drop(dead);
        storage::sweep(paths.storage());
        if let Some(dead) = Dead::find(paths)? {
            dead.remove_run()?;
            done = true;
        }
    }
    Ok(if done { Cleared::Done } else { Cleared::InUse })
}

/// Takes away everything of a pod that does not run, and the directories `more`, which
/// are its alone.
///
/// # Errors
///
/// When it runs, or something cannot be removed.
pub fn remove(paths: &PodPaths, more: &[PathBuf]) -> Result<(), ClearError> {
    let dead = Dead::find(paths)?.ok_or(ClearError::InUse)?;
    for path in more.iter().map(PathBuf::as_path).chain([paths.storage()]) {
        match std::fs::remove_dir_all(path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(ClearError::Remove {
                    path: path.to_owned(),
                    source,
                });
            }
            _ => {}
        }
    }
    dead.remove_run()
}

/// A pod that is dead, and stays so as long as this lives.
struct Dead<'a> {
    paths: &'a PodPaths,
    run: OwnedFd,
    _lock: Lock,
    _storage: Option<Lock>,
}

impl<'a> Dead<'a> {
    fn find(paths: &'a PodPaths) -> Result<Option<Self>, ClearError> {
        let Some((run, lock)) = enter_run(paths, LockMode::TryExclusive)? else {
            return Ok(None);
        };
        if somebody_listens(&run) {
            return Ok(None);
        }
        // A supervisor whose run directory was deleted still has its storage.
        let storage = match paths.existing_storage()? {
            None => None,
            Some(dir) => match Lock::on(dir, LockMode::TryExclusive) {
                Ok(Some(lock)) => Some(lock),
                _ => return Ok(None),
            },
        };
        Ok(Some(Self {
            paths,
            run,
            _lock: lock,
            _storage: storage,
        }))
    }

    fn set_aside(&self) -> Result<(), ClearError> {
        let path = self.paths.storage();
        storage::set_aside(path).map_err(|source| ClearError::Remove {
            path: path.to_owned(),
            source,
        })
    }

    /// Removes the storage directory if nothing is in it, and the run directory.
    /// Its lock goes last: who waits for it finds that it has no name, and makes
    /// a new one.
    fn remove_run(&self) -> Result<(), ClearError> {
        let _ = std::fs::remove_dir(self.paths.storage());
        forget(self.paths);
        let dir = self.paths.run();
        let failed = |e: rustix::io::Errno| ClearError::Remove {
            path: dir.to_owned(),
            source: e.into(),
        };
        for entry in rustix::fs::Dir::read_from(self.run.as_fd()).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b".." | b"lock") {
                continue;
            }
            let flags = match entry.file_type() {
                rustix::fs::FileType::Directory => AtFlags::REMOVEDIR,
                _ => AtFlags::empty(),
            };
            unlinkat(&self.run, name, flags).map_err(failed)?;
        }
        unlinkat(&self.run, "lock", AtFlags::empty()).map_err(failed)?;
        std::fs::remove_dir(dir).map_err(|source| ClearError::Remove {
            path: dir.to_owned(),
            source,
        })
    }
}
