//! Records, acknowledgements and data of the scp protocol, buffered on both ways.

use std::io::{self, ErrorKind, Read, Write};

use nix::errno::Errno as Description;
use rustix::io::Errno;

/// Room for data, and the most that is read or written at once.
pub const BUFFER: usize = 256 * 1024;
/// The longest record, as in OpenSSH.
const MAX_LINE: usize = 16 * 1024;

/// The other side.
pub struct Channel<R, W> {
    input: R,
    output: W,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    out: Vec<u8>,
    errors: u64,
}

impl<R: Read, W: Write> Channel<R, W> {
    /// A channel on which nothing was said.
    pub fn new(input: R, output: W) -> Self {
        let buffer = vec![0; BUFFER];
        Self {
            input,
            output,
            buffer,
            start: 0,
            end: 0,
            out: Vec::new(),
            errors: 0,
        }
    }

    /// How many errors either side reported.
    pub fn errors(&self) -> u64 {
        self.errors
    }

    /// Says `bytes`, at the latest before the next thing is awaited.
    pub fn say(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// Acknowledges what came.
    pub fn ack(&mut self) {
        self.say(b"\0");
    }

    /// Counts an error that the other side reported.
    pub fn note_error(&mut self) {
        self.errors += 1;
    }

    /// Reports an error that concerns one file.
    pub fn warn(&mut self, text: &[u8]) {
        self.errors += 1;
        self.say(b"\x01scp: ");
        // The record ends at the first newline.
        self.out
            .extend(text.iter().map(|&b| if b == b'\n' { b'?' } else { b }));
        self.say(b"\n");
    }

    /// Reports that `path` could not be used, and why.
    pub fn warn_path(&mut self, path: &[u8], errno: Errno) {
        let why = Description::from_raw(errno.raw_os_error()).desc();
        self.warn(&[path, b": ", why.as_bytes()].concat());
    }

    /// Reports that the other side does not speak the protocol; there is no going on.
    pub fn give_up(&mut self, text: &[u8]) -> io::Error {
        self.warn(text);
        ErrorKind::InvalidData.into()
    }

    /// Sends all that was said.
    pub fn flush(&mut self) -> io::Result<()> {
        if !self.out.is_empty() {
            self.output.write_all(&self.out)?;
            self.out.clear();
        }
        Ok(())
    }

    /// Sends `data` after all that was said.
    pub fn send(&mut self, data: &[u8]) -> io::Result<()> {
        self.flush()?;
        self.output.write_all(data)
    }

    /// Waits for bytes. `false` is the end of the stream.
    fn fill(&mut self) -> io::Result<bool> {
        if self.start < self.end {
            return Ok(true);
        }
        self.flush()?;
        self.start = 0;
        self.end = loop {
            match self.input.read(&mut self.buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => break result?,
            }
        };
        Ok(self.end > 0)
    }

    /// Up to `max` bytes of data, at least one.
    ///
    /// # Errors
    /// The stream has ended, or failed.
    pub fn data(&mut self, max: u64) -> io::Result<&[u8]> {
        if !self.fill()? {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let n = max.min((self.end - self.start) as u64) as usize;
        let data = &self.buffer[self.start..self.start + n];
        self.start += n;
        Ok(data)
    }

    fn byte(&mut self) -> io::Result<u8> {
        self.data(1).map(|data| data[0])
    }

    /// The next record without its newline; `None` at the end of the stream.
    ///
    /// # Errors
    /// The stream failed, or ended inside the record, or the record is too long.
    pub fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        if !self.fill()? {
            return Ok(None);
        }
        let mut line = Vec::new();
        loop {
            match self.byte()? {
                b'\n' => return Ok(Some(line)),
                _ if line.len() >= MAX_LINE => {
                    return Err(self.give_up(b"protocol error: record too long"));
                }
                byte => line.push(byte),
            }
        }
    }

    /// Waits for the other side to acknowledge. `false` is an error that it reported,
    /// and that concerns one file.
    ///
    /// # Errors
    /// The stream ended or failed, or the other side gave up.
    pub fn response(&mut self) -> io::Result<bool> {
        match self.byte()? {
            0 => Ok(true),
            kind => {
                // What it says is shown over there.
                self.line()?;
                self.note_error();
                if kind == 1 {
                    Ok(false)
                } else {
                    Err(ErrorKind::ConnectionAborted.into())
                }
            }
        }
    }
}
