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
//! - memory is bounded: two buffers of fixed size, reused; a length field is
//!   checked against what arrived before anything is done with it;
//! - many requests are taken from one read, and their replies leave in one write,
//!   but never wait for a request that has not arrived.

pub mod attrs;
mod extensions;
pub mod handles;
pub mod names;
mod options;
pub mod path;
pub mod policy;
pub mod server;
pub mod wire;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;

use options::Options;
use policy::Policy;
use server::Server;
pub(crate) use server::retry;
use wire::{MAX_PACKET, Out};

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
    // Not through the standard library's own buffers.
    let mut input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    serve(&mut input, &mut output, Server::new(policy))
}

/// Serves requests from `input` until it ends.
///
/// # Errors
/// `input` or `output` failed, or what came is not SFTP and cannot be followed.
pub fn serve(input: &mut impl Read, output: &mut impl Write, mut server: Server) -> io::Result<()> {
    let mut out = Out::with_capacity(SEND + MAX_PACKET + 4);
    let mut buffer = vec![0; INPUT];
    let (mut start, mut end) = (0, 0);
    loop {
        match wire::packet_len(&buffer[start..end]) {
            Err(_) => {
                send(&mut out, output)?;
                return Err(ErrorKind::InvalidData.into());
            }
            Ok(Some(len)) if end - start >= 4 + len => {
                let packet = &buffer[start + 4..start + 4 + len];
                if server.answer(packet, &mut out).is_err() {
                    send(&mut out, output)?;
                    return Err(ErrorKind::InvalidData.into());
                }
                start += 4 + len;
                if out.len() >= SEND {
                    send(&mut out, output)?;
                }
                continue;
            }
            Ok(_) => {}
        }
        send(&mut out, output)?;
        if start == end {
            (start, end) = (0, 0);
        } else if buffer.len() - start < MAX_PACKET + 4 {
            buffer.copy_within(start..end, 0);
            (start, end) = (0, end - start);
        }
        match input.read(&mut buffer[end..]) {
            Ok(0) => return Ok(()),
            Ok(n) => end += n,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn send(out: &mut Out, output: &mut impl Write) -> io::Result<()> {
    if !out.is_empty() {
        output.write_all(out.bytes())?;
        out.clear();
    }
    Ok(())
}
