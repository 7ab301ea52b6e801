//! The functions that Linux-PAM calls, each behind a barrier that no panic passes.

use std::ffi::{CStr, c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use super::kernel::exit;
use super::pam::{Pam, RawHandle};
use crate::hooks::{self, Verdict};
use crate::options::Options;

// security/_pam_types.h.
const SUCCESS: c_int = 0;
const SERVICE_ERR: c_int = 3;
const SESSION_ERR: c_int = 14;
const CRED_ERR: c_int = 17;
const IGNORE: c_int = 25;
const DELETE_CRED: c_int = 4;

/// The process that called first: sshd's monitor.
static MONITOR: AtomicU32 = AtomicU32::new(0);

/// Calls `hook`. `None`: it panicked, or there is no handle.
///
/// # Safety
///
/// The arguments are those of a call by Linux-PAM.
unsafe fn call(
    handle: *mut RawHandle,
    count: c_int,
    arguments: *const *const c_char,
    hook: impl FnOnce(&mut Pam<'_>, &Options) -> Verdict,
) -> Option<Verdict> {
    static QUIET: Once = Once::new();
    let work = AssertUnwindSafe(|| {
        // sshd's standard error is not ours to write to.
        QUIET.call_once(|| std::panic::set_hook(Box::new(|_| {})));
        let count = usize::try_from(count).unwrap_or(0);
        let arguments: Vec<String> = (0..count)
            .map(|n| {
                // SAFETY: there are `count` strings, each ending in NUL.
                let argument = unsafe { CStr::from_ptr(*arguments.add(n)) };
                argument.to_string_lossy().into_owned()
            })
            .collect();
        let options = Options::read(arguments.iter().map(String::as_str));
        // SAFETY: the handle of this call.
        let mut pam = unsafe { Pam::new(handle) }?;
        Some(hook(&mut pam, &options))
    });
    catch_unwind(work).ok().flatten()
}

fn code(verdict: Option<Verdict>, refused: c_int) -> c_int {
    match verdict {
        Some(Verdict::Success) => SUCCESS,
        Some(Verdict::Ignore) => IGNORE,
        Some(Verdict::Refuse) => refused,
        None => SERVICE_ERR,
    }
}

/// Authenticates nobody.
#[unsafe(no_mangle)]
pub extern "C" fn pam_sm_authenticate(
    _handle: *mut RawHandle,
    _flags: c_int,
    _count: c_int,
    _arguments: *const *const c_char,
) -> c_int {
    IGNORE
}

/// Leaves the mark in the monitor, enters the pod's network in the child.
#[unsafe(no_mangle)]
pub extern "C" fn pam_sm_setcred(
    handle: *mut RawHandle,
    flags: c_int,
    count: c_int,
    arguments: *const *const c_char,
) -> c_int {
    if flags & DELETE_CRED != 0 {
        return IGNORE;
    }
    let own = std::process::id();
    let monitor = MONITOR
        .compare_exchange(0, own, Ordering::Relaxed, Ordering::Relaxed)
        .unwrap_or_else(|set| set);
    // SAFETY: called by Linux-PAM.
    let verdict = unsafe { call(handle, count, arguments, hooks::setcred) };
    if verdict.is_none() && monitor != 0 && monitor != own {
        // sshd would only log that, and go on in the host's network.
        exit();
    }
    code(verdict, CRED_ERR)
}

/// Sees that the pod is up.
#[unsafe(no_mangle)]
pub extern "C" fn pam_sm_open_session(
    handle: *mut RawHandle,
    _flags: c_int,
    count: c_int,
    arguments: *const *const c_char,
) -> c_int {
    // SAFETY: called by Linux-PAM.
    let verdict = unsafe { call(handle, count, arguments, hooks::open_session) };
    code(verdict, SESSION_ERR)
}

/// Nothing is left to do.
#[unsafe(no_mangle)]
pub extern "C" fn pam_sm_close_session(
    handle: *mut RawHandle,
    _flags: c_int,
    count: c_int,
    arguments: *const *const c_char,
) -> c_int {
    // SAFETY: called by Linux-PAM.
    let verdict = unsafe { call(handle, count, arguments, |pam, _| hooks::close_session(pam)) };
    code(verdict, SESSION_ERR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_panic_passes() {
        let handle = std::ptr::NonNull::<RawHandle>::dangling().as_ptr();
        let none = std::ptr::null();
        // SAFETY: the hook does not use the handle, and there are no arguments.
        let verdict = unsafe { call(handle, 0, none, |_, _| panic!("inside")) };
        assert_eq!(code(verdict, SESSION_ERR), SERVICE_ERR);
        // SAFETY: a null handle is refused.
        let verdict = unsafe { call(std::ptr::null_mut(), 0, none, |_, _| Verdict::Success) };
        assert_eq!(code(verdict, SESSION_ERR), SERVICE_ERR);
    }
}
