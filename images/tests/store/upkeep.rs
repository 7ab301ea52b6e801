//! Names, leases, removing, collecting, and stores of other versions.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use podspawn_images::document::DocumentError;
use podspawn_images::layer::Compression;
use podspawn_images::limits::Limits;
use podspawn_images::reference::Reference;
use podspawn_images::store::{Begun, Ownership, Store, StoreError};
use serde_json::json;

use super::Place;
use super::common::archive::{file, tar};
use super::common::layout::{Built, Layer};

fn layer(text: &str) -> Layer {
    Layer::new(&tar([file("f", text)]), Compression::Gzip)
}

fn name(text: &str) -> Reference {
    text.parse().unwrap()
}

fn ownership() -> Ownership {
    let root = rustix::process::geteuid().is_root();
    if root {
        Ownership::Mapped
    } else {
        Ownership::Single
    }
}

/// The same store as another process would have it.
fn again(place: &Place) -> Store {
    Store::open(&place.root(), ownership()).unwrap()
}

#[test]
fn images_are_found_by_their_names() {
    let place = Place::new();
    assert!(place.store.image(&name("one")).unwrap().is_none());
    assert!(place.store.images().unwrap().is_empty());
    let built = Built::new([layer("a"), layer("b")]);
    let committed = place
        .commit(&built, &["one", "example.org:5000/deep/name:tag"])
        .unwrap();
    assert_eq!(committed.digest, built.digest());
    for text in [
        "one",
        "docker.io/library/one:latest",
        "example.org:5000/deep/name:tag",
    ] {
        let image = again(&place).image(&name(text)).unwrap().unwrap();
        assert_eq!(image.digest, built.digest());
        assert_eq!(
            image.layers,
            [place.fs(&built.layers[0]), place.fs(&built.layers[1])]
        );
        assert_eq!(
            image
                .config
                .config()
                .as_ref()
                .unwrap()
                .cmd()
                .as_ref()
                .unwrap(),
            &["/bin/sh"]
        );
        assert_eq!(image.manifest_bytes().unwrap(), built.manifest);
    }
    assert!(place.store.image(&name("one:other")).unwrap().is_none());
    assert!(
        place
            .store
            .image_by_digest(&built.digest())
            .unwrap()
            .is_some()
    );

    // A name moves; the image it leaves has none.
    let other = Built::new([layer("a"), layer("c")]);
    place.commit(&other, &["one"]).unwrap();
    assert_eq!(
        place.store.image(&name("one")).unwrap().unwrap().digest,
        other.digest()
    );
    place
        .commit(&other, &["example.org:5000/deep/name:tag", "two"])
        .unwrap();
    let images = place.store.images().unwrap();
    let names: Vec<Vec<String>> = images
        .iter()
        .map(|image| image.names.iter().map(Reference::to_string).collect())
        .collect();
    let all = [
        "docker.io/library/one:latest",
        "docker.io/library/two:latest",
        "example.org:5000/deep/name:tag",
    ];
    assert_eq!(names, [&all[..], &[]]);
    assert_eq!(images[0].layers, 2);
    let size: usize = other.layers.iter().map(|layer| layer.blob.len()).sum();
    assert_eq!(images[0].size, size as u64);
    assert_eq!(place.list("layers").len(), 3);
}

#[test]
fn removing_leaves_what_others_need() {
    let place = Place::new();
    let (a, b, c) = (layer("a"), layer("b"), layer("c"));
    let one = Built::new([a.clone(), b.clone()]);
    let two = Built::new([a.clone(), c.clone()]);
    drop(place.commit(&one, &["one", "uno"]).unwrap());
    drop(place.commit(&two, &["two"]).unwrap());

    let removed = place.store.remove(&name("one")).unwrap();
    assert_eq!((removed.images.len(), removed.layers.len()), (0, 0));
    assert!(place.store.image(&name("uno")).unwrap().is_some());
    let removed = place.store.remove(&name("uno")).unwrap();
    assert_eq!(removed.images, [one.digest()]);
    assert_eq!(removed.layers, [b.descriptor.digest]);
    assert!(!removed.deferred && removed.in_use.is_empty());
    assert!(place.store.image(&name("two")).unwrap().is_some());
    assert_eq!(place.list("layers").len(), 2);

    let error = place.store.remove(&name("uno")).unwrap_err();
    assert!(matches!(error, StoreError::NoSuchImage(_)));
    assert_eq!(
        error.to_string(),
        "there is no image docker.io/library/uno:latest in the store"
    );
    place.store.remove(&name("two")).unwrap();
    place.assert_untouched();
}

#[test]
fn images_in_use_lose_their_name_only() {
    let place = Place::new();
    let built = Built::new([layer("a")]);
    let image = place.commit(&built, &["used"]).unwrap();
    let lease = image.lease().unwrap();
    drop(image);
    let removed = again(&place).remove(&name("used")).unwrap();
    assert_eq!(
        (removed.in_use, removed.images),
        (vec![built.digest()], vec![])
    );
    assert!(place.store.image(&name("used")).unwrap().is_none());
    assert!(again(&place).prune().unwrap().images.is_empty());
    assert!(place.fs(&built.layers[0]).join("f").exists());
    drop(lease);
    let removed = again(&place).prune().unwrap();
    assert_eq!((removed.images.len(), removed.layers.len()), (1, 1));
    place.assert_untouched();
}

#[test]
fn layers_of_a_running_pull_are_not_collected() {
    let place = Place::new();
    let built = Built::new([layer("a"), layer("b")]);
    drop(place.commit(&Built::new([layer("z")]), &["other"]).unwrap());
    place.unpack(&built.layers[0]).unwrap();
    let other = again(&place);
    let removed = other.remove(&name("other")).unwrap();
    assert!(removed.deferred && removed.untagged.len() == 1 && removed.images.is_empty());
    assert!(other.prune().unwrap().deferred);
    let staging = place
        .store
        .begin_layer(&built.layers[1].descriptor.digest)
        .unwrap()
        .unwrap();
    assert!(other.prune().unwrap().deferred);
    assert!(staging.blob() == &built.layers[1].descriptor.digest);
    drop(staging);
    let image = place.commit(&built, &["pulled"]).unwrap();
    drop(image);
    // Nothing is claimed any more, so what was put off is done.
    let removed = other.prune().unwrap();
    assert_eq!(
        (removed.deferred, removed.images.len(), removed.layers.len()),
        (false, 1, 1)
    );
    assert!(place.store.image(&name("pulled")).unwrap().is_some());
    // A pull that failed leaves what is finished, until it is collected.
    let store = again(&place);
    let rest = layer("rest");
    let staging = store.begin_layer(&rest.descriptor.digest).unwrap().unwrap();
    staging
        .unpack(&rest.blob[..], &rest.descriptor, &Limits::default(), &())
        .unwrap();
    assert!(other.prune().unwrap().deferred);
    drop(store);
    assert!(again(&place).has_layer(&rest.descriptor.digest));
    assert_eq!(other.prune().unwrap().layers, [rest.descriptor.digest]);
}

#[test]
fn one_blob_is_unpacked_once() {
    let place = Place::new();
    let layer = layer("shared");
    let unpacked = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let store = again(&place);
                if let Some(staging) = store.begin_layer(&layer.descriptor.digest).unwrap() {
                    assert!(matches!(
                        again(&place)
                            .try_begin_layer(&layer.descriptor.digest)
                            .unwrap(),
                        Begun::Busy
                    ));
                    let slow = Slow(&layer.blob);
                    staging
                        .unpack(slow, &layer.descriptor, &Limits::default(), &())
                        .unwrap();
                    unpacked.fetch_add(1, Ordering::SeqCst);
                }
                assert!(store.has_layer(&layer.descriptor.digest));
            });
        }
    });
    assert_eq!(unpacked.into_inner(), 1);
    assert_eq!(place.list("tmp"), [""; 0]);
}

/// A blob that comes byte by byte.
struct Slow<'a>(&'a [u8]);

impl std::io::Read for Slow<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        std::thread::sleep(std::time::Duration::from_micros(500));
        let length = out.len().min(1);
        std::io::Read::read(&mut self.0, &mut out[..length])
    }
}

#[test]
fn many_commits_at_once_make_one_image() {
    let place = Place::new();
    let built = Built::new([layer("a"), layer("b"), layer("c")]);
    std::thread::scope(|scope| {
        for n in 0..8 {
            let (place, built) = (&place, &built);
            scope.spawn(move || {
                let store = again(place);
                for layer in &built.layers {
                    if let Some(staging) = store.begin_layer(&layer.descriptor.digest).unwrap() {
                        staging
                            .unpack(&layer.blob[..], &layer.descriptor, &Limits::default(), &())
                            .unwrap();
                    }
                }
                let names = [name("same"), name(&format!("n{n}"))];
                store
                    .commit_image(&built.manifest, &built.config, &names)
                    .unwrap();
                // Others that look meanwhile see all of it or nothing.
                let image = store.image(&name("same")).unwrap().unwrap();
                assert!(image.layers.iter().all(|layer| layer.join("f").exists()));
                store.remove(&names[1]).unwrap();
            });
        }
    });
    assert_eq!(place.store.images().unwrap()[0].names, [name("same")]);
    assert_eq!(
        (place.list("images").len(), place.list("layers").len()),
        (1, 3)
    );
    assert_eq!(place.list("tmp"), [""; 0]);
}

#[test]
fn images_that_do_not_fit_their_layers_are_refused() {
    let place = Place::new();
    let (a, b) = (layer("a"), layer("b"));
    let refused = |manifest: &[u8], config: &[u8]| {
        let error = place
            .store
            .commit_image(manifest, config, &[name("x")])
            .unwrap_err();
        assert!(!error.to_string().contains('\n'));
        assert_eq!(
            (place.list("images").len(), place.list("refs").len()),
            (0, 0)
        );
        error
    };
    let built = Built::new([a.clone(), b.clone()]);
    let error = refused(&built.manifest, &built.config);
    assert!(matches!(error, StoreError::NoSuchLayer(_)), "{error}");
    place.unpack(&a).unwrap();
    place.unpack(&b).unwrap();

    let error = refused(&built.manifest, b"{}");
    assert!(
        matches!(error, StoreError::Document(DocumentError::Config(_))),
        "{error}"
    );
    // An image that lies about what a layer has in it.
    let mut lying = b.clone();
    lying.descriptor.diff_id = a.descriptor.diff_id.clone();
    let lying = Built::new([a.clone(), lying]);
    let error = refused(&lying.manifest, &lying.config);
    assert!(matches!(error, StoreError::DiffId { .. }), "{error}");
    let short = json!({
        "architecture": "amd64", "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [a.descriptor.diff_id]},
    });
    let short = Built::with_config(vec![a.clone(), b.clone()], &short);
    let error = refused(&short.manifest, &short.config);
    assert!(
        matches!(error, StoreError::Document(DocumentError::DiffIds { .. })),
        "{error}"
    );
    // And the honest one is not in the way of any of them.
    place.commit(&built, &["x"]).unwrap();
}

#[test]
fn other_versions_are_refused() {
    let place = Place::new();
    let marker = place.root().join("v1/format");
    let good = fs::read_to_string(&marker).unwrap();
    let open = || Store::open(&place.root(), ownership()).unwrap_err();
    for (text, found) in [
        (good.replace('1', "2"), "format 2"),
        ("something".into(), "format unknown"),
        (String::new(), "format unknown"),
    ] {
        fs::write(&marker, text).unwrap();
        assert!(open().to_string().contains(found), "{}", open());
    }
    fs::write(&marker, "podspawn store 1\n").unwrap();
    assert!(matches!(open(), StoreError::Damaged { .. }));

    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    drop(Store::open(&root, ownership()).unwrap());
    fs::rename(root.join("v1"), root.join("v7")).unwrap();
    let error = Store::open(&root, ownership()).unwrap_err();
    assert!(error.to_string().contains("format 7"), "{error}");
    assert!(!root.join("v1").exists());
}

#[test]
fn remains_of_others_are_collected() {
    let place = Place::new();
    let tmp = place.root().join("v1/tmp");
    fs::create_dir_all(tmp.join("layer-x/fs/deep/er")).unwrap();
    fs::write(tmp.join("layer-x/fs/file"), "x").unwrap();
    fs::write(tmp.join("format-1-x"), "x").unwrap();
    fs::create_dir(tmp.join("image-1-0")).unwrap();
    // One that somebody holds.
    let held = tmp.join("layer-held");
    fs::create_dir(&held).unwrap();
    let lock = fs::File::open(&held).unwrap();
    lock.lock().unwrap();
    place.commit(&Built::new([layer("a")]), &["x"]).unwrap();
    assert_eq!(place.list("tmp"), ["layer-held"]);
    drop(lock);
    place.store.prune().unwrap();
    assert_eq!(place.list("tmp"), [""; 0]);
}

#[test]
fn damaged_stores_are_said_to_be() {
    let place = Place::new();
    let built = Built::new([layer("a")]);
    drop(place.commit(&built, &["x"]).unwrap());
    let image = place
        .root()
        .join("v1/images")
        .join(built.digest().file_name());
    let list = fs::read_to_string(image.join("layers")).unwrap();
    fs::write(image.join("layers"), "../../../etc\n").unwrap();
    let error = place.store.image(&name("x")).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    fs::write(image.join("layers"), list).unwrap();
    assert!(place.store.image(&name("x")).unwrap().is_some());
    let reference = place.root().join("v1/refs").join(&place.list("refs")[0]);
    fs::write(&reference, "").unwrap();
    let error = place.store.image(&name("x")).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
}
