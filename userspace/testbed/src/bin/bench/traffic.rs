//! Requests and bytes on each path, interleaved: every round measures every case once, and a ratio compares
//! values of one round.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bpf::XdpMode;
use testbed::balancer::{Balancer, Service};
use testbed::topology::NODE4;
use testbed::{Load, Mode, Node, Place, Pod, Process};

use crate::figures::{Bound, Figure, Figures, median};
use crate::nft;

const HTTP: u16 = 8080;
const NODE_PORT: u16 = 30_080;

/// What is compared with what.
struct Case {
    name: &'static str,
    place: Place,
    target: SocketAddr,
    /// The direct case of the same client; `None` for that itself.
    peer: Option<&'static str>,
    /// What `crr_per_s` must reach of the peer's.
    least: Option<f64>,
}

/// A way to measure a case for a moment.
struct Metric {
    name: &'static str,
    unit: &'static str,
    mode: Mode,
    connections: usize,
    /// Whether the bound of the case is on this one.
    bounded: bool,
}

const METRICS: [Metric; 4] = [
    Metric {
        name: "crr_per_s",
        unit: "1/s",
        mode: Mode::Close,
        connections: 1,
        bounded: true,
    },
    Metric {
        name: "crr32_per_s",
        unit: "1/s",
        mode: Mode::Close,
        connections: 32,
        bounded: true,
    },
    Metric {
        name: "round_trip_p50",
        unit: "us",
        mode: Mode::Keep,
        connections: 1,
        bounded: false,
    },
    Metric {
        name: "bulk",
        unit: "Gbit/s",
        mode: Mode::Bulk,
        connections: 1,
        bounded: false,
    },
];

/// A node with one serving pod and a client pod.
struct Site {
    _server: Process,
    server: Pod,
    client: Pod,
    /// A second client, so that no path meets what another one left behind.
    other: Pod,
    node: Node,
}

impl Site {
    fn set() -> Result<Self> {
        let node = Node::create()?;
        let (server, client) = (node.add_pod("web")?, node.add_pod("client")?);
        let other = node.add_pod("other")?;
        let process = server
            .place()
            .serve_http("web", SocketAddr::new([0u16; 8].into(), HTTP))?;
        Ok(Self {
            _server: process,
            server,
            client,
            other,
            node,
        })
    }

    fn direct(&self) -> SocketAddr {
        SocketAddr::new(self.server.address(false), HTTP)
    }
}

pub(crate) fn measure(figures: &mut Figures, quick: bool) -> Result<()> {
    let scales: &[usize] = if quick {
        &[1, 10_000]
    } else {
        &[1, 1_000, 10_000]
    };
    let (rounds, slice) = if quick {
        (9, Duration::from_millis(100))
    } else {
        (15, Duration::from_millis(250))
    };
    // Three sites of one make: no balancing, Fairlead, nftables.
    let (plain, ours, theirs) = (Site::set()?, Site::set()?, Site::set()?);
    let mut balancer = Balancer::open(&ours.node)?;
    balancer.attach_pod(&ours.node, &ours.server)?;
    balancer.attach_pod(&ours.node, &ours.client)?;
    balancer.attach_pod(&ours.node, &ours.other)?;
    balancer.attach_uplink(&ours.node, XdpMode::Native)?;
    for scale in scales {
        balancer.put(&services(*scale, ours.direct()))?;
        theirs
            .node
            .netns()
            .command(
                "nft",
                &["-f", "-"],
                &nft::ruleset(&services(*scale, theirs.direct())),
            )
            .with_context(|| format!("nft with {scale} services"))?;
        // Else the closed connections of a minute fill conntrack's table and the peer drops packets.
        theirs
            .node
            .netns()
            .sysctl(&[("net/netfilter/nf_conntrack_tcp_timeout_time_wait", "1")])?;
        round_trips(
            figures,
            *scale,
            &cases(&plain, &ours, &theirs),
            rounds,
            slice,
        )?;
    }
    Ok(())
}

fn cases(plain: &Site, ours: &Site, theirs: &Site) -> Vec<Case> {
    let cluster_ip = measured(plain.direct()).frontends[0];
    let node_port = SocketAddr::new(NODE4.into(), NODE_PORT);
    let case = |name, place, target, peer, least| Case {
        name,
        place,
        target,
        peer,
        least,
    };
    vec![
        case("direct", plain.client.place(), plain.direct(), None, None),
        case(
            "socket",
            ours.client.place(),
            cluster_ip,
            Some("direct"),
            Some(0.97),
        ),
        case(
            "tc",
            ours.other.place().without_cgroup(),
            cluster_ip,
            Some("direct"),
            Some(0.90),
        ),
        case(
            "nft",
            theirs.client.place(),
            cluster_ip,
            Some("direct"),
            None,
        ),
        case(
            "direct-outside",
            plain.node.outside().place(),
            plain.direct(),
            None,
            None,
        ),
        case(
            "xdp",
            ours.node.outside().place(),
            node_port,
            Some("direct-outside"),
            Some(0.90),
        ),
        case(
            "nft-nodeport",
            theirs.node.outside().place(),
            node_port,
            Some("direct-outside"),
            None,
        ),
    ]
}

fn round_trips(
    figures: &mut Figures,
    scale: usize,
    cases: &[Case],
    rounds: usize,
    slice: Duration,
) -> Result<()> {
    for metric in METRICS {
        let mut values = vec![Vec::with_capacity(rounds); cases.len()];
        for round in 0..=rounds {
            for step in 0..cases.len() {
                // Each round starts elsewhere, so that no case always follows the same one.
                let at = (step + round) % cases.len();
                let case = &cases[at];
                let report = case.place.load(&Load::lasting(
                    case.target,
                    metric.mode,
                    metric.connections,
                    slice,
                ))?;
                ensure!(
                    report.failed == 0 && report.ok > 0,
                    "{}/{scale} {}: {:?}",
                    case.name,
                    metric.name,
                    report.errors
                );
                // The first round warms caches up.
                if round > 0 {
                    values[at].push(match metric.mode {
                        Mode::Close | Mode::Udp => report.per_second(),
                        Mode::Keep => report.latency.quantile(0.5).as_secs_f64() * 1e6,
                        Mode::Bulk => report.gbit_per_second(),
                    });
                }
            }
        }
        let ratio = |at: usize| {
            let peer = cases
                .iter()
                .position(|other| Some(other.name) == cases[at].peer)?;
            let ratios: Vec<f64> = values[at]
                .iter()
                .zip(&values[peer])
                .map(|(mine, theirs)| mine / theirs)
                .collect();
            Some(median(&ratios))
        };
        for (at, case) in cases.iter().enumerate() {
            let figure = Figure {
                case: format!("{}/{scale}", case.name),
                metric: metric.name,
                value: median(&values[at]),
                unit: metric.unit,
                peer: case.peer,
                ratio: ratio(at),
                runs: rounds,
                ..Figure::default()
            };
            figures.add(
                figure,
                case.least.filter(|_| metric.bounded).map(Bound::RatioMin),
            );
        }
        if metric.bounded {
            for (mine, theirs) in [("tc", "nft"), ("xdp", "nft-nodeport")] {
                let of = |name: &str| {
                    cases
                        .iter()
                        .position(|case| case.name == name)
                        .and_then(ratio)
                        .unwrap_or(0.0)
                };
                if of(mine) <= of(theirs) {
                    figures.miss(format!(
                        "{mine}/{scale} {}: {:.3} of direct is not ahead of {theirs}'s {:.3}",
                        metric.name,
                        of(mine),
                        of(theirs)
                    ));
                }
            }
        }
    }
    Ok(())
}

/// That many services; the one that is measured is in the middle of them.
fn services(count: usize, backend: SocketAddr) -> Vec<Service> {
    let mut services: Vec<Service> = (0..count).map(|index| filler(index, backend)).collect();
    services[count / 2] = measured(backend);
    services
}

fn measured(backend: SocketAddr) -> Service {
    Service {
        frontends: vec![
            SocketAddr::from(([10, 96, 0, 10], 80)),
            SocketAddr::new(NODE4.into(), NODE_PORT),
        ],
        protocol: abi::protocol::TCP,
        backends: vec![backend],
        affinity_secs: 0,
    }
}

fn filler(index: usize, backend: SocketAddr) -> Service {
    let [_, _, high, low] = u32::try_from(index).unwrap_or(u32::MAX).to_be_bytes();
    Service {
        frontends: vec![SocketAddr::from(([10, 100, high, low], 80))],
        protocol: abi::protocol::TCP,
        backends: vec![backend],
        affinity_secs: 0,
    }
}
