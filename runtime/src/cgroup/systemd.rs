//! A scope of the user's systemd, asked for over its socket
//! (`org.freedesktop.systemd1(5)`).
//!
//! Only the manager can move a process out of the login's session scope, into which
//! sshd put it; so it is asked for each session, on its private socket where it has
//! one: that saves the way over the bus.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use super::dbus::{Body, Bus};
use super::{Given, Membership, User, in_force};
use crate::limits::Limits;

/// How to reach the user's manager.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manager {
    socket: PathBuf,
    /// It is the bus, not the manager's own socket.
    bus: bool,
    uid: u32,
}

/// How long the manager may take to have moved a process.
const MOVED: Duration = Duration::from_secs(5);

impl Manager {
    /// The manager of the user, if one runs.
    fn find(user: &User) -> Option<Self> {
        let is_theirs = |path: &Path| std::fs::metadata(path).is_ok_and(|m| m.uid() == user.uid);
        user.runtime
            .iter()
            .flat_map(|dir| {
                [
                    (dir.join("systemd/private"), false),
                    (dir.join("bus"), true),
                ]
            })
            .find(|(socket, _)| is_theirs(socket))
            .map(|(socket, bus)| Self {
                socket,
                bus,
                uid: user.uid,
            })
    }

    fn call(&self, member: &str, body: Body) -> io::Result<()> {
        let mut bus = Bus::connect(&self.socket, self.uid)?;
        if self.bus {
            bus.hello()?;
        }
        bus.call(
            "org.freedesktop.systemd1",
            "/org/freedesktop/systemd1",
            "org.freedesktop.systemd1.Manager",
            member,
            body,
        )
    }

    /// Moves a process into a unit.
    pub fn attach(&self, unit: &str, pid: Pid) -> io::Result<()> {
        let mut body = Body::new("ssau");
        body.text(unit);
        body.text("/");
        body.array(4, |b| b.number(pid.as_raw_nonzero().get().unsigned_abs()));
        self.call("AttachProcessesToUnit", body)
    }
}

/// Has the manager make a scope with these limits around `pid`.
pub fn scope(name: &str, pid: Pid, user: &User, limits: &Limits) -> Result<Given, String> {
    let manager = Manager::find(user).ok_or("this user has no systemd of their own")?;
    if user.outlives_login && !user.lingers {
        return Err(
            "this user's systemd ends with their last login (loginctl enable-linger)".into(),
        );
    }
    let unit = format!("podspawn-{name}-{}.scope", pid.as_raw_nonzero());
    let failed = |e: io::Error| format!("systemd made no scope: {e}");
    manager
        .call("StartTransientUnit", start(&unit, name, pid, limits))
        .map_err(failed)?;
    // What was answered is that the job is queued.
    let begin = Instant::now();
    let path = format!("/proc/{}/cgroup", pid.as_raw_nonzero());
    while !std::fs::read_to_string(&path).is_ok_and(|text| text.contains(&unit)) {
        if begin.elapsed() > MOVED {
            return Err(failed(io::ErrorKind::TimedOut.into()));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut in_force = in_force(pid).unwrap_or_default();
    in_force.missing = Some("systemd delegates no such controller to this user".into());
    Ok(Given {
        membership: Some(Membership::Scope { manager, unit }),
        limits: in_force,
    })
}

/// The arguments of `StartTransientUnit`: name, mode, properties, auxiliary units.
fn start(unit: &str, name: &str, pid: Pid, limits: &Limits) -> Body {
    let mut body = Body::new("ssa(sv)a(sa(sv))");
    body.text(unit);
    body.text("fail");
    body.array(8, |b| {
        b.property("Description", "s", |b| {
            b.text(&format!("podspawn pod {name}"))
        });
        b.property("CollectMode", "s", |b| b.text("inactive-or-failed"));
        b.property("Delegate", "b", |b| b.number(1));
        b.property("PIDs", "au", |b| {
            b.array(4, |b| b.number(pid.as_raw_nonzero().get().unsigned_abs()));
        });
        if let Some(cpus) = limits.cpus {
            let quota = (cpus * 1e6).round() as u64;
            b.property("CPUQuotaPerSecUSec", "t", |b| b.long(quota.max(1)));
        }
        if let Some(bytes) = limits.memory {
            b.property("MemoryMax", "t", |b| b.long(bytes));
        }
        if let Some(pids) = limits.pids {
            b.property("TasksMax", "t", |b| b.long(pids));
        }
    });
    body.array(8, |_| {});
    body
}
