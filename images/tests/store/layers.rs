//! One layer: what an honest archive becomes on disk.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use podspawn_images::layer::Compression;
use podspawn_images::store::Skipped;
use proptest::prelude::*;

use super::Place;
use super::common::archive::{Entry, THEN, dir, file, hard_link, header, symlink, tar};
use super::common::layout::{Layer, gzip, zstd};
use super::common::snapshot::{self, Node, Tree, name, tree};
use super::common::{root, skip};

fn unpack(entries: impl IntoIterator<Item = Entry>) -> (Place, Tree, Skipped) {
    let place = Place::new();
    let layer = Layer::new(&tar(entries), Compression::Gzip);
    let unpacked = place.unpack(&layer).unwrap();
    let tree = tree(&place.fs(&layer));
    (place, tree, unpacked.record.skipped)
}

fn content(tree: &Tree, path: &str) -> String {
    tree[&name(path.as_bytes())].content.clone()
}

fn digest(bytes: &[u8]) -> String {
    podspawn_images::digest::Digest::of(bytes).to_string()
}

fn whiteout(node: &Node) -> bool {
    node.kind == 'c'
}

fn opaque(node: &Node) -> bool {
    node.xattrs
        .get("user.overlay.opaque")
        .is_some_and(|v| v == b"y")
}

#[test]
fn modes_times_and_kinds_survive() {
    let (_place, tree, skipped) = unpack([
        dir("./").mode(0o750),
        dir("bin/").mode(0o1777).at(-5, 250_000_000),
        file("bin/su", "root").mode(0o4755).at(THEN, 123_456_789),
        file("bin/wall", "tty").mode(0o2755).at(-1_000_000_000, 0),
        file("bin/none", "").mode(0),
        file("bin/all", "").mode(0o7777),
        symlink("bin/sh", "/bin/bash").at(7, 7),
        symlink("bin/up", "../../../..").at(8, 0),
        Entry::new(b'6', "bin/pipe").mode(0o622),
        dir("locked").mode(0),
        file("locked/inside", "x").mode(0o400),
        dir("readonly").mode(0o555),
        file("readonly/inside", "x"),
    ]);
    let at = |path: &str| tree[&name(path.as_bytes())].clone();
    assert_eq!(at("").mode, 0o750);
    assert_eq!(
        (at("bin").mode, at("bin").mtime),
        (0o1777, (-5, 250_000_000))
    );
    assert_eq!(
        (at("bin/su").mode, at("bin/su").mtime),
        (0o4755, (THEN, 123_456_789))
    );
    assert_eq!(
        (at("bin/wall").mode, at("bin/wall").mtime),
        (0o2755, (-1_000_000_000, 0))
    );
    assert_eq!((at("bin/none").mode, at("bin/all").mode), (0, 0o7777));
    assert_eq!(
        (at("bin/sh").content.as_str(), at("bin/sh").mtime),
        ("/bin/bash", (7, 7))
    );
    assert_eq!((at("bin/up").kind, at("bin/up").mtime), ('l', (8, 0)));
    assert_eq!((at("bin/pipe").kind, at("bin/pipe").mode), ('p', 0o622));
    assert_eq!((at("locked").mode, at("locked").mtime), (0, (THEN, 0)));
    assert_eq!(content(&tree, "locked/inside"), digest(b"x"));
    assert_eq!(
        (at("readonly").mode, at("readonly").mtime),
        (0o555, (THEN, 0))
    );
    assert!(skipped.is_empty());
}

#[test]
fn owners_and_capabilities_survive() {
    if !root() {
        return;
    }
    // Version 2 of the attribute: cap_net_raw=ep.
    let capability = [
        1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    let (_place, tree, skipped) = unpack([
        file("ping", "x")
            .owner(7, 8)
            .mode(0o4755)
            .xattr("security.capability", capability),
        file("mine", "x").owner(1000, 1000),
        dir("home")
            .owner(1000, 1001)
            .mode(0o2775)
            .xattr("user.kept", "yes"),
        symlink("link", "x").owner(3, 4),
        file("huge", "x").owner(4_000_000_000, 3_000_000),
        file("impossible", "x").owner(4_294_967_295, 0),
        file("larger", "x").owner(0, 1 << 40),
        file("labelled", "x")
            .xattr("security.selinux", "system_u")
            .xattr("trusted.overlay.opaque", "y")
            .xattr("user.overlay.metacopy", "")
            .xattr("user.fuseoverlayfs.opaque", "y")
            .xattr("user.note", b"a\0b"),
        symlink("labelled link", "x").xattr("user.note", "x"),
    ]);
    let at = |path: &str| tree[&name(path.as_bytes())].clone();
    assert_eq!((at("ping").owner, at("ping").mode), ((7, 8), 0o4755));
    assert_eq!(at("ping").xattrs["security.capability"], capability);
    assert_eq!(at("mine").owner, (1000, 1000));
    assert_eq!((at("home").owner, at("home").mode), ((1000, 1001), 0o2775));
    assert_eq!(at("home").xattrs["user.kept"], b"yes");
    assert_eq!(at("link").owner, (3, 4));
    assert_eq!(at("huge").owner, (4_000_000_000, 3_000_000));
    assert_eq!(at("impossible").owner, (65534, 0));
    assert_eq!(at("larger").owner, (0, 65534));
    assert_eq!(at("labelled").xattrs.len(), 1);
    assert_eq!(at("labelled").xattrs["user.note"], b"a\0b");
    assert_eq!(
        skipped,
        Skipped {
            devices: 0,
            ids: 2,
            xattrs: 5
        }
    );
}

#[test]
fn names_of_all_kinds_survive() {
    let long = format!("{}/{}", "d".repeat(150), "f".repeat(255));
    let deep = vec!["e"; 120].join("/");
    let target = "t".repeat(500);
    let (_place, tree, _) = unpack([
        file(&long, "pax"),
        file(format!("{long}x").replace("fx", "g"), "gnu").gnu(),
        file(&deep, "deep"),
        symlink("link", &target),
        symlink("gnu link", &target).gnu(),
        file(b"caf\xe9", "latin"),
        file("new\nline", "x"),
        file("  spaces ", "x"),
        file("./dot/./slash//x", "x"),
        file("/absolute/name", "x"),
        file("...", "x"),
        file("x.wh.y", "x"),
        dir("/"),
    ]);
    assert_eq!(content(&tree, &long), digest(b"pax"));
    assert_eq!(
        content(&tree, &format!("{}g", &long[..long.len() - 1])),
        digest(b"gnu")
    );
    assert_eq!(content(&tree, &deep), digest(b"deep"));
    assert_eq!(content(&tree, "link"), target);
    assert_eq!(content(&tree, "gnu link"), target);
    assert!(tree.contains_key(&name(b"caf\xe9")));
    for path in [
        "new\nline",
        "  spaces ",
        "dot/slash/x",
        "absolute/name",
        "...",
        "x.wh.y",
    ] {
        assert!(tree.contains_key(&name(path.as_bytes())), "{path:?}");
    }
}

#[test]
fn headers_of_every_dialect_are_read() {
    // V7: no magic, a directory by its slash, a file with kind NUL.
    let mut v7_dir = header(0, b"old/", b"", 0, false);
    let mut v7_file = header(0, b"old/file", b"", 3, false);
    for block in [&mut v7_dir, &mut v7_file] {
        block[257..265].fill(0);
        super::common::archive::checksum(block);
    }
    let mut posix = header(b'0', b"name", b"", 0, false);
    posix[345..351].copy_from_slice(b"prefix");
    super::common::archive::checksum(&mut posix);
    let mut gnu = header(b'7', b"gnu", b"", 0, true);
    // Where ustar has the prefix, GNU has a time.
    gnu[345..357].copy_from_slice(b"14000000000\0");
    // Base 256, negative.
    gnu[136..148].copy_from_slice(&[255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 254]);
    super::common::archive::checksum(&mut gnu);
    let global = Entry::new(b'g', "pax_global_header");
    let mut global = global;
    global.content = super::common::archive::record(b"path", b"not for all");

    let mut archive = Vec::new();
    global.write(&mut archive);
    archive.extend(v7_dir);
    archive.extend(v7_file);
    archive.extend(b"abc");
    archive.resize(archive.len().next_multiple_of(512), 0);
    archive.extend(posix);
    archive.extend(gnu);
    // No blocks of zeros: the end of the file is an end too.
    let place = Place::new();
    let layer = Layer::new(&archive, Compression::None);
    place.unpack(&layer).unwrap();
    let tree = tree(&place.fs(&layer));
    assert_eq!(
        snapshot::names(&tree),
        ["gnu", "old", "old/file", "prefix", "prefix/name"]
    );
    assert_eq!(tree[&name(b"old")].kind, 'd');
    assert_eq!(content(&tree, "old/file"), digest(b"abc"));
    assert_eq!(tree[&name(b"gnu")].mtime, (-2, 0));
}

#[test]
fn pax_overrules_the_header() {
    let (_place, tree, _) = unpack([
        file("wrong", "body")
            .record("path", "right")
            .record("uid", "0")
            .record("size", "4")
            .sized(4),
        file("kept", "x")
            .record("path", "")
            .record("comment", "nothing")
            .record("atime", "5.5"),
        symlink("link", "wrong").record("linkpath", "right"),
        file("attr", "x").record("LIBARCHIVE.xattr.user.a%20b", "aGVsbG8="),
        file("times", "x").record("mtime", "-0.5"),
    ]);
    assert_eq!(
        snapshot::names(&tree),
        ["attr", "kept", "link", "right", "times"]
    );
    assert_eq!(content(&tree, "right"), digest(b"body"));
    assert_eq!(content(&tree, "link"), "right");
    assert_eq!(tree[&name(b"attr")].xattrs["user.a b"], b"hello");
    assert_eq!(tree[&name(b"times")].mtime, (-1, 500_000_000));
}

/// A file of 3 MiB with data at 1 MiB and at its end, in each of the four sparse formats.
#[test]
fn sparse_files_have_their_holes() {
    const MIB: u64 = 1 << 20;
    let data = [vec![b'a'; 4096], vec![b'b'; 100]].concat();
    let (first, second, size) = ((MIB, 4096), (3 * MIB - 100, 100), 3 * MIB);
    let mut whole = vec![0; size as usize];
    whole[MIB as usize..][..4096].fill(b'a');
    whole[(3 * MIB - 100) as usize..].fill(b'b');
    let body = |path: &str, content: &[u8]| file(path, content);
    let numbers = [first.0, first.1, second.0, second.1];

    let v00 = body("v00", &data)
        .record("GNU.sparse.size", size.to_string())
        .record("GNU.sparse.numblocks", "2")
        .record("GNU.sparse.offset", numbers[0].to_string())
        .record("GNU.sparse.numbytes", numbers[1].to_string())
        .record("GNU.sparse.offset", numbers[2].to_string())
        .record("GNU.sparse.numbytes", numbers[3].to_string());
    let map = numbers.map(|number| number.to_string()).join(",");
    let v01 = body("GNUSparseFile.1/v01", &data)
        .record("GNU.sparse.name", "v01")
        .record("GNU.sparse.size", size.to_string())
        .record("GNU.sparse.numblocks", "2")
        .record("GNU.sparse.map", map);
    let mut mapped = format!("2\n{}\n", numbers.map(|n| n.to_string()).join("\n")).into_bytes();
    mapped.resize(512, 0);
    mapped.extend(&data);
    let v10 = body("GNUSparseFile.1/v10", &mapped)
        .record("GNU.sparse.major", "1")
        .record("GNU.sparse.minor", "0")
        .record("GNU.sparse.name", "v10")
        .record("GNU.sparse.realsize", size.to_string());

    // The oldest: the first four stretches in the header, here one, and the rest in a block more.
    let octal = |n: u64| format!("{n:011o}\0").into_bytes();
    let mut old = header(b'S', b"old", b"", data.len() as u64, true);
    old[386..398].copy_from_slice(&octal(first.0));
    old[398..410].copy_from_slice(&octal(first.1));
    for at in 1..4 {
        // Empty stretches in between are allowed.
        old[386 + 24 * at..][..12].copy_from_slice(&octal(2 * MIB));
        old[398 + 24 * at..][..12].copy_from_slice(&octal(0));
    }
    old[482] = 1;
    old[483..495].copy_from_slice(&octal(size));
    super::common::archive::checksum(&mut old);
    let mut extension = [0; 512];
    extension[..12].copy_from_slice(&octal(second.0));
    extension[12..24].copy_from_slice(&octal(second.1));
    let mut archive = Vec::new();
    for entry in [v00, v01, v10] {
        entry.write(&mut archive);
    }
    archive.extend(old);
    archive.extend(extension);
    archive.extend(&data);
    archive.resize(archive.len().next_multiple_of(512), 0);
    file("after", "x").write(&mut archive);
    archive.extend([0; 1024]);

    let place = Place::new();
    let layer = Layer::new(&archive, Compression::Zstd);
    place.unpack(&layer).unwrap();
    let at = place.fs(&layer);
    for name in ["v00", "v01", "v10", "old"] {
        assert!(fs::read(at.join(name)).unwrap() == whole, "{name}");
        let blocks = fs::metadata(at.join(name)).unwrap().blocks();
        assert!(blocks * 512 < MIB, "{name} has {blocks} blocks");
    }
    assert_eq!(super::list(&at), ["after", "old", "v00", "v01", "v10"]);
}

#[test]
fn long_runs_of_zeros_take_no_room() {
    let mut large = vec![0; 9 << 20];
    large[..3].copy_from_slice(b"abc");
    let mut tail = large.clone();
    tail.extend(b"end");
    let place = Place::new();
    let layer = Layer::new(
        &tar([file("zeros", &large), file("tail", &tail)]),
        Compression::Gzip,
    );
    place.unpack(&layer).unwrap();
    for (name, content) in [("zeros", large), ("tail", tail)] {
        let path = place.fs(&layer).join(name);
        assert!(fs::read(&path).unwrap() == content);
        assert!(
            fs::metadata(&path).unwrap().blocks() * 512 < 2 << 20,
            "{name}"
        );
    }
}

#[test]
fn hard_links_are_one_file() {
    let (_place, tree, _) = unpack([
        dir("a"),
        file("a/one", "same").mode(0o600),
        hard_link("b/two", "a/one"),
        hard_link("b/three", "./b/two"),
        symlink("s", "target"),
        hard_link("t", "/s"),
    ]);
    for path in ["a/one", "b/two", "b/three"] {
        assert_eq!(tree[&name(path.as_bytes())].links, 3, "{path}");
        assert_eq!(content(&tree, path), digest(b"same"));
    }
    assert_eq!((tree[&name(b"t")].kind, tree[&name(b"t")].links), ('l', 2));
}

#[test]
fn the_last_of_equal_names_counts() {
    let (_place, tree, _) = unpack([
        file("f", "first"),
        hard_link("kept", "f"),
        file("f", "second").mode(0o600),
        dir("d"),
        file("d/old", "x"),
        file("d/sub/old", "x"),
        file("d", "a file now"),
        file("e", "a file"),
        dir("e").mode(0o700),
        file("e/new", "x"),
        symlink("s", "/outside"),
        dir("s"),
        file("s/x", "inside"),
        dir("again").mode(0o700).xattr("user.gone", "x"),
        file("again/stays", "x"),
        dir("again").mode(0o711),
        dir("dir-sibling"),
        dir("dir"),
        dir("dir/sub"),
        file("dir", "file"),
    ]);
    assert_eq!(content(&tree, "f"), digest(b"second"));
    assert_eq!(content(&tree, "kept"), digest(b"first"));
    assert_eq!(content(&tree, "d"), digest(b"a file now"));
    assert_eq!(tree[&name(b"e")].mode, 0o700);
    assert_eq!(
        (tree[&name(b"s")].kind, content(&tree, "s/x")),
        ('d', digest(b"inside"))
    );
    assert_eq!(tree[&name(b"again")].mode, 0o711);
    assert!(tree[&name(b"again")].xattrs.is_empty());
    assert!(tree.contains_key(&name(b"again/stays")));
    assert_eq!(tree[&name(b"dir-sibling")].kind, 'd');
    assert!(!tree.contains_key(&name(b"d/old")) && !tree.contains_key(&name(b"dir/sub")));
    // What was a file for a moment has replaced whatever the layers below have there.
    assert!(opaque(&tree[&name(b"e")]) && opaque(&tree[&name(b"s")]));
    assert!(!opaque(&tree[&name(b"again")]));
}

#[test]
fn whiteouts_are_overlays_own() {
    let (_place, tree, _) = unpack([
        file("etc/.wh.gone", ""),
        file("etc/.wh..wh..opq", ""),
        file(".wh.top", ""),
        // Whiteouts are for the layers below, so these stay, whichever comes first.
        file("stays", "x"),
        file(".wh.stays", ""),
        file(".wh.comes", ""),
        file("comes", "x"),
        dir("fresh"),
        file(".wh.fresh", ""),
        file(".wh.later", ""),
        dir("later"),
        file(".wh.implied", ""),
        file("implied/x", "x"),
        file(".wh....", ""),
        file(".wh..wh.plnk/1.2", "aufs"),
        file(".wh..wh.aufs", ""),
    ]);
    let at = |path: &str| &tree[&name(path.as_bytes())];
    assert!(whiteout(at("etc/gone")) && whiteout(at("top")) && whiteout(at("...")));
    assert!(opaque(at("etc")));
    assert_eq!(
        (content(&tree, "stays"), content(&tree, "comes")),
        (digest(b"x"), digest(b"x"))
    );
    assert!(opaque(at("fresh")) && opaque(at("later")) && opaque(at("implied")));
    let names = [
        "...",
        "comes",
        "etc",
        "etc/gone",
        "fresh",
        "implied",
        "implied/x",
        "later",
    ];
    assert_eq!(
        snapshot::names(&tree),
        [&names[..], &["stays", "top"]].concat()
    );
}

#[test]
fn devices_are_left_out() {
    let (_place, tree, skipped) = unpack([
        dir("dev"),
        Entry::new(b'3', "dev/null"),
        Entry::new(b'4', "dev/sda"),
        file("dev/was", "a file"),
        Entry::new(b'3', "dev/was"),
    ]);
    assert_eq!(snapshot::names(&tree), ["dev"]);
    assert_eq!(skipped.devices, 3);
}

#[test]
fn streams_of_several_parts_are_one() {
    let archive = tar([file("a", vec![b'x'; 100_000]), file("b", "y")]);
    let (head, tail) = archive.split_at(50_000);
    let place = Place::new();
    for (blob, compression) in [
        (
            [gzip(head), gzip(tail), gzip(b"")].concat(),
            Compression::Gzip,
        ),
        ([zstd(head), zstd(tail)].concat(), Compression::Zstd),
        (archive.clone(), Compression::None),
    ] {
        let layer = Layer::of_blob(blob, compression, super::Digest::of(&archive));
        place.unpack(&layer).unwrap();
        assert_eq!(super::list(&place.fs(&layer)), ["a", "b"]);
    }
}

#[test]
fn an_empty_archive_is_an_empty_layer() {
    for archive in [vec![], vec![0; 512], vec![0; 1024], vec![0; 10240]] {
        let place = Place::new();
        let layer = Layer::new(&archive, Compression::Gzip);
        assert_eq!(place.unpack(&layer).unwrap().record.entries, 0);
        assert_eq!(super::list(&place.fs(&layer)), [""; 0]);
    }
}

#[test]
fn neither_umask_nor_the_directory_above_show() {
    if !root() {
        return;
    }
    use std::os::unix::fs::PermissionsExt as _;
    let place = Place::new();
    let tmp = place.root().join("v1/tmp");
    std::os::unix::fs::chown(&tmp, None, Some(1234)).unwrap();
    fs::set_permissions(&tmp, fs::Permissions::from_mode(0o2700)).unwrap();
    let acl = std::process::Command::new("setfacl")
        .args(["-d", "-m", "u:1:rwx,g::---,o::rwx"])
        .arg(&tmp)
        .status();
    if !acl.is_ok_and(|status| status.success()) {
        return skip("no access control lists here");
    }
    let layer = Layer::new(
        &tar([file("implied/file", "x").mode(0o646), dir("d").mode(0o757)]),
        Compression::Gzip,
    );
    place.unpack(&layer).unwrap();
    let tree = tree(&place.fs(&layer));
    for (path, mode) in [
        ("", 0o755),
        ("implied", 0o755),
        ("implied/file", 0o646),
        ("d", 0o757),
    ] {
        let node = &tree[&name(path.as_bytes())];
        assert_eq!((node.mode, node.owner), (mode, (0, 0)), "{path}");
        assert!(node.xattrs.is_empty(), "{path}: {node:?}");
    }
}

/// A tree in memory, as a model of what a sequence of entries makes.
#[derive(Clone, Debug)]
enum Action {
    File(String, u8),
    Dir(String),
    Symlink(String),
    Link(String, String),
}

fn action() -> impl Strategy<Value = Action> {
    let path = prop_oneof!["[ab]", "[ab]/[ab]", "[ab]/[ab]/[ab]"];
    (path.clone(), path, 0..4u8, any::<u8>()).prop_map(|(path, other, kind, byte)| match kind {
        0 => Action::File(path, byte),
        1 => Action::Dir(path),
        2 => Action::Symlink(path),
        _ => Action::Link(path, other),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]
    /// Whatever comes in whatever order: it is refused as a whole, or the last of each name is there
    /// and the canary sings.
    #[test]
    fn any_sequence_is_taken_or_refused(actions in proptest::collection::vec(action(), 1..12)) {
        let entries = actions.iter().map(|action| match action {
            Action::File(path, byte) => file(path, [*byte]),
            Action::Dir(path) => dir(path),
            Action::Symlink(path) => symlink(path, "/nowhere/else"),
            Action::Link(path, target) => hard_link(path, target),
        });
        let place = Place::new();
        let layer = Layer::new(&tar(entries), Compression::None);
        match place.unpack(&layer) {
            Err(_) => place.assert_untouched(),
            Ok(_) => {
                let tree = tree(&place.fs(&layer));
                let last = actions.last().unwrap();
                let (path, kind) = match last {
                    Action::File(path, _) => (path, 'f'),
                    Action::Dir(path) => (path, 'd'),
                    Action::Symlink(path) => (path, 'l'),
                    Action::Link(path, _) => (path, '?'),
                };
                let node = &tree[&name(path.as_bytes())];
                prop_assert!(kind == '?' || node.kind == kind);
                if let Action::File(path, byte) = last {
                    prop_assert_eq!(content(&tree, path), digest(&[*byte]));
                }
            }
        }
    }
}
