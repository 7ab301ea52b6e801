//! As much of D-Bus as two method calls need (D-Bus Specification, *Message
//! Protocol*): the libraries for it want a runtime or threads, which a process that
//! is about to fork and enter namespaces must not have.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long the other side may take for each step.
const PATIENCE: Duration = Duration::from_secs(5);

/// Longest message that is read, in bytes.
const MAX_MESSAGE: usize = 1 << 20;

const METHOD_CALL: u8 = 1;
const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;

/// A value being marshalled, little-endian.
#[derive(Debug)]
pub struct Body {
    signature: &'static str,
    bytes: Vec<u8>,
}

impl Body {
    /// Nothing yet, of the types that `signature` says.
    pub fn new(signature: &'static str) -> Self {
        Self {
            signature,
            bytes: Vec::new(),
        }
    }

    fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    /// A `u` or `b`.
    pub fn number(&mut self, n: u32) {
        self.align(4);
        self.bytes.extend_from_slice(&n.to_le_bytes());
    }

    /// A `t`.
    pub fn long(&mut self, n: u64) {
        self.align(8);
        self.bytes.extend_from_slice(&n.to_le_bytes());
    }

    /// An `s` or `o`, which has no NUL.
    pub fn text(&mut self, text: &str) {
        self.number(text.len() as u32);
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.push(0);
    }

    fn signature(&mut self, text: &str) {
        self.bytes.push(text.len() as u8);
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.push(0);
    }

    /// An `a` of elements that are aligned to `to`.
    pub fn array(&mut self, to: usize, elements: impl FnOnce(&mut Self)) {
        self.number(0);
        let length = self.bytes.len() - 4;
        self.align(to);
        let begin = self.bytes.len();
        elements(self);
        let count = (self.bytes.len() - begin) as u32;
        self.bytes[length..length + 4].copy_from_slice(&count.to_le_bytes());
    }

    /// A `(sv)`.
    pub fn property(&mut self, name: &str, signature: &str, value: impl FnOnce(&mut Self)) {
        self.align(8);
        self.text(name);
        self.signature(signature);
        value(self);
    }

    /// A header field: `(yv)`.
    fn field(&mut self, code: u8, signature: &str, value: &str) {
        self.align(8);
        self.bytes.push(code);
        self.signature(signature);
        match signature {
            "g" => self.signature(value),
            _ => self.text(value),
        }
    }
}

/// An authenticated connection.
#[derive(Debug)]
pub struct Bus {
    stream: BufReader<UnixStream>,
    serial: u32,
}

impl Bus {
    /// Connects as the user `uid`.
    pub fn connect(socket: &Path, uid: u32) -> io::Result<Self> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let id: String = uid
            .to_string()
            .bytes()
            .map(|b| format!("{b:02x}"))
            .collect();
        stream.write_all(format!("\0AUTH EXTERNAL {id}\r\n").as_bytes())?;
        let mut stream = BufReader::new(stream);
        let mut answer = Vec::new();
        (&mut stream).take(4096).read_until(b'\n', &mut answer)?;
        if !answer.starts_with(b"OK") {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        stream.get_mut().write_all(b"BEGIN\r\n")?;
        Ok(Self { stream, serial: 0 })
    }

    /// What a message bus wants to hear first.
    pub fn hello(&mut self) -> io::Result<()> {
        let bus = "org.freedesktop.DBus";
        self.call(bus, "/org/freedesktop/DBus", bus, "Hello", Body::new(""))
    }

    /// Calls a method and waits for its return, whose values are not looked at.
    pub fn call(
        &mut self,
        destination: &str,
        path: &str,
        interface: &str,
        member: &str,
        body: Body,
    ) -> io::Result<()> {
        self.serial += 1;
        let names = [
            (1, "o", path),
            (2, "s", interface),
            (3, "s", member),
            (6, "s", destination),
        ];
        let bytes = message(self.serial, &names, &body);
        self.stream.get_mut().write_all(&bytes)?;
        loop {
            let answer = Answer::read(&mut self.stream)?;
            if answer.reply_to != Some(self.serial) {
                continue;
            }
            match answer.kind {
                METHOD_RETURN => return Ok(()),
                ERROR => return Err(io::Error::other(answer.text())),
                _ => {}
            }
        }
    }
}

fn message(serial: u32, names: &[(u8, &str, &str)], body: &Body) -> Vec<u8> {
    let mut m = Body::new("");
    m.bytes.extend_from_slice(&[b'l', METHOD_CALL, 0, 1]);
    m.number(body.bytes.len() as u32);
    m.number(serial);
    m.array(8, |m| {
        for (code, signature, value) in names {
            m.field(*code, signature, value);
        }
        if !body.signature.is_empty() {
            m.field(8, "g", body.signature);
        }
    });
    m.align(8);
    m.bytes.extend_from_slice(&body.bytes);
    m.bytes
}

/// A message from the other side.
struct Answer {
    kind: u8,
    reply_to: Option<u32>,
    error: Option<String>,
    body: Vec<u8>,
}

impl Answer {
    fn read(from: &mut impl Read) -> io::Result<Self> {
        let malformed = || io::Error::from(io::ErrorKind::InvalidData);
        let mut fixed = [0; 16];
        from.read_exact(&mut fixed)?;
        let number = |at: usize| {
            let bytes = [fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]];
            u32::from_le_bytes(bytes) as usize
        };
        let (body, fields) = (number(4), number(12));
        if fixed[0] != b'l' || body > MAX_MESSAGE || fields > MAX_MESSAGE {
            return Err(malformed());
        }
        let mut rest = vec![0; fields.next_multiple_of(8) + body];
        from.read_exact(&mut rest)?;
        let body = rest.split_off(fields.next_multiple_of(8));
        rest.truncate(fields);
        let mut answer = Self {
            kind: fixed[1],
            reply_to: None,
            error: None,
            body,
        };
        let mut cursor = Cursor {
            bytes: &rest,
            at: 0,
        };
        while cursor.at < rest.len() {
            answer.field(&mut cursor).ok_or_else(malformed)?;
        }
        Ok(answer)
    }

    fn field(&mut self, cursor: &mut Cursor<'_>) -> Option<()> {
        cursor.align(8);
        let code = cursor.byte()?;
        let length: usize = cursor.byte()?.into();
        let signature = cursor.take(length + 1)?;
        match signature {
            b"u\0" => {
                let n = cursor.number()?;
                self.reply_to = (code == 5).then_some(n).or(self.reply_to);
            }
            b"s\0" | b"o\0" => {
                let text = cursor.text()?;
                self.error = (code == 4).then_some(text).or(self.error.take());
            }
            b"g\0" => {
                let length: usize = cursor.byte()?.into();
                cursor.take(length + 1)?;
            }
            _ => return None,
        }
        Some(())
    }

    /// What an error says.
    fn text(&self) -> String {
        let mut cursor = Cursor {
            bytes: &self.body,
            at: 0,
        };
        let name = self.error.clone().unwrap_or_default();
        cursor
            .text()
            .filter(|text| !text.is_empty())
            .unwrap_or(name)
    }
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }

    fn number(&mut self) -> Option<u32> {
        self.align(4);
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn text(&mut self) -> Option<String> {
        let length = self.number()? as usize;
        let bytes = self.take(length.checked_add(1)?)?;
        Some(String::from_utf8_lossy(&bytes[..length]).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Worked out by hand from the specification.
    #[test]
    fn a_call_is_marshalled_as_the_specification_says() {
        let mut body = Body::new("sau");
        body.text("ab");
        body.array(4, |b| b.number(7));
        let bytes = message(3, &[(1, "o", "/a")], &body);
        let expected: &[u8] = &[
            b'l', 1, 0, 1, 16, 0, 0, 0, 3, 0, 0, 0, // body of 16 bytes, serial 3
            25, 0, 0, 0, // length of the fields
            1, 1, b'o', 0, 2, 0, 0, 0, b'/', b'a', 0, 0, 0, 0, 0, 0, // path, padding
            8, 1, b'g', 0, 3, b's', b'a', b'u', 0, // signature
            0, 0, 0, 0, 0, 0, 0, // padding
            2, 0, 0, 0, b'a', b'b', 0, 0, // "ab"
            4, 0, 0, 0, 7, 0, 0, 0, // [7]
        ];
        assert_eq!(bytes, expected);
    }

    #[test]
    fn arrays_of_structures_are_aligned() {
        let mut body = Body::new("a(sv)");
        body.array(8, |b| b.property("N", "t", |b| b.long(5)));
        let expected: &[u8] = &[
            24, 0, 0, 0, 0, 0, 0, 0, // length, padding that it does not count
            1, 0, 0, 0, b'N', 0, 1, b't', 0, 0, 0, 0, 0, 0, 0, 0, // "N", signature, padding
            5, 0, 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(body.bytes, expected);
    }

    proptest! {
        #[test]
        fn no_answer_is_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut with_header = vec![b'l', 3, 0, 1, 8, 0, 0, 0, 1, 0, 0, 0, 32, 0, 0, 0];
            with_header.extend_from_slice(&bytes);
            for bytes in [&bytes, &with_header] {
                if let Ok(answer) = Answer::read(&mut bytes.as_slice()) {
                    answer.text();
                }
            }
        }
    }
}
