//! `podspawn inspect`: everything that is known of pods, as JSON.

use std::path::Path;

use podspawn_runtime::pod::PodName;
use serde_json::json;

use super::{Place, pods};
use crate::exit::{Exit, Failure};
use crate::output;

/// Arguments of `podspawn inspect`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The pods; the default pod unless given
    #[arg(value_name = "POD")]
    pods: Vec<PodName>,
}

/// Prints an array with an object a pod.
///
/// # Errors
///
/// When there is no such pod.
pub fn run(args: &Args, named: Option<&Path>) -> Result<Exit, Failure> {
    let place = Place::of_process(None, named)?;
    let names = match args.pods.as_slice() {
        [] => vec![PodName::default_pod()],
        names => names.to_vec(),
    };
    let pods = names
        .iter()
        .map(|name| describe(&place, name))
        .collect::<Result<serde_json::Value, Failure>>()?;
    output::answer(&format!("{pods:#}\n"))?;
    Ok(Exit::Success)
}

fn describe(place: &Place, name: &PodName) -> Result<serde_json::Value, Failure> {
    let paths = pods::paths(place, name)?;
    let mut pod = pods::one(place, name)?.json();
    let path = |path: &Path| path.to_string_lossy().into_owned();
    pod["user"] = json!({"name": place.account.name, "uid": place.account.uid});
    pod["paths"] = json!({
        "run": path(paths.run()),
        "log": path(&paths.log()),
        "storage": path(paths.storage()),
    });
    Ok(pod)
}
