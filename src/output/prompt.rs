//! Asking a person at the terminal, for a password without showing it.
//!
//! Speaks to the controlling terminal itself: standard input and output may be anything. While a
//! password is typed, the terminal hands over every key as it is, so that ctrl-C leaves the
//! terminal as it was found.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};

use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr,
};

/// Longest answer in bytes: access tokens have a few thousand.
const MOST: usize = 16 << 10;

/// The person at the terminal.
pub struct Terminal {
    tty: File,
}

/// Restores the terminal.
struct Mode<'a>(&'a File, Termios);

impl Drop for Mode<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.0, OptionalActions::Flush, &self.1);
    }
}

impl Terminal {
    /// The terminal of this process; `None` where there is none.
    #[must_use]
    pub fn open() -> Option<Self> {
        let tty = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/tty")
            .ok()?;
        Some(Self { tty })
    }

    /// Asks for a line; `None` if the person gave up.
    ///
    /// # Errors
    ///
    /// When the terminal fails.
    pub fn ask(&mut self, question: &str) -> io::Result<Option<String>> {
        self.read(question, true)
    }

    /// Asks for a line that is not shown.
    ///
    /// # Errors
    ///
    /// Likewise.
    pub fn ask_secretly(&mut self, question: &str) -> io::Result<Option<String>> {
        self.read(question, false)
    }

    fn read(&mut self, question: &str, shown: bool) -> io::Result<Option<String>> {
        let old = tcgetattr(&self.tty)?;
        let mut new = old.clone();
        new.local_modes
            .remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        new.special_codes[SpecialCodeIndex::VMIN] = 1;
        new.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(&self.tty, OptionalActions::Flush, &new)?;
        let mode = Mode(&self.tty, old);
        let mut tty = &self.tty;
        tty.write_all(question.as_bytes())?;
        let mut line = Line::default();
        let answer = loop {
            let mut byte = [0];
            if tty.read(&mut byte)? == 0 {
                break None;
            }
            match line.key(byte[0]) {
                Key::Typed(count) if shown => {
                    let bytes = &line.bytes[line.bytes.len() - count..];
                    tty.write_all(bytes)?;
                }
                Key::Erased(count) if shown => {
                    tty.write_all("\x08 \x08".repeat(count).as_bytes())?
                }
                Key::Typed(_) | Key::Erased(_) => {}
                Key::Entered => break Some(line.text()),
                Key::GaveUp => break None,
            }
        };
        tty.write_all(b"\n")?;
        drop(mode);
        Ok(answer)
    }
}

/// What a key did.
#[derive(Debug, PartialEq, Eq)]
enum Key {
    /// So many bytes are there now that were not.
    Typed(usize),
    /// So many characters are gone.
    Erased(usize),
    Entered,
    GaveUp,
}

/// A line being typed.
#[derive(Default)]
struct Line {
    bytes: Vec<u8>,
}

impl Line {
    fn key(&mut self, byte: u8) -> Key {
        match byte {
            b'\r' | b'\n' => Key::Entered,
            // ctrl-C, and ctrl-D where nothing was typed.
            3 => Key::GaveUp,
            4 if self.bytes.is_empty() => Key::GaveUp,
            4 => Key::Entered,
            8 | 127 => Key::Erased(usize::from(self.erase())),
            // ctrl-U.
            21 => {
                let mut count = 0;
                while self.erase() {
                    count += 1;
                }
                Key::Erased(count)
            }
            byte if byte < 32 || self.bytes.len() == MOST => Key::Typed(0),
            byte => {
                self.bytes.push(byte);
                Key::Typed(1)
            }
        }
    }

    /// Takes the last character away, all of its bytes.
    fn erase(&mut self) -> bool {
        let any = !self.bytes.is_empty();
        while let Some(byte) = self.bytes.pop() {
            if byte & 0xc0 != 0x80 {
                break;
            }
        }
        any
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(keys: &[u8]) -> (String, Key) {
        let mut line = Line::default();
        for key in keys {
            match line.key(*key) {
                Key::Typed(_) | Key::Erased(_) => {}
                end => return (line.text(), end),
            }
        }
        panic!("no end: {keys:?}");
    }

    #[test]
    fn a_line_is_typed_and_corrected() {
        let entered = |text: &str| (text.to_owned(), Key::Entered);
        assert_eq!(typed(b"secret\r"), entered("secret"));
        assert_eq!(typed(b"sx\x7fecret\n"), entered("secret"));
        assert_eq!(typed("aü\x7f\x7fb\n".as_bytes()), entered("b"));
        assert_eq!(typed(b"wrong\x15right\n"), entered("right"));
        assert_eq!(typed(b"\x7f\x1ba\x04"), entered("a"));
        assert_eq!(typed(b"\n"), entered(""));
        assert_eq!(typed(b"abc\x03").1, Key::GaveUp);
        assert_eq!(typed(b"\x04").1, Key::GaveUp);
    }
}
