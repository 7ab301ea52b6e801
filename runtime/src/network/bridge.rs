//! The network of services: a bridge in the pod's namespace, and for each service
//! a namespace of its own at the end of a veth pair.
//!
//! Runs in the supervisor. Addresses are fixed when the pod is created; nothing
//! here changes afterwards, and all of it goes with the namespaces.

use std::fs::File;
use std::io::{self, Write};
use std::net::Ipv4Addr;
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

use super::TAP;
use super::rtnl::{self, Rtnl};
use crate::sys;

/// The device of the pod's side.
const BRIDGE: &str = "services";

/// Services have addresses in a /24 of this; the bridge has the first.
const SUBNETS: u8 = 213;
const PREFIX: u8 = 24;

/// The most services that a pod may have.
pub const MOST: usize = 32;

/// The pod's side of it.
pub struct Bridge {
    rtnl: Rtnl,
    index: u32,
    subnet: u8,
}

impl Bridge {
    /// Makes the bridge, in a subnet that no address in `taken` is in.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn make(taken: &[std::net::IpAddr]) -> io::Result<Self> {
        let subnet = free_subnet(taken);
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
        rtnl.add_address(index, address(subnet, 0).into(), PREFIX)?;
        rtnl.set_up(index)?;
        Ok(Self {
            rtnl,
            index,
            subnet,
        })
    }

    /// The address of the `n`th service.
    #[must_use]
    pub fn address_of(&self, n: usize) -> Ipv4Addr {
        address(self.subnet, n + 1)
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
        inside.add_address(eth0, self.address_of(n).into(), PREFIX)?;
        inside.set_up(eth0)?;
        inside.add_default_route(address(self.subnet, 0).into(), eth0)?;
        Ok(path.to_owned())
    }

    /// Lets services out where the pod gets out: as the pod.
    ///
    /// # Errors
    ///
    /// When forwarding cannot be switched on, or `nft` is missing or fails.
    pub fn masquerade(&self) -> io::Result<()> {
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
        let subnet = address(self.subnet, 0);
        let rules = format!(
            "table ip podspawn {{\n chain out {{\n  type nat hook postrouting priority 100;\n  ip saddr {subnet}/{PREFIX} oifname \"{TAP}\" masquerade\n }}\n}}\n"
        );
        nft(&rules)
    }
}

const NETWORK: LinkNameSpaceType = LinkNameSpaceType::Network;

fn address(subnet: u8, n: usize) -> Ipv4Addr {
    let last = u8::try_from(n + 1).unwrap_or(u8::MAX);
    Ipv4Addr::new(10, SUBNETS, subnet, last)
}

/// The third byte of a /24 that none of the host's addresses is in.
fn free_subnet(taken: &[std::net::IpAddr]) -> u8 {
    let is_taken = |subnet: u8| {
        taken.iter().any(|a| match a {
            std::net::IpAddr::V4(a) => a.octets()[..3] == [10, SUBNETS, subnet],
            std::net::IpAddr::V6(_) => false,
        })
    };
    (0..=u8::MAX).find(|s| !is_taken(*s)).unwrap_or(0)
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
        assert_eq!(free_subnet(&[]), 0);
        assert_eq!(
            free_subnet(&[ip("10.213.0.9"), ip("10.213.1.1"), ip("::1")]),
            2
        );
        assert_eq!(address(2, 0), Ipv4Addr::new(10, 213, 2, 1));
        assert_eq!(address(2, MOST), Ipv4Addr::new(10, 213, 2, 33));
    }
}
