//! What a pod is to be made of: from the configuration, the Podfile and the images
//! to what the runtime is told.
//!
//! Runs in the session that makes the pod, a single thread; an image that is missing
//! is pulled in a child process, which may have as many as it likes.

use std::io::IsTerminal;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use podspawn_images::reference::Reference;
use podspawn_images::store::{Image, Store};
use podspawn_runtime::cgroup;
use podspawn_runtime::idmap::IdMap;
use podspawn_runtime::limits::Limits;
use podspawn_runtime::network::Network;
use podspawn_runtime::pod::{Mode, PodName, PodPaths};
use podspawn_runtime::supervisor::{
    HomeChoice, Login, PodImage, PodSpec, Terms, UserChoice, Workspace, WorkspaceFiles,
};

use crate::account::Account;
use crate::cli::{Place, namespace, pull};
use crate::config::{self, Config, Home, PodUser};
use crate::exit::Failure;
use crate::podfile::{Mount, Podfile};
use crate::project::Project;
use crate::session::records;
use crate::{guest, pasta, services, workspace};

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

/// What the pod is to be made of; pulls its images if they are not there.
///
/// # Errors
///
/// One line about what cannot be had.
pub fn of(
    place: &Place,
    project: &Project,
    mode: Option<Mode>,
    paths: &PodPaths,
) -> Result<PodSpec, Failure> {
    let Place { account, root, .. } = place;
    let Project {
        config, podfile, ..
    } = project;
    let map = namespace::map_of(account)?;
    if std::io::stderr().is_terminal() {
        namespace::note(&map, account);
    }
    let dev = pod_image(&config.image, image(place, &config.image, &map)?)?;
    let mut services = Vec::new();
    for service in &podfile.services {
        let image = image(place, &service.image, &map)?;
        let check = services::check(service, &image)?;
        let image = pod_image(&service.image, image)?;
        let (user, pod) = (&account.name, paths.name.as_str());
        services.push(services::spec(service, image, check, root, user, pod));
    }
    Ok(PodSpec {
        services,
        ..of_image(place, project, mode, paths, map, dev)?
    })
}

/// The same of an image that is there, without services.
///
/// # Errors
///
/// When the guest cannot be written, or the home is not the user's.
pub fn of_image(
    place: &Place,
    project: &Project,
    mode: Option<Mode>,
    paths: &PodPaths,
    map: IdMap,
    image: PodImage,
) -> Result<PodSpec, Failure> {
    let Place { account, root, .. } = place;
    let Project {
        config, podfile, ..
    } = project;
    let (shells, terminfo) = means(config);
    // A pod for one command keeps nothing.
    let keeps = mode.is_none();
    let mode = mode.unwrap_or(config.mode);
    Ok(PodSpec {
        paths: paths.clone(),
        map,
        image,
        guest: guest::install(root)?,
        terminfo,
        login: Login {
            name: account.name.clone(),
            uid: account.uid,
            gid: account.gid,
        },
        services: Vec::new(),
        env: Podfile::expanded(&podfile.env, &account.name, paths.name.as_str()),
        workspace: workspace(podfile, keeps, root, &paths.name),
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
        records: records(place),
        shells,
        security: config.security.security(),
        terms: Terms {
            mode,
            grace_period: config.grace_period,
            max_lifetime: config.max_lifetime,
        },
        host_user: host_user(place, mode),
        limits: Limits {
            cpus: Some(config.cpus).filter(|n| *n > 0.0),
            memory: Some(config.memory).filter(|n| *n > 0),
            pids: Some(config.pids_limit).filter(|n| *n > 0),
        },
        home: home(config, mode, keeps, account, paths)?,
        keep_root: config.keep_root && keeps,
    })
}

/// An image; it is pulled if it is not there.
///
/// # Errors
///
/// When it cannot be had, or is not allowed.
pub fn image(place: &Place, reference: &Reference, map: &IdMap) -> Result<Image, Failure> {
    // One that was pulled before the administrator decided otherwise is refused too.
    place.config.policy.check(reference)?;
    if let Some(image) = stored(reference, &place.root, map)? {
        return Ok(image);
    }
    pull::for_session(place, reference)?;
    stored(reference, &place.root, map)?
        .ok_or_else(|| Failure::new(format!("image {reference} was pulled and is gone again")))
}

fn pod_image(reference: &Reference, image: Image) -> Result<PodImage, Failure> {
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

/// The user as their systemd knows them, which makes the pod's cgroup.
#[must_use]
pub fn host_user(place: &Place, mode: Mode) -> cgroup::User {
    let Account { name, uid, .. } = &place.account;
    let usual = PathBuf::from(format!("/run/user/{uid}"));
    cgroup::User {
        uid: *uid,
        runtime: place
            .directories
            .runtime
            .iter()
            .cloned()
            .chain([usual])
            .collect(),
        lingers: Path::new("/var/lib/systemd/linger").join(name).exists(),
        outlives_login: mode != Mode::DestroyOnDisconnect,
    }
}

/// Where sessions begin, and whose files are there.
fn workspace(podfile: &Podfile, keeps: bool, root: &Path, name: &PodName) -> Option<Workspace> {
    let dir = || workspace::path(root, name);
    Some(Workspace {
        at: podfile.workspace_of(name)?,
        files: match podfile.mount.filter(|_| keeps).unwrap_or_default() {
            Mount::None => WorkspaceFiles::Pod,
            Mount::Bind => WorkspaceFiles::Kept(dir()),
            Mount::Copy => WorkspaceFiles::Copied(dir()),
        },
    })
}

/// Where the session user's home comes from.
fn home(
    config: &Config,
    mode: Mode,
    keeps: bool,
    account: &Account,
    paths: &PodPaths,
) -> Result<HomeChoice, Failure> {
    let usual = match mode {
        Mode::Persistent => Home::Persistent,
        Mode::GracePeriod | Mode::DestroyOnDisconnect => Home::Ephemeral,
    };
    let wanted = match config.home.unwrap_or(usual) {
        // Nobody comes back to it.
        Home::Persistent if !keeps => Home::Ephemeral,
        wanted => wanted,
    };
    Ok(match (wanted, &config.homes_dir) {
        (Home::Ephemeral, _) => HomeChoice::Ephemeral,
        (Home::Host, _) => HomeChoice::Host(account.home.clone()),
        (Home::Persistent, None) => HomeChoice::Kept(paths.home()),
        (Home::Persistent, Some(homes)) => {
            let own = homes.join(&account.name);
            let is_theirs = std::fs::symlink_metadata(&own)
                .is_ok_and(|dir| dir.is_dir() && dir.uid() == account.uid);
            if !is_theirs {
                return Err(Failure::new(format!(
                    "{} is not a directory of {}; the administrator makes it, for state.homes_dir",
                    own.display(),
                    account.name
                )));
            }
            HomeChoice::Kept(own.join(paths.name.as_str()))
        }
    })
}

/// Shells to try, best first, and the host's directories of terminfo.
#[must_use]
pub fn means(config: &Config) -> (Vec<PathBuf>, Vec<PathBuf>) {
    (shells(config), terminfo())
}

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
