//! Numbers in a file that several processes count in at once.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

/// A shared mapping of a file as 64-bit numbers.
#[derive(Debug)]
pub struct Cells {
    first: NonNull<AtomicU64>,
    count: usize,
}

impl Cells {
    /// Maps the first `count` numbers of a file that is open for reading and
    /// writing and is known to be at least so long, all of it allocated.
    ///
    /// # Errors
    ///
    /// Those of `mmap(2)`.
    pub fn map(file: impl AsFd, count: usize) -> io::Result<Self> {
        let fd = file.as_fd().as_raw_fd();
        let bytes = count * size_of::<u64>();
        // SAFETY: a new mapping at a place that the kernel chooses; no memory of
        // this process is replaced.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd,
                0,
            )
        };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let first = NonNull::new(at.cast()).ok_or_else(|| io::Error::other("mapped at 0"))?;
        Ok(Self { first, count })
    }

    /// The number in place `n`, if there is such a place.
    #[must_use]
    pub fn get(&self, n: usize) -> Option<&AtomicU64> {
        if n >= self.count {
            return None;
        }
        // SAFETY: the place is inside of the mapping, which is page-aligned and
        // lives as long as `self`. All processes use it by atomic operations
        // alone, and every bit pattern is a number. A file that is cut short
        // meanwhile kills this process, and can do nothing else.
        Some(unsafe { self.first.add(n).as_ref() })
    }
}

impl Drop for Cells {
    fn drop(&mut self) {
        // SAFETY: the mapping made by `map`; the references that `get` handed out
        // do not outlive `self`.
        unsafe { libc::munmap(self.first.as_ptr().cast(), self.count * size_of::<u64>()) };
    }
}
