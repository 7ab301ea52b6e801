//! Blobs that the users of a host share: fetched once, verified by everybody.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use podspawn_images::cache::Cache;
use podspawn_images::digest::Digest;
use podspawn_images::progress::{LayerEvent, Silent};
use podspawn_images::pull::{PullOptions, fill, pull};
use podspawn_images::registry::FailureKind;

use crate::content::{Image, Layer, OCI_MANIFEST, host_platform, index};
use crate::http::{Site, answer, honest};
use crate::{Place, Recorder, quick, reference};

fn site(image: &Image) -> Site {
    let images = [image.clone()];
    let list = index(&[(&host_platform(), OCI_MANIFEST, &image.manifest)]);
    Site::start(
        move |request, stream| match request.path.ends_with("/manifests/index") {
            true => answer(stream, "200 OK", "", &list),
            false => honest(&images, request, stream),
        },
    )
}

fn with_cache(dir: &Path) -> PullOptions {
    PullOptions {
        cache: Some(Cache::new(dir.join("cache"))),
        ..quick()
    }
}

fn blob(dir: &Path, digest: &Digest) -> PathBuf {
    dir.join("cache/blobs/sha256").join(digest.hex())
}

#[test]
fn what_root_fetched_nobody_fetches_again() {
    let image = Image::new(vec![Layer::big(1, 300_000), Layer::big(2, 200_000)]);
    let site = site(&image);
    let dir = tempfile::tempdir().unwrap();
    let options = with_cache(dir.path());
    let cache = options.cache.clone().unwrap();
    let name = reference(&site.name("x:index"));
    let recorder = Recorder::default();
    assert_eq!(
        fill(&cache, &name, &options, &recorder).unwrap(),
        image.digest()
    );
    assert_eq!(recorder.count(LayerEvent::Done), 2);
    assert_eq!(site.seen("/blobs/").len(), 3);
    for layer in &image.layers {
        let meta = fs::metadata(blob(dir.path(), &layer.digest())).unwrap();
        assert_eq!(meta.mode() & 0o7777, 0o644);
    }
    assert_eq!(
        fs::read_dir(dir.path().join("cache/tmp")).unwrap().count(),
        0
    );

    // A second time nothing is fetched but what the tag means.
    let recorder = Recorder::default();
    fill(&cache, &name, &options, &recorder).unwrap();
    assert_eq!(recorder.count(LayerEvent::AlreadyThere), 2);

    // A user's pull by tag costs one request, and by digest none.
    let place = Place::new();
    let before = site.seen("").len();
    let pulled = pull(&place.store, &name, &options, &Silent).unwrap();
    assert_eq!(pulled.digest, image.digest());
    assert_eq!(site.seen("").len() - before, 1);
    let place = Place::new();
    let pinned = reference(&site.name(&format!("x@{}", image.digest())));
    pull(&place.store, &pinned, &options, &Silent).unwrap();
    assert_eq!(site.seen("").len() - before, 1);
    place.assert_clean();
}

#[test]
fn a_shared_blob_that_is_not_what_its_name_says_is_fetched() {
    let image = Image::new(vec![Layer::big(1, 300_000)]);
    let site = site(&image);
    let dir = tempfile::tempdir().unwrap();
    let options = with_cache(dir.path());
    let name = reference(&site.name("x:0"));
    fill(options.cache.as_ref().unwrap(), &name, &options, &Silent).unwrap();
    for path in [
        blob(dir.path(), &image.layers[0].digest()),
        blob(dir.path(), &Digest::of(&image.config)),
        blob(dir.path(), &image.digest()),
    ] {
        let whole = fs::read(&path).unwrap();
        let mut bad = whole.clone();
        let middle = bad.len() / 2;
        bad[middle] ^= 1;
        for content in [bad, whole[..whole.len() - 1].to_vec(), Vec::new()] {
            fs::write(&path, content).unwrap();
            let place = Place::new();
            let pinned = reference(&site.name(&format!("x@{}", image.digest())));
            let before = site.seen("").len();
            let pulled = pull(&place.store, &pinned, &options, &Silent).unwrap();
            assert_eq!(pulled.digest, image.digest());
            assert_eq!(site.seen("").len() - before, 1);
            place.assert_clean();
        }
        // Root's next fill mends it.
        fill(options.cache.as_ref().unwrap(), &name, &options, &Silent).unwrap();
        assert_eq!(fs::read(&path).unwrap(), whole);
    }
    // Nor is a link followed, or a pipe waited for.
    let path = blob(dir.path(), &image.layers[0].digest());
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
    pull(&Place::new().store, &name, &options, &Silent).unwrap();
}

#[test]
fn a_fill_keeps_nothing_that_is_wrong_and_no_place_that_others_write() {
    let image = Image::new(vec![Layer::big(1, 100_000)]);
    let wrong = image.layers[0].digest();
    let images = [image.clone()];
    let site = Site::start(
        move |request, stream| match request.path.ends_with(wrong.hex()) {
            true => answer(
                stream,
                "200 OK",
                "",
                &vec![0; images[0].layers[0].blob.len()],
            ),
            false => honest(&images, request, stream),
        },
    );
    let dir = tempfile::tempdir().unwrap();
    let options = with_cache(dir.path());
    let cache = options.cache.clone().unwrap();
    let name = reference(&site.name("x:0"));
    let error = fill(&cache, &name, &options, &Silent).unwrap_err();
    assert_eq!(error.kind(), FailureKind::Digest, "{error}");
    assert!(!blob(dir.path(), &image.layers[0].digest()).exists());
    assert_eq!(
        fs::read_dir(dir.path().join("cache/tmp")).unwrap().count(),
        0
    );

    let open = dir.path().join("cache/blobs");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    let error = fill(&cache, &name, &options, &Silent).unwrap_err();
    assert_eq!(error.kind(), FailureKind::Store, "{error}");
}
