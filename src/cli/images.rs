//! `podspawn images`: what is in the user's store.
//!
//! Reads the store from outside of the user namespace, so that it costs no
//! namespace and makes no store.

use std::path::Path;

use podspawn_images::store::{ImageSummary, Store};
use serde_json::json;

use super::format::{Answer, says};
use super::{Place, namespace};
use crate::exit::{Exit, Failure};
use crate::output::progress::Format;
use crate::output::table::table;
use crate::output::{self, text};

/// Arguments of `podspawn images`.
#[derive(Debug, clap::Args)]
#[command(mut_arg("format", says("A table for people, or a JSON array")))]
pub struct Args {
    /// Show nothing but digests
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    answer: Answer,
}

/// Lists.
///
/// # Errors
///
/// When the store cannot be read.
pub fn run(args: &Args, named: Option<&Path>) -> Result<Exit, Failure> {
    let place = Place::of_process(None, named)?;
    let (ownership, container_root) = namespace::ownership(&namespace::map_of(&place.account)?);
    let store = Store::open_outside(&place.root, ownership, container_root)?;
    let mut images = store
        .map(|store| store.images())
        .transpose()?
        .unwrap_or_default();
    images.sort_by(|a, b| {
        (a.names.is_empty(), &a.names, &a.digest).cmp(&(b.names.is_empty(), &b.names, &b.digest))
    });
    output::answer(&match (args.answer.format, args.quiet) {
        (Format::Json, _) => format!(
            "{:#}\n",
            images.iter().map(as_json).collect::<serde_json::Value>()
        ),
        (Format::Text, true) => images.iter().map(|i| format!("{}\n", i.digest)).collect(),
        (Format::Text, false) => as_table(&images),
    })?;
    Ok(Exit::Success)
}

/// A line a name; an image without one has a line all the same.
fn as_table(images: &[ImageSummary]) -> String {
    let rows: Vec<[String; 4]> = images
        .iter()
        .flat_map(|image| {
            let names: Vec<String> = match image.names.as_slice() {
                [] => vec!["<none>".into()],
                names => names.iter().map(ToString::to_string).collect(),
            };
            names.into_iter().map(|name| {
                let hex = image.digest.hex();
                let digest = hex.get(..12).unwrap_or(hex).to_owned();
                [
                    name,
                    digest,
                    day(image.created.as_deref()),
                    text::size(image.size),
                ]
            })
        })
        .collect();
    table(["REFERENCE", "DIGEST", "CREATED", "SIZE"], &rows)
}

fn as_json(image: &ImageSummary) -> serde_json::Value {
    json!({
        "digest": image.digest.to_string(),
        "names": image.names.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "created": image.created,
        "size": image.size,
        "layers": image.layers,
    })
}

/// The date of an RFC 3339 time, which an image may have made up.
fn day(created: Option<&str>) -> String {
    let date = created.and_then(|c| c.get(..10)).filter(|d| {
        d.bytes().enumerate().all(|(n, b)| {
            if n == 4 || n == 7 {
                b == b'-'
            } else {
                b.is_ascii_digit()
            }
        })
    });
    date.unwrap_or("-").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(names: &[&str]) -> ImageSummary {
        ImageSummary {
            digest: format!("sha256:{}", "0123456789abcdef".repeat(4))
                .parse()
                .unwrap(),
            names: names.iter().map(|n| n.parse().unwrap()).collect(),
            size: 29_500_000,
            created: Some("2024-04-22T13:00:00Z".into()),
            layers: 1,
        }
    }

    #[test]
    fn every_name_has_a_line() {
        let text = as_table(&[summary(&["a:1", "b/c"]), summary(&[])]);
        assert_eq!(
            text,
            "REFERENCE              DIGEST        CREATED     SIZE\n\
             docker.io/library/a:1  0123456789ab  2024-04-22  29.5 MB\n\
             docker.io/b/c:latest   0123456789ab  2024-04-22  29.5 MB\n\
             <none>                 0123456789ab  2024-04-22  29.5 MB\n"
        );
    }

    #[test]
    fn a_made_up_date_is_not_shown() {
        assert_eq!(day(Some("2024-04-22T13:00:00Z")), "2024-04-22");
        for made_up in [
            None,
            Some(""),
            Some("\x1b[31m-01-01x"),
            Some("yesterday!!"),
            Some("ünïcödéüü"),
        ] {
            assert_eq!(day(made_up), "-", "{made_up:?}");
        }
    }
}
