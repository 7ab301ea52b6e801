//! Every unsafe block and raw system call of the crate.
//!
//! Used by all of podspawn's processes. Each function is a thin, typed cover of
//! one call that neither the standard library nor a maintained crate offers in
//! safe form; no decision is taken here. What the rest of the crate needs from
//! the kernel otherwise comes from `rustix` and `nix`.

#![allow(unsafe_code)]

mod cells;
mod clone;
mod exec;
mod filter;
mod lo;
mod ns;
mod signals;
mod tap;

pub use cells::Cells;
pub use clone::{
    Cloned, Forked, NamespaceFlags, clone_into, fork, unshare_cgroup, unshare_mounts,
    unshare_network, unshare_user,
};
pub use exec::{close_all_but, close_from, exec, exit, take_inherited};
pub use filter::install_filter;
pub use lo::bring_up_loopback;
pub use ns::namespace_user;
pub use signals::{Signals, block, kill_all, reraise, reset};
pub use tap::make_tap;
