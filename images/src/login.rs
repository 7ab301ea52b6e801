//! Asking a registry whether it takes a user name and a password.
//!
//! One request for `/v2/`, answered with the credentials if and only if the registry wants some;
//! they go where a pull would send them and nowhere else, and follow no redirect to another host.

use crate::credentials::Credential;
use crate::pull::hint;
use crate::registry::{FailureKind, Ping, RegistryConfig, RequestError, Timeouts, ping, visible};

/// What the registry said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It takes the credentials.
    Accepted,
    /// It lets everybody in, so that nothing is known of them.
    NotAsked,
}

/// A login that failed. `Display` is one line without secrets and control characters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{registry}: {message}{}{}", if .hint.is_empty() { "" } else { "; " }, .hint)]
pub struct LoginError {
    registry: String,
    kind: FailureKind,
    message: String,
    hint: String,
}

impl LoginError {
    /// What went wrong, for programs.
    pub fn kind(&self) -> FailureKind {
        self.kind
    }
}

/// Shows `credential` to `registry`, named as in references. A `path` narrows what is asked for to
/// one repository.
///
/// # Errors
///
/// When the registry refuses it, or cannot be asked.
pub fn login(
    registry: &str,
    path: &str,
    credential: Credential,
    config: &RegistryConfig,
    timeouts: Timeouts,
) -> Result<Verdict, LoginError> {
    let failed = |error: RequestError| LoginError {
        registry: registry.to_owned(),
        kind: error.kind,
        hint: match error.kind {
            FailureKind::Unauthorized | FailureKind::Denied => {
                "check the user name, and the password or access token".to_owned()
            }
            FailureKind::NotFound => "is it a registry?".to_owned(),
            kind => hint(kind, &error.message, registry),
        },
        message: visible(&error.message, 1000),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| failed(RequestError::new(FailureKind::Config, e.to_string())))?;
    let answer = runtime.block_on(ping(registry, path, credential, config.clone(), timeouts));
    // A name lookup that hangs must not hold up the error.
    runtime.shutdown_background();
    match answer.map_err(failed)? {
        Ping::Authorized => Ok(Verdict::Accepted),
        Ping::Open => Ok(Verdict::NotAsked),
    }
}
