//! Sizes and digests that lie.

use std::io::Write as _;

use podspawn_images::digest::Digest;
use podspawn_images::progress::Silent;
use podspawn_images::pull::pull;
use podspawn_images::registry::FailureKind;
use serde_json::json;

use super::{big, is_blob, refused, site};
use crate::content::{Image, Layer};
use crate::http::{Site, answer};
use crate::{Place, quick, reference};

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
        "SHA256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b85/",
        "sha384:38b060a751ac96384cd9327eb1b1e36a21fdb71114be07434c0cc7bf63f6e1da274edebfe76f65fbd51ad2f14898b95b",
        "sha256/e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "",
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
