//! From a stream of bytes to entries and their content.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind};

use super::TarError;
use super::header::{self, BLOCK, Header, Why};
use super::pax::{self, Pax};
use super::sparse::{self, Extent};

/// A time as the kernel takes it: the nanoseconds count forward, before 1970 too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Time {
    pub(crate) seconds: i64,
    pub(crate) nanoseconds: u32,
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    HardLink,
    Symlink,
    Directory,
    Fifo,
    /// Character or block device.
    Device,
}

/// An entry, with the extension headers in front of it applied.
#[derive(Debug)]
pub(crate) struct Entry {
    /// As written: not cleaned, not checked, possibly not UTF-8.
    pub(crate) path: Vec<u8>,
    /// Target of a link, likewise.
    pub(crate) link: Vec<u8>,
    pub(crate) kind: Kind,
    /// Permission bits, setuid, setgid and sticky.
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    pub(crate) mtime: Time,
    /// Size of the file when it is unpacked, holes included.
    pub(crate) size: u64,
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where the entry's content goes, if it is sparse.
    pub(crate) sparse: Option<Vec<Extent>>,
}

/// Reads one archive.
pub(crate) struct Reader<R> {
    input: R,
    position: u64,
    /// Bytes of the entry's content that were not read yet, and of the padding after it.
    content: u64,
    padding: u64,
    /// Bytes of extension headers that the next entry may still have.
    allowance: usize,
    limit: usize,
    ended: bool,
}

/// Extension headers seen in front of an entry. Later ones replace earlier ones of the same kind.
#[derive(Default)]
struct Extensions {
    pax: Pax,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    any: bool,
}

fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}

impl Reader<BufReader<&File>> {
    /// Goes past the rest of the entry's content without reading it. The file may end before.
    pub(crate) fn skip_content(&mut self) -> Result<(), TarError> {
        // Each is less than half of what an i64 holds: sizes are checked.
        let rest = self.content + self.padding;
        self.input.seek_relative(rest.cast_signed())?;
        self.position = self.position.saturating_add(rest);
        (self.content, self.padding) = (0, 0);
        Ok(())
    }
}

impl<R: BufRead> Reader<R> {
    /// `limit` is for all extension headers of an entry, in bytes.
    pub(crate) fn new(input: R, limit: usize) -> Reader<R> {
        Reader {
            input,
            position: 0,
            content: 0,
            padding: 0,
            allowance: limit,
            limit,
            ended: false,
        }
    }

    /// Bytes of the archive that were used so far.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    fn fill(&mut self) -> Result<&[u8], TarError> {
        loop {
            match self.input.fill_buf() {
                Ok(_) => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.input.fill_buf()?)
    }

    fn advance(&mut self, count: usize) {
        self.input.consume(count);
        self.position += count as u64;
    }

    /// Fills `out` as far as the archive goes.
    fn take(&mut self, out: &mut [u8]) -> Result<usize, TarError> {
        let mut done = 0;
        while done < out.len() {
            let chunk = self.fill()?;
            let count = chunk.len().min(out.len() - done);
            if count == 0 {
                break;
            }
            out[done..done + count].copy_from_slice(&chunk[..count]);
            self.advance(count);
            done += count;
        }
        Ok(done)
    }

    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        let mut block = [0; BLOCK];
        match self.take(&mut block)? {
            0 => Ok(None),
            BLOCK => Ok(Some(block)),
            _ => Err(TarError::Truncated),
        }
    }

    fn skip(&mut self, mut count: u64) -> Result<(), TarError> {
        while count > 0 {
            let chunk = self.fill()?.len();
            if chunk == 0 {
                return Err(TarError::Truncated);
            }
            let some = usize::try_from(count).unwrap_or(usize::MAX).min(chunk);
            self.advance(some);
            count -= some as u64;
        }
        Ok(())
    }

    /// The next piece of the entry's content; empty at its end. Use [`Reader::consume`] after.
    pub(crate) fn content(&mut self) -> Result<&[u8], TarError> {
        if self.content == 0 {
            return Ok(&[]);
        }
        let left = usize::try_from(self.content).unwrap_or(usize::MAX);
        let chunk = self.fill()?;
        if chunk.is_empty() {
            return Err(TarError::Truncated);
        }
        Ok(&chunk[..chunk.len().min(left)])
    }

    /// Marks bytes that [`Reader::content`] gave as used.
    pub(crate) fn consume(&mut self, count: usize) {
        self.advance(count);
        self.content -= count as u64;
    }

    /// Reads whatever follows the archive's end: it belongs to the digest too.
    pub(crate) fn drain(&mut self) -> Result<(), TarError> {
        loop {
            let chunk = self.fill()?.len();
            if chunk == 0 {
                return Ok(());
            }
            self.advance(chunk);
        }
    }

    /// The next entry, or `None` at the archive's end.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, TarError> {
        self.skip(self.content)?;
        self.skip(self.padding)?;
        (self.content, self.padding) = (0, 0);
        if self.ended {
            return Ok(None);
        }
        self.allowance = self.limit;
        let mut extensions = Extensions::default();
        loop {
            let position = self.position;
            let damaged = |why| TarError::Damaged { position, why };
            let block = match self.block()? {
                None if extensions.any => return Err(TarError::Truncated),
                None => {
                    self.ended = true;
                    return Ok(None);
                }
                Some(block) => block,
            };
            if header::is_zero(&block) {
                // Two zero blocks end an archive; one may, where nothing follows.
                match self.block()? {
                    Some(next) if !header::is_zero(&next) => {
                        return Err(damaged("a block of zeros is followed by something else"));
                    }
                    _ if extensions.any => return Err(TarError::Truncated),
                    _ => {}
                }
                self.ended = true;
                return Ok(None);
            }
            let header = Header::parse(&block).map_err(damaged)?;
            match header.kind {
                b'x' | b'X' => {
                    let records = self.extension(position, header.size)?;
                    extensions.pax = Pax::parse(&records).map_err(damaged)?;
                }
                b'g' => {
                    let records = self.extension(position, header.size)?;
                    Pax::parse(&records).map_err(damaged)?;
                    continue;
                }
                b'L' => {
                    let name = self.extension(position, header.size)?;
                    extensions.long_name = Some(header::text(&name).to_vec());
                }
                b'K' => {
                    let link = self.extension(position, header.size)?;
                    extensions.long_link = Some(header::text(&link).to_vec());
                }
                // The label of a volume.
                b'V' => self.skip(header.size + padding(header.size))?,
                _ => return self.entry(position, &block, header, extensions).map(Some),
            }
            extensions.any = true;
        }
    }

    /// The content of an extension header.
    fn extension(&mut self, position: u64, size: u64) -> Result<Vec<u8>, TarError> {
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        if size > self.allowance {
            return Err(TarError::TooMuch {
                position,
                limit: self.limit,
            });
        }
        self.allowance -= size;
        let mut content = Vec::new();
        while content.len() < size {
            let chunk = self.fill()?;
            let count = chunk.len().min(size - content.len());
            if count == 0 {
                return Err(TarError::Truncated);
            }
            content.extend_from_slice(&chunk[..count]);
            self.advance(count);
        }
        self.skip(padding(size as u64))?;
        Ok(content)
    }

    fn entry(
        &mut self,
        position: u64,
        block: &[u8; BLOCK],
        header: Header,
        extensions: Extensions,
    ) -> Result<Entry, TarError> {
        let damaged = |why: Why| TarError::Damaged { position, why };
        let Extensions {
            pax,
            long_name,
            long_link,
            ..
        } = extensions;
        let mut path = long_name.or(pax.path).unwrap_or(header.name);
        let link = long_link.or(pax.link).unwrap_or(header.link);
        let kind = match header.kind {
            // Before ustar, a directory was a file whose name ends in a slash.
            0 if path.ends_with(b"/") => Kind::Directory,
            0 | b'0' | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' | b'4' => Kind::Device,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            _ => return Err(damaged("an entry of unknown type")),
        };
        let stored = pax.size.unwrap_or(header.size);
        if stored > i64::MAX as u64 {
            return Err(damaged("an entry is larger than any file can be"));
        }
        if kind == Kind::Directory && header.kind == 0 && stored != 0 {
            return Err(damaged("a directory with content"));
        }
        // Whatever size they state, only files have content.
        let stored = if kind == Kind::File { stored } else { 0 };
        self.content = stored;
        self.padding = padding(stored);

        let mut size = stored;
        let mut extents = None;
        if header.kind == b'S' {
            let (mut map, mut more, real) = sparse::old_header(block).map_err(damaged)?;
            while more {
                self.allow(position, BLOCK)?;
                let block = self.block()?.ok_or(TarError::Truncated)?;
                more = sparse::old_extension(&block, &mut map).map_err(damaged)?;
            }
            size = real;
            extents = Some(map);
        } else if kind == Kind::File {
            let records = pax.sparse;
            let one = match (records.major, records.minor) {
                (Some(1), Some(0)) => true,
                (None | Some(0), None | Some(0 | 1)) => false,
                _ => return Err(damaged("a sparse file in an unknown format")),
            };
            if one || !records.map.is_empty() || records.blocks.is_some() {
                if let Some(name) = records.name {
                    path = name;
                }
                let real = records.real_size.or(records.size);
                size = real.ok_or_else(|| damaged("a sparse file without a size"))?;
                let map = if one {
                    self.sparse_map(position)?
                } else {
                    let map = sparse::pairs(&records.map).map_err(damaged)?;
                    if records
                        .blocks
                        .is_some_and(|blocks| blocks != map.len() as u64)
                    {
                        return Err(damaged("the map of a sparse file is wrong"));
                    }
                    map
                };
                extents = Some(map);
            }
        }
        if let Some(map) = &extents {
            sparse::check(map, size, self.content).map_err(damaged)?;
        }
        Ok(Entry {
            path,
            link,
            kind,
            mode: header.mode,
            uid: pax.uid.unwrap_or(header.uid),
            gid: pax.gid.unwrap_or(header.gid),
            mtime: pax.mtime.unwrap_or(header.mtime),
            size,
            xattrs: pax.xattrs,
            sparse: extents,
        })
    }

    fn allow(&mut self, position: u64, count: usize) -> Result<(), TarError> {
        let Some(left) = self.allowance.checked_sub(count) else {
            return Err(TarError::TooMuch {
                position,
                limit: self.limit,
            });
        };
        self.allowance = left;
        Ok(())
    }

    /// The map of format 1.0, which begins the content: decimal numbers, one a line, the first of
    /// them how many pairs follow, padded to a whole block.
    fn sparse_map(&mut self, position: u64) -> Result<Vec<Extent>, TarError> {
        let damaged = || TarError::Damaged {
            position,
            why: "the map of a sparse file is wrong",
        };
        let mut numbers: Vec<u64> = Vec::new();
        let mut line = Vec::new();
        let mut wanted = None;
        while wanted.is_none_or(|wanted| numbers.len() as u64 <= wanted) {
            if self.content < BLOCK as u64 {
                return Err(damaged());
            }
            self.allow(position, BLOCK)?;
            let block = self.block()?.ok_or(TarError::Truncated)?;
            self.content -= BLOCK as u64;
            for byte in block {
                if byte != b'\n' {
                    line.push(byte);
                    continue;
                }
                numbers.push(pax::decimal(&line).map_err(|_| damaged())?);
                line.clear();
                let count = numbers[0].checked_mul(2).ok_or_else(damaged)?;
                wanted = Some(count);
                if count > 2 * sparse::EXTENTS as u64 {
                    return Err(damaged());
                }
                if numbers.len() as u64 > count {
                    break;
                }
            }
            if line.len() > 20 {
                return Err(damaged());
            }
        }
        sparse::pairs(&numbers[1..]).map_err(|_| damaged())
    }
}
