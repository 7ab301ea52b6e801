//! What a stack of layers shows when overlay merges it, and where each part comes from.
//!
//! Reads unpacked layers, which nobody changes. Used while an image is committed, to find what its
//! fixup must have.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::{Pending, StoreError, layout};
use crate::digest::Digest;

/// One layer of a stack.
pub(super) struct Level {
    pub(super) digest: Digest,
    pub(super) fs: OwnedFd,
    path: PathBuf,
    pub(super) pending: Pending,
    implied: HashSet<Vec<u8>>,
    links: HashMap<Vec<u8>, Vec<u8>>,
}

/// The layers of an image, lowest first.
pub(super) struct Stack {
    pub(super) levels: Vec<Level>,
    cache: RefCell<HashMap<Vec<u8>, Rc<Seen>>>,
}

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Nothing,
    /// A directory, merged of these levels, topmost first.
    Directory {
        levels: Vec<usize>,
        /// The level that states its attributes; none if all that have it merely imply it.
        source: Option<usize>,
    },
    /// Something else, at this level.
    Other(usize),
    /// A hard link of this level that is yet to be completed.
    Link(usize),
}

/// What one level has at a path whose parent is a directory there.
enum Here {
    Nothing,
    Whiteout,
    Directory { opaque: bool },
    Other,
}

impl Level {
    /// Opens the layer in `dir`.
    pub(super) fn open(digest: Digest, dir: PathBuf) -> Result<Level, StoreError> {
        let pending = Pending::read(&dir)?;
        let path = dir.join("fs");
        let fs = layout::open_dir(&path).map_err(StoreError::io("open", &path))?;
        Ok(Level {
            digest,
            fs,
            path,
            implied: pending.implied.iter().cloned().collect(),
            links: pending.links.iter().cloned().collect(),
            pending,
        })
    }

    fn failed<E: Into<io::Error>>(&self, path: &[u8]) -> impl FnOnce(E) -> StoreError {
        let path = self.path.join(String::from_utf8_lossy(path).as_ref());
        move |source| StoreError::Io {
            action: "look at",
            path,
            source: source.into(),
        }
    }

    /// Opens a directory of the layer; `None` if it is none.
    pub(super) fn open_dir(&self, path: &[u8]) -> Result<Option<OwnedFd>, StoreError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let path_or_dot = if path.is_empty() { b"." } else { path };
        match rustix::fs::openat2(&self.fs, path_or_dot, flags, Mode::empty(), resolve) {
            Ok(dir) => Ok(Some(dir)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(error) => Err(self.failed(path)(error)),
        }
    }

    /// Looks at a path whose parent is a directory of the layer.
    pub(super) fn stat(&self, path: &[u8]) -> Result<Option<Stat>, StoreError> {
        match rustix::fs::statat(&self.fs, path, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(self.failed(path)(error)),
        }
    }

    fn look(&self, path: &[u8]) -> Result<Here, StoreError> {
        if let Some(dir) = self.open_dir(path)? {
            let opaque = self.is_opaque(&dir, path)?;
            return Ok(Here::Directory { opaque });
        }
        Ok(match self.stat(path)? {
            None => Here::Nothing,
            Some(stat) => match FileType::from_raw_mode(stat.st_mode) {
                FileType::CharacterDevice => Here::Whiteout,
                _ => Here::Other,
            },
        })
    }

    fn is_opaque(&self, dir: &OwnedFd, path: &[u8]) -> Result<bool, StoreError> {
        let mut value = [0; 4];
        match rustix::fs::fgetxattr(dir, "user.overlay.opaque", &mut value) {
            Ok(length) => Ok(&value[..length] == b"y"),
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(false),
            Err(error) => Err(self.failed(path)(error)),
        }
    }
}

impl Stack {
    /// Layers, lowest first. What cannot show is left out: all below a layer whose root is opaque
    /// (overlay does not look at that mark), and all but the topmost of equal layers (overlay
    /// refuses to mount a directory twice, and the one on top hides all of the other).
    pub(super) fn new(levels: impl IntoIterator<Item = Level>) -> Result<Stack, StoreError> {
        let mut stacked: Vec<Level> = Vec::new();
        for level in levels {
            if level.is_opaque(&level.fs, b"")? {
                stacked.clear();
            }
            stacked.retain(|below| below.digest != level.digest);
            stacked.push(level);
        }
        Ok(Stack {
            levels: stacked,
            cache: RefCell::new(HashMap::new()),
        })
    }

    /// What the whole stack shows at a clean path.
    pub(super) fn see(&self, path: &[u8]) -> Result<Rc<Seen>, StoreError> {
        if let Some(seen) = self.cache.borrow().get(path) {
            return Ok(seen.clone());
        }
        let seen = Rc::new(if path.is_empty() {
            self.root(self.levels.len())
        } else {
            let parent = self.see(crate::layer::split(path).0)?;
            self.step(&parent, path)?
        });
        self.cache.borrow_mut().insert(path.to_vec(), seen.clone());
        Ok(seen)
    }

    /// What the levels below `top` show at a clean path.
    pub(super) fn see_below(&self, top: usize, path: &[u8]) -> Result<Seen, StoreError> {
        let mut seen = self.root(top);
        if path.is_empty() {
            return Ok(seen);
        }
        let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        for end in slashes.map(|(at, _)| at).chain([path.len()]) {
            seen = self.step(&seen, &path[..end])?;
        }
        Ok(seen)
    }

    fn root(&self, top: usize) -> Seen {
        let levels: Vec<usize> = (0..top).rev().collect();
        let states = |level: &&usize| !self.levels[**level].implied.contains(&b""[..]);
        Seen::Directory {
            source: levels.iter().find(states).copied(),
            levels,
        }
    }

    /// What is at `path`, given what its parent is.
    fn step(&self, parent: &Seen, path: &[u8]) -> Result<Seen, StoreError> {
        let Seen::Directory { levels, .. } = parent else {
            return Ok(Seen::Nothing);
        };
        let (mut merged, mut source) = (Vec::new(), None);
        let mut closed = false;
        for &index in levels {
            let level = &self.levels[index];
            match level.look(path)? {
                Here::Nothing => {}
                Here::Whiteout if merged.is_empty() && level.links.contains_key(path) => {
                    return Ok(Seen::Link(index));
                }
                Here::Other if merged.is_empty() => return Ok(Seen::Other(index)),
                Here::Whiteout | Here::Other => break,
                Here::Directory { opaque } => {
                    if !closed {
                        merged.push(index);
                    }
                    if source.is_none() && !level.implied.contains(path) {
                        source = Some(index);
                    }
                    // An opaque directory hides what is in those below; one that is not stated
                    // still has their attributes.
                    closed |= opaque;
                    if closed && source.is_some() {
                        break;
                    }
                }
            }
        }
        Ok(if merged.is_empty() {
            Seen::Nothing
        } else {
            Seen::Directory {
                levels: merged,
                source,
            }
        })
    }

    /// The file that a hard link of level `index` means: its level and path.
    pub(super) fn follow(&self, index: usize, path: &[u8]) -> Result<(usize, Vec<u8>), StoreError> {
        let (mut at, mut link) = (index, path.to_vec());
        loop {
            let target = self.levels[at]
                .links
                .get(&link)
                .cloned()
                .unwrap_or_default();
            let why = match self.see_below(at, &target)? {
                Seen::Other(level) => return Ok((level, target)),
                // Each step leads to a lower level, so there is an end.
                Seen::Link(level) => {
                    (at, link) = (level, target);
                    continue;
                }
                Seen::Directory { .. } => "a directory",
                Seen::Nothing => "in no layer below",
            };
            return Err(StoreError::HardLink {
                layer: self.levels[index].digest.clone(),
                path: String::from_utf8_lossy(path).into_owned(),
                target: String::from_utf8_lossy(&target).into_owned(),
                why,
            });
        }
    }
}
