//! What a stack of layers shows when overlay merges it, and where each part comes from.
//!
//! Reads unpacked layers, which nobody changes. Used while an image is committed, to find what its
//! fixup must have.

use std::cell::{Cell, RefCell};
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

/// The memory that an image may take for what its layers leave to be completed, in bytes. Some
/// hundred thousand paths; images have a few, if any.
const ROOM: usize = 48 << 20;
/// What is known of paths is forgotten when it is this much.
const CACHE: usize = 8 << 20;

/// What is left of [`ROOM`].
#[derive(Debug)]
pub(super) struct Room(Cell<usize>);

impl Default for Room {
    fn default() -> Room {
        Room(Cell::new(ROOM))
    }
}

impl Room {
    pub(super) fn take(&self, bytes: usize) -> Result<(), StoreError> {
        match self.0.get().checked_sub(bytes) {
            Some(left) => {
                self.0.set(left);
                Ok(())
            }
            None => Err(StoreError::Incomplete { limit: ROOM }),
        }
    }
}

/// The layers of an image, lowest first.
pub(super) struct Stack {
    pub(super) levels: Vec<Level>,
    pub(super) room: Room,
    cache: RefCell<Cache>,
}

/// What paths show, as far as it was looked up lately.
#[derive(Default)]
struct Cache {
    seen: HashMap<Vec<u8>, Rc<Seen>>,
    bytes: usize,
}

impl Cache {
    fn insert(&mut self, path: &[u8], seen: &Rc<Seen>) {
        let levels = match &**seen {
            Seen::Directory { levels, .. } => levels.len() * size_of::<usize>(),
            Seen::Nothing | Seen::Other(_) | Seen::Link(_) => 0,
        };
        let bytes = path.len() + levels + 192;
        if self.bytes + bytes > CACHE {
            *self = Cache::default();
        }
        self.bytes += bytes;
        self.seen.insert(path.to_vec(), seen.clone());
    }
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
    /// Opens the layer in `dir`, if there is room for what it leaves to be completed.
    pub(super) fn open(digest: Digest, dir: PathBuf, room: &Room) -> Result<Level, StoreError> {
        // Twice each: as they are listed, and to be found.
        let pending = Pending::read(&dir, &|paths, bytes| room.take(2 * (160 * paths + bytes)))?;
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
    pub(super) fn new(levels: Vec<Level>, room: Room) -> Result<Stack, StoreError> {
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
            room,
            cache: RefCell::default(),
        })
    }

    /// What the whole stack shows at a clean path.
    pub(super) fn see(&self, path: &[u8]) -> Result<Rc<Seen>, StoreError> {
        if let Some(seen) = self.cache.borrow().seen.get(path) {
            return Ok(seen.clone());
        }
        let seen = Rc::new(if path.is_empty() {
            self.root(self.levels.len())
        } else {
            let parent = self.see(crate::layer::split(path).0)?;
            self.step(&parent, path)?
        });
        self.cache.borrow_mut().insert(path, &seen);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_so_much() {
        let room = Room::default();
        room.take(ROOM - 10).unwrap();
        assert!(matches!(
            room.take(11),
            Err(StoreError::Incomplete { limit: ROOM })
        ));
        room.take(10).unwrap();
        assert!(room.take(1).is_err());
    }

    #[test]
    fn what_is_known_of_paths_is_bounded() {
        let mut cache = Cache::default();
        let deep = Rc::new(Seen::Directory {
            levels: (0..499).collect(),
            source: None,
        });
        let mut most = 0;
        for n in 0..10_000 {
            let path = format!("some/path/{n}");
            cache.insert(path.as_bytes(), &deep);
            assert!(cache.seen.contains_key(path.as_bytes()));
            most = most.max(cache.seen.len());
        }
        assert!(cache.bytes <= CACHE);
        assert!((1000..3000).contains(&most), "{most}");
    }
}
