//! Everything that podspawn says: the only place that writes to the standard
//! streams.
//!
//! Runs in every process that started as `podspawn`. What holds true: standard
//! output carries what was asked for and nothing else; what goes to a person
//! goes to standard error, without control characters from outside; and a
//! reader who has gone away is no failure.

mod board;
pub mod progress;
pub mod prometheus;
pub mod prompt;
pub mod table;
pub mod text;

use std::io::{self, Write};

/// Says why podspawn failed: one line on standard error.
pub fn failure(line: &str) {
    notice(line);
}

/// Says one line on standard error that a person should see.
pub fn notice(line: &str) {
    // In one piece: others write to the same terminal or log.
    let line = format!("podspawn: {}\n", text::escape(line));
    let _ = io::stderr().write_all(line.as_bytes());
}

/// Writes what was asked for to standard output, as it is.
///
/// # Errors
///
/// When it cannot be written, for another reason than that nobody reads it.
pub fn answer(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => {
            result.map_err(|e| io::Error::new(e.kind(), format!("cannot write the output: {e}")))
        }
    }
}
