//! Both directions of the connection at once. Runs in `sftp-server`.
//!
//! A client that still writes requests while the server writes replies, each with
//! nothing but the kernel's buffers between them, would wait for the server, and
//! the server for it. So the server never waits to write without taking what it can
//! read. The descriptors are sshd's and others may hold them too: they are not made
//! non-blocking, which would be so for all; single writes are.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno as NixErrno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::io::{Errno, ReadWriteFlags};

use super::server::retry;

/// What to do where nothing can be written at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Leave it.
    No,
    /// Wait until something can be written.
    ToWrite,
    /// Wait until something can be written or read.
    ToWriteOrRead,
}

/// What came of an attempt to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// So many bytes are written.
    Bytes(usize),
    /// Nothing can be written now, but something can be read.
    ReadFirst,
    /// Nothing can be written now.
    NotNow,
}

/// A connection to a client.
pub trait Transport {
    /// Waits for bytes and puts them into `buffer`; 0 is the end.
    ///
    /// # Errors
    /// The connection is broken.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes some of `bytes`.
    ///
    /// # Errors
    /// The connection is broken.
    fn write(&mut self, bytes: &[u8], otherwise: Wait) -> io::Result<Sent>;
}

/// Two descriptors: a socket or two pipes.
pub struct Descriptors {
    input: OwnedFd,
    output: OwnedFd,
    /// The kernel knows no single writes that do not block, for this kind of output.
    blocking: bool,
}

impl Descriptors {
    /// Reads from one and writes to the other.
    pub fn new(input: OwnedFd, output: OwnedFd) -> Self {
        Self {
            input,
            output,
            blocking: false,
        }
    }
}

impl Transport for Descriptors {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match rustix::io::read(&self.input, &mut *buffer) {
                Err(Errno::INTR) => {}
                // Somebody else made it non-blocking.
                Err(Errno::AGAIN) => {
                    wait(&mut [PollFd::new(self.input.as_fd(), PollFlags::POLLIN)])?;
                }
                result => return Ok(result?),
            }
        }
    }

    fn write(&mut self, bytes: &[u8], otherwise: Wait) -> io::Result<Sent> {
        // Where a stream is, as an offset.
        const HERE: u64 = u64::MAX;
        loop {
            let written = if self.blocking {
                retry(|| rustix::io::write(&self.output, bytes))
            } else {
                let bytes = [IoSlice::new(bytes)];
                let once = ReadWriteFlags::NOWAIT;
                retry(|| rustix::io::pwritev2(&self.output, &bytes, HERE, once))
            };
            match written {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => return Ok(Sent::Bytes(n)),
                Err(Errno::AGAIN) => {
                    let output = PollFd::new(self.output.as_fd(), PollFlags::POLLOUT);
                    let input = PollFd::new(self.input.as_fd(), PollFlags::POLLIN);
                    match otherwise {
                        Wait::No => return Ok(Sent::NotNow),
                        Wait::ToWrite => wait(&mut [output])?,
                        Wait::ToWriteOrRead => {
                            let mut both = [input, output];
                            wait(&mut both)?;
                            if both[0].any() == Some(true) {
                                return Ok(Sent::ReadFirst);
                            }
                        }
                    }
                }
                Err(Errno::PIPE) => return Err(io::ErrorKind::BrokenPipe.into()),
                Err(errno) if self.blocking => return Err(errno.into()),
                Err(_) => self.blocking = true,
            }
        }
    }
}

fn wait(fds: &mut [PollFd<'_>]) -> io::Result<()> {
    loop {
        match poll(fds, PollTimeout::NONE) {
            Err(NixErrno::EINTR) => {}
            result => return Ok(result.map(drop)?),
        }
    }
}
