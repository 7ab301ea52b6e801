//! The audit log: who came, what they ran, how it ended; which pods were made
//! and why they went. One JSON object a line, ASCII alone.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde::ser::SerializeStruct;
use serde_json::ser::Formatter;

use super::{OpenSink, Sink, timestamp};
use crate::session::{Action, Ending};

/// Longest command that is written down whole, in bytes.
const MOST: usize = 4096;

/// Whom the lines of one process are about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Who {
    /// Login name.
    pub user: String,
    /// User id.
    pub uid: u32,
    /// The pod.
    pub pod: String,
    /// The session, by a name that no other has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
}

/// What happened.
#[derive(Clone, Copy, Debug)]
pub enum AuditEvent<'a> {
    /// A session begins: from where, and whether with a terminal.
    Connect {
        /// Address and port of the client, if it came over the network.
        client: Option<&'a str>,
        /// Whether it has a terminal.
        terminal: bool,
    },
    /// What the session runs.
    Runs(&'a Action),
    /// The session is over.
    Disconnect {
        /// How its program ended, or why there was none.
        ending: Result<Ending, &'a str>,
        /// How long it took.
        duration: Duration,
    },
    /// A pod is up.
    Create {
        /// What it was made from.
        image: &'a str,
    },
    /// A pod is gone.
    Destroy {
        /// Why.
        reason: &'a str,
    },
}

/// An open audit log.
#[derive(Debug)]
pub struct Audit {
    sink: OpenSink,
    who: Who,
}

impl Audit {
    /// Opens the log for the events of one session or pod.
    #[must_use]
    pub fn open(sink: &Sink, who: Who) -> Self {
        Self {
            sink: sink.open(),
            who,
        }
    }

    /// Writes one event.
    pub fn write(&self, event: AuditEvent<'_>) {
        if !self.sink.is_open() {
            return;
        }
        let line = line(SystemTime::now(), &self.who, event);
        let fields = [
            ("PODSPAWN_EVENT", event.name()),
            ("PODSPAWN_USER", &self.who.user),
            ("PODSPAWN_POD", &self.who.pod),
        ];
        self.sink.line(&line, &fields);
    }
}

impl AuditEvent<'_> {
    fn name(&self) -> &'static str {
        match self {
            Self::Connect { .. } => "connect",
            Self::Runs(Action::Shell) => "shell",
            Self::Runs(Action::Command(_) | Action::Program(_)) => "command",
            Self::Runs(Action::Sftp(_)) => "subsystem",
            Self::Disconnect { .. } => "disconnect",
            Self::Create { .. } => "create",
            Self::Destroy { .. } => "destroy",
        }
    }
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    event: &'static str,
    #[serde(flatten)]
    who: &'a Who,
    #[serde(flatten)]
    what: AuditEvent<'a>,
}

fn line(time: SystemTime, who: &Who, event: AuditEvent<'_>) -> String {
    let line = Line {
        time: timestamp(time),
        event: event.name(),
        who,
        what: event,
    };
    let mut bytes = Vec::with_capacity(256);
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, Ascii);
    // Writing to memory, of what has text for keys: it cannot fail.
    let _ = line.serialize(&mut serializer);
    String::from_utf8(bytes).unwrap_or_default()
}

impl Serialize for AuditEvent<'_> {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut fields = to.serialize_struct("event", 0)?;
        match self {
            Self::Connect { client, terminal } => {
                if let Some(client) = client {
                    fields.serialize_field("client", client)?;
                }
                fields.serialize_field("terminal", terminal)?;
            }
            Self::Runs(Action::Shell) => {}
            Self::Runs(Action::Command(line)) => {
                fields.serialize_field("command", &text(line))?;
                if line.len() > MOST {
                    fields.serialize_field("bytes", &line.len())?;
                } else if std::str::from_utf8(line).is_err() {
                    fields.serialize_field("command_hex", &hex(line))?;
                }
            }
            Self::Runs(Action::Program(args)) => {
                fields.serialize_field("argv", &argv(args))?;
            }
            Self::Runs(Action::Sftp(args)) => {
                fields.serialize_field("subsystem", "sftp")?;
                if !args.is_empty() {
                    fields.serialize_field("argv", &argv(args))?;
                }
            }
            Self::Disconnect { ending, duration } => {
                match ending {
                    Ok(Ending::Exited(status)) => fields.serialize_field("status", status)?,
                    Ok(Ending::Signaled(signal)) => fields.serialize_field("signal", signal)?,
                    Err(why) => fields.serialize_field("error", why)?,
                }
                let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
                fields.serialize_field("duration_ms", &ms)?;
            }
            Self::Create { image } => fields.serialize_field("image", image)?,
            Self::Destroy { reason } => fields.serialize_field("reason", reason)?,
        }
        fields.end()
    }
}

/// The beginning of what a user sent, as text; what is no UTF-8 shows as U+FFFD.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.get(..MOST).unwrap_or(bytes)).into_owned()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn argv(args: &[OsString]) -> Vec<String> {
    let mut left = MOST;
    let mut shown = Vec::new();
    for arg in args {
        if left == 0 {
            break;
        }
        let bytes = arg.as_bytes();
        let most = bytes.len().min(left);
        shown.push(text(&bytes[..most]));
        left -= most;
    }
    shown
}

/// JSON that a terminal shows as it is: whatever is not ASCII is escaped.
struct Ascii;

impl Formatter for Ascii {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        for c in fragment.chars() {
            if c.is_ascii() && c != '\x7f' {
                writer.write_all(&[c as u8])?;
                continue;
            }
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn who() -> Who {
        Who {
            user: "alice".into(),
            uid: 1000,
            pod: "default".into(),
            session: Some("1-2".into()),
        }
    }

    fn written(event: AuditEvent<'_>) -> String {
        line(SystemTime::UNIX_EPOCH, &who(), event)
    }

    #[test]
    fn lines_say_who_what_and_when() {
        let begin = r#"{"time":"1970-01-01T00:00:00.000Z","event":""#;
        let who = r#"","user":"alice","uid":1000,"pod":"default","session":"1-2""#;
        let duration = Duration::from_millis(1500);
        for (event, name, rest) in [
            (
                AuditEvent::Connect {
                    client: Some("192.0.2.1 5000"),
                    terminal: true,
                },
                "connect",
                r#","client":"192.0.2.1 5000","terminal":true}"#,
            ),
            (AuditEvent::Runs(&Action::Shell), "shell", "}"),
            (
                AuditEvent::Runs(&Action::Command(b"ls \"a\" \n\x1b".to_vec())),
                "command",
                r#","command":"ls \"a\" \n\u001b"}"#,
            ),
            (
                AuditEvent::Runs(&Action::Program(vec!["ls".into(), "-l".into()])),
                "command",
                r#","argv":["ls","-l"]}"#,
            ),
            (
                AuditEvent::Runs(&Action::Sftp(vec![])),
                "subsystem",
                r#","subsystem":"sftp"}"#,
            ),
            (
                AuditEvent::Disconnect {
                    ending: Ok(Ending::Exited(3)),
                    duration,
                },
                "disconnect",
                r#","status":3,"duration_ms":1500}"#,
            ),
            (
                AuditEvent::Disconnect {
                    ending: Err("no"),
                    duration,
                },
                "disconnect",
                r#","error":"no","duration_ms":1500}"#,
            ),
            (
                AuditEvent::Destroy { reason: "stopped" },
                "destroy",
                r#","reason":"stopped"}"#,
            ),
        ] {
            assert_eq!(written(event), format!("{begin}{name}{who}{rest}"));
        }
    }

    #[test]
    fn what_is_no_text_or_too_long_is_said_to_be() {
        let of = |bytes: &[u8]| -> Value {
            let action = Action::Command(bytes.to_vec());
            serde_json::from_str(&written(AuditEvent::Runs(&action))).unwrap()
        };
        let raw = of(b"a\xff");
        assert_eq!(
            (&raw["command"], &raw["command_hex"]),
            (&"a\u{fffd}".into(), &"61ff".into())
        );
        let long = of(&vec![b'x'; 100_000]);
        assert_eq!(long["command"].as_str().unwrap().len(), MOST);
        assert_eq!(long["bytes"], 100_000);
        let args = vec![OsString::from("y".repeat(3000)); 1000];
        let line = written(AuditEvent::Runs(&Action::Program(args)));
        assert!(line.len() < 5000, "{}", line.len());
    }

    proptest! {
        #[test]
        fn whatever_a_user_sends_is_one_line_of_ascii_that_reads_back(line: Vec<u8>, name: String) {
            let action = Action::Command(line.clone());
            let mut who = who();
            who.pod = name.clone();
            let text = super::line(SystemTime::now(), &who, AuditEvent::Runs(&action));
            prop_assert!(text.bytes().all(|b| (b' '..0x7f).contains(&b)), "{text:?}");
            let back: Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(back["pod"].as_str().unwrap(), name);
            let lossy = String::from_utf8_lossy(&line);
            prop_assert_eq!(back["command"].as_str().unwrap(), lossy);
        }
    }
}
