//! What a connection may ask for: one arm, one function each.
//!
//! Each says whether the connection goes on. A request that is not understood
//! ends it, see [`super::session`].

use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use super::State;
use super::life::Reason;
use super::session::Peer;
use crate::error::chain;
use crate::pod::{PROTOCOL, PodInfo, PodState, PodStatus, Reply, Request};

/// Does what `request` asks for. `fds` came with it.
pub fn answer(
    peer: &mut Peer,
    request: Request,
    mut fds: Vec<OwnedFd>,
    state: &mut State<'_>,
) -> bool {
    match request {
        Request::Attach { protocol: PROTOCOL } => admit(peer, state),
        Request::Attach { protocol } => refuse(peer, protocol),
        Request::Child => {
            peer.child = fds.pop();
            true
        }
        Request::Bye => {
            peer.child = None;
            peer.done = true;
            true
        }
        Request::Agent { path, pid } => {
            let reply = agent(peer, &path, pid, fds.pop(), state);
            tell(peer, &reply)
        }
        Request::Status => tell(peer, &Reply::Status(Box::new(status(state)))),
        Request::Stop { now } => {
            peer.awaits_end = true;
            state.life.order(Reason::Stopped { now });
            tell(peer, &Reply::Stopping)
        }
    }
}

/// Attaches the connection and shows it the way in.
pub fn admit(peer: &mut Peer, state: &mut State<'_>) -> bool {
    let came = peer.session.is_none().then(|| state.life.joined());
    peer.session = peer.session.or(came);
    let reply = Reply::Attached(Box::new(PodInfo {
        comes_up: state.board.borrow().comes_up(),
        ..state.info.clone()
    }));
    let sent = peer
        .connection
        .send(&reply, &[state.init.as_fd(), state.filter.as_fd()]);
    if let Some(number) = came {
        let there = state.life.sessions();
        let line = format_args!("session {number} came; {there} there");
        state.log.line(line);
    }
    sent.is_ok()
}

/// Shows an agent inside, as long as the connection lasts.
fn agent(
    peer: &mut Peer,
    path: &str,
    pid: u32,
    seen: Option<OwnedFd>,
    state: &mut State<'_>,
) -> Reply {
    let shown = match seen {
        Some(seen) => state.agents.show(path, pid, &seen).map_err(|e| chain(&e)),
        None => Err("the session sent no socket".into()),
    };
    match shown {
        Ok(name) => {
            if let Some(earlier) = peer.agent.replace(name.clone()) {
                state.agents.hide(&earlier);
            }
            Reply::Agent { name }
        }
        Err(why) => Reply::Failed { why },
    }
}

fn refuse(peer: &Peer, protocol: u32) -> bool {
    let why = format!(
        "this pod was started by another version of podspawn (protocol {PROTOCOL}, not {protocol}); it ends with its last session"
    );
    tell(peer, &Reply::Failed { why });
    false
}

fn tell(peer: &Peer, reply: &Reply) -> bool {
    peer.connection.send(reply, &[]).is_ok()
}

fn status(state: &State<'_>) -> PodStatus {
    let (life, now) = (&state.life, Instant::now());
    PodStatus {
        pod: state.info.pod.clone(),
        state: match life.sessions() {
            0 => PodState::Idle,
            _ => PodState::Running,
        },
        image: state.info.image.clone(),
        mode: life.terms().mode,
        sessions: life.sessions(),
        created: state.created,
        age: life.age(now).as_secs(),
        expires_in: life.expires_in(now).map(|left| left.as_secs()),
        limits: state.limits.clone(),
        network: state.board.borrow().network.clone(),
        network_comes_up: state.board.borrow().network_comes_up,
        services: state.board.borrow().services.clone(),
        // Without the one that reads the list.
        descriptors: std::fs::read_dir("/proc/self/fd").map_or(0, |all| all.count() - 1),
    }
}
