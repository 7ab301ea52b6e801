//! Hostile and unlucky token servers.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use podspawn_images::registry::FailureKind;
use serde_json::json;

use super::{PASSWORD, USER, assert_silent, base64, fails, succeeds, with_entry, with_password};
use crate::content::{Image, Layer};
use crate::http::{Request, Site, answer, honest};
use crate::quick;

fn challenge(realm: &str) -> String {
    format!("WWW-Authenticate: Bearer realm=\"{realm}\",service=\"s\"\r\n")
}

#[test]
fn a_token_that_runs_out_in_the_middle_is_renewed() {
    let image = Image::new((0..6).map(|n| Layer::big(n, 100_000)).collect());
    let issued = std::sync::Arc::new(AtomicUsize::new(0));
    let used = AtomicUsize::new(0);
    let count = issued.clone();
    let tokens = Site::start(move |_, stream| {
        let token = format!("t{}", count.fetch_add(1, Ordering::SeqCst) + 1);
        answer(
            stream,
            "200 OK",
            "",
            json!({"token": token}).to_string().as_bytes(),
        )
    });
    let realm = format!("http://{}/", tokens.address);
    let (images, seen) = ([image.clone()], issued.clone());
    let site = Site::start(move |request, stream| {
        let current = format!("Bearer t{}", seen.load(Ordering::SeqCst));
        let good = request.header("authorization") == Some(current.as_str());
        // Every third request finds its token expired.
        if !good || used.fetch_add(1, Ordering::SeqCst) % 3 == 2 {
            let said = br#"{"errors":[{"code":"UNAUTHORIZED","message":"token expired"}]}"#;
            return answer(stream, "401 Unauthorized", &challenge(&realm), said);
        }
        honest(&images, request, stream)
    });
    let mut options = quick();
    // One at a time: an old token is not good for long here.
    options.downloads = 1;
    succeeds(&options, &site.name("x:0"), &image);
    let issued = issued.load(Ordering::SeqCst);
    assert!((2..=8).contains(&issued), "{issued}");
}

#[test]
fn many_downloads_share_one_renewal() {
    let image = Image::new((0..6).map(|n| Layer::big(n, 200_000)).collect());
    let tokens = Site::start(|request, stream| {
        let token = json!({"token": format!("t{}", request.earlier)}).to_string();
        std::thread::sleep(Duration::from_millis(100));
        answer(stream, "200 OK", "", token.as_bytes())
    });
    let realm = format!("http://{}/", tokens.address);
    let images = [image.clone()];
    let site = Site::start(move |request, stream| {
        // The first token is good for the documents, the second for layers.
        let config = podspawn_images::digest::Digest::of(&images[0].config).to_string();
        let document = request.path.contains("/manifests/") || request.path.ends_with(&config);
        let wanted = if document { "Bearer t0" } else { "Bearer t1" };
        if request.header("authorization") != Some(wanted) {
            return answer(stream, "401 Unauthorized", &challenge(&realm), b"");
        }
        honest(&images, request, stream)
    });
    succeeds(&quick(), &site.name("x:0"), &image);
    assert_eq!(tokens.seen("").len(), 2);
}

#[test]
fn a_token_that_is_never_good_enough_is_asked_for_once() {
    let tokens =
        Site::start(|_, stream| answer(stream, "200 OK", "", br#"{"token":"secret-token-1"}"#));
    let realm = format!("http://{}/", tokens.address);
    // One that even sends the token back.
    let site = Site::start(move |request, stream| {
        let echo = request.header("authorization").unwrap_or_default();
        let said = json!({"errors": [{"message": format!("bad {echo}")}]}).to_string();
        answer(
            stream,
            "401 Unauthorized",
            &challenge(&realm),
            said.as_bytes(),
        )
    });
    let error = fails(&quick(), &site.name("x:0"));
    assert_eq!(error.kind(), FailureKind::Unauthorized);
    assert_silent(&error, &["secret-token-1"]);
    assert_eq!((site.seen("").len(), tokens.seen("").len()), (2, 1));
}

#[test]
fn secrets_that_a_registry_sends_back_are_not_shown() {
    let site = Site::start(|request, stream| match request.header("authorization") {
        None => answer(
            stream,
            "401 Unauthorized",
            "WWW-Authenticate: Basic realm=\"r\"\r\n",
            b"",
        ),
        Some(sent) => {
            let plain = sent.strip_prefix("Basic ").unwrap();
            let decoded = base64::engine::general_purpose::STANDARD
                .decode(plain)
                .unwrap();
            let said = format!("{sent} {}", String::from_utf8(decoded).unwrap());
            answer(stream, "403 Forbidden", "", said.as_bytes())
        }
    });
    let dir = tempfile::tempdir().unwrap();
    let host = site.address.to_string();
    let error = fails(
        &with_password(dir.path(), &host, PASSWORD),
        &site.name("x:0"),
    );
    assert_eq!(error.kind(), FailureKind::Denied);
    assert_silent(&error, &[PASSWORD, &base64(format!("{USER}:{PASSWORD}"))]);
}

#[test]
fn token_servers_that_hang_or_flood_or_answer_nonsense() {
    let mut options = quick();
    options.timeouts.response = Duration::from_millis(300);
    options.timeouts.connect = Duration::from_millis(300);
    type Handler = fn(&Request, &mut std::net::TcpStream) -> std::io::Result<()>;
    let cases: [(Handler, FailureKind); 6] = [
        (
            |_, stream| {
                stream.set_read_timeout(Some(Duration::from_secs(20)))?;
                std::io::Read::read(stream, &mut [0]).map(|_| ())
            },
            FailureKind::Stalled,
        ),
        (
            |_, stream| {
                use std::io::Write as _;
                write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
                loop {
                    stream.write_all(&[b' '; 65536])?;
                }
            },
            FailureKind::TooLarge,
        ),
        (
            |_, stream| answer(stream, "200 OK", "", br#""secret-42""#),
            FailureKind::Protocol,
        ),
        (
            |_, stream| answer(stream, "200 OK", "", br#"{"token":"a\nsecret-42"}"#),
            FailureKind::Protocol,
        ),
        (
            |_, stream| answer(stream, "200 OK", "", br#"{"token":""}"#),
            FailureKind::Protocol,
        ),
        (
            |_, stream| answer(stream, "500 Oops", "", b""),
            FailureKind::Server,
        ),
    ];
    for (handler, kind) in cases {
        let tokens = Site::start(handler);
        let realm = format!("http://{}/", tokens.address);
        let site = Site::start(move |_, stream| {
            answer(stream, "401 Unauthorized", &challenge(&realm), b"")
        });
        let error = fails(&options, &site.name("x:0"));
        assert_eq!(error.kind(), kind, "{error}");
        assert_silent(&error, &["secret-42"]);
    }
}

#[test]
fn token_servers_that_must_not_be_asked() {
    let dir = tempfile::tempdir().unwrap();
    for realm in [
        "http://192.0.2.1/token",
        "http://169.254.169.254/token",
        "https://169.254.169.254/token",
        "ftp://127.0.0.1/token",
        "http://u:p@127.0.0.1/token",
        "/token",
        "",
    ] {
        let site = Site::start(move |_, stream| {
            answer(stream, "401 Unauthorized", &challenge(realm), b"")
        });
        let host = site.address.to_string();
        let options = with_password(dir.path(), &host, PASSWORD);
        let error = fails(&options, &site.name("x:0"));
        assert_eq!(error.kind(), FailureKind::Redirect, "{realm}: {error}");
    }
}

#[test]
fn credentials_do_not_follow_a_redirect() {
    let image = Image::small(1);
    let images = [image.clone()];
    let storage = Site::start(move |request, stream| honest(&images, request, stream));
    let place = storage.address;
    let images = [image.clone()];
    let good = format!("Basic {}", base64(format!("{USER}:{PASSWORD}")));
    let site = Site::start(move |request, stream| {
        if request.header("authorization") != Some(good.as_str()) {
            return answer(
                stream,
                "401 Unauthorized",
                "WWW-Authenticate: Basic realm=\"r\"\r\n",
                b"",
            );
        }
        if request.path.contains("/blobs/") {
            // Another port is another origin.
            let there = format!("Location: http://{place}{}\r\n", request.path);
            return answer(stream, "307 Temporary Redirect", &there, b"");
        }
        honest(&images, request, stream)
    });
    let dir = tempfile::tempdir().unwrap();
    let host = site.address.to_string();
    let options = with_password(dir.path(), &host, PASSWORD);
    succeeds(&options, &site.name("x:0"), &image);
    let there = storage.seen("");
    assert_eq!(there.len(), 3);
    assert!(
        there
            .iter()
            .all(|request| request.header("authorization").is_none())
    );

    // Nor does another origin get them by asking.
    let storage = Site::start(|_, stream| {
        answer(
            stream,
            "401 Unauthorized",
            "WWW-Authenticate: Basic realm=\"r\"\r\n",
            b"",
        )
    });
    let place = storage.address;
    let site = Site::start(move |request, stream| {
        let there = format!("Location: http://{place}{}\r\n", request.path);
        answer(stream, "307 Temporary Redirect", &there, b"")
    });
    let host = site.address.to_string();
    let error = fails(
        &with_password(dir.path(), &host, PASSWORD),
        &site.name("x:0"),
    );
    assert!(matches!(error.kind(), FailureKind::Server), "{error}");
    assert!(
        storage
            .seen("")
            .iter()
            .all(|r| r.header("authorization").is_none())
    );
}

#[test]
fn a_token_server_that_redirects_does_not_carry_the_password_along() {
    let elsewhere = Site::start(|_, stream| answer(stream, "200 OK", "", br#"{"token":"t"}"#));
    let place = elsewhere.address;
    let tokens = Site::start(move |_, stream| {
        let there = format!("Location: http://{place}/\r\n");
        answer(stream, "307 Temporary Redirect", &there, b"")
    });
    let realm = format!("http://{}/", tokens.address);
    let image = Image::small(1);
    let images = [image.clone()];
    let site = Site::start(
        move |request, stream| match request.header("authorization") {
            Some("Bearer t") => honest(&images, request, stream),
            _ => answer(stream, "401 Unauthorized", &challenge(&realm), b""),
        },
    );
    let dir = tempfile::tempdir().unwrap();
    let host = site.address.to_string();
    succeeds(
        &with_password(dir.path(), &host, PASSWORD),
        &site.name("x:0"),
        &image,
    );
    assert!(tokens.seen("")[0].header("authorization").is_some());
    assert!(elsewhere.seen("")[0].header("authorization").is_none());
    // A refresh token is in the body: that redirect is not followed at all.
    let options = with_entry(dir.path(), &host, json!({"identitytoken": "refresh-me"}));
    let error = fails(&options, &site.name("x:0"));
    assert_eq!(error.kind(), FailureKind::Redirect);
    assert_eq!(elsewhere.seen("").len(), 1);
}
