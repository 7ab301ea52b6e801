//! What the administrator does not allow is refused before anybody is asked.

use podspawn_images::policy::Policy;
use podspawn_images::progress::Silent;
use podspawn_images::pull::{PullOptions, pull};
use podspawn_images::registry::FailureKind;

use crate::content::{Image, Layer};
use crate::http::{Site, honest};
use crate::{Place, quick, reference};

fn site(image: &Image) -> Site {
    let images = [image.clone()];
    Site::start(move |request, stream| honest(&images, request, stream))
}

fn allowing(patterns: &[String]) -> PullOptions {
    let patterns = patterns.iter().map(|p| p.parse().unwrap());
    PullOptions {
        policy: Policy::only(patterns.collect()),
        ..quick()
    }
}

#[test]
fn an_image_that_is_not_allowed_costs_no_request() {
    let image = Image::small(1);
    let site = site(&image);
    let place = Place::new();
    let other = image.with(|m| m["annotations"] = serde_json::json!({"x": "y"}));
    for patterns in [
        vec![],
        vec![site.name("other")],
        vec![
            "docker.io/library/*".to_owned(),
            "*.example.org/**".to_owned(),
        ],
        vec![site.name("x:1*")],
        vec![site.name(&format!("x@{}", image.digest()))],
        vec![other.digest().to_string()],
    ] {
        let name = reference(&site.name("x:0"));
        let error = pull(&place.store, &name, &allowing(&patterns), &Silent).unwrap_err();
        assert_eq!(error.kind(), FailureKind::Policy, "{patterns:?}");
        assert!(error.to_string().contains("images.allow"), "{error}");
        place.assert_empty();
    }
    assert_eq!(site.seen("").len(), 0);
}

#[test]
fn one_that_is_allowed_is_pulled() {
    let image = Image::small(1);
    let site = site(&image);
    let pinned = format!("x@{}", image.digest());
    for (name, pattern) in [
        ("x:0", site.name("*")),
        ("x:0", site.name("x:0")),
        (&pinned, site.name("**")),
        (&pinned, image.digest().to_string()),
    ] {
        let place = Place::new();
        let name = reference(&site.name(name));
        let pulled = pull(&place.store, &name, &allowing(&[pattern]), &Silent).unwrap();
        assert_eq!(pulled.digest, image.digest());
    }
}

#[test]
fn one_that_is_there_is_refused_all_the_same() {
    let image = Image::small(1);
    let site = site(&image);
    let place = Place::new();
    let name = reference(&site.name(&format!("x@{}", image.digest())));
    pull(&place.store, &name, &quick(), &Silent).unwrap();
    let error = pull(&place.store, &name, &allowing(&[]), &Silent).unwrap_err();
    assert_eq!(error.kind(), FailureKind::Policy);
}

#[test]
fn an_image_that_is_too_large_has_no_layer_fetched() {
    let image = Image::new(vec![Layer::big(1, 40_000), Layer::big(2, 40_000)]);
    let site = site(&image);
    let place = Place::new();
    let mut options = quick();
    options.limits.image = 60_000;
    let error = pull(
        &place.store,
        &reference(&site.name("x:0")),
        &options,
        &Silent,
    )
    .unwrap_err();
    assert_eq!(error.kind(), FailureKind::TooLarge);
    assert!(error.to_string().contains("60000"), "{error}");
    assert_eq!(site.seen("/blobs/").len(), 0);
    place.assert_empty();
}
