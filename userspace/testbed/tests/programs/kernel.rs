//! The programs in the kernel, with tables of the test's own, run on one packet at a time.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use abi::{
    Backend, Counter, Endpoint, Frontend, HostRouting, NodeConfig, Scope, endpoints, family,
};
use anyhow::Result;
use bpf::{Capacities, Datapath, DnsTable, Settings};
use plan::{FrontendKey, Step, Store as _};
use testbed::Netns;
use testbed::bpffs::Bpffs;
use testbed::packet::Packet;

/// TC: carry on, drop, redirect.
pub(crate) const NEXT: u32 = u32::MAX;
pub(crate) const SHOT: u32 = 2;
pub(crate) const REDIRECT: u32 = 7;
/// XDP: drop, carry on, send back.
pub(crate) const XDP_DROP: u32 = 1;
pub(crate) const XDP_PASS: u32 = 2;
pub(crate) const XDP_TX: u32 = 3;

/// Link address of the node's device, and of the neighbour that its default route leads to.
pub(crate) const NODE_LINK: [u8; 6] = [2, 0, 0, 0, 0, 0xaa];
pub(crate) const NEXT_HOP: [u8; 6] = [2, 0, 0, 0, 0, 0xfe];

/// Link addresses of a pod and of the host's side of its link.
pub(crate) const POD_LINK: [u8; 6] = [2, 0, 0, 0, 1, 0x0b];
pub(crate) const HOST_LINK: [u8; 6] = [2, 0, 0, 0, 1, 0x0a];
/// Entries of each table of flows.
pub(crate) const FLOWS: u32 = 1024;
/// Index of the loopback device, where packets of a test run arrive.
pub(crate) const LOOPBACK: u32 = 1;
/// Index of one end of the namespace's only veth pair.
pub(crate) const VETH: u32 = 2;

/// Programs and tables; gone when dropped.
pub(crate) struct Kernel {
    pub(crate) datapath: Datapath,
    netns: Netns,
    bpffs: Bpffs,
}

/// What a run did.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) verdict: u32,
    pub(crate) packet: Vec<u8>,
    /// The counters that moved, and by how many packets.
    pub(crate) counted: Vec<(Counter, u64)>,
}

/// Addresses that the tests use, by family.
pub(crate) struct Net {
    pub(crate) client: SocketAddr,
    pub(crate) service: SocketAddr,
    pub(crate) backend: SocketAddr,
    pub(crate) node: IpAddr,
}

pub(crate) fn nets() -> [Net; 2] {
    let a = |s: &str| s.parse().expect("an address");
    [
        Net {
            client: a("10.244.1.7:40000"),
            service: a("10.96.0.10:80"),
            backend: a("10.244.2.9:8080"),
            node: "192.0.2.1".parse().expect("an address"),
        },
        Net {
            client: a("[fd00:1::7]:40000"),
            service: a("[fd00:96::10]:80"),
            backend: a("[fd00:2::9]:8080"),
            node: "2001:db8::1".parse().expect("an address"),
        },
    ]
}

pub(crate) const SCTP: u8 = abi::protocol::SCTP;
pub(crate) const TCP: u8 = abi::protocol::TCP;
pub(crate) const UDP: u8 = abi::protocol::UDP;

impl Kernel {
    pub(crate) fn new() -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let id = format!(
            "fl-prog-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let bpffs = Bpffs::create(&std::env::temp_dir().join(&id))?;
        let netns = Netns::create(&id)?;
        netns.ip("link set lo up
             link add net0 type veth peer name net1
             link set net0 address 02:00:00:00:00:aa
             link set net0 up
             link set net1 up
             addr add 192.0.2.1/24 dev net0
             addr add 2001:db8::1/64 dev net0 nodad
             route add default via 192.0.2.254
             route add default via 2001:db8::fe
             neigh add 192.0.2.254 lladdr 02:00:00:00:00:fe dev net0
             neigh add 2001:db8::fe lladdr 02:00:00:00:00:fe dev net0")?;
        netns.sysctl(&[
            ("net/ipv4/ip_forward", "1"),
            ("net/ipv6/conf/all/forwarding", "1"),
        ])?;
        let datapath = netns.run(|| {
            Ok(Datapath::open(&Settings {
                bpffs_root: bpffs.path().join("fairlead"),
                cgroup_root: None,
                capacities: Capacities {
                    frontends: 64,
                    rings: 128,
                    backends: 64,
                    sources: 64,
                    spreads: 1_024,
                    affinity: 1024,
                    flows: FLOWS,
                    reverse_sockets: 64,
                },
                tcx: true,
            })?)
        })?;
        let mut kernel = Self {
            datapath,
            netns,
            bpffs,
        };
        let (v4, v6) = ([192, 0, 2, 1], nets()[1].node);
        let IpAddr::V6(v6) = v6 else { unreachable!() };
        kernel.datapath.set_node(&NodeConfig {
            addr4: v4,
            addr6: v6.octets(),
            snat_port_min: 61_000.into(),
            snat_port_max: 61_003.into(),
        })?;
        Ok(kernel)
    }

    /// A service with one backend, or none; its number tells the tables' places.
    pub(crate) fn service(
        &mut self,
        id: u32,
        at: SocketAddr,
        proto: u8,
        backend: Option<SocketAddr>,
        local: bool,
    ) -> Result<()> {
        let frontend = Frontend {
            service: id,
            ring_offset: id,
            ring_len: u32::from(backend.is_some()),
            affinity_secs: 0,
            flags: 0,
        };
        let mut steps = Vec::new();
        if let Some(backend) = backend {
            steps.push(Step::PutBackend(id, self::backend(id, backend, local)));
            steps.push(Step::PutRing {
                offset: id,
                backends: vec![id],
            });
        }
        steps.push(Step::PutFrontend(key(at, proto), frontend));
        self.datapath.apply(&steps)?;
        Ok(())
    }

    /// A service with several backends of this node behind a table in which they take turns.
    pub(crate) fn spread(
        &mut self,
        id: u32,
        at: SocketAddr,
        proto: u8,
        backends: &[SocketAddr],
        flags: u32,
    ) -> Result<()> {
        let count = backends.len() as u32;
        let mut steps = Vec::new();
        for (n, addr) in (id..).zip(backends) {
            steps.push(Step::PutBackend(n, self::backend(id, *addr, true)));
        }
        let places: Vec<u8> = (0..8).map(|place| place % count as u8 + 1).collect();
        let word = |from: usize| u32::from_le_bytes(std::array::from_fn(|i| places[from + i]));
        steps.push(Step::PutSpread {
            offset: id,
            words: [[8, count], [word(0), word(4)]].into(),
        });
        steps.push(Step::PutRing {
            offset: id,
            backends: (id..id + count).chain([id]).collect(),
        });
        let frontend = Frontend {
            service: id,
            ring_offset: id,
            ring_len: count,
            affinity_secs: 0,
            flags,
        };
        steps.push(Step::PutFrontend(key(at, proto), frontend));
        self.datapath.apply(&steps)?;
        Ok(())
    }

    /// Says that an address is a service's alone.
    pub(crate) fn whole_address(&mut self, addr: IpAddr) -> Result<()> {
        let key = key(SocketAddr::new(addr, 0), abi::frontends::WHOLE_ADDRESS);
        self.datapath
            .apply(&[Step::PutFrontend(key, Frontend::default())])?;
        Ok(())
    }

    /// Lets XDP send from the device that packets of a test run arrive at (the loopback) and from the node's.
    pub(crate) fn allow_xdp_transmit(&mut self) -> Result<()> {
        self.flag_devices(abi::devices::flags::XDP_TRANSMIT)
    }

    /// Says that XDP runs on them.
    pub(crate) fn say_xdp_runs(&mut self) -> Result<()> {
        self.flag_devices(abi::devices::flags::XDP_RUNS)
    }

    /// Says that pods' packets may leave by them.
    pub(crate) fn say_tc_runs(&mut self) -> Result<()> {
        self.flag_devices(abi::devices::flags::TC_RUNS)
    }

    fn flag_devices(&mut self, flags: u32) -> Result<()> {
        let device = abi::Device { flags };
        // Interfaces of a new namespace are numbered from 1 on: lo, then a veth and its peer, in either order.
        for ifindex in 1..=3 {
            self.datapath.set_device(ifindex, device)?;
        }
        Ok(())
    }

    /// Says that a pod with an address is at a link; packets go straight to pods from now on.
    pub(crate) fn pod(&mut self, addr: IpAddr, ifindex: u32) -> Result<()> {
        self.datapath.set_endpoint(addr, Some(endpoint(ifindex)))?;
        self.lease(u32::MAX)
    }

    /// Lets packets go straight to pods until then.
    pub(crate) fn lease(&mut self, until_secs: u32) -> Result<()> {
        Ok(self.datapath.set_host_routing(&HostRouting {
            until_secs4: until_secs,
            until_secs6: until_secs,
            ..HostRouting::default()
        })?)
    }

    /// Where everything is pinned.
    pub(crate) fn root(&self) -> PathBuf {
        self.bpffs.path().join("fairlead")
    }

    /// The table of DNS names.
    pub(crate) fn dns_table(&self) -> Result<DnsTable> {
        Ok(DnsTable::open(&self.root())?)
    }

    /// The node's namespace.
    pub(crate) fn netns(&self) -> &Netns {
        &self.netns
    }

    pub(crate) fn run(&self, program: &str, packet: &[u8]) -> Result<Ran> {
        self.run_in(program, packet, &[])
    }

    /// As [`Kernel::run`], in a `struct __sk_buff` or `struct xdp_md` that begins so.
    pub(crate) fn run_in(&self, program: &str, packet: &[u8], context: &[u8]) -> Result<Ran> {
        let before = self.datapath.counters()?;
        let ran = self
            .netns
            .run(|| Ok(self.datapath.test_run(program, packet, context, 1)?))?;
        let counted = self
            .datapath
            .counters()?
            .into_iter()
            .zip(before)
            .filter(|((_, after), (_, before))| after != before)
            .map(|((counter, after), (_, before))| (counter, after.packets - before.packets))
            .collect();
        Ok(Ran {
            verdict: ran.verdict,
            packet: ran.packet,
            counted,
        })
    }

    /// Runs and compares everything.
    #[track_caller]
    pub(crate) fn expect(
        &self,
        what: &str,
        program: &str,
        packet: &Packet,
        verdict: u32,
        out: &Packet,
        counter: Option<Counter>,
    ) {
        let ran = self
            .run(program, &packet.bytes())
            .expect("the program runs");
        let counted: Vec<_> = counter.into_iter().map(|counter| (counter, 1)).collect();
        assert_eq!(
            ran.verdict, verdict,
            "{what}: verdict of {program}, {ran:?}"
        );
        assert_eq!(ran.counted, counted, "{what}: counters of {program}");
        let out = out.bytes();
        assert!(
            ran.packet == out,
            "{what}: packet out of {program}\n  is {:02x?}\n not {out:02x?}",
            ran.packet
        );
    }

    /// Runs the program for its time: nanoseconds of one run in the mean.
    pub(crate) fn time(&self, program: &str, packet: &[u8]) -> Result<u32> {
        self.netns.run(|| {
            Ok(self
                .datapath
                .test_run(program, packet, &[], 100_000)?
                .duration_ns)
        })
    }
}

/// A pod behind the link of that index.
pub(crate) fn endpoint(ifindex: u32) -> Endpoint {
    Endpoint {
        ifindex,
        flags: endpoints::flags::DIRECT,
        pod_link: POD_LINK,
        host_link: HOST_LINK,
        _pad: [0; 2],
    }
}

pub(crate) fn key(at: SocketAddr, proto: u8) -> FrontendKey {
    FrontendKey::new(at, proto, Scope::Any)
}

pub(crate) fn backend(service: u32, at: SocketAddr, local: bool) -> Backend {
    let mut addr = [0; 16];
    let family = match at.ip() {
        IpAddr::V4(ip) => {
            addr[..4].copy_from_slice(&ip.octets());
            family::V4
        }
        IpAddr::V6(ip) => {
            addr = ip.octets();
            family::V6
        }
    };
    Backend {
        addr,
        port: at.port().into(),
        family,
        flags: if local {
            abi::backends::flags::LOCAL
        } else {
            0
        },
        service,
    }
}

impl Net {
    /// A socket of the node itself: no service's.
    pub(crate) fn node_socket(&self) -> SocketAddr {
        SocketAddr::new(self.node, 22)
    }
}
