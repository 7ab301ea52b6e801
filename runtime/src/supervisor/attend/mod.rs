//! What the supervisor does for the rest of its life: wait.
//!
//! One loop waits for everything: signals, connections and what they say, children
//! to reap, descriptors of helpers, and the moment that [`life`] names. What is
//! decided is decided there; what a connection may ask for is in [`requests`]; what
//! happens at the end is in [`ending`].

mod door;
mod ending;
mod life;
mod requests;
mod session;

use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use nix::sys::signal::Signal;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, WaitOptions, WaitStatus, wait};

pub use life::Terms;

use super::agents::Agents;
use super::board::Board;
use super::helper::{Claim, Helper};
use super::log::Log;
use super::setup::Pod;
use super::{PodSpec, storage};
use crate::pod::{self, Connection, Limit, Lock, PodInfo};
use crate::sys::{self, Signals};

use door::Door;
use life::{Life, Next, Reason};
use session::Peer;

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
    let Pod {
        dev,
        listener,
        info,
        limits,
        storage,
        mut helpers,
        board,
        agents,
        filter,
    } = pod;
    helpers.insert(0, Box::new(Init(dev.pid)));
    let state = State {
        spec,
        info,
        limits,
        board,
        init: dev.pidfd,
        agents,
        filter,
        life: Life::new(spec.terms, Instant::now()),
        created: seconds_since_epoch(),
        log,
    };
    let mut supervisor = Supervisor {
        state,
        door: Door::new(listener, run),
        signals,
        peers: Vec::new(),
        helpers,
        storage,
    };
    let mut first = Peer::new(first);
    match requests::admit(&mut first, &mut supervisor.state) {
        true => supervisor.peers.push(first),
        // It was killed while the pod came up.
        false => first.left(&mut supervisor.state),
    }
    supervisor.helpers.extend(sweep(spec));
    let why = supervisor.wait_for_end();
    supervisor.end(&why);
}

/// The dev container's init, without which there is no pod.
struct Init(Pid);

impl Helper for Init {
    fn name(&self) -> &str {
        "the dev container's init"
    }

    fn exited(&mut self, pid: Pid, _: WaitStatus, _: &mut Log) -> Claim {
        match pid == self.0 {
            true => Claim::Vital(self.name().into()),
            false => Claim::NotMine,
        }
    }
}

/// Removing what a crash left may take long; it must not keep a login waiting.
struct Sweeper(Pid);

impl Helper for Sweeper {
    fn name(&self) -> &str {
        "the sweeper"
    }

    fn exited(&mut self, pid: Pid, _: WaitStatus, _: &mut Log) -> Claim {
        match pid == self.0 {
            true => Claim::Mine,
            false => Claim::NotMine,
        }
    }
}

fn sweep(spec: &PodSpec) -> Option<Box<dyn Helper>> {
    match sys::fork() {
        Ok(sys::Forked::Child) => {
            storage::sweep(spec.paths.storage());
            sys::exit(0)
        }
        Ok(sys::Forked::Parent(pid)) => Some(Box::new(Sweeper(pid))),
        Err(_) => None,
    }
}

fn seconds_since_epoch() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_secs()
}

/// What requests are answered from.
struct State<'a> {
    spec: &'a PodSpec,
    info: PodInfo,
    limits: Vec<Limit>,
    /// What helpers know.
    board: Board,
    /// The dev container's init, as sessions get it.
    init: OwnedFd,
    agents: Agents,
    /// The filter of system calls, as sessions get it.
    filter: OwnedFd,
    life: Life,
    /// In seconds since the epoch.
    created: u64,
    log: &'a mut Log,
}

struct Supervisor<'a> {
    state: State<'a>,
    door: Door,
    signals: Signals,
    peers: Vec<Peer>,
    helpers: Vec<Box<dyn Helper>>,
    storage: (Lock, pod::Claim),
}

impl Supervisor<'_> {
    fn wait_for_end(&mut self) -> Reason {
        // Who ended before signals were blocked has told nobody.
        self.hear_signals();
        loop {
            let until = match self.state.life.next(Instant::now()) {
                Next::End(reason) => return reason,
                Next::Wait(until) => until,
                Next::Close(reason) => {
                    if self.close() {
                        return reason;
                    }
                    self.state.life.disturbed(Instant::now());
                    continue;
                }
            };
            let ready = self.poll(until);
            if ready.signals {
                self.hear_signals();
            }
            for (helper, n) in ready.helpers {
                self.helpers[helper].readable(n, self.state.log);
            }
            // From the back: one that is over is replaced by the last.
            for n in ready.peers.into_iter().rev() {
                if !self.peers[n].hear(&mut self.state) {
                    let peer = self.peers.swap_remove(n);
                    peer.left(&mut self.state);
                }
            }
            if ready.door {
                self.accept();
            }
            if ready.watch {
                self.restore_door();
            }
        }
    }

    fn poll(&self, until: Option<Instant>) -> Ready {
        let door = self.door.interest();
        let until = until.into_iter().chain(door.err().flatten()).min();
        let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN)];
        if let Ok(listener) = self.door.interest() {
            fds.push(PollFd::from_borrowed_fd(listener, PollFlags::IN));
        }
        let watch_at = fds.len();
        if let Some(watch) = self.door.watch() {
            fds.push(PollFd::from_borrowed_fd(watch, PollFlags::IN));
        }
        let helpers_at = fds.len();
        let owned: Vec<(usize, usize, BorrowedFd<'_>)> = self
            .helpers
            .iter()
            .enumerate()
            .flat_map(|(h, helper)| {
                let fds = helper.descriptors().into_iter().enumerate();
                fds.map(move |(n, fd)| (h, n, fd))
            })
            .collect();
        fds.extend(
            owned
                .iter()
                .map(|(_, _, fd)| PollFd::from_borrowed_fd(*fd, PollFlags::IN)),
        );
        let peers_at = fds.len();
        fds.extend(
            self.peers
                .iter()
                .map(|p| PollFd::new(&p.connection, PollFlags::IN)),
        );
        let failed = poll(&mut fds, timeout(until).as_ref()).is_err();
        let is_ready = |fd: &PollFd<'_>| !failed && !fd.revents().is_empty();
        Ready {
            signals: failed || is_ready(&fds[0]),
            door: fds[1..watch_at].iter().any(is_ready),
            watch: fds[watch_at..helpers_at].iter().any(is_ready),
            helpers: fds[helpers_at..peers_at]
                .iter()
                .zip(&owned)
                .filter(|(fd, _)| is_ready(fd))
                .map(|(_, (helper, n, _))| (*helper, *n))
                .collect(),
            peers: (0..self.peers.len())
                .filter(|n| is_ready(&fds[peers_at + n]))
                .collect(),
        }
    }

    fn hear_signals(&mut self) {
        while let Some(signal) = self.signals.next() {
            if signal != Signal::SIGCHLD {
                self.state.life.order(Reason::Signal(signal));
            }
        }
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            self.exited(pid, status);
        }
    }

    /// Hands an ended child to whom it belongs; orphans of the whole pod arrive
    /// here too, and belong to nobody.
    fn exited(&mut self, pid: Pid, status: WaitStatus) {
        for helper in &mut self.helpers {
            match helper.exited(pid, status, self.state.log) {
                Claim::NotMine => continue,
                Claim::Mine => {}
                Claim::Vital(what) => self.state.life.order(Reason::Lost(what)),
            }
            return;
        }
    }

    /// Lets in every connection that waits; says whether there was one.
    fn accept(&mut self) -> bool {
        let came = self.door.accept(self.state.spec.login.uid);
        let any = !came.is_empty();
        self.peers.extend(came.into_iter().map(Peer::new));
        any
    }

    fn restore_door(&mut self) {
        let state = &mut self.state;
        match self.door.restore(&state.spec.paths) {
            Ok(false) => {}
            Ok(true) => {
                state.log.reopen();
                state
                    .log
                    .line("the run directory was removed; made it anew");
            }
            Err(e) => state.log.line(format_args!(
                "the run directory was removed, and cannot be made anew: {e}"
            )),
        }
    }

    /// Closes the door, unless somebody is about to come in: a session holds the
    /// pod lock from before it connects until it is answered. Says whether it is
    /// closed; then the next session finds no pod and makes a new one.
    fn close(&mut self) -> bool {
        let Ok(_lock) = self.door.guard(&self.state.spec.paths) else {
            return false;
        };
        if self.accept() {
            return false;
        }
        self.door.close();
        true
    }
}

struct Ready {
    signals: bool,
    door: bool,
    watch: bool,
    /// Helper, and which of its descriptors.
    helpers: Vec<(usize, usize)>,
    peers: Vec<usize>,
}

/// The time from now until then, for `poll(2)`.
fn timeout(until: Option<Instant>) -> Option<Timespec> {
    let left = until?.saturating_duration_since(Instant::now());
    Timespec::try_from(left).ok()
}
