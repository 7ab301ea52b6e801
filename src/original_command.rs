//! What the client asked for, from `SSH_ORIGINAL_COMMAND`.
//!
//! Pure, on raw bytes; runs in the session. The variable is data that the user
//! controls: nothing here splits, unquotes or rewrites a command, which reaches
//! the container byte for byte. Only the command that sshd itself makes of its
//! `Subsystem sftp` line is taken apart, and only when no shell would read
//! anything else in it.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// What a session is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OriginalCommand {
    /// No command: an interactive shell.
    Shell,
    /// The sftp subsystem.
    Sftp {
        /// The arguments that the administrator gave in `sshd_config`.
        args: Vec<OsString>,
    },
    /// A command for `sh -c`, untouched. May be empty.
    Command(OsString),
}

impl OriginalCommand {
    /// Understands the value of `SSH_ORIGINAL_COMMAND`; `None` if it is unset.
    #[must_use]
    pub fn parse(variable: Option<OsString>) -> Self {
        let Some(command) = variable else {
            return Self::Shell;
        };
        match sftp_args(command.as_bytes()) {
            Some(args) => Self::Sftp { args },
            None => Self::Command(command),
        }
    }
}

/// The arguments, if this is the sftp subsystem as sshd spells it: an absolute
/// path whose last component is `sftp-server`, or `internal-sftp`.
fn sftp_args(command: &[u8]) -> Option<Vec<OsString>> {
    let end = command
        .iter()
        .position(|b| is_blank(*b))
        .unwrap_or(command.len());
    let (program, rest) = command.split_at(end);
    let sftp = program == b"internal-sftp"
        || (program.starts_with(b"/") && program.ends_with(b"/sftp-server"));
    if !sftp
        || program
            .iter()
            .any(|b| means_something_to_a_shell(*b) || b"\\'\"".contains(b))
    {
        return None;
    }
    words(rest)
}

/// Splits as sshd joined: blanks between words, words with blanks in quotes.
/// `None` where a shell would do more than split.
fn words(text: &[u8]) -> Option<Vec<OsString>> {
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut quote: Option<u8> = None;
    let mut bytes = text.iter().copied();
    while let Some(byte) = bytes.next() {
        match (quote, byte) {
            (Some(q), b) if b == q => quote = None,
            (Some(b'"'), b'$' | b'`') | (_, b'\0') => return None,
            (Some(b'"'), b'\\') => match bytes.next()? {
                b @ (b'"' | b'\\') => word.get_or_insert_default().push(b),
                _ => return None,
            },
            (Some(_), b) => word.get_or_insert_default().push(b),
            (None, b'\'' | b'"') => {
                quote = Some(byte);
                word.get_or_insert_default();
            }
            (None, b'\\') => match bytes.next()? {
                b'\n' | b'\0' => return None,
                b => word.get_or_insert_default().push(b),
            },
            (None, b) if is_blank(b) => words.extend(word.take()),
            (None, b) if means_something_to_a_shell(b) => return None,
            (None, b) => word.get_or_insert_default().push(b),
        }
    }
    if quote.is_some() {
        return None;
    }
    words.extend(word);
    Some(words.into_iter().map(OsString::from_vec).collect())
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

fn means_something_to_a_shell(byte: u8) -> bool {
    byte.is_ascii_control() || b";&|<>()$`*?[]{}!#~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(command: &[u8]) -> OriginalCommand {
        OriginalCommand::parse(Some(OsString::from_vec(command.to_vec())))
    }

    fn sftp(args: &[&str]) -> OriginalCommand {
        OriginalCommand::Sftp {
            args: args.iter().map(OsString::from).collect(),
        }
    }

    #[test]
    fn nothing_asked_for_is_a_shell() {
        assert_eq!(OriginalCommand::parse(None), OriginalCommand::Shell);
    }

    #[test]
    fn the_subsystem_is_recognised_as_sshd_spells_it() {
        for (command, args) in [
            ("internal-sftp", &[][..]),
            ("internal-sftp -l INFO", &["-l", "INFO"]),
            ("/usr/lib/openssh/sftp-server", &[]),
            (
                "/usr/libexec/openssh/sftp-server -f AUTHPRIV -l INFO",
                &["-f", "AUTHPRIV", "-l", "INFO"],
            ),
            ("/sftp-server", &[]),
            ("/usr/lib/ssh/sftp-server ", &[]),
            ("/usr/lib/ssh/sftp-server\t-R  -e", &["-R", "-e"]),
            (
                "internal-sftp -d \"/srv/my files\"",
                &["-d", "/srv/my files"],
            ),
            (
                "internal-sftp -d '/srv/my $files' ''",
                &["-d", "/srv/my $files", ""],
            ),
            (
                r#"internal-sftp -d "/a\"b\\c" d\ e"#,
                &["-d", r#"/a"b\c"#, "d e"],
            ),
            ("internal-sftp -d /home/%u", &["-d", "/home/%u"]),
        ] {
            assert_eq!(parse(command.as_bytes()), sftp(args), "{command}");
        }
    }

    #[test]
    fn everything_else_is_a_command() {
        for command in [
            "",
            " ",
            "cat sftp-server",
            "cat /usr/lib/openssh/sftp-server",
            "sftp-server",
            "./sftp-server",
            "bin/sftp-server",
            "/usr/bin/my-sftp-server",
            "/sftp-server/x",
            "/usr/lib/openssh/sftp-server.old",
            "internal-sftpd",
            "xinternal-sftp",
            " internal-sftp",
            "/bin/internal-sftp",
            "internal-sftp; id",
            "internal-sftp && id",
            "internal-sftp $(id)",
            "internal-sftp \"$HOME\"",
            "internal-sftp \"`id`\"",
            "internal-sftp 'open",
            "internal-sftp \\",
            "internal-sftp >x",
            "internal-sftp\nid",
            "internal-sftp -l INFO\nid",
            "internal-sftp *",
            "internal-sftp ~",
            "internal-sftp #x",
            "/usr/lib/openssh/sftp-server|id",
            "/x;/sftp-server",
            "/$(id)/sftp-server",
            "\"/usr/lib/sftp-server\"",
            "/usr/lib/\"sftp-server\"",
            "/x\"/sftp-server y\"",
            "FOO=1 /usr/lib/openssh/sftp-server",
            "scp -t /tmp/x",
            "git-upload-pack '/repo'",
        ] {
            let expected = OriginalCommand::Command(command.into());
            assert_eq!(parse(command.as_bytes()), expected, "{command:?}");
        }
    }

    proptest! {
        #[test]
        fn a_command_is_never_changed(bytes: Vec<u8>) {
            match parse(&bytes) {
                OriginalCommand::Command(command) => prop_assert_eq!(command.as_bytes(), bytes),
                OriginalCommand::Sftp { .. } => prop_assert!(
                    bytes.starts_with(b"internal-sftp") || bytes.starts_with(b"/")
                ),
                OriginalCommand::Shell => prop_assert!(false, "a command became a shell"),
            }
        }

        #[test]
        fn after_the_program_only_inert_text_is_sftp(
            program in prop::sample::select(vec!["internal-sftp", "/usr/lib/openssh/sftp-server"]),
            rest in "[ \t]?[-a-zA-Z0-9 ;&|<>$`'\"\\\\\n*?~#()]{0,24}",
        ) {
            let command = format!("{program}{rest}");
            let shell_like = |text: &str| text.contains(['\n', ';', '&', '|', '<', '>', '(', ')']);
            // Outside of quotes any of these makes it a command.
            if !rest.contains(['\'', '"', '\\']) && shell_like(&rest) {
                prop_assert_eq!(parse(command.as_bytes()), OriginalCommand::Command(command.into()));
            }
        }

        #[test]
        fn quoted_words_come_back(words in prop::collection::vec("[^'\0]{0,12}", 0..6)) {
            let mut command = String::from("internal-sftp");
            for word in &words {
                command.push_str(&format!(" '{word}'"));
            }
            let args = words.iter().map(OsString::from).collect();
            prop_assert_eq!(parse(command.as_bytes()), OriginalCommand::Sftp { args });
        }
    }
}
