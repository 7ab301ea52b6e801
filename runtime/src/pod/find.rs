//! Finding the pod, or making it: look or create, under the pod lock.
//!
//! Runs in the session. Joining a live pod takes the lock shared, so that any
//! number may come at once; only the first login of all creates.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use super::{
    ClaimError, Connection, ConnectionError, Lock, LockMode, PROTOCOL, PathsError, PodInfo,
    PodPaths, Reply, Request, claim, readable_by,
};
use crate::error::chain;
use crate::supervisor::{LaunchError, PodSpec, launch};

/// How long a live supervisor may take to answer, in seconds.
const ANSWER: u64 = 20;

/// Why there is no pod to attach to.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// A directory of the pod cannot be used.
    #[error(transparent)]
    Paths(#[from] PathsError),
    /// The pod lock cannot be taken.
    #[error("cannot take the pod's lock {path}")]
    Lock {
        /// The lock file.
        path: std::path::PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The user has enough pods.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// The supervisor does not answer.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// The supervisor refused.
    #[error("{0}")]
    Refused(String),
    /// The supervisor was there, and the pod did not come up.
    #[error("{0}")]
    NotCreated(String),
    /// The pod could not be created.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// What the pod is to be made of could not be had.
    #[error("{0}")]
    Spec(Box<dyn std::error::Error + Send + Sync>),
}

/// A counted connection to a live pod.
#[derive(Debug)]
pub struct Attached {
    /// What the supervisor says of the pod.
    pub info: PodInfo,
    /// A handle of the dev container's init, to enter its namespaces by.
    pub init: OwnedFd,
    /// The compiled filter of system calls.
    pub filter: OwnedFd,
    /// The attachment; the pod is held as long as it is open.
    pub connection: Connection,
    /// Which of the two it was.
    pub came: Came,
    /// How long joining or creating took, without what the pod was made of.
    pub took: Duration,
}

/// How a session came to its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// The pod was there.
    Joined,
    /// This session made it.
    Created,
}

impl Attached {
    fn after(mut self, came: Came, begin: Instant) -> Self {
        (self.came, self.took) = (came, begin.elapsed());
        self
    }

    /// Waits until the supervisor says that the pod ends, or is gone; false, if
    /// neither has happened within `patience`.
    #[must_use]
    pub fn ends_within(&self, patience: Duration) -> bool {
        readable_by(&self.connection, Instant::now() + patience).unwrap_or(true)
    }
}

/// Attaches to the pod if it is alive.
///
/// # Errors
///
/// When a directory of the pod is not the user's, or the supervisor does not answer.
pub fn attach(paths: &PodPaths) -> Result<Option<Attached>, FindError> {
    if paths.existing_run()?.is_none() {
        return Ok(None);
    }
    let begin = Instant::now();
    let (run, _lock) = wait_for_run(paths, LockMode::Shared)?;
    let attached = look(&run)?;
    Ok(attached.map(|connection| connection.after(Came::Joined, begin)))
}

/// Attaches to the pod, which is created from what `spec` returns if it is not
/// alive and the user has fewer than `most` others (0: any number). Of several
/// callers at once, one creates it.
///
/// # Errors
///
/// As [`attach`], and when the pod cannot be created.
pub fn attach_or_launch<E>(
    paths: &PodPaths,
    most: u64,
    spec: impl FnOnce() -> Result<PodSpec, E>,
) -> Result<Attached, FindError>
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let begin = Instant::now();
    {
        let (run, _lock) = wait_for_run(paths, LockMode::Shared)?;
        if let Some(attached) = look(&run)? {
            return Ok(attached.after(Came::Joined, begin));
        }
    }
    let claim = claim(paths, most)?;
    let spec = spec().map_err(|e| FindError::Spec(e.into()))?;
    let begin = Instant::now();
    let (run, lock) = wait_for_run(paths, LockMode::Exclusive)?;
    if let Some(attached) = look(&run)? {
        return Ok(attached.after(Came::Joined, begin));
    }
    let begin = Instant::now();
    let connection = launch(spec, run, Some(lock), claim)?;
    match greet(connection) {
        Ok(attached) => Ok(attached.after(Came::Created, begin)),
        // One whose run directory was removed has come back meanwhile.
        Err(error) => match attach(paths)? {
            Some(attached) => Ok(attached),
            None => Err(FindError::NotCreated(chain(&error))),
        },
    }
}

/// The run directory and the pod lock, as [`enter_run`], waiting for it.
fn wait_for_run(paths: &PodPaths, mode: LockMode) -> Result<(OwnedFd, Lock), FindError> {
    enter_run(paths, mode)?.ok_or_else(|| FindError::Lock {
        path: paths.lock(),
        source: io::ErrorKind::WouldBlock.into(),
    })
}

/// Makes the run directory of the pod if it is missing, and takes the lock in it.
/// `None`: it was to be tried only, and somebody has it.
///
/// A lock that has lost its name meanwhile protects nothing: the directory was
/// cleared away, and is made anew.
pub(super) fn enter_run(
    paths: &PodPaths,
    mode: LockMode,
) -> Result<Option<(OwnedFd, Lock)>, FindError> {
    const TRIES: usize = 100;
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for _ in 0..TRIES {
        let run = match paths.open_run() {
            Err(PathsError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                last = source;
                continue;
            }
            run => run?,
        };
        match Lock::take_in(&run, mode) {
            Ok(Some(lock)) if lock.has_name() => return Ok(Some((run, lock))),
            Ok(Some(_)) => {}
            Ok(None) => return Ok(None),
            Err(e) if e.kind() == io::ErrorKind::NotFound => last = e,
            Err(e) => {
                last = e;
                break;
            }
        }
    }
    Err(FindError::Lock {
        path: paths.lock(),
        source: last,
    })
}

fn look(run: &OwnedFd) -> Result<Option<Attached>, FindError> {
    let request = Request::Attach { protocol: PROTOCOL };
    let Some(connection) = begin(run, &request)? else {
        return Ok(None);
    };
    match greet(connection) {
        // Killed between connect and answer.
        Err(FindError::Connection(ConnectionError::Closed)) => Ok(None),
        other => other.map(Some),
    }
}

/// Connects and sends `request`; `None` when nobody is there.
///
/// The socket is reached through the descriptor of its directory: a long run
/// directory does not fit into a socket address.
fn begin(run: &OwnedFd, request: &Request) -> Result<Option<Connection>, ConnectionError> {
    let path = format!("/proc/self/fd/{}/control", run.as_raw_fd());
    let connection = match Connection::connect(path.as_ref()) {
        Ok(connection) => connection,
        Err(e) => match e.raw_os_error() {
            // The second is what a killed supervisor leaves.
            Some(libc::ENOENT | libc::ECONNREFUSED) => return Ok(None),
            _ => return Err(e.into()),
        },
    };
    match connection.send(request, &[]) {
        Ok(()) => Ok(Some(connection)),
        Err(e) if matches!(e.raw_os_error(), Some(libc::EPIPE | libc::ECONNRESET)) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

fn greet(connection: Connection) -> Result<Attached, FindError> {
    match connection.receive_within::<Reply>(ANSWER)? {
        (Reply::Attached(info), mut fds) if fds.len() == 2 => Ok(Attached {
            info: *info,
            filter: fds.remove(1),
            init: fds.remove(0),
            connection,
            came: Came::Joined,
            took: Duration::ZERO,
        }),
        (Reply::Attached(_), _) => Err(FindError::Refused(
            "the pod's supervisor did not send handles of the container and its filter".into(),
        )),
        (Reply::Failed { why }, _) => Err(FindError::Refused(why)),
        _ => Err(FindError::Refused(
            "the pod's supervisor answered something else than was asked".into(),
        )),
    }
}
