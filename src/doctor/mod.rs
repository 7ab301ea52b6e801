//! Whether this host can do what podspawn promises, and what to do if not.
//!
//! Facts are gathered first ([`facts`]), by root for the host and by each user for
//! themself, because what a user may do only that user can try. What they mean is
//! pure ([`host`], [`user`]): a finding says what was found, what it costs and the
//! exact fix.

pub mod cgroup;
pub mod facts;
pub mod host;
pub mod pod;
pub mod store;
pub mod user;

use serde_json::json;

/// What a podspawn that failed said, in a line.
fn said(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    own(text.lines().next().unwrap_or("no reason given")).to_owned()
}

/// A line of podspawn's own, without its name.
fn own(line: &str) -> &str {
    line.strip_prefix("podspawn: ").unwrap_or(line)
}

/// How well something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// As it should be.
    Good,
    /// Everything promised holds, and something could be better.
    Limited,
    /// Something promised does not hold.
    Broken,
}

impl State {
    /// In output.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Limited => "limited",
            Self::Broken => "broken",
        }
    }
}

/// One precondition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at.
    pub what: &'static str,
    /// How well it is.
    pub state: State,
    /// What was found.
    pub found: String,
    /// What that costs; empty if nothing.
    pub costs: String,
    /// What to do; empty if nothing.
    pub fix: String,
}

impl Finding {
    /// All is well.
    pub fn good(what: &'static str, found: impl Into<String>) -> Self {
        Self {
            what,
            state: State::Good,
            found: found.into(),
            costs: String::new(),
            fix: String::new(),
        }
    }

    /// It could be better.
    pub fn limited(
        what: &'static str,
        found: impl Into<String>,
        costs: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            what,
            state: State::Limited,
            found: found.into(),
            costs: costs.into(),
            fix: fix.into(),
        }
    }

    /// A promise does not hold.
    pub fn broken(
        what: &'static str,
        found: impl Into<String>,
        costs: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            state: State::Broken,
            ..Self::limited(what, found, costs, fix)
        }
    }

    /// For `--format json`; `whose` is a user's name, or null for the host.
    #[must_use]
    pub fn json(&self, whose: Option<&str>) -> serde_json::Value {
        json!({
            "user": whose,
            "what": self.what,
            "state": self.state.word(),
            "found": self.found,
            "costs": self.costs,
            "fix": self.fix,
        })
    }
}
