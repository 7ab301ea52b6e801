//! YAML files: the text as a tree that remembers lines ([`document`]), and what
//! is expected of a value ([`value`]).
//!
//! Pure. What the configuration and Podfiles share.

pub(crate) mod document;
pub(crate) mod value;

pub(crate) use document::{Document, Problem};
pub(crate) use value::{Entry, Value};

/// `; did you mean X?`, if something known is close enough.
pub(crate) fn suggest(given: &str, known: impl Iterator<Item = &'static str>) -> String {
    let last = |name: &str| name.rsplit('.').next().unwrap_or(name).to_ascii_lowercase();
    let alike = strsim::normalized_damerau_levenshtein;
    // By the last part too: the right key in the wrong section.
    let likeness = |name: &str| alike(given, name).max(alike(&last(given), &last(name)));
    let best = known
        .map(|name| (likeness(name), name))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match best {
        Some((likeness, name)) if likeness >= 0.75 => format!("; did you mean {name}?"),
        _ => String::new(),
    }
}

/// The text in quotes, on one line, not too long.
pub(crate) fn quote(text: &str) -> String {
    format!("{:?}", shorten(text))
}

pub(crate) fn shorten(text: &str) -> String {
    const MOST: usize = 60;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
