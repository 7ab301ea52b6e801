//! The filter of system calls that every program of a session runs under.
//!
//! [`compile`] runs in the supervisor, once a pod, while the launcher has the id
//! maps written: libseccomp takes more than a millisecond for it. [`load`] reads
//! what it made in each session, and [`crate::sys::install_filter`] puts it in
//! force in the session's child. What holds true: what is not listed fails, with
//! `EPERM` where it is known and `ENOSYS` where it is not; no new namespace can
//! be made, and nothing be mounted.

mod service;
mod syscalls;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use caps::Capability;
use libseccomp::error::SeccompError;
use libseccomp::{
    ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall,
};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fstat, memfd_create};

pub use service::of_service;
use syscalls::{ALLOWED, BY_CAPABILITY, NAMESPACES, PERSONALITIES, REFUSED, VSOCK, words};

/// Longest program that is loaded, in bytes: what the kernel takes at most
/// (`BPF_MAXINSNS` of eight bytes).
const LONGEST: usize = 4096 * 8;

/// Why there is no filter.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// libseccomp could not make it.
    #[error("cannot compile the filter of system calls")]
    Compile(#[from] SeccompError),
    /// It could not be kept in memory.
    #[error("cannot keep the filter of system calls")]
    Memory(#[from] io::Error),
}

/// Compiles the filter for programs that may have `capabilities`, into a sealed
/// memory file.
///
/// # Errors
///
/// When libseccomp fails, or memory is short.
pub fn compile(capabilities: &[Capability]) -> Result<OwnedFd, FilterError> {
    let errno = |number: i32| ScmpAction::Errno(number);
    let mut filter = ScmpFilterContext::new(errno(libc::ENOSYS))?;
    for arch in companions() {
        filter.add_arch(*arch)?;
    }
    // A tree instead of a list; libseccomp before 2.5 has none.
    let _ = filter.set_ctl_optimize(2);
    for name in words(ALLOWED) {
        add(&mut filter, ScmpAction::Allow, name, &[])?;
    }
    for name in words(REFUSED) {
        add(&mut filter, errno(libc::EPERM), name, &[])?;
    }
    for (capability, names) in BY_CAPABILITY {
        let has = capabilities.iter().any(|c| c.to_string() == *capability);
        let action = if has {
            ScmpAction::Allow
        } else {
            errno(libc::EPERM)
        };
        for name in words(names) {
            add(&mut filter, action, name, &[])?;
        }
    }
    for personality in PERSONALITIES {
        let same = ScmpArgCompare::new(0, ScmpCompareOp::Equal, personality);
        add(&mut filter, ScmpAction::Allow, "personality", &[same])?;
    }
    let flags = if cfg!(target_arch = "s390x") { 1 } else { 0 };
    let none = ScmpArgCompare::new(flags, ScmpCompareOp::MaskedEqual(NAMESPACES), 0);
    add(&mut filter, ScmpAction::Allow, "clone", &[none])?;
    for bit in (0..64).map(|n| 1 << n).filter(|bit| NAMESPACES & bit != 0) {
        let set = ScmpArgCompare::new(flags, ScmpCompareOp::MaskedEqual(bit), bit);
        add(&mut filter, errno(libc::EPERM), "clone", &[set])?;
    }
    // Its flags are in memory, where no filter can look: ENOSYS, and C libraries
    // fall back to clone.
    let other = ScmpArgCompare::new(0, ScmpCompareOp::NotEqual, VSOCK);
    add(&mut filter, ScmpAction::Allow, "socket", &[other])?;
    let vsock = ScmpArgCompare::new(0, ScmpCompareOp::Equal, VSOCK);
    add(&mut filter, errno(libc::EPERM), "socket", &[vsock])?;

    let file = memfd_create("seccomp", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
        .map_err(io::Error::from)?;
    filter.export_bpf(&file)?;
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    fcntl_add_seals(&file, seals).map_err(io::Error::from)?;
    Ok(file)
}

/// Other architectures that a processor of this one runs programs of.
fn companions() -> &'static [ScmpArch] {
    if cfg!(target_arch = "x86_64") {
        &[ScmpArch::X86]
    } else if cfg!(target_arch = "aarch64") {
        &[ScmpArch::Arm]
    } else {
        &[]
    }
}

fn add(
    filter: &mut ScmpFilterContext,
    action: ScmpAction,
    name: &str,
    when: &[ScmpArgCompare],
) -> Result<(), SeccompError> {
    // An older libseccomp does not know every name: then it fails with ENOSYS.
    let Ok(call) = ScmpSyscall::from_name(name) else {
        return Ok(());
    };
    filter.add_rule_conditional(action, call, when).map(drop)
}

/// Reads a compiled filter.
///
/// # Errors
///
/// When it cannot be read or is no filter.
pub fn load(file: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let wrong = || io::Error::other("the pod's filter of system calls is damaged");
    let length = usize::try_from(fstat(file)?.st_size).map_err(|_| wrong())?;
    if length == 0 || length > LONGEST || !length.is_multiple_of(8) {
        return Err(wrong());
    }
    let mut program = vec![0; length];
    let mut at = 0;
    while at < length {
        match rustix::io::pread(file.as_fd(), &mut program[at..], at as u64)? {
            0 => return Err(wrong()),
            n => at += n,
        }
    }
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::in_child;
    use crate::sys;

    /// What `call` fails with under the filter; 0 where it succeeds.
    fn under_filter(call: impl FnOnce() -> i32) -> i32 {
        let program = load(compile(&[]).unwrap().as_fd()).unwrap();
        let said = in_child(|| {
            rustix::thread::set_no_new_privs(true).map_err(|e| e.to_string())?;
            sys::install_filter(&program).map_err(|e| e.to_string())?;
            Err(call().to_string())
        });
        said.unwrap().unwrap_err().parse().unwrap()
    }

    fn errno_of<T>(result: rustix::io::Result<T>) -> i32 {
        result.map_or_else(|e| e.raw_os_error(), |_| 0)
    }

    #[test]
    fn it_is_small_and_whole_instructions() {
        let program = load(compile(&[]).unwrap().as_fd()).unwrap();
        assert!(program.len() < LONGEST / 2, "{}", program.len());
    }

    #[test]
    fn ordinary_calls_work() {
        assert_eq!(under_filter(|| errno_of(rustix::fs::stat("/"))), 0);
        let socket = || {
            errno_of(rustix::net::socket(
                rustix::net::AddressFamily::INET,
                rustix::net::SocketType::STREAM,
                None,
            ))
        };
        assert_eq!(under_filter(socket), 0);
    }

    #[test]
    fn namespaces_mounts_and_keyrings_are_refused() {
        let user = || match sys::unshare_user() {
            Ok(()) => 0,
            Err(e) => e.raw_os_error().unwrap_or(-1),
        };
        assert_eq!(under_filter(user), libc::EPERM);
        let mount = || {
            let flags = rustix::mount::MountFlags::empty();
            errno_of(rustix::mount::mount("none", "/tmp", "tmpfs", flags, None))
        };
        assert_eq!(under_filter(mount), libc::EPERM);
        let clone = || match sys::clone_into(sys::NamespaceFlags::POD) {
            Ok(sys::Cloned::Child) => sys::exit(0),
            Ok(sys::Cloned::Parent { .. }) => 0,
            Err(e) => e.raw_os_error().unwrap_or(-1),
        };
        // clone3.
        assert_eq!(under_filter(clone), libc::ENOSYS);
        let fork = || match sys::fork() {
            Ok(sys::Forked::Child) => sys::exit(0),
            Ok(sys::Forked::Parent(_)) => 0,
            Err(e) => e.raw_os_error().unwrap_or(-1),
        };
        assert_eq!(under_filter(fork), 0);
    }

    #[test]
    fn a_damaged_program_is_refused() {
        let file = memfd_create("x", MemfdFlags::CLOEXEC).unwrap();
        assert!(load(file.as_fd()).is_err());
        rustix::io::write(&file, b"1234567").unwrap();
        assert!(load(file.as_fd()).is_err());
    }
}
