//! Reading tar archives: POSIX ustar and pax, GNU, star and V7.
//!
//! Why not the tar crate, which is what else the field uses (looked at: 0.4.46)? It keeps long names and
//! pax records of any length in memory, knows only the oldest of the four forms of sparse files, and
//! copies every byte once more than this does. What must be refused here, and what the tools
//! around images agree on, is also better seen in one place than configured into another's reader:
//!
//! - where tar's dialects leave a choice, this reads what Go's archive/tar reads, because that is
//!   what the builders and the other consumers of images use, and a second meaning would be a way
//!   to show a scanner one image and a user another;
//! - extension headers in front of an entry are bounded together;
//! - a global header is checked and otherwise ignored, as there.
//!
//! Pure: bytes in, entries out; touches no file. Nothing here trusts a length: arithmetic is
//! checked, and memory is only taken for bytes that came.

mod header;
mod pax;
mod reader;
mod sparse;

pub(crate) use reader::{Entry, Kind, Reader, Time};
pub(crate) use sparse::Extent;

/// Why an archive is refused. The position is in bytes of the uncompressed archive.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The archive could not be read, decoded or verified.
    #[error(transparent)]
    Read(#[from] std::io::Error),
    /// It ends within a header or a file.
    #[error("the archive ends in the middle of an entry")]
    Truncated,
    /// A header is not one.
    #[error("the archive is damaged at byte {position}: {why}")]
    Damaged {
        /// Where the header begins.
        position: u64,
        /// What is wrong.
        why: &'static str,
    },
    /// Extension headers over the limit.
    #[error(
        "the archive has more than {limit} bytes of extended headers for one entry, at byte {position}"
    )]
    TooMuch {
        /// Where the header begins.
        position: u64,
        /// The limit in bytes.
        limit: usize,
    },
}

#[cfg(test)]
mod tests;
