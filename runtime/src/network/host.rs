//! What a pod must know of the host's network before it leaves it.
//!
//! Runs in the supervisor while it still is in the host's network namespace.

use std::io::{self, Read};
use std::net::IpAddr;

use super::resolv::Resolv;

/// Largest resolv.conf that is read, in bytes.
const MOST: u64 = 64 << 10;

/// What it has.
#[derive(Clone, Debug, Default)]
pub struct HostNetwork {
    /// Its addresses on all devices.
    pub own: Vec<IpAddr>,
    /// Who answers for names.
    pub resolv: Resolv,
}

impl HostNetwork {
    /// Looks.
    ///
    /// # Errors
    ///
    /// When the addresses cannot be listed: they could not be closed.
    pub fn look() -> io::Result<Self> {
        let own: Vec<IpAddr> = nix::ifaddrs::getifaddrs()?
            .filter_map(|device| {
                let address = device.address?;
                let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
                v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
            })
            .collect();
        let mut text = Vec::new();
        if let Ok(file) = std::fs::File::open("/etc/resolv.conf") {
            let _ = file.take(MOST).read_to_end(&mut text);
        }
        let resolv = Resolv::for_pod(&String::from_utf8_lossy(&text), &own);
        Ok(Self { own, resolv })
    }
}
