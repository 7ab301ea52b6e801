//! A session as the audit log has it: a beginning, what it runs, an end.
//!
//! Runs in the session. The log is opened anew for each end of it, for a supervisor
//! that is made in between would inherit it.

use std::net::IpAddr;
use std::time::{Instant, SystemTime};

use podspawn_runtime::pod::PodName;
use podspawn_runtime::record::{Audit, AuditEvent, Sink, Who};
use podspawn_runtime::session::{Action, Ended};

use crate::exit::Failure;

/// One session that is written down.
#[derive(Debug)]
pub struct Audited {
    sink: Sink,
    who: Who,
    begin: Instant,
}

impl Audited {
    /// Writes down that `user` came, from `client` if it was over the network, and
    /// what is going to run.
    #[must_use]
    pub fn begin(
        sink: Sink,
        (user, uid): (&str, u32),
        pod: &PodName,
        client: Option<&str>,
        (action, terminal): (&Action, bool),
    ) -> Self {
        let begin = Instant::now();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = now.unwrap_or_default().as_millis();
        let who = Who {
            user: user.to_owned(),
            uid,
            pod: pod.to_string(),
            session: Some(format!("{}-{now}", std::process::id())),
        };
        let audit = Audit::open(&sink, who.clone());
        audit.write(AuditEvent::Connect { client, terminal });
        audit.write(AuditEvent::Runs(action));
        Self { sink, who, begin }
    }

    /// Opens the log for the end, while the host's files are in sight.
    #[must_use]
    pub fn open(&self) -> Audit {
        Audit::open(&self.sink, self.who.clone())
    }

    /// How it ended, for the log.
    #[must_use]
    pub fn end<'a>(&self, result: &'a Result<Ended, Failure>) -> AuditEvent<'a> {
        AuditEvent::Disconnect {
            ending: result
                .as_ref()
                .map(|ended| ended.how)
                .map_err(Failure::line),
            duration: self.begin.elapsed(),
        }
    }
}

/// Address and port of the client in what sshd says of the connection.
#[must_use]
pub fn client(connection: Option<&str>) -> Option<String> {
    let mut words = connection?.split(' ');
    let address: IpAddr = words.next()?.split('%').next()?.parse().ok()?;
    let port: u16 = words.next()?.parse().ok()?;
    Some(format!("{address} {port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_is_what_sshd_says_and_nothing_else() {
        let of = |text| client(Some(text));
        assert_eq!(of("192.0.2.1 5000 10.0.0.1 22").unwrap(), "192.0.2.1 5000");
        assert_eq!(of("fe80::1%eth0 1 ::1 22").unwrap(), "fe80::1 1");
        for other in ["", "x 1", "192.0.2.1", "192.0.2.1 99999", "UNKNOWN 0"] {
            assert_eq!(of(other), None, "{other}");
        }
        assert_eq!(client(None), None);
    }
}
