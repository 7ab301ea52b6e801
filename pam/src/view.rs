//! What the post-auth child sees once it is in the pod's network: the host's
//! files, but for those that say how names are resolved.
//!
//! Runs in the child, as root, right before it becomes the user for good. The
//! mount namespace is private and nosuid throughout: else a setuid program would
//! run as the host's root with names and a network that the user decides on.

#![forbid(unsafe_code)]

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;

use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, unmount,
};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use crate::descriptors::MOST;
use crate::helper::Network;
use crate::{nsswitch, sys};

/// What failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}: {source}")]
pub struct ViewError {
    what: &'static str,
    source: io::Error,
}

fn doing<E: Into<io::Error>>(what: &'static str) -> impl Fn(E) -> ViewError {
    move |e| ViewError {
        what,
        source: e.into(),
    }
}

/// Where a tmpfs is mounted while files are taken from it: a directory that
/// every host has. Nobody else sees this namespace.
const STAGE: &str = "/tmp";

/// The name service cache would answer with the host's names.
const CACHES: [&str; 2] = ["/run/nscd", "/var/run/nscd"];

/// Enters the pod's network, with its names.
///
/// # Errors
///
/// The step that failed. The process is in an undefined place then, and must end.
pub fn enter(network: &Network) -> Result<(), ViewError> {
    let names = nsswitch::for_pod(&host_nsswitch().map_err(doing("read /etc/nsswitch.conf"))?);
    leave_mounts()?;
    names_of_pod(&network.hosts, &network.resolv, &names)?;
    for cache in CACHES {
        if Path::new(cache).is_dir() {
            tmpfs(cache).map_err(doing("hide the name service cache"))?;
        }
    }
    sys::make_nosuid().map_err(doing("make the mounts nosuid"))?;
    move_into_link_name_space(network.namespace.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(doing("enter the pod's network"))
}

/// Enters a network namespace with nothing in it, in as restricted a view.
///
/// # Errors
///
/// As [`enter`].
pub fn isolate() -> Result<(), ViewError> {
    leave_mounts()?;
    sys::make_nosuid().map_err(doing("make the mounts nosuid"))?;
    sys::unshare(UnshareFlags::NEWNET).map_err(doing("leave the host's network"))
}

/// Nothing that is mounted here is seen elsewhere, and nothing from elsewhere
/// comes here later: it would not be nosuid.
fn leave_mounts() -> Result<(), ViewError> {
    sys::unshare(UnshareFlags::NEWNS).map_err(doing("leave the host's mounts"))?;
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )
    .map_err(doing("make the mounts private"))
}

fn host_nsswitch() -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match File::open("/etc/nsswitch.conf") {
        Ok(file) => file.take(MOST as u64).read_to_end(&mut bytes)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => 0,
        Err(e) => return Err(e),
    };
    Ok(bytes)
}

fn tmpfs(on: &str) -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let options = c"mode=0755,uid=0,gid=0,size=512k";
    Ok(mount("podspawn", on, "tmpfs", flags, Some(options))?)
}

/// Puts the pod's files in the place of the host's.
fn names_of_pod(hosts: &[u8], resolv: &[u8], nsswitch: &[u8]) -> Result<(), ViewError> {
    tmpfs(STAGE).map_err(doing("mount a tmpfs"))?;
    for (name, content) in [
        ("hosts", hosts),
        ("resolv.conf", resolv),
        ("nsswitch.conf", nsswitch),
    ] {
        let target = format!("/etc/{name}");
        // Where the host has none, there is nothing that could answer wrongly.
        if !fs::metadata(&target).is_ok_and(|found| found.is_file()) {
            continue;
        }
        let source = Path::new(STAGE).join(name);
        write(&source, content).map_err(doing("write the pod's names"))?;
        mount_bind(&source, &target).map_err(doing("show the pod's names"))?;
    }
    unmount(STAGE, UnmountFlags::DETACH).map_err(doing("unmount the tmpfs"))
}

fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(path)?;
    fchown(&file, Some(0), Some(0))?;
    file.set_permissions(fs::Permissions::from_mode(0o644))?;
    file.write_all(content)
}
