//! TLS, private authorities, client certificates, and proxies.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use podspawn_images::progress::Silent;
use podspawn_images::pull::{PullOptions, pull};
use podspawn_images::registry::{FailureKind, HostConfig};

use crate::content::Image;
use crate::http::{Request, Site, answer, honest};
use crate::registry::Registry;
use crate::{Place, have, quick, reference};

fn openssl(dir: &Path, arguments: &[&str]) {
    let run = Command::new("openssl")
        .args(arguments)
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(
        run.status.success(),
        "{}",
        String::from_utf8_lossy(&run.stderr)
    );
}

/// An authority, and certificates by it for a server on 127.0.0.1 and a client.
fn authority() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    openssl(
        dir.path(),
        &[
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=ca",
            "-keyout", "ca.key", "-out", "ca.crt",
        ],
    );
    for (name, extension) in [
        ("server", "subjectAltName=IP:127.0.0.1,DNS:localhost"),
        ("client", "extendedKeyUsage=clientAuth"),
    ] {
        let (key, request) = (format!("{name}.key"), format!("{name}.csr"));
        let subject = format!("/CN={name}");
        openssl(
            dir.path(),
            &[
                "req", "-newkey", "rsa:2048", "-nodes", "-subj", &subject, "-keyout", &key, "-out",
                &request,
            ],
        );
        fs::write(dir.path().join("extension"), extension).unwrap();
        let certificate = format!("{name}.cert");
        openssl(
            dir.path(),
            &[
                "x509",
                "-req",
                "-days",
                "2",
                "-in",
                &request,
                "-CA",
                "ca.crt",
                "-CAkey",
                "ca.key",
                "-CAcreateserial",
                "-extfile",
                "extension",
                "-out",
                &certificate,
            ],
        );
    }
    dir
}

/// A registry behind TLS with an image in it.
fn over_tls(certificates: &Path, further: &str) -> (Registry, Registry, Image) {
    let open = Registry::start();
    let image = Image::small(1);
    open.put("x", "1", &image);
    let path = |name: &str| certificates.join(name).display().to_string();
    let http = format!(
        "  tls:\n    certificate: {}\n    key: {}\n{further}",
        path("server.cert"),
        path("server.key")
    );
    let closed = Registry::beside(&open, &http, "");
    (open, closed, image)
}

/// A `certs.d` with `files` for `host`.
fn certs_d(base: &Path, host: &str, files: &[(&str, PathBuf)]) -> PathBuf {
    let dir = base.join("certs.d").join(host);
    fs::create_dir_all(&dir).unwrap();
    for (name, from) in files {
        fs::copy(from, dir.join(name)).unwrap();
    }
    base.join("certs.d")
}

fn succeeds(options: &PullOptions, name: &str, image: &Image) {
    let place = Place::new();
    let pulled = pull(&place.store, &reference(name), options, &Silent).unwrap();
    assert_eq!(pulled.digest, image.digest());
}

#[test]
fn a_private_authority_is_believed_when_certs_d_says_so() {
    if !have(&["docker-registry", "openssl"]) {
        return;
    }
    let files = authority();
    let (_open, registry, image) = over_tls(files.path(), "");
    let host = registry.address.to_string();
    let name = registry.name("x:1");

    let place = Place::new();
    let error = pull(&place.store, &reference(&name), &quick(), &Silent).unwrap_err();
    assert_eq!(error.kind(), FailureKind::Tls);
    let line = error.to_string();
    assert!(
        line.contains(&format!("certs.d/{host}")) && line.contains("UnknownIssuer"),
        "{line}"
    );
    place.assert_empty();

    let base = tempfile::tempdir().unwrap();
    let mut options = quick();
    let ca = [("ca.crt", files.path().join("ca.crt"))];
    options.registries.cert_dirs = vec!["/nonexistent".into(), certs_d(base.path(), &host, &ca)];
    succeeds(&options, &name, &image);

    // An authority that cannot be used is named, not passed over.
    fs::write(
        base.path().join("certs.d").join(&host).join("bad.crt"),
        "no PEM",
    )
    .unwrap();
    let place = Place::new();
    let error = pull(&place.store, &reference(&name), &options, &Silent).unwrap_err();
    assert_eq!(error.kind(), FailureKind::Config);
    assert!(error.to_string().contains("bad.crt"), "{error}");

    // The name must be right as well.
    let port = registry.address.port();
    let local = format!("127.0.0.2:{port}");
    let other = certs_d(base.path(), &local, &ca);
    let mut options = quick();
    options.registries.cert_dirs = vec![other];
    let place = Place::new();
    let other = reference(&format!("{local}/x:1"));
    let error = pull(&place.store, &other, &options, &Silent).unwrap_err();
    // Nobody listens there, unless the registry did on all addresses.
    assert!(
        matches!(error.kind(), FailureKind::Tls | FailureKind::Connection),
        "{error}"
    );

    // Without looking, when the administrator says so.
    let mut options = quick();
    let insecure = HostConfig {
        insecure: true,
        mirrors: Vec::new(),
    };
    options.registries.hosts = [(host, insecure)].into();
    succeeds(&options, &name, &image);
}

#[test]
fn a_certificate_for_another_name_is_refused() {
    if !have(&["docker-registry", "openssl"]) {
        return;
    }
    let files = authority();
    // The client's certificate names no host at all.
    fs::copy(
        files.path().join("client.cert"),
        files.path().join("server.cert"),
    )
    .unwrap();
    fs::copy(
        files.path().join("client.key"),
        files.path().join("server.key"),
    )
    .unwrap();
    let (_open, registry, _) = over_tls(files.path(), "");
    let base = tempfile::tempdir().unwrap();
    let ca = [("ca.crt", files.path().join("ca.crt"))];
    let mut options = quick();
    let host = registry.address.to_string();
    options.registries.cert_dirs = vec![certs_d(base.path(), &host, &ca)];
    let place = Place::new();
    let name = reference(&registry.name("x:1"));
    let error = pull(&place.store, &name, &options, &Silent).unwrap_err();
    assert_eq!(error.kind(), FailureKind::Tls, "{error}");
    place.assert_empty();
}

#[test]
fn a_client_certificate_is_shown_when_certs_d_has_one() {
    if !have(&["docker-registry", "openssl"]) {
        return;
    }
    let files = authority();
    let ca = files.path().join("ca.crt");
    let further = format!("    clientcas: [{}]\n", ca.display());
    let (_open, registry, image) = over_tls(files.path(), &further);
    let host = registry.address.to_string();
    let name = registry.name("x:1");
    let base = tempfile::tempdir().unwrap();
    let mut options = quick();
    options.registries.cert_dirs = vec![certs_d(base.path(), &host, &[("ca.crt", ca)])];
    let place = Place::new();
    let error = pull(&place.store, &reference(&name), &options, &Silent).unwrap_err();
    // The server's alert may come after the handshake, or be lost with the connection.
    let kind = error.kind();
    assert!(
        matches!(kind, FailureKind::Tls | FailureKind::Connection),
        "{error}"
    );

    let client = [
        ("client.cert", files.path().join("client.cert")),
        ("client.key", files.path().join("client.key")),
    ];
    certs_d(base.path(), &host, &client);
    succeeds(&options, &name, &image);
    // A certificate without its key is named.
    fs::remove_file(base.path().join("certs.d").join(&host).join("client.key")).unwrap();
    let error = pull(&Place::new().store, &reference(&name), &options, &Silent).unwrap_err();
    assert!(error.to_string().contains("client.key"), "{error}");
}

/// `openssl s_server`, until dropped: answers with files that hold whole
/// HTTP answers.
struct Files(std::process::Child, std::net::SocketAddr);

impl Files {
    fn serve(certificates: &Path, root: &Path) -> Files {
        let address = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .unwrap();
        let mut child = Command::new("openssl")
            .args([
                "s_server",
                "-quiet",
                "-HTTP",
                "-accept",
                &address.to_string(),
            ])
            .arg("-cert")
            .arg(certificates.join("server.cert"))
            .arg("-key")
            .arg(certificates.join("server.key"))
            .current_dir(root)
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let begun = std::time::Instant::now();
        while std::net::TcpStream::connect(address).is_err() {
            assert!(child.try_wait().unwrap().is_none() && begun.elapsed().as_secs() < 20);
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        Files(child, address)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn https_is_left_for_https_only() {
    if !have(&["docker-registry", "openssl"]) {
        return;
    }
    let files = authority();
    let (open, closed, _) = over_tls(files.path(), "");
    let base = tempfile::tempdir().unwrap();
    let manifests = base.path().join("v2/x/manifests");
    fs::create_dir_all(&manifests).unwrap();
    for (tag, scheme, to) in [
        ("down", "http", open.address),
        ("same", "https", closed.address),
    ] {
        let redirect = format!(
            "HTTP/1.1 307 Temporary Redirect\r\nConnection: close\r\nContent-Length: 0\r\n\
             Location: {scheme}://{to}/v2/x/manifests/1\r\n\r\n"
        );
        fs::write(manifests.join(tag), redirect).unwrap();
    }
    let server = Files::serve(files.path(), base.path());
    let ca = [("ca.crt", files.path().join("ca.crt"))];
    let mut options = quick();
    certs_d(base.path(), &closed.address.to_string(), &ca);
    options.registries.cert_dirs = vec![certs_d(base.path(), &server.1.to_string(), &ca)];

    let before = open.requests().len();
    let down = reference(&format!("{}/x:down", server.1));
    let error = pull(&Place::new().store, &down, &options, &Silent).unwrap_err();
    assert_eq!(error.kind(), FailureKind::Redirect, "{error}");
    assert!(error.to_string().contains("plain http"), "{error}");
    assert_eq!(open.requests().len(), before);

    // The manifest is elsewhere, and the rest is not to be had.
    let same = reference(&format!("{}/x:same", server.1));
    let error = pull(&Place::new().store, &same, &options, &Silent).unwrap_err();
    assert_ne!(error.kind(), FailureKind::Redirect, "{error}");
    assert_eq!(closed.count("GET /v2/x/manifests/1"), 1);
}

// ---- proxies -----------------------------------------------------------------

/// A proxy that is the registry too: 192.0.2.1 is nowhere (RFC 5737).
fn proxied(
    deviate: impl Fn(&Request, &mut std::net::TcpStream) -> Option<std::io::Result<()>>
    + Send
    + Sync
    + 'static,
) -> (Site, Image, PullOptions) {
    let image = Image::small(1);
    let images = [image.clone()];
    let proxy = Site::start(move |request, stream| {
        if request.method == "CONNECT" {
            return answer(stream, "502 No TLS Here", "", b"");
        }
        if let Some(done) = deviate(request, stream) {
            return done;
        }
        assert!(
            request.path.starts_with("http://192.0.2.1/v2/"),
            "{}",
            request.path
        );
        honest(&images, request, stream)
    });
    let mut options = quick();
    let address = format!("http://user:proxy-secret@{}", proxy.address);
    options.registries.proxy.http = Some(address.clone());
    options.registries.proxy.https = Some(address);
    let insecure = HostConfig {
        insecure: true,
        mirrors: Vec::new(),
    };
    options.registries.hosts = [("192.0.2.1".to_owned(), insecure)].into();
    (proxy, image, options)
}

#[test]
fn a_proxy_is_used_for_others_and_not_for_loopback() {
    let (proxy, image, mut options) = proxied(|_, _| None);
    succeeds(&options, "192.0.2.1/x:0", &image);
    let connect = proxy.seen("192.0.2.1:443");
    assert_eq!(connect[0].method, "CONNECT", "https was tried first");
    assert!(connect[0].header("proxy-authorization").is_some());
    let before = proxy.seen("").len();

    let images = [image.clone()];
    let near = Site::start(move |request, stream| honest(&images, request, stream));
    succeeds(&options, &near.name("x:0"), &image);
    assert_eq!(proxy.seen("").len(), before);

    // The password of a proxy that does not answer is not shown.
    drop(proxy);
    options.registries.proxy.http = Some("http://user:proxy-secret@127.0.0.1:1".into());
    options.registries.proxy.https = options.registries.proxy.http.clone();
    let place = Place::new();
    let error = pull(&place.store, &reference("192.0.2.1/x:0"), &options, &Silent).unwrap_err();
    assert_eq!(error.kind(), FailureKind::Connection);
    assert!(
        !format!("{error} {error:?} {options:?}").contains("proxy-secret"),
        "{error}"
    );
}

#[test]
fn a_public_registry_cannot_send_us_to_our_own_loopback() {
    let inside = Site::start(|_, stream| answer(stream, "200 OK", "", b"internal"));
    let port = inside.address.port();
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0"] {
        let there = format!("Location: http://{host}:{port}/\r\n");
        let (proxy, _, mut options) =
            proxied(move |_, stream| Some(answer(stream, "307 Temporary Redirect", &there, b"")));
        // Plain http being allowed there does not make the address so.
        options.registries.proxy.no_proxy = Some(format!("{host},0.0.0.0"));
        let place = Place::new();
        let error = pull(&place.store, &reference("192.0.2.1/x:0"), &options, &Silent).unwrap_err();
        assert_eq!(error.kind(), FailureKind::Redirect, "{host}: {error}");
        place.assert_empty();
        drop(proxy);
    }
    assert_eq!(inside.seen("").len(), 0);

    // Unless the administrator names it.
    let there = format!("Location: http://127.0.0.1:{port}/\r\n");
    let (_proxy, _, mut options) =
        proxied(move |_, stream| Some(answer(stream, "307 Temporary Redirect", &there, b"")));
    options
        .registries
        .hosts
        .insert(format!("127.0.0.1:{port}"), HostConfig::default());
    let place = Place::new();
    let error = pull(&place.store, &reference("192.0.2.1/x:0"), &options, &Silent).unwrap_err();
    assert_eq!(error.kind(), FailureKind::Document, "{error}");
    assert_eq!(inside.seen("").len(), 1);
}

#[test]
fn a_public_registry_cannot_name_a_token_server_on_our_loopback() {
    let inside = Site::start(|_, stream| answer(stream, "200 OK", "", br#"{"token":"t"}"#));
    let realm = format!("https://localhost:{}/", inside.address.port());
    let (_proxy, _, options) = proxied(move |_, stream| {
        let challenge = format!("WWW-Authenticate: Bearer realm=\"{realm}\"\r\n");
        Some(answer(stream, "401 Unauthorized", &challenge, b""))
    });
    let place = Place::new();
    let error = pull(&place.store, &reference("192.0.2.1/x:0"), &options, &Silent).unwrap_err();
    assert_eq!(error.kind(), FailureKind::Redirect, "{error}");
    assert_eq!(inside.seen("").len(), 0);
}

#[test]
fn a_proxy_that_is_no_http_address_is_a_configuration_error() {
    let mut options = quick();
    options.registries.proxy.https = Some("socks5://user:proxy-secret@127.0.0.1:1".into());
    let place = Place::new();
    let name = reference("192.0.2.1/x:0");
    let error = pull(&place.store, &name, &options, &Silent).unwrap_err();
    assert_eq!(error.kind(), FailureKind::Config);
    assert!(!error.to_string().contains("proxy-secret"), "{error}");
}
