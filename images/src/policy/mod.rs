//! Which images may be used at all: the administrator's `images.allow`. Pure.
//!
//! A pattern is written in full, so that none means more than it says:
//!
//! ```text
//! docker.io/library/ubuntu            any tag and any digest of this repository
//! docker.io/library/ubuntu:24.*       these tags; `*` is any text
//! ghcr.io/acme/*                      `*` within a part of a repository
//! *.example.org/**                    `*.` any subdomain, `**` any repositories
//! ghcr.io/acme/dev@sha256:…           nothing but this content
//! sha256:…                            this content, whatever it is called
//! ```
//!
//! A tag says nothing about content once there is a digest beside it, so a pattern with a tag is
//! not met by a reference with a digest. What was not fetched from a registry has no origin but its
//! digest: a name that an archive claims meets no pattern without one.

mod pattern;

use std::fmt;
use std::str::FromStr;

pub use pattern::PatternError;

use crate::digest::Digest;
use crate::reference::Reference;
use pattern::Rule;

/// One pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    rule: Rule,
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Pattern, PatternError> {
        let rule = Rule::parse(text)?;
        let text = text.to_owned();
        Ok(Pattern { text, rule })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Pattern {
    /// Whether a reference is met before anything is known of what it stands for.
    pub fn allows(&self, reference: &Reference) -> bool {
        match &self.rule {
            Rule::Content(digest) => reference.digest() == Some(digest),
            Rule::Name(name) => name.allows(reference),
        }
    }

    /// Whether content that came from no registry is met, under this name or without one.
    pub fn allows_content(&self, name: Option<&Reference>, digest: &Digest) -> bool {
        match &self.rule {
            Rule::Content(allowed) => allowed == digest,
            Rule::Name(rule) => {
                rule.has_digest()
                    && name.is_some_and(|name| rule.allows(&name.with_digest(digest.clone())))
            }
        }
    }
}

/// What may be used: everything, or what meets a pattern.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    allow: Option<Vec<Pattern>>,
}

/// An image that may not be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("images.allow, which the administrator set, does not allow {what}{}", listed(.allowed))]
pub struct Refused {
    what: String,
    allowed: Vec<String>,
}

/// The first patterns: enough to see what a right name looks like.
fn listed(allowed: &[String]) -> String {
    match allowed {
        [] => "; it allows nothing".to_owned(),
        all if all.len() <= 5 => format!("; it allows {}", all.join(", ")),
        all => format!("; it allows {}, …", all[..5].join(", ")),
    }
}

impl Policy {
    /// Allows what meets one of `patterns`, and nothing else.
    pub fn only(patterns: Vec<Pattern>) -> Policy {
        Policy {
            allow: Some(patterns),
        }
    }

    /// Whether there is anything that it does not allow.
    pub fn is_open(&self) -> bool {
        self.allow.is_none()
    }

    /// Whether the image may be fetched, or used if it is there.
    ///
    /// # Errors
    ///
    /// One line that names the image and what would be allowed.
    pub fn check(&self, reference: &Reference) -> Result<(), Refused> {
        self.decide(|p| p.allows(reference), || reference.to_string())
    }

    /// Whether content that is in a file may be brought in, under this name or without one.
    ///
    /// # Errors
    ///
    /// Likewise.
    pub fn check_content(&self, name: Option<&Reference>, digest: &Digest) -> Result<(), Refused> {
        self.decide(
            |pattern| pattern.allows_content(name, digest),
            || match name {
                Some(name) => format!(
                    "{name} from a file, because its digest is not listed ({})",
                    name.with_digest(digest.clone())
                ),
                None => format!("{digest} from a file"),
            },
        )
    }

    fn decide(
        &self,
        allows: impl Fn(&Pattern) -> bool,
        what: impl Fn() -> String,
    ) -> Result<(), Refused> {
        match &self.allow {
            Some(patterns) if !patterns.iter().any(allows) => Err(Refused {
                what: what(),
                allowed: patterns.iter().map(ToString::to_string).collect(),
            }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
