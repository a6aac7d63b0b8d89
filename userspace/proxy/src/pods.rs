//! Where pods are: from the host's routes, links and neighbours to the endpoints that packets go straight to. Pure.
//!
//! An address is a pod's if the route that holds for it leads straight over an attached pod link. It goes in once the
//! pod's Ethernet address is known, for whatever stands behind the pod's end of the link (a bridge, a virtual machine)
//! may look at it; until then the stack carries the packets, and asks.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use abi::{Endpoint, endpoints};
use net::{HostRoute, Link, Neighbour};

/// What is known, and what follows from it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pods {
    /// Attached pod links that are up, by index.
    links: BTreeMap<u32, PodLink>,
    /// Routes to one address each, the one that holds first.
    routes: BTreeMap<IpAddr, BTreeSet<(u32, Option<u32>)>>,
    /// Ethernet addresses, by link and address.
    neighbours: BTreeMap<(u32, IpAddr), [u8; 6]>,
    /// What the kernel was told.
    told: BTreeMap<IpAddr, Endpoint>,
    /// Addresses of which something changed.
    touched: BTreeSet<IpAddr>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct PodLink {
    address: [u8; 6],
    /// Nothing queues what leaves.
    free: bool,
    /// Nothing but our programs treats what leaves.
    ours: bool,
    /// A port of a bridge.
    enslaved: bool,
}

impl Pods {
    /// Starts from what the kernel was told by an earlier process.
    pub(crate) fn new(told: BTreeMap<IpAddr, Endpoint>) -> Pods {
        Pods {
            touched: told.keys().copied().collect(),
            told,
            ..Pods::default()
        }
    }

    /// Forgets everything but what the kernel was told, before everything is listed anew.
    pub(crate) fn start_over(&mut self) {
        *self = Pods::new(std::mem::take(&mut self.told));
    }

    /// An attached pod link is there, or changed. `ours` says that nothing but our programs treats what leaves it.
    pub(crate) fn link(&mut self, link: &Link, ours: bool) {
        let address = <[u8; 6]>::try_from(link.hardware_address.as_slice());
        let (Ok(address), true) = (address, link.up) else {
            return self.link_gone(link.ifindex);
        };
        let free = matches!(link.qdisc.as_str(), "" | "noqueue");
        let now = PodLink {
            address,
            free,
            ours,
            enslaved: link.enslaved,
        };
        if self.links.insert(link.ifindex, now) != Some(now) {
            self.touch(link.ifindex);
        }
    }

    /// Looks again whether programs of others treat what leaves the links, which nobody tells.
    pub(crate) fn recheck(&mut self, ours: impl Fn(u32) -> bool) {
        let mut changed = Vec::new();
        for (ifindex, link) in &mut self.links {
            let now = ours(*ifindex);
            if std::mem::replace(&mut link.ours, now) != now {
                changed.push(*ifindex);
            }
        }
        changed.into_iter().for_each(|ifindex| self.touch(ifindex));
    }

    /// A link is gone or down. With it go its routes; the kernel does not tell of those of IPv4.
    pub(crate) fn link_gone(&mut self, ifindex: u32) {
        self.touch(ifindex);
        self.links.remove(&ifindex);
        self.routes.retain(|_, routes| {
            routes.retain(|(_, over)| *over != Some(ifindex));
            !routes.is_empty()
        });
        self.neighbours.retain(|(at, _), _| *at != ifindex);
    }

    /// A route appeared.
    pub(crate) fn route(&mut self, route: HostRoute, replaces: bool) {
        let routes = self.routes.entry(route.addr).or_default();
        if replaces {
            routes.retain(|(priority, _)| *priority != route.priority);
        }
        routes.insert((route.priority, route.ifindex));
        self.touched.insert(route.addr);
    }

    /// A route is gone.
    pub(crate) fn route_gone(&mut self, route: HostRoute) {
        if let Some(routes) = self.routes.get_mut(&route.addr) {
            routes.remove(&(route.priority, route.ifindex));
            if routes.is_empty() {
                self.routes.remove(&route.addr);
            }
            self.touched.insert(route.addr);
        }
    }

    /// An Ethernet address was learnt.
    pub(crate) fn neighbour(&mut self, neighbour: Neighbour) {
        let key = (neighbour.ifindex, neighbour.addr);
        if self.neighbours.insert(key, neighbour.link_address) != Some(neighbour.link_address) {
            self.touched.insert(neighbour.addr);
        }
    }

    /// What the kernel must be told since the last time.
    pub(crate) fn news(&mut self) -> Vec<(IpAddr, Option<Endpoint>)> {
        let touched = std::mem::take(&mut self.touched);
        let mut news = Vec::new();
        for addr in touched {
            let now = self.endpoint(addr);
            if self.told.get(&addr).copied() != now {
                match now {
                    Some(endpoint) => self.told.insert(addr, endpoint),
                    None => self.told.remove(&addr),
                };
                news.push((addr, now));
            }
        }
        news
    }

    /// Links that are ports of a bridge.
    pub(crate) fn enslaved(&self) -> BTreeSet<u32> {
        let links = self.links.iter();
        let enslaved = links.filter(|(_, link)| link.enslaved);
        enslaved.map(|(ifindex, _)| *ifindex).collect()
    }

    /// The links of the addresses that the kernel was told of.
    pub(crate) fn links(&self) -> BTreeMap<IpAddr, u32> {
        let links = self.told.iter();
        links
            .map(|(addr, endpoint)| (*addr, endpoint.ifindex))
            .collect()
    }

    /// The neighbours that packets go straight to: link and address.
    pub(crate) fn neighbours(&self) -> impl Iterator<Item = (u32, IpAddr)> + '_ {
        self.told
            .iter()
            .filter(|(_, endpoint)| endpoint.flags & endpoints::flags::DIRECT != 0)
            .map(|(addr, endpoint)| (endpoint.ifindex, *addr))
    }

    /// The kernel refused to hear of an address: it is not there.
    pub(crate) fn refused(&mut self, addr: IpAddr) {
        self.told.remove(&addr);
    }

    fn endpoint(&self, addr: IpAddr) -> Option<Endpoint> {
        let routes = self.routes.get(&addr)?;
        let (lowest, ifindex) = *routes.first()?;
        let alone = routes
            .iter()
            .filter(|(priority, _)| *priority == lowest)
            .count()
            == 1;
        let ifindex = ifindex.filter(|_| alone)?;
        let link = self.links.get(&ifindex)?;
        let pod_link = self.neighbours.get(&(ifindex, addr)).copied();
        let direct = link.free && link.ours && pod_link.is_some();
        Some(Endpoint {
            ifindex,
            flags: if direct { endpoints::flags::DIRECT } else { 0 },
            pod_link: pod_link.unwrap_or_default(),
            host_link: link.address,
            _pad: [0; 2],
        })
    }

    fn touch(&mut self, ifindex: u32) {
        let over = |(_, routes): &(&IpAddr, &BTreeSet<(u32, Option<u32>)>)| {
            routes.iter().any(|(_, over)| *over == Some(ifindex))
        };
        self.touched
            .extend(self.routes.iter().filter(over).map(|(addr, _)| *addr));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 244, 0, 10));

    fn link(ifindex: u32) -> Link {
        Link {
            ifindex,
            name: format!("pod{ifindex}"),
            kind: Some("veth".to_owned()),
            up: true,
            loopback: false,
            peer_elsewhere: true,
            default_route: false,
            enslaved: false,
            hardware_address: vec![2, 0, 0, 0, 0, ifindex as u8],
            qdisc: "noqueue".to_owned(),
            mtu: 1500,
            addresses: Vec::new(),
        }
    }

    fn route(priority: u32, ifindex: Option<u32>) -> HostRoute {
        HostRoute {
            addr: POD,
            priority,
            ifindex,
        }
    }

    fn neighbour(ifindex: u32) -> Neighbour {
        Neighbour {
            ifindex,
            addr: POD,
            link_address: [4, 0, 0, 0, 0, ifindex as u8],
        }
    }

    /// Where packets for the pod go straight to, after some changes; zero for the stack.
    fn straight(pods: &mut Pods) -> u32 {
        pods.news();
        let told = pods.told.get(&POD);
        told.map_or(0, |endpoint| {
            if endpoint.flags == 0 {
                0
            } else {
                endpoint.ifindex
            }
        })
    }

    fn known() -> Pods {
        let mut pods = Pods::default();
        for ifindex in [7, 8] {
            pods.link(&link(ifindex), true);
            pods.neighbour(neighbour(ifindex));
        }
        pods.route(route(0, Some(7)), false);
        pods
    }

    #[test]
    fn a_pod_is_where_its_route_leads() {
        type Change = fn(&mut Pods);
        let cases: [(&str, u32, Change); 15] = [
            ("as it was", 7, |_| {}),
            ("route gone", 0, |pods| pods.route_gone(route(0, Some(7)))),
            ("another route gone", 7, |pods| {
                pods.route_gone(route(5, Some(8)));
            }),
            ("replaced", 8, |pods| pods.route(route(0, Some(8)), true)),
            ("a worse one", 7, |pods| {
                pods.route(route(5, Some(8)), false);
            }),
            ("two that are equal", 0, |pods| {
                pods.route(route(0, Some(8)), false);
            }),
            ("replaced by a gateway", 0, |pods| {
                pods.route(route(0, None), true);
            }),
            ("the worse one is left", 8, |pods| {
                pods.route(route(5, Some(8)), false);
                pods.route_gone(route(0, Some(7)));
            }),
            ("link gone", 0, |pods| pods.link_gone(7)),
            ("link down", 0, |pods| {
                pods.link(
                    &Link {
                        up: false,
                        ..link(7)
                    },
                    true,
                );
            }),
            ("down and up again: its routes are gone", 0, |pods| {
                pods.link(
                    &Link {
                        up: false,
                        ..link(7)
                    },
                    true,
                );
                pods.link(&link(7), true);
            }),
            ("somebody's queue", 0, |pods| {
                pods.link(
                    &Link {
                        qdisc: "tbf".to_owned(),
                        ..link(7)
                    },
                    true,
                );
            }),
            ("somebody's program", 0, |pods| {
                pods.recheck(|ifindex| ifindex != 7);
            }),
            ("somebody's program, and gone", 7, |pods| {
                pods.link(&link(7), false);
                pods.recheck(|_| true);
            }),
            ("replaced by a pod that nobody met", 0, |pods| {
                pods.link_gone(7);
                pods.link(&link(9), true);
                pods.route(route(0, Some(9)), false);
            }),
        ];
        for (what, expected, change) in cases {
            let mut pods = known();
            assert_eq!(straight(&mut pods), 7);
            change(&mut pods);
            assert_eq!(straight(&mut pods), expected, "{what}");
            let mut again = pods.clone();
            again.start_over();
            assert_eq!(
                straight(&mut again),
                0,
                "{what}: nothing is known before it is listed"
            );
        }
    }

    #[test]
    fn only_news_are_told() {
        let mut pods = known();
        assert_eq!(pods.news().len(), 1);
        pods.route(route(0, Some(7)), true);
        pods.neighbour(neighbour(7));
        pods.link(&link(7), true);
        assert_eq!(pods.news(), []);
        let mut successor = Pods::new(pods.told.clone());
        successor.link(&link(7), true);
        successor.neighbour(neighbour(7));
        successor.route(route(0, Some(7)), false);
        assert_eq!(successor.news(), [], "a successor finds what it would say");
    }
}
