//! The supervisor: PID 1 of a pod's own pid namespace, and the one process that
//! everything of the pod lives below.
//!
//! It is crash-only. Its namespaces hold every process, mount and network device
//! of the pod, so that killing it with any signal at any time removes them all;
//! what remains on disk is a stale socket and an upper directory, which the next
//! supervisor clears away. No state is kept that would have to be reconciled.
//!
//! ```text
//! session ── launch: clone3 into new user, mnt, pid, cgroup, ipc, uts, net namespaces
//!    │                └── supervisor (uid of the user, all capabilities inside)
//!    │ write the id maps ──▶│ lock the storage, mount scratch, proc, cgroup2, overlay
//!    │                      │ provision the rootfs: user, home, hosts
//!    │                      │ libcontainer ──▶ guest init, PID 1 of the dev container
//!    │◀── Attached + pidfd ─│ attend: control socket, children, timer
//! ```

mod agents;
mod attend;
pub(crate) mod board;
mod container;
pub(crate) mod helper;
mod home;
mod kept;
mod launch;
pub(crate) mod log;
mod mounts;
mod provision;
mod service;
mod setup;
mod spec;
pub(crate) mod storage;
mod workspace;

use crate::record::{Audit, AuditEvent, Who};
pub use attend::Terms;

/// Writes down what has become of the pod. The log is opened each time: it may
/// be moved away while a pod lives.
fn audit(spec: &PodSpec, event: AuditEvent<'_>) {
    let who = Who {
        user: spec.login.name.clone(),
        uid: spec.login.uid,
        pod: spec.paths.name.to_string(),
        session: None,
    };
    Audit::open(&spec.records.audit, who).write(event);
}

/// What a supervisor calls itself (`/proc/PID/comm`).
pub const PROCESS_NAME: &str = "podspawn-pod";
pub use home::HomeChoice;
pub use launch::{LaunchError, launch};
pub use mounts::{MountError, Overlay};
pub use provision::SFTP_SERVERS;
pub use service::{Check, CheckCommand, ServiceSpec, Volume};
pub use spec::{Login, PodImage, PodSpec, UserChoice};
pub use workspace::{Workspace, WorkspaceFiles};
