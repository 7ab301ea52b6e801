//! Pods for podspawn: namespaces, the supervisor, containers, sessions.
//!
//! The library is handed lower directories and an image configuration, and knows
//! nothing of registries or of the store's format. It prints nothing, reads no
//! environment, and starts no threads: its processes fork, clone and enter
//! namespaces, which only a process with a single thread may do.
//!
//! Three processes run its code:
//!
//! - the *session* (`podspawn spawn`): [`pod::attach_or_launch`], then [`session::run`];
//! - the *supervisor* of a pod, cloned from the first session: [`supervisor`];
//! - the child of a session, from fork to exec, inside the container: `session::child`.

pub mod accounts;
pub mod capability;
pub mod cgroup;
pub mod error;
pub mod gateway;
pub mod guest;
pub mod idmap;
pub mod limits;
pub mod look;
pub mod metrics;
pub mod network;
pub mod pod;
pub mod probe;
pub mod process;
pub mod record;
pub mod rootfs;
pub mod seccomp;
pub mod security;
pub mod session;
pub mod sockets;
pub mod supervisor;
mod sys;
