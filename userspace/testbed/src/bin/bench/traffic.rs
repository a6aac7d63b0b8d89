//! Requests and bytes on each path, interleaved: every round measures every case once, and a ratio compares
//! values of one round.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use bpf::{XdpMode, XdpPass};
use testbed::balancer::{Balancer, Service};
use testbed::topology::{NODE4, UPLINK};
use testbed::{Load, Mode, Node, Place, Pod, Process};

use crate::figures::{Bound, Figure, Figures, median, quantile};
use crate::{nft, policy};

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
            .on_cpu(CPU)
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

/// Server and client share one CPU, so that a rate is the inverse of what a request costs. On two of them each request
/// would wait for a CPU to wake up, which on a virtual machine takes ten times as long as all that is measured here.
const CPU: usize = 0;

/// How often each case is measured, and for how long each time. Other guests of the machine take its CPU for tenths of a
/// second: many short slices one after the other are disturbed alike.
struct Effort {
    rounds: usize,
    /// For metrics that nothing is demanded of.
    rounds_unbounded: usize,
    slice: Duration,
}

/// `wanted` names the cases, all where it is empty.
pub(crate) fn measure(figures: &mut Figures, quick: bool, wanted: &[String]) -> Result<()> {
    let scales: &[usize] = if quick {
        &[1, 10_000]
    } else {
        &[1, 1_000, 10_000, 100_000]
    };
    let effort = if quick {
        Effort {
            rounds: 31,
            rounds_unbounded: 5,
            slice: Duration::from_millis(25),
        }
    } else {
        Effort {
            rounds: 101,
            rounds_unbounded: 15,
            slice: Duration::from_millis(30),
        }
    };
    // Sites of one make: no balancing; that with an XDP program that does nothing; Fairlead; Fairlead with the stack's
    // routing; Fairlead with policies at both ends; nftables.
    let sites = Sites {
        plain: Site::set()?,
        passing: Site::set()?,
        ours: Site::set()?,
        stack: Site::set()?,
        judged: Site::set()?,
        theirs: Site::set()?,
    };
    let _pass = sites
        .passing
        .node
        .netns()
        .run(|| Ok(XdpPass::attach(UPLINK)?))?;
    let mut ours = balancer(&sites.ours, true)?;
    let mut stack = balancer(&sites.stack, false)?;
    let judged = balancer(&sites.judged, true)?;
    let ends = [&sites.judged.server, &sites.judged.client];
    policy::hold(&judged, &sites.judged.node, &ends, HTTP)?;
    let mut first = Ratios::new();
    for scale in scales {
        ours.put(&services(*scale, sites.ours.direct()))?;
        stack.put(&services(*scale, sites.stack.direct()))?;
        let mut cases = chosen(cases(&sites), wanted)?;
        if *scale <= RULES_MAX {
            rule(&sites.theirs, *scale)?;
        } else {
            cases.retain(|case| !case.name.starts_with("nft"));
        }
        let ratios = round_trips(figures, *scale, &cases, &effort)?;
        for (case, ratio) in &ratios {
            let Some(first) = first.get(case) else {
                continue;
            };
            // Whatever the machine does meanwhile is in both ratios; what is left is the number of Services.
            if ratio / first < FLAT {
                figures.miss(format!(
                    "{}/{scale} {}: a ratio of {ratio:.3}, with {} Services {first:.3}",
                    case.0, case.1, scales[0]
                ));
            }
        }
        if first.is_empty() {
            first = ratios;
        }
    }
    Ok(())
}

/// Above that the kernel takes minutes to accept the peer's ruleset, which has two chains for each Service.
const RULES_MAX: usize = 10_000;

/// Gives a site the peer's rules.
fn rule(site: &Site, scale: usize) -> Result<()> {
    let netns = site.node.netns();
    netns
        .command(
            "nft",
            &["-f", "-"],
            &nft::ruleset(&services(scale, site.direct())),
        )
        .with_context(|| format!("nft with {scale} services"))?;
    // Else the closed connections of a minute fill conntrack's table and the peer drops packets.
    netns.sysctl(&[("net/netfilter/nf_conntrack_tcp_timeout_time_wait", "1")])
}

/// By case and metric, what Fairlead reached of the direct path.
type Ratios = BTreeMap<(&'static str, &'static str), f64>;

/// What must be left with many Services of the ratio that one Service has.
const FLAT: f64 = 0.95;

struct Sites {
    plain: Site,
    passing: Site,
    ours: Site,
    stack: Site,
    judged: Site,
    theirs: Site,
}

/// Fairlead on a site. `straight` is how `fairlead up` finds such a node: nothing hangs in its stack, so packets go
/// straight to pods.
fn balancer(site: &Site, straight: bool) -> Result<Balancer> {
    let mut balancer = Balancer::open(&site.node)?;
    for pod in [&site.server, &site.client, &site.other] {
        balancer.attach_pod(&site.node, pod)?;
        if straight {
            balancer.route_pod(&site.node, pod)?;
        }
    }
    balancer.attach_uplink(&site.node, XdpMode::Native)?;
    Ok(balancer)
}

fn cases(sites: &Sites) -> Vec<Case> {
    let Sites {
        plain,
        passing,
        ours,
        stack,
        judged,
        theirs,
    } = sites;
    let cluster_ip = measured(plain.direct()).frontends[0];
    let node_port = SocketAddr::new(NODE4.into(), NODE_PORT);
    let case = |name, place: Place, target, peer, least| Case {
        name,
        place: place.on_cpu(CPU),
        target,
        peer,
        least,
    };
    let (direct, outside) = (Some("direct"), Some("direct-outside"));
    let unhooked = |site: &Site| site.other.place().without_cgroup();
    let beyond = |site: &Site| site.node.outside().place();
    vec![
        case("direct", plain.client.place(), plain.direct(), None, None),
        case(
            "socket",
            ours.client.place(),
            cluster_ip,
            direct,
            Some(0.97),
        ),
        case("tc", unhooked(ours), cluster_ip, direct, Some(0.93)),
        case(
            "socket-kernel",
            stack.client.place(),
            cluster_ip,
            direct,
            None,
        ),
        case("tc-kernel", unhooked(stack), cluster_ip, direct, None),
        case("pods", ours.client.place(), ours.direct(), direct, None),
        case(
            "policy-10000",
            judged.client.place(),
            judged.direct(),
            Some("pods"),
            Some(0.97),
        ),
        case("nft", theirs.client.place(), cluster_ip, direct, None),
        case("direct-outside", beyond(plain), plain.direct(), None, None),
        case(
            "direct-xdp-pass",
            beyond(passing),
            passing.direct(),
            outside,
            None,
        ),
        case("xdp", beyond(ours), node_port, outside, Some(0.90)),
        case("xdp-kernel", beyond(stack), node_port, outside, None),
        case("nft-nodeport", beyond(theirs), node_port, outside, None),
    ]
}

/// Those cases that are wanted, and what they are compared with.
fn chosen(cases: Vec<Case>, wanted: &[String]) -> Result<Vec<Case>> {
    if wanted.is_empty() {
        return Ok(cases);
    }
    let names: Vec<&str> = cases.iter().map(|case| case.name).collect();
    let unknown = wanted.iter().find(|name| !names.contains(&name.as_str()));
    if let Some(unknown) = unknown {
        bail!("there is no case {unknown}, only {}", names.join(", "));
    }
    // A peer stands before those that are compared with it.
    let mut kept: Vec<Case> = Vec::new();
    for case in cases.into_iter().rev() {
        let is_peer = |other: &Case| other.peer == Some(case.name);
        if wanted.iter().any(|name| name == case.name) || kept.iter().any(is_peer) {
            kept.push(case);
        }
    }
    kept.reverse();
    Ok(kept)
}

/// Measures at one scale; the ratios of the cases that something is demanded of.
fn round_trips(
    figures: &mut Figures,
    scale: usize,
    cases: &[Case],
    effort: &Effort,
) -> Result<Ratios> {
    let mut bounded = Ratios::new();
    for metric in METRICS {
        let rounds = if metric.bounded {
            effort.rounds
        } else {
            effort.rounds_unbounded
        };
        let values = slices(scale, cases, &metric, rounds, effort.slice)?;
        let ratios = |at: usize| -> Option<Vec<f64>> {
            let peer = cases
                .iter()
                .position(|other| Some(other.name) == cases[at].peer)?;
            let pairs = values[at].iter().zip(&values[peer]);
            Some(
                pairs
                    .filter_map(|(mine, theirs)| Some((*mine)? / (*theirs)?))
                    .collect(),
            )
        };
        for (at, case) in cases.iter().enumerate() {
            let measured: Vec<f64> = values[at].iter().copied().flatten().collect();
            let ratios = ratios(at);
            let demanded = case.least.filter(|_| metric.bounded);
            if let (Some(ratios), Some(_)) = (&ratios, demanded) {
                bounded.insert((case.name, metric.name), median(ratios));
            }
            let figure = Figure {
                case: format!("{}/{scale}", case.name),
                metric: metric.name,
                value: median(&measured),
                unit: metric.unit,
                peer: case.peer,
                ratio: ratios.as_ref().map(|ratios| median(ratios)),
                ratio_spread: ratios
                    .as_ref()
                    .map(|ratios| (quantile(ratios, 0.25), quantile(ratios, 0.75))),
                runs: ratios.map_or(measured.len(), |ratios| ratios.len()),
                ..Figure::default()
            };
            figures.add(figure, demanded.map(Bound::RatioMin));
        }
        if metric.bounded {
            for (mine, theirs) in [("tc", "nft"), ("xdp", "nft-nodeport")] {
                let of = |name: &str| {
                    let at = cases.iter().position(|case| case.name == name);
                    at.and_then(ratios).map(|ratios| median(&ratios))
                };
                if let (Some(ours), Some(peers)) = (of(mine), of(theirs))
                    && ours <= peers
                {
                    figures.miss(format!(
                        "{mine}/{scale} {}: {ours:.3} of direct is not ahead of {theirs}'s {peers:.3}",
                        metric.name,
                    ));
                }
            }
        }
    }
    Ok(bounded)
}

/// What each case reached in each round. Other work on the machine may leave a slice without a request: then there is
/// none of that round, and the other rounds count.
fn slices(
    scale: usize,
    cases: &[Case],
    metric: &Metric,
    rounds: usize,
    slice: Duration,
) -> Result<Vec<Vec<Option<f64>>>> {
    let mut values = vec![Vec::with_capacity(rounds); cases.len()];
    let mut errors = vec![String::new(); cases.len()];
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
            let whole = report.failed == 0 && report.ok > 0;
            if !whole {
                errors[at] = format!("{:?}", report.errors);
            }
            // The first round warms caches up.
            if round > 0 {
                values[at].push(whole.then(|| match metric.mode {
                    Mode::Close | Mode::Udp => report.per_second(),
                    Mode::Keep => report.latency.quantile(0.5).as_secs_f64() * 1e6,
                    Mode::Bulk => report.gbit_per_second(),
                }));
            }
        }
    }
    for ((case, values), errors) in cases.iter().zip(&values).zip(errors) {
        ensure!(
            values.iter().flatten().count() * 2 > rounds,
            "{}/{scale} {}: fewer than half of {rounds} slices had answers and no failure: {errors}",
            case.name,
            metric.name,
        );
    }
    Ok(values)
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
    let [_, high, middle, low] = u32::try_from(index).unwrap_or(u32::MAX).to_be_bytes();
    Service {
        frontends: vec![SocketAddr::from(([10, 100 + high, middle, low], 80))],
        protocol: abi::protocol::TCP,
        backends: vec![backend],
        affinity_secs: 0,
    }
}
