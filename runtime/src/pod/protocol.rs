//! What sessions and the supervisor say to each other.
//!
//! One JSON document a `SOCK_SEQPACKET` message, at most [`MAX_MESSAGE`] bytes;
//! descriptors travel beside it. The socket is reachable by the user alone, and
//! both ends are podspawn, but of different versions where it was upgraded under
//! a live pod: every field that is added has a default, and [`PROTOCOL`] changes
//! when that cannot be kept.
//!
//! A session sends [`Request::Attach`] and gets [`Reply::Attached`] with a pidfd
//! of the dev container's init and the filter of system calls. It may then send [`Request::Child`] with a pidfd
//! of what it runs. The connection *is* the attachment: the supervisor counts
//! open connections that asked for it, and ends the child of one that closed
//! without [`Request::Bye`]. A connection that only asks or orders does not count.

use serde::{Deserialize, Serialize};

use super::PodStatus;
use crate::cgroup::Membership;
use crate::limits::ProgramLimits;
use crate::security::Privileges;

/// Version of the conversation.
pub const PROTOCOL: u32 = 1;

/// Longest message, in bytes.
pub const MAX_MESSAGE: usize = 128 << 10;

/// From a session to the supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "request")]
pub enum Request {
    /// Count me, and show me the way in.
    Attach {
        /// [`PROTOCOL`] of the sender.
        protocol: u32,
    },
    /// This descriptor is the process that I run.
    Child,
    /// My process has ended; there is nothing to clean up.
    Bye,
    /// How is the pod? Answered with [`Reply::Status`].
    Status,
    /// End the pod. Answered with [`Reply::Stopping`]; the connection closes once
    /// nothing of the pod is left.
    Stop {
        /// Without giving its programs the time to end by themselves.
        #[serde(default)]
        now: bool,
    },
    /// Show the ssh agent at `path` of the host inside, until this connection
    /// closes. The descriptor is that socket as the session saw it. Answered with
    /// [`Reply::Agent`] or [`Reply::Failed`].
    Agent {
        /// Its absolute path.
        path: String,
        /// The session's process id, for the name.
        pid: u32,
    },
}

/// From the supervisor to a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "reply")]
pub enum Reply {
    /// Come in: the descriptors are a pidfd of the container's init and the
    /// compiled filter of system calls.
    Attached(Box<PodInfo>),
    /// The agent is there now.
    Agent {
        /// Its name in [`crate::sockets::agent::DIR`].
        name: String,
    },
    /// What was asked for cannot be had.
    Failed {
        /// One line: what failed, on what, what to do.
        why: String,
    },
    /// How the pod is.
    Status(Box<PodStatus>),
    /// The pod is going to end.
    Stopping,
    /// To every session, unasked: the pod ends under you.
    Ending {
        /// Why, in a few words.
        why: String,
    },
}

/// What a session needs to know of the pod it joins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodInfo {
    /// The pod's name.
    pub pod: String,
    /// The image's reference, as the pod was created from it.
    pub image: String,
    /// `NAME=value` lines of the image's configuration.
    pub env: Vec<String>,
    /// Who sessions are.
    pub user: SessionUser,
    /// Where a session begins when it has no home.
    pub working_dir: String,
    /// Where a session begins, if not at home.
    #[serde(default)]
    pub workspace: Option<String>,
    /// Whether its way out, or a service, has not come up yet.
    #[serde(default)]
    pub comes_up: bool,
    /// Whether groups can be set (not with a single-id map).
    pub has_groups: bool,
    /// Whether the container has a root.
    #[serde(default)]
    pub has_root: bool,
    /// The pod's network namespace, by its inode number.
    #[serde(default)]
    pub network: u64,
    /// Whether [`Request::Agent`] is understood.
    #[serde(default)]
    pub agents: bool,
    /// Resource limits of programs, where nothing else limits the pod.
    #[serde(default)]
    pub limits: ProgramLimits,
    /// The cgroup that sessions enter first.
    #[serde(default)]
    pub cgroup: Option<Membership>,
    /// What its programs may do.
    #[serde(default)]
    pub privileges: Privileges,
}

/// The user of a session, inside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionUser {
    /// Login name.
    pub name: String,
    /// User id in the container.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Home directory.
    pub home: String,
    /// Shell that the image's passwd names, if it names one.
    pub shell: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_what_older_and_newer_versions_expect() {
        let text = serde_json::to_string(&Request::Attach { protocol: 1 }).unwrap();
        assert_eq!(text, r#"{"request":"attach","protocol":1}"#);
        let newer = r#"{"request":"attach","protocol":1,"since":"2.0"}"#;
        assert_eq!(
            serde_json::from_str::<Request>(newer).unwrap(),
            Request::Attach { protocol: 1 }
        );
        assert!(serde_json::from_str::<Request>(r#"{"request":"shutdown"}"#).is_err());
    }
}
