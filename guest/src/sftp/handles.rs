//! The handles that a client holds. Runs in `sftp-server`.
//!
//! A handle is a slot and a number that no other handle of this process ever had,
//! so that one that was closed, or never given, is not taken for another's. Their
//! number is bounded by the descriptors that the process may open.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::Dir;
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

/// Descriptors that are kept for standard streams and for short-lived use.
const RESERVED: u64 = 8;
/// More than any client opens at once.
const MAX_HANDLES: u64 = 65_536;

/// What a handle stands for.
pub enum Open {
    /// An open file.
    File(OwnedFd),
    /// A directory being listed.
    Dir(Dir),
}

impl Open {
    /// The descriptor behind it.
    pub fn fd(&self) -> Result<BorrowedFd<'_>, Errno> {
        match self {
            Open::File(fd) => Ok(fd.as_fd()),
            Open::Dir(dir) => dir.fd(),
        }
    }
}

/// All open handles.
pub struct Handles {
    slots: Vec<Option<(u32, Open)>>,
    free: Vec<u32>,
    serial: u32,
    max: u64,
}

impl Handles {
    /// An empty table, with its bound taken from `RLIMIT_NOFILE`.
    pub fn new() -> Self {
        let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let max = descriptors.saturating_sub(RESERVED).min(MAX_HANDLES);
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            serial: 0,
            max,
        }
    }

    /// How many handles there can be at once.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// Whether one more handle can be given.
    pub fn has_room(&self) -> bool {
        !self.free.is_empty() || (self.slots.len() as u64) < self.max
    }

    /// Gives out a handle.
    ///
    /// # Errors
    /// `MFILE` if there are too many; `open` is closed then.
    pub fn insert(&mut self, open: Open) -> Result<[u8; 8], Errno> {
        if !self.has_room() {
            return Err(Errno::MFILE);
        }
        self.serial = self.serial.wrapping_add(1);
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            (self.slots.len() - 1) as u32
        });
        self.slots[slot as usize] = Some((self.serial, open));
        let mut handle = [0; 8];
        handle[..4].copy_from_slice(&slot.to_be_bytes());
        handle[4..].copy_from_slice(&self.serial.to_be_bytes());
        Ok(handle)
    }

    fn slot(&self, handle: &[u8]) -> Option<usize> {
        let (slot, serial) = handle.split_first_chunk::<4>()?;
        let slot = u32::from_be_bytes(*slot) as usize;
        let serial = u32::from_be_bytes(serial.try_into().ok()?);
        let (held, _) = self.slots.get(slot)?.as_ref()?;
        (*held == serial).then_some(slot)
    }

    /// What `handle` stands for, if it is open.
    pub fn get(&self, handle: &[u8]) -> Option<&Open> {
        let slot = self.slot(handle)?;
        self.slots[slot].as_ref().map(|(_, open)| open)
    }

    /// As [`Handles::get`], to change its position.
    pub fn get_mut(&mut self, handle: &[u8]) -> Option<&mut Open> {
        let slot = self.slot(handle)?;
        self.slots[slot].as_mut().map(|(_, open)| open)
    }

    /// Takes a handle back, if it is open.
    pub fn remove(&mut self, handle: &[u8]) -> Option<Open> {
        let slot = self.slot(handle)?;
        self.free.push(slot as u32);
        self.slots[slot].take().map(|(_, open)| open)
    }
}

impl Default for Handles {
    fn default() -> Self {
        Self::new()
    }
}
