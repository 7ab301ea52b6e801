//! File attributes (draft-ietf-secsh-filexfer-02, section 5): between the wire,
//! `stat` and the calls that change them. Runs in `sftp-server`.
//!
//! Applying attributes goes on after a part that failed, and reports the first
//! failure; the owner is changed before the mode, because changing it clears setuid
//! bits, and the times last, because all else may touch them.

use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use super::reply::Put;
use super::wire::{Reader, Short};

const SIZE: u32 = 0x01;
const UIDGID: u32 = 0x02;
const PERMISSIONS: u32 = 0x04;
const ACMODTIME: u32 = 0x08;
const EXTENDED: u32 = 0x8000_0000;

/// The attributes that a packet carries; what is `None` is not stated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attrs {
    /// Size in bytes.
    pub size: Option<u64>,
    /// Owner and group.
    pub owner: Option<(u32, u32)>,
    /// `st_mode`: permissions, and towards the client the file type too.
    pub mode: Option<u32>,
    /// Times of last access and modification, in seconds of the epoch.
    pub times: Option<(u32, u32)>,
}

impl Attrs {
    /// Decodes attributes; extended ones are skipped.
    ///
    /// # Errors
    /// They reach beyond the packet.
    pub fn decode(r: &mut Reader<'_>) -> Result<Self, Short> {
        let flags = r.u32()?;
        let mut attrs = Self::default();
        if flags & SIZE != 0 {
            attrs.size = Some(r.u64()?);
        }
        if flags & UIDGID != 0 {
            attrs.owner = Some((r.u32()?, r.u32()?));
        }
        if flags & PERMISSIONS != 0 {
            attrs.mode = Some(r.u32()?);
        }
        if flags & ACMODTIME != 0 {
            attrs.times = Some((r.u32()?, r.u32()?));
        }
        if flags & EXTENDED != 0 {
            // Every pair takes eight bytes of the packet, which ends the loop early
            // enough whatever the count claims.
            for _ in 0..r.u32()? {
                r.string()?;
                r.string()?;
            }
        }
        Ok(attrs)
    }

    /// Appends the attributes to a reply.
    pub fn encode(&self, out: &mut impl Put) {
        let flag = |present: bool, flag: u32| if present { flag } else { 0 };
        out.put_u32(
            flag(self.size.is_some(), SIZE)
                | flag(self.owner.is_some(), UIDGID)
                | flag(self.mode.is_some(), PERMISSIONS)
                | flag(self.times.is_some(), ACMODTIME),
        );
        if let Some(size) = self.size {
            out.put_u64(size);
        }
        if let Some((uid, gid)) = self.owner {
            out.put_u32(uid);
            out.put_u32(gid);
        }
        if let Some(mode) = self.mode {
            out.put_u32(mode);
        }
        if let Some((accessed, modified)) = self.times {
            out.put_u32(accessed);
            out.put_u32(modified);
        }
    }

    /// Permission bits for a new file or directory, or `default` where none are
    /// stated.
    pub fn new_mode(&self, default: u32) -> Mode {
        Mode::from_raw_mode(self.mode.unwrap_or(default) & 0o7777)
    }

    /// Changes what is open as `fd`.
    ///
    /// # Errors
    /// The first change that failed.
    pub fn apply_to_fd(&self, fd: BorrowedFd<'_>) -> Result<(), Errno> {
        let size = self.size.map(|size| rustix::fs::ftruncate(fd, size));
        let owner = self.owner.map(|owner| {
            let (uid, gid) = ids(owner);
            rustix::fs::fchown(fd, uid, gid)
        });
        let mode = self.mode.map(|_| rustix::fs::fchmod(fd, self.new_mode(0)));
        let times = self
            .times
            .map(|times| rustix::fs::futimens(fd, &timestamps(times)));
        first_error([size, owner, mode, times])
    }

    /// Changes what `path` leads to.
    ///
    /// # Errors
    /// The first change that failed.
    pub fn apply_to_path(&self, path: &[u8]) -> Result<(), Errno> {
        let none = AtFlags::empty();
        let size = self.size.map(|size| truncate(path, size));
        let owner = self.owner.map(|owner| {
            let (uid, gid) = ids(owner);
            rustix::fs::chownat(CWD, path, uid, gid, none)
        });
        let mode = self
            .mode
            .map(|_| rustix::fs::chmodat(CWD, path, self.new_mode(0), none));
        let times = self
            .times
            .map(|times| rustix::fs::utimensat(CWD, path, &timestamps(times), none));
        first_error([size, owner, mode, times])
    }

    /// Changes `path` itself, though it may be a symbolic link (`lsetstat`).
    ///
    /// # Errors
    /// `INVAL` where a size is given, which no link has; else the first change that
    /// failed. Linux has no permissions on symbolic links: `OPNOTSUPP`.
    pub fn apply_to_link(&self, path: &[u8]) -> Result<(), Errno> {
        let itself = AtFlags::SYMLINK_NOFOLLOW;
        let size = self.size.map(|_| Err(Errno::INVAL));
        let owner = self.owner.map(|owner| {
            let (uid, gid) = ids(owner);
            rustix::fs::chownat(CWD, path, uid, gid, itself)
        });
        let mode = self.mode.map(|_| {
            let stat = rustix::fs::statat(CWD, path, itself)?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
                return Err(Errno::OPNOTSUPP);
            }
            rustix::fs::chmodat(CWD, path, self.new_mode(0), AtFlags::empty())
        });
        let times = self
            .times
            .map(|times| rustix::fs::utimensat(CWD, path, &timestamps(times), itself));
        first_error([size, owner, mode, times])
    }
}

impl From<&Stat> for Attrs {
    fn from(stat: &Stat) -> Self {
        Self {
            size: Some(stat.st_size as u64),
            owner: Some((stat.st_uid, stat.st_gid)),
            mode: Some(stat.st_mode),
            times: Some((seconds(stat.st_atime), seconds(stat.st_mtime))),
        }
    }
}

/// The wire has room for 1970 to 2106: the nearest end of that for all else.
fn seconds(time: i64) -> u32 {
    time.clamp(0, i64::from(u32::MAX)) as u32
}

fn truncate(path: &[u8], size: u64) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let fd = rustix::fs::open(path, flags, Mode::empty())?;
    rustix::fs::ftruncate(&fd, size)
}

/// All bits set means unchanged, as for chown(2).
fn ids((uid, gid): (u32, u32)) -> (Option<Uid>, Option<Gid>) {
    (
        (uid != u32::MAX).then(|| Uid::from_raw(uid)),
        (gid != u32::MAX).then(|| Gid::from_raw(gid)),
    )
}

fn timestamps((accessed, modified): (u32, u32)) -> Timestamps {
    let at = |seconds: u32| Timespec {
        tv_sec: i64::from(seconds),
        tv_nsec: 0,
    };
    Timestamps {
        last_access: at(accessed),
        last_modification: at(modified),
    }
}

fn first_error<const N: usize>(results: [Option<Result<(), Errno>>; N]) -> Result<(), Errno> {
    results.into_iter().flatten().collect()
}
