//! Pulls an image into a store and says how long what took, for measuring and profiling without
//! the command line: `pull STORE REFERENCE [DOWNLOADS UNPACKERS]`.
#![allow(clippy::print_stdout, missing_docs)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use podspawn_images::digest::Digest;
use podspawn_images::progress::{LayerEvent, Progress};
use podspawn_images::pull::{PullOptions, pull};
use podspawn_images::reference::Reference;
use podspawn_images::store::{Ownership, Store};

/// When each layer's first and last bytes came, its last were expanded, and it was done.
#[derive(Default)]
struct Times {
    size: u64,
    first: Duration,
    fetched: Duration,
    expanded: Duration,
    done: Duration,
}

struct Watch {
    begun: Instant,
    layers: Mutex<BTreeMap<Digest, Times>>,
}

impl Progress for Watch {
    fn layer(&self, layer: &Digest, event: LayerEvent) {
        let now = self.begun.elapsed();
        let Ok(mut layers) = self.layers.lock() else {
            return;
        };
        let times = layers.entry(layer.clone()).or_default();
        match event {
            LayerEvent::Fetched { total, .. } => {
                if times.size == 0 {
                    (times.size, times.first) = (total, now);
                }
                times.fetched = now;
            }
            LayerEvent::Unpacking { .. } => times.expanded = now,
            LayerEvent::Done => times.done = now,
            _ => {}
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [root, reference, numbers @ ..] = &arguments[..] else {
        return Err("pull STORE REFERENCE [DOWNLOADS UNPACKERS]".into());
    };
    let mut options = PullOptions::default();
    if let [downloads, unpackers] = numbers {
        (options.downloads, options.unpackers) = (downloads.parse()?, unpackers.parse()?);
    }
    let watch = Watch {
        begun: Instant::now(),
        layers: Mutex::default(),
    };
    let store = Store::open(Path::new(root), Ownership::Mapped)?;
    let reference: Reference = reference.parse()?;
    let image = pull(&store, &reference, &options, &watch)?;
    let took = watch.begun.elapsed().as_secs_f64();
    for (digest, times) in watch.layers.into_inner()? {
        println!(
            "{} {:>10} bytes: first {:.3}, fetched {:.3}, expanded {:.3}, done {:.3}",
            &digest.hex()[..12],
            times.size,
            times.first.as_secs_f64(),
            times.fetched.as_secs_f64(),
            times.expanded.as_secs_f64(),
            times.done.as_secs_f64()
        );
    }
    println!("{}: {took:.3} s", image.digest);
    Ok(())
}
