//! `init`: process 1 of every container.
//!
//! A process 1 inherits every orphan of its PID namespace and has to wait for
//! each, or they stay as zombies for ever; and the kernel drops signals to it
//! that it does not handle. This one does exactly that and sleeps otherwise.
//!
//! What holds true:
//! - every signal that can be blocked is blocked before anything else happens, and
//!   taken from one descriptor: none is lost, and no handler ever runs;
//! - after every wake-up all ended children are reaped, so that one SIGCHLD that
//!   stands for many is enough;
//! - nothing is read from `/proc`, and no memory is taken once it is running.
//!
//! Alone, it ends on SIGTERM or SIGINT, after it has asked every other process to
//! end and waited [`GRACE`] for that. With a command (`init -- CMD ARGUMENTS`) it is
//! that command's parent: signals go to the command, and init ends when the
//! command does, with the same status, or 128+n when signal n ended it.

use std::ffi::{CString, OsString};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawnp};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Pid, getpid};
use rustix::process::WaitOptions;

use crate::complain;

/// How long processes may take to end after SIGTERM before init goes without them;
/// the kernel then kills what is left.
pub const GRACE: Duration = Duration::from_secs(8);

/// How often to look whether processes that are not init's children have ended.
const LOOK: Duration = Duration::from_millis(20);

/// The command cannot be started, though it is there.
const NOT_EXECUTABLE: u8 = 126;
/// There is no such command.
const NOT_FOUND: u8 = 127;

/// Runs as process 1 until told to end, or until the command in `args` has ended.
/// Returns the exit status.
pub fn main(args: &[OsString], env: impl IntoIterator<Item = (OsString, OsString)>) -> u8 {
    let command = match args {
        [dashes, rest @ ..] if dashes == "--" => rest,
        rest => rest,
    };
    match run(command, env) {
        Ok(status) => status,
        Err(errno) => {
            complain(&format!("init: cannot take signals: {}", errno.desc()));
            NOT_EXECUTABLE
        }
    }
}

fn run(
    command: &[OsString],
    env: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<u8, Errno> {
    let taken = blockable();
    taken.thread_set_mask()?;
    let signals = SignalFd::with_flags(&taken, SfdFlags::SFD_CLOEXEC)?;
    // Orphans come to process 1 anyway; as any other process, ask for them.
    if getpid().as_raw() != 1 {
        nix::sys::prctl::set_child_subreaper(true)?;
    }
    if command.is_empty() {
        // Not to keep whatever directory the runtime chose from being unmounted.
        let _ = std::env::set_current_dir("/");
        return reap_for_ever(&signals);
    }
    match spawn(command, env) {
        Ok(child) => reap_until_ended(&signals, child),
        Err(errno) => {
            let name = command[0].to_string_lossy();
            complain(&format!("init: cannot run {name}: {}", errno.desc()));
            Ok(if errno == Errno::ENOENT {
                NOT_FOUND
            } else {
                NOT_EXECUTABLE
            })
        }
    }
}

/// Every signal but those that a fault of our own raises: blocked, they would be
/// fatal all the same, but without a word.
fn blockable() -> SigSet {
    let mut set = SigSet::all();
    for fault in [
        Signal::SIGSEGV,
        Signal::SIGBUS,
        Signal::SIGFPE,
        Signal::SIGILL,
        Signal::SIGTRAP,
        Signal::SIGSYS,
        Signal::SIGABRT,
    ] {
        set.remove(fault);
    }
    set
}

fn reap_for_ever(signals: &SignalFd) -> Result<u8, Errno> {
    loop {
        while reap()?.is_some() {}
        if let Some(Signal::SIGTERM | Signal::SIGINT) = next(signals)? {
            return shut_down(signals);
        }
    }
}

fn reap_until_ended(signals: &SignalFd, child: Pid) -> Result<u8, Errno> {
    loop {
        while let Some((pid, status)) = reap()? {
            if pid == child.as_raw() {
                return Ok(status);
            }
        }
        match next(signals)? {
            // Stopping and continuing children raise it too; there is nothing to pass on.
            Some(Signal::SIGCHLD) => {}
            // A real-time signal has no name here. What sends one to an init means it
            // as the image's stop signal.
            None => _ = kill(child, Signal::SIGTERM),
            Some(signal) => _ = kill(child, signal),
        }
    }
}

/// Ends every other process of the namespace as far as asking does, within [`GRACE`].
fn shut_down(signals: &SignalFd) -> Result<u8, Errno> {
    // kill(-1) from anywhere but process 1 would reach beyond this container.
    let everybody = Pid::from_raw(-1);
    if getpid().as_raw() != 1 {
        return Ok(0);
    }
    let _ = kill(everybody, Signal::SIGTERM);
    // A stopped process acts on SIGTERM only once it goes on.
    let _ = kill(everybody, Signal::SIGCONT);
    let deadline = Instant::now() + GRACE;
    loop {
        while reap()?.is_some() {}
        // Sessions are joined from outside: they are in the namespace, but nobody
        // tells init when they end.
        if kill(everybody, None) == Err(Errno::ESRCH) || Instant::now() >= deadline {
            return Ok(0);
        }
        if readable(signals, LOOK)? {
            next(signals)?;
        }
    }
}

/// The next ended child and the status to report for it, if one has ended.
fn reap() -> Result<Option<(i32, u8)>, Errno> {
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => {
                let signal = status.terminating_signal().map(|signal| 128 + signal);
                let status = status.exit_status().or(signal).unwrap_or_default();
                return Ok(Some((pid.as_raw_nonzero().get(), status as u8)));
            }
            Ok(None) | Err(rustix::io::Errno::CHILD) => return Ok(None),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(Errno::from_raw(errno.raw_os_error())),
        }
    }
}

/// Waits for a signal. `None` is one that has no name: a real-time signal.
fn next(signals: &SignalFd) -> Result<Option<Signal>, Errno> {
    loop {
        match signals.read_signal() {
            Ok(Some(info)) => return Ok(Signal::try_from(info.ssi_signo as i32).ok()),
            Ok(None) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

fn readable(signals: &SignalFd, within: Duration) -> Result<bool, Errno> {
    let timeout = PollTimeout::try_from(within).unwrap_or(PollTimeout::MAX);
    let mut fds = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
    match poll(&mut fds, timeout) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::EINTR) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Starts `command`, looked up in `PATH` where its name has no slash, with no signal
/// blocked or ignored.
fn spawn(
    command: &[OsString],
    env: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Pid, Errno> {
    let c = |bytes: Vec<u8>| CString::new(bytes).map_err(|_| Errno::EINVAL);
    let args = command
        .iter()
        .map(|arg| c(arg.as_bytes().to_vec()))
        .collect::<Result<Vec<_>, _>>()?;
    let env = env
        .into_iter()
        .map(|(name, value)| {
            let mut line = name.into_vec();
            line.push(b'=');
            line.extend_from_slice(value.as_bytes());
            c(line)
        })
        .collect::<Result<Vec<_>, _>>()?;
    let mut attr = PosixSpawnAttr::init()?;
    attr.set_flags(
        PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF,
    )?;
    attr.set_sigmask(&SigSet::empty())?;
    attr.set_sigdefault(&SigSet::all())?;
    let unchanged = PosixSpawnFileActions::init()?;
    posix_spawnp(&args[0], &unchanged, &attr, &args, &env)
}
