//! Advisory locks that the kernel releases when their holder dies (`flock(2)`).

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock, openat};

/// How a lock is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMode {
    /// Beside others that share it; waits.
    Shared,
    /// Alone; waits.
    Exclusive,
    /// Alone, or not at all.
    TryExclusive,
}

/// A held lock; dropped, it is released.
#[derive(Debug)]
pub struct Lock {
    _fd: OwnedFd,
}

impl Lock {
    /// Takes the lock file at `path`, making it if it is missing. `None`: it was
    /// to be tried only, and somebody has it.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened.
    pub fn take(path: &Path, mode: LockMode) -> io::Result<Option<Self>> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Self::on(openat(CWD, path, flags, Mode::RUSR | Mode::WUSR)?, mode)
    }

    /// Takes the lock on an open file or directory.
    ///
    /// # Errors
    ///
    /// Those of `flock(2)`.
    pub fn on(fd: OwnedFd, mode: LockMode) -> io::Result<Option<Self>> {
        let operation = match mode {
            LockMode::Shared => FlockOperation::LockShared,
            LockMode::Exclusive => FlockOperation::LockExclusive,
            LockMode::TryExclusive => FlockOperation::NonBlockingLockExclusive,
        };
        loop {
            match flock(&fd, operation) {
                Ok(()) => return Ok(Some(Self { _fd: fd })),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
                Err(e) => return Err(e.into()),
            }
        }
    }
}
