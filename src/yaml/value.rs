//! What a key was given, read as the type that the key has.
//!
//! Pure. Every refusal is a [`Problem`] with the line of the value itself, so
//! that the third entry of a list is found where it stands. A null or an empty
//! text leaves a key as it was, as upstream's empty defaults do.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::document::{Content, Document, NodeId, Problem};
use super::quote;
use crate::output::text::escape;

/// One value of a document.
#[derive(Clone, Copy)]
pub(crate) struct Value<'a> {
    document: &'a Document,
    id: NodeId,
}

/// One entry of a section.
pub(crate) struct Entry<'a> {
    pub(crate) key: &'a str,
    /// Line of the key, from 1.
    pub(crate) line: usize,
    pub(crate) value: Value<'a>,
}

impl<'a> Value<'a> {
    pub(crate) fn root(document: &'a Document) -> Self {
        Self {
            document,
            id: document.root(),
        }
    }

    fn content(self) -> &'a Content {
        &self.document.node(self.id).content
    }

    pub(crate) fn problem(self, text: impl Into<String>) -> Problem {
        Problem::new(self.document.node(self.id).line, text)
    }

    /// A single value, whatever it looks like.
    pub(crate) fn text(self) -> Result<Option<&'a str>, Problem> {
        match self.content() {
            Content::Null => Ok(None),
            Content::Scalar { text, .. } if text.is_empty() => Ok(None),
            Content::Scalar { text, .. } => Ok(Some(text)),
            Content::Sequence(_) => Err(self.problem("one value is expected, not a list")),
            Content::Mapping(_) => {
                Err(self.problem("one value is expected, not a section of keys"))
            }
        }
    }

    /// A single value that `read` understands.
    pub(crate) fn parsed<T>(
        self,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Problem> {
        self.text()?
            .map(|text| read(text).map_err(|e| self.problem(e)))
            .transpose()
    }

    /// One of a few words.
    pub(crate) fn one_of<T: Copy>(self, words: &[(&str, T)]) -> Result<Option<T>, Problem> {
        self.parsed(|text| {
            words
                .iter()
                .find(|(word, _)| *word == text)
                .map(|(_, value)| *value)
                .ok_or_else(|| {
                    let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
                    format!("{} is not known; write {}", quote(text), or(&known))
                })
        })
    }

    /// `true` or `false`.
    pub(crate) fn flag(self) -> Result<Option<bool>, Problem> {
        let written = self.text()?;
        let plain = matches!(self.content(), Content::Scalar { plain: true, .. });
        match written {
            None => Ok(None),
            Some("true" | "True" | "TRUE") if plain => Ok(Some(true)),
            Some("false" | "False" | "FALSE") if plain => Ok(Some(false)),
            Some(text) => {
                let hint = if plain {
                    "write true or false"
                } else {
                    "write true or false, without quotes"
                };
                Err(self.problem(format!("{} is not a yes or no; {hint}", quote(text))))
            }
        }
    }

    /// A whole number from `least`.
    pub(crate) fn whole(self, least: u64) -> Result<Option<u64>, Problem> {
        self.parsed(|text| {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            let number = digits.then(|| text.parse().ok()).flatten();
            number
                .filter(|n| *n >= least)
                .ok_or_else(|| format!("{} is not a whole number from {least}", quote(text)))
        })
    }

    /// An absolute path without `.` and `..` components.
    pub(crate) fn absolute_path(self) -> Result<Option<PathBuf>, Problem> {
        self.parsed(|text| {
            if !text.starts_with('/') {
                return Err(format!(
                    "{} is not an absolute path; begin it with /",
                    quote(text)
                ));
            }
            if text.split('/').any(|part| matches!(part, "." | "..")) || text.contains('\0') {
                return Err(format!(
                    "{} must not contain . or .. components",
                    quote(text)
                ));
            }
            Ok(PathBuf::from(text))
        })
    }

    /// The values of a list; a null is an empty one.
    pub(crate) fn list(self) -> Result<Vec<Value<'a>>, Problem> {
        match self.content() {
            Content::Null => Ok(Vec::new()),
            Content::Sequence(items) => Ok(items
                .iter()
                .map(|id| Value {
                    document: self.document,
                    id: *id,
                })
                .collect()),
            Content::Scalar { text, .. } => Err(self.problem(format!(
                "a list is expected; write [{}]",
                escape(&super::shorten(text))
            ))),
            Content::Mapping(_) => Err(self.problem("a list is expected, not a section of keys")),
        }
    }

    /// The texts of a list, none of them empty.
    pub(crate) fn texts(self) -> Result<Vec<&'a str>, Problem> {
        let one = |v: Value<'a>| {
            v.text()?
                .ok_or_else(|| v.problem("an entry of the list is empty"))
        };
        self.list()?.into_iter().map(one).collect()
    }

    /// The keys of a section, each once; a null is an empty one.
    pub(crate) fn entries(self) -> Result<Vec<Entry<'a>>, Problem> {
        let entries = match self.content() {
            Content::Null => return Ok(Vec::new()),
            Content::Mapping(entries) => entries,
            _ => return Err(self.problem("a section of keys is expected")),
        };
        let mut first: BTreeMap<&str, usize> = BTreeMap::new();
        let mut found = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            let key = self.document.node(*key);
            let Content::Scalar { text, .. } = &key.content else {
                return Err(Problem::new(key.line, "a key must be a word"));
            };
            if let Some(line) = first.insert(text, key.line) {
                let twice = format!("given twice, first on line {line}");
                return Err(Problem::new(key.line, twice).below(text));
            }
            let value = Value {
                document: self.document,
                id: *value,
            };
            found.push(Entry {
                key: text,
                line: key.line,
                value,
            });
        }
        Ok(found)
    }
}

/// `a, b or c`.
pub(crate) fn or(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [most @ .., last] => format!("{} or {last}", most.join(", ")),
    }
}
