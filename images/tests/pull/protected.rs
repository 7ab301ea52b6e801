//! Registries that want to know who asks: basic, bearer, helpers.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use podspawn_images::progress::Silent;
use podspawn_images::pull::{PullError, PullOptions, pull};
use podspawn_images::registry::FailureKind;
use serde_json::json;

use crate::content::{Image, Layer};
use crate::http::{Request, Site, answer, honest};
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

// ---- bearer, as a real registry checks it ------------------------------------

/// Signs tokens as docker's token specification says (RFC 7515, RS256, x5c).
struct Signer {
    dir: tempfile::TempDir,
    certificate: String,
}

impl Signer {
    fn new() -> Signer {
        let dir = tempfile::tempdir().unwrap();
        let made = Command::new("openssl")
            .args([
                "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
            ])
            .args([
                "-subj",
                "/CN=tokens",
                "-keyout",
                "key.pem",
                "-out",
                "cert.pem",
            ])
            .current_dir(&dir)
            .output()
            .unwrap();
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
        let pem = fs::read_to_string(dir.path().join("cert.pem")).unwrap();
        let certificate = pem.lines().filter(|l| !l.starts_with("---")).collect();
        Signer { dir, certificate }
    }

    fn bundle(&self) -> String {
        self.dir.path().join("cert.pem").display().to_string()
    }

    fn token(&self, repository: &str) -> String {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let header = json!({"typ": "JWT", "alg": "RS256", "x5c": [self.certificate]});
        let claims = json!({
            "iss": "issuer", "sub": USER, "aud": "service", "jti": number.to_string(),
            "iat": now - 10, "nbf": now - 10, "exp": now + 300,
            "access": [{"type": "repository", "name": repository, "actions": ["pull"]}],
        });
        let signed = format!(
            "{}.{}",
            base64url(header.to_string()),
            base64url(claims.to_string())
        );
        let input = self.dir.path().join(format!("input{number}"));
        fs::write(&input, &signed).unwrap();
        let signature = Command::new("openssl")
            .args(["dgst", "-sha256", "-sign", "key.pem"])
            .arg(&input)
            .current_dir(&self.dir)
            .output()
            .unwrap();
        assert!(signature.status.success());
        format!("{signed}.{}", base64url(signature.stdout))
    }
}

/// `scope` and the like from a query or a form.
fn field(text: &str, name: &str) -> Option<String> {
    let mut pairs = url::form_urlencoded::parse(text.as_bytes());
    pairs
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
}

#[test]
fn bearer_tokens_that_a_real_registry_believes() {
    if !have(&["docker-registry", "openssl"]) {
        return;
    }
    let open = Registry::start();
    let image = Image::small(1);
    open.put("a/public", "1", &image);
    open.put("a/private", "1", &image);
    let signer = Signer::new();
    let bundle = signer.bundle();
    let good = format!("Basic {}", base64(format!("{USER}:{PASSWORD}")));
    let tokens = Site::start(move |request, stream| {
        let (query, refresh) = match request.method.as_str() {
            "POST" => {
                let form = String::from_utf8(request.body.clone()).unwrap();
                let refresh = field(&form, "refresh_token");
                assert_eq!(field(&form, "grant_type").as_deref(), Some("refresh_token"));
                (form, refresh)
            }
            _ => {
                let query = request.path.split_once('?').unwrap().1;
                (query.to_owned(), None)
            }
        };
        assert_eq!(field(&query, "service").as_deref(), Some("service"));
        let scope = field(&query, "scope").unwrap();
        let repository = scope.split(':').nth(1).unwrap();
        let known = request.header("authorization") == Some(good.as_str())
            || refresh.as_deref() == Some("refresh-me");
        if request.header("authorization").is_some() && !known {
            let said = br#"{"details":"incorrect username or password"}"#;
            return answer(stream, "401 Unauthorized", "", said);
        }
        // Anybody may have a token, which says what it is good for.
        let for_what = match known || repository == "a/public" {
            true => repository,
            false => "nothing",
        };
        let token = signer.token(for_what);
        let body = match known {
            true => json!({"access_token": token, "expires_in": 300}),
            false => json!({"token": token}),
        };
        answer(stream, "200 OK", "", body.to_string().as_bytes())
    });
    let section = format!(
        "auth: {{token: {{realm: 'http://{}/token', service: service, issuer: issuer, \
         rootcertbundle: {bundle}}}}}\n",
        tokens.address
    );
    let registry = Registry::beside(&open, "", &section);
    let host = registry.address.to_string();
    let dir = tempfile::tempdir().unwrap();

    succeeds(&quick(), &registry.name("a/public:1"), &image);
    let asked = tokens.seen("/token");
    assert_eq!(
        asked.len(),
        1,
        "one token serves the manifest and all blobs"
    );
    assert_eq!(
        field(asked[0].path.split_once('?').unwrap().1, "scope").as_deref(),
        Some("repository:a/public:pull")
    );

    let name = registry.name("a/private:1");
    let error = fails(&quick(), &name);
    assert_eq!(error.kind(), FailureKind::Unauthorized);
    assert!(error.to_string().contains("podspawn login"), "{error}");
    succeeds(&with_password(dir.path(), &host, PASSWORD), &name, &image);
    let identity = json!({"identitytoken": "refresh-me"});
    succeeds(&with_entry(dir.path(), &host, identity), &name, &image);

    let error = fails(&with_password(dir.path(), &host, "wrong-42"), &name);
    assert_eq!(error.kind(), FailureKind::Unauthorized);
    assert!(error.to_string().contains("incorrect username"), "{error}");
    assert_silent(&error, &["wrong-42", &base64(format!("{USER}:wrong-42"))]);
}

// ---- hostile and unlucky token servers ---------------------------------------

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
