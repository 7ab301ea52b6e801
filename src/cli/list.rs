//! `podspawn list`: the user's pods.

use std::path::Path;

use super::Place;
use super::format::{Answer, says};
use super::pods::{self, Known};
use crate::exit::{Exit, Failure};
use crate::output::progress::Format;
use crate::output::table::table;
use crate::output::{self, text};

/// Arguments of `podspawn list`.
#[derive(Debug, clap::Args)]
#[command(mut_arg("format", says("A table for people, or a JSON array")))]
pub struct Args {
    /// Show pods that have ended and left something, too
    #[arg(long, short)]
    all: bool,
    /// Show nothing but names
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    answer: Answer,
}

/// Lists.
///
/// # Errors
///
/// When the pods' directories cannot be read.
pub fn run(args: &Args, named: Option<&Path>) -> Result<Exit, Failure> {
    let place = Place::of_process(None, named)?;
    let mut pods = pods::all(&place)?;
    pods.retain(|pod| args.all || pod.is_there());
    output::answer(&match (args.answer.format, args.quiet) {
        (Format::Json, _) => {
            let pods: serde_json::Value = pods.iter().map(Known::json).collect();
            format!("{pods:#}\n")
        }
        (Format::Text, true) => pods.iter().map(|pod| format!("{}\n", pod.name())).collect(),
        (Format::Text, false) => as_table(&pods),
    })?;
    Ok(Exit::Success)
}

fn as_table(pods: &[Known]) -> String {
    let rows: Vec<[String; 8]> = pods
        .iter()
        .map(|pod| {
            let status = pod.status();
            let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".into());
            [
                pod.name().to_string(),
                pod.state().into(),
                or_none(status.map(|s| s.image.clone())),
                or_none(status.map(|s| s.sessions.to_string())),
                or_none(status.map(|s| text::seconds(s.age))),
                or_none(status.and_then(|s| s.expires_in).map(text::seconds)),
                or_none(status.and_then(pods::limits)),
                or_none(status.and_then(pods::services)),
            ]
        })
        .collect();
    table(
        [
            "POD", "STATE", "IMAGE", "SESSIONS", "AGE", "EXPIRES", "LIMITS", "SERVICES",
        ],
        &rows,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::pods::tests::{dead, running};

    #[test]
    fn what_is_not_known_of_a_pod_is_a_dash() {
        let text = as_table(&[running("default"), dead("web")]);
        assert_eq!(
            text,
            "POD      STATE    IMAGE                        SESSIONS  AGE        EXPIRES    LIMITS                SERVICES\n\
             default  running  docker.io/library/debian:12  2         3 min 5 s  1 h 0 min  cpus=2 memory=2g(no)  db(down, restarts 3)\n\
             web      stopped  -                            -         -          -          -                     -\n"
        );
    }
}
