//! A pod's network as processes outside of the container use it: sshd's child
//! behind the session module, and an unprivileged sshd.
//!
//! Runs in a process of the user's on the host, which may look at the namespaces
//! and the root of the pod's processes because it made the pod's user namespace.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::fstat;

use super::Attached;
use crate::process::pid_of;
use crate::rootfs::Rootfs;
use crate::sys;

/// Largest file of names that is handed on, in bytes.
const MOST: usize = 64 << 10;

/// The network of a live pod, and the names that are known in it.
#[derive(Debug)]
pub struct PodNetwork {
    /// The network namespace.
    pub namespace: OwnedFd,
    /// Content of the container's `/etc/hosts`; empty if there is none.
    pub hosts: Vec<u8>,
    /// Content of its `/etc/resolv.conf`; empty if there is none.
    pub resolv: Vec<u8>,
}

impl PodNetwork {
    /// Looks at the pod that `attached` is attached to.
    ///
    /// # Errors
    ///
    /// When the pod is gone, or `/proc` does not show it.
    pub fn of(attached: &Attached) -> io::Result<Self> {
        let pid = pid_of(&attached.init).ok_or_else(gone)?;
        let proc = PathBuf::from(format!("/proc/{}", pid.as_raw_pid()));
        let namespace = File::open(proc.join("ns/net"))?.into();
        let root = Rootfs::open(&proc.join("root"))?;
        // Had it ended, the number could be another process's by now.
        if pid_of(&attached.init) != Some(pid) {
            return Err(gone());
        }
        Ok(Self {
            namespace,
            hosts: names(&root, "/etc/hosts"),
            resolv: names(&root, "/etc/resolv.conf"),
        })
    }
}

fn gone() -> io::Error {
    io::Error::other("the pod ended")
}

/// The container's root may have put anything there: what cannot be read is left out, for
/// otherwise it would keep the user from coming in to put it right.
fn names(root: &Rootfs, path: &str) -> Vec<u8> {
    let mut bytes = root
        .read(Path::new(path))
        .ok()
        .flatten()
        .unwrap_or_default();
    if bytes.len() > MOST {
        let lines = bytes[..MOST].iter().rposition(|b| *b == b'\n');
        bytes.truncate(lines.map_or(0, |last| last + 1));
    }
    bytes
}

/// Whether this process is in the network of a pod although it is none of its
/// processes: behind the session module. There no pod can be made: its network
/// would hang on this one's, and the mounts are nosuid, so that newuidmap cannot
/// work.
#[must_use]
pub fn is_behind_module() -> bool {
    let same = || -> io::Result<bool> {
        let network = File::open("/proc/self/ns/net")?;
        let (owner, own) = (
            sys::namespace_user(network.as_fd())?,
            File::open("/proc/self/ns/user")?,
        );
        let (a, b) = (fstat(&owner)?, fstat(&own)?);
        Ok((a.st_dev, a.st_ino) == (b.st_dev, b.st_ino))
    };
    // Refused where the network belongs to somebody above, as in a container
    // that shares the host's.
    !same().unwrap_or(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_long_file_whole_lines_are_taken_and_of_no_file_none() {
        let dir = tempfile::tempdir().unwrap();
        let root = Rootfs::open(dir.path()).unwrap();
        let line = b"192.0.2.1 some.name.of.somebody\n";
        std::fs::write(dir.path().join("hosts"), line.repeat(10_000)).unwrap();
        std::fs::write(dir.path().join("comment"), vec![b'#'; MOST + 1]).unwrap();
        std::fs::create_dir(dir.path().join("dir")).unwrap();
        let hosts = names(&root, "/hosts");
        assert_eq!(hosts, line.repeat(MOST / line.len()));
        for other in ["/comment", "/dir", "/missing"] {
            assert!(names(&root, other).is_empty(), "{other}");
        }
    }
}
