//! What is written down for the administrator: the log of pods, and the audit
//! log of sessions and pods.
//!
//! Written by sessions and supervisors, each by itself: there is no process in
//! between that could be down. What holds true: writing never fails and never
//! waits; a line is one `write(2)` on an appending file, or one datagram to the
//! journal; what a user chose cannot leave its field or steer a terminal.

mod audit;
mod journal;
mod sink;

use std::time::SystemTime;

pub use audit::{Audit, AuditEvent, Who};
pub use sink::{OpenSink, Sink};

/// Where what is written down goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    /// What happens to pods (configuration key `log.file`).
    pub log: Sink,
    /// Who did what (`log.audit_log`).
    pub audit: Sink,
}

/// A time as RFC 3339, UTC, to the millisecond.
#[must_use]
pub fn timestamp(time: SystemTime) -> String {
    use chrono::{DateTime, SecondsFormat, Utc};
    DateTime::<Utc>::from(time).to_rfc3339_opts(SecondsFormat::Millis, true)
}
