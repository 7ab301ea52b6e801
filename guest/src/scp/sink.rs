//! `scp -t`: receives files.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;

use super::channel::Channel;
use super::{Options, expand_tilde, join, kind, stat};

/// Receives all that the other side sends.
///
/// # Errors
/// The other side went away, gave up, or does not speak the protocol.
pub fn run<R: Read, W: Write>(options: &Options, channel: &mut Channel<R, W>) -> io::Result<()> {
    // The mask can only be read by setting it; nothing else runs here.
    let mask = rustix::process::umask(Mode::empty());
    rustix::process::umask(mask);
    let target = expand_tilde(&options.paths[0]);
    let is_directory = stat(&target).map(|stat| kind(&stat) == FileType::Directory);
    if options.into_directory && is_directory != Ok(true) {
        let errno = is_directory.err().unwrap_or(Errno::NOTDIR);
        channel.warn_path(&target, errno);
        return Err(ErrorKind::NotADirectory.into());
    }
    let mut sink = Sink {
        options,
        channel,
        mask: mask.as_raw_mode(),
    };
    sink.receive(&target, is_directory == Ok(true), false)
}

struct Sink<'a, R, W> {
    options: &'a Options,
    channel: &'a mut Channel<R, W>,
    mask: u32,
}

impl<R: Read, W: Write> Sink<'_, R, W> {
    /// Receives into `target`, or into the directory that it is, up to the end of that
    /// directory, which is for the caller to acknowledge, or of the stream.
    fn receive(&mut self, target: &[u8], is_directory: bool, nested: bool) -> io::Result<()> {
        self.channel.ack();
        let mut times = None;
        while let Some(line) = self.channel.line()? {
            let (&letter, rest) = line.split_first().unwrap_or((&0, b""));
            match letter {
                // An error over there, told to whoever is over there.
                1 => self.channel.note_error(),
                2 => return Err(ErrorKind::ConnectionAborted.into()),
                b'E' if nested && rest.is_empty() => return Ok(()),
                b'T' => {
                    let parsed = parse_times(rest);
                    times = Some(parsed.ok_or_else(|| self.bad(b"bad times"))?);
                    self.channel.ack();
                }
                b'C' | b'D' => {
                    let record = parse_record(rest).ok_or_else(|| self.bad(b"bad record"))?;
                    if matches!(record.name, b"" | b"." | b"..") || record.name.contains(&b'/') {
                        let text = [b"error: unexpected filename: ", record.name].concat();
                        return Err(self.channel.give_up(&text));
                    }
                    let path = if is_directory {
                        join(target, record.name)
                    } else {
                        target.to_vec()
                    };
                    if letter == b'D' {
                        self.receive_directory(&path, &record, times.take())?;
                    } else {
                        self.receive_file(&path, &record, times.take())?;
                    }
                }
                _ => return Err(self.bad(b"expected control record")),
            }
        }
        Ok(())
    }

    fn bad(&mut self, what: &[u8]) -> io::Error {
        self.channel.give_up(&[b"protocol error: ", what].concat())
    }

    /// The mode that a new file gets.
    fn mode(&self, stated: u32) -> u32 {
        if self.options.preserve {
            stated
        } else {
            stated & 0o777 & !self.mask
        }
    }

    fn receive_directory(
        &mut self,
        path: &[u8],
        record: &Record<'_>,
        times: Option<Timestamps>,
    ) -> io::Result<()> {
        if !self.options.recursive {
            return Err(self.bad(b"received directory without -r"));
        }
        let mode = self.mode(record.mode);
        // Until its end it must be possible to write into it.
        let made = rustix::fs::mkdirat(CWD, path, Mode::from_raw_mode(mode | 0o700));
        let there = match made {
            Err(Errno::EXIST) => match stat(path) {
                Ok(stat) if kind(&stat) == FileType::Directory => Ok(()),
                Ok(_) => Err(Errno::NOTDIR),
                Err(errno) => Err(errno),
            },
            made => made,
        };
        if let Err(errno) = there {
            self.channel.warn_path(path, errno);
            return Ok(());
        }
        self.receive(path, true, true)?;
        let none = AtFlags::empty();
        let timed = match &times {
            Some(times) => rustix::fs::utimensat(CWD, path, times, none),
            None => Ok(()),
        };
        let set_mode = self.options.preserve || (made.is_ok() && mode & 0o700 != 0o700);
        let finished = timed.and_then(|()| match set_mode {
            true => rustix::fs::chmodat(CWD, path, Mode::from_raw_mode(mode), none),
            false => Ok(()),
        });
        // One reply to the end of the directory, good or bad: with two the sides would
        // take each other's answers for those to other questions.
        match finished {
            Ok(()) => self.channel.ack(),
            Err(errno) => self.channel.warn_path(path, errno),
        }
        Ok(())
    }

    fn receive_file(
        &mut self,
        path: &[u8],
        record: &Record<'_>,
        times: Option<Timestamps>,
    ) -> io::Result<()> {
        let new = stat(path).is_err_and(|errno| errno == Errno::NOENT);
        let mode = self.mode(record.mode);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOCTTY;
        let fd = match rustix::fs::open(path, flags, Mode::from_raw_mode(mode | 0o200)) {
            Ok(fd) => fd,
            Err(errno) => {
                self.channel.warn_path(path, errno);
                return Ok(());
            }
        };
        self.channel.ack();
        let written = self.receive_data(&fd, record.size)?;
        // What is stated after the data: whether they are as they were over there.
        self.channel.response()?;
        let set_mode = self.options.preserve || (new && mode & 0o200 == 0);
        let finished = written
            .and_then(|()| truncate(&fd, record.size))
            .and_then(|()| match set_mode {
                true => rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode)),
                false => Ok(()),
            })
            .and_then(|()| match &times {
                Some(times) => rustix::fs::futimens(&fd, times),
                None => Ok(()),
            });
        match finished {
            Err(errno) => self.channel.warn_path(path, errno),
            Ok(()) => self.channel.ack(),
        }
        Ok(())
    }

    /// Takes `size` bytes off the channel, written or not. The inner error is the file's.
    fn receive_data(&mut self, fd: &OwnedFd, size: u64) -> io::Result<Result<(), Errno>> {
        let mut left = size;
        let mut written = Ok(());
        while left > 0 {
            let data = self.channel.data(left)?;
            left -= data.len() as u64;
            if written.is_ok() {
                written = write_all(fd, data);
            }
        }
        Ok(written)
    }
}

/// A `C` or `D` record.
struct Record<'a> {
    mode: u32,
    size: u64,
    name: &'a [u8],
}

/// Four octal digits, a size, and a name up to the end.
fn parse_record(rest: &[u8]) -> Option<Record<'_>> {
    let mut fields = rest.splitn(3, |&b| b == b' ');
    let mode = fields.next()?;
    if mode.len() != 4 || !mode.iter().all(|b| (b'0'..=b'7').contains(b)) {
        return None;
    }
    let mode = mode
        .iter()
        .fold(0, |mode, digit| mode << 3 | u32::from(digit - b'0'));
    let size = number(fields.next()?).filter(|&size| size <= i64::MAX as u64)?;
    Some(Record {
        mode,
        size,
        name: fields.next()?,
    })
}

/// Seconds and microseconds of the modification, then of the access.
fn parse_times(rest: &[u8]) -> Option<Timestamps> {
    let mut fields = rest.split(|&b| b == b' ').map(number);
    let mut time = || {
        let (seconds, micros) = (fields.next()??, fields.next()??);
        let seconds = i64::try_from(seconds).ok()?;
        (micros < 1_000_000).then(|| Timespec {
            tv_sec: seconds,
            tv_nsec: micros as i64 * 1_000,
        })
    };
    let (last_modification, last_access) = (time()?, time()?);
    fields.next().is_none().then_some(Timestamps {
        last_access,
        last_modification,
    })
}

fn number(digits: &[u8]) -> Option<u64> {
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn write_all(fd: &OwnedFd, mut data: &[u8]) -> Result<(), Errno> {
    while !data.is_empty() {
        match crate::sftp::retry(|| rustix::io::write(fd, data))? {
            0 => return Err(Errno::IO),
            n => data = &data[n..],
        }
    }
    Ok(())
}

/// Cuts what an older, longer file had after the data. What is no regular file has no
/// size to cut.
fn truncate(fd: &OwnedFd, size: u64) -> Result<(), Errno> {
    if kind(&rustix::fs::fstat(fd)?) == FileType::RegularFile {
        rustix::fs::ftruncate(fd, size)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_parsed_strictly() {
        let record = parse_record(b"0644 12 a name \xff").expect("valid");
        assert_eq!(
            (record.mode, record.size, record.name),
            (0o644, 12, &b"a name \xff"[..])
        );
        for bad in [
            &b""[..],
            b"0644",
            b"0644 1",
            b"644 1 a",
            b"0844 1 a",
            b"00644 1 a",
            b"0644 -1 a",
            b"0644 +1 a",
            b"0644  1 a",
            b"0644 9223372036854775808 a",
            b"0644 99999999999999999999 a",
        ] {
            assert!(parse_record(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn times_are_parsed_strictly() {
        let times = parse_times(b"5 0 7 999999").expect("valid");
        assert_eq!(
            (times.last_modification.tv_sec, times.last_access.tv_sec),
            (5, 7)
        );
        for bad in [
            &b""[..],
            b"5 0 7",
            b"5 0 7 1000000",
            b"5 0 7 19902168979525977",
            b"5 0 7 0 0",
            b"-5 0 7 0",
            b"a 0 7 0",
        ] {
            assert!(parse_times(bad).is_none(), "{bad:?}");
        }
    }
}
