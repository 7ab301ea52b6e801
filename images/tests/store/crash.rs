//! Ends that nobody chose: kill -9 at any moment, and a full disk.

use std::process::Stdio;
use std::time::Duration;

use podspawn_images::layer::{Compression, LayerFault};
use podspawn_images::limits::Limits;
use podspawn_images::store::{Ownership, Store};

use super::Place;
use super::common::archive::{Entry, dir, file, hard_link, tar};
use super::common::layout::{Built, Layer};
use super::common::snapshot::{assert_same, tree};
use super::common::{alone, root, run, told};

/// Enough to take some ten milliseconds.
fn image() -> Built {
    Built::of((0..4).map(|n| {
        let mut entries: Vec<Entry> = Vec::new();
        for k in 0..150 {
            entries.push(dir(format!("d{n}/{k}")));
            entries.push(file(format!("d{n}/{k}/file"), vec![b'x'; 3000]));
        }
        entries.push(file("big", vec![b'y'; 3_000_000 * (n + 1)]));
        entries.push(file("implied/dir/file", "z"));
        if n > 0 {
            entries.push(hard_link(format!("link{n}"), "d0/1/file"));
        }
        tar(entries)
    }))
}

fn pull(store: &Store, image: &Built) {
    for layer in &image.layers {
        if let Some(staging) = store.begin_layer(&layer.descriptor.digest).unwrap() {
            let descriptor = &layer.descriptor;
            staging
                .unpack(&layer.blob[..], descriptor, &Limits::default(), &())
                .unwrap();
        }
    }
    let names = ["killed:1".parse().unwrap()];
    store
        .commit_image(&image.manifest, &image.config, &names)
        .unwrap();
}

fn ownership() -> Ownership {
    let root = rustix::process::geteuid().is_root();
    if root {
        Ownership::Mapped
    } else {
        Ownership::Single
    }
}

#[test]
fn killed_at_any_moment() {
    let image = image();
    if let Some(root) = told() {
        // Again and again, until somebody has enough of it.
        let name = "killed:1".parse().unwrap();
        loop {
            let store = Store::open(root.as_ref(), ownership()).unwrap();
            pull(&store, &image);
            store.remove(&name).unwrap();
        }
    }
    let place = Place::new();
    let whole = Place::new();
    pull(&whole.store, &image);
    for round in 0..40u32 {
        let root = place.root();
        let mut child = alone("crash::killed_at_any_moment", &[], root.to_str().unwrap());
        let mut child = child
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Spread over several pulls, from the very start on.
        std::thread::sleep(Duration::from_micros(u64::from(round) * 7_919));
        child.kill().unwrap();
        child.wait().unwrap();

        let store = Store::open(&root, ownership()).unwrap();
        // What is published is whole, at any time.
        for summary in store.images().unwrap() {
            let found = store.image_by_digest(&summary.digest).unwrap().unwrap();
            assert!(
                found.layers.iter().all(|layer| layer.is_dir()),
                "round {round}"
            );
        }
        for layer in &image.layers {
            if store.has_layer(&layer.descriptor.digest) {
                assert_same(&tree(&place.fs(layer)), &tree(&whole.fs(layer)));
            }
        }
        if round % 4 == 3 {
            pull(&store, &image);
            let found = store.image(&"killed:1".parse().unwrap()).unwrap().unwrap();
            assert_same(
                &tree(found.layers.last().unwrap()),
                &tree(
                    &super::Store::image(&whole.store, &"killed:1".parse().unwrap())
                        .unwrap()
                        .unwrap()
                        .layers[4],
                ),
            );
            assert_eq!(place.list("tmp"), [""; 0]);
        }
    }
    let store = Store::open(&place.root(), ownership()).unwrap();
    let _ = store.remove(&"killed:1".parse().unwrap());
    store.prune().unwrap();
    place.assert_untouched();
}

/// In a mount namespace of its own, with a file system too small for the image.
#[test]
fn a_full_disk() {
    let Some(dir) = told() else {
        if root() {
            let place = tempfile::tempdir().unwrap();
            let mount =
                "mount -t tmpfs -o size=4m,mode=700 none \"$PODSPAWN_TEST_ALONE\" && exec \"$@\"";
            let wrapper = ["unshare", "--mount", "sh", "-c", mount, "sh"];
            run(alone(
                "crash::a_full_disk",
                &wrapper,
                place.path().to_str().unwrap(),
            ));
        }
        return;
    };
    let store = Store::open(dir.as_ref(), ownership()).unwrap();
    let mut noise = 1u32;
    let mut content = Vec::new();
    for _ in 0..6 << 20 {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        content.push((noise >> 24) as u8);
    }
    let layer = Layer::new(&tar([file("f", content)]), Compression::Gzip);
    for _ in 0..3 {
        let staging = store
            .begin_layer(&layer.descriptor.digest)
            .unwrap()
            .unwrap();
        let error = staging.unpack(&layer.blob[..], &layer.descriptor, &Limits::default(), &());
        let fault = error.unwrap_err().fault;
        assert!(fault.is_full(), "{fault}");
        assert!(matches!(fault, LayerFault::Write { .. }), "{fault}");
        // All room is there again.
        assert!(super::list(&std::path::Path::new(&dir).join("v1/tmp")).is_empty());
    }
    // And what fits still goes in.
    let small = Built::of([tar([file("f", vec![b'x'; 1 << 20])])]);
    pull(&store, &small);
}
