//! Auth files: docker's `config.json`, podman's `auth.json`.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use serde::Deserialize;

use super::{Credential, CredentialError, Secret, server_name};

/// No real one comes near.
const MAX: u64 = 4 << 20;

/// A file that was read; entries are decoded only when they are asked for.
pub(super) struct AuthFile {
    path: PathBuf,
    content: Content,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Content {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
    #[serde(default)]
    creds_store: String,
}

#[derive(Deserialize, Default)]
struct Entry {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    identitytoken: String,
    #[serde(default)]
    registrytoken: String,
}

/// Reads `path`; `None` when there is no such file.
pub(super) fn read(path: &Path) -> Result<Option<AuthFile>, CredentialError> {
    let Some(bytes) = bytes(path)? else {
        return Ok(None);
    };
    let content = if bytes.trim_ascii().is_empty() {
        Content::default()
    } else {
        parsed(path, &bytes)?
    };
    Ok(Some(AuthFile {
        path: path.to_owned(),
        content,
    }))
}

/// All that is in `path`, known or not; nothing when there is no such file.
pub(super) fn document(
    path: &Path,
) -> Result<serde_json::Map<String, serde_json::Value>, CredentialError> {
    match bytes(path)? {
        Some(bytes) if !bytes.trim_ascii().is_empty() => parsed(path, &bytes),
        _ => Ok(serde_json::Map::new()),
    }
}

fn parsed<T: serde::de::DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T, CredentialError> {
    serde_json::from_slice(bytes).map_err(|e| CredentialError::Syntax {
        path: path.to_owned(),
        line: e.line(),
    })
}

fn bytes(path: &Path) -> Result<Option<Vec<u8>>, CredentialError> {
    let failed = |source| CredentialError::Read {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    match std::fs::File::open(path) {
        Ok(file) => file.take(MAX).read_to_end(&mut bytes).map_err(failed)?,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) if e.kind() == std::io::ErrorKind::NotADirectory => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    Ok(Some(bytes))
}

impl AuthFile {
    /// The helper that is set for `registry` alone.
    pub fn helper(&self, registry: &str) -> Option<&str> {
        let helpers = &self.content.cred_helpers;
        helpers
            .get(registry)
            .or_else(|| helpers.get(server_name(registry)))
            .or_else(|| helpers.get(host_of(server_name(registry))))
            .map(String::as_str)
            .filter(|name| !name.is_empty())
    }

    /// The helper for everything else.
    pub fn store(&self) -> Option<&str> {
        Some(self.content.creds_store.as_str()).filter(|name| !name.is_empty())
    }

    /// The names of its entries.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.content.auths.keys().map(String::as_str)
    }

    /// The most specific entry for the repository.
    pub fn entry(
        &self,
        registry: &str,
        repository: &str,
    ) -> Result<Option<Credential>, CredentialError> {
        let auths = &self.content.auths;
        let full = format!("{registry}/{repository}");
        let mut key = full.as_str();
        loop {
            if let Some(found) = auths.get(key)
                && let Some(credential) = self.decode(key, found)?
            {
                return Ok(Some(credential));
            }
            match key.rsplit_once('/') {
                Some((shorter, _)) => key = shorter,
                None => break,
            }
        }
        // docker login writes addresses, older versions with a path.
        let host = host_of(server_name(registry));
        for (key, found) in auths {
            let same = key.contains("://") && host_of(key) == host || (key == host);
            if same && let Some(credential) = self.decode(key, found)? {
                return Ok(Some(credential));
            }
        }
        Ok(None)
    }

    fn decode(&self, key: &str, entry: &Entry) -> Result<Option<Credential>, CredentialError> {
        let damaged = || CredentialError::Entry {
            path: self.path.clone(),
            key: key.to_owned(),
        };
        if !entry.registrytoken.is_empty() {
            return Ok(Some(Credential::Bearer(Secret::new(&entry.registrytoken))));
        }
        if !entry.identitytoken.is_empty() {
            return Ok(Some(Credential::Identity(Secret::new(
                &entry.identitytoken,
            ))));
        }
        let (username, password) = if entry.auth.is_empty() {
            (entry.username.clone(), entry.password.clone())
        } else {
            let bytes = base64::engine::general_purpose::STANDARD
                .decode(entry.auth.trim())
                .map_err(|_| damaged())?;
            let text = String::from_utf8(bytes).map_err(|_| damaged())?;
            let (username, password) = text.split_once(':').ok_or_else(damaged)?;
            // Some writers end the password with a NUL.
            let password = password.trim_end_matches('\0');
            (username.to_owned(), password.to_owned())
        };
        if username.is_empty() && password.is_empty() {
            return Ok(None);
        }
        Ok(Some(Credential::Password {
            username,
            password: Secret::new(password),
        }))
    }
}

/// `https://host:1/v1/` → `host:1`.
pub(super) fn host_of(key: &str) -> &str {
    let key = key.split_once("://").map_or(key, |(_, rest)| rest);
    key.split('/').next().unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(json: &str) -> AuthFile {
        AuthFile {
            path: "auth.json".into(),
            content: serde_json::from_str(json).unwrap(),
        }
    }

    fn user(file: &AuthFile, registry: &str, repository: &str) -> Option<String> {
        match file.entry(registry, repository).unwrap()? {
            Credential::Password { username, .. } => Some(username),
            Credential::Identity(_) => Some("identity".into()),
            Credential::Bearer(_) => Some("bearer".into()),
        }
    }

    fn auth(user: &str) -> String {
        let auth = base64::engine::general_purpose::STANDARD.encode(format!("{user}:p:w"));
        format!(r#"{{"auth":"{auth}"}}"#)
    }

    #[test]
    fn the_most_specific_entry_wins() {
        let file = file(&format!(
            r#"{{"auths":{{"h.x":{},"h.x/a":{},"h.x/a/b":{},"h.x:5000":{}}}}}"#,
            auth("host"),
            auth("a"),
            auth("ab"),
            auth("port")
        ));
        assert_eq!(user(&file, "h.x", "a/b").as_deref(), Some("ab"));
        assert_eq!(user(&file, "h.x", "a/c").as_deref(), Some("a"));
        assert_eq!(user(&file, "h.x", "ab").as_deref(), Some("host"));
        assert_eq!(user(&file, "h.x:5000", "a/b").as_deref(), Some("port"));
        assert_eq!(user(&file, "other.x", "a/b"), None);
        assert_eq!(user(&file, "h.x:443", "a/b"), None);
    }

    #[test]
    fn dockers_own_names_are_understood() {
        for key in [
            "https://index.docker.io/v1/",
            "docker.io",
            "index.docker.io",
        ] {
            let file = file(&format!(r#"{{"auths":{{"{key}":{}}}}}"#, auth("me")));
            assert_eq!(
                user(&file, "docker.io", "library/x").as_deref(),
                Some("me"),
                "{key}"
            );
            assert_eq!(user(&file, "ghcr.io", "x"), None);
        }
        let file = file(&format!(
            r#"{{"auths":{{"https://h.x/v2/":{}}}}}"#,
            auth("me")
        ));
        assert_eq!(user(&file, "h.x", "a").as_deref(), Some("me"));
    }

    #[test]
    fn a_password_may_have_colons_and_empty_entries_are_none() {
        let file = file(&format!(
            r#"{{"auths":{{"h.x":{},"e.x":{{}},"i.x":{{"auth":"","identitytoken":"t"}},
                "u.x":{{"username":"u","password":"p"}}}},"other":[1]}}"#,
            auth("me")
        ));
        let Some(Credential::Password { password, .. }) = file.entry("h.x", "a").unwrap() else {
            panic!("no password");
        };
        assert_eq!(password.expose(), "p:w");
        assert_eq!(user(&file, "e.x", "a"), None);
        assert_eq!(user(&file, "i.x", "a").as_deref(), Some("identity"));
        assert_eq!(user(&file, "u.x", "a").as_deref(), Some("u"));
    }

    #[test]
    fn damage_is_named_without_quoting_the_secret() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        assert!(read(&path).unwrap().is_none());
        std::fs::write(&path, "").unwrap();
        assert!(read(&path).unwrap().is_some());
        std::fs::write(&path, "{\"auths\":\n{\"h.x\": \"hunter2\"}}").unwrap();
        let error = read(&path).err().unwrap();
        assert!(error.to_string().contains("line 2"), "{error}");
        assert!(!format!("{error:?} {error}").contains("hunter2"));
        for bad in ["%%%", "aHVudGVyMg==", "/////w=="] {
            let file = file(&format!(r#"{{"auths":{{"h.x":{{"auth":"{bad}"}}}}}}"#));
            let error = file.entry("h.x", "a").unwrap_err().to_string();
            assert!(error.contains("h.x") && !error.contains(bad), "{error}");
        }
    }

    #[test]
    fn helpers_are_by_registry_or_for_all() {
        let file =
            file(r#"{"credHelpers":{"h.x":"pass","index.docker.io":"d"},"credsStore":"all"}"#);
        assert_eq!(file.helper("h.x"), Some("pass"));
        assert_eq!(file.helper("docker.io"), Some("d"));
        assert_eq!(file.helper("h.x:5000"), None);
        assert_eq!(file.store(), Some("all"));
    }
}
