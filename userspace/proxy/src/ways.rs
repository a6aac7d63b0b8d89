//! How far packets in packets get (`dsr`), as the host's routes say. Pure, but for [`look`].

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use abi::balancing::Mode;
use model::Range;
use net::{Device, Route, Rtnl};
use plan::Reach;
use tracing::error;
use view::NodeRanges;

use crate::Settings;

/// How long it is waited after a change of routes: they come in numbers.
pub(crate) const WAIT: Duration = Duration::from_millis(50);

/// Kinds of devices that put a header of their own around packets. At the other end they appear on a device of that
/// kind, past the programs of the one that they arrived by.
const TUNNELS: [&str; 17] = [
    "bareudp",
    "erspan",
    "fou",
    "geneve",
    "gre",
    "gretap",
    "ip6erspan",
    "ip6gre",
    "ip6gretap",
    "ip6tnl",
    "ipip",
    "sit",
    "tun",
    "vti",
    "vxlan",
    "wireguard",
    "xfrm",
];

/// Reads the routes of this thread's network namespace; `None` where no packets go in packets, or the kernel does not
/// tell.
pub(crate) fn look(nodes: &BTreeMap<String, NodeRanges>, settings: &Settings) -> Option<Reach> {
    if settings.load_balancing == Mode::Snat {
        return None;
    }
    let here = nodes.get(&settings.node_name);
    let named = here.map_or(Vec::new(), |node| node.addresses.clone());
    let read = Rtnl::open().and_then(|rtnl| Ok((rtnl.routes()?, rtnl.devices()?)));
    match read {
        Ok((routes, links)) => Some(reach(named, &routes, &links, &settings.devices)),
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            error!(
                error,
                "cannot see by which devices packets for other nodes go"
            );
            None
        }
    }
}

fn reach(named: Vec<IpAddr>, routes: &[Route], links: &[Device], devices: &[String]) -> Reach {
    let routes = routes.iter().filter_map(|route| {
        let range = Range::new(route.to.addr, route.to.prefix_len)?;
        let link = links.iter().find(|link| link.ifindex == route.ifindex);
        Some((range, link.is_some_and(|link| is_tunnel(link, devices))))
    });
    Reach::new(named, &routes.collect::<Vec<_>>())
}

/// Whether nobody takes our header off what leaves by a link: a tunnel's, unless programs are asked for there.
fn is_tunnel(link: &Device, devices: &[String]) -> bool {
    let kind = link.kind.as_deref();
    kind.is_some_and(|kind| TUNNELS.contains(&kind)) && !devices.contains(&link.name)
}
