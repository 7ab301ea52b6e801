//! One session in one of the user's pods, from the configuration to the end of
//! its program: what `spawn`, `shell`, `exec` and `run` share.
//!
//! Runs in a process that stays a single thread, because it creates namespaces
//! and enters others; an image that is missing is pulled in a child process,
//! which may have as many as it likes.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use podspawn_images::reference::Reference;
use podspawn_images::store::{Image, Store};
use podspawn_runtime::idmap::IdMap;
use podspawn_runtime::network::Network;
use podspawn_runtime::pod::{
    Attached, Mode, PodName, PodPaths, RunDir, attach, attach_or_launch, is_behind_module,
};
use podspawn_runtime::session::{self, Action, Ending, Session};
use podspawn_runtime::sockets::Forwarded;
use podspawn_runtime::supervisor::{Login, PodImage, PodSpec, Terms, UserChoice};

use crate::cli::{Place, namespace, pull};
use crate::config::{self, Config, PodUser};
use crate::exit::{Exit, Failure};
use crate::podfile::Podfile;
use crate::project::Project;
use crate::{guest, pasta, services};

/// Where shells are in images, after the configured one.
const SHELLS: [&str; 8] = [
    "/bin/bash",
    "/usr/bin/bash",
    "/usr/local/bin/bash",
    "/bin/sh",
    "/usr/bin/sh",
    "/bin/ash",
    "/bin/dash",
    "/busybox/sh",
];

/// Where a host's terminfo may be.
const TERMINFO: [&str; 3] = ["/etc/terminfo", "/lib/terminfo", "/usr/share/terminfo"];

/// What is to run, and where.
#[derive(Debug)]
pub struct Wanted {
    /// The pod.
    pub pod: PodName,
    /// Whether the pod is made if it is not there.
    pub create: bool,
    /// What runs in it.
    pub action: Action,
    /// Variables of the caller's that mean the same inside.
    pub env: Vec<(OsString, OsString)>,
    /// Whether the caller's terminal is to be the program's.
    pub terminal: bool,
    /// What the ssh connection brings along.
    pub forwarded: Forwarded,
}

/// Runs the session.
///
/// # Errors
///
/// One line, when no session could be had.
pub fn run(place: &Place, wanted: Wanted) -> Result<Exit, Failure> {
    let project = Project::of(place, &wanted.pod)?;
    let paths = paths(place, wanted.pod.clone())?;
    let attached = enter_project(place, &project, &paths, wanted.create)?;
    if !attached.info.services.is_empty() {
        let shell = wanted.action == Action::Shell;
        services::wait(&paths, shell, wanted.terminal)?;
    }
    let (shells, terminfo) = means(&project.config);
    run_in(&attached, wanted, shells, terminfo.len())
}

/// Runs the session in a pod that is there, without a look at the configuration:
/// inside of the pod's user namespace nobody can tell whose that is.
///
/// # Errors
///
/// One line, when the pod is not there.
pub fn join(
    run: &Path,
    wanted: Wanted,
    shells: Vec<PathBuf>,
    terminfo: usize,
) -> Result<Exit, Failure> {
    let run = RunDir::at(run, rustix::process::getuid().as_raw())?;
    // Joining needs no storage.
    let paths = PodPaths::new(&run, Path::new("/"), wanted.pod.clone());
    let attached = attach(&paths)?.ok_or_else(|| cannot_start(&paths.name))?;
    run_in(&attached, wanted, shells, terminfo)
}

fn run_in(
    attached: &Attached,
    wanted: Wanted,
    shells: Vec<PathBuf>,
    terminfo: usize,
) -> Result<Exit, Failure> {
    let session = Session {
        action: wanted.action,
        env: wanted.env,
        terminal: wanted.terminal,
        shells,
        terminfo,
        forwarded: wanted.forwarded,
        login: rustix::process::getuid().as_raw(),
    };
    Ok(match session::run(attached, &session)? {
        Ending::Exited(status) => Exit::Status(status),
        Ending::Signaled(signal) => Exit::Signal(signal),
    })
}

/// Shells to try, best first, and the host's directories of terminfo.
#[must_use]
pub fn means(config: &Config) -> (Vec<PathBuf>, Vec<PathBuf>) {
    (shells(config), terminfo())
}

fn cannot_start(pod: &PodName) -> Failure {
    Failure::new(format!(
        "pod {pod} is not running, and this connection cannot start it; \
         close the connection (ssh -O exit) and log in again"
    ))
}

/// Attaches to a pod, which is made if it is not there and `create` says so.
///
/// # Errors
///
/// One line, when there is no pod.
pub fn enter(place: &Place, pod: PodName, create: bool) -> Result<Attached, Failure> {
    let project = Project::of(place, &pod)?;
    enter_project(place, &project, &paths(place, pod)?, create)
}

fn paths(place: &Place, pod: PodName) -> Result<PodPaths, Failure> {
    let run = RunDir::of_user(place.directories.runtime.as_deref(), place.account.uid)?;
    Ok(PodPaths::new(&run, &place.root, pod))
}

fn enter_project(
    place: &Place,
    project: &Project,
    paths: &PodPaths,
    create: bool,
) -> Result<Attached, Failure> {
    let name = &paths.name;
    if create && !is_behind_module() {
        let (shells, terminfo) = means(&project.config);
        let create = || spec(place, project, paths, &shells, &terminfo);
        return Ok(attach_or_launch(paths, || create().map_err(Line))?);
    }
    attach(paths)?.ok_or_else(|| {
        if create {
            return cannot_start(name);
        }
        Failure::new(format!(
            "pod {name} is not running; podspawn shell {name} starts it"
        ))
    })
}

/// A failure as the cause of another.
#[derive(Debug)]
struct Line(Failure);

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.line())
    }
}

impl std::error::Error for Line {}

fn shells(config: &Config) -> Vec<PathBuf> {
    [config.shell.clone()]
        .into_iter()
        .chain(SHELLS.map(PathBuf::from))
        .collect()
}

fn terminfo() -> Vec<PathBuf> {
    TERMINFO
        .iter()
        .map(PathBuf::from)
        .filter(|dir| dir.is_dir())
        .collect()
}

/// What the pod is to be made of; pulls the image if it is not there.
fn spec(
    place: &Place,
    project: &Project,
    paths: &PodPaths,
    shells: &[PathBuf],
    terminfo: &[PathBuf],
) -> Result<PodSpec, Failure> {
    let Place { account, root, .. } = place;
    let Project { config, podfile } = project;
    let map = namespace::map_of(account)?;
    if std::io::stderr().is_terminal() {
        namespace::note(&map, account);
    }
    let dev = image(place, &config.image, &map)?;
    let mut services = Vec::new();
    for service in &podfile.services {
        let image = image(place, &service.image, &map)?;
        let (user, pod) = (&account.name, paths.name.as_str());
        services.push(services::spec(service, image, root, user, pod));
    }
    Ok(PodSpec {
        paths: paths.clone(),
        map,
        image: dev,
        guest: guest::install(root)?,
        terminfo: terminfo.to_vec(),
        login: Login {
            name: account.name.clone(),
            uid: account.uid,
            gid: account.gid,
        },
        services,
        env: Podfile::expanded(&podfile.env, &account.name, paths.name.as_str()),
        workspace: podfile.workspace.clone(),
        network: match config.network {
            config::Network::None => Network::None,
            config::Network::Pasta => Network::Pasta {
                program: pasta::find(),
            },
        },
        user: match config.user {
            PodUser::Login => UserChoice::Login,
            PodUser::Image => UserChoice::Image,
            PodUser::Root => UserChoice::Root,
        },
        shells: shells.to_vec(),
        terms: Terms {
            mode: Mode::GracePeriod,
            grace_period: config.grace_period,
            max_lifetime: None,
        },
    })
}

/// An image of the store; pulled if it is not there.
fn image(place: &Place, reference: &Reference, map: &IdMap) -> Result<PodImage, Failure> {
    // One that was pulled before the administrator decided otherwise is refused too.
    place.config.policy.check(reference)?;
    let image = match stored(reference, &place.root, map)? {
        Some(image) => image,
        None => {
            pull::for_session(place, reference)?;
            stored(reference, &place.root, map)?.ok_or_else(|| {
                Failure::new(format!("image {reference} was pulled and is gone again"))
            })?
        }
    };
    Ok(PodImage {
        reference: reference.to_string(),
        lease: Some(image.lease()?),
        config: image.config,
        lowers: image.layers,
    })
}

fn stored(reference: &Reference, root: &Path, map: &IdMap) -> Result<Option<Image>, Failure> {
    let (ownership, container_root) = namespace::ownership(map);
    let Some(store) = Store::open_outside(root, ownership, container_root)? else {
        return Ok(None);
    };
    Ok(store.image(reference)?)
}
