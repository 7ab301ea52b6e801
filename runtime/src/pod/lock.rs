//! Advisory locks that the kernel releases when their holder dies (`flock(2)`).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock, openat};

/// The lock's name in the run directory of its pod.
pub const NAME: &str = "lock";

/// How a lock is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMode {
    /// Beside others that share it; waits.
    Shared,
    /// Beside others that share it, or not at all.
    TryShared,
    /// Alone; waits.
    Exclusive,
    /// Alone, or not at all.
    TryExclusive,
}

/// A held lock; dropped, it is released.
#[derive(Debug)]
pub struct Lock {
    fd: OwnedFd,
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

    /// Takes the lock in a directory that is open, making it if it is missing.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened; `ENOENT`: the directory is removed.
    pub fn take_in(dir: impl AsFd, mode: LockMode) -> io::Result<Option<Self>> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Self::on(openat(dir, NAME, flags, Mode::RUSR | Mode::WUSR)?, mode)
    }

    /// Takes the lock in a directory that is open, if it is there.
    ///
    /// # Errors
    ///
    /// When the file is missing or cannot be opened.
    pub fn try_existing(dir: impl AsFd, mode: LockMode) -> io::Result<Option<Self>> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Self::on(openat(dir, NAME, flags, Mode::empty())?, mode)
    }

    /// Whether the file still has a name: others lock another one if not.
    #[must_use]
    pub fn has_name(&self) -> bool {
        rustix::fs::fstat(&self.fd).is_ok_and(|found| found.st_nlink > 0)
    }

    /// Takes the lock on an open file or directory.
    ///
    /// # Errors
    ///
    /// Those of `flock(2)`.
    pub fn on(fd: OwnedFd, mode: LockMode) -> io::Result<Option<Self>> {
        let operation = match mode {
            LockMode::Shared => FlockOperation::LockShared,
            LockMode::TryShared => FlockOperation::NonBlockingLockShared,
            LockMode::Exclusive => FlockOperation::LockExclusive,
            LockMode::TryExclusive => FlockOperation::NonBlockingLockExclusive,
        };
        loop {
            match flock(&fd, operation) {
                Ok(()) => return Ok(Some(Self { fd })),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
                Err(e) => return Err(e.into()),
            }
        }
    }
}

impl AsFd for Lock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
