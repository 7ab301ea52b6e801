//! `podspawn load`: images from files into the user's store, for a host that
//! reaches no registry.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use podspawn_images::archive::{LoadOptions, Loaded, load};
use podspawn_images::reference::Reference;
use serde_json::json;

use super::format::{Answer, says};
use super::{Place, namespace};
use crate::exit::{Exit, Failure};
use crate::output::progress::Format;
use crate::output::{self, progress};

/// Arguments of `podspawn load`.
#[derive(Debug, clap::Args)]
#[command(mut_arg(
    "format",
    says("Progress and result for people, or as JSON objects on standard output")
))]
pub struct Args {
    /// An OCI layout (a directory, or an archive of one) or an archive that
    /// docker save made; - for standard input
    #[arg(value_name = "FILE|DIR")]
    source: PathBuf,
    /// What to call the image, instead of what the file calls it
    #[arg(long, value_name = "REFERENCE")]
    name: Option<Reference>,
    /// Show nothing but the digests
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    answer: Answer,
}

/// Loads, and prints the digests.
///
/// # Errors
///
/// One line that names the file.
pub fn run(args: &Args, named: Option<&Path>) -> Result<Exit, Failure> {
    let place = Place::of_process(None, named)?;
    let map = namespace::map_of(&place.account)?;
    if args.answer.format == Format::Text && !args.quiet {
        namespace::note(&map, &place.account);
    }
    let store = namespace::open_store(&map, &place.root)?;
    let source = match args.source.to_str() {
        Some("-") => Path::new("/dev/stdin"),
        _ => &args.source,
    };
    let progress = progress::of_verb(args.answer.format, args.quiet);
    let options = LoadOptions {
        limits: place.config.limits.clone(),
        policy: place.config.policy.clone(),
        ..LoadOptions::default()
    };
    let loaded = load(&store, source, args.name.as_ref(), &options, &*progress);
    // Before anything else is said: it may be drawn on the same terminal.
    drop(progress);
    let loaded = loaded?;
    if args.answer.format == Format::Text && !args.quiet {
        for image in &loaded {
            output::notice(&note(image));
        }
    }
    output::answer(&said(&loaded, args.answer.format))?;
    Ok(Exit::Success)
}

/// A line an image: its digest.
fn said(loaded: &[Loaded], format: Format) -> String {
    let mut text = String::new();
    for Loaded { image, names } in loaded {
        let digest = image.digest.to_string();
        let line = match format {
            Format::Text => digest,
            Format::Json => {
                let names: Vec<_> = names.iter().map(ToString::to_string).collect();
                json!({"event": "image", "digest": digest, "names": names}).to_string()
            }
        };
        let _ = writeln!(text, "{line}");
    }
    text
}

fn note(loaded: &Loaded) -> String {
    let names: Vec<_> = loaded.names.iter().map(ToString::to_string).collect();
    match names.as_slice() {
        [] => format!(
            "loaded {}, which has no name: give it one with --name",
            loaded.image.digest
        ),
        names => format!("loaded {}", names.join(", ")),
    }
}
