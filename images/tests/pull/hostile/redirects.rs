//! Where a registry may send us, and what it may say.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use podspawn_images::progress::Silent;
use podspawn_images::pull::pull;
use podspawn_images::registry::{FailureKind, HostConfig};

use super::{big, is_blob, pulled, refused, site};
use crate::content::{Image, Layer};
use crate::http::{Site, answer, honest};
use crate::{Place, Recorder, quick, reference};

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
