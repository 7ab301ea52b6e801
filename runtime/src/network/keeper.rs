//! The keeper: the one process of a pod that stays in the host's network
//! namespace, where pasta has to be started.
//!
//! A child of the supervisor's, in the pod's user, pid and mount namespaces,
//! with one thread and one socket. It starts pasta when it is told to, says when
//! pasta is ready and when it has ended, and waits for the next order; how long
//! to wait before it is the supervisor's to decide. It ends when the supervisor
//! does, and pasta with it.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use caps::{CapSet, Capability, CapsHashSet};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::RecvFlags;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, waitpid};
use serde::{Deserialize, Serialize};

use super::TAP;
use crate::pod::Connection;
use crate::sys::{self, Forked};

/// What a keeper starts.
#[derive(Clone, Debug)]
pub struct Pasta {
    /// The program.
    pub program: PathBuf,
    /// Where it answers for a name server on the host.
    pub forward: Option<std::net::IpAddr>,
}

/// From the supervisor: start pasta on the tap, after a while. The first comes
/// with the network namespace.
#[derive(Debug, Serialize, Deserialize)]
pub struct Go {
    /// How long to wait before, in milliseconds.
    pub after: u64,
}

/// From the keeper.
#[derive(Debug, Serialize, Deserialize)]
pub enum News {
    /// pasta does its work.
    Up,
    /// pasta has ended, or did not begin.
    Down {
        /// In one line.
        why: String,
    },
}

/// Most that is kept of what pasta says on standard error.
const SAID: usize = 4096;

/// Forks a keeper. It has no descriptor of the caller's but its socket.
///
/// # Errors
///
/// Those of `fork(2)` and `socketpair(2)`.
pub fn fork(pasta: &Pasta) -> io::Result<(Pid, Connection)> {
    let (ours, theirs) = Connection::pair()?;
    match sys::fork()? {
        Forked::Parent(pid) => Ok((pid, ours)),
        Forked::Child => {
            drop(ours);
            let _ = rustix::thread::set_name(c"podspawn-egress");
            sys::reset();
            // Whoever gave the supervisor a descriptor may wait for its being closed.
            sys::close_all_but(&[theirs.as_fd()]);
            sys::exit(keep(&theirs, pasta))
        }
    }
}

fn keep(connection: &Connection, pasta: &Pasta) -> i32 {
    let Ok((Go { .. }, mut fds)) = connection.receive::<Go>(RecvFlags::empty()) else {
        return 0;
    };
    let Some(netns) = fds.pop() else { return 1 };
    loop {
        let why = match run(connection, pasta, &netns) {
            Ok(Some(why)) => why,
            // The supervisor is gone.
            Ok(None) => return 0,
            Err(e) => format!("cannot start {}: {e}", pasta.program.display()),
        };
        if connection.send(&News::Down { why }, &[]).is_err() {
            return 0;
        }
        match connection.receive::<Go>(RecvFlags::empty()) {
            Ok((Go { after }, _)) => std::thread::sleep(Duration::from_millis(after)),
            Err(_) => return 0,
        }
    }
}

/// Runs pasta once, and says why it ended; `None` when the supervisor ended first.
fn run(connection: &Connection, pasta: &Pasta, netns: &OwnedFd) -> io::Result<Option<String>> {
    let pipe = || pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK);
    let ((ready, is_up), (said_at, says)) = (pipe()?, pipe()?);
    let (mut ready, said_at) = (Some(File::from(ready)), File::from(said_at));
    let pid = match sys::fork()? {
        Forked::Child => {
            let e = become_pasta(pasta, netns, &is_up, &says);
            let _ = rustix::io::write(&says, format!("{e}\n").as_bytes());
            sys::exit(127)
        }
        Forked::Parent(pid) => pid,
    };
    drop((is_up, says));
    let child = pidfd_open(pid, PidfdFlags::empty())?;
    let mut said = Vec::new();
    loop {
        let mut fds = vec![
            PollFd::new(&child, PollFlags::IN),
            PollFd::new(connection, PollFlags::empty()),
            PollFd::new(&said_at, PollFlags::IN),
        ];
        if let Some(ready) = &ready {
            fds.push(PollFd::new(ready, PollFlags::IN));
        }
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        let now = |n: usize| fds.get(n).is_some_and(|fd| !fd.revents().is_empty());
        let (ended, abandoned, speaks, answers) = (now(0), now(1), now(2), now(3));
        if speaks {
            listen(&said_at, &mut said);
        }
        if answers
            && let Some(mut ready) = ready.take()
            && ready.read(&mut [0; 32]).is_ok_and(|count| count > 0)
            && connection.send(&News::Up, &[]).is_err()
        {
            return Ok(None);
        }
        if abandoned {
            return Ok(None);
        }
        if ended {
            listen(&said_at, &mut said);
            let (_, status) = waitpid(Some(pid), WaitOptions::empty())?
                .ok_or_else(|| io::Error::other("no child"))?;
            return Ok(Some(describe(status, &said)));
        }
    }
}

/// Takes what is there to read, and forgets all but the end of it.
fn listen(mut from: &File, said: &mut Vec<u8>) {
    let mut buffer = [0; SAID];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        said.extend_from_slice(&buffer[..count]);
        let surplus = said.len().saturating_sub(SAID);
        said.drain(..surplus);
    }
}

/// In one line why pasta ended.
fn describe(status: rustix::process::WaitStatus, said: &[u8]) -> String {
    let how = match (status.exit_status(), status.terminating_signal()) {
        (Some(status), _) => format!("pasta ended with status {status}"),
        (None, Some(signal)) => format!("pasta was killed by signal {signal}"),
        (None, None) => "pasta ended".into(),
    };
    let said = String::from_utf8_lossy(said);
    match said.lines().rfind(|line| !line.trim().is_empty()) {
        Some(line) => format!("{how}: {}", line.trim()),
        None => how,
    }
}

/// Returns only when pasta cannot be executed.
fn become_pasta(pasta: &Pasta, netns: &OwnedFd, is_up: &OwnedFd, says: &OwnedFd) -> io::Error {
    let prepared = prepare(netns, is_up, says);
    let args = arguments(pasta);
    match (prepared, CString::new(pasta.program.as_os_str().as_bytes())) {
        (Ok(()), Ok(program)) => sys::exec(&program, &args, &[c"PATH=/usr/bin:/bin".into()]),
        (Err(e), _) => e,
        (_, Err(e)) => e.into(),
    }
}

fn prepare(netns: &OwnedFd, is_up: &OwnedFd, says: &OwnedFd) -> io::Result<()> {
    // Should the keeper be killed, pasta must not go on alone.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // By standard descriptors: pasta closes all others. The path of another process
    // would ask for more capabilities than pasta keeps, and distributions' AppArmor has
    // pasta write nowhere but in /tmp and homes.
    rustix::stdio::dup2_stdin(netns)?;
    rustix::stdio::dup2_stdout(is_up)?;
    rustix::stdio::dup2_stderr(says)?;
    // What joining the namespace and setting addresses there takes; pasta gives
    // it up after that.
    let need = CapsHashSet::from([Capability::CAP_SYS_ADMIN, Capability::CAP_NET_ADMIN]);
    caps::set(None, CapSet::Inheritable, &need).map_err(io::Error::other)?;
    caps::set(None, CapSet::Ambient, &need).map_err(io::Error::other)
}

/// No port is forwarded in any direction, and the gateway's address does not mean
/// the host.
fn arguments(pasta: &Pasta) -> Vec<CString> {
    let mut args: Vec<Vec<u8>> = [
        "pasta",
        "--foreground",
        "--quiet",
        "--config-net",
        "--ns-ifname",
        TAP,
        "--netns-only",
        "--netns",
        "/proc/self/fd/0",
        "--no-netns-quit",
        "--no-map-gw",
        "-t",
        "none",
        "-u",
        "none",
        "-T",
        "none",
        "-U",
        "none",
        // Written once it does its work.
        "--pid",
        "/proc/self/fd/1",
    ]
    .map(|arg| arg.as_bytes().to_vec())
    .to_vec();
    if let Some(forward) = pasta.forward {
        args.extend([b"--dns-forward".to_vec(), forward.to_string().into_bytes()]);
    }
    args.into_iter()
        .filter_map(|arg| CString::new(arg).ok())
        .collect()
}
