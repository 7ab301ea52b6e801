//! Ways out of a container, each tried.
//!
//! What is tried as an ordinary user is tried as root of the container too, who may do more.

mod descriptors;
mod devices;
mod image;
mod kept;
mod kernel;
mod programs;
mod security;
mod uploads;

use std::sync::Arc;

use crate::support::Tests;
use crate::support::host::Host;

pub fn all() -> Tests {
    let mut tests = kernel::all();
    tests.extend(devices::all());
    tests.extend(programs::all());
    tests.extend(descriptors::all());
    tests.extend(image::all());
    tests.extend(kept::all());
    tests.extend(uploads::all());
    tests.extend(security::all());
    tests
}

/// The shared host, and one whose sessions are root of the container.
fn both() -> [Arc<Host>; 2] {
    both_of("debian")
}

/// The same with another image.
fn both_of(image: &str) -> [Arc<Host>; 2] {
    let root = Host::with_config(image, "user: root\n");
    [Host::shared(image), Arc::new(root)]
}
