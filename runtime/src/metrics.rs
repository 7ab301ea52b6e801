//! What is counted of a user's pods and sessions, for Prometheus.
//!
//! There is no process that could keep the numbers: they are in a file of fixed
//! size, `RUN/.metrics`, which every session maps and adds to by one atomic
//! operation a number. So nobody waits for anybody, and a process that is killed
//! at any moment leaves whole numbers. Run directories are in memory; a reboot
//! starts at 0 again, which Prometheus takes for what it is.
//!
//! The file has its final size and blocks before it gets its name: writing to it
//! never needs space. One that is not like that is not used, and then nothing is
//! counted: numbers never cost a login.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::pod::RunDir;
use crate::sys::Cells;

/// In the run directory; no pod can have this name.
const NAME: &str = ".metrics";

/// First number of the file: says what the others are.
const MAGIC: u64 = u64::from_le_bytes(*b"pdspawn1");

/// Size of the file, in bytes; what is not used yet is 0.
const SIZE: u64 = 4096;

/// Upper bounds of the buckets, in microseconds; one more is without bound.
pub const BOUNDS: [u64; 15] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000, 30_000_000,
];

const BUCKETS: usize = BOUNDS.len() + 1;

/// Something that is counted. Its place in the file is its number: add at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Sessions that ran, however they ended.
    Sessions = 1,
    /// Pods that could not be created.
    CreateFailures = 2,
    /// Pods that are up and could not be joined.
    JoinFailures = 3,
    /// Images that could not be had on the way to a session.
    ImageFailures = 4,
}

/// How long something took. The counts of the buckets are in a row from `at`,
/// then the sum in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Latency {
    /// Creating a pod, from the decision to the answer; without a pull.
    Create,
    /// Joining a pod that is up, from the look for it to the answer.
    Join,
}

impl Latency {
    const fn at(self) -> usize {
        match self {
            Self::Create => 64,
            Self::Join => 96,
        }
    }
}

/// The numbers of one user, to be added to.
#[derive(Debug)]
pub struct Metrics(Option<Cells>);

/// How long something took, as counted so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// How many were in each bucket, the last one without bound.
    pub buckets: [u64; BUCKETS],
    /// Microseconds of all together.
    pub sum: u64,
}

impl Metrics {
    /// Opens the numbers of the user whose run directory it is.
    #[must_use]
    pub fn open(run: &RunDir) -> Self {
        Self(open(run.path()).ok())
    }

    /// Adds one.
    pub fn count(&self, what: Counter) {
        self.add(what as usize, 1);
    }

    /// Adds one that took so long.
    pub fn observe(&self, what: Latency, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.add(what.at() + bucket(us), 1);
        self.add(what.at() + BUCKETS, us);
    }

    /// What was counted.
    #[must_use]
    pub fn get(&self, what: Counter) -> u64 {
        self.read(what as usize)
    }

    /// How long it took.
    #[must_use]
    pub fn histogram(&self, what: Latency) -> Histogram {
        Histogram {
            buckets: std::array::from_fn(|n| self.read(what.at() + n)),
            sum: self.read(what.at() + BUCKETS),
        }
    }

    fn add(&self, place: usize, amount: u64) {
        if let Some(cell) = self.0.as_ref().and_then(|cells| cells.get(place)) {
            cell.fetch_add(amount, Relaxed);
        }
    }

    fn read(&self, place: usize) -> u64 {
        let cell = self.0.as_ref().and_then(|cells| cells.get(place));
        cell.map_or(0, |cell| cell.load(Relaxed))
    }
}

fn bucket(us: u64) -> usize {
    BOUNDS
        .iter()
        .position(|bound| us <= *bound)
        .unwrap_or(BOUNDS.len())
}

fn open(run: &Path) -> io::Result<Cells> {
    let path = run.join(NAME);
    let fd = match existing(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            create(run, &path)?;
            existing(&path)?
        }
        found => found?,
    };
    let file = File::from(fd);
    let found = file.metadata()?;
    // A hole would want space when it is written to.
    if !found.is_file() || found.size() < SIZE || found.blocks() * 512 < SIZE {
        return Err(io::Error::other("not a file of numbers"));
    }
    let cells = Cells::map(&file, SIZE as usize / size_of::<u64>())?;
    if cells.get(0).map(|magic| magic.load(Relaxed)) != Some(MAGIC) {
        return Err(io::Error::other("the numbers of another version"));
    }
    Ok(cells)
}

fn existing(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(openat(CWD, path, flags, Mode::empty())?)
}

/// Of several that come at once, one's file gets the name.
fn create(run: &Path, path: &Path) -> io::Result<()> {
    // A file of this call's own: what has got the name must not be written anew.
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let call = CALLS.fetch_add(1, Relaxed);
    let new = run.join(format!("{NAME}.{}.{call}", std::process::id()));
    // Of a process of the same id that was killed.
    let _ = std::fs::remove_file(&new);
    let mut options = File::options();
    options.write(true).create_new(true).mode(0o600);
    let made = (|| {
        let mut file = options.open(&new)?;
        let mut bytes = [0; SIZE as usize];
        bytes[..8].copy_from_slice(&MAGIC.to_ne_bytes());
        file.write_all(&bytes)?;
        match std::fs::hard_link(&new, path) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
            _ => Ok(()),
        }
    })();
    let _ = std::fs::remove_file(&new);
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(dir: &Path) -> RunDir {
        RunDir::of_user(Some(dir), rustix::process::getuid().as_raw()).unwrap()
    }

    #[test]
    fn what_several_count_at_once_adds_up() {
        let dir = tempfile::tempdir().unwrap();
        let run = run(dir.path());
        std::thread::scope(|scope| {
            for n in 0..8u64 {
                let run = &run;
                scope.spawn(move || {
                    let metrics = Metrics::open(run);
                    for _ in 0..1000 {
                        metrics.count(Counter::Sessions);
                        metrics.observe(Latency::Join, Duration::from_micros(n * 100));
                    }
                });
            }
        });
        let metrics = Metrics::open(&run);
        assert_eq!(metrics.get(Counter::Sessions), 8000);
        assert_eq!(metrics.get(Counter::CreateFailures), 0);
        let join = metrics.histogram(Latency::Join);
        assert_eq!(join.buckets[..3], [6000, 2000, 0]);
        assert_eq!(join.sum, 2_800_000);
        assert_eq!(metrics.histogram(Latency::Create), Histogram::default());
        let left = std::fs::read_dir(run.path()).unwrap().count();
        assert_eq!(left, 1, "files of the makers stayed");
    }

    #[test]
    fn a_file_that_could_kill_or_mislead_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let run = run(dir.path());
        let path = run.path().join(NAME);
        let other: &[u8] = &[7; SIZE as usize];
        for bytes in [&b""[..], b"short", other] {
            std::fs::write(&path, bytes).unwrap();
            let metrics = Metrics::open(&run);
            metrics.count(Counter::Sessions);
            assert_eq!(metrics.get(Counter::Sessions), 0);
        }
        // A hole.
        File::create(&path).unwrap().set_len(SIZE).unwrap();
        assert!(Metrics::open(&run).0.is_none());
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        assert!(Metrics::open(&run).0.is_none());
    }

    #[test]
    fn every_place_is_a_number_of_its_own() {
        let end = |latency: Latency| latency.at() + BUCKETS + 1;
        assert!((Counter::ImageFailures as usize) < Latency::Create.at());
        assert!(end(Latency::Create) <= Latency::Join.at());
        assert!(end(Latency::Join) * 8 <= SIZE as usize);
        assert_eq!(
            [0, 500, 501, 30_000_000, u64::MAX].map(bucket),
            [0, 0, 1, 14, 15]
        );
    }
}
