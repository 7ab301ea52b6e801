//! Why one request failed, and whether sending it again can help.
//!
//! Nothing in here holds a secret: addresses are reduced to their host, because
//! redirects carry signatures in the query, and what a registry says is escaped
//! and cut before it is kept.

use std::error::Error as _;
use std::fmt::Write as _;
use std::time::Duration;

/// The kind of a failure, for the caller to act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailureKind {
    /// The registry has no such repository, tag, manifest or blob (404).
    NotFound,
    /// Credentials are wanted, or those there are were refused (401).
    Unauthorized,
    /// The credentials are good, but not for this (403).
    Denied,
    /// Too many requests (429).
    RateLimited,
    /// The registry failed (5xx).
    Server,
    /// No connection, or it was lost.
    Connection,
    /// The certificate cannot be verified, or TLS failed otherwise.
    Tls,
    /// Nothing came for too long.
    Stalled,
    /// More bytes than allowed.
    TooLarge,
    /// The content is not what its digest or size says.
    Digest,
    /// A redirect that is not followed.
    Redirect,
    /// The answer does not follow the distribution specification.
    Protocol,
    /// The document is not one that can be used: schema 1, an artifact, a
    /// foreign layer, contradicting media types, …
    Document,
    /// There is no image for the platform.
    Platform,
    /// A layer could not be unpacked.
    Layer,
    /// The store failed.
    Store,
    /// A credential file or helper failed.
    Credentials,
    /// The configuration cannot be used.
    Config,
    /// The administrator does not allow the image.
    Policy,
}

/// Whether to send the request again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Again {
    Never,
    Backoff,
    /// As the registry asked for.
    After(Duration),
}

/// A failed request.
#[derive(Debug, Clone)]
pub(crate) struct RequestError {
    pub kind: FailureKind,
    pub message: String,
    pub again: Again,
}

impl std::fmt::Display for RequestError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for RequestError {}

impl RequestError {
    /// One that no second attempt will mend.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            again: Again::Never,
        }
    }

    /// One that may pass.
    pub fn passing(kind: FailureKind, message: impl Into<String>) -> Self {
        Self {
            again: Again::Backoff,
            ..Self::new(kind, message)
        }
    }

    /// No byte, no header or no connection for `waited`.
    pub fn stalled(host: &str, what: &str, waited: Duration) -> Self {
        let waited = seconds(waited);
        Self::passing(
            FailureKind::Stalled,
            format!("{host} stalled: {what} for {waited}"),
        )
    }

    /// What the HTTP client says, without the address.
    pub fn transport(host: &str, error: &reqwest::Error) -> Self {
        if let Some(refused) = find::<AddressRefused>(error) {
            return Self::new(FailureKind::Redirect, refused.to_string());
        }
        if let Some(Unresolved(why)) = find::<Unresolved>(error) {
            let message = format!("cannot find {host}: {}", visible(why, 200));
            let mut error = Self::passing(FailureKind::Connection, message);
            // The resolver's own words for a name that nobody has.
            if why.contains("not known") || why.contains("No address") {
                error.again = Again::Never;
            }
            return error;
        }
        if let Some(tls) = find::<rustls::Error>(error) {
            let message = format!("TLS with {host} failed: {}", visible(&tls.to_string(), 200));
            return Self::new(FailureKind::Tls, message);
        }
        if error.is_timeout() {
            return Self::passing(
                FailureKind::Stalled,
                format!("{host} stalled: the connection took too long"),
            );
        }
        let what = if error.is_connect() {
            "cannot connect to"
        } else {
            "lost the connection to"
        };
        let mut innermost: &dyn std::error::Error = error;
        while let Some(source) = innermost.source() {
            innermost = source;
        }
        // reqwest's own line would have the address, with its query.
        let cause = match innermost.is::<reqwest::Error>() {
            true => "the request could not be sent".to_owned(),
            false => visible(&innermost.to_string(), 200),
        };
        Self::passing(FailureKind::Connection, format!("{what} {host}: {cause}"))
    }
}

/// A name that resolves to nothing a redirect may lead to.
#[derive(Debug, thiserror::Error)]
#[error(
    "refused to follow to {0}: it is a loopback or private address, and the registry is not \
     (name it under registries in the configuration to allow it)"
)]
pub(crate) struct AddressRefused(pub String);

/// A name that could not be resolved, in the resolver's words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unresolved(pub String);

/// Looks for a `T` among the causes, inside I/O errors too.
fn find<T: std::error::Error + 'static>(error: &reqwest::Error) -> Option<&T> {
    let mut next = error.source();
    while let Some(cause) = next {
        if let Some(found) = cause.downcast_ref::<T>() {
            return Some(found);
        }
        next = match cause.downcast_ref::<std::io::Error>() {
            Some(io) => match io.get_ref() {
                Some(inner) => Some(inner as &dyn std::error::Error),
                None => cause.source(),
            },
            None => cause.source(),
        };
    }
    None
}

/// A failure that an answer's status stands for; `said` is the registry's own message.
pub(crate) fn of_status(
    host: &str,
    status: u16,
    said: &str,
    retry_after: Option<Duration>,
) -> RequestError {
    let kind = match status {
        404 => FailureKind::NotFound,
        401 => FailureKind::Unauthorized,
        403 => FailureKind::Denied,
        429 => FailureKind::RateLimited,
        408 => FailureKind::Stalled,
        500..=599 => FailureKind::Server,
        _ => FailureKind::Protocol,
    };
    let again = match (kind, retry_after) {
        (FailureKind::RateLimited | FailureKind::Server, Some(wait)) => Again::After(wait),
        (FailureKind::RateLimited | FailureKind::Server | FailureKind::Stalled, None) => {
            Again::Backoff
        }
        _ => Again::Never,
    };
    let mut message = format!("{host} answered {status}");
    if let Some(reason) = reqwest::StatusCode::from_u16(status)
        .ok()
        .and_then(|s| s.canonical_reason())
    {
        let _ = write!(message, " {reason}");
    }
    if !said.is_empty() {
        let _ = write!(message, " ({said})");
    }
    RequestError {
        kind,
        message,
        again,
    }
}

/// The message in an error body: the distribution specification's `errors`,
/// else a token server's `details` or `error_description`, else short text.
pub(crate) fn message_of(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Body {
        #[serde(default)]
        errors: Vec<Entry>,
        #[serde(default)]
        details: Option<String>,
        #[serde(default)]
        error_description: Option<String>,
        #[serde(default)]
        message: Option<String>,
    }
    #[derive(serde::Deserialize)]
    struct Entry {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    const MAX: usize = 300;
    if let Ok(body) = serde_json::from_slice::<Body>(body) {
        let errors: Vec<_> = body
            .errors
            .iter()
            .take(3)
            .map(|e| match e.message.as_str() {
                "" => e.code.clone(),
                message => message.to_owned(),
            })
            .collect();
        let said = match errors.is_empty() {
            false => errors.join("; "),
            true => body
                .details
                .or(body.error_description)
                .or(body.message)
                .unwrap_or_default(),
        };
        return visible(&said, MAX);
    }
    match std::str::from_utf8(body) {
        Ok(text) if !text.trim_start().starts_with(['<', '{', '[']) => {
            visible(text.lines().next().unwrap_or_default(), MAX)
        }
        _ => String::new(),
    }
}

/// `text` in one line that cannot move a cursor, at most `max` characters.
pub(crate) fn visible(text: &str, max: usize) -> String {
    let mut shown = String::new();
    for (count, c) in text.trim().chars().enumerate() {
        if count == max {
            shown.push('…');
            break;
        }
        // Directional marks reorder what a terminal shows.
        let reorders = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        match c {
            '\n' | '\r' | '\t' => shown.push(' '),
            c if c.is_control() || reorders => shown.extend(c.escape_unicode()),
            c => shown.push(c),
        }
    }
    shown
}

/// `20 s`, `1.5 s`.
pub(crate) fn seconds(duration: Duration) -> String {
    let tenths = (duration.as_secs_f64() * 10.0).round() / 10.0;
    format!("{tenths} s")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registrys_own_words_are_found_escaped_and_cut() {
        for (body, said) in [
            (
                r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{}}]}"#,
                "manifest unknown",
            ),
            (
                r#"{"errors":[{"code":"DENIED"},{"message":"b"}]}"#,
                "DENIED; b",
            ),
            (
                r#"{"details":"incorrect username or password"}"#,
                "incorrect username or password",
            ),
            ("Too many requests\nand more", "Too many requests"),
            ("<html>nginx</html>", ""),
            ("", ""),
            (
                "{\"errors\":[{\"message\":\"a\\u001b[2Jb\\nc\\u202e\"}]}",
                "a\\u{1b}[2Jb c\\u{202e}",
            ),
        ] {
            assert_eq!(message_of(body.as_bytes()), said, "{body}");
        }
        let long = format!(
            "{{\"errors\":[{{\"message\":\"{}\"}}]}}",
            "x".repeat(10_000)
        );
        assert!(message_of(long.as_bytes()).chars().count() <= 301);
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        for status in [400, 401, 403, 404, 405, 416] {
            assert_eq!(
                of_status("h", status, "", None).again,
                Again::Never,
                "{status}"
            );
        }
        for status in [408, 429, 500, 502, 503, 504] {
            assert_eq!(
                of_status("h", status, "", None).again,
                Again::Backoff,
                "{status}"
            );
        }
        let wait = Duration::from_secs(7);
        assert_eq!(
            of_status("h", 429, "", Some(wait)).again,
            Again::After(wait)
        );
        assert_eq!(of_status("h", 404, "", Some(wait)).again, Again::Never);
    }
}
