//! Trying what pods need, for `podspawn doctor`.
//!
//! Runs in a process of its own, with a single thread, that ends afterwards: the
//! mounts that are tried go with it. For [`overlay`] it has entered the user's
//! namespace ([`crate::idmap::enter`]).

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount,
};
use rustix::process::{WaitOptions, waitpid};

use crate::supervisor::Overlay;
use crate::sys::{self, Cloned, NamespaceFlags};

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
    keep_from_the_host().map_err(step("make a mount namespace"))?;
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

fn keep_from_the_host() -> io::Result<()> {
    let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    Ok(mount_change("/", slave)?)
}

/// What a container mounts of the kernel's own, each of which it may refuse by itself.
const KINDS: [&str; 6] = ["proc", "sysfs", "cgroup2", "devpts", "mqueue", "tmpfs"];

/// Mounts one of each kind on the directory `on`, from namespaces like a pod's, and says in a
/// line each which the kernel refuses. None of them is seen by anybody else.
///
/// # Errors
///
/// When there are no such namespaces.
pub fn refused_mounts(on: &Path) -> io::Result<Vec<String>> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    match sys::clone_into(NamespaceFlags::POD)? {
        Cloned::Child => {
            drop(read);
            let said = refused_here(on).unwrap_or_default();
            let _ = File::from(write).write_all(said.as_bytes());
            sys::exit(0)
        }
        Cloned::Parent { pid, .. } => {
            drop(write);
            let mut said = String::new();
            File::from(read).read_to_string(&mut said)?;
            waitpid(Some(pid), WaitOptions::empty())?;
            Ok(said.lines().map(str::to_owned).collect())
        }
    }
}

fn refused_here(on: &Path) -> io::Result<String> {
    // The kernel shows of sysfs and cgroup2 what belongs to these.
    sys::unshare_network()?;
    sys::unshare_cgroup()?;
    keep_from_the_host()?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let mut said = String::new();
    for kind in KINDS {
        let done =
            mount(kind, on, kind, flags, None).and_then(|()| unmount(on, UnmountFlags::DETACH));
        if let Err(e) = done {
            let _ = writeln!(said, "{kind}: {}", io::Error::from(e));
        }
    }
    Ok(said)
}
