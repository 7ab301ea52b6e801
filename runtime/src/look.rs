//! Looking into an image as a pod would see it, without running anything of it.
//!
//! Runs in a child process of a command, which enters the user namespace that
//! pods have and mounts the same overlay in a mount namespace of its own. Paths
//! are resolved within the image, as [`crate::rootfs`] does.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, unshare};
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};

use crate::error::chain;
use crate::idmap::{self, IdMap};
use crate::process;
use crate::rootfs::Rootfs;
use crate::supervisor::Overlay;

/// Why an image could not be looked into.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// No process could be made.
    #[error("cannot start the process that looks into the image")]
    Process(#[from] std::io::Error),
    /// The process failed, and says why.
    #[error("cannot look into the image: {0}")]
    Failed(String),
}

/// Those of `paths` that are there in the image of these layers, lowest first.
/// `work` is an empty directory on a file system that overlays can be on; it is
/// empty again afterwards.
///
/// The calling process must have a single thread.
///
/// # Errors
///
/// When the namespaces or the overlay cannot be had.
pub fn which_exist(
    map: &IdMap,
    layers: &[PathBuf],
    work: &Path,
    paths: &[&'static str],
) -> Result<Vec<&'static str>, LookError> {
    let said = process::in_child_saying(|| {
        idmap::enter(map).map_err(|e| chain(&e))?;
        let found = look(layers, work, paths);
        for name in ["merged", "upper", "work", "links"] {
            let _ = fs::remove_dir_all(work.join(name));
        }
        found
    })?;
    let said = said.map_err(LookError::Failed)?;
    let found = said.split(|b| *b == b'\n').collect::<Vec<_>>();
    let there = |path: &&&str| found.contains(&path.as_bytes());
    Ok(paths.iter().filter(there).copied().collect())
}

fn look(layers: &[PathBuf], work: &Path, paths: &[&str]) -> Result<Vec<u8>, String> {
    let failed = |what: &str, e: &dyn std::error::Error| format!("{what}: {}", chain(e));
    unshare(CloneFlags::CLONE_NEWNS).map_err(|e| failed("cannot make a mount namespace", &e))?;
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )
    .map_err(|e| failed("cannot keep mounts to itself", &e))?;
    let place = |name: &str| -> Result<PathBuf, String> {
        let dir = work.join(name);
        fs::create_dir(&dir).map_err(|e| failed(&format!("cannot make {}", dir.display()), &e))?;
        Ok(dir)
    };
    let (merged, upper, inner) = (place("merged")?, place("upper")?, place("work")?);
    let overlay = Overlay {
        lowers: layers,
        upper: &upper,
        work: &inner,
        kept: false,
    };
    overlay
        .mount(&merged, &place("links")?)
        .map_err(|e| chain(&e))?;
    let root = Rootfs::open(&merged).map_err(|e| failed("cannot open the image's root", &e))?;
    let found = paths.iter().filter(|path| root.exists(Path::new(path)));
    let said = found
        .map(|path| path.as_bytes())
        .collect::<Vec<_>>()
        .join(&b'\n');
    drop(root);
    unmount(&merged, UnmountFlags::DETACH).map_err(|e| failed("cannot unmount the image", &e))?;
    Ok(said)
}
