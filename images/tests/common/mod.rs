//! What tests of images build on: archives and images made to order, and what a stack shows when
//! the kernel has merged it.
#![allow(dead_code, clippy::print_stderr)]

pub mod archive;
pub mod layout;
pub mod snapshot;

use std::process::Command;

/// Names the test that a process was started to run alone, and how.
const ALONE: &str = "PODSPAWN_TEST_ALONE";

/// Says that a test cannot run here. On CI that is a failure: everything is there.
pub fn skip(why: &str) {
    eprintln!("skipped: {why}");
    assert!(
        std::env::var_os("CI").is_none_or(|ci| ci != "true"),
        "skipped on CI: {why}"
    );
}

/// Whether this is root on the host, as chown and mounts need; says so if not.
pub fn root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skip("this test must run as root");
    }
    root
}

/// What the starter of this process said, if it was started by [`alone`].
pub fn told() -> Option<String> {
    std::env::var(ALONE).ok()
}

/// A command that runs one test of this program in a process of its own, behind `wrapper`.
pub fn alone(test: &str, wrapper: &[&str], tell: &str) -> Command {
    let program = std::env::current_exe().unwrap();
    let mut command = match wrapper {
        [] => Command::new(&program),
        [first, rest @ ..] => {
            let mut command = Command::new(first);
            command.args(rest).arg(&program);
            command
        }
    };
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]);
    command.env(ALONE, tell);
    command
}

/// Runs it, and passes its failure on.
pub fn run(mut command: Command) {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let more = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {text}\n{more}");
    assert!(text.contains("1 passed"), "no such test: {text}");
    if more.contains("skipped: ") {
        skip(more.trim());
    }
}
