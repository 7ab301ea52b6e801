//! Image references: what a user writes to name an image.
//!
//! Pure; used by every process that names an image. The grammar is that of
//! `distribution/reference`, with the defaulting that docker and podman users
//! expect: `ubuntu` is `docker.io/library/ubuntu:latest`. Stricter than that
//! grammar in three places: an IPv6 literal must be an address, a port must be
//! a port, and a digest must be one that can be verified.
//!
//! A [`Reference`] is canonical from the moment it exists, so two spellings of
//! one image are equal, and `Display` parses back to the same value.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use crate::digest::Digest;

/// The registry that a reference without one means.
pub const DEFAULT_REGISTRY: &str = "docker.io";

/// Longest canonical name (registry, `/`, repository), in bytes.
pub const NAME_MAX: usize = 255;

/// Longest tag, in bytes.
pub const TAG_MAX: usize = 128;

/// A canonical image reference: registry, repository, and a tag, a digest or both.
///
/// With both, the digest decides what is fetched and the tag is only a label.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is not an image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{:?} is not an image reference: {reason}", shorten(.text))]
pub struct ReferenceError {
    text: String,
    reason: Reason,
}

impl ReferenceError {
    /// Which rule the text breaks.
    pub fn reason(&self) -> Reason {
        self.reason
    }
}

/// The rule of the grammar that was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// Nothing was given.
    #[error("it is empty")]
    Empty,
    /// The registry is not a host, `host:port` or `[ipv6]:port`.
    #[error("the registry must be a host name or address, with a port if needed")]
    Registry,
    /// The repository has an upper-case letter.
    #[error("the repository must be in lower case")]
    UpperCase,
    /// A repository component breaks the grammar.
    #[error(
        "a repository is lower-case letters and digits, with single '.', '_', '__' or '-' between, \
         in parts separated by '/'"
    )]
    Repository,
    /// The tag breaks the grammar.
    #[error("a tag is at most 128 letters, digits, '_', '.' or '-', not starting with '.' or '-'")]
    Tag,
    /// The digest is not one that can be verified.
    #[error("a digest is sha256: or sha512: followed by that many lower-case hexadecimal digits")]
    Digest,
    /// The canonical name is longer than [`NAME_MAX`].
    #[error("the name is longer than 255 characters")]
    TooLong,
    /// 64 hexadecimal digits, which other tools take for a local image's identifier.
    #[error("64 hexadecimal digits are an image's identifier, not its name; write NAME@sha256:…")]
    Identifier,
}

impl Reference {
    /// The registry's host, with its port if one was given: `docker.io`,
    /// `localhost:5000`, `[::1]:5000`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository in the registry: `library/ubuntu`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; always there when there is no digest.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if the reference is pinned to one.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The same repository at `digest`, without a tag.
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self {
            registry: self.registry.clone(),
            repository: self.repository.clone(),
            tag: None,
            digest: Some(digest),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reference({self})")
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        parse(text).map_err(|reason| ReferenceError {
            text: text.to_owned(),
            reason,
        })
    }
}

fn parse(text: &str) -> Result<Reference, Reason> {
    if text.is_empty() {
        return Err(Reason::Empty);
    }
    if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(Reason::Identifier);
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (
            rest,
            Some(Digest::from_str(digest).map_err(|_| Reason::Digest)?),
        ),
        None => (text, None),
    };
    let (registry, rest) = split_registry(rest);
    let (path, tag) = match rest.split_once(':') {
        Some((path, tag)) => (path, Some(tag)),
        None => (rest, None),
    };

    let registry = canonical_registry(registry.unwrap_or(DEFAULT_REGISTRY))?;
    check_repository(path)?;
    if let Some(tag) = tag
        && !is_tag(tag)
    {
        return Err(Reason::Tag);
    }
    let repository = if registry == DEFAULT_REGISTRY && !path.contains('/') {
        format!("library/{path}")
    } else {
        path.to_owned()
    };
    if registry.len() + 1 + repository.len() > NAME_MAX {
        return Err(Reason::TooLong);
    }
    let tag = match (tag, &digest) {
        (Some(tag), _) => Some(tag.to_owned()),
        (None, None) => Some("latest".to_owned()),
        (None, Some(_)) => None,
    };
    Ok(Reference {
        registry,
        repository,
        tag,
        digest,
    })
}

/// Splits off the first component if it can only be a registry: it has a dot or
/// a colon, is `localhost`, or has an upper-case letter, which no repository has.
fn split_registry(text: &str) -> (Option<&str>, &str) {
    match text.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (Some(first), rest)
        }
        _ => (None, text),
    }
}

/// Checks `host`, `host:port` or `[ipv6]:port` and brings it into the spelling
/// that [`Reference::registry`] has: that of keys in the registry configuration.
pub fn canonical_registry(text: &str) -> Result<String, Reason> {
    let (_, port) = if text.starts_with('[') {
        let end = text.find(']').ok_or(Reason::Registry)?;
        let (host, port) = text.split_at(end + 1);
        host[1..end]
            .parse::<Ipv6Addr>()
            .map_err(|_| Reason::Registry)?;
        let port = match port.strip_prefix(':') {
            Some(port) => Some(port),
            None if port.is_empty() => None,
            None => return Err(Reason::Registry),
        };
        (host, port)
    } else {
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        };
        if !host.split('.').all(is_host_label) {
            return Err(Reason::Registry);
        }
        (host, port)
    };
    if let Some(port) = port {
        let plain = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
        if !plain || port.parse::<u16>().map_err(|_| Reason::Registry)? == 0 {
            return Err(Reason::Registry);
        }
    }
    // Host names are case-insensitive. One without a dot or a port keeps its
    // case: in lower case it would read as part of a repository.
    let lower = text.to_ascii_lowercase();
    Ok(match lower.as_str() {
        "docker.io" | "index.docker.io" => DEFAULT_REGISTRY.to_owned(),
        "localhost" => lower,
        _ if text.contains(['.', ':']) => lower,
        _ => text.to_owned(),
    })
}

fn is_host_label(label: &str) -> bool {
    !label.is_empty()
        && label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

pub(crate) fn check_repository(path: &str) -> Result<(), Reason> {
    if path.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(Reason::UpperCase);
    }
    if path.split('/').all(is_path_component) {
        Ok(())
    } else {
        Err(Reason::Repository)
    }
}

/// `[a-z0-9]+` runs joined by `.`, `_`, `__` or any number of `-`.
fn is_path_component(component: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let mut at = 0;
    loop {
        let word = bytes[at..].iter().take_while(|&&b| alphanumeric(b)).count();
        if word == 0 {
            return false;
        }
        at += word;
        let separator = &bytes[at..];
        at += match separator {
            [] => return true,
            [b'_', b'_', ..] => 2,
            [b'.' | b'_', ..] => 1,
            [b'-', ..] => separator.iter().take_while(|&&b| b == b'-').count(),
            _ => return false,
        };
    }
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= TAG_MAX
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

fn shorten(text: &str) -> String {
    const MAX: usize = 80;
    match text.char_indices().nth(MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
