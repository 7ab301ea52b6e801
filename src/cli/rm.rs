//! `podspawn rm`: takes away everything that pods have written.

use std::path::Path;

use podspawn_runtime::idmap;
use podspawn_runtime::pod::{self, PodName};
use serde_json::json;

use super::format::{Answer, says};
use super::{Place, namespace, pods, stop};
use crate::exit::{Exit, Failure, chain};
use crate::output;
use crate::output::progress::Format;
use crate::{volumes, workspace};

/// Arguments of `podspawn rm`.
#[derive(Debug, clap::Args)]
#[command(mut_arg("format", says("The names of the pods, or a JSON object for each")))]
pub struct Args {
    /// The pods
    #[arg(value_name = "POD", required_unless_present = "all")]
    pods: Vec<PodName>,
    /// All of the user's pods
    #[arg(long, short, conflicts_with = "pods")]
    all: bool,
    /// Stop those that are running
    #[arg(long, short)]
    force: bool,
    /// Remove their workspaces and the named volumes of their Podfiles too: the data of projects
    /// and of their services
    #[arg(long)]
    clean: bool,
    #[command(flatten)]
    answer: Answer,
}

/// Removes one after the other; one that cannot be removed does not keep the
/// others.
///
/// # Errors
///
/// When the pods' directories cannot be read. What is wrong with a single pod is
/// said, and shows in the exit status.
pub fn run(args: &Args, named: Option<&Path>) -> Result<Exit, Failure> {
    let place = Place::of_process(None, named)?;
    let names: Vec<PodName> = if args.all {
        let all = pods::all(&place)?.into_iter();
        all.map(|pod| pod.name().clone()).collect()
    } else {
        args.pods.clone()
    };
    // While the files of the host are whose they are.
    let volumes = match args.clean {
        true => volumes::of_pods(&place, &names)?,
        false => Vec::new(),
    };
    // Files of pods belong to ids of the user's namespace.
    idmap::enter(&namespace::map_of(&place.account)?)?;
    let mut exit = Exit::Success;
    for name in &names {
        let none = Vec::new();
        let volumes = volumes.iter().find(|(pod, _)| pod == name);
        let volumes = volumes.map_or(&none, |(_, volumes)| volumes);
        let removed = remove(&place, name, args.force, args.clean)
            .and_then(|()| volumes::remove(&place.root, volumes));
        match removed {
            Ok(()) => output::answer(&match args.answer.format {
                Format::Text => format!("{name}\n"),
                Format::Json => format!("{}\n", json!({"removed": name.as_str()})),
            })?,
            Err(failure) => {
                output::failure(failure.line());
                exit = Exit::Failed;
            }
        }
    }
    Ok(exit)
}

fn remove(place: &Place, name: &PodName, force: bool, clean: bool) -> Result<(), Failure> {
    let known = match pods::one(place, name) {
        // Its volumes and its workspace outlive it.
        Err(_) if clean => None,
        known => Some(known?),
    };
    if known.is_some_and(|pod| pod.is_there()) {
        if !force {
            return Err(Failure::new(format!(
                "pod {name} is running; podspawn stop {name} ends it, rm --force does both"
            )));
        }
        // It may end by itself meanwhile.
        if let Err(failure) = stop::stop(place, name, false)
            && pods::one(place, name)?.is_there()
        {
            return Err(failure);
        }
    }
    let mut more = Vec::new();
    if clean {
        more.push(workspace::path(&place.root, name));
    }
    pod::remove(&pods::paths(place, name)?, &more)
        .map_err(|e| Failure::new(format!("pod {name}: {}", chain(&e))))
}
