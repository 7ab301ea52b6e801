//! `podspawn spawn`: what sshd runs for every session of a container user.
//!
//! Runs as sshd's forced command, as the user who logged in, with sshd's own
//! descriptors as standard streams. It joins the user's pod, or creates it, and
//! ends as the session's program ended. The process has a single thread all the
//! way: it enters namespaces and forks. An image that is missing is pulled in a
//! child process, which may have as many as it likes.
//!
//! What holds true: nothing is written to standard output, and to standard error
//! only a failure, or the progress of a pull on a terminal.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use podspawn_images::store::{Image, Store};
use podspawn_runtime::pod::{PodName, PodPaths, RunDir, attach_or_launch};
use podspawn_runtime::session::{self, Action, Session};
use podspawn_runtime::supervisor::{Login, PodImage, PodSpec, UserChoice};

use crate::cli::{Place, namespace, pull};
use crate::config::{Config, PodUser};
use crate::exit::{Exit, Failure};
use crate::guest;
use crate::original_command::OriginalCommand;

/// Arguments of `podspawn spawn`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The name to log in with, where several share this user id
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// The project whose pod to join; a `.pod` suffix is stripped
    #[arg(long, value_name = "NAME")]
    project: Option<String>,
}

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

/// Runs the session.
///
/// # Errors
///
/// One line, when no session could be had.
pub fn run(args: &Args, named: Option<&Path>) -> Result<Exit, Failure> {
    session::close_inherited();
    let place = Place::of_process(args.user.as_deref(), named)?;
    let name = pod_name(
        args.project
            .clone()
            .or_else(|| std::env::var("PODSPAWN_PROJECT").ok()),
    )?;
    let run = RunDir::of_user(place.directories.runtime.as_deref(), place.account.uid)?;
    let paths = PodPaths::new(&run, &place.root, name);
    let shells = shells(&place.config);
    let terminfo = terminfo();

    let create = || spec(&place, &paths, &shells, &terminfo);
    let attached = attach_or_launch(&paths, || create().map_err(Line))?;
    let session = Session {
        action: action(std::env::var_os("SSH_ORIGINAL_COMMAND")),
        env: session::pass_through(std::env::vars_os()),
        terminal: std::io::stdin().is_terminal(),
        shells,
        terminfo: terminfo.len(),
    };
    Ok(match session::run(&attached, &session)? {
        session::Ending::Exited(status) => Exit::Status(status),
        session::Ending::Signaled(signal) => Exit::Signal(signal),
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

fn pod_name(project: Option<String>) -> Result<PodName, Failure> {
    match project
        .as_deref()
        .map(|p| p.strip_suffix(".pod").unwrap_or(p))
    {
        None | Some("") => Ok(PodName::default_pod()),
        Some(name) => Ok(name.parse()?),
    }
}

fn action(original: Option<OsString>) -> Action {
    use std::os::unix::ffi::OsStringExt;
    match OriginalCommand::parse(original) {
        OriginalCommand::Shell => Action::Shell,
        OriginalCommand::Sftp { args } => Action::Sftp(args),
        OriginalCommand::Command(line) => Action::Command(line.into_vec()),
    }
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

/// What the pod is to be made of; pulls the image if it is not there.
fn spec(
    place: &Place,
    paths: &PodPaths,
    shells: &[PathBuf],
    terminfo: &[PathBuf],
) -> Result<PodSpec, Failure> {
    let Place {
        account,
        config,
        root,
        ..
    } = place;
    let map = namespace::map_of(account)?;
    let image = match stored(config, root, &map)? {
        Some(image) => image,
        None => {
            pull::for_session(place)?;
            stored(config, root, &map)?.ok_or_else(|| {
                Failure::new(format!(
                    "image {} was pulled and is gone again",
                    config.image
                ))
            })?
        }
    };
    Ok(PodSpec {
        paths: paths.clone(),
        map,
        image: PodImage {
            reference: config.image.to_string(),
            lease: Some(image.lease()?),
            config: image.config,
            lowers: image.layers,
        },
        guest: guest::install(root)?,
        terminfo: terminfo.to_vec(),
        login: Login {
            name: account.name.clone(),
            uid: account.uid,
            gid: account.gid,
        },
        user: match config.user {
            PodUser::Login => UserChoice::Login,
            PodUser::Image => UserChoice::Image,
            PodUser::Root => UserChoice::Root,
        },
        shells: shells.to_vec(),
        grace_period: config.grace_period,
    })
}

fn stored(
    config: &Config,
    root: &Path,
    map: &podspawn_runtime::idmap::IdMap,
) -> Result<Option<Image>, Failure> {
    let (ownership, container_root) = namespace::ownership(map);
    let Some(store) = Store::open_outside(root, ownership, container_root)? else {
        return Ok(None);
    };
    Ok(store.image(&config.image)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_is_a_pod_with_or_without_the_suffix() {
        let name = |p: Option<&str>| pod_name(p.map(Into::into)).map(|n| n.to_string());
        assert_eq!(name(None).unwrap(), "default");
        assert_eq!(name(Some("")).unwrap(), "default");
        assert_eq!(name(Some("web.pod")).unwrap(), "web");
        assert_eq!(name(Some("web")).unwrap(), "web");
        assert!(
            name(Some("../x"))
                .unwrap_err()
                .line()
                .contains("no pod name")
        );
    }
}
