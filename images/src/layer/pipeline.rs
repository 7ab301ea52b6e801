//! The chain of threads that turns a blob into a stream of the archive's bytes, and what verifies
//! both of them.
//!
//! Buffers go round: they are made when a thread first needs one, and given back when used, so that
//! memory is bounded whatever the blob. A stage that fails notes why and hangs up; its neighbours
//! notice and stop. The first note is the reason that is reported.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::decode::Decoder;
use super::{LayerDescriptor, LayerFault, LayerProgress};
use crate::digest::{Digest, Hasher, Verifier};
use crate::limits::Limits;
use crate::memory::{Exceeded, Share};
use crate::tar::TarError;

const BUFFER: usize = 128 << 10;
/// Buffers of one stage: enough to ride out the other side's pauses.
const DEPTH: usize = 6;

/// Some bytes on their way. An empty one is the end of the stream; hanging up is not.
struct Chunk {
    bytes: Box<[u8]>,
    length: usize,
}

/// Where a stage gets empty buffers from and puts full ones.
struct Output {
    full: SyncSender<Chunk>,
    empty: Receiver<Chunk>,
    made: usize,
}

/// Where a stage gets full buffers from and puts empty ones; reads as one stream.
pub(super) struct Input {
    full: Receiver<Chunk>,
    empty: SyncSender<Chunk>,
    chunk: Option<Chunk>,
    used: usize,
    ended: bool,
}

fn channel() -> (Output, Input) {
    let (full, full_out) = sync_channel(DEPTH);
    let (empty, empty_out) = sync_channel(DEPTH + 2);
    let output = Output {
        full,
        empty: empty_out,
        made: 0,
    };
    let input = Input {
        full: full_out,
        empty,
        chunk: None,
        used: 0,
        ended: false,
    };
    (output, input)
}

/// The other side hung up.
struct HungUp;

impl Output {
    fn buffer(&mut self) -> Result<Chunk, HungUp> {
        if let Ok(chunk) = self.empty.try_recv() {
            return Ok(chunk);
        }
        if self.made < DEPTH + 2 {
            self.made += 1;
            return Ok(Chunk {
                bytes: vec![0; BUFFER].into(),
                length: 0,
            });
        }
        self.empty.recv().map_err(|_| HungUp)
    }

    fn send(&self, chunk: Chunk) -> Result<(), HungUp> {
        self.full.send(chunk).map_err(|_| HungUp)
    }

    fn end(&self) -> Result<(), HungUp> {
        self.send(Chunk {
            bytes: Box::default(),
            length: 0,
        })
    }
}

impl Read for Input {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(out.len());
        out[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Input {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let spent = self
            .chunk
            .as_ref()
            .is_none_or(|chunk| self.used == chunk.length);
        if spent && !self.ended {
            if let Some(chunk) = self.chunk.take() {
                // Nobody may be there to use it again, which is fine.
                let _ = self.empty.try_send(chunk);
            }
            self.used = 0;
            let chunk = self
                .full
                .recv()
                .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
            self.ended = chunk.length == 0;
            self.chunk = Some(chunk);
        }
        let chunk = self.chunk.as_ref();
        Ok(chunk.map_or(&[], |chunk| &chunk.bytes[self.used..chunk.length]))
    }

    fn consume(&mut self, count: usize) {
        self.used += count;
    }
}

/// The first failure of any stage.
#[derive(Default)]
struct Fault(Mutex<Option<LayerFault>>);

impl Fault {
    fn note(&self, fault: LayerFault) {
        let mut first = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert(fault);
    }

    fn take(self) -> Option<LayerFault> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Streams the archive in `blob` through `apply`, on this thread. Returns what that returned, and
/// the size of the archive, if and only if blob and archive are what `expected` says.
pub(super) fn run<T>(
    blob: impl Read + Send,
    expected: &LayerDescriptor,
    limits: &Limits,
    memory: Share,
    progress: &dyn LayerProgress,
    apply: impl FnOnce(Input) -> Result<T, LayerFault>,
) -> Result<(T, u64), LayerFault> {
    let fault = Fault::default();
    let applied = thread::scope(|scope| {
        let (blob_out, blob_in) = channel();
        let (content_out, content_in) = channel();
        // Between decompression and writing, buffers pass the hasher by.
        let (hashed, to_apply) = sync_channel(DEPTH);
        let Input { full, empty, .. } = content_in;
        let content_in = Input {
            full: to_apply,
            empty,
            chunk: None,
            used: 0,
            ended: false,
        };
        let fault = &fault;
        scope.spawn(move || read_blob(blob, expected, blob_out, fault));
        scope.spawn(move || {
            let decoder = Decoder::new(
                blob_in,
                expected.compression,
                limits.zstd_window_log,
                memory,
            );
            decompress(decoder, content_out, limits, fault);
        });
        let hasher = scope.spawn(move || digest(full, hashed, expected, progress, fault));
        let applied = apply(content_in);
        let expanded = hasher.join().unwrap_or_default();
        match applied {
            Ok(applied) => Some((applied, expanded)),
            // Another stage hung up, and has noted why.
            Err(LayerFault::Archive(TarError::Read(_))) => None,
            Err(reason) => {
                fault.note(reason);
                None
            }
        }
    });
    match (fault.take(), applied) {
        (None, Some(applied)) => Ok(applied),
        (Some(fault), _) => Err(fault),
        (None, None) => Err(LayerFault::Decompress("a thread ended early".into())),
    }
}

fn read_blob(mut blob: impl Read, expected: &LayerDescriptor, mut out: Output, fault: &Fault) {
    let mut verifier = Verifier::new(&expected.digest, expected.size);
    loop {
        let Ok(mut chunk) = out.buffer() else { return };
        match fill(&mut blob, &mut chunk) {
            Ok(()) => {}
            Err(error) => return fault.note(LayerFault::Blob(error)),
        }
        if chunk.length == 0 {
            break;
        }
        if let Err(mismatch) = verifier.update(&chunk.bytes[..chunk.length]) {
            return fault.note(LayerFault::Mismatch(mismatch));
        }
        if out.send(chunk).is_err() {
            return;
        }
    }
    match verifier.finish() {
        Ok(()) => drop(out.end()),
        Err(mismatch) => fault.note(LayerFault::Mismatch(mismatch)),
    }
}

/// Reads until the buffer is full or nothing more comes.
fn fill(from: &mut impl Read, chunk: &mut Chunk) -> io::Result<()> {
    chunk.length = 0;
    while chunk.length < chunk.bytes.len() {
        match from.read(&mut chunk.bytes[chunk.length..]) {
            Ok(0) => break,
            Ok(count) => chunk.length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn decompress(
    decoder: io::Result<Decoder<Input>>,
    mut out: Output,
    limits: &Limits,
    fault: &Fault,
) {
    let failed = |error: io::Error| {
        // The stage before hung up, and has noted why.
        if error.kind() != io::ErrorKind::BrokenPipe {
            fault.note(match Exceeded::within(&error) {
                Some(exceeded) => exceeded.into(),
                None => LayerFault::Decompress(error.to_string()),
            });
        }
    };
    let mut decoder = match decoder {
        Ok(decoder) => decoder,
        Err(error) => return failed(error),
    };
    let mut expanded = 0;
    loop {
        let Ok(mut chunk) = out.buffer() else { return };
        if let Err(error) = fill(&mut decoder, &mut chunk) {
            return failed(error);
        }
        if chunk.length == 0 {
            break;
        }
        expanded += chunk.length as u64;
        if expanded > limits.expanded {
            return fault.note(LayerFault::Expanded {
                limit: limits.expanded,
            });
        }
        if out.send(chunk).is_err() {
            return;
        }
    }
    drop(out.end());
}

/// Passes the content on, and fails if it is not what the configuration says. Returns its size.
fn digest(
    content: Receiver<Chunk>,
    out: SyncSender<Chunk>,
    expected: &LayerDescriptor,
    progress: &dyn LayerProgress,
    fault: &Fault,
) -> u64 {
    let mut hasher = Hasher::new(expected.diff_id.algorithm());
    let mut size = 0;
    for chunk in content {
        if chunk.length == 0 {
            let found: Digest = hasher.finish();
            if found == expected.diff_id {
                let _ = out.send(chunk);
            } else {
                fault.note(LayerFault::DiffId {
                    expected: expected.diff_id.clone(),
                    found,
                });
            }
            return size;
        }
        hasher.update(&chunk.bytes[..chunk.length]);
        size += chunk.length as u64;
        progress.expanded(size);
        if out.send(chunk).is_err() {
            return size;
        }
    }
    size
}
