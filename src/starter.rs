//! Pods for sessions that cannot make one: those behind the session module are in
//! a pod's network, with mounts that are nosuid, and only join.
//!
//! The helper of the module leaves one process a connection behind, the *starter*,
//! in the host's namespaces and as the user. It listens in the run directory, makes
//! the pod that a session of the user's asks for, and ends when sshd closes the
//! connection, which it sees by its socket to the module.
//!
//! One message each way: the pod's name; nothing, or why there is no pod.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use podspawn_runtime::pod::{PodName, RunDir};
use podspawn_runtime::process::detached;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with,
    bind, connect, listen, recv, send, socket_with,
};

use crate::cli::Place;
use crate::exit::Failure;

/// How long a session waits for a pod: an image may have to be pulled.
const WAIT: Duration = Duration::from_secs(300);

/// Longest message, in bytes.
const MESSAGE: usize = 1024;

fn directory(run: &RunDir) -> PathBuf {
    run.path().join(".starters")
}

/// Leaves a starter behind, which ends when the other end of `module` is closed.
///
/// # Errors
///
/// When it cannot listen.
pub fn leave_behind(place: &Place, module: &OwnedFd) -> Result<(), Failure> {
    let run = RunDir::of_user(place.directories.runtime.as_deref(), place.account.uid)?;
    let at = directory(&run);
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&at)?;
    let path = at.join(std::process::id().to_string());
    let listener = listener(&path)?;
    Ok(detached(|| {
        serve(place, module, &listener);
        let _ = fs::remove_file(&path);
    })?)
}

fn socket(flags: SocketFlags) -> io::Result<OwnedFd> {
    let flags = flags | SocketFlags::CLOEXEC;
    Ok(socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        flags,
        None,
    )?)
}

fn listener(path: &Path) -> io::Result<OwnedFd> {
    // The number of a process that was killed.
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = socket(SocketFlags::NONBLOCK)?;
    bind(&listener, &SocketAddrUnix::new(path)?)?;
    listen(&listener, 16)?;
    Ok(listener)
}

fn serve(place: &Place, module: &OwnedFd, listener: &OwnedFd) {
    loop {
        let mut fds = [
            PollFd::new(module, PollFlags::IN),
            PollFd::new(listener, PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Ok(_) if !fds[0].revents().is_empty() => return,
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return,
        }
        // The run directory keeps other users out.
        while let Ok(session) = accept_with(listener, SocketFlags::CLOEXEC) {
            let _ = detached(|| {
                let answer = answer(place, &session);
                let answer = answer.err().map_or(String::new(), |e| e.line().to_owned());
                let end = answer.len().min(MESSAGE);
                let _ = send(&session, &answer.as_bytes()[..end], SendFlags::NOSIGNAL);
            });
        }
    }
}

fn answer(place: &Place, session: &OwnedFd) -> Result<(), Failure> {
    let mut name = [0; 64];
    let n = wait(session, Duration::from_secs(10))
        .and_then(|()| Ok(recv(session, &mut name, RecvFlags::empty())?.1))?;
    let name: PodName = String::from_utf8_lossy(&name[..n]).parse()?;
    crate::session::enter(place, None, name, true, None).map(drop)
}

fn wait(socket: &OwnedFd, limit: Duration) -> io::Result<()> {
    let limit = Timespec::try_from(limit).ok();
    match poll(&mut [PollFd::new(socket, PollFlags::IN)], limit.as_ref())? {
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}

/// Asks a starter for a pod; false when there is none to ask.
///
/// # Errors
///
/// Why it has made no pod.
pub fn ask(run: &RunDir, pod: &PodName) -> Result<bool, Failure> {
    let Ok(starters) = fs::read_dir(directory(run)) else {
        return Ok(false);
    };
    for starter in starters.flatten() {
        let Ok(socket) = reach(&starter.path(), pod) else {
            continue;
        };
        let mut answer = [0; MESSAGE];
        let heard = wait(&socket, WAIT)
            .and_then(|()| Ok(recv(socket.as_fd(), &mut answer, RecvFlags::empty())?.1));
        match heard {
            Ok(0) => return Ok(true),
            Ok(n) => return Err(Failure::new(String::from_utf8_lossy(&answer[..n]))),
            Err(e) if e.kind() == io::ErrorKind::TimedOut => {
                let limit = WAIT.as_secs();
                let line = format!("pod {pod} was not ready within {limit} s");
                return Err(Failure::new(line));
            }
            // It ended with its connection.
            Err(_) => {}
        }
    }
    Ok(false)
}

fn reach(path: &Path, pod: &PodName) -> io::Result<OwnedFd> {
    let socket = socket(SocketFlags::empty())?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    send(&socket, pod.as_str().as_bytes(), SendFlags::NOSIGNAL)?;
    Ok(socket)
}
