//! `podspawn stop`: ends pods.

use std::path::Path;

use podspawn_runtime::pod::{self, PodName, Stopped};
use serde_json::json;

use super::format::{Answer, says};
use super::{Place, pods};
use crate::exit::{Exit, Failure, chain};
use crate::output;
use crate::output::progress::Format;

/// Arguments of `podspawn stop`.
#[derive(Debug, clap::Args)]
#[command(mut_arg("format", says("The names of the pods, or a JSON object for each")))]
pub struct Args {
    /// The pods; the default pod unless given
    #[arg(value_name = "POD")]
    pods: Vec<PodName>,
    /// All of the user's pods
    #[arg(long, short, conflicts_with = "pods")]
    all: bool,
    /// Kill what runs in them, without giving it time to end
    #[arg(long)]
    now: bool,
    #[command(flatten)]
    answer: Answer,
}

/// Stops one after the other; one that cannot be stopped does not keep the
/// others.
///
/// # Errors
///
/// When the pods' directories cannot be read. What is wrong with a single pod is
/// said, and shows in the exit status.
pub fn run(args: &Args, named: Option<&Path>) -> Result<Exit, Failure> {
    let place = Place::of_process(None, named)?;
    let names = if args.all {
        let there = pods::all(&place)?.into_iter().filter(|p| p.is_there());
        there.map(|pod| pod.name().clone()).collect()
    } else if args.pods.is_empty() {
        vec![PodName::default_pod()]
    } else {
        args.pods.clone()
    };
    let mut exit = Exit::Success;
    for name in &names {
        match stop(&place, name, args.now) {
            Ok(()) => output::answer(&match args.answer.format {
                Format::Text => format!("{name}\n"),
                Format::Json => format!("{}\n", json!({"stopped": name.as_str()})),
            })?,
            // It ended by itself meanwhile.
            Err(_) if args.all && !pods::one(&place, name).is_ok_and(|p| p.is_there()) => {}
            Err(failure) => {
                output::failure(failure.line());
                exit = Exit::Failed;
            }
        }
    }
    Ok(exit)
}

/// Stops one pod, and returns when nothing of it runs.
///
/// # Errors
///
/// When it is not there, or does not end.
pub fn stop(place: &Place, name: &PodName, now: bool) -> Result<(), Failure> {
    match pod::stop(&pods::paths(place, name)?, now) {
        Ok(Stopped::Ended) => Ok(()),
        Ok(Stopped::NotThere) => Err(Failure::new(format!("pod {name} is not running"))),
        Err(error) => Err(Failure::new(format!("pod {name}: {}", chain(&error)))),
    }
}
