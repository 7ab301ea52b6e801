//! Archives and blobs that are refused: with one line, and nothing left inside or outside.

use std::io::{self, Read};

use podspawn_images::digest::{Digest, Mismatch};
use podspawn_images::layer::{Compression, LayerFault, PathFault};
use podspawn_images::limits::Limits;

use super::common::archive::{Entry, checksum, dir, file, hard_link, header, record, symlink, tar};
use super::common::layout::{Layer, gzip, zstd};
use super::{Place, fault};

fn refused(entries: impl IntoIterator<Item = Entry>) -> LayerFault {
    refused_bytes(&tar(entries))
}

fn refused_bytes(archive: &[u8]) -> LayerFault {
    let place = Place::new();
    // Names that lead outside, if anything followed them.
    let fault = fault(place.unpack(&Layer::new(archive, Compression::Gzip)));
    place.assert_untouched();
    fault
}

#[track_caller]
fn assert_path(fault: &LayerFault, expected: PathFault) {
    assert!(
        matches!(fault, LayerFault::Path { fault, .. } if *fault == expected),
        "{fault}"
    );
}

#[test]
fn names_that_lead_out() {
    for path in [
        "../outside/canary",
        "a/../../outside/canary",
        "..",
        "/../x",
        "a/..",
        "./..",
    ] {
        assert_path(&refused([file(path, "silenced")]), PathFault::Parent);
        assert_path(&refused([dir(path)]), PathFault::Parent);
        assert_path(&refused([symlink(path, "x")]), PathFault::Parent);
        assert_path(
            &refused([file("x", ""), hard_link("y", path)]),
            PathFault::Parent,
        );
    }
    let nul = file("x", "").record("path", "a\0b");
    assert!(matches!(refused([nul]), LayerFault::Archive(_)));
    let many = vec!["d"; 10_000].join("/");
    assert_path(&refused([file(&many, "")]), PathFault::Deep);
    assert_path(&refused([file("n".repeat(256), "")]), PathFault::Long);
    let long = ["n".repeat(255).as_str(); 20].join("/");
    assert_path(&refused([file(&long, "")]), PathFault::Long);
}

#[test]
fn absolute_names_stay_within() {
    let place = Place::new();
    let canary = place.outside().join("canary");
    let canary = canary.to_str().unwrap();
    let layer = Layer::new(&tar([file(canary, "silenced")]), Compression::Gzip);
    place.unpack(&layer).unwrap();
    assert_eq!(std::fs::read(canary).unwrap(), b"sings");
    let inside = place.fs(&layer).join(canary.trim_start_matches('/'));
    assert_eq!(std::fs::read(inside).unwrap(), b"silenced");
}

#[test]
fn entries_through_a_planted_symlink() {
    let place = Place::new();
    let outside = place.outside();
    let outside = outside.to_str().unwrap();
    for target in [outside, "..", "../../../../../..", "real", "loop"] {
        for planted in [
            file("loop/canary", "silenced"),
            dir("loop/new"),
            symlink("loop/new", "x"),
            hard_link("loop/new", "real/file"),
            hard_link("new", "loop/canary"),
            Entry::new(b'6', "loop/new"),
            file("loop/.wh.canary", ""),
            file("loop/.wh..wh..opq", ""),
            file("loop/deep/er/new", ""),
        ] {
            let archive = tar([
                file("real/file", "x"),
                symlink("loop", target),
                planted.clone(),
            ]);
            let fault = fault(place.unpack(&Layer::new(&archive, Compression::None)));
            assert!(
                matches!(fault, LayerFault::Entry { .. }),
                "{planted:?}: {fault}"
            );
            place.assert_untouched();
        }
    }
}

#[test]
fn entries_through_a_file() {
    let through = refused([file("f", ""), file("f/x", "")]);
    assert!(matches!(through, LayerFault::Entry { .. }), "{through}");
}

#[test]
fn impossible_hard_links() {
    for (entries, what) in [
        (vec![dir("d"), hard_link("l", "d")], "directory"),
        (vec![file("d/x", ""), hard_link("l", "d")], "directory"),
        (vec![hard_link("l", "l")], "itself"),
        (vec![file("l", ""), hard_link("l", "./l")], "itself"),
        (vec![hard_link("l", "/")], "root"),
        (vec![hard_link("l", "")], "root"),
        (vec![file(".wh.x", ""), hard_link("l", "x")], "removes"),
        (
            vec![file("d/.wh..wh..opq", ""), hard_link("l", "d/x")],
            "does not exist",
        ),
        (
            vec![file("f", ""), hard_link("l", "f/x")],
            "not below a directory",
        ),
    ] {
        let fault = refused(entries);
        assert!(fault.to_string().contains(what), "{what}: {fault}");
    }
    let whiteout = refused([file(".wh.x", ""), hard_link("l", ".wh.x")]);
    assert_path(&whiteout, PathFault::Whiteout);
}

#[test]
fn whiteouts_of_nothing() {
    for path in [
        ".wh.",
        ".wh..",
        ".wh...",
        ".wh..wh.",
        ".wh..wh..",
        ".wh..wh.x",
        ".wh.d/x",
    ] {
        assert_path(&refused([file(path, "")]), PathFault::Whiteout);
        assert_path(
            &refused([file(format!("d/{path}"), "")]),
            PathFault::Whiteout,
        );
    }
}

#[test]
fn impossible_symlinks_and_roots() {
    for entry in [
        symlink("s", ""),
        symlink("s", "x".repeat(4096)),
        file("/", "x"),
        symlink("./", "x"),
        Entry::new(b'6', "/"),
    ] {
        let fault = refused([entry]);
        assert!(matches!(fault, LayerFault::Entry { .. }), "{fault}");
    }
}

#[test]
fn damaged_archives() {
    let whole = tar([file("a", "content"), file("b", vec![7; 2000])]);
    let damaged = |archive: &[u8], what: &str| {
        let fault = refused_bytes(archive);
        assert!(matches!(fault, LayerFault::Archive(_)), "{what}: {fault}");
    };
    damaged(&whole[..700], "cut in a body");
    damaged(&whole[..1200], "cut in a header");
    damaged(&whole[..whole.len() - 1024 - 512], "cut in the padded body");
    damaged(b"this is no archive", "too short");
    damaged(&[b'x'; 4096], "no archive at all");
    let mut flipped = whole.clone();
    flipped[0] ^= 1;
    damaged(&flipped, "checksum");
    let mut zeros = whole.clone();
    zeros.splice(1024..1024, [0; 512]);
    damaged(&zeros, "a lone block of zeros");

    let field = |at: std::ops::Range<usize>, value: &[u8]| {
        let mut block = header(b'0', b"x", b"", 0, true);
        block[at].copy_from_slice(value);
        checksum(&mut block);
        damaged(&[&block[..], &[0; 1024]].concat(), "field");
    };
    field(124..136, b"99999999999\0");
    field(124..136, b"-0000000001\0");
    field(124..136, &[0xff; 12]);
    field(
        124..136,
        &[0x80, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255],
    );
    field(
        124..136,
        &[0x80, 0, 0, 0, 0x7f, 255, 255, 255, 255, 255, 255, 255],
    );
    field(108..116, &[0xff; 8]);
    field(108..116, b"12x4567\0");
    field(156..157, b"Z");
    field(156..157, b"M");
    let mut dir_with_body = header(0, b"d/", b"", 512, false);
    checksum(&mut dir_with_body);
    damaged(
        &[&dir_with_body[..], &[0; 512]].concat(),
        "a directory with a body",
    );
}

#[test]
fn lying_sizes() {
    // The body that follows is shorter, longer, or endless: whatever comes next is no header.
    let short = refused([file("a", vec![b'x'; 600]).sized(5)]);
    assert!(matches!(short, LayerFault::Archive(_)), "{short}");
    let long = refused([file("a", "x").sized(1 << 40)]);
    assert!(matches!(long, LayerFault::Archive(_)), "{long}");
    let pax = refused([file("a", "x").record("size", "9000000000000000000")]);
    assert!(matches!(pax, LayerFault::Archive(_)), "{pax}");
    let pax = refused([file("a", "x").record("size", "18446744073709551615")]);
    assert!(matches!(pax, LayerFault::Archive(_)), "{pax}");
}

#[test]
fn headers_without_end() {
    let within = |archive: &[u8], limits: Limits| {
        let place = Place::new();
        let layer = Layer::new(archive, Compression::Gzip);
        let fault = fault(place.unpack_within(&layer, &limits));
        place.assert_untouched();
        fault
    };
    let limits = || Limits {
        pax: 10_000,
        ..Limits::default()
    };
    // One that is too large, and many that are small; a length that is a lie; and all for nothing.
    let large = within(
        &tar([file("a", "").record("comment", "x".repeat(20_000))]),
        limits(),
    );
    assert!(large.to_string().contains("10000"), "{large}");
    let mut many = Vec::new();
    for _ in 0..30 {
        let records = record(b"comment", &[b'x'; 400]);
        many.extend(header(b'x', b"h", b"", records.len() as u64, false));
        many.extend(&records);
        many.resize(many.len().next_multiple_of(512), 0);
    }
    assert!(within(&many, limits()).to_string().contains("10000"));
    for kind in [b'x', b'g', b'L', b'K'] {
        let lie = header(kind, b"h", b"", 1 << 40, true);
        assert!(within(&lie, limits()).to_string().contains("10000"));
        let cut = header(kind, b"h", b"", 1000, true);
        assert!(matches!(within(&cut, limits()), LayerFault::Archive(_)));
    }
    for dangling in [
        header(b'L', b"h", b"", 0, true),
        header(b'x', b"h", b"", 0, true),
    ] {
        for end in [&[][..], &[0; 1024]] {
            let fault = within(&[&dangling[..], end].concat(), limits());
            assert!(matches!(fault, LayerFault::Archive(_)), "{fault}");
        }
    }
    // A sparse map that never ends.
    let mut sparse = header(b'S', b"s", b"", 0, true);
    sparse[482] = 1;
    checksum(&mut sparse);
    let mut block = [0; 512];
    block[504] = 1;
    let endless: Vec<u8> = sparse.into_iter().chain([block; 100].concat()).collect();
    assert!(within(&endless, limits()).to_string().contains("10000"));
}

#[test]
fn wrong_pax_records() {
    for records in [
        &b"5 a=b\n"[..],
        b"7 a=b\n",
        b"a=b\n",
        b"99999999999999999999999999 a=b\n",
        b"6 a=b6 a=c\n",
        b"6 =ab\n",
        b"16 uid=-1234567\n",
        b"14 size=-1234\n",
        b"13 mtime=abc\n",
    ] {
        let mut archive = Vec::new();
        archive.extend(header(b'x', b"h", b"", records.len() as u64, false));
        archive.extend(records);
        archive.resize(1024, 0);
        archive.extend(tar([file("a", "")]));
        let fault = refused_bytes(&archive);
        assert!(
            matches!(fault, LayerFault::Archive(_)),
            "{records:?}: {fault}"
        );
    }
}

#[test]
fn wrong_sparse_maps() {
    for map in [
        "0,5,3,5",
        "5,1,0,1",
        "0,20",
        "0,5,5",
        "0,1",
        "x",
        "0,9223372036854775807,9,9",
    ] {
        let entry = file("s", [0; 10]).record("GNU.sparse.map", map);
        let fault = refused([entry.record("GNU.sparse.size", "15")]);
        assert!(matches!(fault, LayerFault::Archive(_)), "{map}: {fault}");
    }
    for body in [
        "9\n1\n",
        "99999999999999999999\n",
        "18446744073709551615\n",
        "1\n0\nx\n",
        "",
    ] {
        let mut content = body.as_bytes().to_vec();
        content.resize(512, 0);
        let entry = file("s", content).record("GNU.sparse.major", "1");
        let entry = entry
            .record("GNU.sparse.minor", "0")
            .record("GNU.sparse.realsize", "9");
        let fault = refused([entry]);
        assert!(matches!(fault, LayerFault::Archive(_)), "{body}: {fault}");
    }
}

#[test]
fn limits_hold() {
    let within = |entries: Vec<Entry>, limits: Limits| {
        let place = Place::new();
        let layer = Layer::new(&tar(entries), Compression::Gzip);
        let fault = fault(place.unpack_within(&layer, &limits));
        place.assert_untouched();
        fault
    };
    let expanded = Limits {
        expanded: 1 << 20,
        ..Limits::default()
    };
    let bomb = within(vec![file("bomb", vec![0; 50 << 20])], expanded);
    assert!(
        matches!(bomb, LayerFault::Expanded { limit: 0x10_0000 }),
        "{bomb}"
    );
    let entries = Limits {
        entries: 10,
        ..Limits::default()
    };
    let many = within((0..11).map(|n| file(n.to_string(), "")).collect(), entries);
    assert!(matches!(many, LayerFault::Entries { limit: 10 }), "{many}");
    let depth = Limits {
        depth: 5,
        ..Limits::default()
    };
    assert_path(&within(vec![dir("1/2/3/4/5/6")], depth), PathFault::Deep);
    let memory = Limits {
        memory: 100_000,
        ..Limits::default()
    };
    let dirs = (0..1000).map(|n| dir(format!("{n}"))).collect();
    assert!(matches!(
        within(dirs, memory.clone()),
        LayerFault::Memory { .. }
    ));
    let links = (0..1000)
        .map(|n| hard_link(format!("{n}"), "below"))
        .collect();
    assert!(matches!(within(links, memory), LayerFault::Memory { .. }));
}

#[test]
fn blobs_that_are_not_what_they_were_to_be() {
    let good = Layer::new(&tar([file("a", vec![b'x'; 9000])]), Compression::Gzip);
    let refused = |layer: &Layer| {
        let place = Place::new();
        let fault = fault(place.unpack(layer));
        place.assert_untouched();
        fault
    };
    let mut wrong_digest = good.clone();
    wrong_digest.descriptor.digest = Digest::of(b"another");
    let found = refused(&wrong_digest);
    assert!(
        matches!(found, LayerFault::Mismatch(Mismatch::Digest { .. })),
        "{found}"
    );

    let mut too_long = good.clone();
    too_long.descriptor.size -= 1;
    let found = refused(&too_long);
    assert!(
        matches!(found, LayerFault::Mismatch(Mismatch::Longer { .. })),
        "{found}"
    );

    let mut too_short = good.clone();
    too_short.descriptor.size += 1;
    let found = refused(&too_short);
    assert!(
        matches!(found, LayerFault::Mismatch(Mismatch::Shorter { .. })),
        "{found}"
    );

    let mut truncated = good.clone();
    truncated.blob.truncate(40);
    let found = refused(&truncated);
    assert!(
        matches!(found, LayerFault::Mismatch(Mismatch::Shorter { .. })),
        "{found}"
    );

    let mut diff_id = good.clone();
    diff_id.descriptor.diff_id = Digest::of(b"another");
    assert!(matches!(refused(&diff_id), LayerFault::DiffId { .. }));

    let place = Place::new();
    let staging = place
        .store
        .begin_layer(&Digest::of(b"another"))
        .unwrap()
        .unwrap();
    let other = staging.unpack(&good.blob[..], &good.descriptor, &Limits::default(), &());
    assert!(matches!(fault(other), LayerFault::Mismatch(_)));
    place.assert_untouched();
}

#[test]
fn compression_that_is_broken() {
    let archive = tar([file("a", vec![b'x'; 9000])]);
    let refused = |blob: Vec<u8>, compression| {
        let place = Place::new();
        let layer = Layer::of_blob(blob, compression, Digest::of(&archive));
        let fault = fault(place.unpack(&layer));
        place.assert_untouched();
        fault
    };
    let (gz, zst) = (gzip(&archive), zstd(&archive));
    let mut bad_sum = gz.clone();
    let at = bad_sum.len() - 6;
    bad_sum[at] ^= 1;
    let mut bad_body = gz.clone();
    bad_body[30] ^= 0x55;
    for (blob, compression, what) in [
        (
            [&gz[..], b"garbage"].concat(),
            Compression::Gzip,
            "trailing garbage",
        ),
        (
            [&gz[..], &[0; 100]].concat(),
            Compression::Gzip,
            "trailing zeros",
        ),
        (bad_sum, Compression::Gzip, "checksum"),
        (bad_body, Compression::Gzip, "damage"),
        (gz[..gz.len() - 4].to_vec(), Compression::Gzip, "truncated"),
        (gz[..gz.len() / 2].to_vec(), Compression::Gzip, "half"),
        (gz[..5].to_vec(), Compression::Gzip, "within the header"),
        (vec![], Compression::Gzip, "empty"),
        (archive.clone(), Compression::Gzip, "not compressed"),
        (zst.clone(), Compression::Gzip, "zstd"),
        (gz.clone(), Compression::Zstd, "gzip"),
        (
            [&zst[..], b"garbage"].concat(),
            Compression::Zstd,
            "trailing garbage",
        ),
        (
            zst[..zst.len() - 3].to_vec(),
            Compression::Zstd,
            "truncated",
        ),
        (vec![], Compression::Zstd, "empty"),
    ] {
        let fault = refused(blob, compression);
        let fits = matches!(fault, LayerFault::Decompress(_) | LayerFault::DiffId { .. });
        assert!(fits, "{what}: {fault}");
    }
}

#[test]
fn a_window_larger_than_memory_allows() {
    // A frame that asks for a window of 2 GiB.
    let blob = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0x01, 0x00, 0x00];
    let place = Place::new();
    let layer = Layer::of_blob(blob.to_vec(), Compression::Zstd, Digest::of(b""));
    let fault = fault(place.unpack(&layer));
    assert!(matches!(fault, LayerFault::Decompress(_)), "{fault}");
}

/// A blob whose source fails in the middle.
struct Failing(usize);

impl Read for Failing {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.0 == 0 {
            return Err(io::Error::new(
                io::ErrorKind::ConnectionReset,
                "the line is dead",
            ));
        }
        let count = out.len().min(self.0);
        self.0 -= count;
        out[..count].fill(0);
        Ok(count)
    }
}

#[test]
fn a_source_that_fails_is_told_from_a_bad_blob() {
    let place = Place::new();
    let layer = Layer::new(&vec![0; 10 << 20], Compression::None);
    let staging = place
        .store
        .begin_layer(&layer.descriptor.digest)
        .unwrap()
        .unwrap();
    let result = staging.unpack(Failing(3 << 20), &layer.descriptor, &Limits::default(), &());
    let fault = fault(result);
    assert!(matches!(fault, LayerFault::Blob(_)), "{fault}");
    place.assert_untouched();
    // And the next attempt is not in the way of its remains.
    place.unpack(&layer).unwrap();
}
