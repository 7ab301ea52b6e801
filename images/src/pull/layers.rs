//! Fetching and unpacking several layers at once.
//!
//! A worker is a thread with one layer: it takes the layer's lock in the store,
//! has the runtime's thread start the download, and unpacks from the other end
//! of a bounded pipe. A worker that holds a lock never waits for another lock,
//! so that two processes that pull the same layers cannot wait for each other.
//! The first failure ends all downloads; what is complete stays.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::{Failure, Pull, PullOptions};
use crate::digest::Digest;
use crate::layer::{Compression, LayerDescriptor, LayerFault, LayerProgress};
use crate::progress::{LayerEvent, Progress};
use crate::registry::{BlobWriter, Registry, pipe};
use crate::store::{Begun, LayerStaging};

/// How often to look whether another process is done with a layer.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What workers tell the runtime's thread.
enum Message {
    Download(Digest, u64, BlobWriter),
    Stop,
}

struct Shared<'a> {
    pull: &'a Pull<'a>,
    queue: Mutex<Vec<LayerDescriptor>>,
    failure: Mutex<Option<Failure>>,
    stop: AtomicBool,
    gate: Gate,
}

/// Brings `layers`, each digest once, into the store.
pub(super) fn fetch(
    pull: &Pull<'_>,
    runtime: &tokio::runtime::Runtime,
    registry: &Registry,
    mut layers: Vec<LayerDescriptor>,
) -> Result<(), Failure> {
    // Taken from the end: the biggest first, for it takes the longest.
    layers.sort_by_key(|layer| layer.size);
    let workers = pull.options.downloads.max(1).min(layers.len());
    let shared = Shared {
        pull,
        queue: Mutex::new(layers),
        failure: Mutex::new(None),
        stop: AtomicBool::new(false),
        gate: Gate::new(pull.options.unpackers.max(1) * GZIP),
    };
    std::thread::scope(|scope| {
        let (messages, receive) = unbounded_channel();
        for _ in 0..workers {
            let messages = messages.clone();
            let shared = &shared;
            scope.spawn(move || shared.work(&messages));
        }
        drop(messages);
        runtime.block_on(downloads(registry, receive, pull.progress));
    });
    let failure = shared.failure.into_inner();
    match failure.unwrap_or_else(PoisonError::into_inner) {
        Some(failure) => Err(failure),
        None => Ok(()),
    }
}

/// Drives all downloads until no worker is left.
async fn downloads(
    registry: &Registry,
    mut messages: UnboundedReceiver<Message>,
    progress: &dyn Progress,
) {
    let mut running = FuturesUnordered::new();
    let mut stopped = false;
    loop {
        tokio::select! {
            message = messages.recv() => match message {
                Some(Message::Download(digest, size, writer)) if !stopped => {
                    running.push(async move {
                        registry.download(&digest, size, writer, progress).await;
                    });
                }
                // A writer that is dropped ends its reader.
                Some(Message::Download(..)) => {}
                Some(Message::Stop) => {
                    stopped = true;
                    running.clear();
                }
                None => return,
            },
            Some(()) = running.next() => {}
        }
    }
}

impl Shared<'_> {
    fn work(&self, messages: &UnboundedSender<Message>) {
        while !self.stop.load(Ordering::Relaxed) {
            let Some(layer) = locked(&self.queue).pop() else {
                return;
            };
            if let Err(failure) = self.one(&layer, messages) {
                // The others fail because of the first, with lesser messages.
                locked(&self.failure).get_or_insert(failure);
                self.stop.store(true, Ordering::Relaxed);
                let _ = messages.send(Message::Stop);
                return;
            }
        }
    }

    fn one(
        &self,
        layer: &LayerDescriptor,
        messages: &UnboundedSender<Message>,
    ) -> Result<(), Failure> {
        let progress = self.pull.progress;
        let Some(staging) = self.begin(layer)? else {
            progress.layer(&layer.digest, LayerEvent::AlreadyThere);
            return Ok(());
        };
        let Some(staging) = self.unpack_shared(staging, layer)? else {
            return Ok(());
        };
        let (writer, reader, failed) = pipe();
        let _ = messages.send(Message::Download(layer.digest.clone(), layer.size, writer));
        let _pass = self.gate.pass(weight(layer.compression));
        let watch = Watch {
            progress,
            layer: &layer.digest,
        };
        let unpacked = staging.unpack(reader, layer, &self.pull.options.limits, &watch);
        match (unpacked, failed.take()) {
            (Ok(_), _) => {
                progress.layer(&layer.digest, LayerEvent::Done);
                Ok(())
            }
            (Err(_), Some(failed)) => Err(failed.into()),
            (Err(error), None) => Err(error.into()),
        }
    }

    /// Unpacks the layer from the blobs that the host's users share. Gives the staging back if it
    /// has to be fetched after all.
    fn unpack_shared(
        &self,
        staging: LayerStaging,
        layer: &LayerDescriptor,
    ) -> Result<Option<LayerStaging>, Failure> {
        let PullOptions { cache, limits, .. } = self.pull.options;
        let progress = self.pull.progress;
        let Some(blob) = cache
            .as_ref()
            .and_then(|c| c.open(&layer.digest, layer.size))
        else {
            return Ok(Some(staging));
        };
        let _pass = self.gate.pass(weight(layer.compression));
        let watch = Watch {
            progress,
            layer: &layer.digest,
        };
        match staging.unpack(blob, layer, limits, &watch) {
            Ok(_) => {
                progress.layer(&layer.digest, LayerEvent::Done);
                return Ok(None);
            }
            Err(error) => match error.fault {
                LayerFault::Write { .. } | LayerFault::Store(_) => return Err(error.into()),
                // If it is the layer that is bad, the registry's is as well.
                _ => progress.note(&format!("the host's copy is damaged: {error}; fetching it")),
            },
        }
        let staging = self.begin(layer)?;
        if staging.is_none() {
            progress.layer(&layer.digest, LayerEvent::AlreadyThere);
        }
        Ok(staging)
    }

    /// The right to unpack the layer; `None` once it is there.
    fn begin(&self, layer: &LayerDescriptor) -> Result<Option<LayerStaging>, Failure> {
        let mut waiting = false;
        loop {
            match self.pull.store.try_begin_layer(&layer.digest)? {
                Begun::Present => return Ok(None),
                Begun::Staging(staging) => return Ok(Some(staging)),
                Begun::Busy if self.stop.load(Ordering::Relaxed) => {
                    // Not told to anybody: the first failure is.
                    return Err(Failure::new(
                        crate::registry::FailureKind::Store,
                        "stopped because another layer failed",
                    ));
                }
                Begun::Busy => {
                    if !waiting {
                        let event = LayerEvent::Waiting;
                        self.pull.progress.layer(&layer.digest, event);
                        waiting = true;
                    }
                    std::thread::sleep(LOOK_AGAIN);
                }
            }
        }
    }
}

struct Watch<'a> {
    progress: &'a dyn Progress,
    layer: &'a Digest,
}

impl LayerProgress for Watch<'_> {
    fn expanded(&self, total: u64) {
        let event = LayerEvent::Unpacking { expanded: total };
        self.progress.layer(self.layer, event);
    }
}

/// What a layer takes of the gate: memory, above all. A zstd window is as large as everything else.
const GZIP: usize = 2;
const ZSTD: usize = 3;

fn weight(compression: Compression) -> usize {
    match compression {
        Compression::Zstd => ZSTD,
        Compression::None | Compression::Gzip => GZIP,
    }
}

/// Lets so much through at once.
struct Gate {
    places: usize,
    free: Mutex<usize>,
    freed: Condvar,
}

struct Pass<'a>(&'a Gate, usize);

impl Gate {
    fn new(places: usize) -> Self {
        Self {
            places,
            free: Mutex::new(places),
            freed: Condvar::new(),
        }
    }

    fn pass(&self, weight: usize) -> Pass<'_> {
        let weight = weight.min(self.places);
        let free = locked(&self.free);
        let mut free = self
            .freed
            .wait_while(free, |free| *free < weight)
            .unwrap_or_else(PoisonError::into_inner);
        *free -= weight;
        Pass(self, weight)
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        *locked(&self.0.free) += self.1;
        // Not all of them want as much.
        self.0.freed.notify_all();
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is guarded here is whole at every moment.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
