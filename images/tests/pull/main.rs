//! Pulling, from a real registry and from hostile ones.
//!
//! The real registry is Debian's `docker-registry` on a loopback port with its
//! storage in a temporary directory. Hostile registries are small servers of
//! this test's own: they are the adversary, and stand in for nothing.

#[path = "../common/mod.rs"]
mod common;

mod content;
mod hostile;
mod http;
mod memory;
mod policy;
mod protected;
mod real;
mod registry;
mod secured;
mod shared;

use std::io::Write as _;
use std::sync::Mutex;
use std::time::Duration;

use podspawn_images::digest::Digest;
use podspawn_images::progress::{LayerEvent, Progress, Retry};
use podspawn_images::pull::PullOptions;
use podspawn_images::reference::Reference;
use podspawn_images::registry::{RetryPolicy, Timeouts};
use podspawn_images::store::{Ownership, Store};

/// A store in a directory of its own.
struct Place {
    store: Store,
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("store");
        let store = Store::open(&root, Ownership::Single).unwrap();
        Place { store, dir }
    }

    /// The same store, as another process would open it.
    fn again(&self) -> Store {
        Store::open(&self.dir.path().join("store"), Ownership::Single).unwrap()
    }

    /// Names of what is in `v1/<part>`.
    fn list(&self, part: &str) -> Vec<String> {
        let dir = self.dir.path().join("store/v1").join(part);
        let entries = std::fs::read_dir(dir).unwrap();
        entries
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    /// Nothing half done is left behind.
    fn assert_clean(&self) {
        assert_eq!(self.list("tmp"), [""; 0]);
    }

    /// As after a refusal: nothing is stored at all.
    fn assert_empty(&self) {
        self.assert_clean();
        for part in ["layers", "images", "refs"] {
            assert_eq!(self.list(part), [""; 0], "{part}");
        }
    }
}

/// Options whose waits are short enough for a test.
fn quick() -> PullOptions {
    PullOptions {
        timeouts: Timeouts {
            connect: Duration::from_secs(5),
            response: Duration::from_secs(5),
            stall: Duration::from_millis(700),
            document: Duration::from_secs(5),
        },
        retry: RetryPolicy {
            attempts: 4,
            base: Duration::from_millis(10),
            max: Duration::from_millis(40),
            max_retry_after: Duration::from_secs(3),
        },
        ..PullOptions::default()
    }
}

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

/// Remembers what it was told.
#[derive(Default)]
struct Recorder {
    events: Mutex<Vec<(Digest, LayerEvent)>>,
    retries: Mutex<Vec<(String, Duration)>>,
    notes: Mutex<Vec<String>>,
}

impl Progress for Recorder {
    fn layer(&self, layer: &Digest, event: LayerEvent) {
        self.events.lock().unwrap().push((layer.clone(), event));
    }

    fn retry(&self, retry: &Retry<'_>) {
        let mut retries = self.retries.lock().unwrap();
        retries.push((retry.why.to_owned(), retry.wait));
    }

    fn note(&self, message: &str) {
        self.notes.lock().unwrap().push(message.to_owned());
    }
}

impl Recorder {
    fn count(&self, wanted: LayerEvent) -> usize {
        let events = self.events.lock().unwrap();
        events.iter().filter(|(_, event)| *event == wanted).count()
    }
}

/// Whether the programs a test needs are installed. If not, the test says so
/// and passes, except where everything must run.
fn have(programs: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    for program in programs {
        if std::env::split_paths(&path).any(|dir| dir.join(program).is_file()) {
            continue;
        }
        let why = format!("skipped: {program} is not installed");
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{why}");
        let _ = writeln!(std::io::stderr(), "{why}");
        return false;
    }
    true
}
