//! A home that is not part of the pod: kept for the next pod of the same name, or
//! the user's own on the host.
//!
//! Runs in the supervisor, once it is known who sessions are.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

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

/// A directory of the host's to be mounted as the home inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HomeMount {
    /// On the host.
    pub from: PathBuf,
    /// In the container.
    pub to: String,
}

/// How many files a new home gets from the image's.
const MOST_FILES: usize = 256;

/// Prepares the home; `None` when it is part of the pod, or the session user has
/// none to speak of.
///
/// # Errors
///
/// When the directory cannot be made. Its own directory must exist.
pub fn prepare(
    choice: &HomeChoice,
    user: &SessionUser,
    root: &Rootfs,
) -> io::Result<Option<HomeMount>> {
    let to = user.home.trim_end_matches('/');
    if !to.starts_with('/') {
        return Ok(None);
    }
    let from = match choice {
        HomeChoice::Ephemeral => return Ok(None),
        HomeChoice::Host(dir) => dir.clone(),
        HomeChoice::Kept(dir) => {
            if !dir.is_dir() {
                make(dir, user, root)?;
            }
            dir.clone()
        }
    };
    Ok(Some(HomeMount {
        from,
        to: to.to_owned(),
    }))
}

/// Makes the directory, with the files that the image's own home has, as a whole
/// or not at all.
fn make(dir: &Path, user: &SessionUser, root: &Rootfs) -> io::Result<()> {
    // No pod is called that.
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let new = dir.with_file_name(format!(".new-{name}"));
    if new.exists() {
        fs::remove_dir_all(&new)?;
    }
    fs::DirBuilder::new().mode(0o700).create(&new)?;
    let into = Rootfs::open(&new)?;
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
    chown(&new, Some(user.uid), Some(user.gid))?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o750))?;
    fs::File::open(&new)?.sync_all()?;
    fs::rename(&new, dir)
}
