//! What a pod is to the rest of podspawn: its name, its places on disk, the
//! conversation with its supervisor, and how to find one or make one.
//!
//! Used by the session (client side) and by the supervisor (server side).
//!
//! Locks, in the order in which they are taken:
//!
//! 1. *pod lock*, `flock` on `RUN/NAME/lock`: shared while a session looks for
//!    a live supervisor, exclusive while one is created, and exclusive (without
//!    waiting) while a supervisor decides to end. So a session either reaches
//!    the supervisor before that decision, and keeps it alive, or finds none.
//! 2. *storage lock*, `flock` on `STORE/pods/NAME`: held by a supervisor for
//!    its whole life, so that one upper directory has one user, even where the
//!    run directory was deleted under a live pod.
//!
//! The locks of [`claim()`] are taken before these, and the one that is waited for is
//! held for the counting alone.

mod ask;
mod claim;
mod clear;
mod connection;
mod find;
mod lock;
mod mode;
mod name;
mod network;
mod paths;
mod pod_status;
mod protocol;

pub(crate) use ask::somebody_listens;
pub use ask::{Alive, Condition, StopError, Stopped, look_at, names, stop};
pub use claim::{Claim, ClaimError, claim};
pub use clear::{ClearError, Cleared, clear, remove};
pub(crate) use connection::readable_by;
pub use connection::{Connection, ConnectionError};
pub use find::{Attached, Came, FindError, attach, attach_or_launch};
pub use lock::{Lock, LockMode};
pub use mode::Mode;
pub use name::{InvalidPodName, PodName};
pub use network::{PodNetwork, is_behind_module};
pub use paths::{PathsError, PodPaths, RunDir};
pub use pod_status::{Limit, PodState, PodStatus, ServiceState, ServiceStatus};
pub use protocol::{PROTOCOL, PodInfo, Reply, Request, SessionUser};
