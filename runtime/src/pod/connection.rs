//! One end of a conversation between a session and the supervisor.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
    recvmsg, sendmsg, socket_with, socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::protocol::MAX_MESSAGE;

/// A connected `SOCK_SEQPACKET` socket.
#[derive(Debug)]
pub struct Connection(OwnedFd);

/// Why a message could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The other end is gone.
    #[error("the pod's supervisor is gone")]
    Closed,
    /// Nothing arrived in time.
    #[error("the pod's supervisor did not answer within {0} s")]
    TimedOut(u64),
    /// The socket failed.
    #[error("cannot talk to the pod's supervisor")]
    Io(#[from] io::Error),
    /// The message makes no sense.
    #[error("the pod's supervisor is of another version; it ends with its last session")]
    Garbled(#[from] serde_json::Error),
}

impl Connection {
    /// Both ends of a new conversation.
    ///
    /// # Errors
    ///
    /// Those of `socketpair(2)`.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (a, b) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok((Self(a), Self(b)))
    }

    /// Connects to the socket at `path`.
    ///
    /// # Errors
    ///
    /// `ENOENT` and `ECONNREFUSED` mean that nobody is there.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let fd = socket_with(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        rustix::net::connect(&fd, &SocketAddrUnix::new(path)?)?;
        Ok(Self(fd))
    }

    /// The same, without waiting for room among those who wait already.
    ///
    /// # Errors
    ///
    /// As [`Connection::connect`], and `EAGAIN` when there is no room.
    pub fn connect_at_once(path: &Path) -> io::Result<Self> {
        let fd = socket_with(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )?;
        rustix::net::connect(&fd, &SocketAddrUnix::new(path)?)?;
        Ok(Self(fd))
    }

    /// Takes over an accepted socket.
    #[must_use]
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Sends one message with the descriptors beside it.
    ///
    /// # Errors
    ///
    /// `EPIPE` when the other end is gone; no signal is raised.
    pub fn send<M: Serialize>(&self, message: &M, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::Error::other("too many descriptors for one message"));
        }
        sendmsg(
            &self.0,
            &[IoSlice::new(&bytes)],
            &mut ancillary,
            SendFlags::NOSIGNAL,
        )?;
        Ok(())
    }

    /// Receives one message; waits for it unless `flags` say otherwise.
    ///
    /// # Errors
    ///
    /// When the other end is gone, or says what cannot be understood.
    pub fn receive<M: DeserializeOwned>(
        &self,
        flags: RecvFlags,
    ) -> Result<(M, Vec<OwnedFd>), ConnectionError> {
        let mut bytes = vec![0; MAX_MESSAGE];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let got = loop {
            let mut parts = [IoSliceMut::new(&mut bytes)];
            match recvmsg(
                &self.0,
                &mut parts,
                &mut ancillary,
                flags | RecvFlags::CMSG_CLOEXEC,
            ) {
                Ok(got) => break got,
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::CONNRESET) => return Err(ConnectionError::Closed),
                Err(e) => return Err(io::Error::from(e).into()),
            }
        };
        if got.bytes == 0 {
            return Err(ConnectionError::Closed);
        }
        if got.flags.contains(ReturnFlags::TRUNC) {
            return Err(io::Error::other("message too long").into());
        }
        let mut fds = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                fds.extend(received);
            }
        }
        Ok((serde_json::from_slice(&bytes[..got.bytes])?, fds))
    }

    /// Receives one message, waiting at most `seconds` for it.
    ///
    /// # Errors
    ///
    /// As [`Connection::receive`], and when nothing came.
    pub fn receive_within<M: DeserializeOwned>(
        &self,
        seconds: u64,
    ) -> Result<(M, Vec<OwnedFd>), ConnectionError> {
        match self.receive_until(Instant::now() + Duration::from_secs(seconds)) {
            Err(ConnectionError::TimedOut(_)) => Err(ConnectionError::TimedOut(seconds)),
            received => received,
        }
    }

    /// Receives one message that comes by then.
    ///
    /// # Errors
    ///
    /// As [`Connection::receive`], and when nothing came.
    pub fn receive_until<M: DeserializeOwned>(
        &self,
        until: Instant,
    ) -> Result<(M, Vec<OwnedFd>), ConnectionError> {
        match readable_by(&self.0, until)? {
            true => self.receive(RecvFlags::empty()),
            false => Err(ConnectionError::TimedOut(0)),
        }
    }
}

/// Whether there is something to read by then, or the end.
pub(crate) fn readable_by(fd: impl AsFd, until: Instant) -> io::Result<bool> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let limit = Timespec::try_from(left).ok();
        match poll(&mut fds, limit.as_ref()) {
            Ok(count) => return Ok(count > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
