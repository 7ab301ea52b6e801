//! `podspawn prune`: removes from the user's store what no name and no pod needs.

use std::path::Path;

use podspawn_images::store::{Removed, Store};
use serde_json::json;

use super::Place;
use super::format::{Answer, says};
use super::namespace;
use crate::exit::{Exit, Failure};
use crate::output::progress::Format;
use crate::output::{self, text};

/// Arguments of `podspawn prune`.
#[derive(Debug, clap::Args)]
#[command(mut_arg("format", says("Lines for people, or a JSON object")))]
pub struct Args {
    /// Images that have names as well, unless a pod uses them
    #[arg(long, short)]
    all: bool,
    #[command(flatten)]
    answer: Answer,
}

/// Prunes, and says what is gone.
///
/// # Errors
///
/// When the store cannot be read, or something cannot be removed.
pub fn run(args: &Args, named: Option<&Path>) -> Result<Exit, Failure> {
    let place = Place::of_process(None, named)?;
    let Some(store) = namespace::open_existing(&place)? else {
        return Ok(Exit::Success);
    };
    let mut removed = Removed::default();
    if args.all {
        unname(&store, &mut removed)?;
    }
    let pruned = store.prune()?;
    removed.images.extend(pruned.images);
    removed.layers.extend(pruned.layers);
    removed.freed += pruned.freed;
    removed.in_use = pruned.in_use;
    removed.deferred |= pruned.deferred;
    output::answer(&said(&removed, args.answer.format))?;
    for digest in &removed.in_use {
        output::notice(&format!("{digest} is in use and stays until it is not"));
    }
    if removed.deferred {
        output::notice("a pull is running, so its layers and what else is unused stay for now");
    }
    Ok(Exit::Success)
}

/// Takes the names from images that nothing uses.
fn unname(store: &Store, removed: &mut Removed) -> Result<(), Failure> {
    for summary in store.images()? {
        if store.in_use(&summary.digest) {
            continue;
        }
        for name in &summary.names {
            let gone = store.remove(name)?;
            removed.untagged.extend(gone.untagged);
            removed.images.extend(gone.images);
            removed.layers.extend(gone.layers);
            removed.freed += gone.freed;
            removed.deferred |= gone.deferred;
        }
    }
    Ok(())
}

fn said(removed: &Removed, format: Format) -> String {
    let texts = |digests: &[podspawn_images::digest::Digest]| -> Vec<String> {
        digests.iter().map(ToString::to_string).collect()
    };
    if format == Format::Json {
        let untagged: Vec<_> = removed.untagged.iter().map(ToString::to_string).collect();
        let said = json!({
            "untagged": untagged, "images": texts(&removed.images),
            "layers": texts(&removed.layers), "freed": removed.freed,
        });
        return format!("{said}\n");
    }
    let mut lines = String::new();
    for name in &removed.untagged {
        lines.push_str(&format!("untagged {name}\n"));
    }
    for digest in texts(&removed.images) {
        lines.push_str(&format!("deleted {digest}\n"));
    }
    let layers = removed.layers.len();
    let plural = if layers == 1 { "" } else { "s" };
    lines.push_str(&format!(
        "{layers} layer{plural} removed, {} freed\n",
        text::size(removed.freed)
    ));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_is_said() {
        let removed = Removed {
            untagged: vec!["x:1".parse().unwrap()],
            layers: vec![podspawn_images::digest::Digest::of(b"")],
            freed: 1500,
            ..Removed::default()
        };
        assert_eq!(
            said(&removed, Format::Text),
            "untagged docker.io/library/x:1\n1 layer removed, 1.5 kB freed\n"
        );
        let json: serde_json::Value = serde_json::from_str(&said(&removed, Format::Json)).unwrap();
        assert_eq!(
            (&json["freed"], json["layers"].as_array().unwrap().len()),
            (&json!(1500), 1)
        );
    }
}
