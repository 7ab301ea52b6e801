//! Connections that break off, and failures that pass or do not.

use std::io::Write as _;
use std::time::{Duration, Instant};

use podspawn_images::registry::FailureKind;

use super::{big, is_blob, pulled, refused, site};
use crate::Recorder;
use crate::content::Image;
use crate::http::{Request, Site, answer};

#[test]
fn a_lost_download_goes_on_where_it_stopped() {
    let (image, layer) = big();
    let part = layer.clone();
    let site = site(&image, move |request, stream| {
        if !is_blob(request, &part) || request.earlier >= 2 {
            return None;
        }
        // Breaks off after a megabyte, and after another.
        let first = request.range().unwrap_or(0);
        let blob = &part.blob;
        let status = match first {
            0 => "200 OK".to_owned(),
            _ => {
                let (end, size) = (blob.len() - 1, blob.len());
                format!("206 Partial Content\r\nContent-Range: bytes {first}-{end}/{size}")
            }
        };
        let length = blob.len() - first;
        let _ = write!(
            stream,
            "HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n"
        );
        Some(stream.write_all(&blob[first..first + (1 << 20)]))
    });
    let recorder = Recorder::default();
    pulled(&site, &image, &recorder);
    let asked = site.seen(&layer.digest().to_string());
    let ranges: Vec<_> = asked.iter().map(Request::range).collect();
    assert_eq!(ranges, [None, Some(1 << 20), Some(2 << 20)]);
    assert_eq!(recorder.retries.lock().unwrap().len(), 2);
}

#[test]
fn without_ranges_it_is_sent_again_and_what_was_had_is_skipped() {
    let (image, layer) = big();
    let part = layer.clone();
    let site = site(&image, move |request, stream| {
        if !is_blob(request, &part) {
            return None;
        }
        let blob = &part.blob;
        let _ = write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
            blob.len()
        );
        let sent = if request.earlier == 0 {
            1_000_000
        } else {
            blob.len()
        };
        Some(stream.write_all(&blob[..sent]))
    });
    pulled(&site, &image, &Recorder::default());
    assert_eq!(site.seen(&layer.digest().to_string()).len(), 2);
}

#[test]
fn a_resumed_download_with_other_content_is_noticed() {
    let (image, layer) = big();
    let site = site(&image, move |request, stream| {
        if !is_blob(request, &layer) {
            return None;
        }
        let blob = &layer.blob;
        if request.earlier == 0 {
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
                blob.len()
            );
            return Some(stream.write_all(&blob[..1_000_000]));
        }
        let first = request.range().unwrap();
        let (end, size) = (blob.len() - 1, blob.len());
        let headers = format!("Content-Range: bytes {first}-{end}/{size}\r\n");
        Some(answer(
            stream,
            "206 Partial Content",
            &headers,
            &vec![0; size - first],
        ))
    });
    let kind = refused(&site).kind();
    // Whichever of the digest and the inflater sees it first.
    assert!(
        matches!(kind, FailureKind::Digest | FailureKind::Layer),
        "{kind:?}"
    );
}

#[test]
fn another_range_than_asked_for_is_refused() {
    let (image, layer) = big();
    let site = site(&image, move |request, stream| {
        if !is_blob(request, &layer) {
            return None;
        }
        let blob = &layer.blob;
        if request.earlier == 0 {
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
                blob.len()
            );
            return Some(stream.write_all(&blob[..1_000_000]));
        }
        let headers = format!(
            "Content-Range: bytes 5-{}/{}\r\n",
            blob.len() - 1,
            blob.len()
        );
        Some(answer(stream, "206 Partial Content", &headers, &blob[5..]))
    });
    assert_eq!(refused(&site).kind(), FailureKind::Protocol);
}

#[test]
fn one_that_always_breaks_off_is_given_up() {
    let (image, layer) = big();
    let digest = layer.digest().to_string();
    let site = site(&image, move |request, stream| {
        if !is_blob(request, &layer) {
            return None;
        }
        let first = request.range().unwrap_or(0);
        let _ = write!(
            stream,
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {first}-{}/{}\r\n\
             Content-Length: {}\r\n\r\n",
            layer.blob.len() - 1,
            layer.blob.len(),
            layer.blob.len() - first
        );
        // A hundred bytes a connection would take for ever.
        Some(stream.write_all(&layer.blob[first..first + 100]))
    });
    let error = refused(&site);
    assert_eq!(error.kind(), FailureKind::Connection);
    assert!(error.to_string().contains("4 times"), "{error}");
    assert_eq!(site.seen(&digest).len(), 4);
}

#[test]
fn failures_that_pass_are_tried_again() {
    let image = Image::small(1);
    let site = site(&image, |request, stream| {
        let status = match (request.path.contains("/manifests/"), request.earlier) {
            (true, 0) => "503 Service Unavailable",
            (true, 1) => "502 Bad Gateway",
            (false, 0) => "500 Oops",
            (false, 1) => return Some(Ok(())),
            _ => return None,
        };
        Some(answer(stream, status, "", b"no"))
    });
    let recorder = Recorder::default();
    pulled(&site, &image, &recorder);
    assert_eq!(site.seen("/manifests/").len(), 3);
    // Two for the manifest, two for each of three blobs.
    let retries = recorder.retries.lock().unwrap();
    assert_eq!(retries.len(), 8, "{retries:?}");
}

#[test]
fn failures_that_do_not_pass_are_not() {
    for (status, kind) in [
        ("400 Bad Request", FailureKind::Protocol),
        ("401 Unauthorized", FailureKind::Unauthorized),
        ("403 Forbidden", FailureKind::Denied),
        ("404 Not Found", FailureKind::NotFound),
        ("405 Method Not Allowed", FailureKind::Protocol),
    ] {
        let site = Site::start(move |_, stream| answer(stream, status, "", b"go away"));
        let error = refused(&site);
        assert_eq!(error.kind(), kind);
        assert!(error.to_string().contains("go away"), "{error}");
        assert_eq!(site.seen("").len(), 1, "{status}");
    }
}

#[test]
fn retry_after_is_obeyed_up_to_a_bound() {
    let image = Image::small(1);
    let slow = site(&image, |request, stream| {
        let limited = request.path.contains("/manifests/") && request.earlier == 0;
        limited.then(|| answer(stream, "429 Too Many Requests", "Retry-After: 1\r\n", b""))
    });
    let recorder = Recorder::default();
    let begun = Instant::now();
    pulled(&slow, &image, &recorder);
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert_eq!(
        recorder.retries.lock().unwrap()[0].1,
        Duration::from_secs(1)
    );

    let never = site(&image, |_, stream| {
        Some(answer(
            stream,
            "429 Too Many Requests",
            "Retry-After: 86400\r\n",
            b"quota",
        ))
    });
    let error = refused(&never);
    assert_eq!(error.kind(), FailureKind::RateLimited);
    let line = error.to_string();
    assert!(
        line.contains("86400 s") && line.contains("podspawn login"),
        "{line}"
    );
    assert_eq!(never.seen("").len(), 1);
}
