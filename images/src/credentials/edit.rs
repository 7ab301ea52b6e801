//! Putting credentials into an auth file, and taking them out, as docker and podman do.
//!
//! What else is in the file stays. A file that names a helper for the registry has the helper keep
//! the password. The file is replaced as a whole, by one that only its owner can read; a lock on
//! its directory makes logins that happen at once wait for each other.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use rustix::fs::FlockOperation;
use serde_json::{Map, Value, json};

use super::file::{self, host_of};
use super::{CredentialError, CredentialSources, Secret, helper, server_name};
use crate::reference::DEFAULT_REGISTRY;

/// Who keeps a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keeper {
    /// An auth file.
    File(PathBuf),
    /// The program `docker-credential-NAME`.
    Helper(String),
}

/// Whom credentials are for: a registry, or what is below a path of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scope<'a> {
    /// As references name it: `docker.io`, `registry.example:5000`.
    pub registry: &'a str,
    /// The first parts of repositories; empty for all of them.
    pub path: &'a str,
}

impl Scope<'_> {
    fn key(self, file: &Path) -> String {
        // Docker itself knows its own registry by this name only.
        let docker = file.file_name().is_some_and(|name| name == "config.json");
        match (self.registry, self.path) {
            (DEFAULT_REGISTRY, "") if docker => server_name(DEFAULT_REGISTRY).to_owned(),
            (registry, "") => registry.to_owned(),
            (registry, path) => format!("{registry}/{path}"),
        }
    }

    /// Whether an entry of an auth file is for this, however it is spelled.
    fn is(self, key: &str) -> bool {
        if !self.path.is_empty() {
            return key == format!("{}/{}", self.registry, self.path);
        }
        let bare = key == host_of(key) || key.contains("://");
        let host = host_of(key);
        bare && (host == self.registry || host == host_of(server_name(self.registry)))
    }
}

/// Keeps a password in `path`, or with the helper that `path` names for the registry.
///
/// # Errors
///
/// When the file is damaged or cannot be written, or the helper fails.
pub fn store(
    sources: &CredentialSources,
    path: &Path,
    scope: Scope<'_>,
    username: &str,
    password: &Secret,
) -> Result<Keeper, CredentialError> {
    // What cannot be read afterwards is no place to keep a password.
    let known = file::read(path)?;
    // A helper knows servers only.
    if scope.path.is_empty()
        && let Some(known) = known
        && let Some(name) = known.helper(scope.registry).or(known.store())
    {
        helper::store(name, scope.registry, username, password, sources)?;
        return Ok(Keeper::Helper(name.to_owned()));
    }
    let auth = format!("{username}:{}", password.expose());
    let auth = base64::engine::general_purpose::STANDARD.encode(auth);
    change(path, true, |auths| {
        auths.retain(|key, _| !scope.is(key));
        auths.insert(scope.key(path), json!({"auth": auth}));
        true
    })?;
    Ok(Keeper::File(path.to_owned()))
}

/// Takes out of `path`, and of the helper that it names, what is for the registry. Says who had
/// something.
///
/// # Errors
///
/// Likewise.
pub fn erase(
    sources: &CredentialSources,
    path: &Path,
    scope: Scope<'_>,
) -> Result<Vec<Keeper>, CredentialError> {
    let mut had = Vec::new();
    let Some(known) = file::read(path)? else {
        return Ok(had);
    };
    if scope.path.is_empty()
        && let Some(name) = known.helper(scope.registry).or(known.store())
        && helper::get(name, scope.registry, sources)?.is_some()
    {
        helper::erase(name, scope.registry, sources)?;
        had.push(Keeper::Helper(name.to_owned()));
    }
    let changed = change(path, false, |auths| {
        let before = auths.len();
        auths.retain(|key, _| !scope.is(key));
        auths.len() < before
    })?;
    if changed {
        had.push(Keeper::File(path.to_owned()));
    }
    Ok(had)
}

/// Whether `path` has an entry for the registry, or a helper for it.
pub fn has(path: &Path, scope: Scope<'_>) -> bool {
    file::read(path).ok().flatten().is_some_and(|known| {
        known.keys().any(|key| scope.is(key)) || known.helper(scope.registry).is_some()
    })
}

/// Changes the entries of `path`; it is written only if `edit` says so.
fn change(
    path: &Path,
    make: bool,
    edit: impl FnOnce(&mut Map<String, Value>) -> bool,
) -> Result<bool, CredentialError> {
    let failed = |source| CredentialError::Write {
        path: path.to_owned(),
        source,
    };
    // A link to where the file really is stays one.
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let dir = match real.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    if make {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(dir).map_err(failed)?;
    }
    let lock = File::open(dir).map_err(failed)?;
    crate::store::lock(&lock, FlockOperation::LockExclusive).map_err(failed)?;
    let mut document = file::document(&real)?;
    let damaged = || CredentialError::Syntax {
        path: path.to_owned(),
        line: 1,
    };
    let auths = document.entry("auths").or_insert_with(|| json!({}));
    if !edit(auths.as_object_mut().ok_or_else(damaged)?) {
        return Ok(false);
    }
    let text = format!("{:#}\n", Value::Object(document));
    replace(&real, dir, text.as_bytes()).map_err(failed)?;
    Ok(true)
}

/// Puts `bytes` in the place of the file at `path`. A new file is for its owner alone; one that was
/// there keeps its group, which an administrator may have chosen.
fn replace(path: &Path, dir: &Path, bytes: &[u8]) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let staged = dir.join(format!(".{name}.{}", std::process::id()));
    let _ = fs::remove_file(&staged);
    let write = || -> io::Result<()> {
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&staged)?;
        file.write_all(bytes)?;
        if let Ok(old) = fs::metadata(path)
            && std::os::unix::fs::fchown(&file, None, Some(old.gid())).is_ok()
        {
            // What the group may read it may go on reading; others may not.
            let mode = 0o600 | (old.mode() & 0o040);
            file.set_permissions(fs::Permissions::from_mode(mode))?;
        }
        file.sync_all()?;
        fs::rename(&staged, path)?;
        File::open(dir)?.sync_all()
    };
    let written = write();
    if written.is_err() {
        let _ = fs::remove_file(&staged);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::{Credential, lookup};

    fn sources(path: &Path) -> CredentialSources {
        CredentialSources {
            files: vec![path.to_owned()],
            helper_dirs: path.parent().map(Path::to_owned).into_iter().collect(),
            ..CredentialSources::default()
        }
    }

    fn of(registry: &str) -> Scope<'_> {
        Scope { registry, path: "" }
    }

    fn user(path: &Path, registry: &str, repository: &str) -> Option<String> {
        match lookup(&sources(path), registry, repository).unwrap()?.0 {
            Credential::Password { username, .. } => Some(username),
            _ => None,
        }
    }

    fn log_in(path: &Path, scope: Scope<'_>, name: &str) -> Keeper {
        store(&sources(path), path, scope, name, &Secret::new("p:w")).unwrap()
    }

    #[test]
    fn a_file_that_could_not_be_read_afterwards_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("auth.json");
        let text = r#"{"auths": {"other.example": "no object"}}"#;
        fs::write(&path, text).unwrap();
        for below in ["", "team/app"] {
            let scope = Scope {
                registry: "docker.io",
                path: below,
            };
            let stored = store(&sources(&path), &path, scope, "me", &Secret::new("p:w"));
            assert!(matches!(stored, Err(CredentialError::Syntax { .. })));
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn what_is_stored_is_found_and_what_is_erased_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/er/auth.json");
        assert!(erase(&sources(&path), &path, of("h.x")).unwrap().is_empty());
        assert_eq!(log_in(&path, of("h.x"), "a"), Keeper::File(path.clone()));
        let team = Scope {
            registry: "h.x",
            path: "team",
        };
        log_in(&path, team, "b");
        log_in(&path, of("docker.io"), "c");
        assert_eq!(user(&path, "h.x", "x").as_deref(), Some("a"));
        assert_eq!(user(&path, "h.x", "team/x").as_deref(), Some("b"));
        assert_eq!(user(&path, "docker.io", "library/x").as_deref(), Some("c"));
        assert_eq!(user(&path, "h.x:5000", "x"), None);
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        log_in(&path, of("h.x"), "a2");
        assert_eq!(user(&path, "h.x", "x").as_deref(), Some("a2"));
        assert!(has(&path, of("h.x")) && !has(&path, of("y.x")));

        assert_eq!(
            erase(&sources(&path), &path, of("h.x")).unwrap(),
            [Keeper::File(path.clone())]
        );
        assert_eq!(user(&path, "h.x", "x"), None);
        assert_eq!(user(&path, "h.x", "team/x").as_deref(), Some("b"));
        assert!(erase(&sources(&path), &path, of("h.x")).unwrap().is_empty());
        // Nothing but the file itself is left in its directory.
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn every_spelling_of_a_registry_is_replaced_and_the_rest_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        let old = r#"{"HttpHeaders":{"a":"b"},"auths":{"https://index.docker.io/v1/":{"auth":"b2xkOm9sZA=="},
            "docker.io":{"auth":"b2xkOm9sZA=="},"docker.io/me":{"auth":"bWU6bWU="}},"other":[1]}"#;
        fs::write(&path, old).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        log_in(&path, of("docker.io"), "new");
        let text = fs::read_to_string(&path).unwrap();
        let found: Value = serde_json::from_str(&text).unwrap();
        let keys: Vec<_> = found["auths"].as_object().unwrap().keys().collect();
        assert_eq!(keys, ["docker.io/me", "https://index.docker.io/v1/"]);
        assert_eq!(
            (&found["HttpHeaders"]["a"], &found["other"]),
            (&json!("b"), &json!([1]))
        );
        assert_eq!(
            fs::metadata(&path).unwrap().mode() & 0o007,
            0,
            "no longer for all"
        );
    }

    #[test]
    fn a_link_to_the_file_stays_one() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("real")).unwrap();
        fs::write(dir.path().join("real/auth"), "{}").unwrap();
        let path = dir.path().join("auth.json");
        std::os::unix::fs::symlink("real/auth", &path).unwrap();
        log_in(&path, of("h.x"), "a");
        assert!(fs::symlink_metadata(&path).unwrap().is_symlink());
        assert_eq!(
            user(&dir.path().join("real/auth"), "h.x", "x").as_deref(),
            Some("a")
        );
    }

    #[test]
    fn a_damaged_file_is_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("auth.json");
        for text in ["{ damaged hunter2", "[]", "{\"auths\": 7}"] {
            fs::write(&path, text).unwrap();
            let error = store(&sources(&path), &path, of("h.x"), "a", &Secret::new("p"));
            let shown = format!("{:?}", error.unwrap_err());
            assert!(!shown.contains("hunter2"), "{shown}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn a_helper_keeps_the_password_and_the_file_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        let helper = dir.path().join("docker-credential-t");
        let kept = dir.path().join("kept");
        let script = format!(
            "#!/bin/sh\ncase $1 in\nstore) cat >{0} ;;\nerase) rm {0} ;;\n\
             get) [ -e {0} ] && cat {0} || {{ echo credentials not found; exit 1; }} ;;\nesac\n",
            kept.display()
        );
        fs::write(&helper, script).unwrap();
        fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(&path, r#"{"credsStore":"t"}"#).unwrap();
        assert_eq!(log_in(&path, of("h.x"), "a"), Keeper::Helper("t".into()));
        assert_eq!(user(&path, "h.x", "x").as_deref(), Some("a"));
        assert_eq!(fs::read_to_string(&path).unwrap(), r#"{"credsStore":"t"}"#);
        let had = erase(&sources(&path), &path, of("h.x")).unwrap();
        assert_eq!(had, [Keeper::Helper("t".into())]);
        assert!(!kept.exists());
        assert!(erase(&sources(&path), &path, of("h.x")).unwrap().is_empty());
    }
}
