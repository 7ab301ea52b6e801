//! From new namespaces to a running dev container: every step of a pod's start,
//! in order. Runs in the supervisor. Nothing is undone on failure: the process
//! ends, and with it the namespaces.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with,
};

use super::agents::Agents;
use super::board::Board;
use super::container::{self, ContainerError, DevContainer};
use super::helper::Helper;
use super::log::Log;
use super::mounts::{self, MountError, Overlay};
use super::provision::{self, ProvisionError};
use super::service::{self, ServiceError};
use super::{PodSpec, agents, storage};
use crate::network::{Bridge, Egress, EgressError, leave_host};
use crate::pod::{Lock, LockMode, PathsError, PodInfo, SessionUser};

/// Why a pod did not come up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The session's terminal could not be left.
    #[error("cannot detach from the session")]
    Detach(#[source] io::Error),
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
    /// What they are told.
    pub info: PodInfo,
    /// The storage lock.
    pub storage: Lock,
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
pub fn set_up(spec: &PodSpec, run: &OwnedFd, log: &mut Log) -> Result<Pod, SetupError> {
    let scratch = spec.paths.scratch();
    let board = Board::default();
    let mut egress = leave_host(&spec.network, &scratch.join("egress"), board.clone())?;
    let storage_error = |source| SetupError::Storage {
        path: spec.paths.storage().into(),
        source,
    };
    let storage = Lock::on(spec.paths.open_storage()?, LockMode::Exclusive)
        .map_err(storage_error)?
        .ok_or_else(|| storage_error(io::ErrorKind::WouldBlock.into()))?;
    let (upper, work) =
        storage::fresh(spec.paths.storage(), spec.image.lowers.last()).map_err(storage_error)?;

    std::fs::create_dir_all(&scratch).map_err(storage_error)?;
    mounts::prepare(&scratch)?;
    // Beside the container: pasta takes as long as everything that follows.
    egress.start();
    let rootfs = scratch.join("rootfs");
    std::fs::create_dir(&rootfs).map_err(storage_error)?;
    let overlay = Overlay {
        lowers: &spec.image.lowers,
        upper: &upper,
        work: &work,
    };
    overlay.mount(&rootfs, &scratch)?;

    let mut bridge = bridge(spec, &egress)?;
    let names = names(spec, bridge.as_ref());
    let user = provision::provision(&rootfs, spec, egress.resolv_conf(), &names)?;
    let agents = Agents::prepare(scratch.join(agents::NAME), spec.login.uid, &user)
        .map_err(SetupError::Agents)?;
    let dev = container::start(spec, &scratch, &rootfs)?;
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
    for line in egress.settle() {
        log.line(line);
    }
    if let Some(bridge) = bridge.filter(|_| !egress.is_off())
        && let Err(e) = bridge.masquerade()
    {
        log.line(format_args!("services have no egress: {e}"));
    }
    // The last is the first to be stopped.
    let mut helpers: Vec<Box<dyn Helper>> = vec![Box::new(egress)];
    helpers.extend(services.map(|s| Box::new(s) as Box<dyn Helper>));
    let listener = listen_in(run).map_err(SetupError::Control)?;
    Ok(Pod {
        dev,
        listener,
        info: info(spec, user),
        storage,
        helpers,
        agents,
        board,
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
    let line = |(n, service): (usize, &super::ServiceSpec)| {
        format!("{}\t{}\n", bridge.address_of(n), service.name)
    };
    spec.services.iter().enumerate().map(line).collect()
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
            .map(|dir| dir.to_string_lossy().into_owned()),
        services: spec.services.iter().map(|s| s.name.clone()).collect(),
        user,
        working_dir: config
            .and_then(|c| c.working_dir().clone())
            .filter(|dir| dir.starts_with('/'))
            .unwrap_or_else(|| "/".into()),
        has_groups: !spec.map.is_single(),
        has_root: spec.map.has_uid(0),
        network: std::fs::metadata("/proc/self/ns/net").map_or(0, |m| m.ino()),
        agents: true,
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
fn listen_in(run: &OwnedFd) -> io::Result<OwnedFd> {
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
