//! Every unsafe block of the module, and the functions that Linux-PAM calls.
//!
//! No decision is taken here.

#![allow(unsafe_code)]

mod entry;
mod kernel;
mod launch;
mod pam;

pub use kernel::{exit, make_nosuid, namespace_owner, namespace_type, unshare};
pub use launch::{Launch, Process};
pub use pam::Pam;
