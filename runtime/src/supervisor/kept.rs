//! A directory of the host's that outlives pods and is mounted in them: a kept home,
//! a workspace.
//!
//! Runs in the supervisor. Others may rename what is on the way to it at any time, so
//! the directory is opened once, no symlink is followed where a kept one is expected,
//! and what is mounted is what was opened.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Gid, Mode, OFlags, Uid, fchmod, fchown, fsync, mkdirat, openat, renameat};
use rustix::io::Errno;

use crate::pod::SessionUser;

/// What is to be mounted in the dev container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptMount {
    /// The supervisor's own mount of the directory, out of everybody's reach.
    pub from: PathBuf,
    /// In the container.
    pub to: PathBuf,
}

/// Opens the directory, which is made if it is missing: for `user`, with this mode, and
/// with what `fill` puts into it; as a whole or not at all. Its own directory must exist.
///
/// # Errors
///
/// When it cannot be made, or something else is in its place.
pub fn open_or_make(
    dir: &Path,
    user: &SessionUser,
    mode: u32,
    fill: impl FnOnce(&OwnedFd) -> io::Result<()>,
) -> io::Result<OwnedFd> {
    let (Some(above), Some(name)) = (dir.parent(), dir.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let above = open(CWD, above.as_os_str(), OFlags::PATH | OFlags::NOFOLLOW)?;
    match open(&above, name, OFlags::PATH | OFlags::NOFOLLOW) {
        Err(Errno::NOENT) => {
            let (new, made) = make_new(&above, name)?;
            fill(&made)?;
            fchown(
                &made,
                Some(Uid::from_raw(user.uid)),
                Some(Gid::from_raw(user.gid)),
            )?;
            fchmod(&made, Mode::from_raw_mode(mode))?;
            fsync(&made)?;
            renameat(&above, &new, &above, name)?;
            Ok(made)
        }
        found => Ok(found?),
    }
}

/// Opens a directory.
///
/// # Errors
///
/// Those of `open(2)`.
pub fn open(at: impl AsFd, path: &OsStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(at, path, flags, Mode::empty())
}

/// An empty directory beside `name`, for nobody yet.
fn make_new(above: &OwnedFd, name: &OsStr) -> io::Result<(OsString, OwnedFd)> {
    // No pod is called that.
    let mut new = OsString::from(".new-");
    new.push(name);
    let by_path = PathBuf::from(format!("/proc/self/fd/{}", above.as_raw_fd())).join(&new);
    if fs::symlink_metadata(&by_path).is_ok() {
        fs::remove_dir_all(&by_path)?;
    }
    mkdirat(above, &new, Mode::from_raw_mode(0o700))?;
    let made = open(above, &new, OFlags::RDONLY | OFlags::NOFOLLOW)?;
    Ok((new, made))
}
