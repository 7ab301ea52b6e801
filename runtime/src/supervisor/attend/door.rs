//! Where sessions come in: the listening socket, and its name in the run directory.
//!
//! A run directory can go away under a live pod: it lies in `/tmp`, or belongs to a
//! login session that ended. The door notices, and makes both anew.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::fs::{AtFlags, fstat, stat, statat};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};

use crate::pod::{Connection, Lock, LockMode, PodPaths};
use crate::supervisor::setup::listen_in;

/// How long to let those wait who cannot be let in for want of descriptors.
const FULL: Duration = Duration::from_millis(100);

/// The open door; closed, it is gone for good.
pub struct Door {
    listener: Option<OwnedFd>,
    run: OwnedFd,
    /// Tells when a name in the run directory goes. Without it nothing is noticed.
    watch: Option<OwnedFd>,
    /// Nobody can be let in before then.
    full_until: Option<Instant>,
}

/// A session is about to come in.
pub struct Occupied;

impl Door {
    pub fn new(listener: OwnedFd, run: OwnedFd) -> Self {
        Self {
            listener: Some(listener),
            watch: watch(&run).ok(),
            run,
            full_until: None,
        }
    }

    /// What to wait for: somebody who knocks, or the moment to look again.
    pub fn interest(&self) -> Result<BorrowedFd<'_>, Option<Instant>> {
        match (&self.listener, self.full_until) {
            (Some(listener), None) => Ok(listener.as_fd()),
            (Some(_), Some(until)) => Err(Some(until)),
            (None, _) => Err(None),
        }
    }

    /// What tells that the run directory may have gone.
    pub fn watch(&self) -> Option<BorrowedFd<'_>> {
        self.watch.as_ref().map(AsFd::as_fd)
    }

    /// Makes the run directory and the socket anew if they are gone; says whether
    /// it did.
    ///
    /// # Errors
    ///
    /// When nobody can come in any more.
    pub fn restore(&mut self, paths: &PodPaths) -> io::Result<bool> {
        if let Some(watch) = &self.watch {
            let mut space = [MaybeUninit::uninit(); 4096];
            let mut events = inotify::Reader::new(watch, &mut space);
            while events.next().is_ok() {}
        }
        if self.listener.is_none() || self.has_name(paths) {
            return Ok(false);
        }
        let run = paths.open_run().map_err(io::Error::other)?;
        self.listener = Some(listen_in(&run)?);
        self.watch = watch(&run).ok();
        self.run = run;
        Ok(true)
    }

    fn has_name(&self, paths: &PodPaths) -> bool {
        let same = match (fstat(&self.run), stat(paths.run())) {
            (Ok(ours), Ok(there)) => (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino),
            _ => false,
        };
        same && statat(&self.run, "control", AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// Takes every connection that waits, if it is of the user `uid`.
    pub fn accept(&mut self, uid: u32) -> Vec<Connection> {
        let mut came = Vec::new();
        self.full_until = None;
        let Some(listener) = &self.listener else {
            return came;
        };
        loop {
            match accept_with(listener, SocketFlags::CLOEXEC) {
                // The run directory keeps others out; this does too.
                // (Not rustix': a peer outside of this pid namespace has no pid.)
                Ok(fd) => {
                    if getsockopt(&fd, PeerCredentials).is_ok_and(|peer| peer.uid() == uid) {
                        came.push(Connection::from_fd(fd));
                    }
                }
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS) => {
                    self.full_until = Some(Instant::now() + FULL);
                    return came;
                }
                Err(_) => return came,
            }
        }
    }

    /// Takes the pod lock, which keeps everybody from coming in.
    ///
    /// # Errors
    ///
    /// When somebody is about to.
    pub fn guard(&self, paths: &PodPaths) -> Result<Option<Lock>, Occupied> {
        match Lock::take(&paths.lock(), LockMode::TryExclusive) {
            Ok(Some(lock)) => Ok(Some(lock)),
            Ok(None) => Err(Occupied),
            // Without a run directory nobody can come in.
            Err(_) => Ok(None),
        }
    }

    /// Takes the name away and turns those off who still wait: they look for a
    /// pod again, and find none.
    pub fn close(&mut self) {
        if self.listener.take().is_some() {
            let _ = rustix::fs::unlinkat(&self.run, "control", rustix::fs::AtFlags::empty());
        }
    }
}

fn watch(run: &OwnedFd) -> io::Result<OwnedFd> {
    let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    let path = format!("/proc/self/fd/{}", run.as_raw_fd());
    let gone = WatchFlags::DELETE | WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF;
    inotify::add_watch(&watch, path, gone | WatchFlags::ONLYDIR)?;
    Ok(watch)
}
