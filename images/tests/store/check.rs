//! Damage is found, is told from what is well, and can be set aside and put back.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use podspawn_images::digest::Digest;
use podspawn_images::layer::Compression;
use podspawn_images::store::{Aside, Damaged, affected};

use super::Place;
use super::common::archive::{Entry, dir, file, hard_link, symlink, tar};
use super::common::layout::{Built, Layer};

/// Two layers with everything that a layer can have, and that needs a fixup.
fn tricky() -> Built {
    let mut sparse = file("sparse", b"datamore");
    sparse = sparse.record("GNU.sparse.map", "100000,4,900000,4");
    sparse = sparse.record("GNU.sparse.size", "5000000");
    let lower = tar([
        dir("d").mode(0o2750),
        file("d/file", "content").mode(0o4755),
        file("d/empty", ""),
        file("d/forbidding", "secret").mode(0),
        dir("forbidden").mode(0),
        file("forbidden/inside", "x"),
        file("big", vec![7; 300_000]),
        file("zeros", vec![0; 400_000]),
        file(
            "mixed",
            [vec![1; 70_000], vec![0; 200_000], vec![2; 3]].concat(),
        ),
        sparse,
        hard_link("d/second", "d/file"),
        symlink("link", "d/file"),
        hard_link("link2", "link"),
        Entry::new(b'6', "fifo"),
        Entry::new(b'3', "device"),
        file(b"names/\xff\n", "odd"),
        file("twice", "first"),
        file("twice", "second"),
        file("turns", "a file"),
        file("turns/into", "a directory").mode(0o600),
    ]
    .into_iter()
    .filter(|entry| entry.path != b"turns/into"));
    let upper = tar([
        file(".wh.big", ""),
        file("d/.wh..wh..opq", ""),
        file("d/new", "n"),
        hard_link("across", "mixed"),
    ]);
    Built::new([
        Layer::new(&lower, Compression::Gzip),
        Layer::new(&upper, Compression::Zstd),
    ])
}

fn damage(place: &Place) -> Vec<String> {
    let report = place.store.check(&()).unwrap();
    assert_eq!(report.unproved, 0);
    let said = report.damage.iter().map(|damage| {
        let what = match &damage.what {
            Damaged::Name(..) => "name",
            Damaged::Image(_) => "image",
            Damaged::Layer(_) => "layer",
        };
        format!("{what}: {}", damage.why)
    });
    said.collect()
}

#[test]
fn what_was_unpacked_is_as_it_should_be() {
    let place = Place::new();
    let image = tricky();
    drop(place.commit(&image, &["x"]).unwrap());
    assert_eq!(damage(&place), [""; 0]);
    let report = place.store.check(&()).unwrap();
    assert_eq!((report.names, report.images, report.layers), (1, 1, 2));
    // Looking changed nothing.
    let fs = place.fs(&image.layers[0]);
    assert_eq!(
        fs::metadata(fs.join("forbidden")).unwrap().mode() & 0o7777,
        0
    );
    assert_eq!(
        fs::symlink_metadata(fs.join("d/forbidding"))
            .unwrap()
            .mode()
            & 0o7777,
        0
    );
    assert_eq!(damage(&place), [""; 0]);
}

#[test]
fn each_damage_to_a_layer_is_found() {
    let place = Place::new();
    let image = tricky();
    drop(place.commit(&image, &["x"]).unwrap());
    let root = place.fs(&image.layers[0]);
    type Change = fn(&Path);
    let changes: [(&str, Change); 11] = [
        ("a byte", |fs| change(&fs.join("big"), |b| b[200_000] ^= 1)),
        ("a byte in zeros", |fs| {
            change(&fs.join("zeros"), |b| b[399_999] = 1)
        }),
        ("cut short", |fs| {
            change(&fs.join("big"), |b| b.truncate(299_999))
        }),
        ("emptied", |fs| change(&fs.join("d/file"), Vec::clear)),
        ("longer by a zero", |fs| {
            change(&fs.join("mixed"), |b| b.push(0))
        }),
        ("a file is gone", |fs| {
            fs::remove_file(fs.join("d/empty")).unwrap()
        }),
        ("a file is new", |fs| fs::write(fs.join("new"), "").unwrap()),
        ("a mode", |fs| {
            fs::set_permissions(fs.join("big"), fs::Permissions::from_mode(0o600)).unwrap();
        }),
        ("a directory's mode", |fs| {
            fs::set_permissions(fs.join("d"), fs::Permissions::from_mode(0o755)).unwrap();
        }),
        ("a symlink", |fs| {
            fs::remove_file(fs.join("link")).unwrap();
            std::os::unix::fs::symlink("elsewhere", fs.join("link")).unwrap();
        }),
        ("another kind", |fs| {
            fs::remove_file(fs.join("fifo")).unwrap();
            fs::write(fs.join("fifo"), "").unwrap();
        }),
    ];
    for (what, change) in changes {
        let copy = place.root().join("copy");
        copy_tree(&root, &copy);
        change(&root);
        let found = damage(&place);
        assert_eq!(
            found,
            ["layer: its files are not those that were unpacked"],
            "{what}"
        );
        remove(&root);
        fs::rename(&copy, &root).unwrap();
        assert_eq!(damage(&place), [""; 0], "{what}");
    }
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

fn copy_tree(from: &Path, to: &Path) {
    let status = std::process::Command::new("cp")
        .arg("-a")
        .arg(from)
        .arg(to)
        .status();
    assert!(status.unwrap().success());
}

fn remove(path: &Path) {
    let status = std::process::Command::new("rm")
        .arg("-rf")
        .arg(path)
        .status();
    assert!(status.unwrap().success());
}

#[test]
fn each_damage_to_an_image_or_a_name_is_found() {
    let place = Place::new();
    let image = tricky();
    drop(place.commit(&image, &["x"]).unwrap());
    let v1 = place.root().join("v1");
    let dir = v1.join("images").join(image.digest().file_name());
    let refs = v1.join("refs").join(&place.list("refs")[0]);
    let list = fs::read_to_string(dir.join("layers")).unwrap();
    assert!(list.ends_with("fixup\n"), "{list}");
    let with = |path: PathBuf, content: &[u8], expected: &str| {
        let old = fs::read(&path).unwrap();
        fs::write(&path, content).unwrap();
        let found = damage(&place);
        assert_eq!(found.len(), 1, "{expected}: {found:?}");
        assert!(found[0].contains(expected), "{expected}: {found:?}");
        fs::write(&path, old).unwrap();
        assert_eq!(damage(&place), [""; 0]);
    };
    with(
        dir.join("manifest.json"),
        b"{}",
        "image: its manifest is not the one",
    );
    with(
        dir.join("config.json"),
        b"{}",
        "image: the configuration is not the one",
    );
    with(
        dir.join("layers"),
        b"",
        "image: its list of lower directories",
    );
    with(
        dir.join("layers"),
        list.replace("fixup\n", "").as_bytes(),
        "image: its list",
    );
    with(dir.join("fixup/across"), b"", "image: its fixup");
    with(refs.clone(), b"", "name: ");
    with(
        refs.clone(),
        format!("sha256:{}\nx\n", "0".repeat(64)).as_bytes(),
        "which is not there",
    );
    with(
        refs,
        format!("{}\ndocker.io/library/y:1\n", image.digest()).as_bytes(),
        "another name",
    );
    let layer = v1
        .join("layers")
        .join(image.layers[1].descriptor.digest.file_name());
    with(layer.join("layer.json"), b"{", "layer: ");
    // A layer that is gone is the damage of its image.
    fs::rename(&layer, v1.join("gone")).unwrap();
    let found = damage(&place);
    assert!(
        found.len() == 1 && found[0].contains("is not there"),
        "{found:?}"
    );
}

/// Another test may be starting a program, which for a moment has all locks of this process.
fn moved(place: &Place, images: &[Digest], layers: &[Digest]) -> Aside {
    for _ in 0..500 {
        if let Some(aside) = place.store.set_aside(images, layers).unwrap() {
            return aside;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("it is still in use");
}

#[test]
fn what_is_damaged_is_set_aside_unless_it_is_used() {
    let place = Place::new();
    let (one, two) = (tricky(), Built::of([tar([file("f", "another")])]));
    drop(place.commit(&one, &["one"]).unwrap());
    drop(place.commit(&two, &["two"]).unwrap());
    fs::write(place.fs(&one.layers[0]).join("twice"), "damage").unwrap();
    let report = place.store.check(&()).unwrap();
    let (images, layers) = affected(&place.store, &report).unwrap();
    assert_eq!(images, [one.digest()]);
    assert_eq!(layers, [one.layers[0].descriptor.digest.clone()]);

    let used = place.store.image(&"one".parse().unwrap()).unwrap().unwrap();
    assert!(place.store.in_use(&used.digest));
    assert!(place.store.set_aside(&images, &layers).unwrap().is_none());
    assert_eq!(place.list("images").len(), 2);
    drop(used);

    // Put back, it is all as before; kept aside, another pull brings it anew.
    let aside = moved(&place, &images, &layers);
    assert_eq!(
        (place.list("images").len(), place.list("layers").len()),
        (1, 2)
    );
    aside.put_back().unwrap();
    assert_eq!(
        (place.list("images").len(), place.list("layers").len()),
        (2, 3)
    );
    assert_eq!(place.list("tmp"), [""; 0]);
    assert_eq!(damage(&place).len(), 1);
    let aside = moved(&place, &images, &layers);
    drop(place.commit(&one, &["one"]).unwrap());
    drop(aside);
    assert_eq!(damage(&place), [""; 0]);
    assert_eq!(place.list("tmp"), [""; 0]);
}

#[test]
fn what_takes_how_much() {
    let place = Place::new();
    let shared = Layer::new(&tar([file("shared", vec![1; 1 << 20])]), Compression::Gzip);
    let own = Layer::new(&tar([file("own", vec![2; 2 << 20])]), Compression::Gzip);
    drop(place.commit(&Built::new([shared.clone()]), &["a"]).unwrap());
    drop(place.commit(&Built::new([shared, own]), &["b"]).unwrap());
    let unused = Layer::new(&tar([file("unused", vec![3; 4 << 20])]), Compression::Gzip);
    place.unpack(&unused).unwrap();
    let usage = place.store.usage().unwrap();
    let near = |bytes: u64, mib: u64| (mib << 20..(mib << 20) + 100_000).contains(&bytes);
    assert_eq!((usage.layers, usage.unused), (3, 1));
    assert!(
        near(usage.layers_size, 7) && near(usage.unused_size, 4),
        "{usage:?}"
    );
    let (a, b) = (&usage.images[0], &usage.images[1]);
    assert!(near(a.size, 1) && near(a.unique, 0), "{a:?}");
    assert!(near(b.size, 3) && near(b.unique, 2), "{b:?}");
    assert!(a.named && b.named);
}
