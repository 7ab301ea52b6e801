//! Files that root is about to rely on: nobody but root can put anything in
//! their place.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::exit::Failure;

/// The real path of a file that root alone can change, with every directory above it.
///
/// # Errors
///
/// When it is missing, or the first thing on its path that somebody else can change.
pub fn path(path: &Path) -> Result<PathBuf, Failure> {
    let real =
        fs::canonicalize(path).map_err(|e| Failure::new(format!("{}: {e}", path.display())))?;
    for part in real.ancestors() {
        let stat = fs::symlink_metadata(part)
            .map_err(|e| Failure::new(format!("{}: {e}", part.display())))?;
        if let Some(why) = changeable(stat.uid(), stat.mode()) {
            return Err(Failure::new(format!("{}: {why}", part.display())));
        }
    }
    Ok(real)
}

/// The program of this process, as other processes are to find it.
///
/// # Errors
///
/// When somebody else than root can change it: it would decide what sessions run.
pub fn this_program() -> Result<PathBuf, Failure> {
    path(Path::new("/proc/self/exe"))
}

/// Why somebody else than root can change what this is, if they can. Not even a sticky
/// directory is taken, because sshd takes none for what it runs.
fn changeable(uid: u32, mode: u32) -> Option<String> {
    if uid != 0 {
        return Some(format!("belongs to user id {uid}; it must belong to root"));
    }
    (mode & 0o022 != 0).then(|| "others can write to it; chmod go-w".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_roots_files_are_trusted() {
        assert_eq!(changeable(0, 0o100_755), None);
        assert!(changeable(0, 0o41_777).is_some());
        assert!(changeable(0, 0o100_775).is_some());
        assert!(changeable(1000, 0o100_755).is_some());
    }

    #[test]
    fn symlinks_are_followed_to_what_counts() {
        assert!(path(Path::new("/bin/sh")).unwrap().is_absolute());
        assert!(path(Path::new("/nowhere/x")).is_err());
    }
}
