//! `podspawn server-setup`: sshd's configuration for container users.

use std::path::{Path, PathBuf};

use crate::config;
use crate::exit::{Exit, Failure};
use crate::output;
use crate::server::setup::Setup;
use crate::server::sshd::Sshd;
use crate::server::{program, trusted};

/// Arguments of `podspawn server-setup`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// sshd's configuration
    #[arg(long, value_name = "FILE", default_value = "/etc/ssh/sshd_config")]
    sshd_config: PathBuf,
    /// The unit of systemd that is reloaded, instead of the sshd that listens
    #[arg(long, value_name = "UNIT")]
    service_name: Option<String>,
    /// Open forwarding, into the pod: put the session module into sshd's PAM stack
    #[arg(long, conflicts_with_all = ["without_forwarding", "remove"])]
    with_forwarding: bool,
    /// Close forwarding again. Neither: as it is, and closed at first
    #[arg(long, conflicts_with = "remove")]
    without_forwarding: bool,
    /// Show what would be changed, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Undo it; there must be no container user
    #[arg(long)]
    remove: bool,
}

/// Sets up, or undoes it.
///
/// # Errors
///
/// When a check fails; everything is as it was then.
pub fn run(args: &Args, named: Option<&Path>) -> Result<Exit, Failure> {
    program::need_root()?;
    let setup = Setup {
        sshd: Sshd::new(&args.sshd_config),
        unit: args.service_name.clone(),
        program: trusted::this_program()?,
        key_dir: config::load_server(named)?.key_dir,
        forwarding: match (args.with_forwarding, args.without_forwarding) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ => None,
        },
    };
    let report = match (args.dry_run, args.remove) {
        (true, remove) => setup.plan(remove)?,
        (false, false) => setup.install()?,
        (false, true) => setup.remove()?,
    };
    output::answer(
        &report
            .0
            .iter()
            .map(|line| format!("{line}\n"))
            .collect::<String>(),
    )?;
    Ok(Exit::Success)
}
