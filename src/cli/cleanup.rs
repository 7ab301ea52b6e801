//! `podspawn cleanup`: takes away what pods left that were killed.
//!
//! Nothing depends on it: a pod that is made anew clears away what the one before
//! it left. Safe beside live pods and logins.

use std::path::Path;

use podspawn_runtime::idmap;
use podspawn_runtime::pod::{self, Cleared, PodPaths};
use serde_json::json;

use super::format::{Answer, says};
use super::{Place, namespace, pods};
use crate::exit::{Exit, Failure, chain};
use crate::output;
use crate::output::progress::Format;

/// Arguments of `podspawn cleanup`.
#[derive(Debug, clap::Args)]
#[command(mut_arg("format", says("The names of the pods, or a JSON object for each")))]
pub struct Args {
    #[command(flatten)]
    answer: Answer,
}

/// Clears.
///
/// # Errors
///
/// When the pods' directories cannot be read. What is wrong with a single pod is
/// said, and shows in the exit status.
pub fn run(args: &Args, named: Option<&Path>) -> Result<Exit, Failure> {
    let place = Place::of_process(None, named)?;
    let run = pods::run_dir(&place)?;
    let names = pod::names(&run, &place.root)?;
    if names.is_empty() {
        return Ok(Exit::Success);
    }
    // Files of pods belong to ids of the user's namespace.
    idmap::enter(&namespace::map_of(&place.account)?)?;
    let mut exit = Exit::Success;
    for name in names {
        match pod::clear(&PodPaths::new(&run, &place.root, name.clone())) {
            Ok(Cleared::InUse) => {}
            Ok(Cleared::Done) => output::answer(&match args.answer.format {
                Format::Text => format!("{name}\n"),
                Format::Json => format!("{}\n", json!({"cleared": name.as_str()})),
            })?,
            Err(error) => {
                output::failure(&format!("pod {name}: {}", chain(&error)));
                exit = Exit::Failed;
            }
        }
    }
    Ok(exit)
}
