//! Registries that break, stall and lie.

mod broken;
mod documents;
mod layers;
mod lying;
mod redirects;
mod stalling;

use std::net::TcpStream;
use std::time::{Duration, Instant};

use podspawn_images::progress::Silent;
use podspawn_images::pull::{PullError, PullOptions, pull};

use crate::content::{Image, Layer};
use crate::http::{Request, Site, honest};
use crate::{Place, Recorder, quick, reference};

/// An honest registry for `image` (tag 0), but for what `deviate` answers:
/// `None` leaves the answer to honesty.
fn site(
    image: &Image,
    deviate: impl Fn(&Request, &mut TcpStream) -> Option<std::io::Result<()>> + Send + Sync + 'static,
) -> Site {
    let images = [image.clone()];
    Site::start(move |request, stream| {
        deviate(request, stream).unwrap_or_else(|| honest(&images, request, stream))
    })
}

/// The pull fails within bounded time, in one line that names the reference,
/// and leaves nothing.
fn refused(site: &Site) -> PullError {
    refused_with(site, &quick())
}

fn refused_with(site: &Site, options: &PullOptions) -> PullError {
    let place = Place::new();
    let name = site.name("x:0");
    let begun = Instant::now();
    let error = pull(&place.store, &reference(&name), options, &Silent).unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(20), "{error}");
    let line = error.to_string();
    assert!(line.starts_with(&name) && line.len() < 1500, "{line}");
    assert!(!line.chars().any(char::is_control), "{line:?}");
    place.assert_empty();
    error
}

fn pulled(site: &Site, image: &Image, recorder: &Recorder) {
    let place = Place::new();
    let name = reference(&site.name("x:0"));
    let found = pull(&place.store, &name, &quick(), recorder).unwrap();
    assert_eq!(found.digest, image.digest());
    place.assert_clean();
}

fn is_blob(request: &Request, layer: &Layer) -> bool {
    request.path.ends_with(&layer.digest().to_string())
}

fn big() -> (Image, Layer) {
    let layer = Layer::big(7, 3 << 20);
    (Image::new(vec![layer.clone()]), layer)
}
