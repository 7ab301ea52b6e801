//! Requests to the kernel's routing sockets (`rtnetlink(7)`), one at a time.
//!
//! Runs in the supervisor, which has a single thread: every request waits for
//! its acknowledgement.

use std::io;
use std::net::IpAddr;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

/// The kernel's table of addresses that are this namespace's own.
const TABLE_LOCAL: u8 = 255;

/// A socket to the routing tables of the namespace it was opened in.
pub struct Rtnl {
    socket: Socket,
    sequence: u32,
}

impl Rtnl {
    /// Opens one in the current network namespace.
    ///
    /// # Errors
    ///
    /// Those of `socket(2)` and `bind(2)`.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// Sends a request and waits for the kernel's answer.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn request(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.exchange(message, NLM_F_ACK | flags).map(drop)
    }

    fn exchange(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Option<RouteNetlinkMessage>> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        loop {
            let (bytes, _) = self.socket.recv_from_full()?;
            let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&bytes)
                .map_err(|e| io::Error::other(format!("an answer of the kernel's: {e}")))?;
            if answer.header.sequence_number != self.sequence {
                continue;
            }
            return match answer.payload {
                NetlinkPayload::Error(e) if e.code.is_some() => Err(e.to_io()),
                NetlinkPayload::InnerMessage(answer) => Ok(Some(answer)),
                _ => Ok(None),
            };
        }
    }

    /// Sets a device up.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn set_up(&mut self, index: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        self.request(RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Removes a device.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn remove(&mut self, index: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        self.request(RouteNetlinkMessage::DelLink(message), 0)
    }

    /// The number of a device of the socket's namespace.
    ///
    /// # Errors
    ///
    /// When there is none of that name.
    pub fn index_of(&mut self, name: &str) -> io::Result<u32> {
        let mut message = LinkMessage::default();
        message.attributes = vec![LinkAttribute::IfName(name.into())];
        match self.exchange(RouteNetlinkMessage::GetLink(message), 0)? {
            Some(RouteNetlinkMessage::NewLink(link)) => Ok(link.header.index),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Gives a device an address.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn add_address(&mut self, device: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = family(address);
        message.header.prefix_len = prefix;
        message.header.index = device;
        // Nobody else is on these links; looking for a second owner takes a second.
        if address.is_ipv6() {
            message.header.flags = AddressHeaderFlags::Nodad;
        }
        message.attributes = vec![
            AddressAttribute::Local(address),
            AddressAttribute::Address(address),
        ];
        self.request(
            RouteNetlinkMessage::NewAddress(message),
            NLM_F_CREATE | NLM_F_EXCL,
        )
    }

    /// Adds a route that leads to a device.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn add_route(&mut self, route: Route, device: u32) -> io::Result<()> {
        let mut message = RouteMessage::default();
        message.header.protocol = RouteProtocol::Static;
        let header = &mut message.header;
        message.attributes = match route {
            Route::Default { gateway } => {
                header.address_family = family(gateway);
                header.table = RouteHeader::RT_TABLE_MAIN;
                header.scope = RouteScope::Universe;
                header.kind = RouteType::Unicast;
                vec![RouteAttribute::Gateway(RouteAddress::from(gateway))]
            }
            Route::Local { address, prefix } => {
                header.address_family = family(address);
                header.destination_prefix_length = prefix;
                header.table = TABLE_LOCAL;
                header.scope = RouteScope::Host;
                header.kind = RouteType::Local;
                vec![
                    RouteAttribute::Destination(RouteAddress::from(address)),
                    RouteAttribute::Priority(1),
                ]
            }
        };
        message.attributes.push(RouteAttribute::Oif(device));
        self.request(
            RouteNetlinkMessage::NewRoute(message),
            NLM_F_CREATE | NLM_F_EXCL,
        )
    }
}

/// A route.
#[derive(Clone, Copy, Debug)]
pub enum Route {
    /// What has no better one goes through `gateway`.
    Default {
        /// On the device's own network.
        gateway: IpAddr,
    },
    /// What is sent to `address/prefix` through the device arrives here instead,
    /// after any better route for the same addresses.
    Local {
        /// The network's first.
        address: IpAddr,
        /// Its length.
        prefix: u8,
    },
}

fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

/// The number of a device of the current network namespace.
///
/// # Errors
///
/// `ENODEV` when there is none of that name.
pub fn index_of(name: &str) -> io::Result<u32> {
    Ok(nix::net::if_::if_nametoindex(name)?)
}
