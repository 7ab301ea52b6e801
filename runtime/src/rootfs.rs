//! Files below a root that an image controls.
//!
//! Every path is resolved by the kernel as if the root were `/`
//! (`openat2(2)`, `RESOLVE_IN_ROOT`): a symlink of the image's, absolute or
//! with `..`, leads to a place inside. Files are read only when they are regular
//! and small, and replaced by renaming.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Uid, fchmod, fchown, fstat, mkdirat,
    openat, openat2, renameat, statat, symlinkat, unlinkat,
};

/// Largest file that is read, in bytes.
pub const MAX_FILE: u64 = 1 << 20;

/// An open root directory.
#[derive(Debug)]
pub struct Rootfs(OwnedFd);

/// Who owns what is made, and its mode.
#[derive(Clone, Copy, Debug)]
pub struct Ownership {
    /// Owner and group; `None` leaves the caller's.
    pub owner: Option<(u32, u32)>,
    /// Permission bits.
    pub mode: u32,
}

impl Rootfs {
    /// Opens the root at `path`.
    ///
    /// # Errors
    ///
    /// Those of `open(2)`.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(openat(rustix::fs::CWD, path, flags, Mode::empty())?))
    }

    /// The root is this directory.
    #[must_use]
    pub fn of(dir: OwnedFd) -> Self {
        Self(dir)
    }

    fn resolve(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        openat2(
            &self.0,
            path,
            flags | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        )
    }

    /// What a regular file holds; `None` when there is none or it is larger than
    /// [`MAX_FILE`].
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        // A FIFO would block, a device could do anything.
        let fd = match self.resolve(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY) {
            Ok(fd) => fd,
            Err(
                rustix::io::Errno::NOENT
                | rustix::io::Errno::NOTDIR
                | rustix::io::Errno::LOOP
                | rustix::io::Errno::NXIO,
            ) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let stat = fstat(&fd)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile
            || stat.st_size.cast_unsigned() > MAX_FILE
        {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        File::from(fd).take(MAX_FILE).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    /// Whether `path` leads to a file that somebody may execute.
    #[must_use]
    pub fn is_executable(&self, path: &Path) -> bool {
        self.resolve(path, OFlags::PATH)
            .and_then(|fd| fstat(&fd))
            .is_ok_and(|stat| {
                FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
                    && stat.st_mode & 0o111 != 0
            })
    }

    /// Whether `path` leads to anything.
    #[must_use]
    pub fn exists(&self, path: &Path) -> bool {
        self.resolve(path, OFlags::PATH).is_ok()
    }

    /// Owner, group and permission bits of the directory that `path` leads to.
    #[must_use]
    pub fn owner_of(&self, path: &Path) -> Option<(u32, u32, u32)> {
        let fd = self.resolve(path, OFlags::PATH | OFlags::DIRECTORY).ok()?;
        let stat = fstat(&fd).ok()?;
        Some((stat.st_uid, stat.st_gid, stat.st_mode & 0o7777))
    }

    /// Makes `path` and the directories above it; existing ones stay as they are.
    /// Returns whether `path` itself was made.
    ///
    /// # Errors
    ///
    /// When one cannot be made, or something else is in its place.
    pub fn make_dir(&self, path: &Path, last: Ownership, above: Ownership) -> io::Result<bool> {
        let names: Vec<&OsStr> = path
            .components()
            .filter_map(|c| match c {
                Component::Normal(name) => Some(name),
                _ => None,
            })
            .collect();
        let mut at = rustix::io::dup(&self.0)?;
        let mut walked = std::path::PathBuf::new();
        let mut made = false;
        for (n, name) in names.iter().enumerate() {
            let own = if n + 1 == names.len() { last } else { above };
            walked.push(name);
            made = match mkdirat(&at, *name, Mode::from_raw_mode(0o700)) {
                Ok(()) => true,
                Err(rustix::io::Errno::EXIST) => false,
                Err(e) => return Err(e.into()),
            };
            at = self.resolve(&walked, OFlags::RDONLY | OFlags::DIRECTORY)?;
            if made {
                set(&at, own)?;
            }
        }
        Ok(made)
    }

    /// Puts a regular file with these bytes at `path`; what was there is replaced
    /// as a whole, and a symlink is replaced rather than followed.
    ///
    /// # Errors
    ///
    /// When its directory is missing or cannot be written.
    pub fn replace(&self, path: &Path, bytes: &[u8], own: Ownership) -> io::Result<()> {
        let (dir, name) = self.parent(path)?;
        let mut new = b".podspawn-".to_vec();
        new.extend_from_slice(name.as_bytes());
        let new = OsStr::from_bytes(&new);
        let _ = unlinkat(&dir, new, AtFlags::empty());
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(&dir, new, flags, Mode::from_raw_mode(0o600))?;
        set(&fd, own)?;
        File::from(fd).write_all(bytes)?;
        Ok(renameat(&dir, new, &dir, name)?)
    }

    /// Makes a symlink at `path` unless something is there.
    ///
    /// # Errors
    ///
    /// When its directory is missing or cannot be written.
    pub fn link(&self, path: &Path, target: &str) -> io::Result<()> {
        let (dir, name) = self.parent(path)?;
        match symlinkat(target, &dir, name) {
            Err(rustix::io::Errno::EXIST) => Ok(()),
            other => Ok(other?),
        }
    }

    /// Puts an empty directory in the place of `name`, directly in the root, if that is
    /// a symlink.
    ///
    /// # Errors
    ///
    /// Those of `unlink(2)` and `mkdir(2)`.
    pub fn replace_link(&self, name: &str) -> io::Result<()> {
        let found = statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW);
        let is_link = |stat: &Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
        if found.as_ref().is_ok_and(is_link) {
            unlinkat(&self.0, name, AtFlags::empty())?;
            mkdirat(&self.0, name, Mode::from_raw_mode(0o755))?;
        }
        Ok(())
    }

    /// The regular files directly in the directory `path`, by name; none when it
    /// is missing. At most `limit`.
    #[must_use]
    pub fn files_in(&self, path: &Path, limit: usize) -> Vec<std::ffi::OsString> {
        let Ok(dir) = self.resolve(path, OFlags::RDONLY | OFlags::DIRECTORY) else {
            return Vec::new();
        };
        let Ok(entries) = rustix::fs::Dir::read_from(&dir) else {
            return Vec::new();
        };
        entries
            .flatten()
            .filter(|e| e.file_type() == FileType::RegularFile)
            .map(|e| OsStr::from_bytes(e.file_name().to_bytes()).to_owned())
            .take(limit)
            .collect()
    }

    fn parent<'p>(&self, path: &'p Path) -> io::Result<(OwnedFd, &'p OsStr)> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let dir = path.parent().unwrap_or(Path::new("/"));
        Ok((self.resolve(dir, OFlags::RDONLY | OFlags::DIRECTORY)?, name))
    }
}

fn set(fd: impl AsFd, own: Ownership) -> io::Result<()> {
    if let Some((uid, gid)) = own.owner {
        fchown(&fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    Ok(fchmod(&fd, Mode::from_raw_mode(own.mode))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    const PLAIN: Ownership = Ownership {
        owner: None,
        mode: 0o644,
    };
    const DIR: Ownership = Ownership {
        owner: None,
        mode: 0o755,
    };

    #[test]
    fn an_image_cannot_lead_outside() {
        let host = tempfile::tempdir().unwrap();
        let root = host.path().join("root");
        std::fs::create_dir_all(root.join("etc")).unwrap();
        std::fs::write(host.path().join("secret"), "host").unwrap();
        symlink("../../secret", root.join("etc/passwd")).unwrap();
        symlink(host.path().join("secret"), root.join("etc/group")).unwrap();
        symlink("../../..", root.join("up")).unwrap();
        let rootfs = Rootfs::open(&root).unwrap();
        assert_eq!(rootfs.read(Path::new("/etc/passwd")).unwrap(), None);
        assert_eq!(rootfs.read(Path::new("/etc/group")).unwrap(), None);
        rootfs
            .replace(Path::new("/etc/passwd"), b"new", PLAIN)
            .unwrap();
        rootfs
            .replace(Path::new("/up/secret"), b"inside", PLAIN)
            .unwrap();
        rootfs.make_dir(Path::new("/up/etc/x/y"), DIR, DIR).unwrap();
        assert_eq!(std::fs::read(host.path().join("secret")).unwrap(), b"host");
        assert_eq!(std::fs::read(root.join("secret")).unwrap(), b"inside");
        assert_eq!(
            rootfs.read(Path::new("/etc/passwd")).unwrap().unwrap(),
            b"new"
        );
        assert!(root.join("etc/x/y").is_dir());
    }

    #[test]
    fn a_link_gives_way_to_a_directory_and_nothing_else_does() {
        let host = tempfile::tempdir().unwrap();
        let root = host.path().join("root");
        std::fs::create_dir_all(root.join("proc/kept")).unwrap();
        std::fs::write(root.join("file"), "kept").unwrap();
        symlink(host.path(), root.join("dev")).unwrap();
        symlink("nowhere", root.join("sys")).unwrap();
        let rootfs = Rootfs::open(&root).unwrap();
        for name in ["dev", "sys", "proc", "file", "missing"] {
            rootfs.replace_link(name).unwrap();
        }
        for name in ["dev", "sys"] {
            assert!(std::fs::symlink_metadata(root.join(name)).unwrap().is_dir());
            assert_eq!(std::fs::read_dir(root.join(name)).unwrap().count(), 0);
        }
        assert!(root.join("proc/kept").is_dir() && !root.join("missing").exists());
        assert_eq!(std::fs::read(root.join("file")).unwrap(), b"kept");
    }

    #[test]
    fn only_small_regular_files_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let rootfs = Rootfs::open(dir.path()).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            dir.path().join("fifo"),
            FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        File::create(dir.path().join("huge"))
            .unwrap()
            .set_len(MAX_FILE + 1)
            .unwrap();
        for name in ["/fifo", "/huge", "/", "/missing"] {
            assert_eq!(rootfs.read(Path::new(name)).unwrap(), None, "{name}");
        }
    }
}
