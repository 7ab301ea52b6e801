//! Trying what pods need, for `podspawn doctor`.
//!
//! Runs in a process of its own, with a single thread, that has entered the
//! user's namespace ([`crate::idmap::enter`]) and ends afterwards: the mounts that
//! are tried go with it.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};

use crate::supervisor::Overlay;
use crate::sys;

/// Why a file system cannot hold pods.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The trial itself failed.
    #[error("cannot {0}")]
    Step(&'static str, #[source] io::Error),
    /// The kernel refused.
    #[error(transparent)]
    Mount(#[from] crate::supervisor::MountError),
    /// It mounted, and does not do what it should.
    #[error("a removed file left no whiteout")]
    NoWhiteout,
}

/// Mounts an overlay in the empty directory `dir`, as pods do, and removes a file
/// of its lower directory.
///
/// # Errors
///
/// What did not work.
pub fn overlay(dir: &Path) -> Result<(), ProbeError> {
    let step = |what| move |e: io::Error| ProbeError::Step(what, e);
    let [lower, upper, work, merged, scratch] =
        ["lower", "upper", "work", "merged", "scratch"].map(|name| dir.join(name));
    for path in [&lower, &upper, &work, &merged, &scratch] {
        fs::create_dir(path).map_err(step("make directories"))?;
    }
    fs::write(lower.join("file"), "").map_err(step("write a file"))?;
    sys::unshare_mounts().map_err(step("make a mount namespace"))?;
    mount_change(
        "/",
        MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
    )
    .map_err(|e| ProbeError::Step("make a mount namespace", e.into()))?;
    let lowers = [lower];
    let overlay = Overlay {
        lowers: &lowers,
        upper: &upper,
        work: &work,
        kept: false,
    };
    overlay.mount(&merged, &scratch)?;
    let removed = fs::remove_file(merged.join("file"));
    // Else the caller could not remove the directory.
    let unmounted = unmount(&merged, UnmountFlags::DETACH);
    removed.map_err(step("remove a file of a lower layer"))?;
    unmounted.map_err(|e| ProbeError::Step("unmount the overlay", e.into()))?;
    let whiteout = fs::symlink_metadata(upper.join("file")).map_err(step("find the whiteout"))?;
    if whiteout.file_type().is_char_device() && whiteout.rdev() == 0 {
        Ok(())
    } else {
        Err(ProbeError::NoWhiteout)
    }
}
