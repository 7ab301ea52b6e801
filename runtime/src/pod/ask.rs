//! Asking pods how they are, and ordering them to end, from outside.
//!
//! Runs in the verbs about pods. What holds true: it never waits for long,
//! whatever a supervisor does, and it keeps no pod alive.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use rustix::process::{Pid, PidfdFlags, Signal, getuid, pidfd_open, pidfd_send_signal};

use super::{
    Connection, ConnectionError, Lock, LockMode, PathsError, PodName, PodPaths, PodStatus, Reply,
    Request, RunDir,
};

/// How long supervisors may take to answer, all together.
const ANSWER: Duration = Duration::from_secs(2);

/// How long a pod may take to end in order, with everything that it stops first.
const ORDERLY: Duration = Duration::from_secs(90);

/// How long the kernel may take to take away what was killed.
const KILLED: Duration = Duration::from_secs(10);

/// How a pod is, seen from outside.
#[derive(Debug)]
pub enum Condition {
    /// Its supervisor answers.
    Alive(Box<Alive>),
    /// Somebody is making it.
    Starting,
    /// Its supervisor is there and does not answer.
    Silent {
        /// The process.
        supervisor: Option<i32>,
    },
    /// It does not run.
    Gone,
}

/// A pod whose supervisor answers.
#[derive(Debug)]
pub struct Alive {
    /// What it says.
    pub status: PodStatus,
    /// Its process.
    pub supervisor: Option<i32>,
}

/// What became of a pod that was to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// Nothing of it runs any more.
    Ended,
    /// It did not run.
    NotThere,
}

/// Why a pod was not ended.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// A directory of the pod cannot be used.
    #[error(transparent)]
    Paths(#[from] PathsError),
    /// The supervisor cannot be talked to.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// The supervisor does not answer.
    #[error("its supervisor does not answer; podspawn stop --now kills it")]
    Silent,
    /// It was told to end and does not.
    #[error("it has not ended after {0} s; podspawn stop --now kills it")]
    Slow(u64),
    /// It could not be killed.
    #[error("its supervisor cannot be killed")]
    Kill(#[source] io::Error),
}

/// The names of all pods that have a directory, in order.
///
/// # Errors
///
/// When a directory cannot be read.
pub fn names(run: &RunDir, store: &std::path::Path) -> Result<Vec<PodName>, PathsError> {
    let mut names = Vec::new();
    for dir in [run.path().to_owned(), store.join("pods")] {
        let failed = |source| PathsError::Io {
            path: dir.clone(),
            source,
        };
        let entries = match std::fs::read_dir(&dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            entries => entries.map_err(failed)?,
        };
        for entry in entries {
            let entry = entry.map_err(failed)?;
            if let Some(Ok(name)) = entry.file_name().to_str().map(str::parse::<PodName>)
                && entry.file_type().is_ok_and(|kind| kind.is_dir())
            {
                names.push(name);
            }
        }
    }
    names.sort();
    names.dedup();
    Ok(names)
}

/// How these pods are, in the same order. All are asked before the first answer
/// is waited for.
#[must_use]
pub fn look_at(pods: &[PodPaths]) -> Vec<Condition> {
    let asked: Vec<Asked> = pods.iter().map(ask).collect();
    let until = Instant::now() + ANSWER;
    asked.into_iter().map(|asked| asked.hear(until)).collect()
}

/// A pod that was asked, or of which there is nothing to ask.
enum Asked {
    Waits(Connection),
    Known(Condition),
}

fn ask(paths: &PodPaths) -> Asked {
    let Ok(Some(run)) = paths.existing_run() else {
        return Asked::Known(Condition::Gone);
    };
    match reach(&run) {
        Ok(connection) => match connection.send(&Request::Status, &[]) {
            Ok(()) => Asked::Waits(connection),
            Err(_) => Asked::Known(Condition::Gone),
        },
        // So many wait for it that there is no room.
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
            Asked::Known(Condition::Silent { supervisor: None })
        }
        Err(_) => match Lock::try_existing(&run, LockMode::TryShared) {
            Ok(None) => Asked::Known(Condition::Starting),
            _ => Asked::Known(Condition::Gone),
        },
    }
}

impl Asked {
    fn hear(self, until: Instant) -> Condition {
        let connection = match self {
            Self::Known(condition) => return condition,
            Self::Waits(connection) => connection,
        };
        let supervisor = process(&connection);
        match connection.receive_until::<Reply>(until) {
            Ok((Reply::Status(status), _)) => Condition::Alive(Box::new(Alive {
                status: *status,
                supervisor,
            })),
            Err(ConnectionError::Closed) => Condition::Gone,
            _ => Condition::Silent { supervisor },
        }
    }
}

/// Ends a pod, and returns once nothing of it runs. `now`: without giving its
/// programs time to end by themselves, and whether or not its supervisor listens.
///
/// # Errors
///
/// When it cannot be ended.
pub fn stop(paths: &PodPaths, now: bool) -> Result<Stopped, StopError> {
    let Some(run) = paths.existing_run()? else {
        return Ok(Stopped::NotThere);
    };
    let connection = match reach(&run) {
        Ok(connection) => connection,
        Err(e) => match e.raw_os_error() {
            Some(libc::ENOENT | libc::ECONNREFUSED) => return Ok(Stopped::NotThere),
            Some(libc::EAGAIN) => return Err(StopError::Silent),
            _ => return Err(ConnectionError::from(e).into()),
        },
    };
    let supervisor = handle(&connection);
    let ordered = order(&connection, now);
    if let Ok(Stopped::NotThere) = ordered {
        return Ok(Stopped::NotThere);
    }
    if ordered.is_ok() {
        let patience = if now { KILLED } else { ORDERLY };
        match ends_by(&connection, Instant::now() + patience) {
            true => return Ok(Stopped::Ended),
            false if !now => return Err(StopError::Slow(patience.as_secs())),
            false => {}
        }
    }
    if !now {
        return ordered;
    }
    let Some(supervisor) = supervisor else {
        return Err(StopError::Silent);
    };
    pidfd_send_signal(&supervisor, Signal::KILL).map_err(|e| StopError::Kill(e.into()))?;
    match super::readable_by(&supervisor, Instant::now() + KILLED) {
        Ok(true) => Ok(Stopped::Ended),
        _ => Err(StopError::Slow(KILLED.as_secs())),
    }
}

/// Gives the order. `NotThere`: the pod was about to end anyway.
fn order(connection: &Connection, now: bool) -> Result<Stopped, StopError> {
    match connection.send(&Request::Stop { now }, &[]) {
        Err(e) if e.raw_os_error() == Some(libc::EPIPE) => return Ok(Stopped::NotThere),
        Err(e) => return Err(ConnectionError::from(e).into()),
        Ok(()) => {}
    }
    match connection.receive_until::<Reply>(Instant::now() + ANSWER) {
        Ok((Reply::Stopping, _)) => Ok(Stopped::Ended),
        Ok(_) | Err(ConnectionError::TimedOut(_)) => Err(StopError::Silent),
        Err(ConnectionError::Closed) => Ok(Stopped::NotThere),
        Err(e) => Err(e.into()),
    }
}

/// Whether the other end is gone by then.
fn ends_by(connection: &Connection, until: Instant) -> bool {
    loop {
        match connection.receive_until::<serde_json::Value>(until) {
            Ok(_) | Err(ConnectionError::Garbled(_)) => {}
            Err(ConnectionError::TimedOut(_)) => return false,
            Err(_) => return true,
        }
    }
}

/// Whether the pod of this run directory has a supervisor.
pub(crate) fn somebody_listens(run: &OwnedFd) -> bool {
    match reach(run) {
        Ok(_) => true,
        Err(e) => !matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ECONNREFUSED)),
    }
}

fn reach(run: &OwnedFd) -> io::Result<Connection> {
    let path = format!("/proc/self/fd/{}/control", run.as_raw_fd());
    Connection::connect_at_once(path.as_ref())
}

/// Who listens at the other end, as this pid namespace numbers it.
fn process(connection: &Connection) -> Option<i32> {
    let peer = getsockopt(&connection.as_fd(), PeerCredentials).ok()?;
    (peer.pid() > 0).then_some(peer.pid())
}

/// A handle of the supervisor. Its number may be another process' by now: it has
/// to look like one.
fn handle(connection: &Connection) -> Option<OwnedFd> {
    use std::os::unix::fs::MetadataExt;
    let pid = process(connection)?;
    let handle = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    let of = std::fs::metadata(format!("/proc/{pid}/stat")).ok()?.uid();
    let is_ours = of == getuid().as_raw() || of == 0;
    (name.trim_end() == crate::supervisor::PROCESS_NAME && is_ours).then_some(handle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn pods_are_what_has_a_directory_with_a_pods_name() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::of_user(Some(dir.path()), getuid().as_raw()).unwrap();
        let store = dir.path().join("store");
        assert_eq!(names(&run, &store).unwrap(), []);
        fs::create_dir_all(store.join("pods/web")).unwrap();
        fs::create_dir_all(store.join("pods/default")).unwrap();
        for name in ["default", "api", ".hidden", "Not"] {
            fs::create_dir(run.path().join(name)).unwrap();
        }
        fs::write(run.path().join("file"), "").unwrap();
        let found: Vec<String> = names(&run, &store)
            .unwrap()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(found, ["api", "default", "web"]);
    }

    #[test]
    fn a_pod_without_a_supervisor_is_gone_or_about_to_come() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::of_user(Some(dir.path()), getuid().as_raw()).unwrap();
        let paths = PodPaths::new(&run, dir.path(), PodName::default_pod());
        let look = || look_at(std::slice::from_ref(&paths)).remove(0);
        assert!(matches!(look(), Condition::Gone));
        assert!(matches!(stop(&paths, true), Ok(Stopped::NotThere)));
        paths.open_run().unwrap();
        assert!(matches!(look(), Condition::Gone));
        let lock = Lock::take(&paths.lock(), LockMode::Exclusive).unwrap();
        assert!(matches!(look(), Condition::Starting));
        drop(lock);
        assert!(matches!(look(), Condition::Gone));
        assert!(matches!(stop(&paths, true), Ok(Stopped::NotThere)));
        assert!(!run.path().join("default/control").exists());
    }

    #[test]
    fn a_supervisor_that_says_nothing_is_silent_and_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::of_user(Some(dir.path()), getuid().as_raw()).unwrap();
        let paths = PodPaths::new(&run, dir.path(), PodName::default_pod());
        paths.open_run().unwrap();
        let socket = rustix::net::socket(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::SEQPACKET,
            None,
        )
        .unwrap();
        let address = rustix::net::SocketAddrUnix::new(paths.run().join("control")).unwrap();
        rustix::net::bind(&socket, &address).unwrap();
        rustix::net::listen(&socket, 5).unwrap();
        let me = i32::try_from(std::process::id()).unwrap();
        let found = look_at(&[paths.clone(), paths.clone()]);
        for condition in found {
            assert!(
                matches!(condition, Condition::Silent { supervisor } if supervisor == Some(me)),
                "{condition:?}"
            );
        }
        assert!(matches!(stop(&paths, false), Err(StopError::Silent)));
        // This test is no supervisor, and so is not killed.
        assert!(matches!(stop(&paths, true), Err(StopError::Silent)));
    }
}
