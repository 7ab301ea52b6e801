//! Getting what was written onto the disk, once for all who ask at the same time.
//!
//! A file system is synced as a whole, so that several layers which are complete at about the same
//! time need not each wait for a round of their own.
//!
//! The kernel tells each open file once of a failure to write, whatever it was that could not be
//! written. So all rounds use one that was opened before anything was written, and what one round
//! is told counts for everybody who was writing then.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

/// Rounds of `syncfs` on the store's file system.
#[derive(Debug, Default)]
pub(crate) struct Syncs {
    there: OnceLock<OwnedFd>,
    rounds: Mutex<Rounds>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct Rounds {
    running: bool,
    /// The number of the last round that began, and of the last that ended.
    begun: u64,
    done: u64,
    /// How many failed, and what the last of them was told.
    failures: u64,
    why: Option<i32>,
}

impl Syncs {
    /// To be called before anything is written: how many rounds failed so far. `open` opens
    /// something on the file system.
    pub(crate) fn watch(&self, open: impl FnOnce() -> io::Result<OwnedFd>) -> io::Result<u64> {
        // Under the lock, so that nobody writes before it is opened.
        let rounds = self.rounds();
        if self.there.get().is_none() {
            let _ = self.there.set(open()?);
        }
        Ok(rounds.failures)
    }

    /// Returns once everything that was written before this call is on the disk; an error if
    /// anything could not be written since there were `failures`.
    pub(crate) fn sync(&self, failures: u64) -> io::Result<()> {
        self.round(failures, || match self.there.get() {
            Some(there) => Ok(rustix::fs::syncfs(there)?),
            None => Err(io::ErrorKind::NotFound.into()),
        })
    }

    fn rounds(&self) -> MutexGuard<'_, Rounds> {
        self.rounds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A round that is running may have begun too early for us; the next one has not.
    fn round(&self, failures: u64, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let mut rounds = self.rounds();
        let wanted = rounds.begun + 1;
        while rounds.running && rounds.done < wanted {
            let woken = self.ended.wait(rounds);
            rounds = woken.unwrap_or_else(PoisonError::into_inner);
        }
        if rounds.done < wanted {
            rounds.running = true;
            rounds.begun += 1;
            let mine = rounds.begun;
            drop(rounds);
            let synced = sync();
            rounds = self.rounds();
            rounds.running = false;
            rounds.done = mine;
            if let Err(error) = synced {
                rounds.failures += 1;
                rounds.why = error.raw_os_error();
            }
            self.ended.notify_all();
        }
        if rounds.failures == failures {
            return Ok(());
        }
        let why = rounds.why.map(io::Error::from_raw_os_error);
        Err(why.unwrap_or_else(|| io::Error::other("something could not be written")))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    #[test]
    fn nobody_returns_before_a_round_that_began_after_they_asked() {
        let (syncs, clock, rounds) = (Syncs::default(), AtomicUsize::new(0), AtomicUsize::new(0));
        // When the round that ended last began.
        let covered = AtomicUsize::new(0);
        let ask = || {
            let asked = clock.fetch_add(1, Ordering::SeqCst);
            let round = || {
                let began = clock.fetch_add(1, Ordering::SeqCst);
                rounds.fetch_add(1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(2));
                covered.fetch_max(began, Ordering::SeqCst);
                Ok(())
            };
            syncs.round(0, round).unwrap();
            assert!(covered.load(Ordering::SeqCst) > asked);
        };
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..10).for_each(|_| ask()));
            }
        });
        assert!(rounds.load(Ordering::SeqCst) <= 80);
    }

    #[test]
    fn a_failure_counts_for_whoever_was_writing() {
        let syncs = Syncs::default();
        let open = || Ok(std::fs::File::open("/")?.into());
        let before = syncs.watch(open).unwrap();
        let fail = || Err(io::Error::from_raw_os_error(28));
        // An early round, whose failure nobody looks at.
        let _ = syncs.round(before, fail);
        let error = syncs.round(before, || Ok(())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        let after = syncs.watch(open).unwrap();
        assert!(syncs.round(after, || Ok(())).is_ok());
        assert!(syncs.sync(after).is_ok());
        assert!(syncs.sync(before).is_err());
    }
}
