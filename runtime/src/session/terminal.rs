//! A session's terminal: a pty of the container's own devpts, and the relay
//! between it and the terminal that sshd gave.
//!
//! The inner one has to be the container's so that `tty`, tmux and sudo work
//! there. The outer one is raw meanwhile: control characters are for the inner
//! one to understand.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags, Uid, fchown, fcntl_getfl, fcntl_setfl, fstatfs, open};
use rustix::io::{Errno, read, write};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, ptsname, unlockpt};
use rustix::stdio::{stdin, stdout};
use rustix::termios::{
    OptionalActions, Termios, Winsize, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize,
};

/// `DEVPTS_SUPER_MAGIC` of linux/magic.h.
const DEVPTS: u64 = 0x1cd1;

/// How much is read at once, in bytes.
const CHUNK: usize = 64 << 10;

/// A new pty.
#[derive(Debug)]
pub struct Pty {
    master: OwnedFd,
    slave: OwnedFd,
    /// The slave's name inside.
    pub name: PathBuf,
}

impl Pty {
    /// Opens one in the container whose mount namespace the process is in, with
    /// the modes and size of the session's terminal, for the user `owner`.
    ///
    /// # Errors
    ///
    /// When the container has no usable devpts.
    pub fn open(owner: u32) -> io::Result<Self> {
        // The container's root can put anything in this place.
        let flags =
            OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let master = open("/dev/pts/ptmx", flags, Mode::empty())?;
        if fstatfs(&master)?.f_type as u64 != DEVPTS {
            return Err(io::Error::other("/dev/pts of the container is no devpts"));
        }
        unlockpt(&master)?;
        let slave = ioctl_tiocgptpeer(
            &master,
            OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC,
        )?;
        let name = ptsname(&master, Vec::new())?;
        if owner != rustix::process::geteuid().as_raw() {
            fchown(&slave, Some(Uid::from_raw(owner)), None)?;
        }
        if let Ok(modes) = tcgetattr(stdin()) {
            tcsetattr(&slave, OptionalActions::Now, &modes)?;
        }
        if let Ok(size) = tcgetwinsize(stdin()) {
            tcsetwinsize(&slave, size)?;
        }
        Ok(Self {
            master,
            slave,
            name: PathBuf::from(OsStr::from_bytes(name.to_bytes())),
        })
    }

    /// Makes it the controlling terminal and the standard streams of this
    /// process, a session leader.
    ///
    /// # Errors
    ///
    /// Those of `TIOCSCTTY` and `dup2(2)`.
    pub fn make_controlling(&self) -> io::Result<()> {
        rustix::process::ioctl_tiocsctty(&self.slave)?;
        rustix::stdio::dup2_stdin(&self.slave)?;
        rustix::stdio::dup2_stdout(&self.slave)?;
        rustix::stdio::dup2_stderr(&self.slave)?;
        Ok(())
    }

    /// Keeps the master only, and makes the outer terminal raw.
    ///
    /// # Errors
    ///
    /// Those of `tcsetattr(3)`.
    pub fn into_relay(self) -> io::Result<Relay> {
        let saved = tcgetattr(stdin()).ok();
        if let Some(saved) = &saved {
            let mut raw = saved.clone();
            raw.make_raw();
            tcsetattr(stdin(), OptionalActions::Now, &raw)?;
        }
        // Only one side blocks the other: a client that reads slowly must not
        // keep this process from hearing its keyboard.
        let outer = fcntl_getfl(stdout())?;
        fcntl_setfl(stdout(), outer | OFlags::NONBLOCK)?;
        Ok(Relay {
            master: self.master,
            saved,
            outer,
            to_inner: Buffer::new(),
            to_outer: Buffer::new(),
            inner_open: true,
            outer_open: true,
        })
    }
}

/// Bytes on their way.
#[derive(Debug)]
struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buffer {
    fn new() -> Self {
        Self {
            bytes: vec![0; CHUNK],
            start: 0,
            end: 0,
        }
    }

    fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
    }

    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Reads into an empty buffer; `Ok(false)` at the end of input.
    fn fill(&mut self, from: BorrowedFd<'_>) -> io::Result<bool> {
        match read(from, &mut self.bytes[..]) {
            // A pty whose other side is gone says EIO.
            Ok(0) | Err(Errno::IO) => Ok(false),
            Ok(n) => {
                (self.start, self.end) = (0, n);
                Ok(true)
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(true),
            Err(e) => Err(e.into()),
        }
    }

    /// Writes what it can; `Ok(false)` when nobody will ever take it.
    fn drain(&mut self, to: BorrowedFd<'_>) -> io::Result<bool> {
        while !self.is_empty() {
            match write(to, &self.bytes[self.start..self.end]) {
                Ok(n) => self.start += n,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(Errno::IO | Errno::PIPE) => return Ok(false),
                Err(e) => return Err(e.into()),
            }
        }
        Ok(true)
    }
}

/// What the relay waits for.
#[derive(Clone, Copy, Debug)]
pub struct Interest {
    /// The outer terminal has something to read.
    pub outer_in: bool,
    /// The outer terminal takes more.
    pub outer_out: bool,
    /// The inner terminal has something to read.
    pub inner_in: bool,
    /// The inner terminal takes more.
    pub inner_out: bool,
}

/// The two terminals of a session, from fork to the last byte.
#[derive(Debug)]
pub struct Relay {
    master: OwnedFd,
    saved: Option<Termios>,
    outer: OFlags,
    to_inner: Buffer,
    to_outer: Buffer,
    inner_open: bool,
    outer_open: bool,
}

impl Relay {
    /// What to poll for now.
    #[must_use]
    pub fn interest(&self) -> Interest {
        Interest {
            outer_in: self.outer_open && self.inner_open && self.to_inner.is_empty(),
            inner_out: self.inner_open && !self.to_inner.is_empty(),
            inner_in: self.inner_open && self.to_outer.is_empty(),
            outer_out: self.outer_open && !self.to_outer.is_empty(),
        }
    }

    /// Whether sshd's side of the terminal is still there.
    #[must_use]
    pub fn outer_is_open(&self) -> bool {
        self.outer_open
    }

    /// Moves bytes as far as they go without waiting.
    ///
    /// # Errors
    ///
    /// When a terminal fails in another way than by going away.
    pub fn pump(&mut self) -> io::Result<()> {
        let interest = self.interest();
        if interest.inner_in {
            self.inner_open = self.to_outer.fill(self.master.as_fd())?;
        }
        if self.outer_open && !self.to_outer.is_empty() {
            self.outer_open = self.to_outer.drain(stdout())?;
        }
        if !self.outer_open {
            // Nobody will read it; the program must not block on it.
            self.to_outer.clear();
        }
        if interest.inner_out {
            self.inner_open &= self.to_inner.drain(self.master.as_fd())?;
        }
        Ok(())
    }

    /// Reads from the outer terminal, which said that there is something.
    ///
    /// # Errors
    ///
    /// As [`Relay::pump`].
    pub fn read_outer(&mut self) -> io::Result<()> {
        self.outer_open = self.to_inner.fill(stdin())?;
        if self.inner_open && !self.to_inner.is_empty() {
            self.inner_open = self.to_inner.drain(self.master.as_fd())?;
        }
        Ok(())
    }

    /// Gives the inner terminal the size of the outer one; the kernel tells the
    /// programs.
    pub fn resize(&self) {
        if let Ok(Winsize {
            ws_row,
            ws_col,
            ws_xpixel,
            ws_ypixel,
        }) = tcgetwinsize(stdin())
        {
            let _ = tcsetwinsize(
                &self.master,
                Winsize {
                    ws_row,
                    ws_col,
                    ws_xpixel,
                    ws_ypixel,
                },
            );
        }
    }

    /// The program has ended: passes on what it still wrote. What its own
    /// children write later is not waited for.
    pub fn finish(mut self) {
        let _ = fcntl_setfl(stdout(), self.outer);
        loop {
            if !self.outer_open
                || !self.to_outer.drain(stdout()).unwrap_or(false)
                || !self.inner_open
            {
                break;
            }
            match self.to_outer.fill(self.master.as_fd()) {
                Ok(true) if !self.to_outer.is_empty() => {}
                _ => break,
            }
        }
        if let Some(saved) = &self.saved {
            let _ = tcsetattr(stdin(), OptionalActions::Drain, saved);
        }
    }
}

/// The inner side, for waiting.
impl AsFd for Relay {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.master.as_fd()
    }
}
