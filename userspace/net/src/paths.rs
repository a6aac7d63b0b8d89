//! Routes to single addresses, and who answers to an address on a link: where a pod is, as the host knows it.

use std::net::IpAddr;

use futures_util::TryStreamExt as _;
use rtnetlink::Handle;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteType,
};
use rtnetlink::packet_route::rule::{RuleAttribute, RuleMessage};

use crate::Error;

/// A route of the main table to one address alone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct HostRoute {
    /// The address.
    pub addr: IpAddr,
    /// Of several routes the one with the lowest holds.
    pub priority: u32,
    /// The link that it leads straight over; `None` for a route through a gateway, over several links, or to nowhere.
    pub ifindex: Option<u32>,
}

/// Who answers to an address on a link.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Neighbour {
    /// The link.
    pub ifindex: u32,
    /// The address.
    pub addr: IpAddr,
    /// Its Ethernet address.
    pub link_address: [u8; 6],
}

pub(crate) async fn host_routes(handle: Handle) -> Result<Vec<HostRoute>, Error> {
    let mut routes = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        let mut messages = std::pin::pin!(handle.route().get(message).execute());
        while let Some(message) = messages.try_next().await.map_err(listing("routes"))? {
            routes.extend(host_route(&message));
        }
    }
    Ok(routes)
}

pub(crate) async fn neighbours(handle: Handle) -> Result<Vec<Neighbour>, Error> {
    let mut neighbours = Vec::new();
    let mut messages = std::pin::pin!(handle.neighbours().get().execute());
    while let Some(message) = messages.try_next().await.map_err(listing("neighbours"))? {
        neighbours.extend(neighbour(&message));
    }
    Ok(neighbours)
}

/// Whether a family has rules beside those that every host has (the local, main and default tables), or routes that
/// are [particular](is_particular).
pub(crate) async fn is_routed_by_more(
    handle: Handle,
    version: rtnetlink::IpVersion,
) -> Result<bool, Error> {
    let mut message = RouteMessage::default();
    message.header.address_family = match version {
        rtnetlink::IpVersion::V4 => AddressFamily::Inet,
        rtnetlink::IpVersion::V6 => AddressFamily::Inet6,
    };
    let mut routes = std::pin::pin!(handle.route().get(message).execute());
    while let Some(message) = routes.try_next().await.map_err(listing("routes"))? {
        if is_particular(&message) {
            return Ok(true);
        }
    }
    let mut messages = std::pin::pin!(handle.rule().get(version).execute());
    while let Some(message) = messages
        .try_next()
        .await
        .map_err(listing("routing rules"))?
    {
        if !is_default_rule(&message) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a route goes by what `bpf_fib_lookup` does not look at: an IPv4 packet's type of service, or an MTU of the
/// route's own. (Of IPv4 it minds a locked one alone, where the stack minds any.)
pub(crate) fn is_particular(message: &RouteMessage) -> bool {
    const RTAX_MTU: u32 = 2;
    let metrics = || {
        message
            .attributes
            .iter()
            .filter_map(|attribute| match attribute {
                RouteAttribute::Metrics(metrics) => Some(metrics),
                _ => None,
            })
            .flatten()
    };
    let has_mtu = metrics().any(|metric| matches!(metric, RouteMetric::Mtu(_)));
    let locked = metrics()
        .any(|metric| matches!(metric, RouteMetric::Lock(bits) if bits & 1 << RTAX_MTU != 0));
    let header = &message.header;
    header.address_family == AddressFamily::Inet
        && !header.flags.contains(RouteFlags::Cloned)
        && (header.tos != 0 || has_mtu && !locked)
}

fn listing(what: &'static str) -> impl Fn(rtnetlink::Error) -> Error {
    move |source| Error::List { what, source }
}

/// A rule for every packet, to one of the three tables that are always there.
fn is_default_rule(message: &RuleMessage) -> bool {
    let plain = |attribute: &RuleAttribute| {
        matches!(
            attribute,
            RuleAttribute::Table(253..=255)
                | RuleAttribute::Priority(_)
                | RuleAttribute::Protocol(_)
                | RuleAttribute::SuppressPrefixLen(u32::MAX)
        )
    };
    message.header.src_len == 0
        && message.header.dst_len == 0
        && message.attributes.iter().all(plain)
}

/// The route in a message, if it is one to a single address in the main table.
pub(crate) fn host_route(message: &RouteMessage) -> Option<HostRoute> {
    let header = &message.header;
    let (mut addr, mut priority, mut ifindex) = (None, 0, None);
    let mut table = u32::from(header.table);
    let mut straight = header.kind == RouteType::Unicast;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(v4)) => addr = Some(IpAddr::from(*v4)),
            RouteAttribute::Destination(RouteAddress::Inet6(v6)) => addr = Some(IpAddr::from(*v6)),
            RouteAttribute::Priority(number) => priority = *number,
            RouteAttribute::Oif(number) => ifindex = Some(*number),
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Gateway(_)
            | RouteAttribute::Via(_)
            | RouteAttribute::MultiPath(_)
            | RouteAttribute::Encap(_) => straight = false,
            _ => {}
        }
    }
    let addr = addr?;
    let whole = if addr.is_ipv4() { 32 } else { 128 };
    let ours = header.destination_prefix_length == whole
        && table == u32::from(RouteHeader::RT_TABLE_MAIN)
        && !header.flags.contains(RouteFlags::Cloned);
    // A route for one type of service or source alone does not hold for the others.
    let straight = straight && header.tos == 0 && header.source_prefix_length == 0;
    ours.then_some(HostRoute {
        addr,
        priority,
        ifindex: ifindex.filter(|_| straight),
    })
}

/// The neighbour in a message, if its Ethernet address is known.
pub(crate) fn neighbour(message: &NeighbourMessage) -> Option<Neighbour> {
    let (mut addr, mut link_address) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => {
                addr = Some(IpAddr::from(*v4));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
                addr = Some(IpAddr::from(*v6));
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                link_address = <[u8; 6]>::try_from(bytes.as_slice()).ok();
            }
            _ => {}
        }
    }
    Some(Neighbour {
        ifindex: message.header.ifindex,
        addr: addr?,
        link_address: link_address.filter(|bytes| *bytes != [0; 6])?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(edit: impl Fn(&mut RouteMessage)) -> Option<HostRoute> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.destination_prefix_length = 32;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.kind = RouteType::Unicast;
        message.attributes = vec![
            RouteAttribute::Destination(RouteAddress::Inet([10, 244, 0, 10].into())),
            RouteAttribute::Oif(7),
        ];
        edit(&mut message);
        host_route(&message)
    }

    #[test]
    fn a_route_with_an_mtu_or_a_type_of_service_is_particular() {
        let route = |family, tos, metrics: &[RouteMetric]| {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            message.header.tos = tos;
            message.attributes = vec![RouteAttribute::Metrics(metrics.to_vec())];
            is_particular(&message)
        };
        let (v4, v6) = (AddressFamily::Inet, AddressFamily::Inet6);
        assert!(!route(v4, 0, &[]));
        assert!(!route(v4, 0, &[RouteMetric::InitCwnd(10)]));
        assert!(route(v4, 0, &[RouteMetric::Mtu(1400)]));
        assert!(route(v4, 4, &[]));
        let locked = [RouteMetric::Lock(1 << 2), RouteMetric::Mtu(1400)];
        assert!(!route(v4, 0, &locked));
        assert!(route(
            v4,
            0,
            &[RouteMetric::Lock(1), RouteMetric::Mtu(1400)]
        ));
        assert!(!route(v6, 0, &[RouteMetric::Mtu(1400)]), "it minds those");
    }

    #[test]
    fn only_routes_to_one_address_count() {
        let straight = |ifindex| {
            Some(HostRoute {
                addr: [10, 244, 0, 10].into(),
                priority: 0,
                ifindex,
            })
        };
        let gateway = RouteAttribute::Gateway(RouteAddress::Inet([10, 0, 0, 1].into()));
        assert_eq!(route(|_| {}), straight(Some(7)));
        assert_eq!(
            route(|m| m.attributes.push(gateway.clone())),
            straight(None)
        );
        assert_eq!(
            route(|m| m.header.kind = RouteType::BlackHole),
            straight(None)
        );
        assert_eq!(route(|m| m.header.tos = 4), straight(None));
        assert_eq!(route(|m| m.header.destination_prefix_length = 24), None);
        assert_eq!(route(|m| m.header.table = 255), None);
        assert_eq!(
            route(|m| m.attributes.push(RouteAttribute::Table(1000))),
            None
        );
        assert_eq!(route(|m| m.header.flags = RouteFlags::Cloned), None);
        assert_eq!(
            route(|m| m.attributes.push(RouteAttribute::Priority(9))).map(|route| route.priority),
            Some(9)
        );
    }
}
