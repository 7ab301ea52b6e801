//! Forwarding through the session module lands in the pod, and only there.
//!
//! Run by root, in a network namespace that stands for a host. Every test has a decoy that
//! listens on the host where the pod should answer, so that a wrong answer is seen.

mod denial;
mod host;
mod lying;
mod names;
mod neighbour;
mod reach;
mod services;
mod starter;

use crate::support::Tests;

pub fn all() -> Tests {
    let mut tests = reach::all();
    tests.extend(denial::all());
    tests.extend(lying::all());
    tests.extend(names::all());
    tests.extend(neighbour::all());
    tests.extend(services::all());
    tests.extend(starter::all());
    tests
}
