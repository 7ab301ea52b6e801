//! `podspawn session-helper`: what the session module of sshd runs as the user.
//!
//! Runs right before a session is opened, in the host's namespaces, with nothing
//! but a socket to the module on descriptor 3. It sees that the pod is up and
//! answers with one message: `ok` and four descriptors (the pod's network
//! namespace, its hosts and resolv.conf in sealed memory, and its attachment to
//! the supervisor, which the connection then holds); or why there is no pod.
//! The module ends it when it has answered or taken too long; a process stays
//! behind for the sessions of the connection, see [`crate::starter`].

use std::io::{self, IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use podspawn_runtime::pod::{Attached, PodNetwork};
use podspawn_runtime::session;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::{Place, spawn};
use crate::exit::{Exit, Failure};
use crate::starter;

/// Longest answer, in bytes.
const ANSWER: usize = 900;

/// Answers on the socket.
///
/// # Errors
///
/// When nobody listens there.
pub fn run(named: Option<&Path>) -> Result<Exit, Failure> {
    let socket = session::socket_of_module()
        .map_err(|e| Failure::new(format!("this is for the session module of sshd: {e}")))?;
    let sent = match pod(named) {
        Ok((place, attached, network)) => {
            // Without it the session is one pod poorer, and no more.
            let _ = starter::leave_behind(&place, &socket);
            offer(socket.as_fd(), &attached, &network)
        }
        Err(failure) => {
            let line = crate::output::text::escape(failure.line()).into_owned();
            send(socket.as_fd(), shortened(&line), &[])
        }
    };
    sent.map_err(|e| Failure::new(format!("cannot answer the session module: {e}")))?;
    Ok(Exit::Success)
}

fn pod(named: Option<&Path>) -> Result<(Place, Attached, PodNetwork), Failure> {
    let place = Place::of_process(None, named)?;
    // What the client wants is not known yet; the administrator may have said.
    let pod = spawn::pod_name(std::env::var("PODSPAWN_PROJECT").ok())?;
    let attached = crate::session::enter(&place, None, pod, true, None)?;
    let network = PodNetwork::of(&attached)
        .map_err(|e| Failure::new(format!("cannot reach the pod's network: {e}")))?;
    Ok((place, attached, network))
}

fn offer(socket: BorrowedFd<'_>, attached: &Attached, network: &PodNetwork) -> io::Result<()> {
    let (hosts, resolv) = (sealed(&network.hosts)?, sealed(&network.resolv)?);
    let fds = [
        network.namespace.as_fd(),
        hosts.as_fd(),
        resolv.as_fd(),
        attached.connection.as_fd(),
    ];
    send(socket, b"ok", &fds)
}

/// Memory that nobody can change any more: root reads it.
fn sealed(bytes: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = std::fs::File::from(memfd_create("podspawn-names", flags)?);
    file.write_all(bytes)?;
    let all = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    fcntl_add_seals(&file, all)?;
    Ok(file.into())
}

fn send(socket: BorrowedFd<'_>, text: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::other("too many descriptors for one message"));
    }
    sendmsg(
        socket,
        &[IoSlice::new(text)],
        &mut ancillary,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

fn shortened(line: &str) -> &[u8] {
    let mut end = line.len().min(ANSWER);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    &line.as_bytes()[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_answer_is_cut_between_characters() {
        let long = "é".repeat(ANSWER);
        assert_eq!(shortened(&long).len(), ANSWER);
        let odd = format!("x{long}");
        assert_eq!(shortened(&odd).len(), ANSWER - 1);
        assert_eq!(shortened("short"), b"short");
    }
}
