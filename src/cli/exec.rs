//! `podspawn exec`: a program in a pod that is running, without a shell.

use std::ffi::OsString;
use std::path::Path;

use podspawn_runtime::pod::PodName;
use podspawn_runtime::session::{self, Action};

use super::Place;
use crate::exit::{Exit, Failure};
use crate::session::here;

/// Arguments of `podspawn exec`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The pod
    #[arg(value_name = "POD")]
    pod: PodName,
    /// The program and its arguments, which no shell looks at
    #[arg(
        value_name = "COMMAND",
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    command: Vec<OsString>,
}

/// Runs the program.
///
/// # Errors
///
/// One line, when the pod is not running or cannot be joined.
pub fn run(args: &Args, named: Option<&Path>) -> Result<Exit, Failure> {
    session::close_inherited();
    let place = Place::of_process(None, named)?;
    crate::session::run(
        &place,
        here(args.pod.clone(), Action::Program(args.command.clone())),
    )
}
