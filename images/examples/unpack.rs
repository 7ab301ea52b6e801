//! Unpacks an image layout into a store, layers side by side, and says how long it took:
//! `unpack STORE LAYOUT [JOBS]`. The layout has one manifest.
#![allow(clippy::print_stdout, missing_docs)]

use std::collections::HashSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

use podspawn_images::digest::Digest;
use podspawn_images::document::{Document, Manifest};
use podspawn_images::limits::Limits;
use podspawn_images::store::{Ownership, Store};

type Error = Box<dyn std::error::Error + Send + Sync>;

fn blob(layout: &Path, digest: &Digest) -> PathBuf {
    let algorithm = digest.algorithm().name();
    layout.join("blobs").join(algorithm).join(digest.hex())
}

fn manifest(layout: &Path, limits: &Limits) -> Result<(Vec<u8>, Manifest), Error> {
    let mut bytes = fs::read(layout.join("index.json"))?;
    loop {
        match Document::parse(&bytes, None, limits)? {
            Document::Manifest(manifest) => return Ok((bytes, manifest)),
            Document::Index(index) => {
                let only = index.manifests.first().ok_or("an empty index")?;
                bytes = fs::read(blob(layout, &only.digest))?;
            }
        }
    }
}

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (Some(root), Some(layout)) = (arguments.first(), arguments.get(1)) else {
        return Err("unpack STORE LAYOUT [JOBS]".into());
    };
    let jobs = arguments.get(2).map_or(Ok(2), |jobs| jobs.parse())?;
    let (layout, limits) = (Path::new(layout), Limits::default());
    let begun = Instant::now();
    let store = Store::open(Path::new(root), Ownership::Mapped)?;
    let (bytes, manifest) = manifest(layout, &limits)?;
    let config = fs::read(blob(layout, &manifest.config.digest))?;
    let configuration = manifest.parse_config(&config, &limits)?;
    let mut layers = manifest.layer_descriptors(&configuration)?;
    let mut seen = HashSet::new();
    layers.retain(|layer| seen.insert(layer.digest.clone()));
    // The biggest last, since they are taken from the end.
    layers.sort_by_key(|layer| layer.size);
    let queue = Mutex::new(layers);
    std::thread::scope(|scope| -> Result<(), Error> {
        let work = || -> Result<(), Error> {
            loop {
                let Some(layer) = queue.lock().map_err(|_| "poisoned")?.pop() else {
                    return Ok(());
                };
                if let Some(staging) = store.begin_layer(&layer.digest)? {
                    let file = File::open(blob(layout, &layer.digest))?;
                    staging.unpack(file, &layer, &limits, &())?;
                }
            }
        };
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().map_err(|_| "a worker panicked")?)
    })?;
    let unpacked = begun.elapsed();
    let image = store.commit_image(&bytes, &config, &[])?;
    println!(
        "{} lower directories, {:.3} s unpacking, {:.3} s in all",
        image.layers.len(),
        unpacked.as_secs_f64(),
        begun.elapsed().as_secs_f64()
    );
    Ok(())
}
