//! Layers that a registry serves with every digest and size right, and that must not be unpacked:
//! each is refused with one line, nothing of it is stored, and a canary beside the store sings on.

use std::fs;
use std::time::{Duration, Instant};

use podspawn_images::digest::Digest;
use podspawn_images::progress::Silent;
use podspawn_images::pull::{PullOptions, pull};
use podspawn_images::registry::FailureKind;

use crate::common::archive::{Entry, dir, file, hard_link, record, symlink, tar};
use crate::common::layout::{gzip, zstd};
use crate::content::{Image, Layer};
use crate::http::{Site, honest};
use crate::{Place, quick, reference};

fn layer(blob: Vec<u8>, archive: &[u8]) -> Layer {
    Layer {
        blob,
        diff_id: Digest::of(archive),
    }
}

/// Pulls an image of this one layer. The line of the refusal.
fn refused(layer: Layer, options: &PullOptions, what: &str) -> (String, FailureKind) {
    let image = Image::new(vec![layer]);
    let images = [image];
    let site = Site::start(move |request, stream| honest(&images, request, stream));
    let place = Place::new();
    let outside = place.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("canary"), "sings").unwrap();
    let name = site.name("x:0");
    let begun = Instant::now();
    let error = match pull(&place.store, &reference(&name), options, &Silent) {
        Ok(_) => panic!("not refused: {what}"),
        Err(error) => error,
    };
    assert!(begun.elapsed() < Duration::from_secs(30), "{what}: {error}");
    let line = error.to_string();
    assert!(
        line.starts_with(&name) && line.len() < 1500,
        "{what}: {line}"
    );
    assert!(!line.chars().any(char::is_control), "{what}: {line:?}");
    place.assert_clean();
    assert_eq!(
        (place.list("images"), place.list("refs")),
        (vec![], vec![]),
        "{what}"
    );
    // A link that leads nowhere is no fault of the layer, but of what is below it.
    if what != "a hard link to nothing" {
        place.assert_empty();
    }
    assert_eq!(
        fs::read(outside.join("canary")).unwrap(),
        b"sings",
        "{what}"
    );
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1, "{what}");
    assert_eq!(fs::read_dir(place.dir.path()).unwrap().count(), 2, "{what}");
    (line, error.kind())
}

#[test]
fn entries_that_lead_out_or_contradict_each_other() {
    let out = "../../../../../outside/canary";
    let deep = vec!["d"; 10_000].join("/");
    for (what, entries) in [
        ("..", vec![file(out, "silenced")]),
        (".. within", vec![file(format!("a/b/{out}"), "silenced")]),
        ("a directory ..", vec![dir("a/..")]),
        ("a symlink ..", vec![symlink(out, "x")]),
        ("a hard link out", vec![file("f", ""), hard_link("l", out)]),
        (
            "a hard link named out",
            vec![file("f", ""), hard_link(out, "f")],
        ),
        (
            "through a planted symlink",
            vec![
                symlink("s", "../../../../../outside"),
                file("s/canary", "silenced"),
            ],
        ),
        (
            "a hard link through a planted symlink",
            vec![
                symlink("s", "../../../../../outside"),
                hard_link("l", "s/canary"),
            ],
        ),
        (
            "an opaque mark on a symlink",
            vec![
                symlink("s", "../../../../../outside"),
                file("s/.wh..wh..opq", ""),
            ],
        ),
        (
            "a whiteout through a symlink",
            vec![
                symlink("s", "../../../../../outside"),
                file("s/.wh.canary", ""),
            ],
        ),
        (
            "a hard link to a directory",
            vec![dir("d"), hard_link("l", "d")],
        ),
        ("a hard link to itself", vec![hard_link("l", "l")]),
        ("a hard link to nothing", vec![hard_link("l", "nowhere")]),
        ("NUL in a name", vec![file("x", "").record("path", "a\0b")]),
        (
            "NUL in a link",
            vec![symlink("x", "y").record("linkpath", "a\0b")],
        ),
        ("10,000 components", vec![file(&deep, "")]),
        ("a name of 256 bytes", vec![file("n".repeat(256), "")]),
        (".wh.", vec![file(".wh.", "")]),
        (".wh..", vec![file(".wh..", "")]),
        (".wh...", vec![file("d/.wh...", "")]),
        (".wh..wh..", vec![file(".wh..wh..", "")]),
        (".wh..wh.x", vec![file(".wh..wh.x", "")]),
        ("below a whiteout", vec![file(".wh.d/x", "")]),
        ("the root as a file", vec![file("/", "x")]),
        ("a device as the root", vec![Entry::new(b'3', "/")]),
        ("through a file", vec![file("f", ""), file("f/x", "")]),
        (
            "a size that is too small",
            vec![file("a", vec![b'x'; 600]).sized(5)],
        ),
        (
            "a size that is too large",
            vec![file("a", "x").sized(1 << 40)],
        ),
        (
            "a size of pax that lies",
            vec![file("a", "x").record("size", "18446744073709551615")],
        ),
    ] {
        let archive = tar(entries);
        let (line, kind) = refused(layer(gzip(&archive), &archive), &quick(), what);
        assert_eq!(kind, FailureKind::Layer, "{what}: {line}");
    }
}

#[test]
fn archives_and_compressions_that_are_broken() {
    let archive = tar([file("a", vec![b'x'; 9000])]);
    let gz = gzip(&archive);
    let (mut sum, mut body) = (gz.clone(), gz.clone());
    let at = sum.len() - 6;
    sum[at] ^= 1;
    body[30] ^= 0x55;
    let mut header = archive.clone();
    header[0] ^= 1;
    let endless = [record(b"comment", &[b'x'; 2 << 20])].concat();
    let mut pax =
        crate::common::archive::header(b'x', b"h", b"", endless.len() as u64, false).to_vec();
    pax.extend(&endless);
    for (what, blob, content) in [
        ("trailing bytes", [&gz[..], b"garbage"].concat(), &archive),
        ("trailing zeros", [&gz[..], &[0; 100]].concat(), &archive),
        ("a bad checksum", sum, &archive),
        ("damage", body, &archive),
        ("half a stream", gz[..gz.len() / 2].to_vec(), &archive),
        ("zstd for gzip", zstd(&archive), &archive),
        ("no compression", archive.clone(), &archive),
        ("nothing", Vec::new(), &archive),
        ("a header's checksum", gzip(&header), &header),
        (
            "half an archive",
            gzip(&archive[..5000]),
            &archive[..5000].to_vec(),
        ),
        ("an endless extension", gzip(&pax), &pax),
        ("another diff_id", gzip(&archive), &header),
    ] {
        let (line, kind) = refused(layer(blob, content), &quick(), what);
        assert!(
            matches!(kind, FailureKind::Layer | FailureKind::Digest),
            "{what}: {kind:?}: {line}"
        );
    }
}

#[test]
fn layers_beyond_the_limits() {
    let bomb = tar([file("bomb", vec![0; 30 << 20])]);
    let many = tar((0..200).map(|n| file(n.to_string(), "")));
    let mut options = quick();
    options.limits.expanded = 1 << 20;
    options.limits.entries = 100;
    for (what, archive) in [("a bomb", bomb), ("many entries", many)] {
        let (_, kind) = refused(layer(gzip(&archive), &archive), &options, what);
        assert_eq!(kind, FailureKind::TooLarge, "{what}");
    }
}
