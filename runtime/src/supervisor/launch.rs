//! Bringing a supervisor up. The first half runs in the session that found no
//! pod, the second ([`run`]) in the process that it clones.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, pidfd_send_signal, waitpid};

use super::log::Log;
use super::{PodSpec, attend, setup};
use crate::cgroup::{self, Given};
use crate::error::chain;
use crate::idmap::{self, IdMapError};
use crate::pod::{Claim, Connection, Lock, Reply, readable_by};
use crate::record::AuditEvent;
use crate::seccomp::{self, FilterError};
use crate::sys::{self, Cloned, NamespaceFlags};

/// How long a pod may take to come up. A previous supervisor of the
/// same pod that is still ending its processes is waited for within it.
const START: Duration = Duration::from_secs(60);

/// Why no supervisor could be started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The namespaces were refused.
    #[error(
        "cannot create the pod's namespaces; this host may forbid user namespaces (sysctl user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns)"
    )]
    Namespaces(#[source] io::Error),
    /// The id maps were refused.
    #[error(transparent)]
    IdMap(#[from] IdMapError),
    /// Something else in the launcher.
    #[error("cannot start the pod's supervisor")]
    Io(#[from] io::Error),
}

/// Clones the supervisor and writes its id maps. Returns the first attachment;
/// its answer comes once the pod is up, or says why not.
///
/// `run` is the pod's run directory. `lock`, the pod lock, is held until the
/// supervisor listens or has failed, and is not inherited by it; `claim` is.
///
/// # Errors
///
/// When the host refuses namespaces or id maps.
pub fn launch(
    spec: PodSpec,
    run: OwnedFd,
    lock: Option<Lock>,
    claim: Claim,
) -> Result<Connection, LaunchError> {
    let (ours, theirs) = Connection::pair()?;
    match sys::clone_into(NamespaceFlags::POD).map_err(LaunchError::Namespaces)? {
        Cloned::Child => {
            drop((ours, lock));
            supervise(spec, run, theirs, claim)
        }
        Cloned::Parent { pid, pidfd } => {
            drop(theirs);
            let started = start(pid, &spec, &ours);
            if started.is_err() {
                let _ = pidfd_send_signal(&pidfd, Signal::KILL);
                let _ = waitpid(Some(pid), WaitOptions::empty());
            }
            drop(lock);
            started.map(|()| ours)
        }
    }
}

/// Writes the maps, tells the supervisor to go, and waits until its answer is
/// there to be read.
fn start(pid: Pid, spec: &PodSpec, connection: &Connection) -> Result<(), LaunchError> {
    idmap::write(pid, &spec.map)?;
    let name = spec.paths.name.as_str();
    let cgroup = cgroup::give(name, pid, &spec.host_user, &spec.limits);
    connection.send(&Go { cgroup }, &[])?;
    match readable_by(connection, Instant::now() + START)? {
        true => Ok(()),
        false => {
            let why = format!(
                "it was not ready after {} s; its log is {}",
                START.as_secs(),
                spec.paths.log().display()
            );
            Err(io::Error::other(why).into())
        }
    }
}

/// The message that says that the id maps are there, and the cgroup if there is one.
#[derive(serde::Serialize, serde::Deserialize)]
struct Go {
    cgroup: Given,
}

/// Role: the supervisor, from its first instruction. Never returns.
fn supervise(spec: PodSpec, run: OwnedFd, first: Connection, claim: Claim) -> ! {
    // What else the session has open, another pod's connection say, it must not keep for life.
    let own = [run.as_fd(), first.as_fd()].into_iter();
    let kept: Vec<_> = own.chain(claim.as_fd()).chain(spec.leases()).collect();
    sys::close_all_but(&kept);
    // Takes a while, and the launcher is busy with the maps for as long.
    let filter = seccomp::compile(&spec.security.capabilities);
    // Until the maps are written nothing can be created; a launcher that dies
    // before that closes its end.
    let went = first.receive::<Go>(rustix::net::RecvFlags::empty());
    let status = match went {
        Ok((go, _)) => run_pod(spec, filter, run, first, claim, go.cgroup),
        Err(_) => 1,
    };
    sys::exit(status)
}

fn run_pod(
    spec: PodSpec,
    filter: Result<OwnedFd, FilterError>,
    run: OwnedFd,
    first: Connection,
    claim: Claim,
    cgroup: Given,
) -> i32 {
    let mut log = Log::of(&spec);
    let pod = detach()
        .map_err(setup::SetupError::Detach)
        .and_then(|()| setup::set_up(&spec, filter?, &run, claim, cgroup, &mut log));
    match pod {
        Ok(pod) => {
            log.line(format_args!(
                "pod {} is up, image {}",
                spec.paths.name, spec.image.reference
            ));
            super::audit(
                &spec,
                AuditEvent::Create {
                    image: &spec.image.reference,
                },
            );
            for limit in pod.limits.iter().filter(|limit| !limit.in_force) {
                let (name, value, how) = (&limit.name, &limit.value, &limit.how);
                log.line(format_args!("limit {name} {value} is not in force: {how}"));
            }
            attend::attend(pod, &spec, run, first, &mut log);
            0
        }
        Err(e) => {
            let why = format!("cannot start pod {}: {}", spec.paths.name, chain(&e));
            log.line(&why);
            let _ = first.send(&Reply::Failed { why }, &[]);
            1
        }
    }
}

/// Leaves the session's terminal and descriptors behind: one that stayed open
/// would keep an ssh connection from ending.
fn detach() -> io::Result<()> {
    use rustix::fs::{Mode, OFlags, open};
    rustix::process::setsid()?;
    let null = open("/dev/null", OFlags::RDWR, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    let _ = rustix::thread::set_name(c"podspawn-pod");
    rustix::process::umask(Mode::from_raw_mode(0o022));
    rustix::process::chdir("/")?;
    sys::unshare_cgroup()
}
