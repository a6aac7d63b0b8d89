//! More new flows than the table holds.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use abi::Counter;
use abi::frontends::flags::SPREAD;
use anyhow::Result;
use bpf::Flow;
use testbed::packet::{Packet, Transport, tcp};

use crate::kernel::{FLOWS, Kernel, NEXT, SCTP, TCP, UDP, nets};

/// Flows that send now and then, and those that begin meanwhile. The tests' tables hold entries of 512 flows.
const USED: u16 = 16;
const NEW: u16 = 6_000;
/// Flows by each protocol that were answered and are silent.
const STANDING: u16 = 32;

/// An address of a client beside those that the tests use.
fn other(addr: IpAddr, host: u8) -> IpAddr {
    match addr {
        IpAddr::V4(addr) => {
            let [a, b, c, _] = addr.octets();
            [a, b, c, host].into()
        }
        IpAddr::V6(addr) => {
            let mut octets = addr.octets();
            octets[14] ^= 1;
            octets[15] = host;
            octets.into()
        }
    }
}

#[test]
fn a_flood_ends_no_flow_that_is_used_and_refuses_none() -> Result<()> {
    for net in nets() {
        let mut kernel = Kernel::new()?;
        let backends = [8080, 8081, 8082].map(|port| SocketAddr::new(net.backend.ip(), port));
        for (id, proto) in [(1, TCP), (11, UDP), (21, SCTP)] {
            kernel.spread(id, net.service, proto, &backends, SPREAD)?;
        }
        let send = |packet: &Packet| -> Result<Vec<u8>> {
            let bytes = packet.bytes();
            let ran = kernel.datapath.test_run("pod_ingress", &bytes, &[], 1)?;
            assert_eq!(ran.verdict, NEXT);
            assert_ne!(ran.packet, bytes, "it is given to a backend");
            Ok(ran.packet)
        };
        let before = kernel.datapath.counters()?;
        kernel.netns().run(|| {
            // What is used, by protocol: a packet that goes on with a flow, and whom it is for.
            let from = |port: u16| SocketAddr::new(net.client.ip(), port);
            let mut used = Vec::new();
            for port in 1_000..1_000 + USED {
                let client = from(port);
                for (first, later) in [
                    (
                        Packet::tcp(client, net.service, tcp::SYN),
                        Packet::tcp(client, net.service, tcp::ACK),
                    ),
                    (
                        Packet::udp(client, net.service),
                        Packet::udp(client, net.service),
                    ),
                    (
                        Packet::sctp(client, net.service, false),
                        Packet::sctp(client, net.service, true),
                    ),
                ] {
                    send(&first)?;
                    let becomes = send(&later)?;
                    used.push((later, becomes));
                }
            }
            // What was begun and is silent.
            let silent: Vec<(Packet, Vec<u8>)> = (0..USED)
                .map(|n| {
                    let client = from(3_000 + n);
                    send(&Packet::tcp(client, net.service, tcp::SYN))?;
                    let later = Packet::tcp(client, net.service, tcp::ACK);
                    let becomes = send(&later)?;
                    Ok((later, becomes))
                })
                .collect::<Result<_>>()?;
            for n in 0..NEW {
                let client = SocketAddr::new(other(net.client.ip(), n as u8), 10_000 + n);
                let packet = match n % 3 {
                    0 => Packet::tcp(client, net.service, tcp::SYN),
                    1 => Packet::udp(client, net.service),
                    _ => Packet::new(client, net.service, Transport::Sctp { tag: 0, chunk: 1 }),
                };
                send(&packet)?;
                if n % 32 == 0 {
                    for (later, becomes) in &used {
                        assert_eq!(send(later)?, *becomes, "a flow that is used");
                    }
                }
            }
            // Whether their entries gave way or not.
            for (later, becomes) in &silent {
                assert_eq!(send(later)?, *becomes, "a flow that was silent");
            }
            Ok(())
        })?;
        let after = kernel.datapath.counters()?;
        let moved = after
            .iter()
            .zip(before)
            .filter(|(after, before)| after.1 != before.1);
        let moved: Vec<Counter> = moved.map(|((counter, _), _)| *counter).collect();
        assert_eq!(moved, [Counter::TcNewFlow, Counter::TcForward]);
        let fills = kernel.datapath.fill()?;
        let flows = fills.iter().filter(|fill| fill.table.starts_with("FLOWS"));
        for fill in flows {
            assert!(fill.used <= fill.capacity, "{fill:?}");
        }
    }
    Ok(())
}

/// What the client and the backend said once stays, though nobody says anything more while others knock.
#[test]
fn a_flood_ends_no_flow_that_was_answered_however_silent() -> Result<()> {
    for net in nets() {
        let mut kernel = Kernel::new()?;
        for (id, proto) in [(1, TCP), (2, UDP)] {
            kernel.service(id, net.service, proto, Some(net.backend), true)?;
        }
        let run = |program: &str, packet: &Packet| -> Result<()> {
            let bytes = packet.bytes();
            let ran = kernel.datapath.test_run(program, &bytes, &[], 1)?;
            assert_ne!(ran.packet, bytes, "{program} translates");
            Ok(())
        };
        let keys = || -> Result<BTreeSet<String>> {
            let mut keys = BTreeSet::new();
            kernel.datapath.walk_flows(|flows| {
                keys.extend(flows.map(|flow| match flow {
                    Flow::V4(key, _) => format!("{key:?}"),
                    Flow::V6(key, _) => format!("{key:?}"),
                }));
                true
            })?;
            Ok(keys)
        };
        let standing = kernel.netns().run(|| {
            for port in 1_000..1_000 + STANDING {
                let client = SocketAddr::new(net.client.ip(), port);
                run("pod_ingress", &Packet::tcp(client, net.service, tcp::SYN))?;
                let accepts = Packet::tcp(net.backend, client, tcp::SYN | tcp::ACK);
                run("pod_egress", &accepts)?;
                run("pod_ingress", &Packet::tcp(client, net.service, tcp::ACK))?;
                run("pod_ingress", &Packet::udp(client, net.service))?;
                run("pod_egress", &Packet::udp(net.backend, client))?;
            }
            keys()
        })?;
        assert_eq!(standing.len(), usize::from(STANDING) * 4);
        kernel.netns().run(|| {
            for n in 0..NEW {
                let client = SocketAddr::new(other(net.client.ip(), n as u8), 10_000 + n);
                match n % 3 {
                    0 => run("pod_ingress", &Packet::udp(client, net.service))?,
                    1 => run("pod_ingress", &Packet::tcp(client, net.service, tcp::SYN))?,
                    // The backend answers whoever asks, but nobody is there.
                    _ => {
                        run("pod_ingress", &Packet::tcp(client, net.service, tcp::SYN))?;
                        let accepts = Packet::tcp(net.backend, client, tcp::SYN | tcp::ACK);
                        run("pod_egress", &accepts)?;
                    }
                }
            }
            Ok(())
        })?;
        let now = keys()?;
        let lost: Vec<&String> = standing.difference(&now).collect();
        assert!(
            lost.is_empty(),
            "{} of {}: {lost:?}",
            lost.len(),
            standing.len()
        );
        // Of the flood there is at most a ring, and those that had no place where it ended.
        let places = abi::openings::capacity(FLOWS) as usize - 1;
        let without = usize::from(NEW) / places;
        assert!(
            now.len() - standing.len() <= 2 * (places + without),
            "{}",
            now.len()
        );
    }
    Ok(())
}
