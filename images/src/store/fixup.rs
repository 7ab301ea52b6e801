//! An image's fixup: the lower directory on top of its layers that has what no layer can know.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, SeekFrom, Stat};
use rustix::io::Errno;

use super::stack::{Seen, Stack};
use super::{Ownership, Skipped, StoreError, layout};
use crate::layer::{Attributes, Owners, split};
use crate::tar::Time;

/// A file to copy: its path in its level, and all names the copy gets.
type Copy = (Vec<u8>, BTreeSet<Vec<u8>>);

/// What a fixup is to contain.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Directories, with all their parents; `""` is the root.
    dirs: BTreeSet<Vec<u8>>,
    /// Files to copy, by level and inode.
    copies: BTreeMap<(usize, u64), Copy>,
}

impl Plan {
    /// Whether no fixup is needed.
    pub(super) fn is_empty(&self) -> bool {
        self.dirs.is_empty() && self.copies.is_empty()
    }

    /// Finds out what the stack leaves to be done. Refuses an image with a hard link that leads
    /// nowhere.
    pub(super) fn of(stack: &Stack) -> Result<Plan, StoreError> {
        let mut plan = Plan::default();
        if stack.levels.is_empty() {
            plan.dirs.insert(Vec::new());
        }
        for (index, level) in stack.levels.iter().enumerate() {
            for path in &level.pending.implied {
                if plan.changes_attributes(stack, index, path)? {
                    plan.add_dir(stack, path)?;
                }
            }
            for path in &level.pending.whiteouts {
                // Overlay lists the whiteouts of a directory that it has nothing to merge with.
                if let Seen::Directory { levels, .. } = &*stack.see(path)?
                    && *levels == [index]
                {
                    plan.add_dir(stack, path)?;
                }
            }
            for (path, _) in &level.pending.links {
                plan.add_link(stack, index, path)?;
            }
        }
        Ok(plan)
    }

    fn add_dir(&mut self, stack: &Stack, path: &[u8]) -> Result<(), StoreError> {
        let mut path = path;
        while !self.dirs.contains(path) {
            stack.room.take(path.len() + 128)?;
            self.dirs.insert(path.to_vec());
            path = split(path).0;
        }
        Ok(())
    }

    /// Whether `path`, which level `index` implies, shows there but with the wrong attributes.
    fn changes_attributes(
        &self,
        stack: &Stack,
        index: usize,
        path: &[u8],
    ) -> Result<bool, StoreError> {
        let seen = stack.see(path)?;
        let Seen::Directory { levels, source } = &*seen else {
            return Ok(false);
        };
        let (Some(source), true) = (*source, levels.first() == Some(&index)) else {
            return Ok(false);
        };
        let read = |level: usize| read_dir_attributes(stack, level, path);
        let (mut shown, stated) = (read(index)?, read(source)?);
        if path.is_empty() {
            // Whatever is mounted on top of the layers has a root of its own, with its own time.
            shown.mtime = stated.mtime;
        }
        Ok(shown != stated)
    }

    fn add_link(&mut self, stack: &Stack, index: usize, path: &[u8]) -> Result<(), StoreError> {
        let (level, target) = stack.follow(index, path)?;
        if *stack.see(path)? != Seen::Link(index) {
            return Ok(());
        }
        let Some(stat) = stack.levels[level].stat(&target)? else {
            return Ok(());
        };
        // The target too, if it shows: they are one file, and their link count says so.
        let shows = *stack.see(&target)? == Seen::Other(level);
        for name in [path.to_vec()]
            .into_iter()
            .chain(shows.then(|| target.clone()))
        {
            self.add_dir(stack, split(&name).0)?;
            stack.room.take(name.len() + 224)?;
            let copy = self.copies.entry((level, stat.st_ino));
            let copy = copy.or_insert_with(|| (target.clone(), BTreeSet::new()));
            copy.1.insert(name);
        }
        Ok(())
    }

    /// Makes the fixup in the new directory `at`.
    pub(super) fn make(
        &self,
        stack: &Stack,
        at: &Path,
        ownership: Ownership,
    ) -> Result<(), StoreError> {
        let owners = Owners::of_process(ownership);
        let failed = |path: &[u8]| {
            let path = at.join(String::from_utf8_lossy(path).as_ref());
            move |source: io::Error| StoreError::Io {
                action: "make",
                path,
                source,
            }
        };
        std::fs::create_dir(at).map_err(StoreError::io("make", at))?;
        let root = layout::open_dir(at).map_err(StoreError::io("open", at))?;
        for path in self.dirs.iter().filter(|path| !path.is_empty()) {
            rustix::fs::mkdirat(&root, path.as_slice(), Mode::RWXU)
                .map_err(|error| failed(path)(error.into()))?;
        }
        for ((level, _), (source, names)) in &self.copies {
            let mut names = names.iter();
            let Some(first) = names.next() else { continue };
            let copied = copy(stack, *level, source, &root, first, &owners);
            copied.map_err(failed(first))?;
            for name in names {
                rustix::fs::linkat(
                    &root,
                    first.as_slice(),
                    &root,
                    name.as_slice(),
                    AtFlags::empty(),
                )
                .map_err(|error| failed(name)(error.into()))?;
            }
        }
        // Children before parents, whose times and modes would be in the way otherwise.
        for path in self.dirs.iter().rev() {
            let attributes = match &*stack.see(path)? {
                Seen::Directory {
                    source: Some(level),
                    ..
                } => read_dir_attributes(stack, *level, path)?,
                Seen::Directory { source: None, .. }
                | Seen::Nothing
                | Seen::Other(_)
                | Seen::Link(_) => Attributes::unstated(),
            };
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let name = if path.is_empty() {
                b"."
            } else {
                path.as_slice()
            };
            let finish = || -> io::Result<()> {
                let dir = rustix::fs::openat(&root, name, flags, Mode::empty())?;
                owners.finish_dir(dir.as_fd(), &attributes, &mut Skipped::default())
            };
            finish().map_err(failed(path))?;
        }
        Ok(())
    }
}

fn from_stat(stat: &Stat, xattrs: Vec<(Vec<u8>, Vec<u8>)>) -> Attributes {
    Attributes {
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid.into(),
        gid: stat.st_gid.into(),
        mtime: Time {
            seconds: stat.st_mtime,
            nanoseconds: stat.st_mtime_nsec as u32,
        },
        xattrs,
    }
}

fn read_dir_attributes(stack: &Stack, level: usize, path: &[u8]) -> Result<Attributes, StoreError> {
    let dir = stack.levels[level].open_dir(path)?;
    let read = || -> io::Result<Attributes> {
        let dir = dir.ok_or(io::ErrorKind::NotFound)?;
        let stat = rustix::fs::fstat(&dir)?;
        Ok(from_stat(&stat, read_xattrs(&dir)?))
    };
    let shown = String::from_utf8_lossy(path).into_owned();
    read().map_err(StoreError::io("read the attributes of", Path::new(&shown)))
}

/// The attributes that a layer may have, in the order of their names.
fn read_xattrs(file: &OwnedFd) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut names = vec![0; 64 << 10];
    let length = match rustix::fs::flistxattr(file, &mut names[..]) {
        Err(Errno::OPNOTSUPP) => 0,
        length => length?,
    };
    let mut xattrs = Vec::new();
    for name in names[..length].split(|byte| *byte == 0) {
        if !Attributes::may_have(name) {
            continue;
        }
        let mut value = vec![0; 64 << 10];
        let length = rustix::fs::fgetxattr(file, name, &mut value[..])?;
        value.truncate(length);
        xattrs.push((name.to_vec(), value));
    }
    xattrs.sort();
    Ok(xattrs)
}

/// Copies what a level has at `source` to the new name `name` below `root`.
fn copy(
    stack: &Stack,
    level: usize,
    source: &[u8],
    root: &OwnedFd,
    name: &[u8],
    owners: &Owners,
) -> io::Result<()> {
    let level = &stack.levels[level];
    let stat = rustix::fs::statat(&level.fs, source, AtFlags::SYMLINK_NOFOLLOW)?;
    let mut skipped = Skipped::default();
    let target = CString::new(name)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let from = rustix::fs::openat(&level.fs, source, flags, Mode::empty())?;
            let attributes = from_stat(&stat, read_xattrs(&from)?);
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let mode = owners.creation_mode(&attributes);
            let to = rustix::fs::openat(root, &target, flags, mode)?;
            copy_data(&from, &to, stat.st_size as u64)?;
            owners.finish_file(to.as_fd(), &attributes, &mut skipped)
        }
        FileType::Symlink => {
            let link = rustix::fs::readlinkat(&level.fs, source, Vec::new())?;
            rustix::fs::symlinkat(&link, root, &target)?;
            let attributes = from_stat(&stat, Vec::new());
            owners.finish_special(root, &target, &attributes, true, &mut skipped)
        }
        kind => {
            rustix::fs::mknodat(root, &target, kind, Mode::RUSR, 0)?;
            let attributes = from_stat(&stat, Vec::new());
            owners.finish_special(root, &target, &attributes, false, &mut skipped)
        }
    }
}

/// Shares the blocks where the file system can; else copies what is not a hole.
fn copy_data(from: &OwnedFd, to: &OwnedFd, size: u64) -> io::Result<()> {
    if rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    let mut at = 0;
    while at < size {
        let start = match rustix::fs::seek(from, SeekFrom::Data(at)) {
            Ok(start) => start,
            // Nothing but a hole from here to the end.
            Err(Errno::NXIO) => break,
            Err(_) => at,
        };
        let end = rustix::fs::seek(from, SeekFrom::Hole(start)).unwrap_or(size);
        rustix::fs::seek(from, SeekFrom::Start(start))?;
        rustix::fs::seek(to, SeekFrom::Start(start))?;
        let mut reader = io::Read::take(std::fs::File::from(from.try_clone()?), end - start);
        let mut writer = std::fs::File::from(to.try_clone()?);
        io::copy(&mut reader, &mut writer)?;
        at = end.max(start + 1);
    }
    Ok(rustix::fs::ftruncate(to, size)?)
}
