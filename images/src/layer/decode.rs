//! Decompression, strict about the end: whatever follows the last member or frame is an error.

use std::io::{self, BufRead, Read};

use super::Compression;
use super::zstd::Frames;
use crate::memory::Share;

/// A reader of the uncompressed archive in `blob`.
pub(crate) enum Decoder<B: BufRead> {
    Plain(B),
    Gzip(Box<flate2::bufread::MultiGzDecoder<B>>),
    Zstd(Box<Frames<B>>),
}

impl<B: BufRead> Decoder<B> {
    pub(crate) fn new(
        blob: B,
        compression: Compression,
        zstd_window_log: u32,
        memory: Share,
    ) -> io::Result<Decoder<B>> {
        Ok(match compression {
            Compression::None => Decoder::Plain(blob),
            Compression::Gzip => {
                Decoder::Gzip(Box::new(flate2::bufread::MultiGzDecoder::new(blob)))
            }
            Compression::Zstd => {
                Decoder::Zstd(Box::new(Frames::new(blob, zstd_window_log, memory)?))
            }
        })
    }
}

impl<B: BufRead> Read for Decoder<B> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self {
            Decoder::Plain(blob) => blob.read(out),
            Decoder::Gzip(decoder) => decoder.read(out),
            Decoder::Zstd(decoder) => decoder.read(out),
        }
    }
}
