//! Routes, and who answers to an address on a link.

use std::net::IpAddr;

use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
    RouteType,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage as Message};

use super::{Rtnl, failed};
use crate::{Address, Error};

/// A route of the main table.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Route {
    /// Where it leads; the default route has a length of zero.
    pub to: Address,
    /// The next hop; none for what is on the link itself.
    pub via: Option<IpAddr>,
    /// The link.
    pub ifindex: u32,
    /// The next hop is on the link even where no address of ours says so.
    pub onlink: bool,
    /// Who made it: a number of rt_protos.
    pub protocol: u8,
}

impl Route {
    /// A route straight over a link.
    #[must_use]
    pub fn over(to: Address, ifindex: u32) -> Route {
        Route {
            to,
            via: None,
            ifindex,
            onlink: false,
            protocol: Rtnl::PROTOCOL,
        }
    }
}

impl Rtnl {
    /// What our routes have as their protocol: `rt_protos` of iproute2 leaves 192 to 254 to anybody.
    pub const PROTOCOL: u8 = 0xfa;

    /// Adds a route.
    ///
    /// # Errors
    ///
    /// [`Error::Change`], with `EEXIST` where there is one to the same place.
    pub fn add_route(&self, route: &Route) -> Result<(), Error> {
        self.change(Message::NewRoute(message(route)), NLM_F_CREATE | NLM_F_EXCL)
            .map_err(failed(words("add", route)))
    }

    /// Adds a route, in the place of one to the same place if there is one.
    ///
    /// # Errors
    ///
    /// [`Error::Change`] if the kernel refuses.
    pub fn replace_route(&self, route: &Route) -> Result<(), Error> {
        self.change(
            Message::NewRoute(message(route)),
            NLM_F_CREATE | NLM_F_REPLACE,
        )
        .map_err(failed(words("set", route)))
    }

    /// Removes a route; one that is gone is as gone as it should be.
    ///
    /// # Errors
    ///
    /// [`Error::Change`] if the kernel refuses.
    pub fn remove_route(&self, route: &Route) -> Result<(), Error> {
        match self.change(Message::DelRoute(message(route)), 0) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            result => result.map_err(failed(words("remove", route))),
        }
    }

    /// Every unicast route of the main table that has one next hop at most.
    ///
    /// # Errors
    ///
    /// [`Error::Change`] if the kernel refuses.
    pub fn routes(&self) -> Result<Vec<Route>, Error> {
        let mut found = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut question = RouteMessage::default();
            question.header.address_family = family;
            self.list(Message::GetRoute(question), false, |message| {
                if let Message::NewRoute(message) = message {
                    found.extend(route(&message));
                }
            })
            .map_err(failed("list routes"))?;
        }
        Ok(found)
    }

    /// Says for good who answers to an address on a link.
    ///
    /// # Errors
    ///
    /// [`Error::Change`] if the kernel refuses.
    pub fn set_neighbour(
        &self,
        ifindex: u32,
        addr: IpAddr,
        link_address: [u8; 6],
    ) -> Result<(), Error> {
        self.put_neighbour(ifindex, addr, link_address, NeighbourState::Permanent)
    }

    /// Says who answers to an address on a link until somebody else does: the kernel asks now and then.
    ///
    /// # Errors
    ///
    /// [`Error::Change`] if the kernel refuses.
    pub fn suggest_neighbour(
        &self,
        ifindex: u32,
        addr: IpAddr,
        link_address: [u8; 6],
    ) -> Result<(), Error> {
        self.put_neighbour(ifindex, addr, link_address, NeighbourState::Stale)
    }

    fn put_neighbour(
        &self,
        ifindex: u32,
        addr: IpAddr,
        link_address: [u8; 6],
        state: NeighbourState,
    ) -> Result<(), Error> {
        let mut message = NeighbourMessage::default();
        message.header.family = family(addr);
        message.header.ifindex = ifindex;
        message.header.state = state;
        message.attributes = vec![
            NeighbourAttribute::Destination(neighbour_address(addr)),
            NeighbourAttribute::LinkLayerAddress(link_address.to_vec()),
        ];
        self.change(Message::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE)
            .map_err(failed(format!("set the neighbour {addr}")))
    }

    /// Says which host an Ethernet address is behind, on a VXLAN device.
    ///
    /// # Errors
    ///
    /// [`Error::Change`] if the kernel refuses.
    pub fn set_forwarding(
        &self,
        ifindex: u32,
        link_address: [u8; 6],
        host: IpAddr,
    ) -> Result<(), Error> {
        let message = forwarding(ifindex, link_address, host);
        self.change(Message::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE)
            .map_err(failed(format!("set the way to {host}")))
    }

    /// Takes back what [`set_forwarding`](Rtnl::set_forwarding) said.
    ///
    /// # Errors
    ///
    /// [`Error::Change`] if the kernel refuses.
    pub fn remove_forwarding(
        &self,
        ifindex: u32,
        link_address: [u8; 6],
        host: IpAddr,
    ) -> Result<(), Error> {
        let message = forwarding(ifindex, link_address, host);
        match self.change(Message::DelNeighbour(message), 0) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            result => result.map_err(failed(format!("remove the way to {host}"))),
        }
    }
}

fn forwarding(ifindex: u32, link_address: [u8; 6], host: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = ifindex;
    message.header.state = NeighbourState::Permanent;
    message.header.flags = NeighbourFlags::Own;
    message.attributes = vec![
        NeighbourAttribute::LinkLayerAddress(link_address.to_vec()),
        NeighbourAttribute::Destination(neighbour_address(host)),
    ];
    message
}

fn family(addr: IpAddr) -> AddressFamily {
    match addr {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

fn neighbour_address(addr: IpAddr) -> NeighbourAddress {
    match addr {
        IpAddr::V4(addr) => NeighbourAddress::Inet(addr),
        IpAddr::V6(addr) => NeighbourAddress::Inet6(addr),
    }
}

fn route_address(addr: IpAddr) -> RouteAddress {
    match addr {
        IpAddr::V4(addr) => RouteAddress::Inet(addr),
        IpAddr::V6(addr) => RouteAddress::Inet6(addr),
    }
}

fn message(route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(route.to.addr);
    message.header.destination_prefix_length = route.to.prefix_len;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::from(route.protocol);
    message.header.kind = RouteType::Unicast;
    message.header.scope = if route.via.is_none() && route.to.addr.is_ipv4() {
        RouteScope::Link
    } else {
        RouteScope::Universe
    };
    if route.onlink {
        message.header.flags |= RouteFlags::Onlink;
    }
    if route.to.prefix_len > 0 {
        let to = route_address(route.to.addr);
        message.attributes.push(RouteAttribute::Destination(to));
    }
    if let Some(via) = route.via {
        let via = route_address(via);
        message.attributes.push(RouteAttribute::Gateway(via));
    }
    message.attributes.push(RouteAttribute::Oif(route.ifindex));
    message
}

fn route(message: &RouteMessage) -> Option<Route> {
    let header = &message.header;
    let mut found = Route {
        to: Address {
            addr: match header.address_family {
                AddressFamily::Inet6 => std::net::Ipv6Addr::UNSPECIFIED.into(),
                _ => std::net::Ipv4Addr::UNSPECIFIED.into(),
            },
            prefix_len: header.destination_prefix_length,
        },
        via: None,
        ifindex: 0,
        onlink: header.flags.contains(RouteFlags::Onlink),
        protocol: header.protocol.into(),
    };
    let mut table = u32::from(header.table);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(to) => found.to.addr = ip(to)?,
            RouteAttribute::Gateway(via) => found.via = Some(ip(via)?),
            RouteAttribute::Oif(ifindex) => found.ifindex = *ifindex,
            RouteAttribute::Table(number) => table = *number,
            _ => {}
        }
    }
    let main = table == u32::from(RouteHeader::RT_TABLE_MAIN) && header.kind == RouteType::Unicast;
    (main && found.ifindex != 0).then_some(found)
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(addr) => Some((*addr).into()),
        RouteAddress::Inet6(addr) => Some((*addr).into()),
        _ => None,
    }
}

fn words(action: &str, route: &Route) -> String {
    let Address { addr, prefix_len } = route.to;
    format!("{action} the route to {addr}/{prefix_len}")
}
