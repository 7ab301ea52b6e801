//! The guest: one static binary that podspawn maps read-only into every
//! container, so that a session finds there what the image may lack.
//!
//! It runs inside the container, with the credentials it was started with and
//! nothing more. What it does depends on the name it is called by, or else on its
//! first argument:
//!
//! | name | what it is |
//! |---|---|
//! | `init` | process 1 of a container: reaps, forwards signals ([`init`]) |
//! | `scp` | the far end of `scp -O` ([`scp`]) |
//! | `sftp-server` | SFTP on standard input and output ([`sftp`]) |
//! | `version` | prints the version |
//!
//! Nothing here reads the environment or exits by itself: `main` hands in both
//! arguments and environment, and turns the returned status into its own.

pub mod init;
pub mod scp;
pub mod sftp;

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;

/// Status for a command line that makes no sense.
const USAGE: u8 = 2;

/// Runs whatever `args` asks for and returns the exit status.
///
/// `args` is a whole argument vector, the program's own name first; `env` the
/// environment, which `init` passes on to the command that it starts.
pub fn run(
    args: impl IntoIterator<Item = OsString>,
    env: impl IntoIterator<Item = (OsString, OsString)>,
) -> u8 {
    let mut args = args.into_iter();
    let called = args.next().unwrap_or_default();
    let mut name = basename(&called).to_owned();
    if !is_applet(&name) {
        name = args.next().unwrap_or_default();
    }
    let rest: Vec<OsString> = args.collect();
    match name.as_bytes() {
        b"init" => init::main(&rest, env),
        b"scp" => scp::main(&rest),
        b"sftp-server" => sftp::main(&rest),
        b"version" | b"--version" => {
            let line = concat!("podspawn-guest ", env!("CARGO_PKG_VERSION"), "\n");
            u8::from(std::io::stdout().write_all(line.as_bytes()).is_err())
        }
        _ => {
            complain(
                "podspawn-guest: usage: podspawn-guest init|scp|sftp-server|version [ARGUMENTS]",
            );
            USAGE
        }
    }
}

fn is_applet(name: &OsStr) -> bool {
    matches!(name.as_bytes(), b"init" | b"scp" | b"sftp-server")
}

fn basename(path: &OsStr) -> &OsStr {
    let bytes = path.as_bytes();
    let start = bytes.iter().rposition(|&b| b == b'/').map_or(0, |i| i + 1);
    OsStr::from_bytes(&bytes[start..])
}

/// One line on stderr, for the applets that may write there.
fn complain(line: &str) {
    // Nobody is left to be told that stderr is closed.
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}
