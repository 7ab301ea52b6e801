//! A connection's PAM handle.

use std::any::Any;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;

/// `pam_handle_t`.
#[repr(C)]
pub struct RawHandle {
    _opaque: [u8; 0],
}

type Cleanup = extern "C" fn(*mut RawHandle, *mut c_void, c_int);

// security/_pam_types.h and security/pam_ext.h of Linux-PAM.
unsafe extern "C" {
    fn pam_get_user(
        handle: *mut RawHandle,
        user: *mut *const c_char,
        prompt: *const c_char,
    ) -> c_int;
    fn pam_set_data(
        handle: *mut RawHandle,
        name: *const c_char,
        data: *mut c_void,
        cleanup: Option<Cleanup>,
    ) -> c_int;
    fn pam_get_data(
        handle: *const RawHandle,
        name: *const c_char,
        data: *mut *const c_void,
    ) -> c_int;
    fn pam_getenv(handle: *mut RawHandle, name: *const c_char) -> *const c_char;
    fn pam_syslog(handle: *const RawHandle, priority: c_int, format: *const c_char, ...);
    fn pam_prompt(
        handle: *mut RawHandle,
        style: c_int,
        response: *mut *mut c_char,
        format: *const c_char,
        ...
    ) -> c_int;
}

const SUCCESS: c_int = 0;
const ERROR_MSG: c_int = 3;

/// Under which name the module keeps its state in the handle.
const STATE: &CStr = c"podspawn";

/// A handle, for the time of one call.
pub struct Pam<'a> {
    handle: NonNull<RawHandle>,
    _call: PhantomData<&'a mut RawHandle>,
}

impl Pam<'_> {
    /// # Safety
    ///
    /// `handle` is what Linux-PAM gave to a call that has not returned.
    pub(super) unsafe fn new(handle: *mut RawHandle) -> Option<Self> {
        Some(Self {
            handle: NonNull::new(handle)?,
            _call: PhantomData,
        })
    }

    /// The user who logs in; `None` if there is none, or not as text.
    pub fn user(&self) -> Option<String> {
        let mut user = std::ptr::null();
        // SAFETY: the handle is valid; the result belongs to it.
        let result = unsafe { pam_get_user(self.handle.as_ptr(), &mut user, std::ptr::null()) };
        if result != SUCCESS || user.is_null() {
            return None;
        }
        // SAFETY: a string that ends in NUL.
        let user = unsafe { CStr::from_ptr(user) };
        user.to_str().ok().map(str::to_owned)
    }

    /// A variable of the environment that PAM prepares for the session.
    pub fn env(&self, name: &CStr) -> Option<CString> {
        // SAFETY: the handle is valid; the result belongs to it.
        let value = unsafe { pam_getenv(self.handle.as_ptr(), name.as_ptr()) };
        if value.is_null() {
            return None;
        }
        // SAFETY: a string that ends in NUL.
        Some(unsafe { CStr::from_ptr(value) }.to_owned())
    }

    /// What an earlier call kept.
    pub fn state<T: Any>(&self) -> Option<&T> {
        let mut data = std::ptr::null();
        // SAFETY: the handle is valid.
        let result = unsafe { pam_get_data(self.handle.as_ptr(), STATE.as_ptr(), &mut data) };
        if result != SUCCESS || data.is_null() {
            return None;
        }
        // SAFETY: only `set_state` puts something under this name. It needs this
        // handle exclusively, so that it is not freed under the reference.
        let kept = unsafe { &*data.cast::<Box<dyn Any>>() };
        kept.downcast_ref()
    }

    /// Keeps something, in the place of what was there; false without memory.
    pub fn set_state<T: Any>(&mut self, state: T) -> bool {
        let kept: Box<Box<dyn Any>> = Box::new(Box::new(state));
        let data = Box::into_raw(kept).cast::<c_void>();
        // SAFETY: the handle is valid; `free` knows what is kept.
        let result =
            unsafe { pam_set_data(self.handle.as_ptr(), STATE.as_ptr(), data, Some(free)) };
        if result != SUCCESS {
            free(self.handle.as_ptr(), data, result);
        }
        result == SUCCESS
    }

    /// One line for the user.
    pub fn say(&mut self, line: &str) {
        let Ok(line) = CString::new(line) else { return };
        // SAFETY: the format takes one string; no answer is asked for.
        unsafe {
            pam_prompt(
                self.handle.as_ptr(),
                ERROR_MSG,
                std::ptr::null_mut(),
                c"%s".as_ptr(),
                line.as_ptr(),
            )
        };
    }

    /// One line for the administrator, in the log of authentications.
    pub fn log(&self, line: &str) {
        let Ok(line) = CString::new(line) else { return };
        // SAFETY: the format takes one string.
        unsafe {
            pam_syslog(
                self.handle.as_ptr(),
                libc::LOG_ERR,
                c"%s".as_ptr(),
                line.as_ptr(),
            );
        }
    }
}

extern "C" fn free(_handle: *mut RawHandle, data: *mut c_void, _status: c_int) {
    if data.is_null() {
        return;
    }
    // SAFETY: what `set_state` kept, given back once.
    let kept = unsafe { Box::from_raw(data.cast::<Box<dyn Any>>()) };
    let _ = catch_unwind(AssertUnwindSafe(|| drop(kept)));
}
