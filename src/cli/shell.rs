//! `podspawn shell`: a shell in one of the user's pods, without ssh.

use std::path::Path;

use podspawn_runtime::pod::PodName;
use podspawn_runtime::session::{self, Action};

use super::Place;
use crate::exit::{Exit, Failure};
use crate::session::{Wanted, here};

/// Arguments of `podspawn shell`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The pod; the default pod unless given
    #[arg(value_name = "POD")]
    pod: Option<PodName>,
}

/// Runs the shell.
///
/// # Errors
///
/// One line, when no session could be had.
pub fn run(args: &Args, named: Option<&Path>) -> Result<Exit, Failure> {
    session::close_inherited();
    let place = Place::of_process(None, named)?;
    let pod = args.pod.clone().unwrap_or_else(PodName::default_pod);
    crate::session::run(
        &place,
        Wanted {
            create: true,
            ..here(pod, Action::Shell)
        },
    )
}
