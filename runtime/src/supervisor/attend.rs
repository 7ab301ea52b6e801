//! What the supervisor does for the rest of its life: wait.
//!
//! It waits for connections and what they say, for children to reap, for
//! signals, and for the grace period to pass after the last session. An open
//! connection is an attached session; a session that was killed is gone when the
//! kernel closes its end.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, SocketFlags, accept_with};
use rustix::process::{Pid, WaitOptions, kill_process_group, wait};

use super::PodSpec;
use super::log::Log;
use super::setup::Pod;
use super::storage;
use crate::pod::{Connection, Lock, LockMode, PROTOCOL, Reply, Request};
use crate::sys::{self, Signals};

/// How long processes may take to end after SIGTERM before they are killed.
const STOP: Duration = Duration::from_secs(2);

/// How long to wait before another look when the pod lock was taken.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Attends to the pod until it ends. `first` is the session that created it.
pub fn attend(pod: Pod, spec: &PodSpec, run: OwnedFd, first: Connection, log: &mut Log) {
    let signals = [
        Signal::SIGCHLD,
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
    ];
    let signals = match sys::block(&signals) {
        Ok(signals) => signals,
        Err(e) => {
            log.line(format_args!("cannot wait for signals: {e}"));
            return;
        }
    };
    let mut sessions = Vec::new();
    let first = Session {
        connection: first,
        attached: true,
        child: None,
    };
    if first.welcome(&pod) {
        sessions.push(first);
    }
    // Removing what a crash left may take long; it must not keep a login waiting.
    let sweeper = sweep(spec);
    let mut supervisor = Supervisor {
        pod,
        spec,
        run,
        signals,
        sessions,
        sweeper,
    };
    let why = supervisor.wait_for_end(log);
    log.line(format_args!("ending: {why}"));
    supervisor.end();
    log.line("ended");
}

fn sweep(spec: &PodSpec) -> Option<Pid> {
    match sys::fork() {
        Ok(sys::Forked::Child) => {
            storage::sweep(spec.paths.storage());
            sys::exit(0)
        }
        Ok(sys::Forked::Parent(pid)) => Some(pid),
        Err(_) => None,
    }
}

/// One connection.
struct Session {
    connection: Connection,
    /// It asked to be counted.
    attached: bool,
    /// What it runs, until it says that this has ended.
    child: Option<OwnedFd>,
}

impl Session {
    /// Answers an attachment; false when the session is gone already.
    fn welcome(&self, pod: &Pod) -> bool {
        let reply = Reply::Attached(Box::new(pod.info.clone()));
        self.connection
            .send(&reply, &[pod.dev.pidfd.as_fd()])
            .is_ok()
    }

    /// Hears one message; false when the connection is over.
    fn hear(&mut self, pod: &Pod) -> bool {
        match self.connection.receive::<Request>(RecvFlags::DONTWAIT) {
            Ok((Request::Attach { protocol }, _)) if protocol == PROTOCOL => {
                self.attached = true;
                self.welcome(pod)
            }
            Ok((Request::Attach { protocol }, _)) => {
                let why = format!(
                    "this pod was started by another version of podspawn (protocol {PROTOCOL}, not {protocol}); it ends with its last session"
                );
                let _ = self.connection.send(&Reply::Failed { why }, &[]);
                false
            }
            Ok((Request::Child, mut fds)) => {
                self.child = fds.pop();
                true
            }
            Ok((Request::Bye, _)) => {
                self.child = None;
                true
            }
            Err(_) => false,
        }
    }

    /// The session is gone. What it ran on its own terminal got SIGHUP from the
    /// kernel; without a terminal nobody else would tell it.
    fn hang_up(&self) {
        // The child leads a process group of its own, see `session::child`.
        if let Some(pid) = self.child.as_ref().and_then(pid_of) {
            let _ = kill_process_group(pid, rustix::process::Signal::HUP);
            let _ = kill_process_group(pid, rustix::process::Signal::CONT);
        }
    }
}

/// The process of a pidfd as this pid namespace numbers it; `None` once it is
/// reaped (`/proc/PID/fdinfo`, `proc(5)`).
fn pid_of(pidfd: &OwnedFd) -> Option<Pid> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).ok()?;
    let pid = info
        .lines()
        .find_map(|line| line.strip_prefix("Pid:"))?
        .trim()
        .parse()
        .ok()?;
    if pid > 0 { Pid::from_raw(pid) } else { None }
}

/// Why a pod ends.
#[derive(Debug)]
enum Ending {
    Grace,
    Signal(Signal),
    InitDied,
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Grace => f.write_str("no session within the grace period"),
            Self::Signal(signal) => write!(f, "got {signal}"),
            Self::InitDied => f.write_str("the dev container's init is gone"),
        }
    }
}

struct Supervisor<'a> {
    pod: Pod,
    spec: &'a PodSpec,
    run: OwnedFd,
    signals: Signals,
    sessions: Vec<Session>,
    sweeper: Option<Pid>,
}

impl Supervisor<'_> {
    fn wait_for_end(&mut self, log: &mut Log) -> Ending {
        let mut deadline = None;
        loop {
            if self.sessions.iter().any(|s| s.attached) {
                deadline = None;
            } else if deadline.is_none() {
                deadline = Instant::now().checked_add(self.spec.grace_period);
            }
            let ready = self.poll(deadline);
            if ready.signal
                && let Some(ending) = self.hear_signals()
            {
                return ending;
            }
            for n in ready.sessions.into_iter().rev() {
                if !self.sessions[n].hear(&self.pod) {
                    self.sessions.swap_remove(n).hang_up();
                }
            }
            if ready.listener {
                self.accept();
            }
            if deadline.is_some_and(|d| d <= Instant::now()) {
                if self.close() {
                    return Ending::Grace;
                }
                log.line("a session came as the grace period ended");
                deadline = Some(Instant::now() + LOOK_AGAIN);
            }
        }
    }

    fn poll(&self, deadline: Option<Instant>) -> Ready {
        let timeout = deadline.map(|d| {
            let left = d.saturating_duration_since(Instant::now());
            Timespec {
                tv_sec: left.as_secs().cast_signed(),
                tv_nsec: left.subsec_nanos().into(),
            }
        });
        let mut fds = vec![
            PollFd::new(&self.signals, PollFlags::IN),
            PollFd::new(&self.pod.listener, PollFlags::IN),
        ];
        fds.extend(
            self.sessions
                .iter()
                .map(|s| PollFd::new(&s.connection, PollFlags::IN)),
        );
        if poll(&mut fds, timeout.as_ref()).is_err() {
            return Ready {
                signal: true,
                listener: false,
                sessions: Vec::new(),
            };
        }
        let is_ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
        Ready {
            signal: is_ready(&fds[0]),
            listener: is_ready(&fds[1]),
            sessions: (0..self.sessions.len())
                .filter(|n| is_ready(&fds[n + 2]))
                .collect(),
        }
    }

    fn hear_signals(&mut self) -> Option<Ending> {
        let mut ending = None;
        while let Some(signal) = self.signals.next() {
            if signal != Signal::SIGCHLD {
                ending = Some(Ending::Signal(signal));
            }
        }
        // Orphans of the whole pod arrive here too.
        while let Ok(Some((pid, _))) = wait(WaitOptions::NOHANG) {
            if pid == self.pod.dev.pid {
                return Some(Ending::InitDied);
            }
            if Some(pid) == self.sweeper {
                self.sweeper = None;
            }
        }
        ending
    }

    /// Takes every connection that waits; says whether there was one.
    fn accept(&mut self) -> bool {
        let mut any = false;
        while let Ok(fd) = accept_with(&self.pod.listener, SocketFlags::CLOEXEC) {
            // The run directory keeps others out; this does too.
            // (Not rustix': a peer outside of this pid namespace has no pid.)
            if getsockopt(&fd, PeerCredentials).is_ok_and(|peer| peer.uid() == self.spec.login.uid)
            {
                self.sessions.push(Session {
                    connection: Connection::from_fd(fd),
                    attached: false,
                    child: None,
                });
                any = true;
            }
        }
        any
    }

    /// Closes the door, unless somebody is about to come in: a session holds the
    /// pod lock from before it connects until it is answered. Says whether it is
    /// closed; then the next session finds no pod and makes a new one.
    fn close(&mut self) -> bool {
        let lock = Lock::take(&self.spec.paths.lock(), LockMode::TryExclusive);
        // Without a run directory nobody can come in.
        if matches!(lock, Ok(None)) || self.accept() {
            return false;
        }
        self.unlink();
        true
    }

    fn unlink(&self) {
        let _ = rustix::fs::unlinkat(&self.run, "control", rustix::fs::AtFlags::empty());
    }

    /// Ends every process in order, then what they wrote. The namespaces go with
    /// this process.
    fn end(self) {
        self.unlink();
        sys::kill_all(Signal::SIGTERM);
        sys::kill_all(Signal::SIGHUP);
        sys::kill_all(Signal::SIGCONT);
        self.wait_for_children(Instant::now() + STOP);
        sys::kill_all(Signal::SIGKILL);
        self.wait_for_children(Instant::now() + STOP);
        let _ = storage::set_aside(self.spec.paths.storage());
        // The next supervisor need not wait for the removal.
        drop(self.pod.storage);
        storage::sweep(self.spec.paths.storage());
    }

    fn wait_for_children(&self, until: Instant) {
        loop {
            while self.signals.next().is_some() {}
            loop {
                match wait(WaitOptions::NOHANG) {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => return,
                }
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let timeout = Timespec {
                tv_sec: left.as_secs().cast_signed(),
                tv_nsec: left.subsec_nanos().into(),
            };
            let _ = poll(
                &mut [PollFd::new(&self.signals, PollFlags::IN)],
                Some(&timeout),
            );
        }
    }
}

struct Ready {
    signal: bool,
    listener: bool,
    sessions: Vec<usize>,
}
