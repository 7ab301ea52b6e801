//! Whether an image can serve as a pod's: what `podspawn verify-image` finds.
//!
//! [`contents`] says what the image has, by its files; [`live`] logs in to a pod
//! of it by a real sshd. A finding is *present*, *injected* by podspawn into
//! every pod, *missing* with what to do about it, or *skipped* with the reason.

pub mod contents;
pub mod live;

use serde_json::{Value, json};

/// How one thing is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// The image has it, or the attempt worked.
    Present,
    /// podspawn brings it into the pod.
    Injected,
    /// It is not there, or the attempt failed.
    Missing,
    /// It was not tried.
    Skipped,
}

impl State {
    /// As it is printed.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Present => "present",
            Self::Injected => "injected by podspawn",
            Self::Missing => "missing",
            Self::Skipped => "skipped",
        }
    }
}

/// One row of the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked for.
    pub name: &'static str,
    /// How it is.
    pub state: State,
    /// Whether a pod is of no use without it.
    pub needed: bool,
    /// Where it was found, what is lost without it, or what went wrong.
    pub note: String,
    /// What to run in the image to have it.
    pub fix: Option<String>,
}

impl Finding {
    /// Whether the image fails because of it.
    #[must_use]
    pub fn fails(&self) -> bool {
        self.needed && self.state == State::Missing
    }

    /// For programs.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "name": self.name,
            "state": match self.state {
                State::Present => "present",
                State::Injected => "injected",
                State::Missing => "missing",
                State::Skipped => "skipped",
            },
            "needed": self.needed,
            "note": self.note,
            "fix": self.fix,
        })
    }
}
