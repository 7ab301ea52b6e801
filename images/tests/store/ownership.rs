//! Whose the files are: inside a user namespace, and for a user who has no ids to give.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::process::Stdio;
use std::time::{Duration, Instant};

use podspawn_images::layer::Compression;
use podspawn_images::store::{Ownership, Store, StoreError};

use super::common::archive::{dir, file, hard_link, symlink, tar};
use super::common::layout::{Built, Layer};
use super::common::snapshot::{merged, name, tree};
use super::common::{alone, root, run, skip, told};
use super::{Place, list};

fn entries() -> Vec<super::common::archive::Entry> {
    vec![
        file("root", "x").mode(0o4755),
        file("user", "x").owner(1000, 100).mode(0o600),
        file("high", "x").owner(65535, 65535),
        file("beyond", "x").owner(70_000, 0),
        dir("locked").mode(0).owner(5, 5),
        file("locked/in", "x").mode(0),
        dir("readonly").mode(0o500),
        file("readonly/in", "x")
            .mode(0o400)
            .xattr("user.note", "kept"),
        symlink("link", "x").owner(7, 7),
        file("gone/.wh.x", ""),
        file(".wh.top", ""),
    ]
}

/// A shell that waits for its ids before it becomes the test.
const WHEN_MAPPED: &str = "read go; exec \"$@\"";

#[test]
fn as_root_of_a_user_namespace() {
    if told().is_some() {
        return inside();
    }
    in_a_namespace("ownership::as_root_of_a_user_namespace", &[]);
}

/// As a pod's user is: mapped to an id of their own, with all capabilities over the others.
#[test]
fn as_a_user_in_their_namespace() {
    if told().is_some() {
        assert_eq!(rustix::process::geteuid().as_raw(), 1000);
        return inside();
    }
    let user = [
        "setpriv",
        "--reuid=1000",
        "--regid=1000",
        "--clear-groups",
        "--inh-caps=+all",
        "--ambient-caps=+all",
    ];
    in_a_namespace("ownership::as_a_user_in_their_namespace", &user);
}

/// Runs a test again in a user namespace that maps 65,536 ids.
fn in_a_namespace(test: &str, become_whom: &[&str]) {
    if !root() {
        return;
    }
    let shell = [
        "unshare",
        "--user",
        "--mount",
        "sh",
        "-c",
        WHEN_MAPPED,
        "sh",
    ];
    let mut command = alone(test, &[&shell[..], become_whom].concat(), "");
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let namespace = |who: &str| fs::read_link(format!("/proc/{who}/ns/user")).unwrap();
    let (pid, begun) = (child.id().to_string(), Instant::now());
    while namespace(&pid) == namespace("self") {
        if begun.elapsed() > Duration::from_secs(20) || child.try_wait().unwrap().is_some() {
            let _ = child.kill();
            let _ = child.wait();
            return skip("there are no user namespaces here");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    for map in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/{pid}/{map}"), "0 0 1\n1 200001 65535\n").unwrap();
    }
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let more = String::from_utf8_lossy(&output.stderr);
    let passed = output.status.success() && text.contains("1 passed");
    assert!(passed, "{text}\n{more}");
}

fn inside() {
    let place = Place::with(Ownership::Mapped);
    let capability = [
        1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    let mut entries = entries();
    entries.push(file("ping", "x").xattr("security.capability", capability));
    let layer = Layer::new(&tar(entries), Compression::Gzip);
    let unpacked = place.unpack(&layer).unwrap();
    let tree = tree(&place.fs(&layer));
    let at = |path: &str| tree[&name(path.as_bytes())].clone();
    assert_eq!((at("root").owner, at("root").mode), ((0, 0), 0o4755));
    assert_eq!(at("user").owner, (1000, 100));
    assert_eq!(at("high").owner, (65535, 65535));
    assert_eq!(at("beyond").owner, (65534, 0));
    assert_eq!((at("locked").owner, at("locked/in").mode), ((5, 5), 0));
    assert_eq!(at("link").owner, (7, 7));
    assert_eq!(at("top").kind, 'c');
    assert_eq!(at("ping").xattrs["security.capability"], capability);
    assert_eq!(
        (unpacked.record.skipped.ids, unpacked.record.skipped.xattrs),
        (1, 0)
    );

    // A stack with a fixup, mounted as a pod would; then everything goes, whoever owns it.
    let above = tar([file("locked/new", "y"), hard_link("hard", "user")]);
    let image = Built::new([layer, Layer::new(&above, Compression::Gzip)]);
    let image = place.commit(&image, &["test"]).unwrap();
    let tree = merged(&image.layers);
    let at = |path: &str| tree[&name(path.as_bytes())].clone();
    assert_eq!((at("locked").owner, at("locked").mode), ((5, 5), 0));
    assert_eq!((at("hard").owner, at("hard").links), ((1000, 100), 2));
    assert!(!tree.contains_key(&name(b"gone/x")));
    drop(image);
    let removed = place.store.remove(&"test".parse().unwrap()).unwrap();
    assert_eq!(removed.layers.len(), 2);
    for part in ["layers", "images", "tmp"] {
        assert_eq!(place.list(part), [""; 0]);
    }
}

/// Runs this very test again as nobody, if this is root.
#[test]
fn as_an_ordinary_user() {
    if told().is_none() && rustix::process::geteuid().is_root() {
        let as_nobody = [
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
        ];
        return run(alone("ownership::as_an_ordinary_user", &as_nobody, ""));
    }
    let place = Place::with(Ownership::Single);
    let layer = Layer::new(&tar(entries()), Compression::Gzip);
    let unpacked = place.unpack(&layer).unwrap();
    let me = rustix::process::geteuid().as_raw();
    let at = place.fs(&layer);
    for path in ["root", "user", "beyond", "locked", "readonly", "link"] {
        assert_eq!(
            fs::symlink_metadata(at.join(path)).unwrap().uid(),
            me,
            "{path}"
        );
    }
    assert_eq!(
        fs::metadata(at.join("root")).unwrap().mode() & 0o7777,
        0o4755
    );
    assert_eq!(fs::metadata(at.join("locked")).unwrap().mode() & 0o7777, 0);
    let mut note = [0; 9];
    let length = rustix::fs::getxattr(at.join("readonly/in"), "user.note", &mut note).unwrap();
    assert_eq!(&note[..length], b"kept");
    assert_eq!(unpacked.record.skipped.ids, 0);

    let above = tar([file("readonly/new", "y"), hard_link("hard", "user")]);
    let image = Built::new([layer, Layer::new(&above, Compression::Gzip)]);
    let image = place.commit(&image, &["test"]).unwrap();
    let fixup = image.layers.last().unwrap();
    assert_eq!(
        fs::metadata(fixup.join("readonly")).unwrap().mode() & 0o7777,
        0o500
    );
    assert_eq!(list(fixup), ["gone", "hard", "readonly", "user"]);
    drop(image);
    let removed = place.store.remove(&"test".parse().unwrap()).unwrap();
    assert_eq!(removed.layers.len(), 2);
    for part in ["layers", "images", "tmp"] {
        assert_eq!(place.list(part), [""; 0]);
    }
}

#[test]
fn a_store_stays_what_it_was_made_as() {
    let place = Place::new();
    let (made, other) = if rustix::process::geteuid().is_root() {
        (Ownership::Mapped, Ownership::Single)
    } else {
        (Ownership::Single, Ownership::Mapped)
    };
    Store::open(&place.root(), made).unwrap();
    let error = Store::open(&place.root(), other).unwrap_err();
    assert!(matches!(error, StoreError::Ownership { .. }), "{error}");
}

#[test]
fn a_store_under_another_map_is_refused() {
    if !root() {
        return;
    }
    let place = Place::with(Ownership::Mapped);
    let marker = place.root().join("v1/format");
    std::os::unix::fs::chown(&marker, Some(100_000), Some(100_000)).unwrap();
    let error = Store::open(&place.root(), Ownership::Mapped).unwrap_err();
    assert!(matches!(error, StoreError::IdMap { .. }), "{error}");
}

#[test]
fn a_store_that_others_can_reach_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("store");
    for mode in [0o755, 0o770, 0o701] {
        let _ = fs::remove_dir_all(&at);
        fs::DirBuilder::new().create(&at).unwrap();
        fs::set_permissions(&at, fs::Permissions::from_mode(mode)).unwrap();
        let error = Store::open(&at, Ownership::Single).unwrap_err();
        assert!(matches!(error, StoreError::NotPrivate { .. }), "{error}");
    }
    if root() {
        let _ = fs::remove_dir_all(&at);
        fs::DirBuilder::new().mode(0o700).create(&at).unwrap();
        std::os::unix::fs::chown(&at, Some(12345), None).unwrap();
        let error = Store::open(&at, Ownership::Single).unwrap_err();
        assert!(
            matches!(error, StoreError::NotOwned { uid: 12345, .. }),
            "{error}"
        );
    }
}
