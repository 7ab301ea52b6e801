//! Whether the descriptors that a user's process sent are what they should be.
//!
//! The user can make that process send anything. A file of a file system of
//! theirs could make every question about it wait for ever; so the first look is
//! at what the kernel itself says of a descriptor (`/proc/self/fd`), which for a
//! namespace or a socket no file can imitate, because it is no path.

#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::fs::read_link;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{Mode, OFlags, SealFlags, fcntl_get_seals, fstat, open};

use crate::sys;

/// Largest file of names that is taken over, in bytes.
pub const MOST: usize = 64 << 10;

/// Why a descriptor is refused.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It is something else.
    #[error("it sent {got:?} instead of {wanted}")]
    Kind {
        /// What it should be.
        wanted: &'static str,
        /// What the kernel calls it.
        got: OsString,
    },
    /// It is the network of the host.
    #[error("it sent the host's own network")]
    Host,
    /// It belongs to somebody else.
    #[error("it sent a network namespace of uid {0}")]
    Owner(u32),
    /// A file of names could still be changed.
    #[error("it sent a file that can change")]
    Unsealed,
    /// A file of names is too large.
    #[error("it sent a file larger than 64 KiB")]
    Large,
    /// The kernel did not answer.
    #[error("cannot examine what it sent: {0}")]
    Io(#[from] io::Error),
}

impl From<rustix::io::Errno> for Refused {
    fn from(e: rustix::io::Errno) -> Self {
        Self::Io(e.into())
    }
}

/// Accepts a network namespace whose user namespace `uid` has made, and that is
/// not the one of this process.
pub fn check_network(fd: &OwnedFd, uid: u32) -> Result<(), Refused> {
    let wanted = "a network namespace";
    let own = read_link("/proc/self/ns/net")?;
    let got = named(fd, b"net:[", wanted)?;
    if got == own.as_os_str() {
        return Err(Refused::Host);
    }
    if sys::namespace_type(fd.as_fd())? != libc::CLONE_NEWNET {
        return Err(Refused::Kind { wanted, got });
    }
    // The number in the name is of this boot's namespaces, so this is the same once more.
    let here = open(
        "/proc/self/ns/net",
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let (a, b) = (fstat(&here)?, fstat(fd)?);
    if (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino) {
        return Err(Refused::Host);
    }
    match sys::namespace_owner(fd.as_fd())? {
        owner if owner == uid => Ok(()),
        owner => Err(Refused::Owner(owner)),
    }
}

/// Accepts a socket.
pub fn check_lease(fd: &OwnedFd) -> Result<(), Refused> {
    named(fd, b"socket:[", "a socket").map(drop)
}

/// The content of a sealed memory file.
pub fn read_sealed(fd: &OwnedFd) -> Result<Vec<u8>, Refused> {
    // Answered without the file system's help, and only for memory.
    let Ok(seals) = fcntl_get_seals(fd) else {
        let got = name_of(fd)?;
        let wanted = "a sealed memory file";
        return Err(Refused::Kind { wanted, got });
    };
    if !seals.contains(SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK) {
        return Err(Refused::Unsealed);
    }
    let mut bytes = vec![0; MOST + 1];
    let mut filled = 0;
    while filled < bytes.len() {
        match rustix::io::pread(fd, &mut bytes[filled..], filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    if filled > MOST {
        return Err(Refused::Large);
    }
    bytes.truncate(filled);
    Ok(bytes)
}

fn named(fd: &OwnedFd, prefix: &[u8], wanted: &'static str) -> Result<OsString, Refused> {
    let got = name_of(fd)?;
    if got.as_bytes().starts_with(prefix) {
        Ok(got)
    } else {
        Err(Refused::Kind { wanted, got })
    }
}

fn name_of(fd: &OwnedFd) -> io::Result<OsString> {
    read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{MemfdFlags, fcntl_add_seals, memfd_create};
    use std::fs::File;

    fn uid() -> u32 {
        rustix::process::getuid().as_raw()
    }

    fn file(path: &str) -> OwnedFd {
        File::open(path).unwrap().into()
    }

    fn memory(bytes: &[u8], seals: SealFlags) -> OwnedFd {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd = memfd_create("names", flags).unwrap();
        rustix::io::write(&fd, bytes).unwrap();
        fcntl_add_seals(&fd, seals).unwrap();
        fd
    }

    #[test]
    fn the_hosts_network_is_refused() {
        let refused = check_network(&file("/proc/self/ns/net"), uid()).unwrap_err();
        assert!(matches!(refused, Refused::Host), "{refused}");
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for path in [
            "/proc/self/ns/user",
            "/proc/self/ns/mnt",
            "/dev/null",
            "/proc/self/status",
            "/",
        ] {
            let refused = check_network(&file(path), uid()).unwrap_err();
            assert!(matches!(refused, Refused::Kind { .. }), "{path}: {refused}");
            assert!(check_lease(&file(path)).is_err());
        }
    }

    #[test]
    fn names_come_from_sealed_memory_alone() {
        let all = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK;
        assert_eq!(
            read_sealed(&memory(b"127.0.0.1 x\n", all)).unwrap(),
            b"127.0.0.1 x\n"
        );
        assert_eq!(read_sealed(&memory(b"", all)).unwrap(), b"");
        let whole = vec![b'#'; MOST];
        assert_eq!(read_sealed(&memory(&whole, all)).unwrap().len(), MOST);
        let large = read_sealed(&memory(&vec![b'#'; MOST + 1], all)).unwrap_err();
        assert!(matches!(large, Refused::Large), "{large}");
        let open = read_sealed(&memory(b"x", SealFlags::GROW)).unwrap_err();
        assert!(matches!(open, Refused::Unsealed), "{open}");
        for path in ["/proc/self/status", "/dev/zero", "/proc/self/ns/net"] {
            assert!(matches!(
                read_sealed(&file(path)),
                Err(Refused::Kind { .. })
            ));
        }
    }
}
