//! What a pull or a load tells whoever watches.
//!
//! The library renders nothing: the command line draws bars, lines or JSON from
//! these calls. They come from several threads at once, often, and must return
//! quickly; what they are told can be lost without harm.

use crate::digest::Digest;
use crate::reference::Reference;

/// Receives the events of one pull or load. Every method has an empty default.
pub trait Progress: Send + Sync {
    /// A manifest was chosen: `layers` with their sizes in bytes, lowest first.
    /// Called once, before any layer event.
    fn layers(&self, image: &Reference, layers: &[(Digest, u64)]) {
        let _ = (image, layers);
    }

    /// Something happened to one layer.
    fn layer(&self, layer: &Digest, event: LayerEvent) {
        let _ = (layer, event);
    }

    /// A request failed and will be sent again after a wait.
    fn retry(&self, retry: &Retry<'_>) {
        let _ = retry;
    }

    /// Something that did not stop the work but that a person should know, in
    /// one line without secrets and control characters.
    fn note(&self, message: &str) {
        let _ = message;
    }
}

/// What happened to a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LayerEvent {
    /// It is in the store; nothing is fetched.
    AlreadyThere,
    /// Another process is unpacking it; waiting for that.
    Waiting,
    /// `fetched` of `total` compressed bytes have come; never decreases.
    Fetched {
        /// Compressed bytes so far.
        fetched: u64,
        /// Compressed bytes in all, from the manifest.
        total: u64,
    },
    /// Its content is being written; `expanded` bytes so far.
    Unpacking {
        /// Uncompressed bytes of the layer's archive so far.
        expanded: u64,
    },
    /// Verified and in the store.
    Done,
}

/// A request that is about to be sent again.
#[derive(Debug, Clone, Copy)]
pub struct Retry<'a> {
    /// What is being fetched.
    pub what: &'a str,
    /// Why the last attempt failed; one line without secrets.
    pub why: &'a str,
    /// How many attempts have failed so far.
    pub failed: u32,
    /// How long until the next one.
    pub wait: std::time::Duration,
}

/// Ignores everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {}
