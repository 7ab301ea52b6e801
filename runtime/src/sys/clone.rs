//! Process creation: `clone3(2)` into namespaces, and `fork(2)`.
//!
//! Both are called only while the process has a single thread, which is what
//! makes it sound to go on running ordinary code in the child.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use rustix::process::Pid;

/// Namespaces that a new process is put into (`CLONE_NEW*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamespaceFlags(u64);

impl NamespaceFlags {
    /// What the supervisor of a pod begins with. A cgroup namespace follows when it is
    /// in its cgroup, which becomes the root of that; a network namespace when it has
    /// forked what stays in the host's (see [`unshare_network`]).
    pub const POD: Self = Self(
        (libc::CLONE_NEWUSER
            | libc::CLONE_NEWNS
            | libc::CLONE_NEWPID
            | libc::CLONE_NEWIPC
            | libc::CLONE_NEWUTS) as u64,
    );
}

/// Which side of [`clone_into`] this is.
#[derive(Debug)]
pub enum Cloned {
    /// The caller, with the new process' id in its own pid namespace.
    Parent {
        /// Id of the new process.
        pid: Pid,
        /// Stable handle of the new process.
        pidfd: OwnedFd,
    },
    /// The new process.
    Child,
}

/// Which side of [`fork`] this is.
#[derive(Debug)]
pub enum Forked {
    /// The caller.
    Parent(Pid),
    /// The new process.
    Child,
}

/// Creates a process in new namespaces.
///
/// # Errors
///
/// `ENOSPC` when a namespace limit (`/proc/sys/user/max_*_namespaces`) is
/// reached, `EPERM` when the host forbids user namespaces, and what
/// `clone(2)` lists.
pub fn clone_into(namespaces: NamespaceFlags) -> io::Result<Cloned> {
    let mut pidfd: RawFd = -1;
    // SAFETY: an all-zero clone_args is valid; the fields that matter follow.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = namespaces.0 | libc::CLONE_PIDFD as u64;
    args.pidfd = std::ptr::from_mut(&mut pidfd) as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    // SAFETY: without CLONE_VM and with no stack given this behaves like fork;
    // the process has one thread, so no lock can be held by another.
    let result = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            std::ptr::from_mut(&mut args),
            std::mem::size_of::<libc::clone_args>(),
        )
    };
    match result {
        0 => Ok(Cloned::Child),
        pid if pid > 0 => {
            let pid = Pid::from_raw(pid as i32).ok_or_else(io::Error::last_os_error)?;
            // SAFETY: the kernel stored a new descriptor that nobody else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Cloned::Parent { pid, pidfd })
        }
        _ => Err(io::Error::last_os_error()),
    }
}

/// Creates a copy of this process.
///
/// # Errors
///
/// Those of `fork(2)`.
pub fn fork() -> io::Result<Forked> {
    // SAFETY: the process has one thread, so the child may go on as it likes.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Forked::Child),
        pid => Pid::from_raw(pid)
            .map(Forked::Parent)
            .ok_or_else(io::Error::last_os_error),
    }
}

/// Moves this process into a new mount namespace.
///
/// # Errors
///
/// `EPERM` without the capability.
pub fn unshare_mounts() -> io::Result<()> {
    // SAFETY: no memory is shared anew.
    match unsafe { libc::unshare(libc::CLONE_NEWNS) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Moves this process into a new cgroup namespace, whose root is its cgroup.
///
/// # Errors
///
/// `EPERM` without the capability.
pub fn unshare_cgroup() -> io::Result<()> {
    // SAFETY: no memory is shared anew.
    match unsafe { libc::unshare(libc::CLONE_NEWCGROUP) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Moves this process into a new user namespace.
///
/// # Errors
///
/// `EPERM` or `ENOSPC` where the host forbids it, `EINVAL` with several threads.
pub fn unshare_user() -> io::Result<()> {
    // SAFETY: no memory is shared anew; the kernel refuses with several threads.
    match unsafe { libc::unshare(libc::CLONE_NEWUSER) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Moves this process into a new network namespace.
///
/// # Errors
///
/// `EPERM` without privilege in the user namespace, `ENOSPC` where a limit is
/// reached.
pub fn unshare_network() -> io::Result<()> {
    // SAFETY: no memory is shared anew.
    match unsafe { libc::unshare(libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
