//! Each program by itself: how much the verifier walks through, and how long a packet takes, at one and at
//! ten thousand services.

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use testbed::Node;
use testbed::balancer::{Balancer, Service};
use testbed::packet::{Packet, tcp};
use testbed::topology::CLIENT4;

use crate::figures::{Figure, Figures};

/// Runs of one packet; the kernel returns their mean.
const REPEAT: u32 = 20_000;
/// How often that is done: the quickest counts, for what makes a program slower than it is comes from outside.
const TRIES: u32 = 15;

pub(crate) fn measure(figures: &mut Figures) -> Result<()> {
    let node = Node::create()?;
    let mut balancer = Balancer::open(&node)?;
    for program in balancer.datapath().status()?.programs {
        figures.add(
            Figure {
                case: format!("program/{}", program.name),
                metric: "verified_instructions",
                value: f64::from(program.verified_instructions),
                unit: "1",
                runs: 1,
                ..Figure::default()
            },
            None,
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
                    let mut quickest = u32::MAX;
                    for _ in 0..TRIES {
                        let ran = view.test_run(program, packet, &[], REPEAT)?;
                        quickest = quickest.min(ran.duration_ns);
                    }
                    Ok(quickest)
                })?;
                figures.add(
                    Figure {
                        case: format!("{program}/{scale}"),
                        metric,
                        value: f64::from(nanos),
                        unit: "ns",
                        runs: (REPEAT * TRIES) as usize,
                        ..Figure::default()
                    },
                    None,
                );
            }
        }
    }
    Ok(())
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
