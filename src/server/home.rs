//! The home that a container user has on the host.
//!
//! It holds podspawn's store and configuration, and nothing in it is to run on the
//! host: not even if the administrator shows it to containers, whose programs could
//! then write there. No shell reads it, because podspawn is the login shell. What
//! PAM and the user's systemd would read belongs to root, in directories from which
//! the user can remove only what is theirs.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::Path;

use crate::exit::Failure;

/// Whose an entry is, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The user may add entries, and remove their own. Everybody may pass: a pod's root is
    /// another user, and its capabilities do not count where the owner has no id inside.
    Shared,
    /// A directory of root's.
    Root,
    /// An empty file of root's.
    RootFile,
    /// The user's own.
    Own,
}

/// From the leaves up: a directory is given away after what is in it.
const ENTRIES: [(&str, Kind); 11] = [
    (".pam_environment", Kind::RootFile),
    (".config/systemd", Kind::Root),
    (".config/environment.d", Kind::Root),
    (".config/podspawn", Kind::Own),
    (".config", Kind::Shared),
    (".local/share/systemd", Kind::Root),
    (".local/share/podspawn", Kind::Own),
    (".local/share", Kind::Shared),
    (".local", Kind::Shared),
    (".ssh", Kind::Shared),
    ("", Kind::Shared),
];

/// Makes the home of a new user. It must not be there yet.
///
/// # Errors
///
/// When it cannot be made.
pub fn make(home: &Path, uid: u32, gid: u32) -> Result<(), Failure> {
    build(home, uid, gid).map_err(|e| Failure::new(format!("cannot make {}: {e}", home.display())))
}

fn build(home: &Path, uid: u32, gid: u32) -> io::Result<()> {
    if let Some(above) = home.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(above)?;
    }
    // Nobody but root gets in until it is complete.
    DirBuilder::new().mode(0o700).create(home)?;
    for (name, kind) in ENTRIES {
        let path = home.join(name);
        if kind == Kind::RootFile {
            OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o444)
                .open(&path)?;
            continue;
        }
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)?;
        let (owner, group, mode) = match kind {
            Kind::Shared => (0, gid, 0o1771),
            Kind::Own => (uid, gid, 0o700),
            Kind::Root | Kind::RootFile => (0, 0, 0o755),
        };
        chown(&path, Some(owner), Some(group))?;
        fs::set_permissions(&path, Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// Removes a tree of a user who is gone.
///
/// # Errors
///
/// When something in it cannot be removed.
pub fn remove(path: &Path) -> Result<(), Failure> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Failure::new(format!(
            "cannot remove {}: {e}",
            path.display()
        ))),
        _ => Ok(()),
    }
}

/// Keeps the home of a user who is gone, for root alone.
///
/// # Errors
///
/// When its owner cannot be changed.
pub fn keep(path: &Path) -> Result<(), Failure> {
    let kept = chown(path, Some(0), Some(0))
        .and_then(|()| fs::set_permissions(path, Permissions::from_mode(0o700)));
    match kept {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(Failure::new(format!("cannot keep {}: {e}", path.display())))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_come_after_what_is_in_them() {
        for (at, (name, _)) in ENTRIES.iter().enumerate() {
            let later = ENTRIES.iter().skip(at).skip(1);
            assert!(
                later
                    .clone()
                    .all(|(other, _)| !Path::new(other).starts_with(name)),
                "{name}"
            );
        }
    }
}
