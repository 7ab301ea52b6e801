//! From new namespaces to a running dev container: every step of a pod's start,
//! in order. Runs in the supervisor. Nothing is undone on failure: the process
//! ends, and with it the namespaces.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with,
};

use super::agents::Agents;
use super::board::Board;
use super::container::{self, ContainerError, DevContainer};
use super::helper::Helper;
use super::home::{self, HomeChoice};
use super::kept::KeptMount;
use super::log::Log;
use super::mounts::{self, MountError, Overlay};
use super::provision::{self, ProvisionError};
use super::service::{self, ServiceError};
use super::workspace::{self, WorkspaceError};
use super::{PodSpec, agents, storage};
use crate::cgroup::Given;
use crate::limits::{self, ProgramLimits};
use crate::network::{Bridge, Egress, EgressError, leave_host};
use crate::pod::{
    Claim, Limit, Lock, LockMode, PathsError, PodInfo, SessionUser, somebody_listens,
};
use crate::rootfs::Rootfs;
use crate::seccomp::FilterError;

/// How long to wait between two looks for the storage lock.
const AGAIN: Duration = Duration::from_millis(20);

/// Why a pod did not come up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The session's terminal could not be left.
    #[error("cannot detach from the session")]
    Detach(#[source] io::Error),
    /// There is no filter of system calls.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// A directory of the pod cannot be used.
    #[error(transparent)]
    Paths(#[from] PathsError),
    /// The writable directories could not be made.
    #[error("cannot prepare the pod's storage {path}")]
    Storage {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is a supervisor of this pod.
    #[error("another supervisor of this pod is there already")]
    Another,
    /// The home could not be made.
    #[error("cannot prepare the home {path}")]
    Home {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no workspace.
    #[error(transparent)]
    Workspace(#[from] WorkspaceError),
    /// A mount failed.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// The image's files could not be adapted to the user.
    #[error(transparent)]
    Provision(#[from] ProvisionError),
    /// There is no place for the agents of sessions.
    #[error("cannot make a place for the sockets of ssh agents")]
    Agents(#[source] io::Error),
    /// The network namespace could not be set up.
    #[error(transparent)]
    Network(#[from] EgressError),
    /// The network of the services could not be made.
    #[error("cannot make the network of the pod's services")]
    Bridge(#[source] io::Error),
    /// A service cannot run.
    #[error("service {name}")]
    Service {
        /// Which.
        name: String,
        /// Why.
        source: Box<ServiceError>,
    },
    /// The container did not start.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// The control socket could not be made.
    #[error("cannot listen on the pod's control socket")]
    Control(#[source] io::Error),
}

/// A pod that is up.
pub struct Pod {
    /// The dev container.
    pub dev: DevContainer,
    /// Where sessions connect.
    pub listener: OwnedFd,
    /// The filter of system calls that they put in force.
    pub filter: OwnedFd,
    /// What they are told.
    pub info: PodInfo,
    /// What it may use, as it is told.
    pub limits: Vec<Limit>,
    /// The storage lock, and the claim to be one of the user's pods.
    pub storage: (Lock, Claim),
    /// What else has to be looked after.
    pub helpers: Vec<Box<dyn Helper>>,
    /// The agents of its sessions.
    pub agents: Agents,
    /// What they know.
    pub board: Board,
}

/// Brings the pod up.
///
/// # Errors
///
/// The first step that failed.
pub fn set_up(
    spec: &PodSpec,
    filter: OwnedFd,
    run: &OwnedFd,
    claim: Claim,
    cgroup: Given,
    log: &mut Log,
) -> Result<Pod, SetupError> {
    let scratch = spec.paths.scratch();
    let board = Board::default();
    let mut egress = leave_host(&spec.network, board.clone())?;
    let storage_error = |source| SetupError::Storage {
        path: spec.paths.storage().into(),
        source,
    };
    let storage = wait_for_storage(spec, run)?;
    let (dir, top) = (spec.paths.storage(), spec.image.lowers.last());
    let (upper, work) = match spec.keep_root {
        true => storage::kept(dir, top),
        false => storage::fresh(dir, top),
    }
    .map_err(storage_error)?;

    std::fs::create_dir_all(&scratch).map_err(storage_error)?;
    mounts::prepare(&scratch)?;
    // Beside the container: pasta takes as long as everything that follows.
    if let Some(line) = egress.start() {
        log.line(line);
    }
    let rootfs = scratch.join("rootfs");
    std::fs::create_dir(&rootfs).map_err(storage_error)?;
    let overlay = Overlay {
        lowers: &spec.image.lowers,
        upper: &upper,
        work: &work,
        kept: spec.keep_root,
    };
    overlay.mount(&rootfs, &scratch)?;

    let mut bridge = bridge(spec, &egress)?;
    let names = names(spec, bridge.as_ref());
    let user = provision::provision(&rootfs, spec, egress.resolv_conf(), &names)?;
    let home = home_mount(spec, &user, &rootfs, &scratch.join("home"))?;
    let workspace = workspace::prepare(spec, &user, &scratch)?;
    let kept: Vec<KeptMount> = home.into_iter().chain(workspace).collect();
    let agents = Agents::prepare(scratch.join(agents::NAME), spec.login.uid, &user)
        .map_err(SetupError::Agents)?;
    let dev = container::start(spec, &scratch, &rootfs, &kept)?;
    let services = match &mut bridge {
        Some(bridge) => Some(
            service::start_all(spec, bridge, &names, egress.resolv_conf(), board.clone()).map_err(
                |(name, source)| SetupError::Service {
                    name,
                    source: Box::new(source),
                },
            )?,
        ),
        None => None,
    };
    if let Some(bridge) = bridge.filter(|_| !egress.is_off())
        && let Err(e) = bridge.masquerade()
    {
        log.line(format_args!("services have no egress: {e}"));
    }
    // The last is the first to be stopped.
    let mut helpers: Vec<Box<dyn Helper>> = vec![Box::new(egress)];
    helpers.extend(services.map(|s| Box::new(s) as Box<dyn Helper>));
    let listener = listen_in(run).map_err(SetupError::Control)?;
    let by_namespace = limits::counts_processes_by_namespace();
    Ok(Pod {
        dev,
        listener,
        info: PodInfo {
            limits: limits::of_programs(&spec.limits, &cgroup.limits, by_namespace),
            cgroup: cgroup.membership,
            ..info(spec, user)
        },
        limits: limits::report(&spec.limits, &cgroup.limits, by_namespace),
        storage: (storage, claim),
        filter,
        helpers,
        agents,
        board,
    })
}

/// Takes the storage lock, once a supervisor that is about to end has released it.
/// One that is not, and whose run directory was removed, makes itself known there.
fn wait_for_storage(spec: &PodSpec, run: &OwnedFd) -> Result<Lock, SetupError> {
    loop {
        let dir = spec.paths.open_storage()?;
        let lock = Lock::on(dir, LockMode::TryExclusive).map_err(|source| SetupError::Storage {
            path: spec.paths.storage().into(),
            source,
        })?;
        match lock {
            // One that was removed meanwhile keeps nobody out.
            Some(lock) if lock.has_name() => return Ok(lock),
            Some(_) => {}
            None if somebody_listens(run) => return Err(SetupError::Another),
            None => std::thread::sleep(AGAIN),
        }
    }
}

fn home_mount(
    spec: &PodSpec,
    user: &SessionUser,
    rootfs: &Path,
    at: &Path,
) -> Result<Option<KeptMount>, SetupError> {
    let root = Rootfs::open(rootfs).map_err(|source| SetupError::Home {
        path: "/".into(),
        source,
    });
    home::prepare(&spec.home, user, &root?, at).map_err(|source| SetupError::Home {
        path: match &spec.home {
            HomeChoice::Kept(dir) | HomeChoice::Host(dir) => dir.clone(),
            HomeChoice::Ephemeral => user.home.clone().into(),
        },
        source,
    })
}

/// The network of the services, if there are any.
fn bridge(spec: &PodSpec, egress: &Egress) -> Result<Option<Bridge>, SetupError> {
    if spec.services.is_empty() {
        return Ok(None);
    }
    let bridge = Bridge::make(egress.own()).map_err(SetupError::Bridge)?;
    Ok(Some(bridge))
}

/// What `/etc/hosts` says of them, on every side.
fn names(spec: &PodSpec, bridge: Option<&Bridge>) -> String {
    let Some(bridge) = bridge else {
        return String::new();
    };
    let mut lines = String::new();
    for (n, service) in spec.services.iter().enumerate() {
        for address in bridge.addresses_of(n) {
            lines.push_str(&format!("{address}\t{}\n", service.name));
        }
    }
    lines
}

fn info(spec: &PodSpec, user: SessionUser) -> PodInfo {
    let config = spec.image.config.config().as_ref();
    PodInfo {
        pod: spec.paths.name.to_string(),
        image: spec.image.reference.clone(),
        env: environment(spec),
        workspace: spec
            .workspace
            .as_ref()
            .map(|workspace| workspace.at.to_string_lossy().into_owned()),
        comes_up: false,
        user,
        working_dir: config
            .and_then(|c| c.working_dir().clone())
            .filter(|dir| dir.starts_with('/'))
            .unwrap_or_else(|| "/".into()),
        has_groups: !spec.map.is_single(),
        has_root: spec.map.has_uid(0),
        network: std::fs::metadata("/proc/self/ns/net").map_or(0, |m| m.ino()),
        agents: true,
        limits: ProgramLimits::default(),
        cgroup: None,
        privileges: spec.security.for_sessions(),
    }
}

/// The image's variables, and the pod's own over them.
fn environment(spec: &PodSpec) -> Vec<String> {
    let name = |line: &str| line.split('=').next().unwrap_or_default().to_owned();
    let config = spec.image.config.config().as_ref();
    let mut env = config.and_then(|c| c.env().clone()).unwrap_or_default();
    env.retain(|line| spec.env.iter().all(|own| name(own) != name(line)));
    env.extend(spec.env.iter().cloned());
    env
}

/// Listens on `control` in the run directory. The name is made once the socket
/// accepts, so that nobody finds one that does not.
pub fn listen_in(run: &OwnedFd) -> io::Result<OwnedFd> {
    let dir = format!("/proc/self/fd/{}", run.as_raw_fd());
    let (new, name) = (format!("{dir}/control.new"), format!("{dir}/control"));
    match std::fs::remove_file(&new) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    bind(&socket, &SocketAddrUnix::new(new.as_str())?)?;
    listen(&socket, 4096)?;
    std::fs::rename(new, name)?;
    Ok(socket)
}
