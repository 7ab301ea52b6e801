//! The workspace: where sessions begin, and the files of a project that outlive pods.
//!
//! Runs in the supervisor, once it is known who sessions are. A *copy* is an overlay of
//! its own over the kept directory: it is there at once, however large that is, and what
//! the pod changes stays in the pod. No pod but the one of its name has a workspace, so
//! nothing changes below the overlay while it is mounted, unless its user does that on the
//! host.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::kept::{self, KeptMount};
use super::mounts::{self, MountError, Overlay};
use super::{PodSpec, storage};
use crate::pod::SessionUser;

/// Where sessions begin, and what is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workspace {
    /// The directory inside, which is made if it is missing.
    pub at: PathBuf,
    /// Whose files are in it.
    pub files: WorkspaceFiles,
}

/// What is in a workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkspaceFiles {
    /// The pod's own: a directory of its root like others.
    Pod,
    /// This directory of the host's, made if it is missing.
    Kept(PathBuf),
    /// What is in it, made if it is missing; changes stay in the pod.
    Copied(PathBuf),
}

/// Why there is no workspace.
#[derive(Debug, thiserror::Error)]
pub enum WorkspaceError {
    /// A directory of it.
    #[error("cannot prepare the workspace {path}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The copy could not be mounted.
    #[error(transparent)]
    Mount(#[from] MountError),
}

/// Prepares the workspace and mounts it in `scratch`, which nobody else can reach;
/// `None` when it is the pod's own.
///
/// # Errors
///
/// When a directory cannot be made or is none, or the copy cannot be mounted.
pub fn prepare(
    spec: &PodSpec,
    user: &SessionUser,
    scratch: &Path,
) -> Result<Option<KeptMount>, WorkspaceError> {
    let Some(workspace) = &spec.workspace else {
        return Ok(None);
    };
    let (dir, is_copy) = match &workspace.files {
        WorkspaceFiles::Pod => return Ok(None),
        WorkspaceFiles::Kept(dir) => (dir, false),
        WorkspaceFiles::Copied(dir) => (dir, true),
    };
    let failed = |source| WorkspaceError::Directory {
        path: dir.clone(),
        source,
    };
    let opened = directory(dir, user).map_err(failed)?;
    let from = scratch.join("workspace");
    fs::create_dir(&from).map_err(failed)?;
    if is_copy {
        let lower = scratch.join("workspace.lower");
        fs::create_dir(&lower).map_err(failed)?;
        mounts::bind(&opened, &lower).map_err(failed)?;
        let (upper, work) =
            storage::copy(spec.paths.storage(), &lower, spec.keep_root).map_err(failed)?;
        let overlay = Overlay {
            lowers: &[lower],
            upper: &upper,
            work: &work,
            kept: spec.keep_root,
        };
        // Links of the root's overlay are in `scratch` itself.
        let links = scratch.join("workspace.links");
        fs::create_dir(&links).map_err(failed)?;
        overlay.mount(&from, &links)?;
    } else {
        mounts::bind(&opened, &from).map_err(failed)?;
    }
    Ok(Some(KeptMount {
        from,
        to: workspace.at.clone(),
    }))
}

/// The kept directory; those of all pods are in one that only the user can enter.
fn directory(dir: &Path, user: &SessionUser) -> io::Result<OwnedFd> {
    if let Some(all) = dir.parent() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(all)?;
    }
    kept::open_or_make(dir, user, 0o755, |_| Ok(()))
}
