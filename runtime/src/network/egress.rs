//! The supervisor's side of egress: the namespace, the tap, and what became of
//! pasta.

use std::fmt::Display;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::net::RecvFlags;
use rustix::process::{Pid, WaitStatus};

use super::host::HostNetwork;
use super::keeper::{self, Go, News, Pasta};
use super::{Network, seal};
use crate::pod::Connection;
use crate::supervisor::board::Board;
use crate::supervisor::helper::{Claim, Helper};
use crate::supervisor::log::Log;
use crate::sys;

/// Why a pod has no network namespace.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    /// The namespace was refused.
    #[error(
        "cannot create the pod's network namespace; this host may forbid it (sysctl user.max_net_namespaces)"
    )]
    Namespace(#[source] io::Error),
    /// Its loopback device failed.
    #[error("cannot bring up the pod's loopback device")]
    Loopback(#[source] io::Error),
}

/// How the way out is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// None was asked for.
    Off,
    /// pasta has been started, and has not said anything.
    Starting,
    /// It works.
    Up,
    /// It does not: why.
    Down(String),
}

/// The way out of a pod.
#[derive(Debug)]
pub struct Egress {
    host: HostNetwork,
    keeper: Option<(Pid, Connection)>,
    state: State,
    /// How often in a row pasta ended, and since when it was up.
    failures: u32,
    up_since: Option<Instant>,
    board: Board,
}

/// Leaves the host's network namespace for a new one with a loopback device.
///
/// # Errors
///
/// When the kernel refuses the namespace. That there is no way out is no error.
pub fn leave_host(network: &Network, board: Board) -> Result<Egress, EgressError> {
    let mut egress = Egress {
        host: HostNetwork::default(),
        keeper: None,
        state: State::Off,
        failures: 0,
        up_since: None,
        board,
    };
    if let Network::Pasta { program } = network
        && let Err(why) = egress.fork_keeper(program.as_deref())
    {
        egress.state = State::Down(why);
    }
    sys::unshare_network().map_err(EgressError::Namespace)?;
    sys::bring_up_loopback().map_err(EgressError::Loopback)?;
    Ok(egress)
}

impl Egress {
    fn fork_keeper(&mut self, program: Option<&Path>) -> Result<(), String> {
        let Some(program) = program else {
            return Err("pasta is not installed (package passt)".into());
        };
        self.host = HostNetwork::look()
            .map_err(|e| format!("cannot list the host's network addresses: {e}"))?;
        let pasta = Pasta {
            program: program.to_owned(),
            forward: self.host.resolv.forward,
        };
        let keeper = keeper::fork(&pasta).map_err(|e| format!("cannot fork: {e}"))?;
        self.keeper = Some(keeper);
        Ok(())
    }

    /// Has pasta started, in the new namespace. Does not wait for it. Returns why
    /// there will be no way out, for the log.
    pub fn start(&mut self) -> Option<String> {
        let begun = std::fs::File::open("/proc/self/ns/net").and_then(|netns| {
            let Some((_, connection)) = &self.keeper else {
                return Ok(false);
            };
            seal::sealed_tap(&self.host.own)?;
            connection.send(&Go { after: 0 }, &[netns.as_fd()])?;
            Ok(true)
        });
        match begun {
            Ok(true) => self.state = State::Starting,
            Ok(false) => {}
            Err(e) => {
                self.state = State::Down(format!("cannot make the device {}: {e}", super::TAP))
            }
        }
        self.publish();
        match &self.state {
            State::Down(why) => Some(format!("no egress: {why}")),
            State::Off | State::Starting | State::Up => None,
        }
    }

    /// The addresses that the host had.
    #[must_use]
    pub fn own(&self) -> &[std::net::IpAddr] {
        &self.host.own
    }

    /// Whether none was asked for.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.state == State::Off
    }

    fn publish(&self) {
        let mut facts = self.board.borrow_mut();
        facts.network = self.to_string();
        facts.network_comes_up = self.state == State::Starting;
    }

    /// What the keeper has to say, for the log.
    pub fn hear(&mut self) -> Option<String> {
        let (_, connection) = self.keeper.as_ref()?;
        let line = match connection.receive::<News>(RecvFlags::DONTWAIT) {
            Ok((News::Up, _)) => {
                self.state = State::Up;
                self.up_since = Some(Instant::now());
                Some("egress is up".into())
            }
            Ok((News::Down { why }, _)) => Some(self.again(&why)),
            Err(_) => Some(self.lost()),
        };
        self.publish();
        line
    }

    /// The keeper is gone, and with it the way to start pasta.
    fn lost(&mut self) -> String {
        let why = "the process that keeps pasta is gone";
        self.keeper = None;
        self.state = State::Down(why.into());
        self.publish();
        format!("no egress any more: {why}")
    }

    /// Has pasta started anew, on a new tap.
    fn again(&mut self, why: &str) -> String {
        let was_up = self.up_since.take().map(|since| since.elapsed());
        self.failures = match was_up {
            Some(time) if time > MOST_PAUSE => 0,
            _ => self.failures.saturating_add(1),
        };
        let pause = pause(self.failures);
        self.state = State::Down(why.to_owned());
        let ordered = seal::sealed_tap(&self.host.own).and_then(|()| {
            let after = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
            match &self.keeper {
                Some((_, connection)) => connection.send(&Go { after }, &[]),
                None => Err(io::ErrorKind::NotConnected.into()),
            }
        });
        match ordered {
            Ok(()) => format!("no egress: {why}; again in {} ms", pause.as_millis()),
            Err(e) => format!("no egress: {why}; cannot try again: {e}"),
        }
    }

    /// The pod's resolv.conf, if it is to have one.
    #[must_use]
    pub fn resolv_conf(&self) -> Option<&str> {
        self.keeper.as_ref()?;
        self.host.resolv.text.as_deref()
    }
}

impl Display for Egress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.state {
            State::Off => f.write_str("none"),
            State::Starting => f.write_str("pasta, starting"),
            State::Up => f.write_str("pasta"),
            State::Down(why) => write!(f, "down: {why}"),
        }
    }
}

impl Helper for Egress {
    fn name(&self) -> &'static str {
        "egress"
    }

    fn exited(&mut self, pid: Pid, _: WaitStatus, log: &mut Log) -> Claim {
        match &self.keeper {
            Some((keeper, _)) if *keeper == pid => {
                log.line(self.lost());
                Claim::Mine
            }
            _ => Claim::NotMine,
        }
    }

    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let keeper = self.keeper.as_ref();
        keeper.map(|(_, c)| c.as_fd()).into_iter().collect()
    }

    fn readable(&mut self, _: usize, log: &mut Log) {
        if let Some(line) = self.hear() {
            log.line(line);
        }
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const MOST_PAUSE: Duration = Duration::from_secs(30);

/// How long to wait before the next try after so many failures in a row.
fn pause(failures: u32) -> Duration {
    let doubled = 2u32.saturating_pow(failures.saturating_sub(1).min(16));
    FIRST_PAUSE.saturating_mul(doubled).min(MOST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end_growing() {
        let pauses: Vec<_> = [0, 1, 2, 3, 8, 9, 10, u32::MAX]
            .map(|n| pause(n).as_millis())
            .into();
        assert_eq!(pauses, [100, 100, 200, 400, 12_800, 25_600, 30_000, 30_000]);
    }
}
