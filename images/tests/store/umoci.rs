//! The same image by `umoci unpack`, which applies layers one after the other to one directory.

use std::path::Path;
use std::process::Command;

use super::Place;
use super::common::archive::{Entry, THEN, dir, file, hard_link, symlink, tar};
use super::common::layout::{Built, Layer};
use super::common::snapshot::{Tree, assert_same, merged, tree};
use super::common::{root, skip};
use podspawn_images::layer::Compression;

/// What umoci makes of the image.
fn umoci(image: &Built, dir: &Path) -> Tree {
    let layout = image.write(&dir.join("layout"));
    let bundle = dir.join("bundle");
    let output = Command::new("umoci")
        .args(["unpack", "--image"])
        .arg(format!("{}:latest", layout.display()))
        .arg(&bundle)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let mut tree = tree(&bundle.join("rootfs"));
    tree.remove(std::ffi::OsStr::new(""));
    tree
}

fn ready() -> bool {
    let there = Command::new("umoci").arg("--version").output().is_ok();
    if !there {
        skip("there is no umoci");
    }
    root() && there
}

/// Ours and umoci's, of the same layers.
fn both(layers: Vec<Vec<Entry>>) -> (Tree, Tree) {
    // This umoci knows no zstd.
    let compressions = [Compression::Gzip, Compression::None].into_iter().cycle();
    let layers = layers.into_iter().map(tar).zip(compressions);
    let image = Built::new(layers.map(|(archive, how)| Layer::new(&archive, how)));
    let place = Place::new();
    let ours = merged(&place.commit(&image, &["test"]).unwrap().layers);
    (ours, umoci(&image, place.dir.path()))
}

#[test]
fn everything_at_once() {
    if !ready() {
        return;
    }
    let capability = [
        1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    let long = format!("deep/{}/{}", "d".repeat(120), "f".repeat(200));
    let (ours, theirs) = both(vec![
        vec![
            dir("./"),
            dir("bin/").at(THEN, 1),
            file("bin/su", "su").mode(0o4755).at(THEN - 1, 999_999_999),
            file("bin/wall", "wall").mode(0o2755).owner(0, 5),
            file("bin/ping", "ping").xattr("security.capability", capability),
            hard_link("bin/ping6", "bin/ping"),
            dir("tmp").mode(0o1777),
            dir("home/user").owner(1000, 1000).mode(0o700).at(-1000, 5),
            file("home/user/old", "1965")
                .at(-150_000_000, 500_000_000)
                .owner(1000, 1000),
            file("home/user/huge", "ids").owner(3_000_000_000, 4_000_000_000),
            symlink("lib", "usr/lib").at(THEN, 77),
            symlink("dangling", "/no/such/../thing"),
            symlink("home/user/long", "t".repeat(300)),
            dir("usr/lib"),
            file("usr/lib/libc", "libc").xattr("user.note", b"a\0b\xff"),
            Entry::new(b'6', "tmp/pipe").mode(0o620).owner(3, 4),
            dir("deep"),
            file(&long, "pax"),
            file(format!("{long}g").replace("fg", "g"), "gnu").gnu(),
            file(b"caf\xe9 \n\x01", "latin"),
            dir("var"),
            dir("var/cache"),
            file("var/cache/one", "1"),
            file("var/cache/two", "2"),
            dir("var/lib"),
            file("var/lib/a", "a"),
            dir("becomes-file"),
            file("becomes-file/x", "x"),
            file("becomes-dir", "x"),
            file("becomes-link", "x"),
            file("shared", "shared").at(5, 5),
            file("modified", "before"),
            file("zeros", vec![0; 300_000]),
        ],
        vec![
            dir("var"),
            dir("var/cache"),
            file("var/cache/.wh.one", ""),
            dir("var/lib"),
            file("var/lib/.wh..wh..opq", ""),
            file("var/lib/b", "b"),
            file("becomes-file", "now").mode(0o600),
            dir("becomes-dir").mode(0o750),
            file("becomes-dir/x", "x"),
            symlink("becomes-link", "modified"),
            file("modified", "after, and longer").owner(9, 9),
            hard_link("usr/lib/shared", "shared"),
            dir("usr/lib").at(THEN, 9),
            file(".wh.dangling", ""),
            // Implied: its attributes are those of the layer below.
            file("home/user/new", "new").owner(1000, 1000),
        ],
        vec![
            dir("home/user")
                .owner(1001, 1001)
                .mode(0o2770)
                .xattr("user.dir", "x")
                .at(1, 2),
            file("home/user/.wh.old", ""),
            dir("var/new"),
            file("var/new/x", "twice").mode(0o600),
            file("var/new/x", "the last"),
            dir("bin").at(THEN, 3),
        ],
    ]);
    // Directories that no layer states, and one in which such a directory was made, have the time
    // of the unpacking in umoci's tree; the specification says nothing of the first, and that the
    // second has the time its entry states.
    let (mut ours, mut theirs) = (ours, theirs);
    assert_eq!(ours[std::ffi::OsStr::new("deep")].mtime, (THEN, 0));
    for path in ["home", "usr", "deep", &format!("deep/{}", "d".repeat(120))] {
        for tree in [&mut ours, &mut theirs] {
            tree.get_mut(std::ffi::OsStr::new(path)).unwrap().mtime = (0, 0);
        }
    }
    assert_same(&ours, &theirs);
}

#[test]
fn many_layers() {
    if !ready() {
        return;
    }
    let (ours, theirs) = both(
        (0..30)
            .map(|n: u32| {
                let mut entries = vec![dir("d"), dir(format!("d/{n}"))];
                entries.push(file(format!("d/{n}/f"), n.to_string()).mode(0o600 + n % 8));
                entries.push(file("same", n.to_string()));
                if n % 4 == 3 {
                    entries.push(file(format!("d/.wh.{}", n - 1), ""));
                }
                if n % 7 == 6 {
                    entries.push(dir(format!("d/{}", n - 3)).mode(0o700));
                    entries.push(file(format!("d/{}/.wh..wh..opq", n - 3), ""));
                }
                entries
            })
            .collect(),
    );
    assert_same(&ours, &theirs);
}
