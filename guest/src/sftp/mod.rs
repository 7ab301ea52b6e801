//! `sftp-server`: SFTP version 3 on standard input and output, with the extensions
//! that OpenSSH's clients use.
//!
//! sshd starts it for the sftp subsystem where the image has none of its own. It
//! writes nothing to stderr, ever: clients merge it into their own.
//!
//! Why not a library: what is well kept on crates.io (russh-sftp) brings an async
//! runtime and decodes every packet into owned strings, where names are bytes and
//! this has to be small, static and as fast as OpenSSH's.
//!
//! What holds true:
//! - one thread, and one reply per request in the order of the requests;
//! - memory is bounded: three buffers of fixed size, reused; a length field is
//!   checked against what arrived before anything is done with it;
//! - many requests are taken from one read, and their replies leave in one write,
//!   but never wait for a request that has not arrived;
//! - a client that writes before it reads is never waited for ([`transport`]).

pub mod attrs;
mod extensions;
pub mod handles;
pub mod names;
mod options;
pub mod path;
pub mod policy;
pub mod reply;
pub mod server;
pub mod transport;
pub mod wire;

use std::ffi::OsString;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;

use options::Options;
use policy::Policy;
use reply::Out;
use server::Server;
pub(crate) use server::retry;
use transport::{Descriptors, Sent, Transport, Wait};
use wire::{MAX_PACKET, Short};

/// Two packets of the greatest length, so that moving the rest of one to the front
/// is rare.
const INPUT: usize = 2 * (MAX_PACKET + 4);
/// Replies are sent when there are this many bytes of them, though more requests
/// wait: a client that waits for data should get to work.
const SEND: usize = 64 * 1024;

/// Serves the client on standard input until it goes away. Returns the exit status.
pub fn main(args: &[OsString]) -> u8 {
    // A panic is a bug, and its message would be a second one.
    std::panic::set_hook(Box::new(|_| {}));
    let options = match Options::parse(args) {
        Ok(Some(options)) => options,
        Ok(None) => return u8::from(list_requests().is_err()),
        Err(options::Usage) => return crate::USAGE,
    };
    if let Some(umask) = options.umask {
        rustix::process::umask(umask);
    }
    if let Some(directory) = &options.directory {
        // As OpenSSH: better to be somewhere else than not at all.
        let _ = rustix::process::chdir(directory.as_slice());
    }
    u8::from(serve_standard(options.policy).is_err())
}

fn list_requests() -> io::Result<()> {
    let mut list = String::new();
    for name in Policy::names() {
        list.push_str(name);
        list.push('\n');
    }
    io::stdout().write_all(list.as_bytes())
}

fn serve_standard(policy: Policy) -> io::Result<()> {
    let input = io::stdin().as_fd().try_clone_to_owned()?;
    let output = io::stdout().as_fd().try_clone_to_owned()?;
    serve(&mut Descriptors::new(input, output), Server::new(policy))
}

/// Serves the requests that come until there are no more.
///
/// # Errors
/// The connection broke, or what came is not SFTP and cannot be followed.
pub fn serve(transport: &mut impl Transport, mut server: Server) -> io::Result<()> {
    let mut output = Output::new();
    let mut input = Input {
        buffer: vec![0; INPUT],
        start: 0,
        end: 0,
        ended: false,
    };
    loop {
        let answered = match input.packet() {
            Ok(Some(packet)) => server.answer(packet, &mut output.next),
            // Sending may bring in more requests.
            Ok(None) if output.waits() => {
                output.send_all(&mut input, transport)?;
                continue;
            }
            Ok(None) => {
                if input.ended {
                    return Ok(());
                }
                input.fill(transport)?;
                continue;
            }
            Err(error) => Err(error),
        };
        if answered.is_err() {
            output.send_all(&mut input, transport)?;
            return Err(ErrorKind::InvalidData.into());
        }
        if output.next.len() >= SEND {
            output.send_some(&mut input, transport)?;
        }
    }
}

/// Replies on their way: those being sent, and those that are made meanwhile, so that
/// a file is read while the client takes what was read before.
struct Output {
    sending: Out,
    sent: usize,
    next: Out,
}

impl Output {
    fn new() -> Self {
        let out = || Out::with_capacity(SEND + MAX_PACKET + 4);
        Self {
            sending: out(),
            sent: 0,
            next: out(),
        }
    }

    fn waits(&self) -> bool {
        self.sent < self.sending.len() || !self.next.is_empty()
    }

    /// Waits until all that is being sent is sent, and goes on to the next, as far as
    /// that can be done without waiting.
    fn send_some(&mut self, input: &mut Input, transport: &mut impl Transport) -> io::Result<()> {
        while self.sent < self.sending.len() {
            let readable = !input.ended && input.has_room();
            let wait = if readable {
                Wait::ToWriteOrRead
            } else {
                Wait::ToWrite
            };
            match transport.write(&self.sending.bytes()[self.sent..], wait)? {
                Sent::Bytes(n) => self.sent += n,
                Sent::ReadFirst => input.fill(transport)?,
                Sent::NotNow => {}
            }
        }
        self.sending.clear();
        std::mem::swap(&mut self.sending, &mut self.next);
        self.sent = 0;
        if !self.sending.is_empty()
            && let Sent::Bytes(n) = transport.write(self.sending.bytes(), Wait::No)?
        {
            self.sent = n;
        }
        Ok(())
    }

    fn send_all(&mut self, input: &mut Input, transport: &mut impl Transport) -> io::Result<()> {
        while self.waits() {
            self.send_some(input, transport)?;
        }
        Ok(())
    }
}

/// What was read and not yet answered.
struct Input {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    ended: bool,
}

impl Input {
    /// Takes the next packet, if it is there as a whole.
    fn packet(&mut self) -> Result<Option<&[u8]>, Short> {
        let held = &self.buffer[self.start..self.end];
        match wire::packet_len(held)? {
            Some(len) if held.len() >= 4 + len => {
                self.start += 4 + len;
                Ok(Some(&held[4..4 + len]))
            }
            _ => Ok(None),
        }
    }

    fn has_room(&self) -> bool {
        self.end - self.start < self.buffer.len()
    }

    /// Reads once more, with room for a packet of the greatest length.
    fn fill(&mut self, transport: &mut impl Transport) -> io::Result<()> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.buffer.len() - self.start < MAX_PACKET + 4 || self.end == self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let n = transport.read(&mut self.buffer[self.end..])?;
        self.end += n;
        self.ended = n == 0;
        Ok(())
    }
}
