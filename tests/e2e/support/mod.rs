//! What the tests stand on: hosts, clients, terminals, processes.

pub mod agent;
pub mod canary;
pub mod carry;
pub mod client;
pub mod decoys;
pub mod host;
pub mod net;
pub mod process;
pub mod screen;
pub mod setup;
pub mod terminal;

use std::cell::RefCell;
use std::io::Write;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;

/// The tests of one topic, by name.
pub type Tests = Vec<(&'static str, Box<dyn FnOnce() + Send>)>;

/// Lists the tests of a module: `tests![one, two];` makes `all()`.
#[macro_export]
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        /// Every test of this topic.
        pub fn all() -> $crate::support::Tests {
            vec![$((stringify!($name), Box::new($name))),*]
        }
    };
}

thread_local! {
    static CURRENT: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Makes one test of the runner's; a panic is a failure.
pub fn trial(name: String, test: Box<dyn FnOnce() + Send>) -> Trial {
    let current = name.clone();
    Trial::test(name, move || {
        CURRENT.set(current);
        test();
        Ok(())
    })
}

/// Says why this test cannot run here. In CI that is a failure. Return after it.
pub fn skip(why: &str) {
    let name = CURRENT.with_borrow(Clone::clone);
    assert!(!setup::get().ci, "skipped in CI: {why}");
    say(&format!("skipped: {name}: {why}"));
}

/// One line on stderr.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Waits until `condition` holds, and panics with `what` when it does not within `limit`.
#[track_caller]
pub fn wait_for(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < end, "waited {limit:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Numbers that look random and are the same in every run.
pub struct Noise(u64);

impl Noise {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn fill(&mut self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            let bytes = self.next().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut buffer = vec![0; count];
        self.fill(&mut buffer);
        buffer
    }
}
