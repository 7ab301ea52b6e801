//! Services: containers beside the dev container, each in a network namespace of
//! its own, reachable by name.
//!
//! Runs in the supervisor. All are created before any is waited for, so they start
//! side by side. One that cannot be created fails the pod, whose namespaces take
//! everything that was begun with them. One that dies later is started again after
//! a pause that grows; what it wrote outside of its volumes is still there.

mod probe;
mod spec;
mod start;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitStatus, kill_process};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

pub use spec::{Check, CheckCommand, ServiceSpec, Volume};
pub use start::ServiceError;

use self::start::Prepared;
use super::PodSpec;
use super::board::Board;
use super::container::DevContainer;
use super::helper::{Claim, Helper};
use super::log::Log;
use crate::network::Bridge;
use crate::pod::{ServiceState, ServiceStatus};

/// How soon to look whether a service is ready; twice as long each time.
const SOON: Duration = Duration::from_millis(5);

/// How long at most until the next look.
const LOOK: Duration = Duration::from_millis(100);

/// How long services may take to end when they are asked to.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many of its last lines are shown.
const LINES: usize = 5;

/// One service.
struct Service {
    name: String,
    image: String,
    prepared: Prepared,
    ports: Vec<u16>,
    check: Option<Check>,
    init: Option<DevContainer>,
    state: State,
    was_ready: bool,
    restarts: u32,
    started: Instant,
    /// The process of a check that runs now.
    probe: Option<Pid>,
    /// When the next one may begin.
    next_probe: Instant,
    /// How the container ended last, for people.
    last: String,
    /// How the check ended last, for people.
    checked: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Starting,
    Ready,
    /// To be started again then.
    Down(Instant),
}

/// All services of a pod.
pub struct Services {
    all: Vec<Service>,
    guest: PathBuf,
    timer: OwnedFd,
    /// Until the next look.
    pause: Duration,
    board: Board,
    stopping: bool,
}

/// Creates and starts the services of a pod.
///
/// # Errors
///
/// The first that cannot be started, by name.
pub fn start_all(
    pod: &PodSpec,
    bridge: &mut Bridge,
    names: &str,
    resolv_conf: Option<&str>,
    board: Board,
) -> Result<Services, (String, ServiceError)> {
    let mut all = Vec::new();
    for (n, service) in pod.services.iter().enumerate() {
        let named = |e| (service.name.clone(), e);
        let prepared =
            start::prepare(pod, service, n, bridge, names, resolv_conf).map_err(named)?;
        let init = start::start(&prepared, 0, &pod.guest).map_err(named)?;
        all.push(Service {
            name: service.name.clone(),
            image: service.image.reference.clone(),
            prepared,
            ports: service.ports.clone(),
            check: service.check.clone(),
            init: Some(init),
            state: State::Starting,
            was_ready: false,
            restarts: 0,
            started: Instant::now(),
            probe: None,
            next_probe: Instant::now(),
            last: String::new(),
            checked: String::new(),
        });
    }
    let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
    let timer = timerfd_create(TimerfdClockId::Monotonic, flags)
        .map_err(|e| ServiceError::File {
            what: "cannot make a timer".into(),
            source: e.into(),
        })
        .map_err(|e| (String::new(), e))?;
    let services = Services {
        all,
        guest: pod.guest.clone(),
        timer,
        pause: SOON,
        board,
        stopping: false,
    };
    services.arm();
    services.publish();
    Ok(services)
}

impl Services {
    /// Looks again soon, if there is anything to look for.
    fn arm(&self) {
        let idle = self.stopping || self.all.iter().all(|s| s.state == State::Ready);
        let next = if idle { Duration::ZERO } else { self.pause };
        let once = Itimerspec {
            it_interval: Timespec::default(),
            it_value: Timespec::try_from(next).unwrap_or_default(),
        };
        let _ = timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once);
    }

    fn publish(&self) {
        self.board.borrow_mut().services = self.all.iter().map(Service::status).collect();
    }

    fn tick(&mut self, log: &mut Log) {
        self.pause = (self.pause * 2).min(LOOK);
        for service in &mut self.all {
            match service.state {
                State::Starting => service.look(log),
                State::Down(until) if until <= Instant::now() => {
                    service.again(&self.guest, log);
                    self.pause = SOON;
                }
                State::Down(_) | State::Ready => {}
            }
        }
        self.publish();
        self.arm();
    }
}

impl Service {
    fn look(&mut self, log: &mut Log) {
        if !self.ports.is_empty() && !probe::ports_accept(self.prepared.address, &self.ports) {
            return;
        }
        match (&self.check, &self.init) {
            (None, _) => self.is_ready(log),
            (Some(check), Some(init))
                if self.probe.is_none() && self.next_probe <= Instant::now() =>
            {
                let process = self.prepared.bundle.process().as_ref();
                let env = process.and_then(|p| p.env().clone()).unwrap_or_default();
                let place = probe::Place {
                    env: &env,
                    dir: process.map_or("/".as_ref(), |p| p.cwd().as_path()),
                    user: process.map_or((0, 0), |p| (p.user().uid(), p.user().gid())),
                };
                self.probe = probe::run(init, check, &place).ok();
            }
            _ => {}
        }
    }

    /// The check has ended.
    fn probed(&mut self, status: Option<i32>, log: &mut Log) {
        self.probe = None;
        let Some(check) = self
            .check
            .as_ref()
            .filter(|_| self.state == State::Starting)
        else {
            return;
        };
        if status == Some(0) {
            self.is_ready(log);
            return;
        }
        self.next_probe = Instant::now() + check.pause;
        self.checked = match status {
            Some(probe::TIMED_OUT) => {
                format!("{} takes longer than {:?}", check.name, check.timeout)
            }
            Some(status) => format!("{} ends with status {status}", check.name),
            None => format!("{} is killed", check.name),
        };
    }

    fn is_ready(&mut self, log: &mut Log) {
        self.state = State::Ready;
        self.was_ready = true;
        let took = self.started.elapsed().as_millis();
        log.line(format_args!(
            "service {} is ready after {took} ms",
            self.name
        ));
    }

    fn again(&mut self, guest: &std::path::Path, log: &mut Log) {
        self.restarts += 1;
        self.started = Instant::now();
        match start::start(&self.prepared, self.restarts, guest) {
            Ok(init) => {
                self.init = Some(init);
                self.state = State::Starting;
            }
            Err(e) => {
                let why = crate::error::chain(&e);
                log.line(format_args!("service {} cannot start: {why}", self.name));
                self.last = why;
                self.state = State::Down(Instant::now() + pause(self.restarts));
            }
        }
    }

    fn ended(&mut self, status: WaitStatus, log: &mut Log) {
        let how = match (status.exit_status(), status.terminating_signal()) {
            (Some(status), _) => format!("it ended with status {status}"),
            (None, Some(signal)) => format!("it was killed by signal {signal}"),
            (None, None) => "it ended".into(),
        };
        // One that ran for long begins anew.
        if self.started.elapsed() > Duration::from_secs(60) {
            self.restarts = 0;
        }
        let pause = pause(self.restarts + 1);
        self.init = None;
        self.probe = None;
        self.checked.clear();
        self.state = State::Down(Instant::now() + pause);
        log.line(format_args!(
            "service {}: {how}; again in {} ms",
            self.name,
            pause.as_millis()
        ));
        self.last = how;
    }

    fn status(&self) -> ServiceStatus {
        let state = match self.state {
            State::Starting => ServiceState::Starting,
            State::Ready => ServiceState::Ready,
            State::Down(_) => ServiceState::Down,
        };
        let mut why = Vec::new();
        if state != ServiceState::Ready {
            let said = [&self.last, &self.checked].map(Clone::clone);
            why.extend(said.into_iter().filter(|l| !l.is_empty()));
            why.extend(start::last_lines(&self.prepared.log, LINES));
        }
        ServiceStatus {
            name: self.name.clone(),
            image: self.image.clone(),
            state,
            was_ready: self.was_ready,
            address: self.prepared.address.to_string(),
            restarts: self.restarts,
            why,
        }
    }
}

impl Helper for Services {
    fn name(&self) -> &'static str {
        "services"
    }

    fn exited(&mut self, pid: Pid, status: WaitStatus, log: &mut Log) -> Claim {
        for service in &mut self.all {
            if service.init.as_ref().is_some_and(|init| init.pid == pid) {
                if self.stopping {
                    service.init = None;
                } else {
                    service.ended(status, log);
                }
                self.publish();
                self.arm();
                return Claim::Mine;
            }
            if service.probe == Some(pid) {
                service.probed(status.exit_status(), log);
                self.publish();
                self.arm();
                return Claim::Mine;
            }
        }
        Claim::NotMine
    }

    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.timer.as_fd()]
    }

    fn readable(&mut self, _: usize, log: &mut Log) {
        let _ = rustix::io::read(&self.timer, &mut [0u8; 8]);
        self.tick(log);
    }

    fn stop(&mut self, hasty: bool, _: &mut Log) {
        self.stopping = true;
        self.arm();
        for service in &self.all {
            let Some(init) = &service.init else { continue };
            let signal = match hasty {
                true => Some(Signal::KILL),
                false => Signal::from_named_raw(service.prepared.stop as i32),
            };
            if let Some(signal) = signal {
                let _ = kill_process(init.pid, signal);
            }
        }
    }

    fn stopping(&self) -> Option<Duration> {
        self.all
            .iter()
            .any(|s| s.init.is_some())
            .then_some(PATIENCE)
    }
}

/// How long to wait before the `count`th restart.
fn pause(count: u32) -> Duration {
    let doubled = 2u32.saturating_pow(count.saturating_sub(1).min(16));
    Duration::from_millis(200)
        .saturating_mul(doubled)
        .min(Duration::from_secs(30))
}
