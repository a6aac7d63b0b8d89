//! The links of a network namespace: a list of what is there, then every change.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::pin::pin;

use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt as _};
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use rtnetlink::packet_route::neighbour::{NeighbourFlags, NeighbourState};
use rtnetlink::packet_route::tc::TcHandle;
use rtnetlink::{Handle, MulticastGroup};

use crate::Error;
use crate::paths::{self, HostRoute, Neighbour};
use crate::routes::default_route_devices;

/// An address of a link.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Address {
    /// The address.
    pub addr: IpAddr,
    /// Length of the prefix that is on this link.
    pub prefix_len: u8,
}

/// A link: what `ip link` shows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    /// Its index in this namespace.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// The driver's kind (`veth`, `bridge`, `vlan`, ...); `None` for hardware and loopback.
    pub kind: Option<String>,
    /// Set administratively up.
    pub up: bool,
    /// It is the loopback device.
    pub loopback: bool,
    /// What it is paired with or stacked on lives in another network namespace.
    pub peer_elsewhere: bool,
    /// A default route leaves by it: this host's own way out.
    pub default_route: bool,
    /// It is a port of a bridge or of another device that takes what arrives.
    pub enslaved: bool,
    /// Hardware address; empty where there is none.
    pub hardware_address: Vec<u8>,
    /// Its root queueing discipline (`noqueue`, `fq_codel`, ...).
    pub qdisc: String,
    /// Length of the longest packet that it takes, in bytes.
    pub mtu: u32,
    /// IP addresses, in order. Empty in a [`Change`], which does not carry them.
    pub addresses: Vec<Address>,
}

impl Link {
    /// True for the host's side of a pod's link: one end of a veth pair whose other end is in another namespace, unless it is
    /// the way out, which looks just like that where the host is a container itself.
    #[must_use]
    pub fn leads_to_pod(&self) -> bool {
        self.kind.as_deref() == Some("veth") && self.peer_elsewhere && !self.default_route
    }
}

/// A change of the links.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// A link appeared or changed.
    Link(Link),
    /// A link is gone.
    Gone {
        /// Its former index.
        ifindex: u32,
        /// Its former name.
        name: String,
    },
    /// The addresses of a link changed.
    Addresses {
        /// Index of the link.
        ifindex: u32,
    },
    /// A route to one address alone appeared.
    Route {
        /// The route.
        route: HostRoute,
        /// It took the place of those with its priority.
        replaces: bool,
    },
    /// A route to one address alone is gone.
    RouteGone(HostRoute),
    /// Routes to more than one address changed.
    Routes,
    /// Somebody's Ethernet address was learnt.
    Neighbour(Neighbour),
    /// Routing rules of IPv4 or IPv6 changed.
    Rules,
    /// Changes came faster than they were taken, or one does not say what became of it: list again.
    Missed,
}

/// A conversation with the kernel about the links of the namespace of the thread that opened it.
pub struct Links {
    handle: Handle,
    changes: BoxStream<'static, NetlinkMessage<RouteNetlinkMessage>>,
}

impl std::fmt::Debug for Links {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Links").finish_non_exhaustive()
    }
}

impl Links {
    /// Starts listening. To miss nothing, open first, then [`list`](Links::list), then follow
    /// [`next`](Links::next). Must be called in a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`Error::Socket`] if the kernel refuses.
    pub fn open() -> Result<Links, Error> {
        let (connection, handle, messages) = rtnetlink::new_multicast_connection(&[
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
            MulticastGroup::Ipv4Rule,
            MulticastGroup::Ipv6Rule,
            MulticastGroup::Neigh,
            MulticastGroup::Tc,
        ])
        .map_err(Error::Socket)?;
        tokio::spawn(connection);
        Ok(Links {
            handle,
            changes: messages.map(|(message, _)| message).boxed(),
        })
    }

    /// Every link with its addresses, in order of index.
    ///
    /// # Errors
    ///
    /// [`Error::List`] if the kernel refuses.
    pub fn list(&self) -> impl Future<Output = Result<Vec<Link>, Error>> + Send + use<> {
        list(self.handle.clone())
    }

    /// Every route of the main table to one address alone.
    ///
    /// # Errors
    ///
    /// [`Error::List`] if the kernel refuses.
    pub fn host_routes(
        &self,
    ) -> impl Future<Output = Result<Vec<HostRoute>, Error>> + Send + use<> {
        paths::host_routes(self.handle.clone())
    }

    /// Every neighbour whose Ethernet address is known.
    ///
    /// # Errors
    ///
    /// [`Error::List`] if the kernel refuses.
    pub fn neighbours(&self) -> impl Future<Output = Result<Vec<Neighbour>, Error>> + Send + use<> {
        paths::neighbours(self.handle.clone())
    }

    /// The links where classifiers may see what arrives or leaves: those with a `clsact` or `ingress` queueing
    /// discipline. TCX does without.
    ///
    /// # Errors
    ///
    /// [`Error::List`] if the kernel refuses.
    pub fn classified(&self) -> impl Future<Output = Result<BTreeSet<u32>, Error>> + Send + use<> {
        let handle = self.handle.clone();
        async move {
            let mut classified = BTreeSet::new();
            let mut messages = std::pin::pin!(handle.qdisc().get().execute());
            while let Some(message) = messages.try_next().await.map_err(|source| Error::List {
                what: "queueing disciplines",
                source,
            })? {
                if message.header.parent == TcHandle::CLSACT {
                    classified.extend(u32::try_from(message.header.index));
                }
            }
            Ok(classified)
        }
    }

    /// Has the kernel ask whether a neighbour is still there, as it does when it sends there itself: an entry that was
    /// confirmed lately stays as it is, another is asked for.
    ///
    /// # Errors
    ///
    /// [`Error::List`] if the kernel refuses.
    pub fn use_neighbour(
        &self,
        ifindex: u32,
        addr: IpAddr,
    ) -> impl Future<Output = Result<(), Error>> + Send + use<> {
        let request = self
            .handle
            .neighbours()
            .add(ifindex, addr)
            .state(NeighbourState::None)
            .flags(NeighbourFlags::Use)
            .replace()
            .execute();
        async move {
            request.await.map_err(|source| Error::List {
                what: "neighbours",
                source,
            })
        }
    }

    /// Whether a family is routed by more than destinations: routing rules beside those that every host has, or IPv4
    /// routes for a type of service or with an MTU of their own.
    ///
    /// # Errors
    ///
    /// [`Error::List`] if the kernel refuses.
    pub fn is_routed_by_more(
        &self,
        v6: bool,
    ) -> impl Future<Output = Result<bool, Error>> + Send + use<> {
        let version = if v6 {
            rtnetlink::IpVersion::V6
        } else {
            rtnetlink::IpVersion::V4
        };
        paths::is_routed_by_more(self.handle.clone(), version)
    }

    /// Waits for the next change; `None` when the kernel closed the conversation.
    pub async fn next(&mut self) -> Option<Change> {
        loop {
            let message = self.changes.next().await?;
            let replaces = message.header.flags & NLM_F_REPLACE != 0;
            if let Some(change) = change(&message.payload, replaces) {
                return Some(change);
            }
        }
    }
}

async fn list(handle: Handle) -> Result<Vec<Link>, Error> {
    let ways_out = default_route_devices();
    let mut links = BTreeMap::new();
    let mut messages = pin!(handle.link().get().execute());
    while let Some(message) = messages.next().await {
        let message = message.map_err(|source| Error::List {
            what: "links",
            source,
        })?;
        let link = link(&message, &ways_out);
        links.insert(link.ifindex, link);
    }
    let mut messages = pin!(handle.address().get().execute());
    while let Some(message) = messages.next().await {
        let message = message.map_err(|source| Error::List {
            what: "addresses",
            source,
        })?;
        if let Some(link) = links.get_mut(&message.header.index) {
            link.addresses.extend(address(&message));
            link.addresses.sort();
        }
    }
    Ok(links.into_values().collect())
}

/// linux/netlink.h: a new object took the place of another.
const NLM_F_REPLACE: u16 = 0x100;

fn change(payload: &NetlinkPayload<RouteNetlinkMessage>, replaces: bool) -> Option<Change> {
    match payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(message)) => {
            Some(Change::Link(link(message, &default_route_devices())))
        }
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(message)) => {
            let link = link(message, &BTreeSet::new());
            Some(Change::Gone {
                ifindex: link.ifindex,
                name: link.name,
            })
        }
        NetlinkPayload::InnerMessage(
            RouteNetlinkMessage::NewAddress(message) | RouteNetlinkMessage::DelAddress(message),
        ) => Some(Change::Addresses {
            ifindex: message.header.index,
        }),
        NetlinkPayload::InnerMessage(
            RouteNetlinkMessage::NewRoute(message) | RouteNetlinkMessage::DelRoute(message),
        ) if paths::is_particular(message) => Some(match paths::host_route(message) {
            // Both the route and the way of all packets.
            Some(_) => Change::Missed,
            None => Change::Rules,
        }),
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(message)) => {
            Some(match paths::host_route(message) {
                Some(route) => Change::Route { route, replaces },
                None => Change::Routes,
            })
        }
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelRoute(message)) => {
            Some(paths::host_route(message).map_or(Change::Routes, Change::RouteGone))
        }
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(message)) => {
            paths::neighbour(message).map(Change::Neighbour)
        }
        NetlinkPayload::InnerMessage(
            RouteNetlinkMessage::NewRule(_) | RouteNetlinkMessage::DelRule(_),
        ) => Some(Change::Rules),
        // The link's own message says what hangs there now.
        NetlinkPayload::InnerMessage(
            RouteNetlinkMessage::NewQueueDiscipline(message)
            | RouteNetlinkMessage::DelQueueDiscipline(message),
        ) if matches!(message.header.parent, TcHandle::ROOT | TcHandle::CLSACT) => {
            Some(Change::Missed)
        }
        NetlinkPayload::Overrun(_) => Some(Change::Missed),
        _ => None,
    }
}

fn link(message: &LinkMessage, ways_out: &BTreeSet<String>) -> Link {
    let flags = message.header.flags;
    let mut link = Link {
        ifindex: message.header.index,
        name: String::new(),
        kind: None,
        up: flags.contains(LinkFlags::Up),
        loopback: flags.contains(LinkFlags::Loopback),
        peer_elsewhere: false,
        default_route: false,
        enslaved: false,
        hardware_address: Vec::new(),
        qdisc: String::new(),
        mtu: 0,
        addresses: Vec::new(),
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Qdisc(kind) => link.qdisc.clone_from(kind),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::LinkNetNsId(_) => link.peer_elsewhere = true,
            LinkAttribute::Controller(index) => link.enslaved = *index != 0,
            LinkAttribute::Address(bytes) => link.hardware_address.clone_from(bytes),
            LinkAttribute::LinkInfo(infos) => {
                link.kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    link.default_route = ways_out.contains(&link.name);
    link
}

pub(crate) fn address(message: &AddressMessage) -> Option<Address> {
    // On a point-to-point link the local address is ours and the other one the peer's.
    let local = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            AddressAttribute::Local(addr) => Some(*addr),
            _ => None,
        });
    let any = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            AddressAttribute::Address(addr) => Some(*addr),
            _ => None,
        });
    local.or(any).map(|addr| Address {
        addr,
        prefix_len: message.header.prefix_len,
    })
}
