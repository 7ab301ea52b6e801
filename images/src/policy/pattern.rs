//! Reading a pattern, and matching references with it.

use std::str::FromStr as _;

use crate::digest::Digest;
use crate::reference::Reference;

/// Why a text is not a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{:?} is not a pattern for images: {reason}", .text.chars().take(80).collect::<String>())]
pub struct PatternError {
    text: String,
    reason: &'static str,
}

/// What a pattern asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// Content, whatever its name.
    Content(Digest),
    /// A name.
    Name(Name),
}

/// What a name must be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name {
    registry: Registry,
    repository: Vec<Part>,
    version: Version,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Registry {
    Any,
    /// Any name with this ending, dot and port included.
    Below(String),
    Exactly(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// `**`: one part or more.
    Some,
    /// One part, in which `*` is any text.
    One(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Version {
    Any,
    Tag(String),
    Digest(Digest),
}

impl Rule {
    pub(super) fn parse(text: &str) -> Result<Rule, PatternError> {
        let refuse = |reason| PatternError {
            text: text.to_owned(),
            reason,
        };
        if let Ok(digest) = text.parse() {
            return Ok(Rule::Content(digest));
        }
        let (name, version) = match text.split_once('@') {
            Some((name, digest)) => {
                let wrong = "after @ comes sha256: with 64 or sha512: with 128 lower-case digits";
                let digest = digest.parse().map_err(|_| refuse(wrong))?;
                (name, Version::Digest(digest))
            }
            None => (text, Version::Any),
        };
        let Some((registry, rest)) = name.split_once('/') else {
            let why = "write it in full, as in docker.io/library/ubuntu, or a digest";
            return Err(refuse(why));
        };
        let (repository, version) = match rest.split_once(':') {
            None => (rest, version),
            Some(_) if version != Version::Any => {
                return Err(refuse("with a digest a tag means nothing; leave it out"));
            }
            Some((repository, tag)) => {
                let tag = glob(tag, |b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
                let wrong = "a tag has letters, digits, '_', '.' and '-', and * for any text";
                let tag = tag.ok_or_else(|| refuse(wrong))?;
                (repository, Version::Tag(tag))
            }
        };
        Ok(Rule::Name(Name {
            registry: Registry::parse(registry).map_err(refuse)?,
            repository: parts(repository).ok_or_else(|| {
                refuse(
                    "a repository has lower-case letters, digits, '_', '.' and '-' in parts \
                     separated by '/'; * is any text in a part, and ** any parts",
                )
            })?,
            version,
        }))
    }
}

impl Registry {
    fn parse(text: &str) -> Result<Registry, &'static str> {
        const WRONG: &str =
            "the registry comes first, a host with a dot or a port, as in docker.io/library/ubuntu";
        if text == "*" {
            return Ok(Registry::Any);
        }
        let (below, host) = match text.strip_prefix("*.") {
            Some(host) => (true, host),
            None => (false, text),
        };
        if host.contains('*') {
            return Err("in a registry * can only stand alone or, with a dot, at the beginning");
        }
        // Whatever a reference would take for the first part of a repository is none.
        let known = Reference::from_str(&format!("{host}/x/y")).map_err(|_| WRONG)?;
        let canonical = known.registry();
        if below {
            // The ending need not be a registry itself: `*.test`.
            let whole = crate::reference::canonical_registry(&format!("x.{host}"));
            let whole = whole.map_err(|_| WRONG)?;
            return Ok(Registry::Below(whole[1..].to_owned()));
        }
        if !known.repository().eq("x/y") {
            return Err(WRONG);
        }
        Ok(Registry::Exactly(canonical.to_owned()))
    }

    fn allows(&self, registry: &str) -> bool {
        match self {
            Registry::Any => true,
            Registry::Below(ending) => registry
                .strip_suffix(ending.as_str())
                .is_some_and(|rest| !rest.is_empty()),
            Registry::Exactly(name) => name == registry,
        }
    }
}

/// A text of such bytes and stars, if that is what it is.
fn glob(text: &str, byte: impl Fn(u8) -> bool) -> Option<String> {
    let sound = !text.is_empty() && text.bytes().all(|b| b == b'*' || byte(b));
    sound.then(|| text.to_owned())
}

fn parts(text: &str) -> Option<Vec<Part>> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_.-".contains(&b);
    let part = |text: &str| match text {
        "**" => Some(Part::Some),
        // Two stars mean something only on their own.
        text if text.contains("**") => None,
        text => glob(text, plain).map(Part::One),
    };
    text.split('/').map(part).collect()
}

impl Name {
    pub(super) fn has_digest(&self) -> bool {
        matches!(self.version, Version::Digest(_))
    }

    pub(super) fn allows(&self, reference: &Reference) -> bool {
        let parts: Vec<&str> = reference.repository().split('/').collect();
        self.registry.allows(reference.registry())
            && matches_parts(&self.repository, &parts)
            && match &self.version {
                Version::Any => true,
                Version::Digest(digest) => reference.digest() == Some(digest),
                Version::Tag(tag) => {
                    reference.digest().is_none()
                        && reference.tag().is_some_and(|t| matches_text(tag, t))
                }
            }
    }
}

/// As long as the product of both lengths at most: row by row over the patterns.
fn matches_parts(patterns: &[Part], parts: &[&str]) -> bool {
    // reached[n]: the patterns so far can stand for the first n parts.
    let mut reached = vec![false; parts.len() + 1];
    reached[0] = true;
    for pattern in patterns {
        let mut next = vec![false; parts.len() + 1];
        for n in 0..parts.len() {
            next[n + 1] = match pattern {
                Part::Some => reached[n] || next[n],
                Part::One(glob) => reached[n] && matches_text(glob, parts[n]),
            };
        }
        reached = next;
    }
    reached[parts.len()]
}

/// Whether `glob`, in which `*` is any text, stands for `text`. The last star is the only one that
/// ever has to be tried again.
fn matches_text(glob: &str, text: &str) -> bool {
    let (glob, text) = (glob.as_bytes(), text.as_bytes());
    let (mut g, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if glob.get(g) == Some(&b'*') {
            star = Some((g, t));
            g += 1;
        } else if glob.get(g) == Some(&text[t]) {
            (g, t) = (g + 1, t + 1);
        } else if let Some((at, from)) = star {
            star = Some((at, from + 1));
            (g, t) = (at + 1, from + 1);
        } else {
            return false;
        }
    }
    glob[g..].iter().all(|byte| *byte == b'*')
}
