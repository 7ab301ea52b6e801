//! `podspawn df`: what the user's images and pods take on the disk.

use std::path::Path;

use podspawn_images::store::{Usage, disk_usage};
use serde_json::json;

use super::format::{Answer, says};
use super::{Place, namespace};
use crate::exit::{Exit, Failure};
use crate::output::progress::Format;
use crate::output::table::table;
use crate::output::{self, text};

/// Arguments of `podspawn df`.
#[derive(Debug, clap::Args)]
#[command(mut_arg("format", says("A table for people, or a JSON object in bytes")))]
pub struct Args {
    #[command(flatten)]
    answer: Answer,
}

/// A line: what, how many, how large, and how much of it prune would remove.
struct Line {
    what: &'static str,
    count: usize,
    size: u64,
    reclaimable: u64,
}

/// Adds up.
///
/// # Errors
///
/// When the store cannot be read.
pub fn run(args: &Args, named: Option<&Path>) -> Result<Exit, Failure> {
    let place = Place::of_process(None, named)?;
    let store = namespace::open_existing(&place)?;
    let usage = store.map(|s| s.usage()).transpose()?.unwrap_or_default();
    let lines: Vec<Line> = lines(&usage).into_iter().chain(kept(&place.root)).collect();
    let cache = &place.config.system_cache;
    let shared = cache.as_deref().map_or(0, disk_usage);
    output::answer(&match args.answer.format {
        Format::Text => as_table(&lines, shared),
        Format::Json => format!("{}\n", as_json(&usage, &lines, shared)),
    })?;
    Ok(Exit::Success)
}

/// What is not of images: pods, and what outlives them.
fn kept(root: &Path) -> [Line; 3] {
    ["pods", "volumes", "workspaces"].map(|what| {
        let dir = root.join(what);
        Line {
            what,
            count: std::fs::read_dir(&dir).map_or(0, |entries| {
                let names = entries.flatten().map(|entry| entry.file_name());
                names
                    .filter(|n| !n.as_encoded_bytes().starts_with(b"."))
                    .count()
            }),
            size: disk_usage(&dir),
            reclaimable: 0,
        }
    })
}

fn lines(usage: &Usage) -> [Line; 3] {
    let nameless = usage.images.iter().filter(|image| !image.named);
    let nameless: u64 = nameless.map(|image| image.unique).sum();
    let line = |what, count, size, reclaimable| Line {
        what,
        count,
        size,
        reclaimable,
    };
    // What an image takes beside its layers is little; nameless ones are counted with theirs.
    [
        line(
            "images",
            usage.images.len(),
            usage.layers_size - usage.unused_size,
            nameless,
        ),
        line(
            "unused layers",
            usage.unused,
            usage.unused_size,
            usage.unused_size,
        ),
        line(
            "staging",
            usize::from(usage.staging > 4096),
            usage.staging,
            0,
        ),
    ]
}

fn as_table(lines: &[Line], shared: u64) -> String {
    let mut rows: Vec<[String; 4]> = Vec::new();
    for line in lines {
        rows.push([
            line.what.to_owned(),
            line.count.to_string(),
            text::size(line.size),
            text::size(line.reclaimable),
        ]);
    }
    if shared > 0 {
        let of = ["shared cache of the host", "", &text::size(shared), ""];
        rows.push(of.map(str::to_owned));
    }
    table(["WHAT", "COUNT", "SIZE", "RECLAIMABLE"], &rows)
}

fn as_json(usage: &Usage, lines: &[Line], shared: u64) -> serde_json::Value {
    let images: Vec<_> = usage
        .images
        .iter()
        .map(|image| {
            json!({
                "digest": image.digest.to_string(), "size": image.size,
                "unique": image.unique, "named": image.named,
            })
        })
        .collect();
    let mut value = json!({"images": images, "shared_cache": shared});
    let mut totals = serde_json::Map::new();
    for line in lines {
        let of = json!({"count": line.count, "size": line.size, "reclaimable": line.reclaimable});
        totals.insert(line.what.replace(' ', "_"), of);
    }
    value["totals"] = totals.into();
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_prune_would_remove_is_told_apart() {
        let image = podspawn_images::store::ImageUsage {
            digest: podspawn_images::digest::Digest::of(b""),
            size: 5000,
            unique: 2000,
            named: false,
        };
        let usage = Usage {
            images: vec![image],
            layers: 3,
            layers_size: 9000,
            unused: 1,
            unused_size: 3000,
            staging: 4096,
        };
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("volumes/data")).unwrap();
        let [pods, volumes, workspaces] = kept(root.path());
        assert_eq!((pods.count, volumes.count, workspaces.count), (0, 1, 0));
        let pods = Line {
            count: 2,
            size: 700,
            ..pods
        };
        let lines: Vec<Line> = lines(&usage).into_iter().chain([pods]).collect();
        assert_eq!(
            as_table(&lines, 0),
            "WHAT           COUNT  SIZE    RECLAIMABLE\n\
             images         1      6.0 kB  2.0 kB\n\
             unused layers  1      3.0 kB  3.0 kB\n\
             staging        0      4.1 kB  0 B\n\
             pods           2      700 B   0 B\n"
        );
        let json = as_json(&usage, &lines, 5);
        assert_eq!(json["totals"]["unused_layers"]["size"], 3000);
        assert_eq!(
            (&json["images"][0]["unique"], &json["shared_cache"]),
            (&json!(2000), &json!(5))
        );
    }
}
