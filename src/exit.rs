//! Exit status as a type, and the failure that every verb ends with.
//!
//! Used by every process that started as `podspawn`. What holds true: podspawn
//! itself never ends with 255, which ssh keeps for its own failures; a command's
//! own status, whatever it is, is passed on as it was.

use std::error::Error;
use std::fmt;

use podspawn_runtime::session::Ending;

/// How a podspawn process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All went well: 0.
    Success,
    /// podspawn itself failed: 125.
    Failed,
    /// The command is there but cannot be executed: 126.
    NotExecutable,
    /// There is no such command: 127.
    NotFound,
    /// The command's own exit status.
    Status(u8),
    /// The command was killed by this signal: the same death, or 128+n where
    /// the signal cannot be raised.
    Signal(i32),
}

impl Exit {
    /// The exit status in 0..=255 that stands for this end.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failed => 125,
            Self::NotExecutable => 126,
            Self::NotFound => 127,
            Self::Status(status) => status,
            // 255 would be 127 as a signal, which does not exist.
            Self::Signal(n) => u8::try_from(n).unwrap_or(126).clamp(1, 126) + 128,
        }
    }

    /// Ends this process: by the signal if that is how the command ended, so
    /// that sshd reports `exit-signal`; else with [`Exit::code`].
    pub fn leave(self) -> ! {
        if let Self::Signal(n) = self {
            Ending::Signaled(n).pass_on()
        }
        std::process::exit(i32::from(self.code()))
    }
}

/// Why a verb failed: one line, and the exit status to end with.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    line: String,
    exit: Exit,
}

impl Failure {
    /// A failure of podspawn itself.
    pub fn new(line: impl Into<String>) -> Self {
        Self {
            line: line.into(),
            exit: Exit::Failed,
        }
    }

    /// The same failure with what was being done in front: `context: line`.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.line = format!("{context}: {}", self.line);
        self
    }

    /// The same failure with another exit status.
    #[must_use]
    pub fn with_exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// What to say, not yet escaped.
    #[must_use]
    pub fn line(&self) -> &str {
        &self.line
    }

    /// How to end.
    #[must_use]
    pub fn exit(&self) -> Exit {
        self.exit
    }
}

impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::new(chain(&error))
    }
}

/// An error and its causes, joined by `: `. A cause that the error's own text
/// already ends with is not said twice.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !text.is_empty() && !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        next = cause.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read {0}")]
    struct Outer(&'static str, #[source] std::io::Error);

    #[test]
    fn codes_are_those_of_the_field() {
        assert_eq!(Exit::Success.code(), 0);
        assert_eq!(Exit::Failed.code(), 125);
        assert_eq!(Exit::NotExecutable.code(), 126);
        assert_eq!(Exit::NotFound.code(), 127);
        assert_eq!(Exit::Status(42).code(), 42);
        assert_eq!(Exit::Signal(9).code(), 137);
    }

    #[test]
    fn no_signal_becomes_255_or_success() {
        for n in [i32::MIN, -1, 0, 1, 64, 126, 127, 128, 255, i32::MAX] {
            let code = Exit::Signal(n).code();
            assert!((129..=254).contains(&code), "signal {n} gave {code}");
        }
    }

    #[test]
    fn causes_follow_their_error() {
        let io = std::io::Error::other("disk on fire");
        let failure = Failure::from(Outer("x", io)).context("while loading");
        assert_eq!(failure.line(), "while loading: cannot read x: disk on fire");
        assert_eq!(failure.exit(), Exit::Failed);
    }

    #[test]
    fn a_cause_already_said_is_not_repeated() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot read: {0}")]
        struct Both(#[source] std::io::Error);
        let failure = Failure::from(Both(std::io::Error::other("disk on fire")));
        assert_eq!(failure.line(), "cannot read: disk on fire");
    }
}
