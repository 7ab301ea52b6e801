//! The files of one layer while it is unpacked: creating them beneath its root, and remembering
//! which directories it has.
//!
//! What holds: every path given here is clean (`path::clean`); a directory is in `dirs` if and only
//! if this layer made it and it is still there; directories have mode 0700 until [`Tree::finish`]
//! gives them their own attributes, children before parents, so that neither modes nor times of
//! parents are in the way.

mod links;

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::io;
use std::ops::Bound;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, XattrFlags};
use rustix::io::Errno;

use super::attributes::{self, Attributes, Owners};
use super::print::{self, Content, Named, Print};
use super::{LayerFault, path};
use crate::memory::{Exceeded, Share};
use crate::store::{self, Ownership, Pending, Skipped, StoreError};
use crate::tar::Time;

/// A directory of the layer.
#[derive(Debug, Default)]
struct Dir {
    /// What the layer says of it; nothing if it only has files in it.
    stated: Option<Attributes>,
    /// Shows nothing of the layers below.
    opaque: bool,
    /// Replaces what the layers below have of that name, so it has nothing from them.
    fresh: bool,
    /// Has, or once had, whiteouts.
    whiteouts: bool,
}

/// A layer being written.
pub(crate) struct Tree {
    root: Arc<OwnedFd>,
    owners: Owners,
    pub(crate) skipped: Skipped,
    dirs: BTreeMap<Vec<u8>, Dir>,
    /// Hard links to files that only earlier layers have; a whiteout holds their place.
    links: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The directory that was used last.
    last: Option<(Vec<u8>, Arc<OwnedFd>)>,
    memory: Share,
    /// The fingerprint, without directories; nothing once something was replaced.
    print: Option<Print>,
    /// The content of the file that is being written.
    pub(crate) content: Content,
}

/// What is where something is to be created.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    Nothing,
    Directory,
    Whiteout,
    Other(FileType),
}

fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

fn refused(path: &[u8], why: impl Into<String>) -> LayerFault {
    LayerFault::Entry {
        path: shown(path),
        why: why.into(),
    }
}

/// For `map_err`: `action` failed on `path`.
pub(super) fn failed<E: Into<io::Error>>(
    action: &'static str,
    path: &[u8],
) -> impl FnOnce(E) -> LayerFault {
    move |source| LayerFault::Write {
        action,
        path: shown(path),
        source: source.into(),
    }
}

fn c_name(name: &[u8]) -> CString {
    // Paths are clean, and so without NUL.
    CString::new(name).unwrap_or_default()
}

const OPAQUE: &str = "user.overlay.opaque";

impl Tree {
    /// Makes the root of a layer, `fs` in the staging directory `dir`, which is at `at`.
    pub(crate) fn create(
        dir: &OwnedFd,
        at: &Path,
        ownership: Ownership,
        memory: Share,
    ) -> Result<Tree, StoreError> {
        let at = at.join("fs");
        let make = || -> io::Result<OwnedFd> {
            rustix::fs::mkdirat(dir, "fs", Mode::RWXU)?;
            let root = rustix::fs::openat(dir, "fs", DIRECTORY, Mode::empty())?;
            // Nothing of the directories above is to reach the files of the layer: neither their
            // set-group-id bit nor their default access control list.
            rustix::fs::fchmod(&root, Mode::RWXU)?;
            rustix::fs::fchown(&root, None, Some(rustix::process::getegid()))?;
            for acl in ["system.posix_acl_default", "system.posix_acl_access"] {
                match rustix::fs::fremovexattr(&root, acl) {
                    Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(root)
        };
        let root = make().map_err(StoreError::io("make", &at))?;
        Ok(Tree {
            root: Arc::new(root),
            owners: Owners::of_process(ownership),
            skipped: Skipped::default(),
            dirs: BTreeMap::from([(Vec::new(), Dir::default())]),
            links: BTreeMap::new(),
            last: None,
            memory,
            print: Some(Print::default()),
            content: Content::new(),
        })
    }

    fn remember(&self, bytes: usize) -> Result<(), LayerFault> {
        // What a map entry costs besides its key: a node is half full, and each key is allocated.
        Ok(self.memory.take(bytes + 224)?)
    }

    /// Opens a directory of this layer.
    fn open(&self, dir: &[u8]) -> Result<Arc<OwnedFd>, LayerFault> {
        if dir.is_empty() {
            return Ok(self.root.clone());
        }
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let opened = loop {
            match rustix::fs::openat2(&*self.root, dir, DIRECTORY, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                opened => break opened,
            }
        };
        opened.map(Arc::new).map_err(failed("open", dir))
    }

    /// The directory that an entry goes into, made if the layer does not have it yet.
    fn parent(&mut self, dir: &[u8]) -> Result<Arc<OwnedFd>, LayerFault> {
        if let Some((last, fd)) = &self.last
            && last == dir
        {
            return Ok(fd.clone());
        }
        if !self.dirs.contains_key(dir) {
            let slashes = dir.iter().enumerate().filter(|(_, byte)| **byte == b'/');
            let ends: Vec<usize> = slashes.map(|(at, _)| at).chain([dir.len()]).collect();
            for end in ends {
                if !self.dirs.contains_key(&dir[..end]) {
                    self.make_dir(&dir[..end], None)?;
                }
            }
        }
        let fd = self.open(dir)?;
        self.last = Some((dir.to_vec(), fd.clone()));
        Ok(fd)
    }

    fn stat(parent: &OwnedFd, name: &CString) -> Result<Option<Stat>, Errno> {
        match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn find(parent: &OwnedFd, name: &CString, path: &[u8]) -> Result<Found, LayerFault> {
        let stat = Tree::stat(parent, name).map_err(failed("look at", path))?;
        let Some(stat) = stat else {
            return Ok(Found::Nothing);
        };
        Ok(match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Found::Directory,
            // Devices are never made, so this is one of ours.
            FileType::CharacterDevice => Found::Whiteout,
            other => Found::Other(other),
        })
    }

    /// Removes what is at `path`, with all below.
    fn clear(
        &mut self,
        parent: &OwnedFd,
        name: &CString,
        path: &[u8],
    ) -> Result<Found, LayerFault> {
        let found = Tree::find(parent, name, path)?;
        if found != Found::Nothing {
            self.print = None;
        }
        match found {
            Found::Nothing => return Ok(found),
            Found::Directory => {
                store::remove_at(parent.as_fd(), OsStr::from_bytes(name.as_bytes()))
                    .map_err(failed("replace", path))?;
                self.forget(path);
            }
            Found::Whiteout | Found::Other(_) => {
                rustix::fs::unlinkat(parent, name, AtFlags::empty())
                    .map_err(failed("replace", path))?;
                self.links.remove(path);
            }
        }
        Ok(found)
    }

    /// Forgets a directory and all below.
    fn forget(&mut self, path: &[u8]) {
        self.last = None;
        self.dirs.remove(path);
        // Everything below has the prefix `path/`, and '0' follows '/'.
        let (mut first, mut end) = (path.to_vec(), path.to_vec());
        first.push(b'/');
        end.push(b'0');
        let range = (Bound::Included(first), Bound::Excluded(end));
        let dirs: Vec<_> = self
            .dirs
            .range(range.clone())
            .map(|(k, _)| k.clone())
            .collect();
        let links: Vec<_> = self.links.range(range).map(|(k, _)| k.clone()).collect();
        dirs.iter().for_each(|path| drop(self.dirs.remove(path)));
        links.iter().for_each(|path| drop(self.links.remove(path)));
    }

    /// A directory, stated with its attributes or implied by what is in it.
    fn make_dir(&mut self, path: &[u8], stated: Option<Attributes>) -> Result<(), LayerFault> {
        let xattrs = stated.iter().flat_map(|stated| &stated.xattrs);
        let extra: usize = xattrs
            .map(|(name, value)| name.len() + value.len() + 96)
            .sum();
        self.remember(path.len() + extra)?;
        if let Some(dir) = self.dirs.get_mut(path) {
            dir.stated = stated;
            return Ok(());
        }
        let (parent_path, name) = path::split(path);
        let (parent, name) = (self.parent(parent_path)?, c_name(name));
        let mut dir = Dir {
            stated,
            ..Dir::default()
        };
        match rustix::fs::mkdirat(&*parent, &name, Mode::RWXU) {
            Err(Errno::EXIST) => {
                let found = Tree::find(&parent, &name, path)?;
                if let Found::Other(kind) = found
                    && dir.stated.is_none()
                {
                    let kind = if kind == FileType::Symlink {
                        "a symlink"
                    } else {
                        "not a directory"
                    };
                    return Err(refused(
                        path,
                        format!("it is {kind} in this layer, and another entry goes through it"),
                    ));
                }
                self.clear(&parent, &name, path)?;
                rustix::fs::mkdirat(&*parent, &name, Mode::RWXU).map_err(failed("make", path))?;
                // A changeset is applied entry by entry: what was there is gone for good.
                (dir.opaque, dir.fresh) = (true, true);
            }
            made => made.map_err(failed("make", path))?,
        }
        self.dirs.insert(path.to_vec(), dir);
        Ok(())
    }

    /// A directory that the layer states.
    pub(crate) fn directory(
        &mut self,
        path: &[u8],
        attributes: Attributes,
    ) -> Result<(), LayerFault> {
        self.make_dir(path, Some(attributes))
    }

    /// Creates something that is not a directory, after removing what is there.
    fn create_new<T>(
        &mut self,
        path: &[u8],
        create: impl Fn(&OwnedFd, &CString) -> Result<T, Errno>,
    ) -> Result<(T, Arc<OwnedFd>, CString), LayerFault> {
        let (parent_path, name) = path::split(path);
        let (parent, name) = (self.parent(parent_path)?, c_name(name));
        match create(&parent, &name) {
            Err(Errno::EXIST) => {
                self.clear(&parent, &name, path)?;
                let made = create(&parent, &name).map_err(failed("make", path))?;
                Ok((made, parent, name))
            }
            made => Ok((made.map_err(failed("make", path))?, parent, name)),
        }
    }

    /// A new, empty file, to be given to [`Tree::finish_file`] when it is written.
    pub(crate) fn file(
        &mut self,
        path: &[u8],
        attributes: &Attributes,
    ) -> Result<OwnedFd, LayerFault> {
        let mode = self.owners.creation_mode(attributes);
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let create =
            |parent: &OwnedFd, name: &CString| rustix::fs::openat(parent, name, flags, mode);
        let file = self.create_new(path, create)?.0;
        self.note(path, &Named::File);
        Ok(file)
    }

    /// Notes in the fingerprint that there is a name.
    fn note(&mut self, path: &[u8], named: &Named<'_>) {
        if let Some(print) = &mut self.print {
            print.name(path, named);
        }
    }

    /// Puts the attributes on a file that is written.
    pub(crate) fn finish_file(
        &mut self,
        path: &[u8],
        file: &OwnedFd,
        attributes: &Attributes,
        size: u64,
    ) -> Result<(), LayerFault> {
        let content = self.content.finish();
        if let Some(print) = &mut self.print {
            print.file(attributes.mode, size, content);
        }
        self.owners
            .finish_file(file.as_fd(), attributes, &mut self.skipped)
            .map_err(failed("set the attributes of", path))
    }

    /// A symlink, whatever it points at.
    pub(crate) fn symlink(
        &mut self,
        path: &[u8],
        target: &[u8],
        attributes: &Attributes,
    ) -> Result<(), LayerFault> {
        let target = c_name(target);
        let create =
            |parent: &OwnedFd, name: &CString| rustix::fs::symlinkat(&target, parent, name);
        let ((), parent, name) = self.create_new(path, create)?;
        self.note(path, &Named::Symlink(target.as_bytes()));
        self.owners
            .finish_special(&*parent, &name, attributes, true, &mut self.skipped)
            .map_err(failed("set the attributes of", path))
    }

    /// A named pipe.
    pub(crate) fn fifo(&mut self, path: &[u8], attributes: &Attributes) -> Result<(), LayerFault> {
        let create = |parent: &OwnedFd, name: &CString| {
            rustix::fs::mknodat(parent, name, FileType::Fifo, Mode::RUSR, 0)
        };
        let ((), parent, name) = self.create_new(path, create)?;
        self.note(path, &Named::Fifo);
        self.owners
            .finish_special(&*parent, &name, attributes, false, &mut self.skipped)
            .map_err(failed("set the attributes of", path))
    }

    /// A device node is not made, but what the layer had there before is gone.
    pub(crate) fn device(&mut self, path: &[u8]) -> Result<(), LayerFault> {
        self.skipped.devices += 1;
        let (parent, name) = path::split(path);
        let (parent, name) = (self.parent(parent)?, c_name(name));
        self.clear(&parent, &name, path).map(drop)
    }

    fn make_whiteout(&mut self, path: &[u8]) -> Result<(), LayerFault> {
        let create = |parent: &OwnedFd, name: &CString| {
            rustix::fs::mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), 0)
        };
        let ((), parent, name) = self.create_new(path, create)?;
        self.note(path, &Named::Whiteout);
        let epoch = attributes::times(Time::default());
        rustix::fs::utimensat(&*parent, &name, &epoch, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(failed("set the attributes of", path))?;
        if let Some(dir) = self.dirs.get_mut(path::split(path).0) {
            dir.whiteouts = true;
        }
        Ok(())
    }

    /// `path` of the layers below is gone. What this layer has there stays, whichever comes first.
    pub(crate) fn whiteout(&mut self, path: &[u8]) -> Result<(), LayerFault> {
        if let Some(dir) = self.dirs.get_mut(path) {
            (dir.opaque, dir.fresh) = (true, true);
            return Ok(());
        }
        let (parent, name) = path::split(path);
        let (parent, name) = (self.parent(parent)?, c_name(name));
        match Tree::find(&parent, &name, path)? {
            Found::Nothing => self.make_whiteout(path),
            Found::Directory | Found::Whiteout | Found::Other(_) => Ok(()),
        }
    }

    /// `path` shows nothing of the layers below.
    pub(crate) fn opaque(&mut self, path: &[u8]) -> Result<(), LayerFault> {
        self.parent(path)?;
        if let Some(dir) = self.dirs.get_mut(path) {
            dir.opaque = true;
        }
        Ok(())
    }

    /// Gives all directories their attributes. Returns what the stack must complete, and the
    /// fingerprint of it all.
    pub(crate) fn finish(mut self) -> Result<(Pending, Skipped, Option<String>), LayerFault> {
        self.last = None;
        let mut pending = Pending {
            links: std::mem::take(&mut self.links).into_iter().collect(),
            ..Pending::default()
        };
        // In order, a directory comes before what is in it.
        let dirs = std::mem::take(&mut self.dirs);
        let unstated = Attributes::unstated();
        for (path, dir) in dirs.into_iter().rev() {
            let fd = self.open(&path)?;
            if dir.opaque {
                rustix::fs::fsetxattr(&*fd, OPAQUE, b"y", XattrFlags::empty())
                    .map_err(failed("mark as opaque", &path))?;
            }
            let attributes = dir.stated.as_ref().unwrap_or(&unstated);
            let (mode, opaque) = (attributes.mode, dir.opaque);
            self.note(&path, &Named::Directory { mode, opaque });
            self.owners
                .finish_dir(fd.as_fd(), attributes, &mut self.skipped)
                .map_err(failed("set the attributes of", &path))?;
            if dir.whiteouts {
                pending.whiteouts.push(path.clone());
            }
            if dir.stated.is_none() && !dir.fresh {
                pending.implied.push(path);
            }
        }
        pending.implied.reverse();
        pending.whiteouts.reverse();
        // What was replaced cannot be taken out again, so then it is all looked at.
        let print = match self.print {
            Some(print) => Some(print),
            None => match print::walk(&self.root, Some(&self.memory)) {
                Ok(print) => Some(print),
                Err(error) => match Exceeded::within(&error) {
                    Some(exceeded) => return Err(exceeded.into()),
                    None => None,
                },
            },
        };
        Ok((pending, self.skipped, print.map(Print::text)))
    }
}

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);
