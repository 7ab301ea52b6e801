//! Changes of system files that are all made or all taken back.
//!
//! A new text is staged beside its file, synced and renamed, so that a file is
//! never half written; owner and mode stay. The texts as they were stay in memory
//! for [`Applied::undo`] and, for an administrator, in a directory of backups.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::exit::Failure;

/// A file as it shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The file.
    pub path: PathBuf,
    /// Its text; `None` for no file.
    pub text: Option<String>,
}

/// A file as it was.
#[derive(Debug)]
struct Before {
    path: PathBuf,
    content: Option<(Vec<u8>, u32)>,
}

/// Changes that were made and can be taken back.
#[derive(Debug, Default)]
#[must_use]
pub struct Applied(Vec<Before>);

/// The text of a file, `None` if there is none.
///
/// # Errors
///
/// When it cannot be read, or is no text.
pub fn read(path: &Path) -> Result<Option<String>, Failure> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Failure::new(format!("cannot read {}: {e}", path.display()))),
    }
}

/// Of `changes`, those that change something.
///
/// # Errors
///
/// As [`read`].
pub fn pending(changes: Vec<Change>) -> Result<Vec<Change>, Failure> {
    let mut pending = Vec::new();
    for change in changes {
        if read(&change.path)? != change.text {
            pending.push(change);
        }
    }
    Ok(pending)
}

/// Makes the changes, with a copy of each file that is replaced below `backups`.
///
/// # Errors
///
/// When one cannot be made; those before it have been taken back then.
pub fn apply(changes: &[Change], backups: &Path) -> Result<Applied, Failure> {
    let mut applied = Applied::default();
    for change in changes {
        let made = before(&change.path)
            .and_then(|was| back_up(&was, backups).map(|()| was))
            .and_then(|was| {
                applied.0.push(was);
                put(
                    &change.path,
                    change.text.as_deref().map(str::as_bytes),
                    None,
                )
            });
        if let Err(e) = made {
            let failure = Failure::new(format!("cannot change {}: {e}", change.path.display()));
            return Err(match applied.undo() {
                Ok(()) => failure,
                Err(worse) => failure.context(worse.line()),
            });
        }
    }
    Ok(applied)
}

/// Makes one change that nothing else hangs on.
///
/// # Errors
///
/// When it cannot be made.
pub fn replace(change: &Change) -> Result<(), Failure> {
    put(
        &change.path,
        change.text.as_deref().map(str::as_bytes),
        None,
    )
    .map_err(|e| Failure::new(format!("cannot write {}: {e}", change.path.display())))
}

impl Applied {
    /// Takes the changes back, the last one first.
    ///
    /// # Errors
    ///
    /// When a file could not be restored; the others are.
    pub fn undo(self) -> Result<(), Failure> {
        let mut failure = None;
        for was in self.0.iter().rev() {
            let content = was.content.as_ref();
            if let Err(e) = put(
                &was.path,
                content.map(|c| c.0.as_slice()),
                content.map(|c| c.1),
            ) {
                let line = format!("{} could not be restored: {e}", was.path.display());
                failure.get_or_insert(Failure::new(line));
            }
        }
        failure.map_or(Ok(()), Err)
    }
}

fn before(path: &Path) -> io::Result<Before> {
    let content = match fs::read(path) {
        Ok(bytes) => Some((bytes, fs::metadata(path)?.mode() & 0o7777)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => return Err(e),
    };
    Ok(Before {
        path: path.to_owned(),
        content,
    })
}

fn back_up(was: &Before, backups: &Path) -> io::Result<()> {
    let Some((bytes, mode)) = &was.content else {
        return Ok(());
    };
    let copy = backups.join(was.path.strip_prefix("/").unwrap_or(&was.path));
    if let Some(dir) = copy.parent() {
        fs::create_dir_all(dir)?;
    }
    fs::set_permissions(backups, fs::Permissions::from_mode(0o700))?;
    put(&copy, Some(bytes), Some(*mode))
}

/// Puts a file in place, whole or not at all; `None` removes it. A symlink stays
/// one, and what it points to is changed. A new file has mode 0644.
fn put(path: &Path, content: Option<&[u8]>, mode: Option<u32>) -> io::Result<()> {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let dir = path.parent().unwrap_or(Path::new("/"));
    let Some(bytes) = content else {
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => return File::open(dir)?.sync_all(),
        }
    };
    let was = fs::metadata(&path).ok();
    let mode = mode.or_else(|| was.as_ref().map(|m| m.mode() & 0o7777));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // sshd includes *.conf and PAM reads files by name: neither sees this one.
    let staged = dir.join(format!(".{name}.{}", std::process::id()));
    let written = stage(&staged, bytes, mode.unwrap_or(0o644), was.as_ref())
        .and_then(|()| fs::rename(&staged, &path))
        .and_then(|()| File::open(dir)?.sync_all());
    if written.is_err() {
        let _ = fs::remove_file(&staged);
    }
    written
}

fn stage(path: &Path, bytes: &[u8], mode: u32, was: Option<&fs::Metadata>) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    if let Some(was) = was {
        std::os::unix::fs::fchown(&file, Some(was.uid()), Some(was.gid()))?;
    }
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(dir: &Path, name: &str, text: Option<&str>) -> Change {
        Change {
            path: dir.join(name),
            text: text.map(str::to_owned),
        }
    }

    #[test]
    fn changes_are_made_and_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        fs::write(path.join("a"), "old").unwrap();
        fs::set_permissions(path.join("a"), fs::Permissions::from_mode(0o640)).unwrap();
        fs::write(path.join("gone"), "x").unwrap();
        let changes = vec![
            change(path, "a", Some("new")),
            change(path, "b", Some("made")),
            change(path, "gone", None),
        ];
        assert_eq!(pending(changes.clone()).unwrap(), changes);
        let applied = apply(&changes, &path.join("backups")).unwrap();
        assert_eq!(pending(changes).unwrap(), []);
        assert_eq!(fs::metadata(path.join("a")).unwrap().mode() & 0o7777, 0o640);
        assert!(!path.join("gone").exists());
        let copy = path
            .join("backups")
            .join(path.join("a").strip_prefix("/").unwrap());
        assert_eq!(fs::read_to_string(copy).unwrap(), "old");
        applied.undo().unwrap();
        assert_eq!(fs::read_to_string(path.join("a")).unwrap(), "old");
        assert_eq!(fs::metadata(path.join("a")).unwrap().mode() & 0o7777, 0o640);
        assert_eq!(fs::read_to_string(path.join("gone")).unwrap(), "x");
        assert!(!path.join("b").exists());
    }

    #[test]
    fn what_cannot_be_made_takes_back_what_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        fs::write(path.join("a"), "old").unwrap();
        let changes = [
            change(path, "a", Some("new")),
            change(path, "no/such/dir", Some("x")),
        ];
        let failure = apply(&changes, &path.join("backups")).unwrap_err();
        assert!(failure.line().contains("no/such/dir"), "{}", failure.line());
        assert_eq!(fs::read_to_string(path.join("a")).unwrap(), "old");
        let left: Vec<_> = fs::read_dir(path)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(left.len(), 2, "{left:?}");
    }

    #[test]
    fn a_symlink_stays_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        fs::write(path.join("real"), "old").unwrap();
        std::os::unix::fs::symlink("real", path.join("link")).unwrap();
        let _applied = apply(&[change(path, "link", Some("new"))], &path.join("backups")).unwrap();
        assert_eq!(fs::read_to_string(path.join("real")).unwrap(), "new");
        assert!(
            fs::symlink_metadata(path.join("link"))
                .unwrap()
                .is_symlink()
        );
    }
}
