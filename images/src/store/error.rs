//! What can go wrong with the store, in one line each.

use std::io;
use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::document::DocumentError;
use crate::health::HealthError;

/// A failure of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// An operation of the system failed.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Somebody else owns the root directory.
    #[error("store {} belongs to uid {uid}, not to you: choose another storage.root", .path.display())]
    NotOwned {
        /// The root directory.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// Others may read or write the root directory.
    #[error("store {} has mode {mode:03o}, but only its owner may enter it: chmod 700 it", .path.display())]
    NotPrivate {
        /// The root directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Another version of podspawn made the store.
    #[error("store {} is of format {found}, and this podspawn knows only format 1: use the podspawn that made it, or remove it", .path.display())]
    Format {
        /// The root directory.
        path: PathBuf,
        /// What its marker says.
        found: String,
    },
    /// The store was made with the other kind of ownership.
    #[error("store {} was made {made}, but you now run {now}: its images would have the wrong owners; remove it and pull again", .path.display())]
    Ownership {
        /// The root directory.
        path: PathBuf,
        /// How it was made.
        made: &'static str,
        /// How it is opened.
        now: &'static str,
    },
    /// The subordinate ids are not those that the store was made with.
    #[error("store {} was made under another id map (have the subordinate ids changed?): remove it and pull again", .path.display())]
    IdMap {
        /// The root directory.
        path: PathBuf,
    },
    /// Nothing has that name.
    #[error("there is no image {0} in the store")]
    NoSuchImage(String),
    /// A file of the store is not what it was written as.
    #[error("{} is damaged ({why}): remove the image and pull it again", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A manifest or configuration is refused.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// A health check that cannot be used.
    #[error(transparent)]
    Health(#[from] HealthError),
    /// An image is to be committed before its layers are there.
    #[error("layer {0} is not in the store")]
    NoSuchLayer(Digest),
    /// The image says another diff_id than the layer has.
    #[error("layer {layer} has the diff_id {found}, but the image's configuration says {expected}")]
    DiffId {
        /// The layer's blob.
        layer: Digest,
        /// From the image configuration.
        expected: Digest,
        /// Computed when it was unpacked.
        found: Digest,
    },
    /// The layers leave more to be completed than there is room for.
    #[error(
        "the image's layers have more directories that are only implied, whiteouts and hard links across layers than fit in {limit} bytes of memory"
    )]
    Incomplete {
        /// The limit in bytes.
        limit: usize,
    },
    /// A hard link into an earlier layer leads nowhere.
    #[error("layer {layer}: hard link {path:?} to {target:?}, which is {why}")]
    HardLink {
        /// The layer's blob.
        layer: Digest,
        /// The link.
        path: String,
        /// What it should be linked to.
        target: String,
        /// Why that is impossible.
        why: &'static str,
    },
}

impl StoreError {
    /// For `map_err`: `action` failed on `path`.
    pub(crate) fn io<E: Into<io::Error>>(
        action: &'static str,
        path: &Path,
    ) -> impl FnOnce(E) -> StoreError {
        move |source| StoreError::Io {
            action,
            path: path.into(),
            source: source.into(),
        }
    }

    /// Whether the disk, or the user's quota on it, is full.
    pub fn is_full(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, StoreError::Io { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded))
    }
}
