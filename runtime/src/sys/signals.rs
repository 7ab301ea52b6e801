//! Signals as events, and passing a death by signal on.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// A set of signals that arrive on a descriptor instead of interrupting.
#[derive(Debug)]
pub struct Signals(SignalFd);

impl Signals {
    /// The next signal that arrived, if any. Never blocks.
    #[must_use]
    pub fn next(&self) -> Option<Signal> {
        let info = self.0.read_signal().ok().flatten()?;
        Signal::try_from(info.ssi_signo as i32).ok()
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Blocks `signals` and returns the descriptor that they arrive on.
///
/// # Errors
///
/// Those of `signalfd(2)`.
pub fn block(signals: &[Signal]) -> io::Result<Signals> {
    let set: SigSet = signals.iter().copied().collect();
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), None)?;
    let fd = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    Ok(Signals(fd))
}

/// Gives every signal its default action and unblocks all of them.
pub fn reset() {
    for signal in 1..=libc::SIGRTMAX() {
        if signal == libc::SIGKILL || signal == libc::SIGSTOP {
            continue;
        }
        // SAFETY: SIG_DFL is not a function of ours. Numbers the C library
        // keeps for itself are refused with EINVAL, which is harmless.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
}

/// Dies of `signal`, without a core file; returns when the signal does not kill.
pub fn reraise(signal: i32) {
    let none = rustix::process::Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Core, none);
    reset();
    // SAFETY: raise has no memory effects.
    unsafe { libc::raise(signal) };
}

/// Sends `signal` to every process that the caller may signal, itself excepted.
///
/// In a pod's supervisor, which is PID 1 of its pid namespace, that is every
/// process of the pod and no other (`kill(2)`, pid -1).
pub fn kill_all(signal: Signal) {
    // SAFETY: kill has no memory effects.
    unsafe { libc::kill(-1, signal as libc::c_int) };
}
