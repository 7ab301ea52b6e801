//! Against a real registry.

use std::process::Command;
use std::sync::Barrier;

use podspawn_images::platform;
use podspawn_images::progress::{LayerEvent, Silent};
use podspawn_images::pull::pull;
use podspawn_images::registry::{FailureKind, HostConfig, RegistryConfig};
use serde_json::json;

use crate::content::{Image, Layer, OCI_INDEX, OCI_MANIFEST, host_platform, index};
use crate::http::Site;
use crate::registry::Registry;
use crate::{Place, Recorder, have, quick, reference};

fn read(image: &podspawn_images::store::Image, file: &str) -> Option<String> {
    let mut layers = image.layers.iter().rev();
    layers.find_map(|layer| std::fs::read_to_string(layer.join(file)).ok())
}

#[test]
fn an_image_arrives_and_costs_nothing_twice() {
    if !have(&["docker-registry"]) {
        return;
    }
    let registry = Registry::start();
    let image = Image::small(1);
    registry.put("a/b", "1", &image);
    let place = Place::new();
    let name = reference(&registry.name("a/b:1"));
    let before = registry.requests().len();

    let recorder = Recorder::default();
    let pulled = pull(&place.store, &name, &quick(), &recorder).unwrap();
    assert_eq!(pulled.digest, image.digest());
    assert_eq!(pulled.layers.len(), 2);
    assert_eq!(read(&pulled, "seed").as_deref(), Some("image 1\n"));
    assert_eq!(read(&pulled, "base").as_deref(), Some("the same in all"));
    assert_eq!(recorder.count(LayerEvent::Done), 2);
    // Manifest, configuration, two layers.
    assert_eq!(
        registry.requests().len() - before,
        4,
        "{:?}",
        registry.requests()
    );
    place.assert_clean();

    let before = registry.requests().len();
    let again = pull(&place.store, &name, &quick(), &Silent).unwrap();
    assert_eq!(again.digest, image.digest());
    assert_eq!(registry.requests()[before..], ["GET /v2/a/b/manifests/1"]);

    // By digest there is nothing to ask, whatever the name says besides.
    let before = registry.requests().len();
    for pinned in [
        format!("a/b@{}", image.digest()),
        format!("a/b:old@{}", image.digest()),
    ] {
        let pinned = reference(&registry.name(&pinned));
        assert_eq!(
            pull(&place.store, &pinned, &quick(), &Silent)
                .unwrap()
                .digest,
            image.digest()
        );
        assert!(place.store.image(&pinned).unwrap().is_some());
    }
    assert_eq!(registry.requests().len(), before);
}

#[test]
fn by_digest_from_nothing() {
    if !have(&["docker-registry"]) {
        return;
    }
    let registry = Registry::start();
    let image = Image::small(2);
    registry.put("x", "t", &image);
    let place = Place::new();
    let pinned = reference(&registry.name(&format!("x@{}", image.digest())));
    let pulled = pull(&place.store, &pinned, &quick(), &Silent).unwrap();
    assert_eq!(pulled.digest, image.digest());
    assert_eq!(registry.count("GET /v2/x/manifests/sha256:"), 1);
}

#[test]
fn layers_that_are_there_are_not_fetched() {
    if !have(&["docker-registry"]) {
        return;
    }
    let registry = Registry::start();
    let (one, two) = (Image::small(1), Image::small(2));
    assert_eq!(one.layers[0].digest(), two.layers[0].digest());
    registry.put("one", "1", &one);
    registry.put("two", "1", &two);
    let place = Place::new();
    pull(
        &place.store,
        &reference(&registry.name("one:1")),
        &quick(),
        &Silent,
    )
    .unwrap();
    let recorder = Recorder::default();
    let name = reference(&registry.name("two:1"));
    let pulled = pull(&place.store, &name, &quick(), &recorder).unwrap();
    assert_eq!(read(&pulled, "seed").as_deref(), Some("image 2\n"));
    assert_eq!(recorder.count(LayerEvent::AlreadyThere), 1);
    let shared = format!("GET /v2/two/blobs/{}", one.layers[0].digest());
    assert_eq!(registry.count(&shared), 0);
}

#[test]
fn the_same_layer_twice_is_fetched_once() {
    if !have(&["docker-registry"]) {
        return;
    }
    let registry = Registry::start();
    let layer = Layer::new(&[("f", b"f")]);
    let image = Image::new(vec![
        layer.clone(),
        Layer::new(&[("g", b"g")]),
        layer.clone(),
    ]);
    registry.put("x", "1", &image);
    let place = Place::new();
    let name = reference(&registry.name("x:1"));
    pull(&place.store, &name, &quick(), &Silent).unwrap();
    assert_eq!(
        registry.count(&format!("GET /v2/x/blobs/{}", layer.digest())),
        1
    );
}

#[test]
fn pulls_at_the_same_time_do_the_work_once() {
    if !have(&["docker-registry"]) {
        return;
    }
    let registry = Registry::start();
    let layers = (0..5).map(|n| Layer::big(n, 3 << 20)).collect();
    let image = Image::new(layers);
    registry.put("x", "1", &image);
    let place = Place::new();
    let name = reference(&registry.name("x:1"));
    let start = Barrier::new(4);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let store = place.again();
                start.wait();
                let pulled = pull(&store, &name, &quick(), &Silent).unwrap();
                assert_eq!(pulled.digest, image.digest());
            });
        }
    });
    for layer in &image.layers {
        let fetched = registry.count(&format!("GET /v2/x/blobs/{}", layer.digest()));
        assert_eq!(fetched, 1, "{:?}", registry.requests());
    }
    place.assert_clean();
}

#[test]
fn big_layers_arrive_whole_and_progress_tells() {
    if !have(&["docker-registry"]) {
        return;
    }
    let registry = Registry::start();
    // More layers than downloads, more downloads than unpackers, and each
    // larger than a pipe.
    let layers: Vec<_> = (0..9).map(|n| Layer::big(n, 9 << 20)).collect();
    let image = Image::new(layers);
    registry.put("x", "1", &image);
    let place = Place::new();
    let recorder = Recorder::default();
    let name = reference(&registry.name("x:1"));
    let pulled = pull(&place.store, &name, &quick(), &recorder).unwrap();
    for (n, lower) in pulled.layers.iter().enumerate() {
        let file = std::fs::read(lower.join(format!("big{n}"))).unwrap();
        assert!(
            file == crate::content::noise(n as u64, 9 << 20),
            "layer {n}"
        );
    }
    for layer in &image.layers {
        let total = layer.blob.len() as u64;
        let whole = LayerEvent::Fetched {
            fetched: total,
            total,
        };
        let wanted = layer.digest();
        let mut events = recorder.events.lock().unwrap().clone();
        events.retain(|(digest, _)| *digest == wanted);
        let fetched: Vec<u64> = events
            .iter()
            .filter_map(|(_, event)| match event {
                LayerEvent::Fetched { fetched, .. } => Some(*fetched),
                _ => None,
            })
            .collect();
        assert!(fetched.is_sorted());
        assert!(events.iter().any(|(_, e)| *e == whole));
        assert_eq!(events.last().unwrap().1, LayerEvent::Done);
    }
}

#[test]
fn what_skopeo_pushes_in_either_format() {
    if !have(&["docker-registry", "skopeo"]) {
        return;
    }
    let registry = Registry::start();
    let image = Image::small(3);
    registry.put("oci", "1", &image);
    for (format, repository) in [("v2s2", "docker"), ("oci", "oci2")] {
        let copied = Command::new("skopeo")
            .args([
                "copy",
                "--quiet",
                "--src-tls-verify=false",
                "--dest-tls-verify=false",
            ])
            .args(["--insecure-policy", "--format", format])
            .arg(format!("docker://{}", registry.name("oci:1")))
            .arg(format!(
                "docker://{}",
                registry.name(&format!("{repository}:1"))
            ))
            .output()
            .unwrap();
        assert!(
            copied.status.success(),
            "{}",
            String::from_utf8_lossy(&copied.stderr)
        );
        let place = Place::new();
        let name = reference(&registry.name(&format!("{repository}:1")));
        let pulled = pull(&place.store, &name, &quick(), &Silent).unwrap();
        assert_eq!(read(&pulled, "seed").as_deref(), Some("image 3\n"));
    }
}

#[test]
fn an_index_yields_this_platform_or_says_which_there_are() {
    if !have(&["docker-registry"]) {
        return;
    }
    let registry = Registry::start();
    let ours = Image::small(1);
    let theirs = Image::for_architecture(Image::small(2).layers, "s390x");
    registry.put("x", "ours", &ours);
    registry.put("x", "theirs", &theirs);
    let both = index(&[
        ("linux/s390x", OCI_MANIFEST, &theirs.manifest),
        ("unknown/unknown", OCI_MANIFEST, &theirs.manifest),
        (&host_platform(), OCI_MANIFEST, &ours.manifest),
    ]);
    registry.put_manifest("x", "both", OCI_INDEX, &both);
    let place = Place::new();
    let name = reference(&registry.name("x:both"));
    let pulled = pull(&place.store, &name, &quick(), &Silent).unwrap();
    assert_eq!(pulled.digest, ours.digest());
    // The index alone says which manifest it is: one request.
    let before = registry.requests().len();
    pull(&place.store, &name, &quick(), &Silent).unwrap();
    assert_eq!(registry.requests()[before..], ["GET /v2/x/manifests/both"]);

    // Pinned by the index's digest, once there: none.
    let digest = podspawn_images::digest::Digest::of(&both);
    let pinned = reference(&registry.name(&format!("x@{digest}")));
    pull(&place.store, &pinned, &quick(), &Silent).unwrap();
    let before = registry.requests().len();
    pull(&place.store, &pinned, &quick(), &Silent).unwrap();
    assert_eq!(registry.requests().len(), before);

    // The other platform on request, though names and layers are shared.
    let mut other = quick();
    other.platform = platform::parse("linux/s390x").unwrap();
    for name in [&name, &pinned] {
        let pulled = pull(&place.store, name, &other, &Silent).unwrap();
        assert_eq!(pulled.digest, theirs.digest());
    }

    let mut other = quick();
    other.platform = platform::parse("linux/riscv64").unwrap();
    let place = Place::new();
    let error = pull(&place.store, &name, &other, &Silent).unwrap_err();
    assert_eq!(error.kind(), FailureKind::Platform);
    let line = error.to_string();
    assert!(
        line.contains("linux/riscv64") && line.contains("linux/s390x"),
        "{line}"
    );
    assert!(
        line.contains(&host_platform()) && !line.contains("unknown"),
        "{line}"
    );
    place.assert_empty();

    // A manifest alone says it in its configuration.
    let name = reference(&registry.name("x:theirs"));
    let error = pull(&place.store, &name, &quick(), &Silent).unwrap_err();
    assert_eq!(error.kind(), FailureKind::Platform);
    assert!(error.to_string().contains("linux/s390x"), "{error}");
    place.assert_empty();
}

#[test]
fn what_is_not_there_is_said_in_the_registrys_words_and_once() {
    if !have(&["docker-registry"]) {
        return;
    }
    let registry = Registry::start();
    registry.put("x", "1", &Image::small(1));
    let place = Place::new();
    for (missing, said) in [("x:2", "manifest unknown"), ("nope:1", "manifest unknown")] {
        let before = registry.requests().len();
        let name = reference(&registry.name(missing));
        let error = pull(&place.store, &name, &quick(), &Silent).unwrap_err();
        assert_eq!(error.kind(), FailureKind::NotFound);
        let line = error.to_string();
        assert!(line.starts_with(&registry.name(missing)), "{line}");
        assert!(
            line.contains(said) && line.contains("404") && !line.contains('\n'),
            "{line}"
        );
        assert_eq!(registry.requests().len() - before, 1);
    }
    place.assert_empty();
}

#[test]
fn a_registry_that_is_gone_is_an_error_in_bounded_time() {
    let place = Place::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let name = reference(&format!("{}/x:1", listener.local_addr().unwrap()));
    drop(listener);
    let recorder = Recorder::default();
    let error = pull(&place.store, &name, &quick(), &recorder).unwrap_err();
    assert_eq!(error.kind(), FailureKind::Connection);
    assert!(error.to_string().contains("refused"), "{error}");
    assert_eq!(recorder.retries.lock().unwrap().len(), 3);
    place.assert_empty();
}

#[test]
fn mirrors_are_asked_first_and_passed_over_when_they_fail() {
    if !have(&["docker-registry"]) {
        return;
    }
    let origin = Registry::start();
    let image = Image::small(4);
    origin.put("a/x", "1", &image);
    let mirror = Registry::start();
    mirror.put("hub/a/x", "1", &image);
    let broken =
        Site::start(|_, stream| crate::http::answer(stream, "500 Broken", "", b"a broken mirror"));
    let with = |mirrors: Vec<String>| {
        let mut options = quick();
        let config = HostConfig {
            insecure: false,
            mirrors,
        };
        options.registries = RegistryConfig {
            hosts: [(origin.address.to_string(), config)].into(),
            ..RegistryConfig::default()
        };
        options
    };
    let name = reference(&origin.name("a/x:1"));

    let place = Place::new();
    let before = origin.requests().len();
    let recorder = Recorder::default();
    let mirrors = vec![broken.address.to_string(), mirror.name("hub")];
    let pulled = pull(&place.store, &name, &with(mirrors), &recorder).unwrap();
    assert_eq!(pulled.digest, image.digest());
    assert!(place.store.image(&name).unwrap().is_some());
    assert_eq!(origin.requests().len(), before, "the mirror has it all");
    assert_eq!(broken.seen("/v2/").len(), 1, "a mirror is not retried");
    assert!(recorder.notes.lock().unwrap()[0].contains("a broken mirror"));

    // None of the mirrors: the registry itself.
    let place = Place::new();
    let mirrors = vec![broken.address.to_string(), mirror.name("other")];
    let pulled = pull(&place.store, &name, &with(mirrors), &Silent).unwrap();
    assert_eq!(pulled.digest, image.digest());
    assert_eq!(origin.requests().len() - before, 4);
}

#[test]
fn a_mirror_that_breaks_off_is_taken_over_from_in_the_middle() {
    if !have(&["docker-registry"]) {
        return;
    }
    let origin = Registry::start();
    let image = Image::new(vec![Layer::big(1, 2 << 20)]);
    origin.put("x", "1", &image);
    let half = image.clone();
    let mirror = Site::start(move |request, stream| {
        use std::io::Write as _;
        if request.path.ends_with(&half.layers[0].digest().to_string()) {
            let blob = &half.layers[0].blob;
            write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
                blob.len()
            )?;
            return stream.write_all(&blob[..1 << 20]);
        }
        let mut request = request.clone();
        request.path = request.path.replace("/manifests/1", "/manifests/0");
        crate::http::honest(std::slice::from_ref(&half), &request, stream)
    });
    let mut options = quick();
    let config = HostConfig {
        insecure: false,
        mirrors: vec![mirror.address.to_string()],
    };
    options.registries.hosts = [(origin.address.to_string(), config)].into();
    let place = Place::new();
    let name = reference(&origin.name("x:1"));
    let pulled = pull(&place.store, &name, &options, &Silent).unwrap();
    assert_eq!(pulled.digest, image.digest());
    assert_eq!(origin.count("GET /v2/x/blobs/"), 1);
    assert_eq!(origin.count("GET /v2/x/manifests/"), 0);
}

#[test]
fn an_artifact_is_not_an_image() {
    if !have(&["docker-registry"]) {
        return;
    }
    let registry = Registry::start();
    let image = Image::small(1).with(|manifest| {
        manifest["config"]["mediaType"] = json!("application/vnd.cncf.helm.config.v1+json");
    });
    registry.put("x", "1", &image);
    let place = Place::new();
    let name = reference(&registry.name("x:1"));
    let error = pull(&place.store, &name, &quick(), &Silent).unwrap_err();
    assert_eq!(error.kind(), FailureKind::Document);
    assert!(error.to_string().contains("helm"), "{error}");
    place.assert_empty();
}
