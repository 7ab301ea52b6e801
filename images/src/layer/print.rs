//! A layer's fingerprint: what `store check` later tells damage by.
//!
//! The blob of an unpacked layer is not kept, so its digest proves nothing about the files any more.
//! The fingerprint does: it covers every name, what is there, modes of files and directories, sizes,
//! contents and the targets of symlinks. It is a sum over hashes, in whatever order things are
//! written or found, so that it costs next to nothing beside unpacking. It is no digest: it finds
//! what a disk or a mistake did, not what somebody forged.
//!
//! Owners and times are left out (what a file system makes of them differs), and of several names
//! of one file it is not known which came first, so names and contents are counted apart.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, SeekFrom};
use rustix::io::Errno;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use crate::memory::Share;

/// The fingerprint so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Print(u128);

/// What a name stands for.
pub(crate) enum Named<'a> {
    File,
    Symlink(&'a [u8]),
    Directory { mode: u32, opaque: bool },
    Fifo,
    Whiteout,
}

impl Print {
    /// There is a name.
    pub(crate) fn name(&mut self, path: &[u8], named: &Named<'_>) {
        let mut bytes = Vec::with_capacity(path.len() + 32);
        bytes.extend_from_slice(path);
        bytes.push(0);
        match named {
            Named::File => bytes.push(b'f'),
            Named::Symlink(target) => {
                bytes.push(b'l');
                bytes.extend_from_slice(target);
            }
            Named::Directory { mode, opaque } => {
                bytes.extend([b'd', u8::from(*opaque)]);
                bytes.extend((mode & 0o7777).to_le_bytes());
            }
            Named::Fifo => bytes.push(b'p'),
            Named::Whiteout => bytes.push(b'w'),
        }
        self.0 = self.0.wrapping_add(xxh3_128(&bytes));
    }

    /// There is a file.
    pub(crate) fn file(&mut self, mode: u32, size: u64, content: u64) {
        let mut bytes = [0; 21];
        bytes[1..5].copy_from_slice(&(mode & 0o7777).to_le_bytes());
        bytes[5..13].copy_from_slice(&size.to_le_bytes());
        bytes[13..].copy_from_slice(&content.to_le_bytes());
        self.0 = self.0.wrapping_add(xxh3_128(&bytes));
    }

    /// As records have it.
    pub(crate) fn text(self) -> String {
        format!("{:032x}", self.0)
    }
}

/// Contents are hashed by blocks of this size, of which those of zeros do not count: a hole is what
/// reads as zeros, and however large it is, it costs nothing.
const BLOCK: u64 = 64 << 10;

/// The content of a file, while it is written or read.
pub(crate) struct Content {
    block: Box<Xxh3>,
    at: u64,
    zeros: bool,
    sum: u64,
}

impl Content {
    pub(crate) fn new() -> Content {
        Content {
            block: Box::new(Xxh3::new()),
            at: 0,
            zeros: true,
            sum: 0,
        }
    }

    /// Some bytes follow.
    pub(crate) fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = (BLOCK - self.at % BLOCK) as usize;
            let (some, rest) = bytes.split_at(room.min(bytes.len()));
            self.zeros = self.zeros && some.iter().all(|byte| *byte == 0);
            self.block.update(some);
            self.at += some.len() as u64;
            if some.len() == room {
                self.end_block();
            }
            bytes = rest;
        }
    }

    /// Zeros follow, up to `offset`.
    pub(crate) fn skip_to(&mut self, offset: u64) {
        const ZEROS: [u8; 4096] = [0; 4096];
        while self.at < offset {
            let within = self.at % BLOCK;
            if within == 0 && offset - self.at >= BLOCK {
                self.at = offset - offset % BLOCK;
                continue;
            }
            let count = (BLOCK - within).min(offset - self.at).min(4096);
            self.update(&ZEROS[..count as usize]);
        }
    }

    fn end_block(&mut self) {
        if !self.zeros {
            let number = (self.at - 1) / BLOCK;
            let hash = self.block.digest() ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            self.sum = self.sum.wrapping_add(hash);
        }
        self.block.reset();
        self.zeros = true;
    }

    /// The hash of it all; ready for another file.
    pub(crate) fn finish(&mut self) -> u64 {
        if !self.at.is_multiple_of(BLOCK) {
            self.end_block();
        }
        self.at = 0;
        std::mem::take(&mut self.sum)
    }
}

/// The fingerprint of the layer that is in `root`, as it is found there.
/// What must be remembered meanwhile is of `memory`, where that is short.
pub(crate) fn walk(root: &OwnedFd, memory: Option<&Share>) -> io::Result<Print> {
    let mut walk = Walk {
        print: Print::default(),
        linked: HashSet::new(),
        memory,
        content: Content::new(),
        buffer: vec![0; 256 << 10],
    };
    let root = rustix::fs::openat(root, ".", DIRECTORY, Mode::empty())?;
    walk.directory(root, &mut Vec::new())?;
    Ok(walk.print)
}

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

struct Walk<'a> {
    print: Print,
    /// Files of several names that were seen.
    linked: HashSet<(u64, u64)>,
    memory: Option<&'a Share>,
    content: Content,
    buffer: Vec<u8>,
}

impl Walk<'_> {
    fn directory(&mut self, dir: OwnedFd, path: &mut Vec<u8>) -> io::Result<()> {
        let mode = rustix::fs::fstat(&dir)?.st_mode;
        let opaque = is_opaque(&dir)?;
        self.print.name(path, &Named::Directory { mode, opaque });
        let depth = path.len();
        for entry in Dir::read_from(&dir)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            if depth > 0 {
                path.push(b'/');
            }
            path.extend_from_slice(name.to_bytes());
            self.entry(&dir, name, path)?;
            path.truncate(depth);
        }
        Ok(())
    }

    fn entry(
        &mut self,
        dir: &OwnedFd,
        name: &std::ffi::CStr,
        path: &mut Vec<u8>,
    ) -> io::Result<()> {
        let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let below = open(dir, name, DIRECTORY, stat.st_mode)?;
                self.directory(below, path)?;
            }
            FileType::RegularFile => {
                self.print.name(path, &Named::File);
                if stat.st_nlink > 1 {
                    if !self.linked.insert((stat.st_dev, stat.st_ino)) {
                        return Ok(());
                    }
                    // A table that grows is there twice for a moment.
                    let taken = self.memory.map_or(Ok(()), |memory| memory.take(64));
                    taken.map_err(io::Error::other)?;
                }
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = open(dir, name, flags, stat.st_mode)?;
                let size = stat.st_size.cast_unsigned();
                self.read(&file, size)?;
                let content = self.content.finish();
                self.print.file(stat.st_mode, size, content);
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(dir, name, Vec::new())?;
                self.print.name(path, &Named::Symlink(target.to_bytes()));
            }
            FileType::Fifo => self.print.name(path, &Named::Fifo),
            // Devices are never made, so this is a whiteout; and nothing else is made either.
            FileType::CharacterDevice => self.print.name(path, &Named::Whiteout),
            other => {
                let why = format!("{} is a {other:?}", String::from_utf8_lossy(path));
                return Err(io::Error::other(why));
            }
        }
        Ok(())
    }

    fn read(&mut self, file: &OwnedFd, size: u64) -> io::Result<()> {
        let mut at = 0;
        while at < size {
            // Past the holes, where the file system tells.
            match rustix::fs::seek(file, SeekFrom::Data(at)) {
                Ok(data) if data > at => {
                    self.content.skip_to(data.min(size));
                    at = data;
                    continue;
                }
                Err(Errno::NXIO) => break,
                _ => {}
            }
            let count =
                rustix::io::retry_on_intr(|| rustix::io::pread(file, &mut self.buffer[..], at))?;
            if count == 0 {
                break;
            }
            self.content.update(&self.buffer[..count]);
            at += count as u64;
        }
        self.content.skip_to(size);
        Ok(())
    }
}

/// Opens what may forbid that even to its owner, who then lends themself the right.
fn open(dir: &OwnedFd, name: &std::ffi::CStr, flags: OFlags, mode: u32) -> io::Result<OwnedFd> {
    let open = || rustix::fs::openat(dir, name, flags, Mode::empty());
    match open() {
        Err(Errno::ACCESS) => {
            let lent = Mode::from_raw_mode(mode) | Mode::RUSR | Mode::XUSR;
            rustix::fs::chmodat(dir, name, lent, AtFlags::empty())?;
            let opened = open();
            rustix::fs::chmodat(dir, name, Mode::from_raw_mode(mode), AtFlags::empty())?;
            Ok(opened?)
        }
        opened => Ok(opened?),
    }
}

fn is_opaque(dir: impl AsFd) -> io::Result<bool> {
    let mut value = [0; 4];
    match rustix::fs::fgetxattr(dir, "user.overlay.opaque", &mut value) {
        Ok(length) => Ok(&value[..length] == b"y"),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(pieces: &[&[u8]]) -> u64 {
        let mut content = Content::new();
        pieces.iter().for_each(|piece| content.update(piece));
        content.finish()
    }

    #[test]
    fn holes_are_zeros() {
        let block = BLOCK as usize;
        let mut bytes = vec![0; 5 * block + 77];
        bytes[10] = 1;
        bytes[3 * block + 5] = 2;
        let whole = of(&[&bytes]);
        let mut content = Content::new();
        content.update(&bytes[..100]);
        content.skip_to(3 * BLOCK);
        content.update(&bytes[3 * block..3 * block + 6]);
        content.skip_to(bytes.len() as u64);
        assert_eq!(content.finish(), whole);
        // Nothing is left over from the file before, and an endless hole costs nothing.
        assert_eq!(content.finish(), of(&[]));
        content.skip_to(1 << 60);
        assert_eq!(content.finish(), 0);
        bytes[3 * block + 5] = 3;
        assert_ne!(of(&[&bytes]), whole);
        bytes[3 * block + 5] = 0;
        bytes[4 * block + 5] = 2;
        assert_ne!(of(&[&bytes]), whole, "the same block elsewhere");
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(
            bytes in prop::collection::vec(0u8..3, 0..2000),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
        ) {
            let long: Vec<u8> = bytes.iter().cycle().take(bytes.len() * 150).copied().collect();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(long.len() + 1)).collect();
            cuts.extend([0, long.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|w| &long[w[0]..w[1]]).collect();
            prop_assert_eq!(of(&pieces), of(&[&long]));
        }
    }
}
