//! What a supervisor says of its pod when asked.

use serde::{Deserialize, Serialize};

use super::Mode;

/// How a pod is. Fields that come later have defaults: an older supervisor does
/// not send them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodStatus {
    /// The pod's name.
    pub pod: String,
    /// What it is doing.
    pub state: PodState,
    /// The image's reference, as the pod was created from it.
    pub image: String,
    /// When it ends by itself.
    pub mode: Mode,
    /// Connections that keep it, sessions above all.
    pub sessions: usize,
    /// When it was created, in seconds since the epoch by the clock of that time.
    pub created: u64,
    /// How long it has been there, in seconds, whatever was done to the clock.
    pub age: u64,
    /// In how many seconds it ends if nobody comes or goes.
    #[serde(default)]
    pub expires_in: Option<u64>,
    /// What it may use.
    #[serde(default)]
    pub limits: Vec<Limit>,
}

/// What a pod is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PodState {
    /// Somebody is in it.
    Running,
    /// Nobody is in it.
    Idle,
}

/// One limit of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// `cpus`, `memory` or `pids`.
    pub name: String,
    /// What is configured, as one would write it.
    pub value: String,
    /// Whether the kernel sees to it.
    pub in_force: bool,
    /// By which means, or why not.
    pub how: String,
}
