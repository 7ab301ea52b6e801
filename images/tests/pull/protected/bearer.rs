//! Bearer tokens, as a real registry checks them.

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use podspawn_images::registry::FailureKind;
use serde_json::json;

use super::{
    PASSWORD, USER, assert_silent, base64, base64url, fails, succeeds, with_entry, with_password,
};
use crate::content::Image;
use crate::http::{Site, answer};
use crate::registry::Registry;
use crate::{have, quick};

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
