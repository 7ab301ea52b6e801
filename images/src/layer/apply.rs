//! Applying a changeset: each entry of the archive, in order, to the layer's tree.

use std::io::BufRead;
use std::os::fd::OwnedFd;

use rustix::fs::SeekFrom;

use super::path::{self, Role};
use super::print::Content;
use super::tree::{Tree, failed};
use super::{Attributes, LayerFault, PathFault};
use crate::limits::Limits;
use crate::store::{Pending, Skipped};
use crate::tar::{Entry, Extent, Kind, Reader, TarError};

/// What came of an archive.
pub(super) struct Applied {
    pub(super) entries: u64,
    pub(super) skipped: Skipped,
    pub(super) pending: Pending,
    pub(super) print: Option<String>,
}

/// Reads the archive to its end and creates what it says in `tree`.
pub(super) fn apply(
    content: impl BufRead,
    mut tree: Tree,
    limits: &Limits,
) -> Result<Applied, LayerFault> {
    let mut reader = Reader::new(content, limits.pax);
    let mut entries = 0;
    while let Some(entry) = reader.next().map_err(LayerFault::Archive)? {
        entries += 1;
        if entries > limits.entries {
            return Err(LayerFault::Entries {
                limit: limits.entries,
            });
        }
        one(&mut reader, &mut tree, entry, limits)?;
    }
    reader.drain().map_err(LayerFault::Archive)?;
    let (pending, skipped, print) = tree.finish()?;
    Ok(Applied {
        entries,
        skipped,
        pending,
        print,
    })
}

fn one<R: BufRead>(
    reader: &mut Reader<R>,
    tree: &mut Tree,
    entry: Entry,
    limits: &Limits,
) -> Result<(), LayerFault> {
    let bad_name = |name: &[u8], fault: PathFault| LayerFault::Path {
        name: String::from_utf8_lossy(&name[..name.len().min(300)]).into_owned(),
        fault,
    };
    let path = path::clean(&entry.path, limits.depth).map_err(|f| bad_name(&entry.path, f))?;
    match path::role(&path).map_err(|f| bad_name(&entry.path, f))? {
        Role::Object => {}
        Role::Aufs => return Ok(()),
        Role::Opaque => return tree.opaque(path::split(&path).0),
        Role::Whiteout(name) => {
            let (parent, _) = path::split(&path);
            let target = if parent.is_empty() {
                name.to_vec()
            } else {
                [parent, name].join(&b'/')
            };
            return tree.whiteout(&target);
        }
    }
    if path.is_empty() && entry.kind != Kind::Directory {
        return Err(LayerFault::Entry {
            path: "/".into(),
            why: "the root can only be a directory".into(),
        });
    }
    let attributes = Attributes {
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        mtime: entry.mtime,
        xattrs: entry.xattrs,
    };
    match entry.kind {
        Kind::Directory => tree.directory(&path, attributes),
        Kind::File => {
            let file = tree.file(&path, &attributes)?;
            match &entry.sparse {
                Some(map) => {
                    write_sparse(reader, &file, &path, map, entry.size, &mut tree.content)?
                }
                None => write(reader, &file, &path, entry.size, &mut tree.content)?,
            }
            tree.finish_file(&path, &file, &attributes, entry.size)
        }
        Kind::Symlink => {
            if entry.link.is_empty() || entry.link.len() > 4095 || entry.link.contains(&0) {
                return Err(LayerFault::Entry {
                    path: String::from_utf8_lossy(&path).into_owned(),
                    why: "a symlink with an impossible target".into(),
                });
            }
            tree.symlink(&path, &entry.link, &attributes)
        }
        Kind::HardLink => {
            let target =
                path::clean(&entry.link, limits.depth).map_err(|f| bad_name(&entry.link, f))?;
            // A whiteout is no file, so it cannot be linked to.
            match path::role(&target).map_err(|f| bad_name(&entry.link, f))? {
                Role::Object => tree.hard_link(&path, &target),
                _ => Err(bad_name(&entry.link, PathFault::Whiteout)),
            }
        }
        Kind::Fifo => tree.fifo(&path, &attributes),
        Kind::Device => tree.device(&path),
    }
}

/// Writes the entry's content.
fn write<R: BufRead>(
    reader: &mut Reader<R>,
    file: &OwnedFd,
    path: &[u8],
    size: u64,
    content: &mut Content,
) -> Result<(), LayerFault> {
    let ends_in_hole = copy(reader, file, path, size, content)?;
    if ends_in_hole {
        rustix::fs::ftruncate(file, size).map_err(failed("write", path))?;
    }
    Ok(())
}

/// Blocks of zeros this large become holes: a small archive of zeros does not fill the disk.
const HOLE: usize = 64 << 10;

fn is_zero(bytes: &[u8]) -> bool {
    // Written so that it is done many bytes at a time.
    let zero = |chunk: &[u8]| chunk.iter().fold(0, |all, byte| all | byte) == 0;
    bytes.chunks(64).all(zero)
}

/// How many bytes of a piece of content to treat alike, and whether they are to be a hole.
fn run(chunk: &[u8]) -> (usize, bool) {
    let hole = |block: &[u8]| block.len() == HOLE && is_zero(block);
    let mut blocks = chunk.chunks(HOLE);
    let first = blocks.next().unwrap_or_default();
    let kind = hole(first);
    let same = blocks.take_while(|block| hole(block) == kind);
    (first.len() + same.map(<[u8]>::len).sum::<usize>(), kind)
}

/// Writes `count` bytes of the entry's content where the file is. Says whether a hole was last,
/// which does not make a file longer by itself.
fn copy<R: BufRead>(
    reader: &mut Reader<R>,
    file: &OwnedFd,
    path: &[u8],
    mut count: u64,
    content: &mut Content,
) -> Result<bool, LayerFault> {
    let mut hole = false;
    while count > 0 {
        let chunk = reader.content().map_err(LayerFault::Archive)?;
        let some = usize::try_from(count)
            .unwrap_or(usize::MAX)
            .min(chunk.len());
        if some == 0 {
            return Err(LayerFault::Archive(TarError::Truncated));
        }
        let length;
        (length, hole) = run(&chunk[..some]);
        let done = if hole {
            rustix::fs::seek(file, SeekFrom::Current(length as i64)).map(|_| length)
        } else {
            rustix::io::retry_on_intr(|| rustix::io::write(file, &chunk[..length]))
        };
        let done = done.map_err(failed("write", path))?;
        content.update(&chunk[..done]);
        reader.consume(done);
        count -= done as u64;
    }
    Ok(hole)
}

fn write_sparse<R: BufRead>(
    reader: &mut Reader<R>,
    file: &OwnedFd,
    path: &[u8],
    map: &[Extent],
    size: u64,
    content: &mut Content,
) -> Result<(), LayerFault> {
    for extent in map {
        rustix::fs::seek(file, SeekFrom::Start(extent.offset)).map_err(failed("write", path))?;
        content.skip_to(extent.offset);
        copy(reader, file, path, extent.length, content)?;
    }
    content.skip_to(size);
    rustix::fs::ftruncate(file, size).map_err(failed("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_blocks_of_zeros_are_holes() {
        let mut chunk = vec![0; 4 * HOLE];
        assert_eq!(run(&chunk), (4 * HOLE, true));
        assert_eq!(run(&chunk[1..]), (3 * HOLE, true));
        assert_eq!(run(&chunk[..HOLE - 1]), (HOLE - 1, false));
        chunk[HOLE] = 1;
        assert_eq!(run(&chunk), (HOLE, true));
        assert_eq!(run(&chunk[HOLE..]), (HOLE, false));
        chunk[3 * HOLE - 1] = 1;
        assert_eq!(run(&chunk[HOLE..]), (2 * HOLE, false));
        assert_eq!(run(&[1, 0]), (2, false));
    }
}
