//! The memory of a pull is bounded, whatever the image: 128 MB, the program and all.

use std::io::Write as _;

use podspawn_images::digest::Digest;
use podspawn_images::progress::Silent;
use podspawn_images::pull::pull;
use serde_json::json;

use crate::common::archive::{self, dir, file};
use crate::common::{alone, layout, run, told};
use crate::content::{Image, Layer, noise};
use crate::http::{Site, honest};
use crate::{Place, quick, reference};

/// In KiB.
const MOST: u64 = 128_000_000 / 1024;

/// Of every kind there is more than fits at once.
fn hungry() -> Image {
    let mut layers = Vec::new();
    for n in 0..9 {
        let bytes = match n % 3 {
            0 => wide_window(n),
            1 => many_directories(n),
            _ => long_headers(n),
        };
        let blob = match n % 3 {
            0 => zstd_of(&bytes),
            _ => layout::gzip(&bytes),
        };
        let diff_id = Digest::of(&bytes);
        layers.push(Layer { blob, diff_id });
    }
    Image::new(layers).with(|manifest| {
        for n in [0, 3, 6] {
            let zstd = "application/vnd.oci.image.layer.v1.tar+zstd";
            manifest["layers"][n]["mediaType"] = json!(zstd);
        }
    })
}

/// All of the window is written to: with noise, lest it be a hole.
fn wide_window(n: u64) -> Vec<u8> {
    let noise = noise(n, 1 << 20);
    let all: Vec<u8> = (0..34).flat_map(|_| &noise).copied().collect();
    archive::tar([file(format!("wide{n}"), all)])
}

fn zstd_of(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(25).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn many_directories(n: u64) -> Vec<u8> {
    let attribute = vec![b'v'; 3000];
    let dirs = (0..9000).map(|m| dir(format!("many{n}/{m}")).xattr("user.a", &attribute));
    archive::tar(dirs)
}

/// Each entry has nearly as much in front of it as is allowed.
fn long_headers(n: u64) -> Vec<u8> {
    let files = (0..20).map(|m| {
        let mut entry = file(format!("long{n}/{m}"), "");
        // Some that are kept until the entry is done, and then dropped.
        for k in 0..4000 {
            entry = entry.xattr(format!("trusted.{k:0200}"), "value");
        }
        entry
    });
    archive::tar(files)
}

/// The most that this process had so far, in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let number = line.unwrap().split_whitespace().nth(1);
    number.unwrap().parse().unwrap()
}

#[test]
fn a_pull_stays_below_128_mb() {
    if let Some(name) = told() {
        let place = Place::new();
        pull(&place.store, &reference(&name), &quick_enough(), &Silent).unwrap();
        let peak = peak();
        assert!(peak <= MOST, "{peak} KiB");
        return;
    }
    let image = hungry();
    let site =
        Site::start(move |request, stream| honest(std::slice::from_ref(&image), request, stream));
    let name = site.name("x:0");
    run(alone("memory::a_pull_stays_below_128_mb", &[], &name));
}

/// The defaults, but for how long to wait: the layers take turns.
fn quick_enough() -> podspawn_images::pull::PullOptions {
    podspawn_images::pull::PullOptions {
        timeouts: Default::default(),
        ..quick()
    }
}
