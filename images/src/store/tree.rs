//! Removing directories whatever is in them: other owners, mode 000, whiteouts, deep nesting.

use std::ffi::{CString, OsStr};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir};
use rustix::io::Errno;

/// Removes `path`, a directory with all that is in it or anything else. No symlink is followed. It
/// is no error if it is gone already.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    match super::layout::open_dir(parent) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        parent => remove_at(parent?.as_fd(), name),
    }
}

/// Removes `name` in `parent`, likewise.
pub(crate) fn remove_at(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    let name = CString::new(name.as_bytes())?;
    match rustix::fs::unlinkat(parent, &name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR) => remove_dir(parent, &name),
        Err(error) => Err(error.into()),
    }
}

/// Removes everything in `dir`, but not `dir` itself.
pub(crate) fn empty(dir: BorrowedFd<'_>) -> io::Result<()> {
    // Entries that are removed while a directory is read may hide others: read until it is empty.
    let mut buffer = Vec::with_capacity(32 << 10);
    loop {
        let mut found = false;
        rustix::fs::seek(dir, rustix::fs::SeekFrom::Start(0))?;
        let mut entries = RawDir::new(dir, buffer.spare_capacity_mut() as &mut [MaybeUninit<u8>]);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            found = true;
            if entry.file_type() == FileType::Directory {
                remove_dir(dir, name)?;
                continue;
            }
            match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::ISDIR) => remove_dir(dir, name)?,
                Err(error) => return Err(error.into()),
            }
        }
        if !found {
            return Ok(());
        }
    }
}

fn remove_dir(parent: BorrowedFd<'_>, name: &std::ffi::CStr) -> io::Result<()> {
    let dir = open_any(parent, name)?;
    empty(dir.as_fd())?;
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Opens a directory of an image for removal: without the capabilities that a user namespace gives,
/// its mode may forbid even its owner to do so.
fn open_any(parent: BorrowedFd<'_>, name: &std::ffi::CStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = || rustix::fs::openat(parent, name, flags, Mode::empty());
    let dir = match open() {
        Err(Errno::ACCESS) => {
            // It is a directory: a symlink would have given another error.
            rustix::fs::chmodat(parent, name, Mode::RWXU, AtFlags::empty())?;
            return Ok(open()?);
        }
        dir => dir?,
    };
    let mode = Mode::from_raw_mode(rustix::fs::fstat(&dir)?.st_mode);
    if !mode.contains(Mode::RWXU) {
        // With capabilities this is not needed, and without ownership not possible.
        let _ = rustix::fs::fchmod(&dir, Mode::RWXU);
    }
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_forbidding_tree_goes_and_its_neighbours_stay() {
        let root = tempfile::tempdir().unwrap();
        let tree = root.path().join("tree");
        let outside = root.path().join("outside");
        fs::create_dir_all(tree.join("a/b/c")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("canary"), "sings").unwrap();
        std::os::unix::fs::symlink(&outside, tree.join("a/link")).unwrap();
        for n in 0..3000 {
            fs::write(tree.join("a/b").join(format!("file{n}")), "").unwrap();
        }
        for dir in ["a/b/c", "a/b", "a"] {
            fs::set_permissions(tree.join(dir), fs::Permissions::from_mode(0o000)).unwrap();
        }
        remove(&tree).unwrap();
        assert!(!tree.exists());
        assert_eq!(fs::read(outside.join("canary")).unwrap(), b"sings");
        remove(&tree).unwrap();
        remove(&tree.join("deeper")).unwrap();
    }
}
