//! The writable part of a pod on disk: upper and work directories.
//!
//! Runs in the supervisor, which holds the storage lock. Files below belong to
//! ids that only the pod's user namespace maps, so only a supervisor can remove
//! them.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

/// Makes empty upper and work directories. What a supervisor that was killed
/// left is set aside; [`sweep`] removes it.
///
/// The root of the overlay shows the mode and owner of the upper directory, so
/// they are taken from the image's topmost layer.
///
/// # Errors
///
/// When the directories cannot be made.
pub fn fresh(storage: &Path, top: Option<&PathBuf>) -> io::Result<(PathBuf, PathBuf)> {
    set_aside(storage)?;
    make(storage, top)
}

/// The same for a service, in `storage`, which [`fresh`] has set aside.
///
/// # Errors
///
/// When the directories cannot be made.
pub fn fresh_service(storage: &Path, top: Option<&PathBuf>) -> io::Result<(PathBuf, PathBuf)> {
    fs::DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(storage)?;
    make(storage, top)
}

/// The same for what a pod changes in its copy of the directory `lower`: beside the
/// root's, or kept as that is.
///
/// # Errors
///
/// When the directories cannot be made.
pub fn copy(storage: &Path, lower: &Path, keep: bool) -> io::Result<(PathBuf, PathBuf)> {
    let top = lower.to_path_buf();
    if !keep {
        return fresh_service(&storage.join(COPY), Some(&top));
    }
    let dir = storage.join(KEPT).join(COPY);
    match fs::symlink_metadata(&dir) {
        Ok(_) => Ok((dir.join("upper"), dir.join("work"))),
        Err(_) => make_whole(&dir, Some(&top)),
    }
}

/// The upper and work directories that are kept, made if they are missing.
///
/// # Errors
///
/// When the directories cannot be made.
pub fn kept(storage: &Path, top: Option<&PathBuf>) -> io::Result<(PathBuf, PathBuf)> {
    // What services wrote goes with every pod.
    set_aside(storage)?;
    let kept = storage.join(KEPT);
    match fs::symlink_metadata(&kept) {
        Ok(_) => Ok((kept.join("upper"), kept.join("work"))),
        Err(_) => make_whole(&kept, top),
    }
}

/// Makes the directory with an upper and a work directory, or nothing.
fn make_whole(dir: &Path, top: Option<&PathBuf>) -> io::Result<(PathBuf, PathBuf)> {
    let (Some(above), Some(name)) = (dir.parent(), dir.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let mut new = name.to_owned();
    new.push(".new");
    let new = above.join(new);
    // Of one that was killed while it made it.
    match fs::remove_dir_all(&new) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    fs::DirBuilder::new().mode(0o700).create(&new)?;
    make(&new, top)?;
    fs::rename(&new, dir)?;
    fs::File::open(above)?.sync_all()?;
    Ok((dir.join("upper"), dir.join("work")))
}

/// Sees that everything that was written to the kept directories is on disk.
///
/// # Errors
///
/// Those of `syncfs(2)`.
pub fn sync(storage: &Path) -> io::Result<()> {
    let kept = fs::File::open(storage.join(KEPT))?;
    Ok(rustix::fs::syncfs(kept)?)
}

/// What a pod that keeps its root has instead of `upper` and `work`.
const KEPT: &str = "kept";

/// What a pod has changed in its copy of the workspace.
const COPY: &str = "workspace";

fn make(dir: &Path, top: Option<&PathBuf>) -> io::Result<(PathBuf, PathBuf)> {
    let (upper, work) = (dir.join("upper"), dir.join("work"));
    for dir in [&upper, &work] {
        fs::DirBuilder::new().mode(0o700).create(dir)?;
    }
    let (mode, owner) = match top {
        Some(top) => {
            let root = fs::metadata(top)?;
            (root.mode() & 0o7777, Some((root.uid(), root.gid())))
        }
        None => (0o755, None),
    };
    if let Some((uid, gid)) = owner {
        chown(&upper, Some(uid), Some(gid))?;
    }
    fs::set_permissions(&upper, fs::Permissions::from_mode(mode))?;
    Ok((upper, work))
}

/// Renames what an ended pod wrote out of the way, so that the next pod need not wait
/// for its removal.
///
/// # Errors
///
/// When it cannot be renamed.
pub fn set_aside(storage: &Path) -> io::Result<()> {
    put_away(storage, &["upper", "work", "services", COPY])
}

fn put_away(storage: &Path, names: &[&str]) -> io::Result<()> {
    for name in names {
        let from = storage.join(name);
        if fs::symlink_metadata(&from).is_err() {
            continue;
        }
        let free = (0u32..)
            .map(|n| storage.join(format!("dead.{name}.{n}")))
            .find(|p| fs::symlink_metadata(p).is_err());
        if let Some(to) = free {
            fs::rename(from, to)?;
        }
    }
    Ok(())
}

/// Removes what was set aside; all that can be removed is.
pub fn sweep(storage: &Path) {
    let Ok(entries) = fs::read_dir(storage) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(b"dead.") {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crashed_pods_files_are_set_aside_and_swept() {
        let dir = tempfile::tempdir().unwrap();
        let top = tempfile::tempdir().unwrap();
        fs::set_permissions(top.path(), fs::Permissions::from_mode(0o751)).unwrap();
        let top = Some(top.path().to_path_buf());
        for round in 0..3 {
            let (upper, work) = fresh(dir.path(), top.as_ref()).unwrap();
            assert_eq!(fs::read_dir(&upper).unwrap().count(), 0, "round {round}");
            assert_eq!(fs::metadata(&upper).unwrap().mode() & 0o7777, 0o751);
            fs::create_dir(upper.join("x")).unwrap();
            fs::write(work.join("y"), "z").unwrap();
        }
        sweep(dir.path());
        let mut left: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        left.sort();
        assert_eq!(left, ["upper", "work"]);
    }

    #[test]
    fn what_is_kept_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let (upper, _) = kept(dir.path(), None).unwrap();
        fs::write(upper.join("x"), "mine").unwrap();
        sync(dir.path()).unwrap();
        fresh(dir.path(), None).unwrap();
        fs::create_dir(dir.path().join("kept.new")).unwrap();
        let (again, work) = kept(dir.path(), None).unwrap();
        sweep(dir.path());
        assert_eq!(fs::read_to_string(again.join("x")).unwrap(), "mine");
        assert!(work.is_dir());
    }

    #[test]
    fn what_is_changed_in_a_copy_is_kept_with_the_root_alone() {
        let (dir, lower) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::set_permissions(lower.path(), fs::Permissions::from_mode(0o750)).unwrap();
        for keep in [false, true, false, true] {
            let (root, _) = match keep {
                true => kept(dir.path(), None).unwrap(),
                false => fresh(dir.path(), None).unwrap(),
            };
            let (upper, work) = copy(dir.path(), lower.path(), keep).unwrap();
            assert_eq!(fs::metadata(&upper).unwrap().mode() & 0o7777, 0o750);
            assert!(work.is_dir() && upper.parent() != root.parent());
            fs::write(upper.join("changed"), "x").unwrap();
        }
        let (upper, _) = copy(dir.path(), lower.path(), true).unwrap();
        assert!(upper.join("changed").exists());
        fresh(dir.path(), None).unwrap();
        let (upper, _) = copy(dir.path(), lower.path(), false).unwrap();
        assert!(!upper.join("changed").exists());
    }
}
