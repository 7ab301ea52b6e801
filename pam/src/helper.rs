//! The helper: podspawn, run as the user, which sees that the pod is up.
//!
//! It answers with one message on its descriptor 3: `ok` and four descriptors
//! (the pod's network namespace, its hosts and resolv.conf, an open connection
//! to the supervisor that keeps the pod), or a line that says why there is no pod.

#![forbid(unsafe_code)]

use std::ffi::{CString, NulError};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SocketFlags,
    SocketType, recvmsg, socketpair,
};

use crate::concern::Member;
use crate::descriptors::{self, Refused};
use crate::options::Options;
use crate::sys::{Launch, Process};

/// Longest message, in bytes.
const MESSAGE: usize = 1024;

/// How long a killed helper may take to end; then it is left to init.
const REAP: Duration = Duration::from_secs(2);

/// What a connection needs of its pod.
#[derive(Debug)]
pub struct Network {
    /// The pod's network namespace.
    pub namespace: OwnedFd,
    /// Content of its `/etc/hosts`.
    pub hosts: Vec<u8>,
    /// Content of its `/etc/resolv.conf`.
    pub resolv: Vec<u8>,
    /// The pod is kept as long as this is open.
    pub _lease: OwnedFd,
    /// The helper's end says that the connection is open, to what it left behind.
    pub _open: OwnedFd,
}

/// Why there is no pod.
#[derive(Debug, thiserror::Error)]
pub enum HelperError {
    /// The helper says so itself.
    #[error("{0}")]
    Said(String),
    /// It took too long.
    #[error("your pod was not ready within {0} s")]
    TimedOut(u64),
    /// It ended without a word.
    #[error("the session helper ended without an answer")]
    Silent,
    /// Its answer is no answer.
    #[error("the session helper did not answer as it should")]
    Garbled,
    /// What it sent is not what it should be.
    #[error("the session helper is not to be trusted: {0}")]
    Refused(#[from] Refused),
    /// It could not be started.
    #[error("cannot run the session helper: {0}")]
    Io(#[from] io::Error),
    /// A name cannot be an argument.
    #[error("cannot run the session helper: {0}")]
    Nul(#[from] NulError),
}

/// Runs the helper, and examines what it answers. `env` is added to a clean
/// environment.
///
/// # Errors
///
/// Whenever there is no pod to enter.
pub fn run(member: &Member, options: &Options, env: Vec<CString>) -> Result<Network, HelperError> {
    let (ours, theirs) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(io::Error::from)?;
    let deadline = Instant::now() + options.timeout;
    let process = launch(member, options, env)?.start(theirs)?;
    let answer =
        wait(&ours, &process, deadline, options.timeout.as_secs()).and_then(|()| receive(&ours));
    end(process);
    let fds = answer?;
    let [namespace, hosts, resolv, lease] =
        <[OwnedFd; 4]>::try_from(fds).map_err(|_| HelperError::Garbled)?;
    descriptors::check_network(&namespace, member.user.uid.as_raw())?;
    descriptors::check_lease(&lease)?;
    Ok(Network {
        hosts: descriptors::read_sealed(&hosts)?,
        resolv: descriptors::read_sealed(&resolv)?,
        namespace,
        _lease: lease,
        _open: ours,
    })
}

fn launch(member: &Member, options: &Options, env: Vec<CString>) -> Result<Launch, NulError> {
    let user = &member.user;
    let path = CString::new(options.helper.as_os_str().as_bytes())?;
    let mut args = vec![path.clone()];
    if let Some(config) = &options.config {
        args.push(c"--config".into());
        args.push(CString::new(config.as_os_str().as_bytes())?);
    }
    args.push(c"session-helper".into());
    let variable = |name: &str, value: &[u8]| CString::new([name.as_bytes(), b"=", value].concat());
    let mut environment = vec![
        c"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into(),
        variable("HOME", user.dir.as_os_str().as_bytes())?,
        variable("USER", user.name.as_bytes())?,
        variable("LOGNAME", user.name.as_bytes())?,
    ];
    environment.extend(env);
    Ok(Launch {
        path,
        args,
        environment,
        uid: user.uid.as_raw(),
        gid: user.gid.as_raw(),
        groups: member.groups.clone(),
    })
}

/// Waits until there is a message, or will be none.
fn wait(
    socket: &OwnedFd,
    process: &impl AsFd,
    deadline: Instant,
    seconds: u64,
) -> Result<(), HelperError> {
    loop {
        let limit = until(deadline);
        let mut fds = [
            PollFd::new(socket, PollFlags::IN),
            PollFd::new(process, PollFlags::IN),
        ];
        match poll(&mut fds, limit.as_ref()) {
            Ok(0) => return Err(HelperError::TimedOut(seconds)),
            Ok(_) if !fds[0].revents().is_empty() => return Ok(()),
            // A pod that it began to make may still hold the socket.
            Ok(_) => return Err(HelperError::Silent),
            Err(Errno::INTR) => {}
            Err(e) => return Err(io::Error::from(e).into()),
        }
    }
}

/// The time from now until then; `None` for one that no clock reaches.
fn until(deadline: Instant) -> Option<Timespec> {
    let left = deadline.saturating_duration_since(Instant::now());
    Timespec::try_from(left).ok()
}

/// Takes the one message, and the descriptors that come with it.
fn receive(socket: &OwnedFd) -> Result<Vec<OwnedFd>, HelperError> {
    let mut bytes = [0; MESSAGE];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let got = recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut bytes)],
        &mut ancillary,
        RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC,
    );
    let got = match got {
        Ok(got) => got,
        Err(Errno::CONNRESET) => return Err(HelperError::Silent),
        Err(e) => return Err(io::Error::from(e).into()),
    };
    let mut fds = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    if got
        .flags
        .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
    {
        return Err(HelperError::Garbled);
    }
    match &bytes[..got.bytes] {
        b"" => Err(HelperError::Silent),
        b"ok" => Ok(fds),
        line => Err(HelperError::Said(printable(line))),
    }
}

/// The user's process may say anything; it goes to a terminal and to a log.
fn printable(line: &[u8]) -> String {
    String::from_utf8_lossy(line)
        .chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

/// Ends the helper, whatever it does, and what it has left behind in its group.
fn end(process: Process) {
    process.kill();
    let deadline = Instant::now() + REAP;
    while !process.has_ended() && Instant::now() < deadline {
        let mut ended = [PollFd::new(&process, PollFlags::IN)];
        let _ = poll(&mut ended, until(deadline).as_ref());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{SendFlags, send};

    fn answer(sent: Option<&[u8]>) -> Result<Vec<OwnedFd>, HelperError> {
        let pair = || {
            let flags = SocketFlags::CLOEXEC;
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
        };
        let ((ours, theirs), (process, _runs)) = (pair(), pair());
        if let Some(bytes) = sent {
            send(&theirs, bytes, SendFlags::empty()).unwrap();
        }
        let kept = sent.is_none().then(|| theirs.try_clone().unwrap());
        drop(theirs);
        let deadline = Instant::now() + Duration::from_millis(50);
        let answer = wait(&ours, &process, deadline, 9).and_then(|()| receive(&ours));
        drop(kept);
        answer
    }

    #[test]
    fn a_helper_is_heard_once_and_not_for_ever() {
        assert_eq!(answer(Some(b"ok")).unwrap().len(), 0);
        assert!(matches!(answer(Some(b"")), Err(HelperError::Silent)));
        assert!(matches!(answer(None), Err(HelperError::TimedOut(9))));
        assert!(matches!(
            answer(Some(&[b'x'; 2000])),
            Err(HelperError::Garbled)
        ));
        let said = answer(Some(b"no image\x1b[2J\nok"))
            .unwrap_err()
            .to_string();
        assert_eq!(said, "no image?[2J?ok");
    }
}
