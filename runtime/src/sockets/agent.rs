//! The socket of the client's ssh agent on the host: `/tmp/ssh-*/agent.*` of sshd
//! until 10.0, `~/.ssh/agent/*` since.
//!
//! The session looks when it starts, the supervisor once more when it mounts what
//! it finds; both must find the same socket. It is pinned by a descriptor, so
//! nothing can take its place between look and use.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{CWD, FileType, Mode, OFlags, Stat, fstat, openat};

/// Where agents are inside: one socket a session, and `current`.
pub const DIR: &str = "/run/ssh-agent";

/// A socket of the user's on the host.
#[derive(Debug)]
pub struct Agent {
    /// Its path, absolute.
    pub path: String,
    /// The socket itself, opened to point at it only.
    pub socket: OwnedFd,
}

/// Why an agent's socket is not shown inside.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// There is nothing, or it cannot be reached with the user's own ids.
    #[error("cannot look at {path}")]
    Look {
        /// The path.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The path would not mean the same to the supervisor.
    #[error("{0:?} is no absolute path in UTF-8")]
    Path(String),
    /// A symlink could lead anywhere by the time it is used.
    #[error("{0} is a symlink")]
    Symlink(String),
    /// Something else than a socket.
    #[error("{0} is no socket")]
    NoSocket(String),
    /// Somebody else's.
    #[error("{path} belongs to uid {owner}")]
    Owner {
        /// The path.
        path: String,
        /// Whom it belongs to.
        owner: u32,
    },
    /// Another file took its place.
    #[error("{0} was replaced by something else")]
    Replaced(String),
    /// The kernel or the file system refused.
    #[error("cannot show {path} inside")]
    Mount {
        /// The path.
        path: String,
        /// Why.
        source: io::Error,
    },
}

impl Agent {
    /// Looks at `path` with the ids and capabilities that the caller has.
    ///
    /// # Errors
    ///
    /// Unless it is a socket that belongs to `uid`, by a path that is no symlink.
    pub fn look(path: &str, uid: u32) -> Result<Self, AgentError> {
        if !path.starts_with('/') {
            return Err(AgentError::Path(path.into()));
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let looked = openat(CWD, path, flags, Mode::empty()).and_then(|fd| Ok((fstat(&fd)?, fd)));
        let (stat, socket) = looked.map_err(|e| AgentError::Look {
            path: path.into(),
            source: e.into(),
        })?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Socket if stat.st_uid == uid => Ok(Self {
                path: path.into(),
                socket,
            }),
            FileType::Socket => Err(AgentError::Owner {
                path: path.into(),
                owner: stat.st_uid,
            }),
            FileType::Symlink => Err(AgentError::Symlink(path.into())),
            _ => Err(AgentError::NoSocket(path.into())),
        }
    }

    /// Whether `seen`, which somebody else opened, is the same socket.
    ///
    /// # Errors
    ///
    /// When it is another one.
    pub fn same_as(&self, seen: &OwnedFd) -> Result<(), AgentError> {
        let id = |stat: Stat| (stat.st_dev, stat.st_ino);
        match (fstat(&self.socket), fstat(seen)) {
            (Ok(ours), Ok(theirs)) if id(ours) == id(theirs) => Ok(()),
            _ => Err(AgentError::Replaced(self.path.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    fn uid() -> u32 {
        rustix::process::getuid().as_raw()
    }

    #[test]
    fn only_a_socket_of_the_users_own_by_its_own_name_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let _listener = UnixListener::bind(at("agent")).unwrap();
        std::os::unix::fs::symlink("agent", at("link")).unwrap();
        std::fs::write(at("file"), "").unwrap();
        assert!(Agent::look(&at("agent"), uid()).is_ok());
        let why = |path: &str, uid| Agent::look(path, uid).unwrap_err();
        assert!(matches!(
            why(&at("agent"), uid() + 1),
            AgentError::Owner { .. }
        ));
        assert!(matches!(why(&at("link"), uid()), AgentError::Symlink(_)));
        assert!(matches!(why(&at("file"), uid()), AgentError::NoSocket(_)));
        assert!(matches!(why(&at("none"), uid()), AgentError::Look { .. }));
        assert!(matches!(why("agent", uid()), AgentError::Path(_)));
    }

    #[test]
    fn a_socket_that_took_the_place_of_another_is_not_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent");
        let name = path.to_str().unwrap();
        let first = UnixListener::bind(&path).unwrap();
        let seen = Agent::look(name, uid()).unwrap();
        assert!(
            Agent::look(name, uid())
                .unwrap()
                .same_as(&seen.socket)
                .is_ok()
        );
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(
            Agent::look(name, uid()),
            Err(AgentError::Look { .. })
        ));
        let _second = UnixListener::bind(&path).unwrap();
        let found = Agent::look(name, uid()).unwrap();
        let error = found.same_as(&seen.socket).unwrap_err();
        assert!(matches!(error, AgentError::Replaced(_)), "{error}");
        drop(first);
    }
}
