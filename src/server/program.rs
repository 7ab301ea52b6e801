//! Running what the distribution has: useradd, sshd, systemctl and their like.
//!
//! They are looked for in the system's directories alone, and get an environment
//! of their own, because the one that root happens to have may come from anywhere.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::exit::Failure;

/// Where the system's programs are.
pub const DIRECTORIES: [&str; 6] = [
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
];

/// How a program ended, and what it said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// Whether it ended with 0.
    pub success: bool,
    /// Its standard output.
    pub output: String,
    /// The first line of its standard error that is not empty.
    pub said: String,
}

/// Where a program is, if there is one of this name.
#[must_use]
pub fn find(name: &str) -> Option<PathBuf> {
    DIRECTORIES
        .iter()
        .map(|dir| Path::new(dir).join(name))
        .find(|path| path.is_file())
}

/// Runs a program to its end, whatever the end is.
///
/// # Errors
///
/// When there is no such program, or it cannot be started.
pub fn run<S: AsRef<OsStr>>(
    name: &str,
    args: impl IntoIterator<Item = S>,
) -> Result<Done, Failure> {
    let path = find(name).ok_or_else(|| Failure::new(format!("{name} is not installed")))?;
    let done = Command::new(&path)
        .args(args)
        .env_clear()
        .env("PATH", DIRECTORIES.join(":"))
        .env("LC_ALL", "C")
        .current_dir("/")
        .stdin(Stdio::null())
        .output()
        .map_err(|e| Failure::new(format!("cannot run {}: {e}", path.display())))?;
    let errors = String::from_utf8_lossy(&done.stderr).into_owned();
    let said = errors.lines().find(|line| !line.trim().is_empty());
    Ok(Done {
        success: done.status.success(),
        output: String::from_utf8_lossy(&done.stdout).into_owned(),
        said: said.unwrap_or("no reason given").trim().to_owned(),
    })
}

/// Runs a program that has to succeed, and returns its output.
///
/// # Errors
///
/// When it does not: what was run, and what it said.
pub fn must<S: AsRef<OsStr>>(
    name: &str,
    args: impl IntoIterator<Item = S>,
) -> Result<String, Failure> {
    let done = run(name, args)?;
    if done.success {
        Ok(done.output)
    } else {
        Err(Failure::new(format!("{name} failed: {}", done.said)))
    }
}

/// Refuses to go on for anybody but root.
///
/// # Errors
///
/// For anybody else.
pub fn need_root() -> Result<(), Failure> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(Failure::new("this is for root: it changes the host"))
}
