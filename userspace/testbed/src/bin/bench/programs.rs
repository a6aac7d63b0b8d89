//! Each program by itself: how much the verifier walks through, and how long a packet takes, at one and at
//! ten thousand services.

use std::net::{IpAddr, SocketAddr};

use abi::{Counter, DnsAnswer, DnsControl, DnsName};
use anyhow::{Context as _, Result, ensure};
use bpf::DnsTable;
use testbed::Node;
use testbed::balancer::{Balancer, Service};
use testbed::packet::{Packet, SENDER, tcp};
use testbed::topology::CLIENT4;

use crate::figures::{Bound, Figure, Figures};

/// Runs of one packet; the kernel returns their mean.
const REPEAT: u32 = 20_000;
/// How often that is done: the quickest counts, for what makes a program slower than it is comes from outside.
const TRIES: u32 = 15;

pub(crate) fn measure(figures: &mut Figures) -> Result<()> {
    let node = Node::create()?;
    let mut balancer = Balancer::open(&node)?;
    for program in balancer.datapath().status()?.programs {
        let bound = (program.name == "device_xdp").then_some(Bound::ValueBelow(5_001.0));
        figures.add(
            Figure {
                case: format!("program/{}", program.name),
                metric: "verified_instructions",
                value: f64::from(program.verified_instructions),
                unit: "1",
                runs: 1,
                ..Figure::default()
            },
            bound,
        );
    }
    // The kernel runs a program on one buffer again and again. The service is its own backend, so that a
    // packet becomes what it was and finds its flow the next time, too.
    let backend = SocketAddr::from(([10, 244, 0, 10], 8080));
    let client = SocketAddr::new(IpAddr::from(CLIENT4), 40_000);
    for scale in [1_u32, 10_000] {
        let services: Vec<Service> = (1..scale)
            .map(|index| filler(index, backend))
            .chain([service(backend, backend)])
            .collect();
        balancer.put(&services)?;
        let syn = Packet::tcp(client, backend, tcp::SYN).bytes();
        let accepted = Packet::tcp(backend, client, tcp::SYN | tcp::ACK).bytes();
        let forward = Packet::tcp(client, backend, tcp::ACK).bytes();
        let reply = Packet::tcp(backend, client, tcp::ACK).bytes();
        let other = Packet::tcp(client, SocketAddr::from(([10, 244, 0, 77], 9)), tcp::ACK).bytes();
        for program in [
            "pod_ingress",
            "pod_egress",
            "device_ingress",
            "device_egress",
            "device_xdp",
        ] {
            let known = if program.ends_with("egress") {
                &reply
            } else {
                &forward
            };
            for (metric, packet) in [("known_flow_ns", known), ("other_packet_ns", &other)] {
                let nanos = node.netns().run(|| {
                    balancer.datapath().test_run("pod_ingress", &syn, &[], 1)?;
                    let view = balancer.datapath();
                    view.test_run("pod_egress", &accepted, &[], 1)?;
                    let mut quickest = u32::MAX;
                    for _ in 0..TRIES {
                        let ran = view.test_run(program, packet, &[], REPEAT)?;
                        quickest = quickest.min(ran.duration_ns);
                    }
                    Ok(quickest)
                })?;
                let is_bound = program == "device_xdp" && metric == "known_flow_ns";
                figures.add(
                    Figure {
                        case: format!("{program}/{scale}"),
                        metric,
                        value: f64::from(nanos),
                        unit: "ns",
                        runs: (REPEAT * TRIES) as usize,
                        ..Figure::default()
                    },
                    is_bound.then_some(Bound::ValueBelow(101.0)),
                );
            }
        }
    }
    Ok(())
}

/// Nanoseconds that a query takes from a pod's link to its answer: the median of single runs, because the answer is no
/// query any more.
pub(crate) fn dns_answer_ns() -> Result<f64> {
    const RUNS: usize = 2_000;
    let node = Node::create()?;
    let balancer = Balancer::open(&node)?;
    let wire = b"\x03web\x07default\x03svc\x07cluster\x05local\x00";
    let mut table = DnsTable::open(&node.bpffs().join("fairlead"))?;
    let answer = DnsAnswer {
        addr4: [10, 96, 0, 1],
        ttl: 30.into(),
        flags: abi::dns::flags::A,
        ..DnsAnswer::default()
    };
    let name = DnsName::new(wire).context("a short name")?;
    table.write(&[], &[(name, answer)])?;
    table.set_control(&DnsControl {
        service4: [10, 96, 0, 10],
        service_port: 53.into(),
        answers_until_secs: u32::MAX,
        ..DnsControl::default()
    })?;
    let mut payload = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    payload.extend_from_slice(wire);
    payload.extend_from_slice(&[0, 1, 0, 1]);
    let query = Packet {
        // Addressed to the loopback device, where packets of a test run arrive.
        link: [[0; 6], SENDER],
        payload,
        ..Packet::udp(
            SocketAddr::from(([10, 244, 0, 10], 40_000)),
            SocketAddr::from(([10, 96, 0, 10], 53)),
        )
    };
    let query = query.bytes();
    let mut nanos = node.netns().run(|| {
        let view = balancer.datapath();
        let run = |_| {
            Ok(f64::from(
                view.test_run("pod_ingress", &query, &[], 1)?.duration_ns,
            ))
        };
        (0..RUNS).map(run).collect::<Result<Vec<f64>>>()
    })?;
    let answered = balancer.datapath().counters()?;
    let answers = answered
        .iter()
        .find(|(counter, _)| *counter == Counter::TcDnsAnswer);
    ensure!(
        answers.is_some_and(|(_, value)| value.packets == RUNS as u64),
        "not every query was answered"
    );
    nanos.sort_by(f64::total_cmp);
    Ok(nanos[RUNS / 2])
}

fn filler(index: u32, backend: SocketAddr) -> Service {
    let [_, _, high, low] = index.to_be_bytes();
    service(SocketAddr::from(([10, 100, high, low], 80)), backend)
}

fn service(frontend: SocketAddr, backend: SocketAddr) -> Service {
    Service {
        frontends: vec![frontend],
        protocol: abi::protocol::TCP,
        backends: vec![backend],
        affinity_secs: 0,
    }
}
