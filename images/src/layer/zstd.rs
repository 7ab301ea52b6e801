//! Zstandard, frame by frame: what a frame's window takes is known before memory is taken for it.
//!
//! Why not `zstd::stream::read::Decoder`, which decodes frames one after another as well? It does
//! not say what the next one wants, and six windows at once are more than there is.

use std::io::{self, BufRead, Read};

use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation as _, OutBuffer};

use crate::memory::Share;

/// The longest header of a frame: magic, descriptor, window, dictionary, size of the content.
const HEADER: usize = 4 + 1 + 1 + 4 + 8;
/// What the decoder takes besides the window: a block on either side, and its tables.
const BESIDES: usize = 512 << 10;

/// Reads the content of any number of frames.
pub(crate) struct Frames<B> {
    blob: B,
    decoder: Decoder<'static>,
    memory: Share,
    /// The largest window so far, which the decoder keeps.
    window: usize,
    window_log_max: u32,
    /// Read ahead of a frame.
    head: Vec<u8>,
    within: bool,
}

impl<B: BufRead> Frames<B> {
    pub(crate) fn new(blob: B, window_log_max: u32, memory: Share) -> io::Result<Frames<B>> {
        let mut decoder = Decoder::new()?;
        decoder.set_parameter(DParameter::WindowLogMax(window_log_max))?;
        Ok(Frames {
            blob,
            decoder,
            memory,
            window: 0,
            window_log_max,
            head: Vec::with_capacity(HEADER),
            within: false,
        })
    }

    /// Begins a frame; false if there is none.
    fn begin(&mut self) -> io::Result<bool> {
        while self.head.len() < HEADER {
            let more = self.blob.fill_buf()?;
            let count = more.len().min(HEADER - self.head.len());
            if count == 0 {
                break;
            }
            self.head.extend_from_slice(&more[..count]);
            self.blob.consume(count);
        }
        if self.head.is_empty() {
            return Ok(false);
        }
        let window = window(&self.head).unwrap_or_default();
        // What is larger than allowed the decoder refuses, before it takes anything.
        if window > self.window as u64 && window <= 1 << self.window_log_max {
            let window = window as usize;
            let besides = if self.window == 0 { BESIDES } else { 0 };
            self.memory
                .take(window - self.window + besides)
                .map_err(io::Error::other)?;
            self.window = window;
        }
        self.decoder.reinit()?;
        self.within = true;
        Ok(true)
    }
}

impl<B: BufRead> Read for Frames<B> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.within && !self.begin()? {
                return Ok(0);
            }
            let bytes = match self.head.as_slice() {
                [] => self.blob.fill_buf()?,
                head => head,
            };
            let ended = bytes.is_empty();
            let (mut input, mut output) = (InBuffer::around(bytes), OutBuffer::around(&mut *out));
            let wanted = self.decoder.run(&mut input, &mut output)?;
            let (used, written) = (input.pos(), output.pos());
            if self.head.is_empty() {
                self.blob.consume(used);
            } else {
                self.head.drain(..used);
            }
            self.within = wanted > 0;
            if written > 0 {
                return Ok(written);
            }
            if self.within && ended {
                let why = "the last frame is incomplete";
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
            }
        }
    }
}

/// The window that a frame wants (RFC 8878, 3.1.1.1); none if this is not the header of one.
fn window(header: &[u8]) -> Option<u64> {
    let header = header.strip_prefix(&[0x28, 0xb5, 0x2f, 0xfd])?;
    let (descriptor, rest) = header.split_first()?;
    let single_segment = descriptor & 0x20 != 0;
    if !single_segment {
        let byte = rest.first()?;
        let base = 1u64 << (10 + (byte >> 3));
        return Some(base + base / 8 * u64::from(byte & 7));
    }
    // Then the window is the content.
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let length = [1, 2, 4, 8][usize::from(descriptor >> 6)];
    let field = rest.get(dictionary..dictionary + length)?;
    let mut size = [0; 8];
    size[..length].copy_from_slice(field);
    let size = u64::from_le_bytes(size);
    Some(if length == 2 { size + 256 } else { size })
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Write as _};

    use super::*;
    use crate::memory::Memory;

    fn compress(content: &[u8], log: u32, sized: bool) -> Vec<u8> {
        let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(log).unwrap();
        if sized {
            let size = Some(content.len() as u64);
            encoder.set_pledged_src_size(size).unwrap();
        }
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn decompress(blob: &[u8], limit: usize, piece: usize) -> io::Result<Vec<u8>> {
        let memory = Memory::default().share(limit);
        let mut frames = Frames::new(BufReader::with_capacity(piece, blob), 25, memory)?;
        let mut content = Vec::new();
        frames.read_to_end(&mut content)?;
        Ok(content)
    }

    #[test]
    fn windows_are_read_from_headers() {
        for log in [10, 17, 25] {
            let header = compress(&vec![7; 1 << 20], log, false);
            assert_eq!(window(&header), Some(1 << log));
        }
        for size in [0, 200, 255, 256, 5000, 70_000] {
            let header = compress(&vec![7; size], 25, true);
            assert_eq!(window(&header), Some(size as u64), "{size}");
        }
        assert_eq!(window(&[0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0]), None);
        assert_eq!(window(b"\x28\xb5\x2f\xfd"), None);
        assert_eq!(window(b""), None);
    }

    #[test]
    fn frames_of_every_kind_follow_each_other() {
        let contents: [&[u8]; 5] = [b"", b"a", &[7; 300_000], b"short", b""];
        let (mut blob, mut all) = (Vec::new(), Vec::new());
        for (n, content) in contents.iter().enumerate() {
            blob.extend(compress(content, 10 + 3 * n as u32, n % 2 == 0));
            // One to be skipped.
            blob.extend([0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3]);
            all.extend_from_slice(content);
        }
        for piece in [1, 7, 4096] {
            assert_eq!(decompress(&blob, 32 << 20, piece).unwrap(), all, "{piece}");
        }
        for cut in [1, 5, 12, blob.len() - 2] {
            assert!(
                decompress(&blob[..blob.len() - cut], 32 << 20, 64).is_err(),
                "{cut}"
            );
        }
        blob.extend(b"garbage that is longer than any header");
        assert!(decompress(&blob, 32 << 20, 4096).is_err());
    }

    #[test]
    fn a_window_is_taken_of_the_memory_there_is() {
        let blob = compress(&vec![7; 3 << 20], 21, false);
        assert!(decompress(&blob, 3 << 20, 4096).is_ok());
        let error = decompress(&blob, 2 << 20, 4096).unwrap_err();
        let exceeded = error.get_ref().unwrap();
        assert!(exceeded.is::<crate::memory::Exceeded>(), "{error}");
        // Refused by the decoder itself.
        let error = decompress(&compress(&vec![7; 65 << 20], 26, false), usize::MAX, 4096);
        assert!(error.unwrap_err().get_ref().is_some());
    }
}
