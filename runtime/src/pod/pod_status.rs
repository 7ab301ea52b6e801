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
    /// How its way out is: `pasta`, `none`, or why there is none.
    #[serde(default)]
    pub network: String,
    /// Whether it is not known yet whether there will be one.
    #[serde(default)]
    pub network_comes_up: bool,
    /// Its services.
    #[serde(default)]
    pub services: Vec<ServiceStatus>,
    /// How many descriptors the supervisor has open: nobody else may look.
    #[serde(default)]
    pub descriptors: usize,
}

/// How a service is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Its name, which is its host name.
    pub name: String,
    /// The image's reference.
    pub image: String,
    /// What it is doing.
    pub state: ServiceState,
    /// Whether it has been ready.
    #[serde(default)]
    pub was_ready: bool,
    /// Where it is reached from inside.
    pub address: String,
    /// How often it died and was started again.
    pub restarts: u32,
    /// While it is not ready: why it ended last, and the last lines that it wrote.
    #[serde(default)]
    pub why: Vec<String>,
}

/// What a service is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceState {
    /// It runs, and is not ready yet.
    Starting,
    /// It runs.
    Ready,
    /// It ended and will be started again.
    Down,
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
