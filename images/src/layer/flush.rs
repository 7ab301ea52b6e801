//! Sending a layer's files to the disk while it is still being unpacked.
//!
//! A layer is synced before it is published, with one `syncfs` rather than one `fsync` a file. Left
//! to the end, that waits for everything the layer wrote (measured: half as long again as the
//! unpacking itself); begun early, it runs beside decompression and nearly nothing is left to do.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::LayerProgress;
use crate::store::LayerStaging;

/// Archive bytes between two rounds.
const EVERY: u64 = 32 << 20;

/// Passes progress on, and asks for a round of writing whenever there is enough to write.
pub(super) struct Flushing<'a> {
    progress: &'a dyn LayerProgress,
    due: AtomicU64,
    ask: SyncSender<()>,
}

/// The thread's end: runs until the other is gone.
pub(super) struct Flusher(Receiver<()>);

pub(super) fn pair(progress: &dyn LayerProgress) -> (Flushing<'_>, Flusher) {
    let (ask, asked) = sync_channel(1);
    let flushing = Flushing {
        progress,
        due: AtomicU64::new(EVERY),
        ask,
    };
    (flushing, Flusher(asked))
}

impl LayerProgress for Flushing<'_> {
    fn expanded(&self, total: u64) {
        // Only the hashing thread calls this.
        if total >= self.due.load(Ordering::Relaxed) {
            self.due.store(total + EVERY, Ordering::Relaxed);
            // A round that is still running will do.
            let _ = self.ask.try_send(());
        }
        self.progress.expanded(total);
    }
}

impl Flusher {
    pub(super) fn run(self, staging: &LayerStaging) {
        while self.0.recv().is_ok() {
            // A failure is told again where the layer is published; this is only a head start.
            let _ = staging.sync();
        }
    }
}
