//! Closing what pasta would open: the host itself.
//!
//! pasta connects to whatever address a packet that leaves the pod names, from
//! the host. A program can make the kernel send packets for 127.0.0.1 out of the
//! tap, by binding its socket to that device, which needs no privilege since
//! Linux 5.7: pasta then reaches the *host's* loopback (datagrams arrive there
//! and connections are accepted, though answers are lost). And what the host has
//! beside the one address that the pod shares with it (a link-local address, a
//! second network) it would reach as if from the host's own loopback device,
//! which firewalls let through.
//!
//! So all of these are made local to the pod, on the tap: the kernel then never
//! sends them out. Runs in the supervisor, before pasta gets the tap.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::rtnl::{Route, Rtnl};
use super::{TAP, has_ipv6, rtnl};
use crate::sys;

/// Makes the tap anew, and closes `own`, the addresses of the host, on it.
///
/// # Errors
///
/// When the kernel refuses: then pasta must not have it.
pub fn sealed_tap(own: &[IpAddr]) -> io::Result<()> {
    let mut rtnl = Rtnl::open()?;
    if let Ok(old) = rtnl::index_of(TAP) {
        rtnl.remove(old)?;
    }
    sys::make_tap(TAP)?;
    let index = rtnl::index_of(TAP)?;
    let ipv6 = has_ipv6(TAP);
    if ipv6 {
        // Nobody else is on this link; looking for a second owner of an address
        // would hold up the first connection by a second or two. And pasta sets
        // addresses and routes itself: those that it would advertise come later,
        // in the middle of that connection.
        for setting in ["accept_dad", "dad_transmits", "accept_ra", "autoconf"] {
            std::fs::write(format!("/proc/sys/net/ipv6/conf/{TAP}/{setting}"), "0")?;
        }
    }
    rtnl.set_up(index)?;
    for (address, prefix) in closed(own) {
        if address.is_ipv6() && !ipv6 {
            continue;
        }
        rtnl.add_route(Route::Local { address, prefix }, index)?;
    }
    Ok(())
}

/// What is closed, each once.
fn closed(own: &[IpAddr]) -> Vec<(IpAddr, u8)> {
    let mut closed = vec![
        (IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8),
        (IpAddr::V6(Ipv6Addr::LOCALHOST), 128),
    ];
    for address in own.iter().filter(|a| !a.is_loopback()) {
        let prefix = if address.is_ipv4() { 32 } else { 128 };
        if !closed.contains(&(*address, prefix)) {
            closed.push((*address, prefix));
        }
    }
    closed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_closed_as_a_whole_and_every_address_once() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let own = [
            ip("127.0.0.1"),
            ip("::1"),
            ip("192.0.2.7"),
            ip("fe80::1"),
            ip("fe80::1"),
        ];
        let expected = [
            (ip("127.0.0.0"), 8),
            (ip("::1"), 128),
            (ip("192.0.2.7"), 32),
            (ip("fe80::1"), 128),
        ];
        assert_eq!(closed(&own), expected);
    }
}
