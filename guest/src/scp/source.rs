//! `scp -f`: sends files.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;

use rustix::fs::{Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::channel::{BUFFER, Channel};
use super::{Options, expand_tilde, glob, join, kind};

/// Sends all that the options name.
///
/// # Errors
/// The other side went away or gave up.
pub fn run<R: Read, W: Write>(options: &Options, channel: &mut Channel<R, W>) -> io::Result<()> {
    let mut source = Source {
        options,
        channel,
        buffer: vec![0; BUFFER],
    };
    source.channel.response()?;
    for pattern in &options.paths {
        for path in glob::expand(&expand_tilde(pattern)) {
            source.send(&path)?;
        }
    }
    Ok(())
}

struct Source<'a, R, W> {
    options: &'a Options,
    channel: &'a mut Channel<R, W>,
    buffer: Vec<u8>,
}

impl<R: Read, W: Write> Source<'_, R, W> {
    fn send(&mut self, path: &[u8]) -> io::Result<()> {
        let end = path
            .iter()
            .rposition(|&b| b != b'/')
            .map_or(1, |last| last + 1);
        let path = &path[..end.min(path.len())];
        let name = path.rsplit(|&b| b == b'/').next().unwrap_or(path);
        if name.contains(&b'\n') {
            self.channel
                .warn(&[path, b": the protocol cannot carry its name"].concat());
            return Ok(());
        }
        let (fd, stat) = match open(path) {
            Ok(opened) => opened,
            Err(errno) => {
                self.channel.warn_path(path, errno);
                return Ok(());
            }
        };
        match kind(&stat) {
            FileType::RegularFile => self.send_file(path, name, &fd, &stat),
            FileType::Directory if self.options.recursive => {
                self.send_directory(path, name, fd, &stat)
            }
            _ => {
                self.channel.warn(&[path, b": not a regular file"].concat());
                Ok(())
            }
        }
    }

    /// Sends the times if asked for, and the record that begins a file or directory.
    /// `false` if the other side does not want it.
    fn begin(&mut self, letter: char, name: &[u8], stat: &Stat, size: i64) -> io::Result<bool> {
        if self.options.preserve {
            let (modified, accessed) = (stat.st_mtime.max(0), stat.st_atime.max(0));
            self.channel
                .say(format!("T{modified} 0 {accessed} 0\n").as_bytes());
            if !self.channel.response()? {
                return Ok(false);
            }
        }
        let mode = stat.st_mode & 0o7777;
        self.channel
            .say(format!("{letter}{mode:04o} {size} ").as_bytes());
        self.channel.say(name);
        self.channel.say(b"\n");
        self.channel.response()
    }

    fn send_file(&mut self, path: &[u8], name: &[u8], fd: &OwnedFd, stat: &Stat) -> io::Result<()> {
        if !self.begin('C', name, stat, stat.st_size)? {
            return Ok(());
        }
        let mut left = stat.st_size.max(0) as u64;
        let mut error = None;
        while left > 0 {
            let max = left.min(BUFFER as u64) as usize;
            let room = &mut self.buffer[..max];
            let n = match error {
                None => match crate::sftp::retry(|| rustix::io::read(fd, &mut *room)) {
                    Ok(0) => {
                        error = Some(Errno::IO);
                        continue;
                    }
                    Ok(n) => n,
                    Err(errno) => {
                        error = Some(errno);
                        continue;
                    }
                },
                // The size was promised.
                Some(_) => {
                    room.fill(0);
                    max
                }
            };
            self.channel.send(&self.buffer[..n])?;
            left -= n as u64;
        }
        match error {
            None => self.channel.ack(),
            Some(errno) => self.channel.warn_path(path, errno),
        }
        self.channel.response()?;
        Ok(())
    }

    fn send_directory(
        &mut self,
        path: &[u8],
        name: &[u8],
        fd: OwnedFd,
        stat: &Stat,
    ) -> io::Result<()> {
        let mut entries = match Dir::new(fd) {
            Ok(entries) => entries,
            Err(errno) => {
                self.channel.warn_path(path, errno);
                return Ok(());
            }
        };
        if !self.begin('D', name, stat, 0)? {
            return Ok(());
        }
        while let Some(entry) = entries.read() {
            match entry {
                Ok(entry) => match entry.file_name().to_bytes() {
                    b"." | b".." => {}
                    name => self.send(&join(path, name))?,
                },
                Err(errno) => self.channel.warn_path(path, errno),
            }
        }
        self.channel.say(b"E\n");
        self.channel.response()?;
        Ok(())
    }
}

/// Never waits for whatever a FIFO or a device waits for.
fn open(path: &[u8]) -> Result<(OwnedFd, Stat), Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let fd = rustix::fs::open(path, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&fd)?;
    Ok((fd, stat))
}
