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
use std::path::{Path, PathBuf};
use std::time::Duration;

use caps::{CapSet, Capability, CapsHashSet};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, FileType, Mode, OFlags};
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
    /// A path at which it can say that it is ready.
    pub ready: PathBuf,
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
    let mut ready = Some(fifo(&pasta.ready)?);
    let (said_at, says) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    let said_at = File::from(said_at);
    let pid = match sys::fork()? {
        Forked::Child => {
            let e = become_pasta(pasta, netns, &says);
            let _ = rustix::io::write(&says, format!("{e}\n").as_bytes());
            sys::exit(127)
        }
        Forked::Parent(pid) => pid,
    };
    drop(says);
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
        let (ended, abandoned, speaks, is_ready) = (now(0), now(1), now(2), now(3));
        if speaks {
            listen(&said_at, &mut said);
        }
        if is_ready {
            ready = None;
            if connection.send(&News::Up, &[]).is_err() {
                return Ok(None);
            }
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

/// A fifo, and the end at which it is read.
fn fifo(path: &Path) -> io::Result<OwnedFd> {
    match rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(e) => return Err(e.into()),
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Returns only when pasta cannot be executed.
fn become_pasta(pasta: &Pasta, netns: &OwnedFd, says: &OwnedFd) -> io::Error {
    let prepared = prepare(netns, says);
    let args = arguments(pasta);
    match (prepared, CString::new(pasta.program.as_os_str().as_bytes())) {
        (Ok(()), Ok(program)) => sys::exec(&program, &args, &[c"PATH=/usr/bin:/bin".into()]),
        (Err(e), _) => e,
        (_, Err(e)) => e.into(),
    }
}

fn prepare(netns: &OwnedFd, says: &OwnedFd) -> io::Result<()> {
    // Should the keeper be killed, pasta must not go on alone.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // By a standard descriptor: pasta closes all others. A path below /proc
    // would ask for more capabilities than pasta keeps.
    rustix::stdio::dup2_stdin(netns)?;
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
        "--pid",
    ]
    .map(|arg| arg.as_bytes().to_vec())
    .to_vec();
    args.push(pasta.ready.as_os_str().as_bytes().to_vec());
    if let Some(forward) = pasta.forward {
        args.extend([b"--dns-forward".to_vec(), forward.to_string().into_bytes()]);
    }
    args.into_iter()
        .filter_map(|arg| CString::new(arg).ok())
        .collect()
}
