//! Registries that stall.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use podspawn_images::pull::pull;
use podspawn_images::registry::FailureKind;

use super::{big, is_blob, refused, refused_with, site};
use crate::content::{Image, Layer};
use crate::{Place, Recorder, quick, reference};

fn hang(stream: &TcpStream) {
    // Until the client gives up.
    let mut byte = [0];
    let _ = stream.set_read_timeout(Some(Duration::from_secs(30)));
    let _ = std::io::Read::read(&mut &*stream, &mut byte);
}

#[test]
fn a_body_that_stalls_is_one_clear_error() {
    let (image, layer) = big();
    let digest = layer.digest().to_string();
    let site = site(&image, move |request, stream| {
        is_blob(request, &layer).then(|| {
            let first = request.range().unwrap_or(0);
            let range = format!("bytes {first}-{}/{}", layer.blob.len() - 1, layer.blob.len());
            write!(
                stream,
                "HTTP/1.1 206 Partial Content\r\nContent-Range: {range}\r\nContent-Length: {}\r\n\r\n",
                layer.blob.len() - first
            )?;
            stream.write_all(&layer.blob[first..first + 10_000])?;
            hang(stream);
            Ok(())
        })
    });
    let begun = Instant::now();
    let error = refused(&site);
    assert_eq!(error.kind(), FailureKind::Stalled);
    assert!(error.to_string().contains("stalled"), "{error}");
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(site.seen(&digest).len(), 2, "one more chance, no more");
}

#[test]
fn a_body_that_trickles_counts_as_stalled() {
    let (image, layer) = big();
    let site = site(&image, move |request, stream| {
        is_blob(request, &layer).then(|| {
            write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
                layer.blob.len()
            )?;
            for byte in &layer.blob {
                stream.write_all(&[*byte])?;
                std::thread::sleep(Duration::from_millis(50));
            }
            Ok(())
        })
    });
    assert_eq!(refused(&site).kind(), FailureKind::Stalled);
}

#[test]
fn a_manifest_a_header_or_an_answer_that_never_comes() {
    let image = Image::small(1);
    let mut options = quick();
    options.timeouts.response = Duration::from_millis(300);
    options.timeouts.connect = Duration::from_millis(300);
    let silent = site(&image, |_, stream| {
        hang(stream);
        Some(Ok(()))
    });
    assert_eq!(refused_with(&silent, &options).kind(), FailureKind::Stalled);
    let half = site(&image, |_, stream| {
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Le");
        hang(stream);
        Some(Ok(()))
    });
    assert_eq!(refused_with(&half, &options).kind(), FailureKind::Stalled);
    let body = site(&image, |_, stream| {
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{{");
        hang(stream);
        Some(Ok(()))
    });
    assert_eq!(refused_with(&body, &options).kind(), FailureKind::Stalled);
}

#[test]
fn slow_unpacking_is_not_the_registrys_fault() {
    // The second layer waits with a full pipe, far longer than a stall, until
    // the first, which trickles at a rate that is just enough, is unpacked.
    let (slow, waiting) = (Layer::big(1, 12 << 20), Layer::big(2, 11 << 20));
    let image = Image::new(vec![slow.clone(), waiting.clone()]);
    let held = slow.clone();
    let site = site(&image, move |request, stream| {
        is_blob(request, &held).then(|| {
            write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
                held.blob.len()
            )?;
            for piece in held.blob.chunks(held.blob.len() / 8) {
                stream.write_all(piece)?;
                std::thread::sleep(Duration::from_millis(300));
            }
            Ok(())
        })
    });
    let mut options = quick();
    options.unpackers = 1;
    let place = Place::new();
    let recorder = Recorder::default();
    let name = reference(&site.name("x:0"));
    pull(&place.store, &name, &options, &recorder).unwrap();
    assert_eq!(recorder.retries.lock().unwrap().as_slice(), []);
}
