//! Who may ask the DNS server of `up`: this host, its pods, the cluster's other nodes and their pods, and whom
//! `--cluster-dns-clients` names. Whoever else reaches this host's address would find an open resolver.
//!
//! Pods of this host are known by the way to them, as no range that names them need exist: their addresses are routed
//! out of a link that does not lead off this host.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use client::{Client, Params};
use futures_util::StreamExt as _;
use ipnet::IpNet;
use net::{Change, Link, Links, Towards};
use view::Event;
use view::objects::Node;

/// How long a decision stands: a pod's address may come to be, or be another's.
const STANDS: Duration = Duration::from_secs(2);
/// Decisions that are remembered. A client more starts the memory anew.
const REMEMBERED: usize = 4096;
/// How often default routes are looked at, of which no event tells.
const LOOK: Duration = Duration::from_secs(10);
/// Between two lines of the log about strangers.
const TELL: Duration = Duration::from_secs(60);

/// Decides who may ask.
pub(crate) struct Askers {
    /// Ranges that were given; nothing to let everybody ask.
    given: Option<Vec<IpNet>>,
    /// Devices that were named as the node's own.
    devices: Vec<String>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// By name of the Node: its addresses, and the ranges of its pods.
    nodes: BTreeMap<String, Vec<IpNet>>,
    /// Links that lead off this host.
    outer: BTreeSet<u32>,
    decided: HashMap<IpAddr, (bool, Instant)>,
    told: Option<Instant>,
}

impl Askers {
    /// `given` are ranges, or the word `any`.
    pub(crate) fn new(given: &[Clients], devices: &[String]) -> Arc<Self> {
        let ranges = given.iter().map(|clients| match clients {
            Clients::Any => None,
            Clients::Range(range) => Some(*range),
        });
        Arc::new(Askers {
            given: ranges.collect(),
            devices: devices.to_vec(),
            known: Mutex::default(),
        })
    }

    /// Whether an address may ask.
    pub(crate) fn may_ask(&self, addr: IpAddr) -> bool {
        let Some(given) = &self.given else {
            return true;
        };
        if addr.is_loopback() || given.iter().any(|range| range.contains(&addr)) {
            return true;
        }
        let now = Instant::now();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match known.decided.get(&addr) {
            Some((may, until)) if now < *until => return *may,
            _ => {}
        }
        let may = known.is_of_the_cluster(addr);
        if known.decided.len() >= REMEMBERED {
            known.decided.clear();
        }
        known.decided.insert(addr, (may, now + STANDS));
        if !may && known.told.is_none_or(|told| now - told > TELL) {
            known.told = Some(now);
            tracing::warn!(
                %addr,
                "a DNS query was refused: it comes neither from this host, its pods nor the cluster's nodes; \
                 --cluster-dns-clients lets others ask"
            );
        }
        may
    }

    /// Follows nodes and links. Call it inside the runtime.
    pub(crate) async fn follow(self: Arc<Self>, client: Client) -> anyhow::Result<()> {
        if self.given.is_none() {
            return Ok(());
        }
        let mut links = Links::open()?;
        self.outer(&links.list().await?);
        tokio::spawn(async move {
            let mut nodes = client.watch::<Node>(Params::default());
            let mut looks = tokio::time::interval(LOOK);
            loop {
                tokio::select! {
                    Some(event) = nodes.next() => self.node(event),
                    change = links.next() => match change {
                        Some(Change::Link(_) | Change::Gone { .. } | Change::Missed) => looks.reset_immediately(),
                        Some(_) => {}
                        None => return,
                    },
                    _ = looks.tick() => match links.list().await {
                        Ok(found) => self.outer(&found),
                        Err(error) => tracing::warn!(%error, "who may ask for names is as it was"),
                    },
                }
            }
        });
        Ok(())
    }

    fn node(&self, event: Event<Node>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Applied(node) => {
                let ranges = ranges(&node);
                known.nodes.insert(node.metadata.name, ranges);
            }
            Event::Deleted { name, .. } => {
                known.nodes.remove(&name);
            }
            // Until the list is complete, those that are known stay.
            Event::Restarted | Event::Synced => {}
        }
        known.decided.clear();
    }

    fn outer(&self, links: &[Link]) {
        let outer = links
            .iter()
            .filter(|link| leads_off(link, &self.devices))
            .map(|link| link.ifindex)
            .collect();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.outer != outer {
            known.outer = outer;
            known.decided.clear();
        }
    }
}

impl Known {
    fn is_of_the_cluster(&self, addr: IpAddr) -> bool {
        let mut ranges = self.nodes.values().flatten();
        if ranges.any(|range| range.contains(&addr)) {
            return true;
        }
        match net::towards(addr) {
            Ok(Some(Towards::Here)) => true,
            Ok(Some(Towards::Link(ifindex))) => !self.outer.contains(&ifindex),
            Ok(None) => false,
            Err(error) => {
                tracing::debug!(%error, %addr, "the way to a client is not known");
                false
            }
        }
    }
}

/// Whether a link leads to other hosts: hardware, a device of the node, or one with a default route.
fn leads_off(link: &Link, devices: &[String]) -> bool {
    let hardware = link.kind.is_none() && !link.loopback;
    hardware || devices.contains(&link.name) || link.default_route
}

/// A Node's addresses, and the ranges of its pods.
fn ranges(node: &Node) -> Vec<IpNet> {
    let spec = &node.spec;
    let pods = spec.pod_cidrs.iter().chain([&spec.pod_cidr]);
    let pods = pods.filter_map(|range| range.parse::<IpNet>().ok());
    let addresses = node.status.addresses.iter();
    let addresses = addresses.filter_map(|address| address.address.parse::<IpAddr>().ok());
    pods.chain(addresses.map(IpNet::from)).collect()
}

/// A value of `--cluster-dns-clients`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Clients {
    /// Everybody.
    Any,
    /// A range beside the cluster's.
    Range(IpNet),
}

impl std::str::FromStr for Clients {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "any" {
            return Ok(Clients::Any);
        }
        let range = text
            .parse::<IpNet>()
            .or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        let range = range.map(Clients::Range);
        range.map_err(|_| "write ranges such as 192.0.2.0/24, or any".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(name: &str, kind: Option<&str>, loopback: bool) -> Link {
        Link {
            ifindex: 7,
            name: name.to_owned(),
            kind: kind.map(str::to_owned),
            up: true,
            loopback,
            enslaved: false,
            peer_elsewhere: true,
            default_route: false,
            hardware_address: Vec::new(),
            qdisc: String::new(),
            addresses: Vec::new(),
            mtu: 1500,
        }
    }

    #[test]
    fn links_that_lead_off_the_host() {
        let devices = ["uplink".to_owned()];
        for (name, kind, loopback, off) in [
            ("lo", None, true, false),
            ("eth1", None, false, true),
            ("uplink", Some("veth"), false, true),
            ("bond0", Some("bond"), false, true),
            ("cni0", Some("bridge"), false, false),
            ("veth9", Some("veth"), false, false),
        ] {
            let link = Link {
                default_route: name == "bond0",
                ..link(name, kind, loopback)
            };
            let found = leads_off(&link, &devices);
            assert_eq!(found, off, "{name}");
        }
    }

    #[test]
    fn ranges_of_a_node_and_those_that_are_given() {
        let given: Vec<Clients> = ["192.0.2.0/24", "2001:db8::1"]
            .map(|text| text.parse().expect("a range"))
            .to_vec();
        let askers = Askers::new(&given, &[]);
        let node: Node = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "other"},
            "spec": {"podCIDR": "10.245.1.0/24", "podCIDRs": ["10.245.1.0/24", "fd00:1::/64"]},
            "status": {"addresses": [
                {"type": "InternalIP", "address": "198.51.100.7"}, {"type": "Hostname", "address": "other"},
            ]},
        }))
        .expect("a Node");
        askers.node(Event::Applied(node));
        let inside = [
            "127.0.0.1",
            "::1",
            "192.0.2.77",
            "2001:db8::1",
            "10.245.1.9",
            "fd00:1::2",
            "198.51.100.7",
        ];
        for addr in inside {
            assert!(askers.may_ask(addr.parse().expect("an address")), "{addr}");
        }
        askers.node(Event::Deleted {
            namespace: String::new(),
            name: "other".to_owned(),
        });
        // Where a route leads there all the same, it is by a link that leads off.
        askers.known.lock().expect("no panic").outer = (1..1000).collect();
        for addr in ["2001:db8::2", "10.245.1.9", "198.51.100.7"] {
            assert!(!askers.may_ask(addr.parse().expect("an address")), "{addr}");
        }
        let anybody = Askers::new(&[Clients::Any], &[]);
        assert!(anybody.may_ask([203, 0, 113, 9].into()));
        assert!("192.0.2.0/33".parse::<Clients>().is_err());
    }
}
