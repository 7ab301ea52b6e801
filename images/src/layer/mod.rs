//! Layers: from a compressed blob to a directory in overlay's own format.
//!
//! Runs in the pulling or loading process. The image specification's `layer.md` says what a
//! changeset means; `apply` follows it. Every name in a layer is hostile: paths are cleaned and
//! checked before they reach the kernel, the kernel resolves them beneath the layer's root without
//! following a single symlink, and nothing that exists is ever written through.
//!
//! The work is a chain of threads with bounded, recycled buffers between them:
//!
//! ```text
//! read blob, verify its digest → decompress → digest of the content → parse and write
//!                                                                     write out early
//! ```
//!
//! Spreading small files over several writing threads was measured and is slower on two cores.

mod apply;
mod attributes;
mod decode;
mod flush;
mod path;
mod pipeline;
pub(crate) mod print;
mod tree;
mod zstd;

use std::io::{self, Read};
use std::thread;

use crate::digest::{Digest, Mismatch};
use crate::limits::Limits;
use crate::memory::Exceeded;
use crate::store::{LayerRecord, LayerStaging, StoreError};
use crate::tar::TarError;

pub(crate) use attributes::{Attributes, Owners};
pub(crate) use decode::Decoder;
pub use path::PathFault;
pub(crate) use path::{clean, split};

/// How a blob is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    /// A plain archive.
    None,
    /// RFC 1952, of any number of members.
    Gzip,
    /// RFC 8878, of any number of frames.
    Zstd,
}

impl Compression {
    /// The media type of such a layer in a Docker schema 2 manifest.
    pub(crate) fn docker_media_type(self) -> &'static str {
        match self {
            Compression::None => "application/vnd.docker.image.rootfs.diff.tar",
            Compression::Gzip => "application/vnd.docker.image.rootfs.diff.tar.gzip",
            Compression::Zstd => "application/vnd.docker.image.rootfs.diff.tar.zstd",
        }
    }
}

/// A layer as manifest and configuration describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerDescriptor {
    /// Digest of the blob.
    pub digest: Digest,
    /// Size of the blob in bytes.
    pub size: u64,
    /// How the blob is compressed.
    pub compression: Compression,
    /// Digest of the uncompressed archive.
    pub diff_id: Digest,
}

/// Watches a layer being unpacked. Called from another thread, some hundred times for a large layer.
pub trait LayerProgress: Sync {
    /// How many bytes of the uncompressed archive have been handled so far.
    fn expanded(&self, total: u64) {
        let _ = total;
    }
}

impl LayerProgress for () {}

/// A layer that is in the store now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnpackedLayer {
    /// What is known of it, and what of it could not be kept.
    pub record: LayerRecord,
}

/// Why a layer was not unpacked. Nothing of it is in the store.
#[derive(Debug, thiserror::Error)]
#[error("layer {digest}: {fault}")]
pub struct LayerError {
    /// The blob.
    pub digest: Digest,
    /// What is wrong with it.
    pub fault: LayerFault,
}

/// What is wrong with a layer.
#[derive(Debug, thiserror::Error)]
pub enum LayerFault {
    /// The blob could not be read from where it comes from; trying again may help.
    #[error("cannot read it: {0}")]
    Blob(io::Error),
    /// The blob is not the one that was asked for.
    #[error("{0}")]
    Mismatch(Mismatch),
    /// The content is not what the image's configuration says.
    #[error("its diff_id is {found}, but the image's configuration says {expected}")]
    DiffId {
        /// From the configuration.
        expected: Digest,
        /// Computed.
        found: Digest,
    },
    /// The blob cannot be decompressed.
    #[error("cannot decompress it: {0}")]
    Decompress(String),
    /// The uncompressed archive is larger than allowed.
    #[error("it expands to more than the {limit} bytes that are allowed")]
    Expanded {
        /// The limit in bytes.
        limit: u64,
    },
    /// The archive has more entries than allowed.
    #[error("it has more than the {limit} entries that are allowed")]
    Entries {
        /// The limit.
        limit: u64,
    },
    /// Its directories, its links and a zstd window need more memory than allowed.
    #[error(
        "its directories, links and zstd window need more than the {limit} bytes of memory that are allowed"
    )]
    Memory {
        /// The limit in bytes.
        limit: usize,
    },
    /// The archive is refused.
    #[error("{0}")]
    Archive(TarError),
    /// An entry's name, or the name it links to, is refused.
    #[error("entry {name:?} is refused: {fault}")]
    Path {
        /// The name as written.
        name: String,
        /// Why.
        fault: PathFault,
    },
    /// An entry that contradicts others of the layer.
    #[error("entry {path:?} is refused: {why}")]
    Entry {
        /// The entry.
        path: String,
        /// What it contradicts.
        why: String,
    },
    /// A file could not be written.
    #[error("cannot {action} {path:?}: {source}")]
    Write {
        /// What was tried.
        action: &'static str,
        /// The entry.
        path: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<Exceeded> for LayerFault {
    fn from(exceeded: Exceeded) -> LayerFault {
        let limit = exceeded.limit;
        LayerFault::Memory { limit }
    }
}

impl LayerFault {
    /// Whether the disk, or the user's quota on it, is full.
    pub fn is_full(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        match self {
            LayerFault::Write { source, .. } => {
                matches!(source.kind(), StorageFull | QuotaExceeded)
            }
            LayerFault::Store(error) => error.is_full(),
            _ => false,
        }
    }
}

impl LayerStaging {
    /// Unpacks the blob and puts the layer into the store, if and only if blob and content are what
    /// `expected` says. The blob is read to its end, on another thread. After an error nothing is
    /// left of the layer.
    pub fn unpack(
        self,
        blob: impl Read + Send,
        expected: &LayerDescriptor,
        limits: &Limits,
        progress: &dyn LayerProgress,
    ) -> Result<UnpackedLayer, LayerError> {
        let digest = self.blob().clone();
        let unpacked = if expected.digest == digest {
            self.unpack_blob(blob, expected, limits, progress)
        } else {
            Err(LayerFault::Mismatch(Mismatch::Digest {
                expected: digest.clone(),
                found: expected.digest.clone(),
            }))
        };
        unpacked.map_err(|fault| LayerError { digest, fault })
    }

    fn unpack_blob(
        self,
        blob: impl Read + Send,
        expected: &LayerDescriptor,
        limits: &Limits,
        progress: &dyn LayerProgress,
    ) -> Result<UnpackedLayer, LayerFault> {
        // Given back when everything is written, not before.
        let memory = self.memory(limits.memory);
        let tree = tree::Tree::create(self.dir(), self.path(), self.ownership(), memory.clone())?;
        let (flushing, flusher) = flush::pair(progress);
        let (applied, expanded) = thread::scope(|scope| {
            scope.spawn(|| flusher.run(&self));
            // Moved in, so that the flusher ends with the pipeline.
            let progress = flushing;
            pipeline::run(
                blob,
                expected,
                limits,
                memory.clone(),
                &progress,
                |content| apply::apply(content, tree, limits),
            )
        })?;
        let record = LayerRecord {
            blob: expected.digest.clone(),
            size: expected.size,
            diff_id: expected.diff_id.clone(),
            expanded,
            entries: applied.entries,
            skipped: applied.skipped,
            print: applied.print,
        };
        self.install(&record, &applied.pending)?;
        Ok(UnpackedLayer { record })
    }
}
