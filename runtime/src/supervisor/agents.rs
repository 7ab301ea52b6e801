//! The agents' sockets inside the pod. Runs in the supervisor.
//!
//! A small tmpfs of the supervisor's is shared, and the dev container has it
//! read-only as a slave at [`agent::DIR`]: what is mounted there later appears
//! inside, what is unmounted goes. Only the session user may enter it. Services
//! do not have it at all.
//!
//! ```text
//! agent-PID.sock   one a session with an agent, PID as the host numbers it
//! current          symlink to the newest of them
//! ```

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use caps::{CapSet, CapsHashSet};
use rustix::fs::{XattrFlags, setxattr};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount,
};

use super::mounts;
use crate::pod::SessionUser;
use crate::sockets::agent::{Agent, AgentError};

/// The directory of the supervisor's own that the container shows.
pub const NAME: &str = "ssh-agent";

const CURRENT: &str = "current";

/// The sockets that are shown now.
#[derive(Debug)]
pub struct Agents {
    dir: PathBuf,
    /// Whose sockets may be shown.
    login: u32,
    /// Who may use them, where that is somebody else and not root.
    guest: Option<u32>,
    /// Oldest first.
    live: Vec<String>,
}

impl Agents {
    /// Makes the directory `dir` for them, before the container is created.
    /// `login` is who logged in on the host, `user` who sessions are inside.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the mount.
    pub fn prepare(dir: PathBuf, login: u32, user: &SessionUser) -> io::Result<Self> {
        fs::create_dir(&dir)?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount(
            "ssh-agent",
            &dir,
            "tmpfs",
            flags,
            Some(c"mode=0700,size=64k"),
        )?;
        chown(&dir, Some(user.uid), Some(user.gid))?;
        mount_change(&dir, MountPropagationFlags::SHARED)?;
        Ok(Self {
            dir,
            login,
            guest: (user.uid != login && user.uid != 0).then_some(user.uid),
            live: Vec::new(),
        })
    }

    /// Shows the socket at `path` of the host to the session `pid`, which saw it
    /// as `seen`, and returns its name inside.
    ///
    /// # Errors
    ///
    /// When the user may not reach it, or it is not what the session saw.
    pub fn show(&mut self, path: &str, pid: u32, seen: &OwnedFd) -> Result<String, AgentError> {
        let agent = without_capabilities(|| Agent::look(path, self.login))?;
        agent.same_as(seen)?;
        let name = self.free_name(pid);
        let at = self.dir.join(&name);
        let shown = self
            .admit(&agent.socket)
            .and_then(|()| bind(&agent.socket, &at));
        if let Err(source) = shown {
            let _ = fs::remove_file(&at);
            return Err(AgentError::Mount {
                path: path.into(),
                source,
            });
        }
        self.live.push(name.clone());
        self.point();
        Ok(name)
    }

    /// The session of the socket `name` is over.
    pub fn hide(&mut self, name: &str) {
        self.live.retain(|n| n != name);
        self.point();
        let at = self.dir.join(name);
        let _ = unmount(&at, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
        let _ = fs::remove_file(&at);
    }

    /// Several sessions have one number where their host has several pid namespaces.
    fn free_name(&self, pid: u32) -> String {
        let mut name = format!("agent-{pid}.sock");
        let mut n = 1u32;
        while self.live.contains(&name) {
            name = format!("agent-{pid}-{n}.sock");
            n += 1;
        }
        name
    }

    /// Lets `current` lead to the newest.
    fn point(&self) {
        let (current, new) = (self.dir.join(CURRENT), self.dir.join(".current"));
        // Nothing but this process writes here; what fails is a link that is missing.
        let _ = match self.live.last() {
            Some(newest) => symlink(newest, &new).and_then(|()| fs::rename(&new, &current)),
            None => fs::remove_file(&current),
        };
    }

    /// Where sessions are neither the login user nor root they need leave to connect.
    fn admit(&self, socket: &OwnedFd) -> io::Result<()> {
        let Some(uid) = self.guest else { return Ok(()) };
        let path = format!("/proc/self/fd/{}", socket.as_raw_fd());
        let list = access_list(uid);
        setxattr(path, "system.posix_acl_access", &list, XattrFlags::empty())?;
        Ok(())
    }
}

/// Mounts the socket on a new file at `at`.
fn bind(socket: &OwnedFd, at: &Path) -> io::Result<()> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(at)?;
    mounts::bind(socket, at)
}

/// Runs `look` with the user's ids alone: the supervisor's capabilities would open
/// directories that the user may not enter, where owner and group are both mapped.
fn without_capabilities<T>(look: impl FnOnce() -> T) -> T {
    let saved = caps::read(None, CapSet::Effective);
    let _ = caps::set(None, CapSet::Effective, &CapsHashSet::new());
    let result = look();
    if let Ok(saved) = saved {
        let _ = caps::set(None, CapSet::Effective, &saved);
    }
    result
}

/// Read and write for the owner and for `uid` (`acl(5)`, as the kernel's
/// `posix_acl_xattr.h` lays it out).
fn access_list(uid: u32) -> Vec<u8> {
    const VERSION: u32 = 2;
    const NOBODY: u32 = u32::MAX;
    const READ_WRITE: u16 = 6;
    let entries: [(u16, u16, u32); 5] = [
        (0x01, READ_WRITE, NOBODY), // the owner
        (0x02, READ_WRITE, uid),
        (0x04, 0, NOBODY),          // the group
        (0x10, READ_WRITE, NOBODY), // the mask
        (0x20, 0, NOBODY),          // others
    ];
    let mut list = VERSION.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        list.extend(tag.to_le_bytes());
        list.extend(permissions.to_le_bytes());
        list.extend(id.to_le_bytes());
    }
    list
}
