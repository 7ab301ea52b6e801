//! A home that is not part of the pod: kept for the next pod of the same name, or
//! the user's own on the host.
//!
//! Runs in the supervisor, once it is known who sessions are. Others may rename what
//! is on the way to it at any time, so the directory is opened once, no symlink is
//! followed where a kept one is expected, and what is mounted is what was opened.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Gid, Mode, OFlags, Uid, fchmod, fchown, fsync, mkdirat, openat, renameat};
use rustix::io::Errno;

use super::mounts;
use crate::pod::SessionUser;
use crate::rootfs::{Ownership, Rootfs};

/// What the session user's home is (configuration key `home`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HomeChoice {
    /// Part of the pod.
    Ephemeral,
    /// This directory, made and filled if it is missing.
    Kept(PathBuf),
    /// This directory of the host's.
    Host(PathBuf),
}

/// What is to be mounted as the home inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HomeMount {
    /// The supervisor's own mount of the directory, out of everybody's reach.
    pub from: PathBuf,
    /// In the container.
    pub to: String,
}

/// How many files a new home gets from the image's.
const MOST_FILES: usize = 256;

/// Prepares the home, and mounts it at `at`, which nobody else can reach; `None` when
/// it is part of the pod, or the session user has none to speak of.
///
/// # Errors
///
/// When the directory cannot be made or is none. Its own directory must exist.
pub fn prepare(
    choice: &HomeChoice,
    user: &SessionUser,
    root: &Rootfs,
    at: &Path,
) -> io::Result<Option<HomeMount>> {
    let to = user.home.trim_end_matches('/');
    if !to.starts_with('/') {
        return Ok(None);
    }
    let dir = match choice {
        HomeChoice::Ephemeral => return Ok(None),
        // As the user database has it, through symlinks too.
        HomeChoice::Host(dir) => open(CWD, dir.as_os_str(), OFlags::PATH)?,
        HomeChoice::Kept(dir) => kept(dir, user, root)?,
    };
    fs::create_dir(at)?;
    mounts::bind(&dir, at)?;
    Ok(Some(HomeMount {
        from: at.to_owned(),
        to: to.to_owned(),
    }))
}

/// The kept directory, made if it is missing.
fn kept(dir: &Path, user: &SessionUser, root: &Rootfs) -> io::Result<OwnedFd> {
    let (Some(above), Some(name)) = (dir.parent(), dir.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let above = open(CWD, above.as_os_str(), OFlags::PATH | OFlags::NOFOLLOW)?;
    match open(&above, name, OFlags::PATH | OFlags::NOFOLLOW) {
        Err(Errno::NOENT) => make(&above, name, user, root),
        found => Ok(found?),
    }
}

fn open(at: impl AsFd, path: &OsStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(at, path, flags, Mode::empty())
}

/// Makes the directory, with the files that the image's own home has, as a whole
/// or not at all.
fn make(above: &OwnedFd, name: &OsStr, user: &SessionUser, root: &Rootfs) -> io::Result<OwnedFd> {
    // No pod is called that.
    let mut new = OsString::from(".new-");
    new.push(name);
    let by_path = PathBuf::from(format!("/proc/self/fd/{}", above.as_raw_fd())).join(&new);
    if fs::symlink_metadata(&by_path).is_ok() {
        fs::remove_dir_all(&by_path)?;
    }
    mkdirat(above, &new, Mode::from_raw_mode(0o700))?;
    let made = open(above, &new, OFlags::RDONLY | OFlags::NOFOLLOW)?;
    let into = Rootfs::of(made.try_clone()?);
    let home = Path::new(&user.home);
    let own = Ownership {
        owner: Some((user.uid, user.gid)),
        mode: 0o644,
    };
    for name in root.files_in(home, MOST_FILES) {
        if let Some(bytes) = root.read(&home.join(&name))? {
            into.replace(&Path::new("/").join(&name), &bytes, own)?;
        }
    }
    fchown(
        &made,
        Some(Uid::from_raw(user.uid)),
        Some(Gid::from_raw(user.gid)),
    )?;
    fchmod(&made, Mode::from_raw_mode(0o750))?;
    fsync(&made)?;
    renameat(above, &new, above, name)?;
    Ok(made)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn user() -> SessionUser {
        SessionUser {
            name: "alice".into(),
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            groups: Vec::new(),
            home: "/home/alice".into(),
            shell: None,
        }
    }

    /// An image with a file in its home, a place for homes, and a place beside it.
    fn places(dir: &Path) -> (Rootfs, PathBuf, PathBuf) {
        fs::create_dir_all(dir.join("image/home/alice")).unwrap();
        fs::write(dir.join("image/home/alice/.profile"), "image's").unwrap();
        let (homes, outside) = (dir.join("homes"), dir.join("outside"));
        fs::create_dir(&homes).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::set_permissions(&outside, fs::Permissions::from_mode(0o711)).unwrap();
        let root = Rootfs::open(&dir.join("image")).unwrap();
        (root, homes, outside)
    }

    fn inode(dir: &OwnedFd) -> u64 {
        fs::File::from(dir.try_clone().unwrap())
            .metadata()
            .unwrap()
            .ino()
    }

    #[test]
    fn a_home_is_made_once_and_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let (root, homes, _) = places(dir.path());
        fs::create_dir_all(homes.join(".new-pod/remains")).unwrap();
        let home = homes.join("pod");
        let first = inode(&kept(&home, &user(), &root).unwrap());
        assert_eq!(fs::read(home.join(".profile")).unwrap(), b"image's");
        fs::remove_file(home.join(".profile")).unwrap();
        assert_eq!(inode(&kept(&home, &user(), &root).unwrap()), first);
        assert_eq!(fs::read_dir(&home).unwrap().count(), 0);
        assert_eq!(fs::read_dir(&homes).unwrap().count(), 1);
    }

    #[test]
    fn a_link_in_its_place_or_above_it_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (root, homes, outside) = places(dir.path());
        symlink(&outside, homes.join("pod")).unwrap();
        symlink(&outside, dir.path().join("linked")).unwrap();
        for home in [homes.join("pod"), dir.path().join("linked/pod")] {
            assert!(kept(&home, &user(), &root).is_err(), "{}", home.display());
        }
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    }

    /// Somebody swaps what is on the way for links while the home is made and opened.
    #[test]
    fn what_is_swapped_for_a_link_meanwhile_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (root, homes, outside) = places(dir.path());
        let forbidden = fs::metadata(&outside).unwrap().ino();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let link = homes.join("link");
                while !stop.load(Ordering::Relaxed) {
                    for name in ["pod", ".new-pod"] {
                        let (path, aside) = (homes.join(name), homes.join("aside"));
                        let _ = fs::rename(&path, &aside);
                        let _ = symlink(&outside, &link);
                        let _ = fs::rename(&link, &path);
                        let _ = fs::remove_dir_all(&aside);
                        let _ = fs::remove_file(&path);
                    }
                }
            });
            let mut found = Vec::new();
            for _ in 0..2000 {
                found.extend(kept(&homes.join("pod"), &user(), &root).map(|dir| inode(&dir)));
            }
            // First, for a failure would wait for that thread.
            stop.store(true, Ordering::Relaxed);
            assert!(!found.contains(&forbidden));
        });
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        assert_eq!(fs::metadata(&outside).unwrap().mode() & 0o777, 0o711);
    }
}
