//! A home that is not part of the pod: kept for the next pod of the same name, or
//! the user's own on the host.
//!
//! Runs in the supervisor, once it is known who sessions are.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, OFlags};

use super::kept::{self, KeptMount};
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
) -> io::Result<Option<KeptMount>> {
    let to = user.home.trim_end_matches('/');
    if !to.starts_with('/') {
        return Ok(None);
    }
    let dir = match choice {
        HomeChoice::Ephemeral => return Ok(None),
        // As the user database has it, through symlinks too.
        HomeChoice::Host(dir) => kept::open(CWD, dir.as_os_str(), OFlags::PATH)?,
        HomeChoice::Kept(dir) => kept_home(dir, user, root)?,
    };
    fs::create_dir(at)?;
    mounts::bind(&dir, at)?;
    Ok(Some(KeptMount {
        from: at.to_owned(),
        to: to.into(),
    }))
}

/// The kept directory; a new one has the files that the image's own home has.
fn kept_home(dir: &Path, user: &SessionUser, root: &Rootfs) -> io::Result<OwnedFd> {
    kept::open_or_make(dir, user, 0o750, |made| {
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
        Ok(())
    })
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
        let first = inode(&kept_home(&home, &user(), &root).unwrap());
        assert_eq!(fs::read(home.join(".profile")).unwrap(), b"image's");
        fs::remove_file(home.join(".profile")).unwrap();
        assert_eq!(inode(&kept_home(&home, &user(), &root).unwrap()), first);
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
            assert!(
                kept_home(&home, &user(), &root).is_err(),
                "{}",
                home.display()
            );
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
                found.extend(kept_home(&homes.join("pod"), &user(), &root).map(|dir| inode(&dir)));
            }
            // First, for a failure would wait for that thread.
            stop.store(true, Ordering::Relaxed);
            assert!(!found.contains(&forbidden));
        });
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        assert_eq!(fs::metadata(&outside).unwrap().mode() & 0o777, 0o711);
    }
}
