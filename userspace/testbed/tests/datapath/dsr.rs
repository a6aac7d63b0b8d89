//! Two nodes and a client on one link: the client asks one node, a pod of the other one answers straight.
//!
//! ```text
//!   client 172.31.0.2  fd31::2 ──┐
//!   entry  172.31.0.1  fd31::1 ──┼── switch
//!   other  172.31.0.3  fd31::3 ──┘
//!     pod 10.244.1.10  fd10:244:1::10
//! ```

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use abi::members::flags::{HERE, KNOWN, NODE};
use abi::protocol::{TCP, UDP as UDP_PROTOCOL};
use abi::{
    Backend, Counter, Frontend, FrontendKey4, FrontendKey6, Member, MemberKey, NodeConfig, Scope,
    backends, devices, family, frontends,
};
use anyhow::{Context as _, Result};
use bpf::{Capacities, Datapath, Settings, XdpMode, XdpPass};
use plan::{FrontendKey, Step, Store as _};
use testbed::bpffs::Bpffs;
use testbed::probe::How;
use testbed::{Load, Mode, Netns, Place, Process};

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
struct Side {
    datapath: Option<Datapath>,
    netns: Netns,
    bpffs: Bpffs,
    number: u8,
    xdp: XdpMode,
}

struct Cluster {
    entry: Side,
    other: Side,
    client: Netns,
    pod: Netns,
    switch: Netns,
    /// Of the nodes' ports at the switch: a veth whose peer has no XDP program does not look for what is sent back
    /// (XDP_TX).
    _receiving: Vec<XdpPass>,
}

fn addr(v6: bool, number: u8) -> IpAddr {
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
fn asked(v6: bool, port: u16) -> [SocketAddr; 2] {
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
    fn agent_comes(&mut self) -> Result<()> {
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

    fn counted(&self, counter: Counter) -> Result<u64> {
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
    let (port, scope) = (at.port().into(), Scope::Any as u8);
    match at.ip() {
        IpAddr::V4(addr) => FrontendKey::V4(FrontendKey4 {
            addr: addr.octets(),
            port,
            proto,
            scope,
        }),
        IpAddr::V6(addr) => FrontendKey::V6(FrontendKey6 {
            addr: addr.octets(),
            port,
            proto,
            scope,
        }),
    }
}

impl Cluster {
    fn new(xdp: XdpMode) -> Result<Cluster> {
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

    fn place(netns: &Netns) -> Place {
        Place {
            netns: netns.path(),
            cgroup: None,
            cpu: None,
        }
    }

    fn servers(&self) -> Result<Vec<Process>> {
        let place = Self::place(&self.pod);
        let mut servers = Vec::new();
        for v6 in [false, true] {
            servers.push(place.serve_http("web", SocketAddr::new(pod_addr(v6), HTTP))?);
            servers.push(place.serve_udp("web", SocketAddr::new(pod_addr(v6), UDP))?);
        }
        Ok(servers)
    }

    /// Packets that a port of the switch took from its node, and gave to it.
    fn passed(&self, port: &str) -> Result<(u64, u64)> {
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

#[test]
fn answers_go_straight_to_the_client() -> Result<()> {
    for xdp in [XdpMode::Off, XdpMode::Native] {
        let cluster = Cluster::new(xdp)?;
        let _servers = cluster.servers()?;
        let client = Cluster::place(&cluster.client);
        for v6 in [false, true] {
            for how in [How::Tcp, How::UdpConnected, How::UdpUnconnected] {
                let port = if how == How::Tcp { HTTP } else { UDP };
                for target in asked(v6, port) {
                    let seen = client.probe(how, target)?;
                    assert_eq!(seen.error, None, "{xdp} {how:?} {target}");
                    assert_eq!(seen.peer, Some(target), "{xdp} {how:?} {target}");
                    let who = seen.client.context("the backend saw somebody")?;
                    assert_eq!(who.ip(), addr(v6, 2), "{xdp} {how:?} {target}");
                }
            }
            let [target, _] = asked(v6, HTTP);
            let before = (cluster.passed("client")?, cluster.passed("entry")?);
            let report = client.load(&Load::requests(target, 300))?;
            assert_eq!((report.ok, report.failed), (300, 0), "{:?}", report.errors);
            let after = (cluster.passed("client")?, cluster.passed("entry")?);
            let asked = after.0.0 - before.0.0;
            let answered = after.0.1 - before.0.1;
            let entered = after.1.1 - before.1.1;
            assert!(answered > 900, "{xdp}: {answered} packets for the client");
            assert!(
                entered <= asked + 60,
                "{xdp} v6={v6}: of {answered} answers some passed the node that was asked: {entered} packets for it, \
                 {asked} from the client"
            );
        }
        for counter in [Counter::TcReply, Counter::XdpReply, Counter::SnatInstead] {
            assert_eq!(cluster.entry.counted(counter)?, 0, "{}", counter.label());
        }
        let (sent, taken) = if xdp == XdpMode::Off {
            (Counter::TcTunnelled, Counter::TcUntunnelled)
        } else {
            (Counter::XdpTunnelled, Counter::XdpUntunnelled)
        };
        assert!(cluster.entry.counted(sent)? > 1_000, "{xdp}");
        assert!(cluster.other.counted(taken)? > 1_000, "{xdp}");
    }
    Ok(())
}

#[test]
fn long_packets_find_their_length() -> Result<()> {
    for xdp in [XdpMode::Off, XdpMode::Native] {
        let cluster = Cluster::new(xdp)?;
        let _servers = cluster.servers()?;
        let client = Cluster::place(&cluster.client);
        for v6 in [false, true] {
            let [target, _] = asked(v6, HTTP);
            let load = Load::lasting(target, Mode::Bulk, 2, Duration::from_millis(500));
            let report = client.load(&load)?;
            assert_eq!(report.failed, 0, "{xdp} v6={v6}: {:?}", report.errors);
            assert!(
                report.gbit_per_second() > 0.05,
                "{xdp} v6={v6}: {:.3} Gbit/s",
                report.gbit_per_second()
            );
            // A datagram in fragments, the first of which may be too long at first.
            let [target, _] = asked(v6, UDP);
            let answer = cluster.client.run(|| {
                let any: IpAddr = if v6 {
                    Ipv6Addr::UNSPECIFIED.into()
                } else {
                    [0; 4].into()
                };
                let socket = UdpSocket::bind((any, 0))?;
                socket.set_read_timeout(Some(Duration::from_millis(500)))?;
                let mut buffer = [0; 64];
                for _ in 0..10 {
                    socket.send_to(&[7; 5_000], target)?;
                    if let Ok((len, from)) = socket.recv_from(&mut buffer) {
                        return Ok(Some((buffer[..len].to_vec(), from)));
                    }
                }
                Ok(None)
            })?;
            let (text, from) = answer.with_context(|| format!("{xdp} v6={v6}: no answer"))?;
            assert!(text.starts_with(b"web "), "{xdp} v6={v6}");
            assert_eq!(from, target);
        }
    }
    Ok(())
}

#[test]
fn an_error_of_the_backend_s_is_the_service_s() -> Result<()> {
    let cluster = Cluster::new(XdpMode::Off)?;
    for v6 in [false, true] {
        let [target, _] = asked(v6, UDP);
        let refused = cluster.client.run(|| {
            let any: IpAddr = if v6 {
                Ipv6Addr::UNSPECIFIED.into()
            } else {
                [0; 4].into()
            };
            let socket = UdpSocket::bind((any, 0))?;
            socket.connect(target)?;
            socket.set_read_timeout(Some(Duration::from_secs(3)))?;
            socket.send(b"who?")?;
            Ok(socket.recv(&mut [0; 64]).map_err(|error| error.kind()))
        })?;
        assert_eq!(
            refused,
            Err(std::io::ErrorKind::ConnectionRefused),
            "v6={v6}"
        );
        let seen = Cluster::place(&cluster.client).probe(How::Tcp, asked(v6, HTTP)[0])?;
        assert_eq!(seen.error.as_deref(), Some("connection refused"));
    }
    Ok(())
}

#[test]
fn connections_live_on_without_either_agent() -> Result<()> {
    for xdp in [XdpMode::Off, XdpMode::Native] {
        let mut cluster = Cluster::new(xdp)?;
        let _servers = cluster.servers()?;
        let client = Cluster::place(&cluster.client);
        for v6 in [false, true] {
            let [target, _] = asked(v6, HTTP);
            let minute = Duration::from_secs(60);
            let kept = client.start_load(&Load {
                pause_micros: 500,
                ..Load::lasting(target, Mode::Keep, 3, minute)
            })?;
            for side in [true, false] {
                let side = if side {
                    &mut cluster.entry
                } else {
                    &mut cluster.other
                };
                // What a process leaves that is killed: pins, and nobody who holds their lock.
                side.datapath = None;
                let report = client.load(&Load::requests(target, 50))?;
                assert_eq!((report.ok, report.failed), (50, 0), "{:?}", report.errors);
                side.agent_comes()?;
                let report = client.load(&Load::requests(target, 50))?;
                assert_eq!((report.ok, report.failed), (50, 0), "{:?}", report.errors);
            }
            let kept = kept.stop()?;
            assert_eq!(kept.failed, 0, "kept connections: {:?}", kept.errors);
            assert!(kept.ok > 0);
        }
    }
    Ok(())
}
