//! Who answers for names, seen from inside. Pure.
//!
//! Name servers that other machines reach are the pod's too. One on the host
//! itself (a local stub resolver, on 127.0.0.53 say) is closed to the pod like
//! everything on the host; pasta then forwards questions, and nothing else, from
//! an address that is nobody's.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where pasta answers for the host's own name server.
const FORWARD_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
const FORWARD_V6: Ipv6Addr = Ipv6Addr::new(0xfd70, 0x6f64, 0, 0, 0, 0, 0, 0x53);

/// The most name servers that resolvers look at (`resolv.conf(5)`).
const SERVERS: usize = 3;

/// What a pod is told about names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolv {
    /// The pod's resolv.conf; `None` where the host has no name server.
    pub text: Option<String>,
    /// Where pasta answers for one on the host, as name server and as `--dns-forward`.
    pub forward: Option<IpAddr>,
}

impl Resolv {
    /// From the host's resolv.conf and the host's addresses.
    #[must_use]
    pub fn for_pod(host: &str, own: &[IpAddr]) -> Self {
        let mut servers = Vec::new();
        let mut others = String::new();
        for line in host.lines() {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => servers.extend(words.next().and_then(server)),
                Some(key @ ("search" | "options" | "domain" | "sortlist")) => {
                    let rest: Vec<_> = words.collect();
                    let _ = writeln!(others, "{key} {}", rest.join(" "));
                }
                _ => {}
            }
        }
        let local = |a: &IpAddr| a.is_loopback() || a.is_unspecified() || own.contains(a);
        let mut reached: Vec<IpAddr> = servers.iter().copied().filter(|s| !local(s)).collect();
        // pasta forwards to the first that it finds.
        let forward = match servers.first() {
            Some(first) if local(first) => Some(match first {
                IpAddr::V4(_) => IpAddr::V4(FORWARD_V4),
                IpAddr::V6(_) => IpAddr::V6(FORWARD_V6),
            }),
            _ => None,
        };
        if let Some(forward) = forward {
            reached.insert(0, forward);
        }
        if reached.is_empty() {
            return Self::default();
        }
        let mut text = String::new();
        for server in reached.iter().take(SERVERS) {
            let _ = writeln!(text, "nameserver {server}");
        }
        text.push_str(&others);
        Self {
            text: Some(text),
            forward,
        }
    }
}

/// The address of a name server. One with a zone means a device of the host's.
fn server(text: &str) -> Option<IpAddr> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(host: &str) -> (String, Option<String>) {
        let own = ["192.0.2.7".parse().unwrap()];
        let resolv = Resolv::for_pod(host, &own);
        (
            resolv.text.unwrap_or_default(),
            resolv.forward.map(|f| f.to_string()),
        )
    }

    #[test]
    fn servers_elsewhere_are_the_pods_too() {
        let host = "# made by hand\nnameserver 198.51.100.53\nnameserver 2001:db8::53\nsearch a.example b.example\noptions ndots:2 edns0\n";
        assert_eq!(
            pod(host),
            ("nameserver 198.51.100.53\nnameserver 2001:db8::53\nsearch a.example b.example\noptions ndots:2 edns0\n".into(), None)
        );
    }

    #[test]
    fn a_server_on_the_host_is_asked_through_pasta() {
        let forward = Some("169.254.1.1".to_owned());
        let expected = (
            "nameserver 169.254.1.1\noptions edns0\n".to_owned(),
            forward.clone(),
        );
        assert_eq!(pod("nameserver 127.0.0.53\noptions edns0\n"), expected);
        assert_eq!(pod("nameserver 192.0.2.7\noptions edns0\n"), expected);
        let both = pod("nameserver 127.0.0.1\nnameserver 198.51.100.53\n");
        assert_eq!(
            both,
            (
                "nameserver 169.254.1.1\nnameserver 198.51.100.53\n".into(),
                forward
            )
        );
        assert_eq!(pod("nameserver ::1\n").0, "nameserver fd70:6f64::53\n");
    }

    #[test]
    fn a_server_on_the_host_that_is_not_the_first_is_left_out() {
        assert_eq!(
            pod("nameserver 198.51.100.53\nnameserver 127.0.0.53\n"),
            ("nameserver 198.51.100.53\n".into(), None)
        );
    }

    #[test]
    fn nothing_is_made_up() {
        for host in [
            "",
            "search x\n",
            "nameserver\n",
            "nameserver fe80::1%eth0\n",
            "nameserver x",
        ] {
            assert_eq!(pod(host), (String::new(), None), "{host:?}");
        }
    }
}
