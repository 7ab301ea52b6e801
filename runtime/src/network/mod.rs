//! The pod's network: the way out, through pasta.
//!
//! ```text
//! host's netns                        pod's netns (the dev container's)
//!   keeper ──fork──▶ pasta ═══tap═══▶ eth0      the host's addresses and routes
//!     │ Up, Down                      lo
//!     └──────── supervisor: makes the tap, seals it, then says Go
//! ```
//!
//! A process in a new network namespace cannot go back, and pasta's sockets are
//! the host's. So the supervisor begins in the host's namespace, forks the
//! *keeper* ([`keeper`]) and then moves into a namespace of its own. Keeper and
//! pasta are in the pod's pid namespace: when the supervisor dies, so do they.
//!
//! What holds true:
//! - the host's loopback, the host behind the gateway's address, and every
//!   address that the host had when the pod began are closed ([`seal`]); the tap
//!   is sealed before pasta gets it, again whenever pasta is started anew;
//! - nobody waits for egress but a session that runs a command;
//! - egress that fails does not end the pod.

mod bridge;
mod egress;
mod host;
mod keeper;
mod resolv;
mod rtnl;
mod seal;

pub use bridge::{Bridge, MOST};
pub use egress::{Egress, EgressError, leave_host};

use std::path::PathBuf;

/// What a pod can reach (configuration key `network`).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Network {
    /// Its own loopback.
    #[default]
    None,
    /// What the host reaches, but not the host itself.
    Pasta {
        /// The program; `None` where the host has none: the pod is told so.
        program: Option<PathBuf>,
    },
}

/// The name of the way out, inside.
const TAP: &str = "eth0";

/// Whether a device of this network namespace has IPv6: the kernel may lack it.
fn has_ipv6(device: &str) -> bool {
    std::fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{device}/disable_ipv6"))
        .is_ok_and(|text| text.trim() == "0")
}
