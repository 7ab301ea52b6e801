//! A cgroup of the pod's own, where the host lets the user have one.
//!
//! The launcher asks for it when it has cloned the supervisor ([`give`]), and every
//! session enters it before it enters the pod ([`Membership::join`]), because a
//! process begins in the cgroup of sshd's. Two ways, tried in this order: a scope of
//! the user's systemd, whose manager moves processes on the user's behalf; a part of
//! the version 2 hierarchy that the user may write to.
//!
//! The supervisor stays in the cgroup itself, with the limits on it, and so does
//! everything that it starts: none is made below (see `supervisor::mounts`).

mod dbus;
mod hierarchy;
mod systemd;

use std::io;
use std::path::PathBuf;

use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use crate::limits::{CgroupLimits, Limits};
use hierarchy::Hierarchy;
pub use hierarchy::is_gone;

/// How to get into a pod's cgroup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Membership {
    /// The user's systemd moves processes into this unit.
    Scope {
        /// Socket of the manager.
        manager: systemd::Manager,
        /// The unit.
        unit: String,
    },
    /// Processes move themselves into this directory.
    Directory(PathBuf),
}

/// What the launcher got.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// The way in; `None`: the pod has no cgroup of its own.
    pub membership: Option<Membership>,
    /// What it limits.
    pub limits: CgroupLimits,
}

/// What is known of the user and their systemd.
#[derive(Clone, Debug)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Runtime directories in which its sockets may be.
    pub runtime: Vec<PathBuf>,
    /// Whether it goes on after the user's last login (`loginctl enable-linger`).
    pub lingers: bool,
    /// Whether the pod must.
    pub outlives_login: bool,
}

/// Puts the supervisor `pid` of the pod `name` into a cgroup of its own, if there
/// is a way.
#[must_use]
pub fn give(name: &str, pid: Pid, user: &User, limits: &Limits) -> Given {
    if *limits == Limits::default() {
        return Given::default();
    }
    let mut missing = Vec::new();
    match systemd::scope(name, pid, user, limits) {
        Ok(given) => return given,
        Err(why) => missing.push(why),
    }
    match hierarchy::directory(name, pid, limits) {
        Ok(given) => return given,
        Err(why) => missing.push(why),
    }
    Given {
        membership: None,
        limits: CgroupLimits {
            missing: Some(missing.join(", and ")),
            ..CgroupLimits::default()
        },
    }
}

impl Membership {
    /// Moves this process into the cgroup; what it forks is born there.
    ///
    /// # Errors
    ///
    /// When the manager or the kernel refuses.
    pub fn join(&self) -> io::Result<()> {
        let own = rustix::process::getpid();
        match self {
            Self::Scope { manager, unit } => manager.attach(unit, own),
            Self::Directory(dir) => hierarchy::enter(dir, own),
        }
    }

    /// Removes the cgroup once its processes have ended; systemd does that by itself.
    pub fn remove(&self) {
        if let Self::Directory(dir) = self {
            let _ = std::fs::remove_dir(dir);
        }
    }
}

/// What the cgroup that `pid` is in limits, as the kernel says.
fn in_force(pid: Pid) -> Option<CgroupLimits> {
    let hierarchy = Hierarchy::of_host()?;
    Some(hierarchy::limits_of(&hierarchy.cgroup_of(pid)?))
}
