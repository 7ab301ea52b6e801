//! A blob as a stream that survives lost connections.
//!
//! The download runs on the runtime's thread and feeds a bounded pipe; whoever
//! unpacks reads from the other end on a thread of its own. A lost connection
//! is resumed with a range request, without the reader noticing. Nothing is
//! verified here but the size: the reader hashes what it reads, resumed or not.

use std::io::{self, Read};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use bytes::{Buf as _, Bytes};
use reqwest::header::{CONTENT_RANGE, HeaderMap, HeaderValue, RANGE};
use reqwest::{Response, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Duration, Instant, timeout};

use super::client::{Registry, Site};
use super::error::{FailureKind, RequestError};
use crate::digest::Digest;
use crate::progress::{LayerEvent, Progress};

/// What may lie in one pipe, in KiB: some milliseconds of a fast network, and what unpacks has
/// buffers of its own.
const ROOM: u32 = 1 << 10;

/// A download that brought this much since the last failure is not going in circles.
const HEADWAY: u64 = 1 << 20;

/// Less than this in [`super::Timeouts::stall`] counts as nothing.
const TRICKLE: u64 = 1 << 10;

type Chunk = (Bytes, OwnedSemaphorePermit);

/// The end that a download writes to.
pub(crate) struct BlobWriter {
    chunks: mpsc::UnboundedSender<Chunk>,
    room: Arc<Semaphore>,
    failure: Arc<Mutex<Option<RequestError>>>,
}

/// The end that is read, on a thread outside the runtime. Dropping it ends the download.
pub(crate) struct BlobReader {
    chunks: mpsc::UnboundedReceiver<Chunk>,
    current: Option<Chunk>,
    room: Arc<Semaphore>,
    failure: Arc<Mutex<Option<RequestError>>>,
}

/// Why the download failed, kept beside the pipe: an unpacker's own error only
/// says that its input ended.
#[derive(Clone)]
pub(crate) struct BlobFailure(Arc<Mutex<Option<RequestError>>>);

impl BlobFailure {
    pub fn take(&self) -> Option<RequestError> {
        self.0.lock().unwrap_or_else(|e| e.into_inner()).take()
    }
}

/// A pipe for one blob.
pub(crate) fn pipe() -> (BlobWriter, BlobReader, BlobFailure) {
    let (send, receive) = mpsc::unbounded_channel();
    let room = Arc::new(Semaphore::new(ROOM as usize));
    let failure = Arc::new(Mutex::new(None));
    let writer = BlobWriter {
        chunks: send,
        room: room.clone(),
        failure: failure.clone(),
    };
    let reader = BlobReader {
        chunks: receive,
        current: None,
        room,
        failure: failure.clone(),
    };
    (writer, reader, BlobFailure(failure))
}

impl BlobWriter {
    /// Waits for room; false when nobody reads any more.
    async fn send(&self, chunk: Bytes) -> bool {
        let size = u32::try_from(chunk.len() / 1024 + 1).unwrap_or(ROOM);
        let Ok(permit) = self.room.clone().acquire_many_owned(size.min(ROOM)).await else {
            return false;
        };
        self.chunks.send((chunk, permit)).is_ok()
    }

    fn fail(&self, error: RequestError) {
        *self.failure.lock().unwrap_or_else(|e| e.into_inner()) = Some(error);
    }
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if let Some((chunk, _)) = &mut self.current {
                if chunk.has_remaining() {
                    let count = chunk.remaining().min(buffer.len());
                    chunk.copy_to_slice(&mut buffer[..count]);
                    return Ok(count);
                }
                self.current = None;
            }
            match self.chunks.blocking_recv() {
                Some(chunk) => self.current = Some(chunk),
                None => {
                    let failure = self.failure.lock().unwrap_or_else(|e| e.into_inner());
                    return match &*failure {
                        Some(error) => Err(io::Error::other(error.clone())),
                        None => Ok(0),
                    };
                }
            }
        }
    }
}

impl Drop for BlobReader {
    fn drop(&mut self) {
        self.room.close();
    }
}

/// How one connection's share of a blob ended.
enum Ended {
    Complete,
    NobodyReads,
}

impl Registry {
    /// Downloads a blob into `writer`, to its end or to an error that is left there.
    pub async fn download(
        &self,
        digest: &Digest,
        size: u64,
        writer: BlobWriter,
        progress: &dyn Progress,
    ) {
        let mut offset = 0;
        let mut mark = 0;
        let mut failed = 0;
        loop {
            let at = self.preferred.load(Ordering::Relaxed);
            let site = &self.sites[at.min(self.sites.len() - 1)];
            let error = match self
                .stream(site, digest, size, &mut offset, &writer, progress)
                .await
            {
                Ok(Ended::Complete | Ended::NobodyReads) => return,
                Err(error) => error,
            };
            if offset - mark >= HEADWAY {
                failed = 0;
            }
            mark = offset;
            if let Err(error) = self
                .after_failure(at, "layer", &mut failed, error, progress)
                .await
            {
                return writer.fail(error);
            }
        }
    }

    /// One request: from `offset` on, as far as it goes.
    async fn stream(
        &self,
        site: &Site,
        digest: &Digest,
        size: u64,
        offset: &mut u64,
        writer: &BlobWriter,
        progress: &dyn Progress,
    ) -> Result<Ended, RequestError> {
        let mut headers = HeaderMap::new();
        if *offset > 0 {
            let range = HeaderValue::from_str(&format!("bytes={offset}-"));
            headers.extend(range.ok().map(|value| (RANGE, value)));
        }
        let path = format!("blobs/{digest}");
        let answer = site.get(&self.http, &path, headers).await?;
        let host = answer.host;
        let mut response = answer.response;
        // A registry without ranges sends it all again.
        let mut skip = begins_at(&host, &response, *offset, size)?;
        let wrong_size = |what: &str| {
            let message = format!("{host} {what} for {digest}, whose manifest says {size}");
            RequestError::new(FailureKind::Digest, message)
        };
        let stall = self.http.timeouts().stall;
        let mut waited = Duration::ZERO;
        let mut trickle = 0;
        loop {
            let begun = Instant::now();
            let chunk = match timeout(stall.saturating_sub(waited), response.chunk()).await {
                Ok(Ok(chunk)) => chunk,
                Ok(Err(error)) => {
                    let mut error = RequestError::transport(&host, &error);
                    error.message += &format!(" after {offset} of {size} bytes");
                    return Err(error);
                }
                // All is there; that the registry does not end its answer harms nobody.
                Err(_) if *offset == size => return Ok(Ended::Complete),
                Err(_) => {
                    let what = format!("next to nothing after {offset} of {size} bytes");
                    return Err(RequestError::stalled(&host, &what, stall));
                }
            };
            let Some(mut chunk) = chunk else {
                if *offset < size {
                    let message = format!("{host} ended the layer after {offset} of {size} bytes");
                    return Err(RequestError::passing(FailureKind::Connection, message));
                }
                return Ok(Ended::Complete);
            };
            // Only what the registry is waited for counts, not what the unpacking takes.
            waited += begun.elapsed();
            trickle += chunk.len() as u64;
            if trickle >= TRICKLE {
                waited = Duration::ZERO;
                trickle = 0;
            }
            let skipped = skip.min(chunk.len() as u64);
            skip -= skipped;
            chunk.advance(usize::try_from(skipped).unwrap_or(chunk.len()));
            if chunk.is_empty() {
                continue;
            }
            if chunk.len() as u64 > size - *offset {
                return Err(wrong_size("sends more bytes than the size"));
            }
            *offset += chunk.len() as u64;
            let event = LayerEvent::Fetched {
                fetched: *offset,
                total: size,
            };
            progress.layer(digest, event);
            if !writer.send(chunk).await {
                return Ok(Ended::NobodyReads);
            }
        }
    }
}

/// Checks what the answer claims to be, and says how many bytes of it come
/// before `offset`.
fn begins_at(host: &str, response: &Response, offset: u64, size: u64) -> Result<u64, RequestError> {
    let wrong = |kind, what: String| Err(RequestError::new(kind, format!("{host} {what}")));
    let length = response.content_length();
    match response.status() {
        StatusCode::OK => match length {
            Some(length) if length != size => wrong(
                FailureKind::Digest,
                format!("has {length} bytes for a layer of {size}"),
            ),
            _ => Ok(offset),
        },
        StatusCode::PARTIAL_CONTENT => {
            let range = response.headers().get(CONTENT_RANGE);
            let range = range.and_then(|value| content_range(value.to_str().ok()?));
            match range {
                Some((first, total)) if first == offset && total.is_none_or(|t| t == size) => Ok(0),
                _ => wrong(
                    FailureKind::Protocol,
                    format!("sent another range than the one from byte {offset} on"),
                ),
            }
        }
        other => wrong(
            FailureKind::Protocol,
            format!("answered {other} where 200 or 206 was due"),
        ),
    }
}

/// `bytes 10-99/100` → the first byte and the total, if it is known.
fn content_range(value: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = value.trim().strip_prefix("bytes")?.trim().split_once('/')?;
    let (first, _) = range.split_once('-')?;
    let total = match total {
        "*" => None,
        total => Some(total.parse().ok()?),
    };
    Some((first.parse().ok()?, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges() {
        assert_eq!(content_range("bytes 10-99/100"), Some((10, Some(100))));
        assert_eq!(content_range("bytes 0-0/*"), Some((0, None)));
        for bad in [
            "",
            "bytes",
            "bytes */100",
            "items 1-2/3",
            "bytes 1-2",
            "bytes -1-2/3",
        ] {
            assert_eq!(content_range(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_pipe_is_bounded_and_delivers_in_order() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let (writer, mut reader, _) = pipe();
        let most = Arc::new(Mutex::new(0));
        let seen = most.clone();
        let thread = std::thread::spawn(move || {
            let mut all = Vec::new();
            reader.read_to_end(&mut all).unwrap();
            all
        });
        runtime.block_on(async {
            for n in 0..200u32 {
                let chunk = Bytes::from(vec![n as u8; 100_000]);
                assert!(writer.send(chunk).await);
                let used = ROOM as usize - writer.room.available_permits();
                let mut most = seen.lock().unwrap();
                *most = used.max(*most);
            }
            drop(writer);
        });
        let all = thread.join().unwrap();
        assert_eq!(all.len(), 20_000_000);
        assert!(
            all.chunks(100_000)
                .enumerate()
                .all(|(n, c)| c[0] == n as u8)
        );
        assert!(*most.lock().unwrap() <= ROOM as usize);
    }

    #[test]
    fn either_end_notices_that_the_other_is_gone() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let (writer, reader, _) = pipe();
        drop(reader);
        assert!(!runtime.block_on(writer.send(Bytes::from_static(b"x"))));
        let (writer, mut reader, failure) = pipe();
        runtime.block_on(writer.send(Bytes::from_static(b"xy")));
        writer.fail(RequestError::new(FailureKind::Server, "broken"));
        drop(writer);
        let mut all = Vec::new();
        let error = reader.read_to_end(&mut all).unwrap_err();
        assert_eq!(
            (all.as_slice(), error.to_string().as_str()),
            (&b"xy"[..], "broken")
        );
        assert_eq!(failure.take().unwrap().kind, FailureKind::Server);
    }
}
