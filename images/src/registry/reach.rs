//! Which addresses a registry may send us to.
//!
//! A registry answers with redirects and with the address of a token server.
//! Unchecked, that makes the user's machine ask its own loopback services or
//! the metadata server of its cloud. The registry itself may be anywhere: the
//! user named it. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The kinds of addresses that may be connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Reach {
    private: bool,
    link_local: bool,
    loopback: bool,
}

impl Reach {
    /// Anything: for the hosts that the user or the administrator named.
    pub const ANYWHERE: Reach = Reach {
        private: true,
        link_local: true,
        loopback: true,
    };

    /// What a registry that was reached at `address` may refer to: public
    /// addresses, and its own kind. One on loopback is the user's own and may
    /// refer to their network too.
    pub fn from(address: Option<IpAddr>) -> Reach {
        let kind = address.map(Kind::of);
        Reach {
            private: matches!(kind, Some(Kind::Private | Kind::Loopback)),
            link_local: kind == Some(Kind::LinkLocal),
            loopback: kind == Some(Kind::Loopback),
        }
    }

    /// Whether `address` may be connected to.
    pub fn allows(self, address: IpAddr) -> bool {
        match Kind::of(address) {
            Kind::Public => true,
            Kind::Private => self.private,
            Kind::LinkLocal => self.link_local,
            Kind::Loopback => self.loopback,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Public,
    Private,
    LinkLocal,
    Loopback,
}

impl Kind {
    fn of(address: IpAddr) -> Kind {
        match address {
            IpAddr::V4(v4) => Kind::of_v4(v4),
            IpAddr::V6(v6) => match embedded_v4(v6) {
                Some(v4) => Kind::of_v4(v4),
                None if v6.is_loopback() || v6.is_unspecified() => Kind::Loopback,
                None if v6.is_unicast_link_local() => Kind::LinkLocal,
                // Unique local, the old site-local, multicast.
                None if v6.is_unique_local() || v6.segments()[0] & 0xffc0 == 0xfec0 => {
                    Kind::Private
                }
                None if v6.is_multicast() => Kind::LinkLocal,
                None => Kind::Public,
            },
        }
    }

    fn of_v4(v4: Ipv4Addr) -> Kind {
        let [a, b, ..] = v4.octets();
        // 0.0.0.0/8 reaches this machine on Linux.
        if v4.is_loopback() || a == 0 {
            Kind::Loopback
        } else if v4.is_link_local() || v4.is_multicast() || v4.is_broadcast() {
            Kind::LinkLocal
        } else if v4.is_private() || (a == 100 && b & 0xc0 == 64) || (a == 198 && b & 0xfe == 18) {
            Kind::Private
        } else {
            Kind::Public
        }
    }
}

/// The IPv4 address that an IPv6 one is only another spelling of: mapped,
/// translated (64:ff9b::/96) or 6to4.
fn embedded_v4(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let s = v6.segments();
    let low = || Ipv4Addr::from((u32::from(s[6]) << 16) | u32::from(s[7]));
    match s {
        [0, 0, 0, 0, 0, 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => Some(low()),
        [0x2002, a, b, ..] => Some(Ipv4Addr::from((u32::from(a) << 16) | u32::from(b))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(from: &str) -> Reach {
        Reach::from(Some(from.parse().unwrap()))
    }

    #[test]
    fn a_public_registry_reaches_only_public_addresses() {
        let reach = reach("93.184.216.34");
        for inside in [
            "127.0.0.1",
            "127.8.8.8",
            "0.0.0.0",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "fec0::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
        ] {
            assert!(!reach.allows(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["1.1.1.1", "2606:4700::1111", "::ffff:1.1.1.1"] {
            assert!(reach.allows(outside.parse().unwrap()), "{outside}");
        }
        assert_eq!(Reach::from(None), reach);
    }

    #[test]
    fn others_reach_their_own_kind() {
        let private = reach("10.0.0.1");
        assert!(private.allows("192.168.0.1".parse().unwrap()));
        assert!(!private.allows("127.0.0.1".parse().unwrap()));
        assert!(!private.allows("169.254.169.254".parse().unwrap()));
        let loopback = reach("::1");
        assert!(loopback.allows("127.0.0.1".parse().unwrap()));
        assert!(loopback.allows("10.0.0.1".parse().unwrap()));
        assert!(!loopback.allows("169.254.169.254".parse().unwrap()));
        assert!(reach("169.254.1.1").allows("169.254.1.2".parse().unwrap()));
    }
}
