//! What a layer may take of memory besides its fixed buffers.
//!
//! How much must be remembered of a layer (directories, links), and how large a zstd window is, is
//! up to whoever made it. Most need little, so layers that are unpacked at the same time share a
//! small pool; beyond it one of them at a time may have as much as its limit allows. Whoever needs
//! that waits for the turn, and whose turn it is waits for nobody, so that there is always an end.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// What the pool has.
const POOL: usize = 8 << 20;
/// What is taken of the pool at once.
const STEP: usize = 64 << 10;

/// The memory of one process's store. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Memory(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    free: Mutex<Free>,
    freed: Condvar,
}

#[derive(Debug)]
struct Free {
    pool: usize,
    turn: bool,
}

impl Default for Memory {
    fn default() -> Memory {
        let free = Free {
            pool: POOL,
            turn: true,
        };
        Memory(Arc::new(Shared {
            free: Mutex::new(free),
            freed: Condvar::new(),
        }))
    }
}

/// A layer's part. Clones are the same; the last of them gives it back.
#[derive(Clone, Debug)]
pub(crate) struct Share(Arc<Part>);

#[derive(Debug)]
struct Part {
    memory: Memory,
    limit: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    used: usize,
    /// What of the pool is this part's.
    pool: usize,
    turn: bool,
}

/// More than the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {limit} bytes of memory are needed")]
pub(crate) struct Exceeded {
    pub(crate) limit: usize,
}

impl Exceeded {
    /// What an error of reading or writing wraps, if it is this.
    pub(crate) fn within(error: &io::Error) -> Option<Exceeded> {
        error.get_ref()?.downcast_ref().copied()
    }
}

impl Memory {
    /// A part that may grow up to `limit` bytes.
    pub(crate) fn share(&self, limit: usize) -> Share {
        Share(Arc::new(Part {
            memory: self.clone(),
            limit,
            taken: Mutex::default(),
        }))
    }
}

impl Share {
    /// Takes some more, and waits for the turn if it must.
    pub(crate) fn take(&self, bytes: usize) -> Result<(), Exceeded> {
        let Part { memory, limit, .. } = &*self.0;
        let mut taken = locked(&self.0.taken);
        let used = taken.used.saturating_add(bytes);
        if used > *limit {
            return Err(Exceeded { limit: *limit });
        }
        if !taken.turn && used > taken.pool {
            let step = (used - taken.pool).next_multiple_of(STEP);
            let free = locked(&memory.0.free);
            let freed = &memory.0.freed;
            let mut free = freed
                .wait_while(free, |free| free.pool < step && !free.turn)
                .unwrap_or_else(PoisonError::into_inner);
            if free.pool >= step {
                free.pool -= step;
                taken.pool += step;
            } else {
                // The turn covers all of it.
                free.turn = false;
                taken.turn = true;
                free.pool += std::mem::take(&mut taken.pool);
                freed.notify_all();
            }
        }
        taken.used = used;
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let taken = self.taken.get_mut();
        let taken = taken.unwrap_or_else(PoisonError::into_inner);
        let mut free = locked(&self.memory.0.free);
        free.pool += taken.pool;
        free.turn |= taken.turn;
        self.memory.0.freed.notify_all();
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is guarded here is whole at every moment.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const LIMIT: usize = 40 << 20;

    #[test]
    fn no_more_than_the_limit() {
        let share = Memory::default().share(1000);
        share.take(600).unwrap();
        assert_eq!(share.take(401), Err(Exceeded { limit: 1000 }));
        share.take(400).unwrap();
        assert!(share.take(usize::MAX).is_err());
    }

    #[test]
    fn everything_comes_back() {
        let memory = Memory::default();
        for _ in 0..3 {
            let (small, large) = (memory.share(LIMIT), memory.share(LIMIT));
            small.take(POOL / 2).unwrap();
            large.take(POOL / 4).unwrap();
            large.take(POOL).unwrap();
            assert_eq!(locked(&memory.0.free).pool, POOL / 2);
            drop((small, large));
            let free = locked(&memory.0.free);
            assert!(free.pool == POOL && free.turn);
        }
    }

    #[test]
    fn many_large_ones_take_turns() {
        let memory = Memory::default();
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        let share = memory.share(LIMIT);
                        let mut mine = 0;
                        while mine < LIMIT {
                            share.take(LIMIT / 64).unwrap();
                            mine += LIMIT / 64;
                            let all = now.fetch_add(LIMIT / 64, Ordering::SeqCst);
                            most.fetch_max(all + LIMIT / 64, Ordering::SeqCst);
                        }
                        now.fetch_sub(mine, Ordering::SeqCst);
                    }
                });
            }
        });
        let most = most.into_inner();
        assert!(most <= POOL + LIMIT, "{most}");
        assert!(most >= LIMIT, "{most}");
    }
}
