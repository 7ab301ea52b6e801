//! The store: layers, images, archives, from the outside.
//!
//! Layers are what the specification makes of hostile and honest archives alike; what an image
//! shows is what the kernel's overlay merges of them.

#[path = "../common/mod.rs"]
mod common;

mod check;
mod crash;
mod hostile;
mod layers;
mod load;
mod ownership;
mod stacks;
mod tools;
mod umoci;
mod upkeep;

use std::fs;
use std::path::{Path, PathBuf};

use podspawn_images::layer::{LayerError, LayerFault, UnpackedLayer};
use podspawn_images::limits::Limits;
use podspawn_images::reference::Reference;
use podspawn_images::store::{Image, Ownership, Store, StoreError};

use common::layout::{Built, Layer};
use podspawn_images::digest::Digest;

/// A store in a directory of its own, with a canary beside it.
struct Place {
    dir: tempfile::TempDir,
    store: Store,
}

impl Place {
    /// Mapped for root, single for others: what each can do.
    fn new() -> Place {
        let root = rustix::process::geteuid().is_root();
        Place::with(if root {
            Ownership::Mapped
        } else {
            Ownership::Single
        })
    }

    fn with(ownership: Ownership) -> Place {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        fs::write(dir.path().join("outside/canary"), "sings").unwrap();
        let store = Store::open(&dir.path().join("store"), ownership).unwrap();
        Place { dir, store }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    fn outside(&self) -> PathBuf {
        self.dir.path().join("outside")
    }

    fn unpack(&self, layer: &Layer) -> Result<UnpackedLayer, LayerError> {
        self.unpack_within(layer, &Limits::default())
    }

    fn unpack_within(&self, layer: &Layer, limits: &Limits) -> Result<UnpackedLayer, LayerError> {
        let staging = self.store.begin_layer(&layer.descriptor.digest).unwrap();
        let staging = staging.expect("it is there already");
        staging.unpack(&layer.blob[..], &layer.descriptor, limits, &())
    }

    /// Where a layer's files are.
    fn fs(&self, layer: &Layer) -> PathBuf {
        let name = layer.descriptor.digest.file_name();
        self.root().join("v1/layers").join(name).join("fs")
    }

    fn commit(&self, image: &Built, names: &[&str]) -> Result<Image, StoreError> {
        for layer in &image.layers {
            if let Some(staging) = self.store.begin_layer(&layer.descriptor.digest)? {
                staging
                    .unpack(&layer.blob[..], &layer.descriptor, &Limits::default(), &())
                    .unwrap();
            }
        }
        let names: Vec<Reference> = names.iter().map(|name| name.parse().unwrap()).collect();
        self.store
            .commit_image(&image.manifest, &image.config, &names)
    }

    fn list(&self, part: &str) -> Vec<String> {
        list(&self.root().join("v1").join(part))
    }

    /// What a refusal leaves: nothing, neither in the store nor outside.
    #[track_caller]
    fn assert_untouched(&self) {
        assert_eq!(list(&self.outside()), ["canary"]);
        assert_eq!(fs::read(self.outside().join("canary")).unwrap(), b"sings");
        for part in ["layers", "images", "refs", "tmp"] {
            assert_eq!(self.list(part), [""; 0], "left in {part}");
        }
    }
}

fn list(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

/// The fault of a refused layer; it must fit on one line.
#[track_caller]
fn fault(result: Result<UnpackedLayer, LayerError>) -> LayerFault {
    let error = result.expect_err("it was not refused");
    let text = error.to_string();
    assert!(!text.contains('\n') && text.len() < 1000, "{text:?}");
    error.fault
}
