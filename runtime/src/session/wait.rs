//! Waiting for a session's program, in the process that sshd started.
//!
//! Events: the program ended; a signal arrived, which sshd delivers for the
//! client and which goes on to the program's process group; the terminal has
//! bytes; sshd is gone. A supervisor that goes takes the program with it.

use std::io;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, WaitOptions, kill_process_group, waitpid};
use rustix::stdio::{stdin, stdout};

use super::Ending;
use super::terminal::Relay;
use crate::sys::{self, Signals};

/// After sshd has gone: how long the program has from SIGHUP to SIGKILL. One
/// that ignores SIGHUP (`nohup`) wants to stay, and is left to the pod.
const HANG_UP: Duration = Duration::from_secs(5);

/// What sshd may send, and what the kernel does.
const SIGNALS: [Signal; 9] = [
    Signal::SIGCHLD,
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGWINCH,
];

/// Routes the session's signals to a descriptor. The child undoes it.
///
/// # Errors
///
/// Those of `signalfd(2)`.
pub fn block_signals() -> io::Result<Signals> {
    sys::block(&SIGNALS)
}

/// Waits until the program has ended and its last output is passed on.
///
/// # Errors
///
/// When waiting itself fails.
pub fn wait(child: Pid, signals: &Signals, mut relay: Option<Relay>) -> io::Result<Ending> {
    let mut hung_up: Option<Instant> = None;
    loop {
        if let Some(ending) = ended(child)? {
            if let Some(relay) = relay {
                relay.finish();
            }
            return Ok(ending);
        }
        if let Some(since) = hung_up
            && since.elapsed() > HANG_UP
        {
            return Ok(Ending::Signaled(Signal::SIGHUP as i32));
        }
        let events = events(signals, relay.as_ref(), hung_up)?;
        if events.signal {
            while let Some(signal) = signals.next() {
                deliver(signal, child, relay.as_ref());
                if signal == Signal::SIGHUP {
                    hung_up = hung_up.or(Some(Instant::now()));
                }
            }
        }
        if let Some(relay) = &mut relay {
            if events.outer_in && relay.interest().outer_in {
                relay.read_outer()?;
            }
            relay.pump()?;
        }
        let terminal_gone = relay.as_ref().is_some_and(|r| !r.outer_is_open());
        if (events.sshd_gone || terminal_gone) && hung_up.is_none() {
            deliver(Signal::SIGHUP, child, None);
            hung_up = Some(Instant::now());
        }
    }
}

fn ended(child: Pid) -> io::Result<Option<Ending>> {
    loop {
        match waitpid(Some(child), WaitOptions::NOHANG) {
            Ok(None) => return Ok(None),
            Ok(Some((_, status))) => {
                if let Some(code) = status.exit_status() {
                    return Ok(Some(Ending::Exited(code as u8)));
                }
                if let Some(signal) = status.terminating_signal() {
                    return Ok(Some(Ending::Signaled(signal)));
                }
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// Passes a signal on to the program's process group.
fn deliver(signal: Signal, child: Pid, relay: Option<&Relay>) {
    match signal {
        Signal::SIGCHLD => {}
        Signal::SIGWINCH => {
            if let Some(relay) = relay {
                relay.resize();
            }
        }
        other => {
            if let Some(signal) = rustix::process::Signal::from_named_raw(other as i32) {
                let _ = kill_process_group(child, signal);
                if other == Signal::SIGHUP {
                    let _ = kill_process_group(child, rustix::process::Signal::CONT);
                }
            }
        }
    }
}

struct Events {
    signal: bool,
    sshd_gone: bool,
    outer_in: bool,
}

fn events(
    signals: &Signals,
    relay: Option<&Relay>,
    hung_up: Option<Instant>,
) -> io::Result<Events> {
    // With nothing asked for, only POLLHUP and POLLERR are told: for a socket or
    // pipe of sshd's that is its end.
    let ask = |wanted: bool, flags| if wanted { flags } else { PollFlags::empty() };
    let (stdin, stdout) = (stdin(), stdout());
    let interest = relay.map(Relay::interest);
    let mut fds = vec![PollFd::new(signals, PollFlags::IN)];
    if hung_up.is_none() {
        fds.push(PollFd::new(
            &stdout,
            ask(interest.is_some_and(|i| i.outer_out), PollFlags::OUT),
        ));
        if let Some(i) = interest {
            fds.push(PollFd::new(&stdin, ask(i.outer_in, PollFlags::IN)));
        }
    }
    let terminals = fds.len();
    if let (Some(relay), Some(i)) = (relay, interest)
        && (i.inner_in || i.inner_out)
    {
        let flags = ask(i.inner_in, PollFlags::IN) | ask(i.inner_out, PollFlags::OUT);
        fds.push(PollFd::new(relay, flags));
    }
    let left =
        hung_up.map(|since| HANG_UP.saturating_sub(since.elapsed()) + Duration::from_millis(1));
    let timeout = left.and_then(|left| Timespec::try_from(left).ok());
    match poll(&mut fds, timeout.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(e) => return Err(e.into()),
    }
    let outer = &fds[1..terminals];
    Ok(Events {
        signal: !fds[0].revents().is_empty(),
        sshd_gone: interest.is_none()
            && outer
                .iter()
                .any(|fd| fd.revents().intersects(PollFlags::HUP | PollFlags::ERR)),
        outer_in: outer.get(1).is_some_and(|fd| !fd.revents().is_empty()),
    })
}
