//! Files by name, from a directory or from an archive.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::LoadError;
use crate::layer::{Compression, Decoder, clean, split};
use crate::limits::Limits;
use crate::store::{Scratch, Store};
use crate::tar::{Kind, Reader};

/// Where an image is loaded from.
pub(super) struct Source {
    path: PathBuf,
    files: Files,
}

enum Files {
    Directory(OwnedFd),
    Archive {
        file: Arc<File>,
        members: HashMap<Vec<u8>, Member>,
        /// Keeps the decompressed copy of the archive until the end.
        _scratch: Option<Scratch>,
    },
}

enum Member {
    File {
        offset: u64,
        size: u64,
    },
    /// The clean path of the target; nothing if it leads out of the archive.
    Link(Option<Vec<u8>>),
}

/// A file of the source, from where it is read independently of others.
pub(super) struct Part {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Part {
    pub(super) fn size(&self) -> u64 {
        self.end - self.at
    }

    /// How the file is compressed, going by its first bytes.
    pub(super) fn compression(&self) -> io::Result<Compression> {
        let mut magic = [0; 4];
        let mut start = Part {
            file: self.file.clone(),
            at: self.at,
            end: self.end,
        };
        let mut length = 0;
        while length < magic.len() {
            match start.read(&mut magic[length..])? {
                0 => break,
                count => length += count,
            }
        }
        Ok(compression(&magic[..length]))
    }
}

impl Read for Part {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let length = out.len().min(left);
        let count = self.file.read_at(&mut out[..length], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

fn compression(magic: &[u8]) -> Compression {
    match magic {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd] => Compression::Zstd,
        _ => Compression::None,
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> LoadError {
    move |source| LoadError::Io {
        path: path.into(),
        source,
    }
}

impl Source {
    pub(super) fn open(path: &Path, store: &Store, limits: &Limits) -> Result<Source, LoadError> {
        let file = File::open(path).map_err(failed(path))?;
        let meta = file.metadata().map_err(failed(path))?;
        let files = if meta.is_dir() {
            Files::Directory(file.into())
        } else {
            open_archive(path, file, meta.is_file(), store, limits)?
        };
        Ok(Source {
            path: path.into(),
            files,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn has(&self, name: &str) -> Result<bool, LoadError> {
        Ok(self.find(name)?.is_some())
    }

    /// The file `name`, which may come from a document of the archive.
    pub(super) fn get(&self, name: &str) -> Result<Part, LoadError> {
        self.find(name)?.ok_or_else(|| LoadError::Missing {
            path: self.path.clone(),
            name: name.chars().take(300).collect(),
        })
    }

    /// The whole content of a small file.
    pub(super) fn read(&self, name: &str, limit: usize) -> Result<Vec<u8>, LoadError> {
        let part = self.get(name)?;
        if part.size() > limit as u64 {
            return Err(LoadError::Content {
                path: self.path.clone(),
                name: name.chars().take(300).collect(),
                why: format!("it has more than the {limit} bytes that are allowed"),
            });
        }
        let mut bytes = Vec::new();
        let mut part = part.take(limit as u64);
        part.read_to_end(&mut bytes).map_err(failed(&self.path))?;
        Ok(bytes)
    }

    fn find(&self, name: &str) -> Result<Option<Part>, LoadError> {
        let Ok(name) = clean(name.as_bytes(), 32) else {
            return Ok(None);
        };
        match &self.files {
            Files::Directory(dir) => find_file(dir, &name).map_err(failed(&self.path)),
            Files::Archive { file, members, .. } => {
                let mut name = &name;
                // A chain of links may be a loop.
                for _ in 0..8 {
                    match members.get(name) {
                        None | Some(Member::Link(None)) => return Ok(None),
                        Some(Member::Link(Some(target))) => name = target,
                        Some(Member::File { offset, size }) => {
                            return Ok(Some(Part {
                                file: file.clone(),
                                at: *offset,
                                end: offset + size,
                            }));
                        }
                    }
                }
                Ok(None)
            }
        }
    }
}

/// A regular file below a directory. Symlinks may lead anywhere within.
fn find_file(dir: &OwnedFd, name: &[u8]) -> io::Result<Option<Part>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let file = match rustix::fs::openat2(dir, name, flags, Mode::empty(), resolve) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        file => File::from(file?),
    };
    let meta = file.metadata()?;
    Ok(meta.is_file().then(|| Part {
        file: Arc::new(file),
        at: 0,
        end: meta.size(),
    }))
}

fn open_archive(
    path: &Path,
    file: File,
    regular: bool,
    store: &Store,
    limits: &Limits,
) -> Result<Files, LoadError> {
    let mut reader = BufReader::with_capacity(256 << 10, file);
    let magic = reader.fill_buf().map_err(failed(path))?;
    let compression = compression(magic.get(..4).unwrap_or_default());
    let hint = match magic {
        [0xfd, b'7', b'z', b'X', b'Z', ..] => ": decompress it with xz first",
        [b'B', b'Z', b'h', ..] => ": decompress it with bzip2 first",
        _ => "",
    };
    if !hint.is_empty() {
        return Err(LoadError::Unknown {
            path: path.into(),
            hint,
        });
    }
    // Members are read in another order than they come.
    let (file, scratch) = if regular && compression == Compression::None {
        io::Seek::rewind(&mut reader).map_err(failed(path))?;
        (reader.into_inner(), None)
    } else {
        let scratch = store.scratch("load")?;
        let copy = scratch.file("archive")?;
        let memory = store.memory(limits.memory);
        let mut decoder = Decoder::new(reader, compression, limits.zstd_window_log, memory)
            .map_err(failed(path))?;
        let mut limited = (&mut decoder).take(limits.archive);
        let mut out = &copy;
        io::copy(&mut limited, &mut out).map_err(failed(path))?;
        if limited.limit() == 0 && decoder.read(&mut [0]).map_err(failed(path))? > 0 {
            return Err(LoadError::TooLarge {
                path: path.into(),
                limit: limits.archive,
            });
        }
        io::Seek::rewind(&mut out).map_err(failed(path))?;
        (copy, Some(scratch))
    };
    let members = index(&file, limits).map_err(|source| match source {
        crate::tar::TarError::Damaged { position: 0, .. } => LoadError::Unknown {
            path: path.into(),
            hint,
        },
        source => LoadError::Archive {
            path: path.into(),
            source,
        },
    })?;
    Ok(Files::Archive {
        file: Arc::new(file),
        members,
        _scratch: scratch,
    })
}

/// Where each file of the archive is. The last of several with one name counts.
fn index(file: &File, limits: &Limits) -> Result<HashMap<Vec<u8>, Member>, crate::tar::TarError> {
    let length = file.metadata()?.len();
    let mut reader = Reader::new(BufReader::with_capacity(64 << 10, file), limits.pax);
    let mut members = HashMap::new();
    while let Some(entry) = reader.next()? {
        // What image archives have is bounded; anything else is skipped.
        let Ok(name) = clean(&entry.path, 32) else {
            continue;
        };
        let member = match entry.kind {
            Kind::File if entry.sparse.is_none() => Member::File {
                offset: reader.position(),
                size: entry.size,
            },
            Kind::HardLink => Member::Link(clean(&entry.link, 32).ok()),
            Kind::Symlink => Member::Link(symlink_target(&name, &entry.link)),
            _ => continue,
        };
        members.insert(name, member);
        reader.skip_content()?;
        if reader.position() > length || members.len() > 100_000 {
            return Err(crate::tar::TarError::Truncated);
        }
    }
    Ok(members)
}

/// `docker save` links equal layers: `../<id>/layer.tar`.
fn symlink_target(name: &[u8], link: &[u8]) -> Option<Vec<u8>> {
    let mut target: Vec<&[u8]> = Vec::new();
    let (parent, _) = split(name);
    let from = if link.starts_with(b"/") { b"" } else { parent };
    for component in from.split(|b| *b == b'/').chain(link.split(|b| *b == b'/')) {
        match component {
            b"" | b"." => {}
            b".." => drop(target.pop()?),
            _ => target.push(component),
        }
    }
    Some(target.join(&b'/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_within() {
        let target = |name: &str, link: &str| symlink_target(name.as_bytes(), link.as_bytes());
        assert_eq!(
            target("a/layer.tar", "../b/layer.tar"),
            Some(b"b/layer.tar".to_vec())
        );
        assert_eq!(target("a/b/c", "./d"), Some(b"a/b/d".to_vec()));
        assert_eq!(target("a/b", "/d/e"), Some(b"d/e".to_vec()));
        assert_eq!(target("a/b", "../../d"), None);
        assert_eq!(target("a", ".."), None);
    }
}
