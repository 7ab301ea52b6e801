//! The log of a pod's life: one line an event, in the pod's run directory.

use std::fmt::Display;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// An open log. Writing to it never fails a pod.
#[derive(Debug)]
pub struct Log(Option<File>);

impl Log {
    /// Starts the log anew: a pod that begins has no history.
    #[must_use]
    pub fn create(path: &Path) -> Self {
        Self(File::create(path).ok())
    }

    /// Appends one line, with the time in seconds since the epoch. Control
    /// characters are escaped.
    pub fn line(&mut self, event: impl Display) {
        let Some(file) = &mut self.0 else { return };
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let text: String = event
            .to_string()
            .chars()
            .flat_map(|c| {
                if c.is_control() {
                    c.escape_default().to_string()
                } else {
                    c.to_string()
                }
                .chars()
                .collect::<Vec<_>>()
            })
            .collect();
        let _ = writeln!(file, "{}.{:03} {text}", now.as_secs(), now.subsec_millis());
    }
}
