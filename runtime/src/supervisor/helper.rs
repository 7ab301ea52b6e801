//! What the supervisor looks after beside sessions: the way to the network,
//! services, and whatever else has processes or descriptors of its own.
//!
//! The loop in [`super::attend`] is the only one that waits and reaps; it hands
//! every event to the helper that it belongs to.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::process::{Pid, WaitStatus};

use super::log::Log;

/// What becomes of a child of the supervisor's that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is not this helper's.
    NotMine,
    /// It was this helper's, and the pod goes on.
    Mine,
    /// It was this helper's, and the pod cannot go on without it: what it was.
    Vital(String),
}

/// One of them. Everything has a default but what is asked of all.
pub trait Helper {
    /// What it is, for the log.
    fn name(&self) -> &str;

    /// A child of the supervisor's has ended, or an orphan of the pod's.
    fn exited(&mut self, pid: Pid, status: WaitStatus, log: &mut Log) -> Claim;

    /// The descriptors to wait for until they can be read.
    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        Vec::new()
    }

    /// The `n`th of [`Helper::descriptors`] can be read, or is at its end.
    fn readable(&mut self, n: usize, log: &mut Log) {
        let _ = (n, log);
    }

    /// The pod ends: stop, in order, or without taking time when `hasty`. Does not wait.
    fn stop(&mut self, hasty: bool, log: &mut Log) {
        let _ = (hasty, log);
    }

    /// Whether something is left to wait for after [`Helper::stop`]; for how long at most.
    fn stopping(&self) -> Option<Duration> {
        None
    }
}
