//! Registries that want to know who asks: basic, bearer, helpers.

mod bearer;
mod login;
mod tokens;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use podspawn_images::progress::Silent;
use podspawn_images::pull::{PullError, PullOptions, pull};
use podspawn_images::registry::FailureKind;
use serde_json::json;

use crate::content::Image;
use crate::registry::Registry;
use crate::{Place, have, quick, reference};

const USER: &str = "alice";
const PASSWORD: &str = "hunter2:with:colons";

fn base64(bytes: impl AsRef<[u8]>) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn base64url(bytes: impl AsRef<[u8]>) -> String {
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

/// Options with an auth file that has `entry` for `host`.
fn with_entry(dir: &Path, host: &str, entry: serde_json::Value) -> PullOptions {
    let file = dir.join("auth.json");
    fs::write(&file, json!({"auths": {host: entry}}).to_string()).unwrap();
    let mut options = quick();
    options.registries.credentials.files = vec![dir.join("none.json"), file];
    options
}

fn with_password(dir: &Path, host: &str, password: &str) -> PullOptions {
    let entry = json!({"auth": base64(format!("{USER}:{password}"))});
    with_entry(dir, host, entry)
}

/// No way of printing the error shows a secret.
fn assert_silent(error: &PullError, secrets: &[&str]) {
    let shown = format!("{error} {error:?} {error:#?}");
    for secret in secrets {
        assert!(!shown.contains(secret), "{shown}");
    }
}

fn fails(options: &PullOptions, name: &str) -> PullError {
    let place = Place::new();
    let error = pull(&place.store, &reference(name), options, &Silent).unwrap_err();
    place.assert_empty();
    error
}

fn succeeds(options: &PullOptions, name: &str, image: &Image) {
    let place = Place::new();
    let pulled = pull(&place.store, &reference(name), options, &Silent).unwrap();
    assert_eq!(pulled.digest, image.digest());
}

/// A registry that wants the password, with an image in it.
fn basic() -> (Registry, Registry, Image, tempfile::TempDir) {
    let open = Registry::start();
    let image = Image::small(1);
    open.put("a/x", "1", &image);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("htpasswd");
    // bcrypt, cost 4, of PASSWORD.
    fs::write(&file, format!("{USER}:{HASH}\n")).unwrap();
    let section = format!(
        "auth: {{htpasswd: {{realm: r, path: {}}}}}\n",
        file.display()
    );
    let closed = Registry::beside(&open, "", &section);
    (open, closed, image, dir)
}

const HASH: &str = "$2b$04$D5dP60lztpwb5QoHv.jsQudSSFthQ90fU.b8DisD.O7gHp1yn6G4m";

#[test]
fn basic_credentials_from_an_auth_file() {
    if !have(&["docker-registry"]) {
        return;
    }
    let (_open, registry, image, dir) = basic();
    let host = registry.address.to_string();
    let name = registry.name("a/x:1");
    succeeds(&with_password(dir.path(), &host, PASSWORD), &name, &image);
    // For the repository alone, as podman allows.
    let key = format!("{host}/a");
    succeeds(&with_password(dir.path(), &key, PASSWORD), &name, &image);

    let error = fails(&quick(), &name);
    assert_eq!(error.kind(), FailureKind::Unauthorized);
    let line = error.to_string();
    assert!(line.contains(&format!("podspawn login {host}")), "{line}");

    let before = registry.requests().len();
    let wrong = "wrong-password-42";
    let error = fails(&with_password(dir.path(), &host, wrong), &name);
    assert_eq!(error.kind(), FailureKind::Unauthorized);
    assert!(error.to_string().contains("auth.json"), "{error}");
    assert_silent(&error, &[wrong, &base64(format!("{USER}:{wrong}"))]);
    assert_eq!(
        registry.requests().len() - before,
        2,
        "refused, and not tried again"
    );
}

#[test]
fn basic_credentials_from_a_helper() {
    if !have(&["docker-registry"]) {
        return;
    }
    let (_open, registry, image, dir) = basic();
    let helper = dir.path().join("docker-credential-test");
    let script = format!(
        "#!/bin/sh\nread -r server\n[ \"$1\" = get ] && [ \"$server\" = {} ] || exit 1\n\
         echo '{{\"ServerURL\":\"\",\"Username\":\"{USER}\",\"Secret\":\"{PASSWORD}\"}}'\n",
        registry.address
    );
    fs::write(&helper, script).unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    let file = dir.path().join("config.json");
    let mut options = quick();
    options.registries.credentials.files = vec![file.clone()];
    options.registries.credentials.helper_dirs = vec![dir.path().to_owned()];
    let name = registry.name("a/x:1");
    for config in [
        json!({"credsStore": "test"}),
        json!({"credHelpers": {registry.address.to_string(): "test"}}),
    ] {
        fs::write(&file, config.to_string()).unwrap();
        succeeds(&options, &name, &image);
    }

    // One that hangs is an error in bounded time, and one line.
    fs::write(&helper, "#!/bin/sh\nsleep 60\n").unwrap();
    options.registries.credentials.helper_timeout = Duration::from_millis(200);
    let error = fails(&options, &name);
    assert_eq!(error.kind(), FailureKind::Credentials);
    assert!(
        error.to_string().contains("docker-credential-test"),
        "{error}"
    );
}

#[test]
fn credentials_are_not_even_looked_for_where_nobody_asks() {
    if !have(&["docker-registry"]) {
        return;
    }
    let registry = Registry::start();
    let image = Image::small(1);
    registry.put("x", "1", &image);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.json");
    fs::write(&file, "{ damaged").unwrap();
    let mut options = quick();
    options.registries.credentials.files = vec![file];
    succeeds(&options, &registry.name("x:1"), &image);
}
