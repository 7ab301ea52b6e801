//! What an ssh connection brings along as sockets of the host: the client's agent
//! and its display. What of them may be shown inside, and the formats involved.
//!
//! Used by the session, which finds them in sshd's environment, and by the
//! supervisor, which mounts the agent's.

pub mod agent;
pub mod authority;
pub mod display;

/// What a session brings along. The default is nothing.
#[derive(Debug, Default)]
pub struct Forwarded {
    /// The agent, or why it cannot be had.
    pub agent: Option<Result<agent::Agent, agent::AgentError>>,
    /// The display, or why it cannot be had.
    pub display: Option<Result<display::Display, display::DisplayError>>,
}
