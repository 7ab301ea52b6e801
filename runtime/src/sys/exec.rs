//! Replacing the program, and what must not survive it.

use std::ffi::{CStr, CString, c_char};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Runs `path` in place of this process; returns only on failure.
#[must_use]
pub fn exec(path: &CStr, args: &[CString], env: &[CString]) -> io::Error {
    fn pointers(strings: &[CString]) -> Vec<*const c_char> {
        strings
            .iter()
            .map(|s| s.as_ptr())
            .chain([std::ptr::null()])
            .collect()
    }
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: both arrays end in a null pointer and outlive the call.
    unsafe { libc::execve(path.as_ptr(), args.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Closes every descriptor from `first` on.
///
/// The caller owns no `OwnedFd` with such a number that it still uses.
pub fn close_from(first: RawFd) {
    // SAFETY: descriptors are plain numbers to the kernel; the contract above
    // keeps the program from using a closed one.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0) };
    if done == 0 {
        return;
    }
    // Linux before 5.9 has no close_range.
    // SAFETY: as above.
    let limit = unsafe { libc::sysconf(libc::_SC_OPEN_MAX) }.clamp(256, 1 << 20) as RawFd;
    for fd in first..limit {
        // SAFETY: as above.
        unsafe { libc::close(fd) };
    }
}

/// Takes over a descriptor that the process was started with, under a new number
/// that no program inherits.
///
/// The caller owns no `OwnedFd` of that number.
///
/// # Errors
///
/// When there is none.
pub fn take_inherited(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl has no memory effects with this command.
    let new = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) };
    if new < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the contract above: nobody else uses the old number.
    unsafe { libc::close(fd) };
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(new) })
}

/// Closes every descriptor but the standard streams and `kept`.
///
/// The caller uses no other descriptor that it owns any more, nor drops it.
pub fn close_all_but(kept: &[BorrowedFd<'_>]) {
    let mut kept: Vec<RawFd> = kept.iter().map(AsRawFd::as_raw_fd).collect();
    kept.sort_unstable();
    let mut first: RawFd = 3;
    for fd in kept {
        if fd > first {
            close_between(first, fd - 1);
        }
        first = first.max(fd + 1);
    }
    close_from(first);
}

fn close_between(first: RawFd, last: RawFd) {
    // SAFETY: as in `close_from`.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if done != 0 {
        for fd in first..=last {
            // SAFETY: as in `close_from`.
            unsafe { libc::close(fd) };
        }
    }
}

/// Ends this process at once: a forked copy must not run what its parent
/// registered for exit.
pub fn exit(status: i32) -> ! {
    // SAFETY: no destructor or handler of this process is needed.
    unsafe { libc::_exit(status) }
}
