//! Where a pod's state lives.
//!
//! ```text
//! RUN/NAME/lock      pod lock                      RUN: $XDG_RUNTIME_DIR/podspawn, or a
//!          control   the supervisor's socket            checked 0700 directory in /tmp
//!          log       what the supervisor did; log.1, what was in it before
//!          scratch/  mount point of its own tmpfs, empty on the host
//! STORE/pods/NAME/upper, work     the writable part, gone with the pod
//!                 kept/           or kept for the next pod of that name
//!                 home/           a home that is kept
//!                 dead.*          what a crash left, removed by the next supervisor
//! STORE/pods/.claims/NAME         one a live pod, to count them
//! ```

use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};

use super::PodName;

/// The directory that holds the run directories of all of a user's pods.
#[derive(Clone, Debug)]
pub struct RunDir(PathBuf);

/// Why a directory of podspawn's cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PathsError {
    /// It could not be made or looked at.
    #[error("cannot use the directory {path}")]
    Io {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Somebody else could change what is in it.
    #[error(
        "{path} must be a directory that belongs to uid {uid} and that nobody else can write; remove it or correct its mode"
    )]
    NotOurs {
        /// The directory.
        path: PathBuf,
        /// Who should own it.
        uid: u32,
    },
}

impl RunDir {
    /// Chooses, makes and checks the run directory of `uid`.
    ///
    /// `xdg` is `$XDG_RUNTIME_DIR`. Where it is unset, `/run/user/UID` is taken
    /// if it is there, so that sessions with and without it meet in one pod.
    ///
    /// # Errors
    ///
    /// When the directory cannot be made or is not the user's alone.
    pub fn of_user(xdg: Option<&Path>, uid: u32) -> Result<Self, PathsError> {
        let systemd = PathBuf::from(format!("/run/user/{uid}"));
        let base = xdg
            .filter(|p| p.is_absolute())
            .map(Path::to_path_buf)
            .or_else(|| {
                fs::metadata(&systemd)
                    .is_ok_and(|m| m.uid() == uid)
                    .then_some(systemd)
            });
        let dir = match base {
            Some(base) => base.join("podspawn"),
            None => PathBuf::from(format!("/tmp/podspawn-{uid}")),
        };
        private_dir(&dir, uid)?;
        Ok(Self(dir))
    }

    /// The one at `path`, which was chosen before.
    ///
    /// # Errors
    ///
    /// When it is not the user's alone.
    pub fn at(path: &Path, uid: u32) -> Result<Self, PathsError> {
        private_dir(path, uid)?;
        Ok(Self(path.to_path_buf()))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

/// Makes `path` if it is missing, and refuses it unless it belongs to `uid`
/// alone: in `/tmp` somebody else may have been first.
fn private_dir(path: &Path, uid: u32) -> Result<(), PathsError> {
    let io = |source| PathsError::Io {
        path: path.to_path_buf(),
        source,
    };
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        Err(e) => return Err(io(e)),
    }
    check(path, uid)
}

/// Refuses a directory unless it belongs to `uid` alone.
fn check(path: &Path, uid: u32) -> Result<(), PathsError> {
    let found = fs::symlink_metadata(path).map_err(|source| PathsError::Io {
        path: path.to_path_buf(),
        source,
    })?;
    if found.is_dir() && found.uid() == uid && found.mode() & 0o022 == 0 {
        return Ok(());
    }
    Err(PathsError::NotOurs {
        path: path.to_path_buf(),
        uid,
    })
}

/// The places of one pod.
#[derive(Clone, Debug)]
pub struct PodPaths {
    /// The pod.
    pub name: PodName,
    run: PathBuf,
    storage: PathBuf,
}

impl PodPaths {
    /// The places of `name` below the run directory and the store's root.
    #[must_use]
    pub fn new(run: &RunDir, store: &Path, name: PodName) -> Self {
        let storage = store.join("pods").join(name.as_str());
        Self {
            run: run.0.join(name.as_str()),
            storage,
            name,
        }
    }

    /// Makes the run directory of the pod, and opens it.
    ///
    /// # Errors
    ///
    /// When it cannot be made or is not the caller's alone.
    pub fn open_run(&self) -> Result<OwnedFd, PathsError> {
        let uid = rustix::process::getuid().as_raw();
        match private_dir(&self.run, uid) {
            // Somebody removed the directory of all pods.
            Err(PathsError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                if let Some(all) = self.run.parent() {
                    private_dir(all, uid)?;
                }
                private_dir(&self.run, uid)?;
            }
            made => made?,
        }
        open_dir(&self.run)
    }

    /// Opens the run directory of the pod if it is there.
    ///
    /// # Errors
    ///
    /// When it is not the caller's alone.
    pub fn existing_run(&self) -> Result<Option<OwnedFd>, PathsError> {
        existing_dir(&self.run)
    }

    /// Opens the storage directory of the pod if it is there.
    ///
    /// # Errors
    ///
    /// When it is not the caller's alone.
    pub fn existing_storage(&self) -> Result<Option<OwnedFd>, PathsError> {
        existing_dir(&self.storage)
    }

    /// Makes the storage directory of the pod, and opens it.
    ///
    /// # Errors
    ///
    /// When it cannot be made or is not the caller's alone.
    pub fn open_storage(&self) -> Result<OwnedFd, PathsError> {
        if let Some(pods) = self.storage.parent() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(pods)
                .map_err(|source| PathsError::Io {
                    path: pods.to_path_buf(),
                    source,
                })?;
        }
        private_dir(&self.storage, rustix::process::getuid().as_raw())?;
        open_dir(&self.storage)
    }

    /// The run directory.
    #[must_use]
    pub fn run(&self) -> &Path {
        &self.run
    }

    /// The pod lock.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.run.join("lock")
    }

    /// The supervisor's log.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.run.join("log")
    }

    /// What was in the log before it grew too long.
    #[must_use]
    pub fn old_log(&self) -> PathBuf {
        self.run.join("log.1")
    }

    /// The mount point of the supervisor's tmpfs.
    #[must_use]
    pub fn scratch(&self) -> PathBuf {
        self.run.join("scratch")
    }

    /// The directory with the claims of all of the user's pods.
    #[must_use]
    pub fn claims(&self) -> PathBuf {
        self.storage.with_file_name(".claims")
    }

    /// A persistent home, where the administrator gave no other place.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        self.storage.join("home")
    }

    /// The directory with the upper and work directories.
    #[must_use]
    pub fn storage(&self) -> &Path {
        &self.storage
    }
}

fn existing_dir(path: &Path) -> Result<Option<OwnedFd>, PathsError> {
    match check(path, rustix::process::getuid().as_raw()).and_then(|()| open_dir(path)) {
        Ok(dir) => Ok(Some(dir)),
        Err(PathsError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn open_dir(path: &Path) -> Result<OwnedFd, PathsError> {
    rustix::fs::openat(
        CWD,
        path,
        OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|e| PathsError::Io {
        path: path.to_path_buf(),
        source: e.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_directory_that_others_can_write_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let uid = rustix::process::getuid().as_raw();
        let run = RunDir::of_user(Some(dir.path()), uid).unwrap();
        assert_eq!(run.path(), dir.path().join("podspawn"));
        fs::set_permissions(run.path(), fs::Permissions::from_mode(0o770)).unwrap();
        let error = RunDir::of_user(Some(dir.path()), uid).unwrap_err();
        assert!(matches!(error, PathsError::NotOurs { .. }), "{error}");
    }

    #[test]
    fn a_symlink_in_the_place_of_the_directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("elsewhere")).unwrap();
        std::os::unix::fs::symlink("elsewhere", dir.path().join("podspawn")).unwrap();
        let uid = rustix::process::getuid().as_raw();
        assert!(RunDir::of_user(Some(dir.path()), uid).is_err());
    }
}
