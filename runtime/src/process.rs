//! Work in a process of its own, for what must not happen in one that is going
//! to fork and enter namespaces: starting threads, entering another namespace.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitOptions, waitpid};

use crate::sys::{self, Forked};

/// Runs `work` in a child process, and returns once it has ended: with its
/// error, which is one line, or `Ok`.
///
/// The calling process must have a single thread.
///
/// # Errors
///
/// When no process can be made. A child that dies counts as an error of `work`.
pub fn in_child(work: impl FnOnce() -> Result<(), String>) -> io::Result<Result<(), String>> {
    Ok(in_child_saying(|| work().map(|()| Vec::new()))?.map(drop))
}

/// The same, with what `work` found out.
///
/// # Errors
///
/// As [`in_child`].
pub fn in_child_saying(
    work: impl FnOnce() -> Result<Vec<u8>, String>,
) -> io::Result<Result<Vec<u8>, String>> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    let pid = match sys::fork()? {
        Forked::Child => {
            drop(read);
            let (said, status) = match work() {
                Ok(found) => (found, 0),
                Err(line) => (line.into_bytes(), 1),
            };
            let written = File::from(write).write_all(&said);
            sys::exit(if written.is_ok() { status } else { 1 })
        }
        Forked::Parent(pid) => pid,
    };
    drop(write);
    let mut said = Vec::new();
    File::from(read).read_to_end(&mut said)?;
    let status = loop {
        match waitpid(Some(pid), WaitOptions::empty()) {
            Ok(Some((_, status))) => break status,
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    };
    if status.exit_status() == Some(0) {
        return Ok(Ok(said));
    }
    let line = String::from_utf8_lossy(&said).into_owned();
    Ok(Err(match (line.is_empty(), status.terminating_signal()) {
        (false, _) => line,
        (true, Some(signal)) => format!("it was killed by signal {signal}"),
        (true, None) => "it ended without saying why".into(),
    }))
}

/// Runs `work` in a process that nobody waits for and that leads a session of its
/// own, and returns once it does.
///
/// The calling process must have a single thread.
///
/// # Errors
///
/// When no process can be made.
pub fn detached(work: impl FnOnce()) -> io::Result<()> {
    // Twice, so that it is init's child and leaves no zombie.
    match sys::fork()? {
        Forked::Child => {
            let status = match sys::fork() {
                Ok(Forked::Child) => {
                    let _ = rustix::process::setsid();
                    work();
                    sys::exit(0)
                }
                Ok(Forked::Parent(pid)) => {
                    // Until it has left the group, which may be killed as a whole.
                    let own = rustix::process::getsid(None);
                    while rustix::process::getsid(Some(pid)) == own {
                        std::thread::sleep(std::time::Duration::from_micros(100));
                    }
                    0
                }
                Err(_) => 1,
            };
            sys::exit(status)
        }
        Forked::Parent(pid) => loop {
            match waitpid(Some(pid), WaitOptions::empty()) {
                Ok(Some((_, status))) if status.exit_status() == Some(0) => return Ok(()),
                Ok(Some(_)) => return Err(io::Error::other("no process could be made")),
                Ok(None) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        },
    }
}

/// The process of a pidfd as this pid namespace numbers it; `None` once it is
/// reaped (`/proc/PID/fdinfo`, `proc(5)`).
#[must_use]
pub fn pid_of(pidfd: &OwnedFd) -> Option<Pid> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).ok()?;
    let pid = info
        .lines()
        .find_map(|line| line.strip_prefix("Pid:"))?
        .trim()
        .parse()
        .ok()?;
    if pid > 0 { Pid::from_raw(pid) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_child_says_arrives() {
        assert_eq!(in_child(|| Ok(())).unwrap(), Ok(()));
        assert_eq!(
            in_child(|| Err("no\nway".into())).unwrap(),
            Err("no\nway".into())
        );
        let killed = in_child(|| {
            sys::reraise(9);
            Ok(())
        });
        assert_eq!(killed.unwrap(), Err("it was killed by signal 9".into()));
    }
}
