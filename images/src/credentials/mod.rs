//! User names, passwords and tokens for registries.
//!
//! They come from the auth files of docker and podman and from credential
//! helpers. Which files, and in which directories helpers are, the caller says;
//! nothing here reads the environment. They are looked up only once a registry
//! has asked for them, so public images start no helper.

mod edit;
mod file;
mod helper;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

pub use edit::{Keeper, Scope, erase, has, store};
pub use helper::HelperError;

/// Where credentials are looked for.
#[derive(Debug, Clone)]
pub struct CredentialSources {
    /// Auth files, first match wins; those that do not exist are passed over.
    /// Both docker's `config.json` and podman's `auth.json` are understood.
    pub files: Vec<PathBuf>,
    /// Directories with `docker-credential-NAME` programs, as in `PATH`.
    pub helper_dirs: Vec<PathBuf>,
    /// How long a helper may take.
    pub helper_timeout: Duration,
}

impl Default for CredentialSources {
    fn default() -> Self {
        Self {
            files: Vec::new(),
            helper_dirs: Vec::new(),
            helper_timeout: Duration::from_secs(30),
        }
    }
}

/// What a registry is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// A user name and a password (or an access token in its place).
    Password {
        /// The user name.
        username: String,
        /// The password.
        password: Secret,
    },
    /// An OAuth2 refresh token, exchanged at the registry's token server.
    Identity(Secret),
    /// A bearer token that goes to the registry as it is.
    Bearer(Secret),
}

/// A text that is never shown: its `Debug` is a placeholder, and it has no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, to be sent and nothing else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// Why there are no credentials although there should be.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// An auth file is there but cannot be read.
    #[error("cannot read {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// An auth file cannot be written.
    #[error("cannot write {}: {source}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// An auth file is not what it should be. Says where, never what: the
    /// parser's own message would quote the value.
    #[error("{}, line {line}: not an auth file as docker or podman write it", .path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// An entry's `auth` is not base64 of `user:password`.
    #[error("{}: the entry for {key:?} is damaged; log in again", .path.display())]
    Entry {
        /// The file.
        path: PathBuf,
        /// The entry.
        key: String,
    },
    /// A credential helper failed.
    #[error(transparent)]
    Helper(#[from] HelperError),
}

/// Credentials for `repository` at `registry`, as references name them
/// (`docker.io`, `library/ubuntu`), and where they came from; `None` when no
/// source has any.
///
/// In each file: `credHelpers` for the registry, else the most specific key of
/// `auths` (`host/a/b`, `host/a`, `host`), else `credsStore`.
///
/// # Errors
///
/// A file or a helper that is named but unusable is an error, not an absence.
pub fn lookup(
    sources: &CredentialSources,
    registry: &str,
    repository: &str,
) -> Result<Option<(Credential, String)>, CredentialError> {
    for path in &sources.files {
        let Some(file) = file::read(path)? else {
            continue;
        };
        if let Some(helper) = file.helper(registry) {
            if let Some(found) = helper::get(helper, registry, sources)? {
                return Ok(Some((found, format!("docker-credential-{helper}"))));
            }
            continue;
        }
        if let Some(found) = file.entry(registry, repository)? {
            return Ok(Some((found, path.display().to_string())));
        }
        if let Some(helper) = file.store()
            && let Some(found) = helper::get(helper, registry, sources)?
        {
            return Ok(Some((found, format!("docker-credential-{helper}"))));
        }
    }
    Ok(None)
}

/// The name under which docker keeps the credentials of `registry`.
fn server_name(registry: &str) -> &str {
    match registry {
        crate::reference::DEFAULT_REGISTRY => "https://index.docker.io/v1/",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_show() {
        let credential = Credential::Password {
            username: "alice".into(),
            password: Secret::new("hunter2"),
        };
        assert!(!format!("{credential:?}").contains("hunter2"));
        assert!(!format!("{:?}", Credential::Identity(Secret::new("hunter2"))).contains("hunter2"));
    }
}
