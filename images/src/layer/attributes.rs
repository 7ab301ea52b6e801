//! Owner, mode, times and extended attributes of a file in a layer, and putting them on.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::store::{Ownership, Skipped};
use crate::tar::Time;

/// What a file has besides its name and content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    /// Permissions, setuid, setgid, sticky.
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    pub(crate) mtime: Time,
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Attributes {
    /// Those of a directory that no layer states.
    pub(crate) fn unstated() -> Attributes {
        Attributes {
            mode: 0o755,
            ..Attributes::default()
        }
    }

    /// Whether this is an extended attribute that a layer may bring. Those that overlay or
    /// fuse-overlayfs take orders from are not for images to set, and the labels of security
    /// modules are the host's business.
    pub(crate) fn may_have(name: &[u8]) -> bool {
        let orders: [&[u8]; 3] = [
            b"user.overlay.",
            b"user.fuseoverlayfs.",
            b"user.containers.",
        ];
        if orders.iter().any(|prefix| name.starts_with(prefix)) {
            return false;
        }
        name.starts_with(b"user.")
            || matches!(
                name,
                b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default"
            )
    }
}

/// For ids that mean nobody here: the kernel's own overflow id, and everybody's `nobody`.
const NOBODY: u32 = 65534;

/// Turns the ids of an archive into what to chown to. Also knows the mask that the kernel applies
/// to new files, so that it need not be undone where it changes nothing.
#[derive(Debug)]
pub(crate) struct Owners {
    ownership: Ownership,
    uids: Vec<(u32, u32)>,
    gids: Vec<(u32, u32)>,
    uid: u32,
    gid: u32,
    umask: u32,
}

type Owner = (Option<Uid>, Option<Gid>);

impl Owners {
    /// As the calling process is now.
    pub(crate) fn of_process(ownership: Ownership) -> Owners {
        Owners {
            ownership,
            uids: id_map("/proc/self/uid_map"),
            gids: id_map("/proc/self/gid_map"),
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            umask: umask().unwrap_or(0o777),
        }
    }

    /// Whom to give a file to that this process made; `None` if there is nothing to do. Counts ids
    /// that are not mapped.
    fn owner(&self, uid: u64, gid: u64, skipped: &mut Skipped) -> Option<Owner> {
        if self.ownership == Ownership::Single {
            return None;
        }
        let (uid, uid_lost) = mapped(&self.uids, uid);
        let (gid, gid_lost) = mapped(&self.gids, gid);
        if uid_lost || gid_lost {
            skipped.ids += 1;
        }
        let uid = uid.filter(|uid| *uid != self.uid);
        let gid = gid.filter(|gid| *gid != self.gid);
        if uid.is_none() && gid.is_none() {
            return None;
        }
        Some((uid.map(Uid::from_raw), gid.map(Gid::from_raw)))
    }

    /// The mode to create a file with so that few files need another call.
    pub(crate) fn creation_mode(&self, attributes: &Attributes) -> Mode {
        if attributes.xattrs.is_empty() {
            Mode::from_raw_mode(attributes.mode & 0o777)
        } else {
            // To set attributes of a file one must be able to write it.
            Mode::RUSR | Mode::WUSR
        }
    }

    /// Puts everything on an open file that was created with [`Owners::creation_mode`].
    pub(crate) fn finish_file(
        &self,
        file: BorrowedFd<'_>,
        attributes: &Attributes,
        skipped: &mut Skipped,
    ) -> io::Result<()> {
        let owner = self.owner(attributes.uid, attributes.gid, skipped);
        if let Some((uid, gid)) = owner {
            rustix::fs::fchown(file, uid, gid)?;
        }
        set_xattrs(file, &attributes.xattrs, skipped)?;
        let special = attributes.mode & 0o7000 != 0;
        if special || attributes.mode & self.umask != 0 || !attributes.xattrs.is_empty() {
            rustix::fs::fchmod(file, Mode::from_raw_mode(attributes.mode))?;
        }
        rustix::fs::futimens(file, &times(attributes.mtime))?;
        Ok(())
    }

    /// Puts everything on an open directory, whatever mode it has.
    pub(crate) fn finish_dir(
        &self,
        dir: BorrowedFd<'_>,
        attributes: &Attributes,
        skipped: &mut Skipped,
    ) -> io::Result<()> {
        if let Some((uid, gid)) = self.owner(attributes.uid, attributes.gid, skipped) {
            rustix::fs::fchown(dir, uid, gid)?;
        }
        set_xattrs(dir, &attributes.xattrs, skipped)?;
        rustix::fs::fchmod(dir, Mode::from_raw_mode(attributes.mode))?;
        rustix::fs::futimens(dir, &times(attributes.mtime))?;
        Ok(())
    }

    /// Puts owner, mode unless it is a symlink, and time on what this process just made as `name`
    /// in `parent`. Extended attributes are not for such files.
    pub(crate) fn finish_special(
        &self,
        parent: impl AsFd,
        name: &CString,
        attributes: &Attributes,
        symlink: bool,
        skipped: &mut Skipped,
    ) -> io::Result<()> {
        let parent = parent.as_fd();
        skipped.xattrs += attributes.xattrs.len() as u64;
        if let Some((uid, gid)) = self.owner(attributes.uid, attributes.gid, skipped) {
            rustix::fs::chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        if !symlink {
            let mode = Mode::from_raw_mode(attributes.mode);
            rustix::fs::chmodat(parent, name, mode, AtFlags::empty())?;
        }
        let times = times(attributes.mtime);
        rustix::fs::utimensat(parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(())
    }
}

pub(super) fn times(mtime: Time) -> Timestamps {
    let time = Timespec {
        tv_sec: mtime.seconds,
        tv_nsec: mtime.nanoseconds.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

fn set_xattrs(
    file: BorrowedFd<'_>,
    xattrs: &[(Vec<u8>, Vec<u8>)],
    skipped: &mut Skipped,
) -> io::Result<()> {
    for (name, value) in xattrs {
        if !Attributes::may_have(name) {
            skipped.xattrs += 1;
            continue;
        }
        match rustix::fs::fsetxattr(file, name.as_slice(), value, XattrFlags::empty()) {
            Ok(()) => {}
            // Not for us to set, not for this file system, or not a value that the kernel takes.
            Err(Errno::PERM | Errno::OPNOTSUPP | Errno::INVAL | Errno::RANGE | Errno::TOOBIG) => {
                skipped.xattrs += 1;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The ids that the user namespace has, as first and count. Empty if that cannot be known.
fn id_map(path: &str) -> Vec<(u32, u32)> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let range = |line: &str| {
        let mut fields = line.split_whitespace();
        let first = fields.next()?.parse().ok()?;
        Some((first, fields.nth(1)?.parse().ok()?))
    };
    text.lines().filter_map(range).collect()
}

/// The id to use, `None` for the caller's own, and whether it is another than was asked for.
fn mapped(map: &[(u32, u32)], id: u64) -> (Option<u32>, bool) {
    let has = |id: u32| {
        let within = |(first, count): &(u32, u32)| id >= *first && id - *first < *count;
        map.is_empty() || map.iter().any(within)
    };
    match u32::try_from(id) {
        // The last id means "leave it" to the kernel.
        Ok(id) if id != u32::MAX && has(id) => (Some(id), false),
        _ if has(NOBODY) => (Some(NOBODY), true),
        _ => (None, true),
    }
}

/// The process's file mode creation mask, which cannot be asked for without changing it otherwise.
fn umask() -> Option<u32> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("Umask:"))?;
    u32::from_str_radix(line.trim(), 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_outside_the_map_are_nobodys() {
        let map = [(0, 1000), (1000, 1), (1001, 64536)];
        assert_eq!(mapped(&map, 0), (Some(0), false));
        assert_eq!(mapped(&map, 1000), (Some(1000), false));
        assert_eq!(mapped(&map, 65536), (Some(65536), false));
        assert_eq!(mapped(&map, 65537), (Some(65534), true));
        assert_eq!(mapped(&map, u64::MAX), (Some(65534), true));
        assert_eq!(mapped(&[(0, 1)], 5), (None, true));
        assert_eq!(mapped(&[(0, u32::MAX)], 4294967295), (Some(65534), true));
        assert_eq!(
            mapped(&[(0, u32::MAX)], 4294967294),
            (Some(4294967294), false)
        );
    }

    #[test]
    fn orders_to_overlay_are_not_kept() {
        for kept in ["user.mime_type", "security.capability", "user.overlaying"] {
            assert!(Attributes::may_have(kept.as_bytes()), "{kept}");
        }
        for dropped in [
            "user.overlay.opaque",
            "user.overlay.overlay.whiteout",
            "user.fuseoverlayfs.opaque",
            "trusted.overlay.opaque",
            "security.selinux",
            "security.ima",
            "",
            "x",
        ] {
            assert!(!Attributes::may_have(dropped.as_bytes()), "{dropped}");
        }
    }

    #[test]
    fn the_mask_is_known() {
        assert!(umask().is_some_and(|mask| mask <= 0o777));
    }
}
