//! Loading: every format, its names, and what is refused.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use podspawn_images::archive::{LoadError, LoadOptions, Loaded, load};
use podspawn_images::digest::Digest;
use podspawn_images::layer::Compression;
use podspawn_images::limits::Limits;
use podspawn_images::platform;
use podspawn_images::policy::Policy;
use podspawn_images::progress::Silent;
use podspawn_images::reference::Reference;
use serde_json::{Value, json};

use super::common::archive::{file, hard_link, symlink, tar};
use super::common::layout::{Built, Layer, gzip, write_files, zstd};
use super::common::{root, skip};
use super::{Place, list};

type Files = Vec<(String, Vec<u8>)>;

fn built(text: &str) -> Built {
    Built::of([tar([file("a", text)]), tar([file("b", text)])])
}

fn try_load(place: &Place, source: &Path, name: Option<&str>) -> Result<Vec<Loaded>, LoadError> {
    load_by(place, source, name, Policy::default())
}

fn load_by(
    place: &Place,
    source: &Path,
    name: Option<&str>,
    policy: Policy,
) -> Result<Vec<Loaded>, LoadError> {
    let name: Option<Reference> = name.map(|name| name.parse().unwrap());
    let options = LoadOptions {
        platform: platform::parse("linux/amd64").unwrap(),
        policy,
        ..LoadOptions::default()
    };
    load(&place.store, source, name.as_ref(), &options, &Silent)
}

fn archive_of(files: &Files) -> Vec<u8> {
    tar(files.iter().map(|(name, content)| file(name, content)))
}

fn put(place: &Place, name: &str, content: &[u8]) -> PathBuf {
    let path = place.dir.path().join(name);
    fs::write(&path, content).unwrap();
    path
}

#[track_caller]
fn assert_loaded(place: &Place, loaded: &[Loaded], image: &Built, names: &[&str]) {
    assert_eq!(loaded.len(), 1);
    assert_eq!(loaded[0].image.digest, image.digest());
    let found: Vec<String> = loaded[0].names.iter().map(Reference::to_string).collect();
    assert_eq!(found, names);
    for name in names {
        let image = place.store.image(&name.parse().unwrap()).unwrap().unwrap();
        assert_eq!(image.digest, loaded[0].image.digest);
        assert!(image.layers.iter().all(|layer| layer.is_dir()));
    }
    assert_eq!(place.list("tmp"), [""; 0]);
}

#[track_caller]
fn refused(place: &Place, source: &Path) -> LoadError {
    let error = try_load(place, source, None).unwrap_err();
    let text = error.to_string();
    assert!(!text.contains('\n') && text.len() < 1500, "{text:?}");
    for part in ["images", "refs", "tmp"] {
        assert_eq!(place.list(part), [""; 0], "left in {part}");
    }
    error
}

#[test]
fn layouts_as_directories_and_archives() {
    let image = built("x");
    let archive = archive_of(&image.files());
    for (how, content) in [
        ("tar", archive.clone()),
        ("tar.gz", gzip(&archive)),
        ("tar.zst", zstd(&archive)),
    ] {
        let place = Place::new();
        let path = put(&place, how, &content);
        let loaded = try_load(&place, &path, Some("test")).unwrap();
        assert_loaded(&place, &loaded, &image, &["docker.io/library/test:latest"]);
    }
    let place = Place::new();
    let path = image.write(&place.dir.path().join("layout"));
    let loaded = try_load(&place, &path, Some("test:1")).unwrap();
    assert_loaded(&place, &loaded, &image, &["docker.io/library/test:1"]);
    // A tag alone is no name.
    let again = try_load(&place, &path, None).unwrap();
    assert_loaded(&place, &again, &image, &[]);
}

#[test]
fn a_file_is_allowed_by_its_digest_and_not_by_what_it_claims() {
    let place = Place::new();
    let image = built("allowed");
    let source = image.write(&place.outside().join("layout"));
    let only = |text: String| Policy::only(vec![text.parse().unwrap()]);
    let digest = image.digest();
    for pattern in ["docker.io/library/ubuntu".to_owned(), "*/**".to_owned()] {
        let error = load_by(&place, &source, Some("ubuntu:24.04"), only(pattern)).unwrap_err();
        assert!(matches!(error, LoadError::Policy { .. }), "{error}");
        assert!(error.to_string().contains(&digest.to_string()), "{error}");
        for part in ["layers", "images", "refs", "tmp"] {
            assert_eq!(place.list(part), [""; 0], "{part}");
        }
    }
    let by_name = only(format!("docker.io/library/*@{digest}"));
    load_by(&place, &source, Some("ubuntu:24.04"), by_name).unwrap();
    load_by(&place, &source, None, only(digest.to_string())).unwrap();
}

#[test]
fn archives_from_a_pipe() {
    let image = built("x");
    let place = Place::new();
    let path = place.dir.path().join("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &path,
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .unwrap();
    let archive = gzip(&archive_of(&image.files()));
    let writer = std::thread::spawn({
        let path = path.clone();
        move || {
            fs::OpenOptions::new()
                .write(true)
                .open(path)
                .unwrap()
                .write_all(&archive)
                .unwrap()
        }
    });
    let loaded = try_load(&place, &path, Some("test")).unwrap();
    writer.join().unwrap();
    assert_loaded(&place, &loaded, &image, &["docker.io/library/test:latest"]);
}

fn index(entries: &[Value]) -> (String, Vec<u8>) {
    let index = json!({"schemaVersion": 2, "manifests": entries});
    ("index.json".into(), serde_json::to_vec(&index).unwrap())
}

#[test]
fn layouts_of_several_images() {
    let (one, two) = (built("one"), built("two"));
    let mut files: Files = vec![index(&[
        one.descriptor(json!({"org.opencontainers.image.ref.name": "example.org/one:1"})),
        one.descriptor(json!({"org.opencontainers.image.ref.name": "localhost/also-one"})),
        two.descriptor(json!({
            "org.opencontainers.image.ref.name": "latest",
            "io.containerd.image.name": "docker.io/library/two:latest",
        })),
    ])];
    files.extend(one.blobs());
    files.extend(two.blobs());
    let place = Place::new();
    let path = put(&place, "both.tar", &archive_of(&files));
    let loaded = try_load(&place, &path, None).unwrap();
    let names = |loaded: &Loaded| {
        loaded
            .names
            .iter()
            .map(Reference::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(loaded.len(), 2);
    assert_eq!(
        names(&loaded[0]),
        ["example.org/one:1", "localhost/also-one:latest"]
    );
    assert_eq!(names(&loaded[1]), ["docker.io/library/two:latest"]);
    let error = try_load(&place, &path, Some("name")).unwrap_err();
    assert!(
        matches!(error, LoadError::Several { count: 2, .. }),
        "{error}"
    );
}

fn with_platform(mut descriptor: Value, architecture: &str) -> Value {
    descriptor["platform"] = json!({"os": "linux", "architecture": architecture});
    descriptor
}

fn for_architecture(text: &str, architecture: &str) -> Built {
    let layer = Layer::new(&tar([file("a", text)]), Compression::Gzip);
    let config = json!({
        "architecture": architecture,
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [layer.descriptor.diff_id]},
    });
    Built::with_config(vec![layer], &config)
}

#[test]
fn the_image_for_this_platform_is_chosen() {
    let (arm, amd) = (
        for_architecture("arm", "arm64"),
        for_architecture("amd", "amd64"),
    );
    let entries = [
        with_platform(arm.descriptor(json!({})), "arm64"),
        with_platform(amd.descriptor(json!({})), "amd64"),
        with_platform(arm.descriptor(json!({})), "unknown"),
    ];
    let blobs: Files = [arm.blobs(), amd.blobs()].concat();
    let load_files = |files: &Files| {
        let place = Place::new();
        let path = put(&place, "multi.tar", &archive_of(files));
        let loaded = try_load(&place, &path, Some("test"));
        (place, loaded)
    };
    let flat = [vec![index(&entries)], blobs.clone()].concat();
    let (place, loaded) = load_files(&flat);
    assert_loaded(
        &place,
        &loaded.unwrap(),
        &amd,
        &["docker.io/library/test:latest"],
    );

    // The same one and three indexes deeper, and too deep.
    let mut files = blobs.clone();
    let mut inner = index(&entries).1;
    for depth in 1..8 {
        let name = super::common::layout::blob_file(&inner);
        let descriptor = json!({
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "digest": Digest::of(&inner),
            "size": inner.len(),
        });
        files.push(name);
        let outer = index(&[descriptor]);
        inner = outer.1.clone();
        let (place, loaded) = load_files(&[vec![outer], files.clone()].concat());
        if depth <= Limits::default().index_depth {
            assert_loaded(
                &place,
                &loaded.unwrap(),
                &amd,
                &["docker.io/library/test:latest"],
            );
        } else {
            assert!(
                matches!(loaded.unwrap_err(), LoadError::Content { .. }),
                "{depth}"
            );
        }
    }

    let none = [vec![index(&entries[..1])], blobs.clone()].concat();
    let (_, loaded) = load_files(&none);
    let text = loaded.unwrap_err().to_string();
    assert!(
        text.contains("linux/amd64") && text.contains("linux/arm64"),
        "{text}"
    );
    // An entry without a platform, whose configuration is for another.
    let silent = [vec![index(&[arm.descriptor(json!({}))])], blobs].concat();
    let text = load_files(&silent).1.unwrap_err().to_string();
    assert!(
        text.contains("linux/amd64") && text.contains("linux/arm64"),
        "{text}"
    );
}

/// A `docker save` archive as Docker wrote it before it wrote layouts.
fn docker(image: &Built, tags: Value) -> Files {
    let config = format!("{}.json", Digest::of(&image.config).hex());
    let mut files: Files = Vec::new();
    let mut layers = Vec::new();
    for (n, layer) in image.layers.iter().enumerate() {
        let name = format!("{n:064}/layer.tar");
        files.push((name.clone(), layer.blob.clone()));
        layers.push(name);
    }
    let manifest = json!([{"Config": config, "RepoTags": tags, "Layers": layers}]);
    files.push((config, image.config.clone()));
    files.push((
        "manifest.json".into(),
        serde_json::to_vec(&manifest).unwrap(),
    ));
    files.push(("repositories".into(), b"{}".to_vec()));
    files
}

fn plain(text: &str) -> Built {
    Built::new([text, "second"].map(|text| Layer::new(&tar([file("a", text)]), Compression::None)))
}

#[test]
fn docker_save_archives() {
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let image =
            Built::new(["1", "2"].map(|text| Layer::new(&tar([file(text, text)]), compression)));
        let files = docker(&image, json!(["test:1", "example.org/x/y:2"]));
        let (place, archive) = (Place::new(), archive_of(&files));
        let path = put(&place, "saved.tar.gz", &gzip(&archive));
        let loaded = try_load(&place, &path, None).unwrap();
        assert_eq!(loaded.len(), 1);
        let digest = loaded[0].image.digest.clone();
        for name in ["test:1", "example.org/x/y:2"] {
            let found = place.store.image(&name.parse().unwrap()).unwrap().unwrap();
            assert_eq!(found.digest, digest);
            let config = found.manifest().unwrap().config;
            assert_eq!(config.digest, Digest::of(&image.config));
        }
        let blobs: Vec<String> = image
            .layers
            .iter()
            .map(|l| l.descriptor.digest.file_name())
            .collect();
        assert!(blobs.iter().all(|blob| place.list("layers").contains(blob)));
        // The same archive makes the same image.
        let path = put(&place, "saved.tar", &archive);
        assert_eq!(
            try_load(&place, &path, None).unwrap()[0].image.digest,
            digest
        );
    }
    let place = Place::new();
    let path = put(
        &place,
        "untagged.tar",
        &archive_of(&docker(&plain("x"), Value::Null)),
    );
    assert!(try_load(&place, &path, None).unwrap()[0].names.is_empty());
    let named = try_load(&place, &path, Some("now:named")).unwrap();
    assert_eq!(named[0].names[0].to_string(), "docker.io/library/now:named");
}

#[test]
fn equal_layers_that_docker_links() {
    let layer = Layer::new(&tar([file("a", "x")]), Compression::None);
    let image = Built::new([layer.clone(), layer.clone(), layer.clone()]);
    let entries = docker(&image, json!(["test:1"]))
        .into_iter()
        .map(|(name, content)| match name.as_bytes().get(63) {
            Some(b'1') if name.ends_with("layer.tar") => {
                symlink(&name, format!("../{:064}/layer.tar", 0))
            }
            Some(b'2') if name.ends_with("layer.tar") => {
                hard_link(&name, format!("{:064}/layer.tar", 1))
            }
            _ => file(name, content),
        });
    let place = Place::new();
    let path = put(&place, "linked.tar", &tar(entries));
    let loaded = try_load(&place, &path, None).unwrap();
    assert_eq!(
        (loaded[0].image.layers.len(), place.list("layers").len()),
        (1, 1)
    );
}

#[test]
fn hostile_archives() {
    let place = Place::new();
    let image = plain("x");
    let canary = place.outside().join("canary");
    let canary = canary.to_str().unwrap();
    let manifest = |config: &str, layers: &[&str]| {
        let manifest = json!([{"Config": config, "RepoTags": ["t:1"], "Layers": layers}]);
        (
            "manifest.json".to_string(),
            serde_json::to_vec(&manifest).unwrap(),
        )
    };
    let with = |files: Files| archive_of(&files);
    for (what, archive) in [
        ("config outside", with(vec![manifest(canary, &[])])),
        (
            "config by ..",
            with(vec![manifest("../../outside/canary", &[])]),
        ),
        ("no config", with(vec![manifest("x.json", &[])])),
        (
            "no layer",
            with(vec![
                manifest("c", &["a", "b"]),
                ("c".into(), image.config.clone()),
            ]),
        ),
        (
            "too few",
            with(vec![
                manifest("c", &["a"]),
                ("c".into(), image.config.clone()),
            ]),
        ),
        ("nothing", with(vec![])),
        (
            "something else",
            with(vec![("etc/passwd".into(), b"x".to_vec())]),
        ),
        (
            "no json",
            with(vec![("manifest.json".into(), b"{".to_vec())]),
        ),
        (
            "no image",
            with(vec![("manifest.json".into(), b"[]".to_vec())]),
        ),
        (
            "no index",
            with(vec![("index.json".into(), b"{}".to_vec())]),
        ),
        ("empty index", with(vec![index(&[])])),
        (
            "blob missing",
            with(vec![index(&[image.descriptor(json!({}))])]),
        ),
        (
            "links out",
            tar([
                symlink("c", canary),
                symlink("l", "l"),
                file("manifest.json", manifest("c", &["l"]).1),
            ]),
        ),
        ("bad tag", with(docker(&image, json!(["UPPER:case"])))),
        (
            "large config",
            with(vec![manifest("c", &[]), ("c".into(), vec![b' '; 9 << 20])]),
        ),
        (
            "large manifest",
            with(vec![("manifest.json".into(), vec![b' '; 5 << 20])]),
        ),
        ("no archive", b"hello".to_vec()),
        ("empty", vec![]),
        ("xz", b"\xfd7zXZ\0\0\0".to_vec()),
        (
            "cut",
            with(docker(&image, json!(["test:1"])))[..2000].to_vec(),
        ),
        (
            "bad gzip",
            gzip(&with(docker(&image, json!(["t:1"]))))[..500].to_vec(),
        ),
    ] {
        let path = put(&place, "hostile.tar", &archive);
        let error = refused(&place, &path);
        assert!(error.to_string().contains("hostile.tar"), "{what}: {error}");
        place.assert_untouched();
    }
    assert!(matches!(
        refused(&place, Path::new("/nonexistent")),
        LoadError::Io { .. }
    ));
    place.assert_untouched();
}

#[test]
fn content_that_is_not_what_its_names_say() {
    let image = built("x");
    let good = image.files();
    // Each blob in turn is another's content of the same size, is longer, or is cut short.
    for at in 2..good.len() {
        for change in 0..3 {
            let mut files = good.clone();
            let blob = &mut files[at].1;
            match change {
                0 => {
                    let middle = blob.len() / 2;
                    blob[middle] ^= 1;
                }
                1 => blob.push(b'\n'),
                _ => drop(blob.pop()),
            }
            let place = Place::new();
            let path = put(&place, "wrong.tar", &archive_of(&files));
            refused(&place, &path);
            assert!(place.list("layers").len() <= 1);
        }
    }
    // Docker's archives name no digests, but the configuration has diff_ids.
    let mut files = docker(&plain("x"), json!(["t:1"]));
    files[0].1 = tar([file("a", "another")]);
    let place = Place::new();
    let error = refused(&place, &put(&place, "wrong.tar", &archive_of(&files)));
    assert!(matches!(error, LoadError::Layer { .. }), "{error}");
}

#[test]
fn archives_that_podman_saves() {
    let podman = |arguments: &[&str], dir: &Path| {
        let mut command = Command::new("podman");
        let (data, run) = (dir.join("podman"), dir.join("podman-run"));
        command.arg("--root").arg(data).arg("--runroot").arg(run);
        command.args(["--storage-driver", "vfs"]).args(arguments);
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    if !root() {
        return;
    }
    if Command::new("podman").arg("--version").output().is_err() {
        return skip("there is no podman");
    }
    let place = Place::new();
    let dir = place.dir.path();
    let rootfs = put(&place, "rootfs.tar", &tar([file("etc/hello", "hello")]));
    podman(
        &["import", rootfs.to_str().unwrap(), "localhost/made:1"],
        dir,
    );
    for (format, out) in [
        ("docker-archive", "d.tar"),
        ("oci-archive", "o.tar"),
        ("oci-dir", "o"),
    ] {
        let out = dir.join(out);
        podman(
            &[
                "save",
                "--format",
                format,
                "-o",
                out.to_str().unwrap(),
                "localhost/made:1",
            ],
            dir,
        );
        let store = Place::new();
        let loaded = try_load(&store, &out, None).unwrap();
        assert_eq!(loaded.len(), 1, "{format}");
        let names: Vec<String> = loaded[0].names.iter().map(Reference::to_string).collect();
        assert_eq!(names, ["localhost/made:1"], "{format}");
        let hello = loaded[0].image.layers[0].join("etc/hello");
        assert_eq!(fs::read(hello).unwrap(), b"hello", "{format}");
    }
}

#[test]
fn directories_do_not_lead_out() {
    let image = built("x");
    let place = Place::new();
    let layout = image.write(&place.dir.path().join("layout"));
    let blob = layout
        .join("blobs/sha256")
        .join(image.layers[0].descriptor.digest.hex());
    // A symlink within is what deduplicating tools leave; one that leads out is not followed.
    fs::rename(&blob, layout.join("within")).unwrap();
    std::os::unix::fs::symlink("../../within", &blob).unwrap();
    assert_eq!(try_load(&place, &layout, None).unwrap().len(), 1);
    let other = Place::new();
    fs::rename(layout.join("within"), place.outside().join("blob")).unwrap();
    fs::remove_file(&blob).unwrap();
    std::os::unix::fs::symlink(place.outside().join("blob"), &blob).unwrap();
    refused(&other, &layout);
    fs::remove_file(&blob).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &blob,
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .unwrap();
    refused(&other, &layout);
    write_files(&place.dir.path().join("empty"), &[("x".into(), vec![])]);
    refused(&other, &place.dir.path().join("empty"));
    assert_eq!(list(&other.outside()), ["canary"]);
}
