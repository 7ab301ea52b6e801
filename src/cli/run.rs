//! `podspawn run`: a program in a pod of its own, which ends with it.

use std::ffi::OsString;
use std::path::Path;

use podspawn_images::reference::Reference;
use podspawn_runtime::pod::Mode;
use podspawn_runtime::session::{self, Action};

use super::Place;
use crate::exit::{Exit, Failure};
use crate::session::{Wanted, here, throw_away};

/// Arguments of `podspawn run`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The image; it is pulled if it is missing
    #[arg(value_name = "REFERENCE")]
    reference: Reference,
    /// The program and its arguments, which no shell looks at; a shell unless given
    #[arg(
        value_name = "COMMAND",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    command: Vec<OsString>,
}

/// Makes the pod and runs the program.
///
/// # Errors
///
/// One line, when no session could be had.
pub fn run(args: &Args, named: Option<&Path>) -> Result<Exit, Failure> {
    session::close_inherited();
    let mut place = Place::of_process(None, named)?;
    place.config.image = args.reference.clone();
    let action = match args.command.as_slice() {
        [] => Action::Shell,
        command => Action::Program(command.to_vec()),
    };
    crate::session::run(
        &place,
        Wanted {
            create: true,
            mode: Some(Mode::DestroyOnDisconnect),
            ..here(throw_away("run")?, action)
        },
    )
}
