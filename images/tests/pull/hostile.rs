//! Registries that break, stall and lie.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use podspawn_images::digest::Digest;
use podspawn_images::progress::Silent;
use podspawn_images::pull::{PullError, PullOptions, pull};
use podspawn_images::registry::{FailureKind, HostConfig};
use serde_json::{Value, json};

use crate::content::{Image, Layer, OCI_INDEX, OCI_MANIFEST, host_platform, index};
use crate::http::{Request, Site, answer, honest};
use crate::{Place, Recorder, quick, reference};

/// An honest registry for `image` (tag 0), but for what `deviate` answers:
/// `None` leaves the answer to honesty.
fn site(
    image: &Image,
    deviate: impl Fn(&Request, &mut TcpStream) -> Option<std::io::Result<()>> + Send + Sync + 'static,
) -> Site {
    let images = [image.clone()];
    Site::start(move |request, stream| {
        deviate(request, stream).unwrap_or_else(|| honest(&images, request, stream))
    })
}

/// The pull fails within bounded time, in one line that names the reference,
/// and leaves nothing.
fn refused(site: &Site) -> PullError {
    refused_with(site, &quick())
}

fn refused_with(site: &Site, options: &PullOptions) -> PullError {
    let place = Place::new();
    let name = site.name("x:0");
    let begun = Instant::now();
    let error = pull(&place.store, &reference(&name), options, &Silent).unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(20), "{error}");
    let line = error.to_string();
    assert!(line.starts_with(&name) && line.len() < 1500, "{line}");
    assert!(!line.chars().any(char::is_control), "{line:?}");
    place.assert_empty();
    error
}

fn pulled(site: &Site, image: &Image, recorder: &Recorder) {
    let place = Place::new();
    let name = reference(&site.name("x:0"));
    let found = pull(&place.store, &name, &quick(), recorder).unwrap();
    assert_eq!(found.digest, image.digest());
    place.assert_clean();
}

fn is_blob(request: &Request, layer: &Layer) -> bool {
    request.path.ends_with(&layer.digest().to_string())
}

fn big() -> (Image, Layer) {
    let layer = Layer::big(7, 3 << 20);
    (Image::new(vec![layer.clone()]), layer)
}

// ---- lost connections ------------------------------------------------------

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

// ---- stalls ----------------------------------------------------------------

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

// ---- sizes and digests -----------------------------------------------------

#[test]
fn content_of_another_size_is_refused_at_once() {
    let (image, layer) = big();
    let size = layer.blob.len();
    // A lying Content-Length, in both directions; and no length but an end.
    for (length, sent) in [(size + 1, size + 1), (size - 1, size - 1)] {
        let part = layer.clone();
        let site = site(&image, move |request, stream| {
            is_blob(request, &part).then(|| {
                let mut blob = part.blob.clone();
                blob.resize(sent, 0);
                write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"
                )?;
                stream.write_all(&blob)
            })
        });
        let error = refused(&site);
        assert_eq!(error.kind(), FailureKind::Digest);
        assert!(error.to_string().contains(&size.to_string()), "{error}");
        assert_eq!(site.seen(&layer.digest().to_string()).len(), 1);
    }
    let site = site(&image, move |request, stream| {
        is_blob(request, &layer).then(|| {
            write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
            let short = layer.blob.len() - 1;
            stream.write_all(&layer.blob[..short])
        })
    });
    assert_eq!(refused(&site).kind(), FailureKind::Connection);
}

#[test]
fn a_body_without_end_is_cut_off() {
    let (image, layer) = big();
    let blob = layer.clone();
    let endless = site(&image, move |request, stream| {
        is_blob(request, &blob).then(|| {
            write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
            stream.write_all(&blob.blob)?;
            loop {
                stream.write_all(&[0; 65536])?;
            }
        })
    });
    assert_eq!(refused(&endless).kind(), FailureKind::Digest);
    let endless = site(&image, move |request, stream| {
        request.path.contains("/manifests/").then(|| {
            write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
            loop {
                stream.write_all(&[b' '; 65536])?;
            }
        })
    });
    assert_eq!(refused(&endless).kind(), FailureKind::TooLarge);
    // And an error message without end.
    let endless = Site::start(|_, stream| {
        write!(
            stream,
            "HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\n"
        )?;
        loop {
            stream.write_all(&[b'x'; 65536])?;
        }
    });
    assert_eq!(refused(&endless).kind(), FailureKind::NotFound);
}

#[test]
fn wrong_digests_are_refused() {
    let layer = Layer::new(&[("file", b"content")]);
    let image = Image::new(vec![layer.clone()]);
    // A blob of the right size.
    let site_ = site(&image, move |request, stream| {
        is_blob(request, &layer).then(|| {
            let mut blob = layer.blob.clone();
            let middle = blob.len() / 2;
            blob[middle] ^= 1;
            answer(stream, "200 OK", "", &blob)
        })
    });
    let kind = refused(&site_).kind();
    assert!(
        matches!(kind, FailureKind::Digest | FailureKind::Layer),
        "{kind:?}"
    );

    // The configuration.
    let config = image.config.clone();
    let site_ = site(&image, move |request, stream| {
        request
            .path
            .ends_with(&Digest::of(&config).to_string())
            .then(|| {
                let text = String::from_utf8(config.clone()).unwrap();
                answer(
                    stream,
                    "200 OK",
                    "",
                    text.replace("/bin", "/tmp").as_bytes(),
                )
            })
    });
    assert_eq!(refused(&site_).kind(), FailureKind::Digest);

    // A manifest that is not what its own header says.
    let manifest = image.manifest.clone();
    let site_ = site(&image, move |request, stream| {
        request.path.contains("/manifests/").then(|| {
            let headers = format!("Docker-Content-Digest: {}\r\n", Digest::of(b"other"));
            answer(stream, "200 OK", &headers, &manifest)
        })
    });
    assert_eq!(refused(&site_).kind(), FailureKind::Digest);

    // A manifest that is not the one asked for.
    let other = Image::small(2);
    let site_ = site(&image, move |request, stream| {
        let asked = request.path.contains("/manifests/");
        asked.then(|| answer(stream, "200 OK", "", &other.manifest))
    });
    let place = Place::new();
    let pinned = reference(&site_.name(&format!("x@{}", image.digest())));
    let error = pull(&place.store, &pinned, &quick(), &Silent).unwrap_err();
    assert_eq!(error.kind(), FailureKind::Digest);
    place.assert_empty();
}

#[test]
fn digests_that_are_none_are_refused() {
    for digest in [
        "md5:d41d8cd98f00b204e9800998ecf8427e",
        "sha256:E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855",
        "sha256:../../../../etc/passwd",
        "sha256:00",
    ] {
        let image = Image::small(1).with(|m| m["layers"][0]["digest"] = json!(digest));
        let site = site(&image, |_, _| None);
        assert_eq!(refused(&site).kind(), FailureKind::Document, "{digest}");
        assert_eq!(site.seen("").len(), 1, "{digest}");
    }
}

#[test]
fn a_wrong_diff_id_is_refused_and_keeps_nothing() {
    let mut image = Image::small(1);
    let swapped = image.layers[0].diff_id.clone();
    image.layers[1].diff_id = swapped;
    let image = Image::new(image.layers);
    let site = site(&image, |_, _| None);
    let place = Place::new();
    let error = pull(
        &place.store,
        &reference(&site.name("x:0")),
        &quick(),
        &Silent,
    )
    .unwrap_err();
    assert_eq!(error.kind(), FailureKind::Digest);
    assert!(error.to_string().contains("diff_id"), "{error}");
    place.assert_clean();
    assert_eq!(place.list("images"), [""; 0]);
    let kept = place.list("layers");
    let bad = image.layers[1].digest().file_name();
    assert!(!kept.contains(&bad), "{kept:?}");
}

// ---- documents -------------------------------------------------------------

fn serves(manifest: Vec<u8>, media_type: &str) -> Site {
    let headers = format!("Content-Type: {media_type}\r\n");
    Site::start(move |_, stream| answer(stream, "200 OK", &headers, &manifest))
}

fn document(value: &Value) -> Vec<u8> {
    serde_json::to_vec(value).unwrap()
}

#[test]
fn a_manifest_of_100_megabytes_is_not_read() {
    for declared in [true, false] {
        let site = Site::start(move |_, stream| {
            let length = match declared {
                true => "Content-Length: 104857600\r\n",
                false => "",
            };
            write!(
                stream,
                "HTTP/1.1 200 OK\r\nConnection: close\r\n{length}\r\n"
            )?;
            for _ in 0..1600 {
                stream.write_all(&[b' '; 65536])?;
            }
            Ok(())
        });
        let begun = Instant::now();
        assert_eq!(refused(&site).kind(), FailureKind::TooLarge);
        assert!(begun.elapsed() < Duration::from_secs(3));
    }
}

#[test]
fn a_configuration_that_is_too_large_is_not_asked_for() {
    let image = Image::small(1).with(|m| m["config"]["size"] = json!(100 << 20));
    let site = site(&image, |_, _| None);
    assert_eq!(refused(&site).kind(), FailureKind::TooLarge);
    assert_eq!(site.seen("/blobs/").len(), 0);
}

#[test]
fn sizes_that_lie_about_the_configuration() {
    let image = Image::small(1);
    let size = image.config.len();
    for lie in [size - 1, size + 1, 0] {
        let image = image.with(|m| m["config"]["size"] = json!(lie));
        let site = site(&image, |_, _| None);
        assert_eq!(
            refused(&site).kind(),
            FailureKind::Digest,
            "{lie} for {size}"
        );
    }
    for nonsense in [
        json!(-1),
        json!(1.5),
        json!("12"),
        json!(u64::MAX),
        json!(null),
    ] {
        let image = image.with(|m| m["layers"][0]["size"] = nonsense.clone());
        let site = site(&image, |_, _| None);
        let kind = refused(&site).kind();
        assert!(
            matches!(kind, FailureKind::Document | FailureKind::Digest),
            "{nonsense}: {kind:?}"
        );
    }
}

#[test]
fn documents_that_are_no_image_are_refused() {
    let image = Image::small(1);
    let manifest: Value = serde_json::from_slice(&image.manifest).unwrap();
    let mut both = manifest.clone();
    both["manifests"] = json!([]);
    let schema1 = json!({"schemaVersion": 1, "name": "x", "fsLayers": [], "history": []});
    let mut foreign = manifest.clone();
    foreign["layers"][0]["mediaType"] =
        json!("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip");
    let mut urls = manifest.clone();
    urls["layers"][0]["urls"] = json!(["http://127.0.0.1:1/blob"]);
    let mut contradicting = manifest.clone();
    contradicting["mediaType"] = json!(OCI_INDEX);
    for (document_, media_type, part) in [
        (document(&both), OCI_MANIFEST, "both"),
        (
            document(&schema1),
            "application/vnd.docker.distribution.manifest.v1+prettyjws",
            "schema 1",
        ),
        (document(&foreign), OCI_MANIFEST, "foreign"),
        (document(&urls), OCI_MANIFEST, "other addresses"),
        (document(&contradicting), OCI_MANIFEST, "announced"),
        (document(&manifest), OCI_INDEX, "announced"),
        (document(&manifest), "text/html", "announced"),
        (document(&json!([])), OCI_MANIFEST, "cannot be read"),
        (document(&json!({"schemaVersion": 2})), OCI_MANIFEST, ""),
        (b"<html>".to_vec(), OCI_MANIFEST, "cannot be read"),
        (vec![b'['; 100_000], OCI_MANIFEST, "cannot be read"),
        (Vec::new(), OCI_MANIFEST, "cannot be read"),
    ] {
        let site = serves(document_, media_type);
        let error = refused(&site);
        assert_eq!(error.kind(), FailureKind::Document, "{error}");
        assert!(error.to_string().contains(part), "{part}: {error}");
        assert_eq!(site.seen("").len(), 1);
    }
}

#[test]
fn diff_ids_of_another_number_are_refused() {
    let image = Image::small(1);
    for count in [0, 1, 3] {
        let mut config: Value = serde_json::from_slice(&image.config).unwrap();
        let one = config["rootfs"]["diff_ids"][0].clone();
        config["rootfs"]["diff_ids"] = Value::Array(vec![one; count]);
        let config = document(&config);
        let mut changed = image.with(|m| {
            m["config"]["digest"] = json!(Digest::of(&config).to_string());
            m["config"]["size"] = json!(config.len());
        });
        changed.config = config;
        let site = site(&changed, |_, _| None);
        assert_eq!(refused(&site).kind(), FailureKind::Document);
        assert_eq!(site.seen("/blobs/").len(), 1, "no layer is fetched");
    }
}

#[test]
fn index_in_index_is_bounded() {
    let image = Image::small(1);
    let mut documents = vec![image.manifest.clone()];
    for depth in 0..10 {
        let inner = documents.last().unwrap().clone();
        let media_type = if depth == 0 { OCI_MANIFEST } else { OCI_INDEX };
        documents.push(index(&[(&host_platform(), media_type, &inner)]));
    }
    let nested = |depth: usize| {
        let mut images: Vec<Image> = vec![image.clone()];
        images[0].manifest = documents[depth].clone();
        let served = documents.clone();
        Site::start(move |request, stream| {
            let last = request.path.rsplit('/').next().unwrap();
            match served.iter().find(|d| Digest::of(d).to_string() == last) {
                Some(document) => answer(stream, "200 OK", "", document),
                None if request.path.ends_with("/manifests/0") => {
                    answer(stream, "200 OK", "", &images[0].manifest)
                }
                None => honest(&images, request, stream),
            }
        })
    };
    pulled(&nested(2), &image, &Recorder::default());
    let deep = nested(10);
    let error = refused(&deep);
    assert_eq!(error.kind(), FailureKind::Document);
    assert!(
        error.to_string().contains("index within an index"),
        "{error}"
    );
    assert!(deep.seen("/manifests/").len() < 6);
}

#[test]
fn an_index_that_lies_about_its_entries() {
    let image = Image::small(1);
    for (size, media_type, kind) in [
        (image.manifest.len() + 1, OCI_MANIFEST, FailureKind::Digest),
        (100 << 20, OCI_MANIFEST, FailureKind::TooLarge),
        (image.manifest.len(), OCI_INDEX, FailureKind::Document),
    ] {
        let list = index(&[(&host_platform(), media_type, &image.manifest)]);
        let mut list: Value = serde_json::from_slice(&list).unwrap();
        list["manifests"][0]["size"] = json!(size);
        let list = document(&list);
        let site = site(&image, move |request, stream| {
            let tagged = request.path.ends_with("/manifests/0");
            tagged.then(|| answer(stream, "200 OK", "", &list))
        });
        assert_eq!(refused(&site).kind(), kind);
    }
}

#[test]
fn too_many_layers_are_refused_before_any_is_fetched() {
    let layer = Layer::new(&[("f", b"f")]);
    let image = Image::new(vec![layer; 501]);
    let site = site(&image, |_, _| None);
    assert_eq!(refused(&site).kind(), FailureKind::TooLarge);
    assert_eq!(site.seen("/blobs/").len(), 0);
}

// ---- redirects -------------------------------------------------------------

fn redirect(stream: &mut TcpStream, to: &str) -> std::io::Result<()> {
    answer(
        stream,
        "307 Temporary Redirect",
        &format!("Location: {to}\r\n"),
        b"",
    )
}

#[test]
fn blobs_may_be_elsewhere() {
    let image = Image::small(1);
    let images = [image.clone()];
    let storage = Site::start(move |request, stream| {
        let mut request = request.clone();
        request.path = request.path.split('?').next().unwrap().to_owned();
        honest(&images, &request, stream)
    });
    let place = storage.address;
    let site = site(&image, move |request, stream| {
        let path = &request.path;
        let signed = format!("http://{place}{path}?signature=secret");
        path.contains("/blobs/").then(|| redirect(stream, &signed))
    });
    pulled(&site, &image, &Recorder::default());
    assert_eq!(storage.seen("/blobs/").len(), 3);
}

#[test]
fn redirect_loops_end() {
    let image = Image::small(1);
    let site = site(&image, |request, stream| {
        Some(redirect(stream, &request.path))
    });
    let error = refused(&site);
    assert_eq!(error.kind(), FailureKind::Redirect);
    assert!(site.seen("").len() < 10);
}

#[test]
fn redirects_that_must_not_be_followed() {
    for to in [
        "ftp://127.0.0.1/x",
        "file:///etc/passwd",
        "http://user:pw@127.0.0.1:1/",
        // Neither loopback nor configured.
        "http://192.0.2.1/x",
        // The metadata server of a cloud; loopback does not refer there.
        "http://169.254.169.254/latest",
        "https://169.254.169.254/latest",
        "http://[::ffff:169.254.169.254]/x",
        "http://",
        "http://[::1",
    ] {
        let site = Site::start(move |_, stream| redirect(stream, to));
        let error = refused(&site);
        assert_eq!(error.kind(), FailureKind::Redirect, "{to}: {error}");
        assert!(!error.to_string().contains("pw@"), "{error}");
        assert_eq!(site.seen("").len(), 1, "{to}");
    }
    let nowhere = Site::start(|_, stream| answer(stream, "302 Found", "", b""));
    assert_eq!(refused(&nowhere).kind(), FailureKind::Redirect);
}

#[test]
fn a_signature_that_ran_out_is_asked_for_again() {
    let (image, layer) = big();
    let part = layer.clone();
    let storage = Site::start(move |request, stream| match request.earlier {
        0 => answer(stream, "403 Forbidden", "", b"Request has expired"),
        _ => answer(stream, "200 OK", "", &part.blob),
    });
    let place = storage.address;
    let site = site(&image, move |request, stream| {
        let elsewhere = format!("http://{place}/blob");
        is_blob(request, &layer).then(|| redirect(stream, &elsewhere))
    });
    pulled(&site, &image, &Recorder::default());
}

#[test]
fn an_unusable_mirror_is_a_configuration_error() {
    let place = Place::new();
    let mut options = quick();
    let config = HostConfig {
        insecure: false,
        mirrors: vec!["https://m.example".into()],
    };
    options.registries.hosts = [("localhost:1".to_owned(), config)].into();
    let error = pull(&place.store, &reference("localhost:1/x"), &options, &Silent).unwrap_err();
    assert_eq!(error.kind(), FailureKind::Config);
}

// ---- what is said ----------------------------------------------------------

#[test]
fn what_a_registry_says_cannot_draw_on_the_terminal() {
    let site = Site::start(|_, stream| {
        let body = "{\"errors\":[{\"code\":\"X\",\"message\":\"\\u001b]0;own\\u0007\\r\\nroot# \\u202ecod\"}]}";
        answer(stream, "404 Not Found", "", body.as_bytes())
    });
    let line = refused(&site).to_string();
    assert!(
        line.contains("root#") && !line.contains('\u{202e}'),
        "{line}"
    );
}

#[test]
fn a_failed_layer_ends_the_others_soon_and_finished_ones_stay() {
    let mut layers: Vec<Layer> = (0..3).map(|n| Layer::big(n, 2 << 20)).collect();
    layers.push(Layer::new(&[("small", b"s")]));
    let image = Image::new(layers.clone());
    let (slow, bad) = (layers[0].clone(), layers[3].clone());
    let done = [
        layers[1].digest().file_name(),
        layers[2].digest().file_name(),
    ];
    let site = site(&image, move |request, stream| {
        if is_blob(request, &slow) {
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
                slow.blob.len()
            );
            // Keeps within the rules, and would take a minute.
            for piece in slow.blob.chunks(slow.blob.len() / 200) {
                stream.write_all(piece).ok()?;
                std::thread::sleep(Duration::from_millis(300));
            }
            return Some(Ok(()));
        }
        is_blob(request, &bad).then(|| {
            std::thread::sleep(Duration::from_secs(2));
            answer(stream, "403 Forbidden", "", b"not this one")
        })
    });
    let place = Place::new();
    let begun = Instant::now();
    let name = reference(&site.name("x:0"));
    let error = pull(&place.store, &name, &quick(), &Silent).unwrap_err();
    assert!(
        begun.elapsed() < Duration::from_secs(8),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(error.kind(), FailureKind::Denied);
    assert!(error.to_string().contains("not this one"), "{error}");
    place.assert_clean();
    let mut kept = place.list("layers");
    kept.sort();
    let mut expected = done.to_vec();
    expected.sort();
    assert_eq!(kept, expected);
    assert_eq!(place.list("images"), [""; 0]);
}
