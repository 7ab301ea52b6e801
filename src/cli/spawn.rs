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
use std::path::Path;
use std::time::Duration;

use podspawn_images::reference::Reference;
use podspawn_runtime::pod::{Mode, PodName};
use podspawn_runtime::session::{self, Action};
use podspawn_runtime::sockets::Forwarded;
use podspawn_runtime::sockets::agent::{Agent, AgentError};
use podspawn_runtime::sockets::display::{Display, authority_file};

use crate::cli::Place;
use crate::config::Home;
use crate::exit::{Exit, Failure};
use crate::original_command::OriginalCommand;
use crate::session::Wanted;

/// Arguments of `podspawn spawn`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The name to log in with, where several share this user id
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// The project whose pod to join; a `.pod` suffix is stripped
    #[arg(long, value_name = "NAME")]
    project: Option<String>,
    /// The image of a throw-away pod, instead of the configured one
    #[arg(long, value_name = "REFERENCE", hide = true)]
    image: Option<Reference>,
}

/// How long a throw-away pod waits for another session.
const BETWEEN: Duration = Duration::from_secs(60);

/// Runs the session.
///
/// # Errors
///
/// One line, when no session could be had.
pub fn run(args: &Args, named: Option<&Path>) -> Result<Exit, Failure> {
    session::close_inherited();
    let mut place = Place::of_process(args.user.as_deref(), named)?;
    // Several sessions have a throw-away pod, and nobody's home sees what they try.
    let mode = args.image.clone().map(|image| {
        place.config.image = image;
        place.config.grace_period = BETWEEN;
        place.config.home = Some(Home::Ephemeral);
        Mode::GracePeriod
    });
    let pod = pod_name(
        args.project
            .clone()
            .or_else(|| std::env::var("PODSPAWN_PROJECT").ok()),
    )?;
    crate::session::run(
        &place,
        Wanted {
            mode,
            ..wanted(pod)
        },
    )
}

/// What the client asked for, by what sshd gave this process.
pub(super) fn wanted(pod: PodName) -> Wanted {
    Wanted {
        pod,
        create: true,
        mode: None,
        action: action(std::env::var_os("SSH_ORIGINAL_COMMAND")),
        env: session::pass_through(std::env::vars_os()),
        terminal: std::io::stdin().is_terminal(),
        forwarded: forwarded(),
    }
}

/// What sshd offers for this connection: `ssh -A` and `ssh -X`.
fn forwarded() -> Forwarded {
    let uid = rustix::process::getuid().as_raw();
    let agent = std::env::var_os("SSH_AUTH_SOCK").map(|path| match path.into_string() {
        Ok(path) => Agent::look(&path, uid),
        Err(path) => Err(AgentError::Path(path.to_string_lossy().into_owned())),
    });
    let display = std::env::var_os("DISPLAY").map(|display| {
        let home = std::env::var_os("HOME").unwrap_or_default();
        let file = authority_file(std::env::var_os("XAUTHORITY").as_deref(), Path::new(&home));
        Display::find(&display, &file)
    });
    Forwarded { agent, display }
}

pub(super) fn pod_name(project: Option<String>) -> Result<PodName, Failure> {
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
