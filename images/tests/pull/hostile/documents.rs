//! Documents that are no image, or one that must not be believed.

use std::io::Write as _;
use std::time::{Duration, Instant};

use podspawn_images::digest::Digest;
use podspawn_images::registry::FailureKind;
use serde_json::{Value, json};

use super::{pulled, refused, site};
use crate::Recorder;
use crate::content::{Image, Layer, OCI_INDEX, OCI_MANIFEST, host_platform, index};
use crate::http::{Site, answer, honest};

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
    // Alone, or the other layer may be complete before.
    let image = Image::new(vec![Layer::new(&[("f", b"f")])]);
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
            matches!(
                kind,
                FailureKind::Document | FailureKind::Digest | FailureKind::TooLarge
            ),
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
        (
            [
                &br#"{"schemaVersion":2,"layers":["#[..],
                &b"{},".repeat(60_000),
                b"{}]}",
            ]
            .concat(),
            OCI_MANIFEST,
            "more than the 100000 values",
        ),
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
