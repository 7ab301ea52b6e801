//! Archives as the tools of the trade write them.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;

use podspawn_images::layer::Compression;

use super::Place;
use super::common::layout::Layer;
use super::common::skip;
use super::common::snapshot::{assert_same, tree};

/// Some of everything that a plain user can make.
fn make(at: &Path) {
    let long = format!("{}/{}", "d".repeat(90), "f".repeat(120));
    fs::create_dir_all(at.join(&long).parent().unwrap()).unwrap();
    fs::write(at.join(&long), "long").unwrap();
    fs::write(at.join("plain"), vec![b'x'; 70_000]).unwrap();
    fs::set_permissions(at.join("plain"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::hard_link(at.join("plain"), at.join("linked")).unwrap();
    std::os::unix::fs::symlink("t".repeat(150), at.join("symlink")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        at.join("pipe"),
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .unwrap();
    // More stretches than any header has room for.
    let holes = fs::File::create(at.join("holes")).unwrap();
    for n in 0..40u64 {
        let data = vec![n as u8 + 1; 4096];
        std::os::unix::fs::FileExt::write_all_at(&holes, &data, n * 256 * 1024).unwrap();
    }
    holes.set_len(20 << 20).unwrap();
}

fn check(place: &Place, source: &Path, archive: &[u8], what: &str) {
    let layer = Layer::new(archive, Compression::Zstd);
    place
        .unpack(&layer)
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    let (mut ours, mut theirs) = (tree(&place.fs(&layer)), tree(source));
    // GNU's and the older formats have whole seconds only.
    if !what.contains("posix") {
        for node in ours.values_mut().chain(theirs.values_mut()) {
            node.mtime.1 = 0;
        }
    }
    // Some formats cannot hold all names, and GNU tar cuts a symlink's target then.
    if what.contains("ustar") || what.contains("v7") {
        ours.remove(std::ffi::OsStr::new("symlink"));
    }
    theirs.retain(|name, _| ours.contains_key(name));
    assert_same(&ours, &theirs);
    assert!(ours.len() >= 5, "{what}: {:?}", ours.keys());
    let blocks = fs::metadata(place.fs(&layer).join("holes"))
        .unwrap()
        .blocks();
    assert!(
        !what.contains("sparse") || blocks * 512 < 1 << 20,
        "{what}: {blocks}"
    );
}

#[test]
fn gnu_tar() {
    if Command::new("tar").arg("--version").output().is_err() {
        return skip("there is no tar");
    }
    let place = Place::new();
    let source = place.dir.path().join("source");
    make(&source);
    for arguments in [
        &["--format=gnu"][..],
        &["--format=oldgnu"],
        &["--format=posix"],
        &["--format=ustar"],
        &["--format=v7"],
        &["--format=gnu", "--sparse"],
        &["--format=posix", "--sparse", "--sparse-version=0.0"],
        &["--format=posix", "--sparse", "--sparse-version=0.1"],
        &["--format=posix", "--sparse", "--sparse-version=1.0"],
        &["--format=posix", "--absolute-names", "--blocking-factor=1"],
        &[
            "--format=posix",
            "--pax-option=globexthdr.name=g,comment=all",
        ],
    ] {
        // It fails where a format cannot hold a name, but writes the rest.
        let output = Command::new("tar")
            .args(arguments)
            .args(["--create", "--numeric-owner", "--file=-", "--directory"])
            .arg(&source)
            .arg(".")
            .output()
            .unwrap();
        check(&place, &source, &output.stdout, &arguments.join(" "));
    }
}

#[test]
fn python() {
    let script = "import sys, tarfile\n\
        with tarfile.open(fileobj=sys.stdout.buffer, mode='w|', format=int(sys.argv[2])) as t:\n\
        \x20   t.add(sys.argv[1], arcname='/', recursive=True)\n";
    let place = Place::new();
    let source = place.dir.path().join("source");
    make(&source);
    for (format, name) in [("1", "gnu"), ("2", "posix")] {
        let mut python = Command::new("python3");
        let output = python
            .args(["-c", script])
            .arg(&source)
            .arg(format)
            .output();
        let Ok(output) = output else {
            return skip("there is no python3");
        };
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        // Its times are floating point: off by some hundred nanoseconds.
        check(
            &place,
            &source,
            &output.stdout,
            &format!("python {}", &name[..1]),
        );
    }
}
