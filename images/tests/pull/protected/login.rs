//! Logging in: what a registry takes is told from what it refuses, and nothing leaks.

use podspawn_images::credentials::{Credential, CredentialSources, Scope, Secret, erase, store};
use podspawn_images::login::{LoginError, Verdict, login};
use podspawn_images::pull::PullOptions;
use podspawn_images::registry::FailureKind;
use serde_json::json;

use super::{PASSWORD, USER, base64, basic, fails, succeeds};
use crate::content::Image;
use crate::http::{Site, answer, honest};
use crate::registry::Registry;
use crate::{have, quick};

fn try_login(
    options: &PullOptions,
    host: &str,
    path: &str,
    password: &str,
) -> Result<Verdict, LoginError> {
    let credential = Credential::Password {
        username: USER.to_owned(),
        password: Secret::new(password),
    };
    let result = login(
        host,
        path,
        credential,
        &options.registries,
        options.timeouts,
    );
    if let Err(error) = &result {
        let shown = format!("{error} {error:?}");
        for secret in [password, &base64(format!("{USER}:{password}"))] {
            assert!(!shown.contains(secret), "{shown}");
        }
        assert!(
            error.to_string().starts_with(host) && !shown.contains('\n'),
            "{shown}"
        );
    }
    result
}

#[test]
fn a_login_is_asked_of_the_registry_and_then_pulls() {
    if !have(&["docker-registry"]) {
        return;
    }
    let (_open, registry, image, dir) = basic();
    let host = registry.address.to_string();
    let error = try_login(&quick(), &host, "", "wrong-password-42").unwrap_err();
    assert_eq!(error.kind(), FailureKind::Unauthorized);
    assert!(
        error.to_string().contains("401") && error.to_string().contains("check"),
        "{error}"
    );
    assert_eq!(
        try_login(&quick(), &host, "", PASSWORD),
        Ok(Verdict::Accepted)
    );

    let file = dir.path().join("auth.json");
    let scope = Scope {
        registry: &host,
        path: "",
    };
    let sources = CredentialSources::default();
    store(&sources, &file, scope, USER, &Secret::new(PASSWORD)).unwrap();
    let mut options = quick();
    options.registries.credentials.files = vec![file.clone()];
    succeeds(&options, &registry.name("a/x:1"), &image);
    erase(&sources, &file, scope).unwrap();
    let error = fails(&options, &registry.name("a/x:1"));
    assert_eq!(error.kind(), FailureKind::Unauthorized);
}

#[test]
fn a_registry_that_lets_everybody_in_says_nothing_of_a_password() {
    if !have(&["docker-registry"]) {
        return;
    }
    let registry = Registry::start();
    let host = registry.address.to_string();
    assert_eq!(
        try_login(&quick(), &host, "", PASSWORD),
        Ok(Verdict::NotAsked)
    );
}

#[test]
fn a_token_server_is_shown_the_password_and_decides() {
    let good = format!("Basic {}", base64(format!("{USER}:{PASSWORD}")));
    let tokens = Site::start(
        move |request, stream| match request.header("authorization") {
            Some(sent) if sent == good => answer(stream, "200 OK", "", br#"{"token":"t"}"#),
            _ => answer(
                stream,
                "401 Unauthorized",
                "",
                br#"{"details":"no such user"}"#,
            ),
        },
    );
    let realm = format!("http://{}/token", tokens.address);
    let site = Site::start(
        move |request, stream| match request.header("authorization") {
            Some("Bearer t") => answer(stream, "200 OK", "", b"{}"),
            _ => {
                let challenge =
                    format!("WWW-Authenticate: Bearer realm=\"{realm}\",service=\"s\"\r\n");
                answer(stream, "401 Unauthorized", &challenge, b"")
            }
        },
    );
    let host = site.address.to_string();
    assert_eq!(
        try_login(&quick(), &host, "", PASSWORD),
        Ok(Verdict::Accepted)
    );
    assert_eq!(
        try_login(&quick(), &host, "team/app", PASSWORD),
        Ok(Verdict::Accepted)
    );
    let error = try_login(&quick(), &host, "", "wrong-password-42").unwrap_err();
    assert_eq!(error.kind(), FailureKind::Unauthorized);
    assert!(error.to_string().contains("no such user"), "{error}");
    assert!(site.seen("").iter().all(|r| r.path == "/v2/"));
    let asked = tokens.seen("");
    assert!(!asked[0].path.contains("scope"), "{}", asked[0].path);
    assert!(
        asked[1]
            .path
            .contains("scope=repository%3Ateam%2Fapp%3Apull"),
        "{}",
        asked[1].path
    );
}

#[test]
fn a_password_is_sent_to_no_other_host() {
    let image = Image::small(1);
    let images = [image];
    let elsewhere = Site::start(
        move |request, stream| match request.header("authorization") {
            None => answer(
                stream,
                "401 Unauthorized",
                "WWW-Authenticate: Basic realm=\"r\"\r\n",
                b"",
            ),
            Some(_) => honest(&images, request, stream),
        },
    );
    let place = elsewhere.address;
    let site = Site::start(move |request, stream| {
        let there = format!("Location: http://{place}{}\r\n", request.path);
        answer(stream, "307 Temporary Redirect", &there, b"")
    });
    let host = site.address.to_string();
    assert!(try_login(&quick(), &host, "", PASSWORD).is_err());
    for seen in elsewhere.seen("").iter().chain(&site.seen("")) {
        assert_eq!(seen.header("authorization"), None);
    }

    // What a registry sends back is not shown; `try_login` looks.
    let echo = Site::start(|request, stream| match request.header("authorization") {
        None => answer(
            stream,
            "401 Unauthorized",
            "WWW-Authenticate: Basic realm=\"r\"\r\n",
            b"",
        ),
        Some(sent) => {
            let said =
                json!({"errors": [{"message": format!("bad {sent} {PASSWORD}")}]}).to_string();
            answer(stream, "401 Unauthorized", "", said.as_bytes())
        }
    });
    let host = echo.address.to_string();
    let error = try_login(&quick(), &host, "", PASSWORD).unwrap_err();
    assert!(error.to_string().contains("(secret)"), "{error}");
}
