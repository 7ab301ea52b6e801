//! Why a pull failed: one line, with the next step.

use crate::document::DocumentError;
use crate::layer::{LayerError, LayerFault};
use crate::policy::Refused;
use crate::reference::Reference;
use crate::registry::{FailureKind, visible};
use crate::store::StoreError;

/// The longest line that helps.
const MAX_LINE: usize = 1000;

/// A pull that failed. `Display` is one line without secrets and control
/// characters: the reference, what happened, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reference}: {message}{}{}", if .hint.is_empty() { "" } else { "; " }, .hint)]
pub struct PullError {
    reference: Box<str>,
    kind: FailureKind,
    message: Box<str>,
    hint: Box<str>,
}

impl PullError {
    /// What went wrong, for programs.
    pub fn kind(&self) -> FailureKind {
        self.kind
    }

    /// What to do about it, if there is something; part of `Display`.
    pub fn hint(&self) -> Option<&str> {
        Some(&*self.hint).filter(|hint| !hint.is_empty())
    }
}

/// A failure that does not know yet which reference it is about.
#[derive(Debug)]
pub(super) struct Failure {
    kind: FailureKind,
    message: String,
}

impl Failure {
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    pub fn of(self, reference: &Reference) -> PullError {
        let hint = hint(self.kind, &self.message, reference.registry());
        PullError {
            reference: reference.to_string().into(),
            kind: self.kind,
            message: visible(&self.message, MAX_LINE).into(),
            hint: hint.into(),
        }
    }
}

/// What to do about a failure at the registry `host`; empty if that is not known.
pub(crate) fn hint(kind: FailureKind, message: &str, host: &str) -> String {
    match kind {
        FailureKind::NotFound => "check the name and the tag".to_owned(),
        FailureKind::Unauthorized | FailureKind::Denied => {
            format!("if it exists, `podspawn login {host}` with credentials that may read it")
        }
        FailureKind::RateLimited => {
            format!("wait, or `podspawn login {host}` for a higher limit")
        }
        FailureKind::Tls if message.contains("corrupt message") => {
            format!("it seems to speak plain HTTP: set registries.{host}.insecure if that is meant")
        }
        FailureKind::Tls if message.contains("CertificateRequired") => {
            format!("put a client certificate and its key into certs.d/{host}/")
        }
        FailureKind::Tls => format!(
            "put the certificate of its authority into certs.d/{host}/ca.crt, or set \
             registries.{host}.insecure"
        ),
        FailureKind::Stalled | FailureKind::Connection | FailureKind::Server => {
            "try again later".to_owned()
        }
        FailureKind::Store if message.contains("space") => {
            "make room and pull again; finished layers are kept".to_owned()
        }
        _ => String::new(),
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        Self::new(FailureKind::Policy, refused.to_string())
    }
}

impl From<DocumentError> for Failure {
    fn from(error: DocumentError) -> Self {
        let kind = match &error {
            DocumentError::TooLarge { .. }
            | DocumentError::Layers { .. }
            | DocumentError::Size { .. } => FailureKind::TooLarge,
            DocumentError::Config(_) => FailureKind::Digest,
            DocumentError::Platform { .. } => FailureKind::Platform,
            _ => FailureKind::Document,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Document(error) => error.into(),
            StoreError::DiffId { .. } => Self::new(FailureKind::Digest, error.to_string()),
            StoreError::HardLink { .. } => Self::new(FailureKind::Layer, error.to_string()),
            error => Self::new(FailureKind::Store, error.to_string()),
        }
    }
}

impl From<LayerError> for Failure {
    fn from(error: LayerError) -> Self {
        let kind = match &error.fault {
            LayerFault::Mismatch(_) | LayerFault::DiffId { .. } => FailureKind::Digest,
            LayerFault::Expanded { .. }
            | LayerFault::Entries { .. }
            | LayerFault::Memory { .. } => FailureKind::TooLarge,
            LayerFault::Write { .. } | LayerFault::Store(_) => FailureKind::Store,
            _ => FailureKind::Layer,
        };
        Self::new(kind, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_has_the_reference_the_cause_and_the_next_step() {
        let reference: Reference = "ghcr.io/a/b:1".parse().unwrap();
        let error = Failure::new(FailureKind::Unauthorized, "ghcr.io answered 401").of(&reference);
        assert_eq!(
            error.to_string(),
            "ghcr.io/a/b:1: ghcr.io answered 401; if it exists, `podspawn login ghcr.io` with \
             credentials that may read it"
        );
        assert_eq!(error.kind(), FailureKind::Unauthorized);
        let error = Failure::new(FailureKind::Document, "a\nb\u{1b}").of(&reference);
        assert_eq!(error.to_string(), "ghcr.io/a/b:1: a b\\u{1b}");
        assert_eq!(error.hint(), None);
    }
}
