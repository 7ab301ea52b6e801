//! System calls that no crate offers in safe form.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::thread::{UnshareFlags, unshare_unsafe};

/// The kind of a namespace, as its `CLONE_NEW*` flag (`ioctl_ns(2)`).
pub fn namespace_type(fd: BorrowedFd<'_>) -> io::Result<i32> {
    // SAFETY: the request has no argument.
    checked(unsafe { libc::ioctl(fd.as_raw_fd(), libc::NS_GET_NSTYPE) })
}

/// The user, as this process numbers them, who made the user namespace that a
/// namespace belongs to.
pub fn namespace_owner(fd: BorrowedFd<'_>) -> io::Result<u32> {
    // SAFETY: the request has no argument.
    let user = checked(unsafe { libc::ioctl(fd.as_raw_fd(), libc::NS_GET_USERNS) })?;
    // SAFETY: a new descriptor that nobody else owns.
    let user = unsafe { OwnedFd::from_raw_fd(user) };
    let mut owner: libc::uid_t = 0;
    // SAFETY: the request writes one uid_t.
    checked(unsafe {
        libc::ioctl(
            user.as_raw_fd(),
            libc::NS_GET_OWNER_UID,
            std::ptr::from_mut(&mut owner),
        )
    })?;
    Ok(owner)
}

/// Makes every mount of this namespace nosuid (Linux 5.12).
pub fn make_nosuid() -> io::Result<()> {
    // SAFETY: an all-zero mount_attr changes nothing.
    let mut attr: libc::mount_attr = unsafe { std::mem::zeroed() };
    attr.attr_set = libc::MOUNT_ATTR_NOSUID;
    // SAFETY: the path ends in NUL and the size is that of the structure.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            c"/".as_ptr(),
            libc::AT_RECURSIVE,
            std::ptr::from_mut(&mut attr),
            std::mem::size_of::<libc::mount_attr>(),
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Leaves namespaces for new ones.
pub fn unshare(namespaces: UnshareFlags) -> io::Result<()> {
    // SAFETY: only CLONE_FILES and the like are unsound, which are not namespaces.
    Ok(unsafe { unshare_unsafe(namespaces) }?)
}

/// Ends this process at once. It is sshd's: nothing of it may run on.
pub fn exit() -> ! {
    // SAFETY: no destructor or handler of this process may run.
    unsafe { libc::_exit(255) }
}

pub(super) fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    match result {
        -1 => Err(io::Error::last_os_error()),
        value => Ok(value),
    }
}
