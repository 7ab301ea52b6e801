//! A connection, and what has become of it.
//!
//! An attached one keeps the pod alive and may have a process; one that only asks
//! or orders is none of that.

use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::net::RecvFlags;
use rustix::process::{Signal, kill_process_group};

use super::State;
use super::requests;
use crate::pod::{Connection, Request};
use crate::process::pid_of;

/// One connection.
pub struct Peer {
    /// The socket.
    pub connection: Connection,
    /// Its number among the pod's sessions, if it is one: the pod does not end for
    /// want of sessions while it is open.
    pub session: Option<u64>,
    /// What it runs, until it says that this has ended.
    pub child: Option<OwnedFd>,
    /// It said that all is done.
    pub done: bool,
    /// The socket of its agent.
    pub agent: Option<String>,
    /// It asked for the pod's end and waits for it.
    pub awaits_end: bool,
}

impl Peer {
    pub fn new(connection: Connection) -> Self {
        Self {
            connection,
            session: None,
            child: None,
            done: false,
            agent: None,
            awaits_end: false,
        }
    }

    /// Hears one message; false when the connection is over.
    pub fn hear(&mut self, state: &mut State<'_>) -> bool {
        match self.connection.receive::<Request>(RecvFlags::DONTWAIT) {
            Ok((request, fds)) => requests::answer(self, request, fds, state),
            Err(_) => false,
        }
    }

    /// The connection is over. What it ran on its own terminal got SIGHUP from
    /// the kernel; without a terminal nobody else would tell it.
    pub fn left(self, state: &mut State<'_>) {
        // The child leads a process group of its own, see `session::child`.
        if let Some(pid) = self.child.as_ref().and_then(pid_of) {
            let _ = kill_process_group(pid, Signal::HUP);
            let _ = kill_process_group(pid, Signal::CONT);
        }
        if let Some(agent) = &self.agent {
            state.agents.hide(agent);
        }
        if let Some(number) = self.session {
            state.life.left(Instant::now());
            let how = match self.done {
                true => "ended",
                false => "was cut off",
            };
            let left = state.life.sessions();
            let line = format_args!("session {number} {how}; {left} there");
            state.log.line(line);
        }
    }
}
