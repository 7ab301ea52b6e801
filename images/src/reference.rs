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

/// Checks `host`, `host:port` or `[ipv6]:port` and brings it into one spelling.
pub(crate) fn canonical_registry(text: &str) -> Result<String, Reason> {
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SHA: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn canonical(text: &str) -> String {
        text.parse::<Reference>().unwrap().to_string()
    }

    fn reason(text: &str) -> Reason {
        text.parse::<Reference>().unwrap_err().reason()
    }

    #[test]
    fn short_names_get_the_defaults() {
        for (text, expected) in [
            ("ubuntu", "docker.io/library/ubuntu:latest"),
            ("ubuntu:24.04", "docker.io/library/ubuntu:24.04"),
            ("docker.io/ubuntu", "docker.io/library/ubuntu:latest"),
            ("index.docker.io/ubuntu", "docker.io/library/ubuntu:latest"),
            ("Docker.io/ubuntu", "docker.io/library/ubuntu:latest"),
            ("library/ubuntu", "docker.io/library/ubuntu:latest"),
            ("bob/tool", "docker.io/bob/tool:latest"),
            ("a/b/c", "docker.io/a/b/c:latest"),
            ("localhost", "docker.io/library/localhost:latest"),
            ("localhost:5000", "docker.io/library/localhost:5000"),
            ("localhost/x", "localhost/x:latest"),
            ("LOCALHOST/x", "localhost/x:latest"),
            ("localhost:5000/x", "localhost:5000/x:latest"),
            ("host:5000/x:1", "host:5000/x:1"),
            ("GHCR.io/a/b:1", "ghcr.io/a/b:1"),
            ("Registry/a", "Registry/a:latest"),
            ("127.0.0.1:5000/x", "127.0.0.1:5000/x:latest"),
            ("[::1]:5000/x:t", "[::1]:5000/x:t"),
            ("[2001:DB8::1]/x:t", "[2001:db8::1]/x:t"),
            ("x:_Tag.-", "docker.io/library/x:_Tag.-"),
            ("a__b--c.d_e", "docker.io/library/a__b--c.d_e:latest"),
        ] {
            assert_eq!(canonical(text), expected, "{text}");
        }
    }

    #[test]
    fn a_digest_replaces_the_default_tag_but_not_a_given_one() {
        let pinned = format!("ubuntu@{SHA}").parse::<Reference>().unwrap();
        assert_eq!(pinned.tag(), None);
        assert_eq!(
            pinned.to_string(),
            format!("docker.io/library/ubuntu@{SHA}")
        );
        assert_eq!(
            canonical(&format!("ubuntu:24.04@{SHA}")),
            format!("docker.io/library/ubuntu:24.04@{SHA}")
        );
        let other: Reference = "ghcr.io/a:1".parse().unwrap();
        let other = other.with_digest(SHA.parse().unwrap());
        assert_eq!(other.to_string(), format!("ghcr.io/a@{SHA}"));
    }

    #[test]
    fn what_the_grammar_forbids_is_refused_with_its_rule() {
        assert_eq!(reason(""), Reason::Empty);
        for text in [
            "-h.x/a",
            "h-.x/a",
            "h..x/a",
            "h.x:/a",
            "h.x:0/a",
            "h.x:65536/a",
            "h.x:80a/a",
            "h.x:+80/a",
            "[::1/a.b",
            "[::g]/a",
            "[:::]/a",
            "[::1]5000/a",
            "[::1%lo]/a.b",
            "user@h.x:1/a",
            "h_x.y/a",
            "hö.x/a",
        ] {
            let reason = reason(text);
            assert!(
                matches!(reason, Reason::Registry | Reason::Digest),
                "{text}: {reason:?}"
            );
        }
        for text in ["Ubuntu", "a/B", "h.x/A:1"] {
            assert_eq!(reason(text), Reason::UpperCase, "{text}");
        }
        for text in [
            "/a",
            "a/",
            "a//b",
            "a.",
            ".a",
            "_a",
            "a..b",
            "a___b",
            "a._b",
            "a-_b",
            "a b",
            "a\n",
            "h.x/",
            "../a",
            "a/../b",
            "ä",
            "https://h.x/a",
            "a?b",
            "a#b",
            "a%2fb",
        ] {
            let reason = reason(text);
            assert!(
                matches!(reason, Reason::Repository | Reason::Registry | Reason::Tag),
                "{text:?}: {reason:?}"
            );
        }
        for text in ["a:", "a:.x", "a:-x", "a:x/y:z", "a:x y", "a:ü", "a:b:c"] {
            assert!(
                matches!(reason(text), Reason::Tag | Reason::Registry),
                "{text}"
            );
        }
        for text in [
            "a@sha256:00",
            "a@md5:d41d8cd98f00b204e9800998ecf8427e",
            "a@",
            &format!("a@{}", SHA.to_uppercase()),
            &format!("a@{SHA}0"),
            &format!("a@{SHA}@{SHA}"),
        ] {
            assert_eq!(reason(text), Reason::Digest, "{text}");
        }
        assert_eq!(reason(&SHA[7..]), Reason::Identifier);
    }

    #[test]
    fn lengths_are_bounded() {
        let tag = "t".repeat(TAG_MAX);
        assert!(format!("a:{tag}").parse::<Reference>().is_ok());
        assert_eq!(reason(&format!("a:{tag}t")), Reason::Tag);
        // The limit is on the canonical name: docker.io/library/ counts.
        let name = "n".repeat(NAME_MAX - "docker.io/library/".len());
        assert!(name.parse::<Reference>().is_ok());
        assert_eq!(reason(&format!("{name}n")), Reason::TooLong);
    }

    #[test]
    fn errors_quote_and_shorten_what_was_given() {
        let error = format!("\u{1b}[2J{}", "A".repeat(5000))
            .parse::<Reference>()
            .unwrap_err()
            .to_string();
        assert!(!error.contains('\u{1b}') && error.len() < 400, "{error}");
    }

    fn host() -> impl Strategy<Value = String> {
        let name = "[a-zA-Z0-9]([a-zA-Z0-9-]{0,8}[a-zA-Z0-9])?(\\.[a-z0-9]{1,5}){1,3}";
        let v6 = any::<[u8; 16]>().prop_map(|b| format!("[{}]", Ipv6Addr::from(b)));
        (
            prop_oneof![
                name.prop_map(|h| h),
                v6,
                Just("localhost".to_owned()),
                Just("10.0.0.1".to_owned())
            ],
            proptest::option::of(1..=u16::MAX),
        )
            .prop_map(|(host, port)| match port {
                Some(port) => format!("{host}:{port}"),
                None => host,
            })
    }

    fn path() -> impl Strategy<Value = String> {
        let component = "[a-z0-9]{1,6}((\\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}";
        proptest::collection::vec(component, 1..4).prop_map(|parts| parts.join("/"))
    }

    proptest! {
        #[test]
        fn what_the_grammar_allows_parses_and_keeps_its_parts(
            host in proptest::option::of(host()),
            path in path(),
            tag in proptest::option::of("[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"),
            digest in proptest::option::of("sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}"),
        ) {
            prop_assume!(host.is_some() || path.len() != 64);
            let mut text = String::new();
            if let Some(host) = &host {
                text = format!("{host}/");
            }
            text += &path;
            if let Some(tag) = &tag {
                text += &format!(":{tag}");
            }
            if let Some(digest) = &digest {
                text += &format!("@{digest}");
            }
            // `localhost/…` as a path would be a registry.
            prop_assume!(host.is_some() || !path.starts_with("localhost/"));
            prop_assume!(host.is_some() || !path.split('/').next().unwrap().contains('.')
                || !path.contains('/'));
            let reference: Reference = text.parse().unwrap();
            match &host {
                Some(host) => prop_assert_eq!(reference.registry(), host.to_ascii_lowercase()),
                None => prop_assert_eq!(reference.registry(), DEFAULT_REGISTRY),
            }
            prop_assert!(reference.repository().ends_with(&path));
            if tag.is_some() || digest.is_some() {
                prop_assert_eq!(reference.tag(), tag.as_deref());
            } else {
                prop_assert_eq!(reference.tag(), Some("latest"));
            }
            prop_assert_eq!(reference.digest().map(ToString::to_string), digest);
            let again: Reference = reference.to_string().parse().unwrap();
            prop_assert_eq!(again, reference);
        }

        #[test]
        fn anything_that_parses_is_canonical_and_safe_in_a_url(text in "[-a-zA-Z0-9_./:@%\\[\\] é]{0,60}|\\PC{0,40}") {
            if let Ok(reference) = text.parse::<Reference>() {
                let shown = reference.to_string();
                prop_assert_eq!(shown.parse::<Reference>().unwrap(), reference.clone());
                prop_assert!(shown.bytes().all(|b| b.is_ascii_graphic()));
                prop_assert!(!shown.contains(['?', '#', '%', '\\']));
                prop_assert!(!reference.repository().split('/').any(|c| c == ".." || c == "." || c.is_empty()));
                prop_assert!(reference.tag().is_some() || reference.digest().is_some());
            }
        }

        #[test]
        fn one_bad_byte_in_a_repository_is_refused(path in path(), at in any::<prop::sample::Index>(), bad in "[A-Z ?#%&=+~!$,;'\\\\\"<>|é\\x00-\\x1f]") {
            let at = at.index(path.len() + 1);
            let text = format!("h.x/{}{bad}{}", &path[..at], &path[at..]);
            prop_assert!(text.parse::<Reference>().is_err());
        }
    }
}
