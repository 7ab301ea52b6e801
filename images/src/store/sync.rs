//! Getting what was written onto the disk, once for all who ask at the same time.
//!
//! A file system is synced as a whole, so that several layers which are complete at about the same
//! time need not each wait for a round of their own.

use std::io;
use std::os::fd::AsFd;
use std::sync::{Condvar, Mutex, PoisonError};

/// Rounds of `syncfs` on the store's file system.
#[derive(Debug, Default)]
pub(crate) struct Syncs {
    rounds: Mutex<Rounds>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct Rounds {
    running: bool,
    /// The number of the last round that began, and of the last that succeeded.
    begun: u64,
    done: u64,
}

impl Syncs {
    /// Returns once everything that was written before this call is on the disk. `there` is
    /// anything on the file system.
    pub(crate) fn sync(&self, there: impl AsFd) -> io::Result<()> {
        self.round(|| Ok(rustix::fs::syncfs(&there)?))
    }

    /// A round that is running may have begun too early for us; the next one has not.
    fn round(&self, sync: impl Fn() -> io::Result<()>) -> io::Result<()> {
        let lock = || self.rounds.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rounds = lock();
        let wanted = rounds.begun + 1;
        while rounds.done < wanted {
            if rounds.running {
                let woken = self.ended.wait(rounds);
                rounds = woken.unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            rounds.running = true;
            rounds.begun += 1;
            let mine = rounds.begun;
            drop(rounds);
            let synced = sync();
            rounds = lock();
            rounds.running = false;
            if synced.is_ok() {
                rounds.done = rounds.done.max(mine);
            }
            self.ended.notify_all();
            // Whoever waited for a round that failed has one of their own, and hears of it there.
            synced?;
        }
        Ok(())
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
            syncs.round(round).unwrap();
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
    fn a_failure_is_its_own_only() {
        let syncs = Syncs::default();
        let fail = || Err(io::Error::from(io::ErrorKind::StorageFull));
        assert!(syncs.round(fail).is_err());
        assert!(syncs.round(|| Ok(())).is_ok());
        assert!(syncs.round(fail).is_err());
    }
}
