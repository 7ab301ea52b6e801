//! The socket that X clients inside connect to. Runs in the keeper of a display.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;

use rustix::fs::{CWD, Gid, Mode, OFlags, Uid, fchmod, fchown, mkdirat, openat};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};

/// Where X clients look for the sockets of displays.
const DIR: &str = "/tmp/.X11-unix";

/// How many numbers are tried from the first.
const TRIES: u16 = 200;

/// A listening socket.
#[derive(Debug)]
pub struct Listener {
    /// The socket.
    pub socket: OwnedFd,
    /// Its path inside.
    pub path: PathBuf,
    /// The display's number inside.
    pub number: u16,
}

/// Makes the directory of the sockets if it is missing, as X servers want it:
/// root's where there is one, and anybody may make a socket in it.
///
/// Called with the container root's rights.
pub fn make_directory(has_root: bool) -> Result<(), String> {
    for dir in ["/tmp", DIR] {
        let made = match mkdirat(CWD, dir, Mode::from_raw_mode(0o700)) {
            Ok(()) => claim(dir, has_root),
            Err(Errno::EXIST) => Ok(()),
            Err(e) => Err(e),
        };
        made.map_err(|e| format!("cannot make {dir} inside: {e}"))?;
    }
    Ok(())
}

fn claim(dir: &str, has_root: bool) -> rustix::io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = openat(CWD, dir, flags, Mode::empty())?;
    if has_root {
        fchown(&fd, Some(Uid::ROOT), Some(Gid::ROOT))?;
    }
    fchmod(&fd, Mode::from_raw_mode(0o1777))
}

impl Listener {
    /// Listens for display `wanted`, or the next that is free, as the caller, who is
    /// `user`; with the caller's umask nobody else may connect.
    pub fn open(wanted: u16, user: u32) -> Result<Self, String> {
        for number in wanted..=wanted.saturating_add(TRIES) {
            let path = PathBuf::from(format!("{DIR}/X{number}"));
            let opened = match open(&path) {
                Err(Errno::ADDRINUSE) if is_left_over(&path, user) => {
                    let _ = std::fs::remove_file(&path);
                    open(&path)
                }
                opened => opened,
            };
            match opened {
                Ok(socket) => {
                    return Ok(Self {
                        socket,
                        path,
                        number,
                    });
                }
                Err(Errno::ADDRINUSE) => {}
                Err(e) => {
                    let e = io::Error::from(e);
                    return Err(format!("cannot listen on {} inside: {e}", path.display()));
                }
            }
        }
        Err(format!("{DIR} inside has no free number from {wanted} on"))
    }
}

fn open(path: &PathBuf) -> rustix::io::Result<OwnedFd> {
    let socket = stream()?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    listen(&socket, 128)?;
    Ok(socket)
}

fn stream() -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

/// Whether it is the user's own, and nobody listens any more: the keeper was killed.
fn is_left_over(path: &PathBuf, user: u32) -> bool {
    let own = std::fs::symlink_metadata(path)
        .is_ok_and(|found| found.file_type().is_socket() && found.uid() == user);
    let refused = || {
        let address = SocketAddrUnix::new(path)?;
        connect(&stream()?, &address)
    };
    own && refused() == Err(Errno::CONNREFUSED)
}
