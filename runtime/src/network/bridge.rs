//! The network of services: a bridge in the pod's namespace, and for each service
//! a namespace of its own at the end of a veth pair.
//!
//! Runs in the supervisor. Addresses are fixed when the pod is created; nothing
//! here changes afterwards, and all of it goes with the namespaces. Everything is
//! there for IPv4 and, where the kernel has it, for IPv6; the addresses mean
//! nothing outside of the pod, which they leave masqueraded or not at all.

use std::fs::File;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use caps::{CapSet, Capability, CapsHashSet};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkInfo, LinkMessage,
};
use rustix::mount::mount_bind;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::rtnl::{self, Route, Rtnl};
use super::{TAP, has_ipv6};
use crate::sys;

/// The device of the pod's side.
const BRIDGE: &str = "services";

/// The most services that a pod may have.
pub const MOST: usize = 32;

/// The pod's side of it.
pub struct Bridge {
    rtnl: Rtnl,
    index: u32,
    subnet: Subnet,
    ipv6: bool,
}

impl Bridge {
    /// Makes the bridge, in a subnet that no address in `taken` is in.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn make(taken: &[IpAddr]) -> io::Result<Self> {
        let subnet = Subnet::free(taken);
        let mut rtnl = Rtnl::open()?;
        let mut link = LinkMessage::default();
        link.attributes = vec![
            LinkAttribute::IfName(BRIDGE.into()),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]),
        ];
        rtnl.request(
            RouteNetlinkMessage::NewLink(link),
            NLM_F_CREATE | NLM_F_EXCL,
        )?;
        let index = rtnl::index_of(BRIDGE)?;
        rtnl.set_up(index)?;
        let ipv6 = has_ipv6(BRIDGE);
        for (address, prefix) in subnet.addresses(0, ipv6) {
            rtnl.add_address(index, address, prefix)?;
        }
        Ok(Self {
            rtnl,
            index,
            subnet,
            ipv6,
        })
    }

    /// The address of the `n`th service that every kernel gives it.
    #[must_use]
    pub fn address_of(&self, n: usize) -> Ipv4Addr {
        self.subnet.v4(n + 1)
    }

    /// All addresses of the `n`th service.
    pub fn addresses_of(&self, n: usize) -> impl Iterator<Item = IpAddr> + use<> {
        let all = self.subnet.addresses(n + 1, self.ipv6);
        all.map(|(address, _)| address)
    }

    /// Makes the namespace of the `n`th service, with its end of a veth pair, and
    /// shows it at `path`.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn add(&mut self, n: usize, path: &Path) -> io::Result<PathBuf> {
        File::create(path)?;
        let pod = File::open("/proc/self/ns/net")?;
        sys::unshare_network()?;
        let made = (|| {
            sys::bring_up_loopback()?;
            mount_bind("/proc/self/ns/net", path)?;
            Ok::<_, io::Error>((File::open("/proc/self/ns/net")?, Rtnl::open()?))
        })();
        // Whatever happened: everything else is in the pod's namespace.
        let back = move_into_link_name_space(pod.as_fd(), Some(NETWORK));
        let (netns, mut inside): (File, Rtnl) = made.and_then(|made| {
            back?;
            Ok(made)
        })?;

        let mut peer = LinkMessage::default();
        peer.attributes = vec![
            LinkAttribute::IfName(TAP.into()),
            LinkAttribute::NetNsFd(netns.as_raw_fd()),
        ];
        let name = format!("service{n}");
        let mut link = LinkMessage::default();
        link.attributes = vec![
            LinkAttribute::IfName(name.clone()),
            LinkAttribute::Controller(self.index),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
            ]),
        ];
        self.rtnl.request(
            RouteNetlinkMessage::NewLink(link),
            NLM_F_CREATE | NLM_F_EXCL,
        )?;
        self.rtnl.set_up(rtnl::index_of(&name)?)?;
        let eth0 = inside.index_of(TAP)?;
        inside.set_up(eth0)?;
        let gateways = self.subnet.addresses(0, self.ipv6);
        for ((address, prefix), (gateway, _)) in
            self.subnet.addresses(n + 1, self.ipv6).zip(gateways)
        {
            inside.add_address(eth0, address, prefix)?;
            inside.add_route(Route::Default { gateway }, eth0)?;
        }
        Ok(path.to_owned())
    }

    /// Lets services out where the pod gets out: as the pod.
    ///
    /// # Errors
    ///
    /// When forwarding cannot be switched on, or `nft` is missing or fails.
    pub fn masquerade(&self) -> io::Result<()> {
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
        if self.ipv6 {
            std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1")?;
        }
        nft(&rules(self.subnet, self.ipv6))
    }
}

const NETWORK: LinkNameSpaceType = LinkNameSpaceType::Network;

/// What services send is, outside, the pod's.
fn rules(subnet: Subnet, ipv6: bool) -> String {
    let table = |(address, prefix): (IpAddr, u8)| {
        let family = if address.is_ipv4() { "ip" } else { "ip6" };
        format!(
            "table {family} podspawn {{\n chain out {{\n  type nat hook postrouting priority 100;\n  {family} saddr {address}/{prefix} oifname \"{TAP}\" masquerade\n }}\n}}\n"
        )
    };
    subnet.addresses(0, ipv6).map(table).collect()
}

/// One of the 256 networks that a pod's services may be in, each of which has a part
/// for either version: `10.213.N.0/24` and `fd70:6f64:0:1NN::/64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Subnet(u8);

impl Subnet {
    /// The first that none of these addresses is in.
    fn free(taken: &[IpAddr]) -> Self {
        let all = (0..=u8::MAX).map(Self);
        let mut free = all.filter(|subnet| !taken.iter().any(|a| subnet.contains(*a)));
        free.next().unwrap_or(Self(0))
    }

    fn contains(self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(a) => a.octets()[..3] == self.v4(0).octets()[..3],
            IpAddr::V6(a) => a.segments()[..4] == self.v6(0).segments()[..4],
        }
    }

    /// The bridge is 0, services follow.
    fn v4(self, n: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 213, self.0, last(n))
    }

    fn v6(self, n: usize) -> Ipv6Addr {
        let part = 0x100 | u16::from(self.0);
        Ipv6Addr::new(0xfd70, 0x6f64, 0, part, 0, 0, 0, last(n).into())
    }

    /// Addresses with the length of the network's prefix.
    fn addresses(self, n: usize, ipv6: bool) -> impl Iterator<Item = (IpAddr, u8)> + use<> {
        let v4 = (IpAddr::V4(self.v4(n)), 24);
        let v6 = (IpAddr::V6(self.v6(n)), 64);
        [v4, v6].into_iter().take(if ipv6 { 2 } else { 1 })
    }
}

/// The last part of an address; 0 is no host's.
fn last(n: usize) -> u8 {
    u8::try_from(n + 1).unwrap_or(u8::MAX)
}

/// Runs nft with one batch, which is taken as a whole or not at all.
fn nft(batch: &str) -> io::Result<()> {
    let program = ["/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft"]
        .into_iter()
        .find(|path| Path::new(path).exists())
        .ok_or_else(|| io::Error::other("nft is not installed (package nftables)"))?;
    // nft is not root's here: it gets what it needs by inheritance.
    let need = CapsHashSet::from([Capability::CAP_NET_ADMIN]);
    caps::set(None, CapSet::Inheritable, &need).map_err(io::Error::other)?;
    caps::set(None, CapSet::Ambient, &need).map_err(io::Error::other)?;
    let run = run_nft(Path::new(program), batch);
    caps::clear(None, CapSet::Ambient).map_err(io::Error::other)?;
    caps::clear(None, CapSet::Inheritable).map_err(io::Error::other)?;
    run
}

fn run_nft(program: &Path, batch: &str) -> io::Result<()> {
    let mut child = Command::new(program)
        .args(["-f", "-"])
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(batch.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let line = said
        .lines()
        .next()
        .unwrap_or("it did not say why")
        .to_owned();
    Err(io::Error::other(format!("nft: {line}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_of_the_hosts_is_not_taken() {
        let ip = |text: &str| text.parse().unwrap();
        assert_eq!(Subnet::free(&[]), Subnet(0));
        let taken = [ip("10.213.0.9"), ip("10.213.1.1"), ip("::1")];
        assert_eq!(Subnet::free(&taken), Subnet(2));
        let taken = [ip("fd70:6f64:0:100::9"), ip("fd70:6f64::53"), ip("::1")];
        assert_eq!(Subnet::free(&taken), Subnet(1));
    }

    #[test]
    fn everybody_has_an_address_of_either_version() {
        let all = |n, ipv6| -> Vec<_> {
            let all = Subnet(0xa2).addresses(n, ipv6);
            all.map(|(a, prefix)| format!("{a}/{prefix}")).collect()
        };
        assert_eq!(all(0, true), ["10.213.162.1/24", "fd70:6f64:0:1a2::1/64"]);
        let last = ["10.213.162.33/24", "fd70:6f64:0:1a2::21/64"];
        assert_eq!(all(MOST, true), last);
        assert_eq!(all(MOST, false), last[..1]);
    }

    #[test]
    fn each_version_is_masqueraded_for_itself() {
        let both = rules(Subnet(0), true);
        assert!(both.contains("ip saddr 10.213.0.1/24 oifname \"eth0\" masquerade"));
        assert!(both.contains("ip6 saddr fd70:6f64:0:100::1/64 oifname \"eth0\" masquerade"));
        assert!(!rules(Subnet(0), false).contains("ip6"));
    }
}
