//! The nodes, the client and the switch; what each node's agent writes.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};

use abi::members::flags::{HERE, KNOWN, NODE};
use abi::protocol::{TCP, UDP as UDP_PROTOCOL};
use abi::{
    Backend, Counter, Frontend, Member, MemberKey, NodeConfig, Scope, backends, devices, family,
    frontends,
};
use anyhow::{Context as _, Result};
use bpf::{Capacities, Datapath, Settings, XdpMode, XdpPass};
use plan::{FrontendKey, Step, Store as _};
use testbed::bpffs::Bpffs;
use testbed::{Netns, Place, Process};

use crate::paths::{HTTP, UDP};

const UPLINK: &str = "uplink";
const PLAIN: &[(&str, &str)] = &[
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv6/conf/all/forwarding", "1"),
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
    ("net/ipv4/tcp_tw_reuse", "1"),
    ("net/ipv6/conf/all/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
];

/// A node: what is left of it without an agent goes with the bpffs.
pub(super) struct Side {
    pub(super) datapath: Option<Datapath>,
    netns: Netns,
    bpffs: Bpffs,
    number: u8,
    xdp: XdpMode,
}

pub(super) struct Cluster {
    pub(super) entry: Side,
    pub(super) other: Side,
    pub(super) client: Netns,
    pod: Netns,
    switch: Netns,
    /// Of the nodes' ports at the switch: a veth whose peer has no XDP program does not look for what is sent back
    /// (XDP_TX).
    _receiving: Vec<XdpPass>,
}

pub(super) fn addr(v6: bool, number: u8) -> IpAddr {
    if v6 {
        Ipv6Addr::new(0xfd31, 0, 0, 0, 0, 0, 0, number.into()).into()
    } else {
        [172, 31, 0, number].into()
    }
}

fn pod_addr(v6: bool) -> IpAddr {
    if v6 {
        Ipv6Addr::new(0xfd10, 0x244, 1, 0, 0, 0, 0, 0x10).into()
    } else {
        [10, 244, 1, 10].into()
    }
}

/// What clients ask: a load balancer's address, and a node port of the node that they reach.
pub(super) fn asked(v6: bool, port: u16) -> [SocketAddr; 2] {
    let balanced: IpAddr = if v6 {
        Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 0x80).into()
    } else {
        [203, 0, 113, 80].into()
    };
    [
        SocketAddr::new(balanced, port + 1),
        SocketAddr::new(addr(v6, 1), port / 10 + 30_000),
    ]
}

impl Side {
    fn new(id: &str, name: &str, number: u8, xdp: XdpMode) -> Result<Side> {
        let netns = Netns::create(&format!("{id}-{name}"))?;
        netns.sysctl(PLAIN)?;
        let bpffs = Bpffs::create(&std::env::temp_dir().join(format!("{id}-{name}")))?;
        Ok(Side {
            datapath: None,
            netns,
            bpffs,
            number,
            xdp,
        })
    }

    /// The agent comes, and finds what it left.
    pub(super) fn agent_comes(&mut self) -> Result<()> {
        let settings = Settings {
            bpffs_root: self.bpffs.path().join("fairlead"),
            cgroup_root: None,
            capacities: Capacities {
                frontends: 64,
                rings: 128,
                backends: 64,
                sources: 64,
                spreads: 1_024,
                affinity: 1_024,
                flows: 16_384,
                reverse_sockets: 64,
            },
            tcx: true,
        };
        let (number, xdp) = (self.number, self.xdp);
        let datapath = self.netns.run(|| {
            let mut datapath = Datapath::open(&settings)?;
            let mut node = NodeConfig {
                snat_port_min: (*abi::config::SNAT_PORTS.start()).into(),
                snat_port_max: (*abi::config::SNAT_PORTS.end()).into(),
                ..NodeConfig::default()
            };
            for v6 in [false, true] {
                match addr(v6, number) {
                    IpAddr::V4(v4) => node.addr4 = v4.octets(),
                    IpAddr::V6(v6) => node.addr6 = v6.octets(),
                }
            }
            datapath.set_node(&node)?;
            datapath.set_members(&members(number))?;
            datapath.apply(&steps(number))?;
            let report = datapath.attach_device(UPLINK, xdp)?;
            if xdp != XdpMode::Off {
                use devices::flags::{TC_RUNS, XDP_RUNS, XDP_TRANSMIT};
                let flags = XDP_RUNS | XDP_TRANSMIT | TC_RUNS;
                datapath.set_device(report.ifindex, abi::Device { flags })?;
            }
            if number == 3 {
                let socket = rustix::net::socket(
                    rustix::net::AddressFamily::INET,
                    rustix::net::SocketType::DGRAM,
                    None,
                )?;
                let pod = rustix::net::netdevice::name_to_index(&socket, "pod0")?;
                datapath.attach_pod(pod)?;
            }
            Ok(datapath)
        })?;
        self.datapath = Some(datapath);
        Ok(())
    }

    /// The agent that comes next is of another release, with another layout: a release whose tables are the same leaves its
    /// pins elsewhere.
    pub(super) fn is_upgraded(&self) -> Result<()> {
        let root = self.bpffs.path().join("fairlead");
        let own = root.join(format!("v{}", abi::LAYOUT_VERSION));
        Ok(std::fs::rename(own, root.join("v0"))?)
    }

    pub(super) fn counted(&self, counter: Counter) -> Result<u64> {
        let view = Datapath::inspect(&self.bpffs.path().join("fairlead"))?;
        let counters = view.counters()?;
        let found = counters.into_iter().find(|(other, _)| *other == counter);
        Ok(found.context("it is counted")?.1.packets)
    }
}

fn members(here: u8) -> BTreeMap<MemberKey, Member> {
    let mut members = BTreeMap::new();
    let mut put = |addr: IpAddr, left_out: u32, flags: u32| {
        let addr = match addr {
            IpAddr::V4(addr) => addr.to_ipv6_mapped(),
            IpAddr::V6(addr) => addr,
        };
        let bits = u128::from(addr) >> left_out << left_out;
        let key = MemberKey {
            prefix_len: 128 - left_out,
            addr: bits.to_be_bytes(),
        };
        let flags = flags | KNOWN;
        members.insert(key, Member { flags });
    };
    for v6 in [false, true] {
        for number in [1, 3] {
            let here = if number == here { HERE } else { 0 };
            put(addr(v6, number), 0, NODE | here);
        }
        let pods = if here == 3 { HERE } else { 0 };
        put(pod_addr(v6), 8, pods);
    }
    members
}

/// Each node knows every frontend; a node port at its own address.
fn steps(here: u8) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut id = 0;
    for v6 in [false, true] {
        for (proto, port) in [(TCP, HTTP), (UDP_PROTOCOL, UDP)] {
            id += 1;
            let mut bytes = [0; 16];
            match pod_addr(v6) {
                IpAddr::V4(v4) => bytes[..4].copy_from_slice(&v4.octets()),
                IpAddr::V6(v6) => bytes = v6.octets(),
            }
            let backend = Backend {
                addr: bytes,
                port: port.into(),
                family: if v6 { family::V6 } else { family::V4 },
                flags: if here == 3 {
                    backends::flags::LOCAL
                } else {
                    backends::flags::TUNNELS
                },
                service: id,
            };
            steps.push(Step::PutBackend(id, backend));
            steps.push(Step::PutRing {
                offset: id,
                backends: vec![id],
            });
            let frontend = Frontend {
                service: id,
                ring_offset: id,
                ring_len: 1,
                affinity_secs: 0,
                flags: frontends::flags::DSR,
            };
            let [balanced, node_port] = asked(v6, port);
            let own = SocketAddr::new(addr(v6, here), node_port.port());
            for at in [balanced, own] {
                steps.push(Step::PutFrontend(key(at, proto), frontend));
            }
        }
    }
    steps
}

fn key(at: SocketAddr, proto: u8) -> FrontendKey {
    FrontendKey::new(at, proto, Scope::Any)
}

impl Cluster {
    pub(super) fn new(xdp: XdpMode) -> Result<Cluster> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let id = format!("fl-{}-d{count}", std::process::id());
        let switch = Netns::create(&format!("{id}-switch"))?;
        switch.ip("link add br0 type bridge\nlink set br0 up\n")?;
        let client = Netns::create(&format!("{id}-client"))?;
        client.sysctl(&PLAIN[2..])?;
        let mut entry = Side::new(&id, "entry", 1, xdp)?;
        let mut other = Side::new(&id, "other", 3, xdp)?;
        for (port, netns, number) in [
            ("entry", &entry.netns, 1),
            ("client", &client, 2),
            ("other", &other.netns, 3),
        ] {
            switch.ip(&format!(
                "link add {port} type veth peer name {UPLINK} netns {}\n\
                 link set {port} master br0\nlink set {port} up\n",
                netns.name()
            ))?;
            netns.ip(&format!(
                "addr add {}/24 dev {UPLINK}\naddr add {}/64 dev {UPLINK} nodad\n\
                 link set {UPLINK} up\n",
                addr(false, number),
                addr(true, number)
            ))?;
        }
        let mut receiving = Vec::new();
        if xdp == XdpMode::Native {
            for port in ["entry", "other"] {
                receiving.push(switch.run(|| Ok(XdpPass::attach(port)?))?);
            }
        }
        // Whole checksums, as on a wire.
        client.command("ethtool", &["-K", UPLINK, "tx", "off"], "")?;
        client.ip(&format!(
            "route add 203.0.113.0/24 via {}\nroute add 2001:db8:113::/64 via {}\n",
            addr(false, 1),
            addr(true, 1)
        ))?;
        entry.netns.ip(&format!(
            "route add 10.244.1.0/24 via {}\nroute add fd10:244:1::/64 via {}\n",
            addr(false, 3),
            addr(true, 3)
        ))?;
        let pod = Netns::create(&format!("{id}-pod"))?;
        pod.sysctl(&PLAIN[2..])?;
        other.netns.ip(&format!(
            "link add pod0 type veth peer name eth0 netns {}\n\
             addr add 169.254.1.1/32 dev pod0 scope link\naddr add fe80::1/64 dev pod0 nodad\n\
             link set pod0 up\n",
            pod.name()
        ))?;
        let (four, six) = (pod_addr(false), pod_addr(true));
        pod.ip(&format!(
            "link set eth0 up\naddr add {four}/32 dev eth0\naddr add {six}/128 dev eth0 nodad\n\
             route add 169.254.1.1 dev eth0 scope link\n\
             route add default via 169.254.1.1 dev eth0\nroute add default via fe80::1 dev eth0\n"
        ))?;
        other.netns.ip(&format!(
            "route add {four}/32 dev pod0\nroute add {six}/128 dev pod0\n"
        ))?;
        entry.agent_comes()?;
        other.agent_comes()?;
        Ok(Cluster {
            entry,
            other,
            client,
            pod,
            switch,
            _receiving: receiving,
        })
    }

    pub(super) fn place(netns: &Netns) -> Place {
        Place {
            netns: netns.path(),
            cgroup: None,
            cpu: None,
        }
    }

    pub(super) fn servers(&self) -> Result<Vec<Process>> {
        let place = Self::place(&self.pod);
        let mut servers = Vec::new();
        for v6 in [false, true] {
            servers.push(place.serve_http("web", SocketAddr::new(pod_addr(v6), HTTP))?);
            servers.push(place.serve_udp("web", SocketAddr::new(pod_addr(v6), UDP))?);
        }
        Ok(servers)
    }

    /// Packets that a port of the switch took from its node, and gave to it.
    pub(super) fn passed(&self, port: &str) -> Result<(u64, u64)> {
        self.switch.run(|| {
            let all = std::fs::read_to_string("/proc/thread-self/net/dev")?;
            let line = all.lines().find_map(|line| {
                let (name, figures) = line.trim().split_once(':')?;
                (name == port).then(|| figures.to_owned())
            });
            let line = line.with_context(|| format!("no device {port}"))?;
            let figures: Vec<u64> = line
                .split_whitespace()
                .map(|figure| figure.parse().unwrap_or(0))
                .collect();
            Ok((figures[1], figures[9]))
        })
    }
}
