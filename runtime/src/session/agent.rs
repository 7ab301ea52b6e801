//! The session's side of the agent: asking the supervisor to show its socket.

use std::os::fd::AsFd;

use crate::pod::{Connection, Reply, Request};
use crate::sockets::agent::{Agent, DIR};

/// How long the supervisor may take, in seconds.
const ANSWER: u64 = 20;

/// Has the supervisor show the agent inside, and returns the path there.
///
/// # Errors
///
/// One line: why not.
pub fn show(agent: &Agent, connection: &Connection) -> Result<String, String> {
    let request = Request::Agent {
        path: agent.path.clone(),
        pid: std::process::id(),
    };
    let sent = connection.send(&request, &[agent.socket.as_fd()]);
    sent.map_err(|e| format!("cannot ask the pod's supervisor: {e}"))?;
    loop {
        match connection.receive_within::<Reply>(ANSWER) {
            Ok((Reply::Agent { name }, _)) => return Ok(format!("{DIR}/{name}")),
            Ok((Reply::Failed { why }, _)) => return Err(why),
            // Said unasked.
            Ok(_) => {}
            Err(e) => return Err(crate::error::chain(&e)),
        }
    }
}
