//! Flows: begun, carried on, answered; from pods and from outside; to this node and to others.

use std::net::SocketAddr;

use abi::Counter;
use anyhow::Result;
use testbed::packet::{Packet, Transport, tcp};

use crate::kernel::{Kernel, NEXT, REDIRECT, SCTP, TCP, UDP, XDP_PASS, nets};

/// Every transport, as the packets of one flow: the first, a later one, an answer.
fn flows(client: SocketAddr, service: SocketAddr) -> [(u8, Packet, Packet); 4] {
    let mut unchecked = Packet::udp(client, service);
    unchecked.transport = Transport::Udp { checked: false };
    [
        (
            TCP,
            Packet::tcp(client, service, tcp::SYN),
            Packet::tcp(client, service, tcp::ACK),
        ),
        (
            UDP,
            Packet::udp(client, service),
            Packet::udp(client, service),
        ),
        (UDP, unchecked.clone(), unchecked),
        (
            SCTP,
            Packet::sctp(client, service, false),
            Packet::sctp(client, service, true),
        ),
    ]
}

#[test]
fn a_pod_reaches_a_service_and_hears_from_it() -> Result<()> {
    let mut kernel = Kernel::new()?;
    for (id, net) in (1..).step_by(3).zip(nets()) {
        for (id, proto) in (id..).zip([TCP, UDP, SCTP]) {
            kernel.service(id, net.service, proto, Some(net.backend), false)?;
        }
        // Another port for each, so that each is a flow of its own.
        let mut client = net.client;
        for (_, first, later) in flows(net.client, net.service) {
            for edit in shapes(&first) {
                client.set_port(client.port() + 1);
                let (first, later) = (edit(&first), edit(&later));
                let first = first.between(client, net.service);
                let later = later.between(client, net.service);
                let to = |packet: &Packet| packet.between(client, net.backend);
                let begun = Some(Counter::TcNewFlow);
                kernel.expect("first", "pod_ingress", &first, NEXT, &to(&first), begun);
                let known = Some(Counter::TcForward);
                kernel.expect("later", "pod_ingress", &later, NEXT, &to(&later), known);
                let answer = later.between(net.backend, client).accepting();
                let shown = later.between(net.service, client).accepting();
                // Where it comes from it must not change: the node's routing would take it for forged.
                for place in ["pod_ingress", "device_ingress"] {
                    kernel.expect("answer comes", place, &answer, NEXT, &answer, None);
                }
                for place in ["pod_egress", "device_egress"] {
                    let counter = Some(Counter::TcReply);
                    kernel.expect("answer goes", place, &answer, NEXT, &shown, counter);
                }
            }
        }
    }
    Ok(())
}

type Edit = fn(&Packet) -> Packet;

/// Forms that a packet may have and that change nothing: VLAN tags, options, extension headers.
fn shapes(packet: &Packet) -> Vec<Edit> {
    let mut shapes: Vec<Edit> = vec![
        Packet::clone,
        |packet| Packet {
            tags: vec![(0x8100, 7)],
            ..packet.clone()
        },
        |packet| Packet {
            tags: vec![(0x88a8, 7), (0x8100, 8)],
            ..packet.clone()
        },
        |packet| Packet {
            payload: Vec::new(),
            ..packet.clone()
        },
        |packet| Packet {
            payload: vec![0xff; 1000],
            ..packet.clone()
        },
    ];
    if packet.source.is_ipv4() {
        shapes.push(|packet| Packet {
            options: vec![0x94, 4, 0, 0],
            ..packet.clone()
        });
        shapes.push(|packet| Packet {
            options: vec![1; 40],
            ..packet.clone()
        });
    } else {
        shapes.push(|packet| Packet {
            extensions: vec![(0, vec![1, 4, 0, 0, 0, 0])],
            ..packet.clone()
        });
        shapes.push(|packet| Packet {
            extensions: vec![(0, vec![0; 14]), (60, vec![0; 6]), (43, vec![0; 6])],
            ..packet.clone()
        });
    }
    shapes
}

#[test]
fn what_is_no_service_s_passes_untouched() -> Result<()> {
    let mut kernel = Kernel::new()?;
    for net in nets() {
        kernel.service(1, net.service, TCP, Some(net.backend), true)?;
        let others = [
            Packet::tcp(net.client, net.backend, tcp::SYN),
            Packet::udp(net.client, net.service),
            Packet::tcp(net.client, SocketAddr::new(net.service.ip(), 81), tcp::SYN),
            Packet::new(net.client, net.service, Transport::Raw(136)),
            Packet::sctp(net.client, net.service, false),
            Packet::new(net.client, net.service, Transport::Raw(1)),
            Packet::new(net.client, net.service, Transport::Raw(58)),
            Packet {
                tags: vec![(0x8100, 1); 3],
                ..Packet::tcp(net.client, net.service, tcp::SYN)
            },
        ];
        for packet in others {
            for place in [
                "pod_ingress",
                "pod_egress",
                "device_ingress",
                "device_egress",
            ] {
                kernel.expect("other", place, &packet, NEXT, &packet, None);
            }
            kernel.expect("other", "device_xdp", &packet, XDP_PASS, &packet, None);
        }
    }
    let mut arp = Packet::udp(nets()[0].client, nets()[0].service).bytes();
    arp[12..14].copy_from_slice(&[0x08, 0x06]);
    for place in [
        "pod_ingress",
        "pod_egress",
        "device_ingress",
        "device_egress",
        "device_xdp",
    ] {
        let ran = kernel.run(place, &arp)?;
        assert_eq!((&ran.packet, ran.counted.len()), (&arp, 0), "{place}");
    }
    Ok(())
}

#[test]
fn outside_reaches_a_backend_of_this_node() -> Result<()> {
    for net in nets() {
        for (proto, first, later) in flows(net.client, net.service) {
            let programs = [
                (
                    "device_xdp",
                    XDP_PASS,
                    Counter::XdpNewFlow,
                    Counter::XdpForward,
                ),
                (
                    "device_ingress",
                    NEXT,
                    Counter::TcNewFlow,
                    Counter::TcForward,
                ),
            ];
            for (program, pass, begun, known) in programs {
                let mut kernel = Kernel::new()?;
                kernel.service(1, net.service, proto, Some(net.backend), true)?;
                let to = |packet: &Packet| packet.between(net.client, net.backend);
                kernel.expect("first", program, &first, pass, &to(&first), Some(begun));
                kernel.expect("later", program, &later, pass, &to(&later), Some(known));
                if program == "device_xdp" {
                    // What XDP rewrote passes TC untouched.
                    kernel.say_xdp_runs()?;
                    for seen in [to(&first), to(&later)] {
                        kernel.expect("after", "device_ingress", &seen, NEXT, &seen, None);
                    }
                }
                let answer = later.between(net.backend, net.client).accepting();
                let shown = later.between(net.service, net.client).accepting();
                let counter = Some(Counter::TcReply);
                kernel.expect("answer", "device_egress", &answer, NEXT, &shown, counter);
            }
        }
    }
    Ok(())
}

#[test]
fn outside_reaches_a_backend_elsewhere_through_this_node_s_address() -> Result<()> {
    for net in nets() {
        for (proto, first, later) in flows(net.client, net.service) {
            let mut kernel = Kernel::new()?;
            kernel.service(1, net.service, proto, Some(net.backend), false)?;
            let ran = kernel.run("device_ingress", &first.bytes())?;
            assert_eq!(ran.verdict, REDIRECT, "{ran:?}");
            assert_eq!(ran.counted, [(Counter::TcNewFlow, 1)]);
            let l4 = if net.node.is_ipv4() { 34 } else { 54 };
            let port = u16::from_be_bytes([ran.packet[l4], ran.packet[l4 + 1]]);
            assert!((61_000..=61_003).contains(&port), "{port}");
            let source = SocketAddr::new(net.node, port);
            let hop = |packet: Packet| Packet { ttl: 63, ..packet };
            assert_eq!(ran.packet, hop(first.between(source, net.backend)).bytes());
            let known = Some(Counter::TcForward);
            let out = hop(later.between(source, net.backend));
            kernel.expect("later", "device_ingress", &later, REDIRECT, &out, known);
            let answer = later.between(net.backend, source);
            let shown = hop(later.between(net.service, net.client));
            let counter = Some(Counter::TcReply);
            kernel.expect(
                "answer",
                "device_ingress",
                &answer,
                REDIRECT,
                &shown,
                counter,
            );
            // A device that XDP must not send from: TC has it.
            kernel.expect("xdp", "device_xdp", &later, XDP_PASS, &later, None);
            kernel.expect("xdp", "device_xdp", &answer, XDP_PASS, &answer, None);
        }
    }
    Ok(())
}

#[test]
fn translated_ports_run_out_and_are_told() -> Result<()> {
    for net in nets() {
        let mut kernel = Kernel::new()?;
        kernel.service(1, net.service, UDP, Some(net.backend), false)?;
        let mut exhausted = 0;
        for port in 1000..1064 {
            let client = SocketAddr::new(net.client.ip(), port);
            let ran = kernel.run("device_ingress", &Packet::udp(client, net.service).bytes())?;
            match ran.counted[..] {
                [(Counter::TcNewFlow, 1)] => assert_eq!(ran.verdict, REDIRECT),
                [(Counter::DropSnatExhausted, 1)] => exhausted += 1,
                _ => panic!("{ran:?}"),
            }
        }
        // Four ports are to be had.
        assert_eq!(exhausted, 60);
    }
    Ok(())
}

#[test]
fn two_services_with_one_backend_do_not_mix_a_client_s_flows() -> Result<()> {
    for net in nets() {
        let mut kernel = Kernel::new()?;
        let second = SocketAddr::new(net.service.ip(), 81);
        kernel.service(1, net.service, TCP, Some(net.backend), false)?;
        kernel.service(2, second, TCP, Some(net.backend), false)?;
        let one = Packet::tcp(net.client, net.service, tcp::SYN);
        let two = Packet::tcp(net.client, second, tcp::SYN);
        let begun = Some(Counter::TcNewFlow);
        let out = one.between(net.client, net.backend);
        kernel.expect("one", "pod_ingress", &one, NEXT, &out, begun);
        let ran = kernel.run("pod_ingress", &two.bytes())?;
        let l4 = if net.node.is_ipv4() { 34 } else { 54 };
        let port = u16::from_be_bytes([ran.packet[l4], ran.packet[l4 + 1]]);
        assert_ne!(
            port,
            net.client.port(),
            "the second flow's port would be the first one's"
        );
        let moved = SocketAddr::new(net.client.ip(), port);
        assert_eq!(ran.packet, two.between(moved, net.backend).bytes());
        let reply = Some(Counter::TcReply);
        for (from, service) in [(net.client, net.service), (moved, second)] {
            let answer = Packet::tcp(net.backend, from, tcp::SYN | tcp::ACK);
            let shown = answer.between(service, net.client);
            kernel.expect("answer", "pod_egress", &answer, NEXT, &shown, reply);
        }
    }
    Ok(())
}

#[test]
fn a_pod_reaches_itself_through_its_service() -> Result<()> {
    for net in nets() {
        let mut kernel = Kernel::new()?;
        let own = SocketAddr::new(net.client.ip(), 8080);
        kernel.service(1, net.service, TCP, Some(own), true)?;
        let packet = Packet::tcp(net.client, net.service, tcp::SYN);
        let seen_from = SocketAddr::new(net.service.ip(), net.client.port());
        let out = packet.between(seen_from, own).sent_back();
        let begun = Some(Counter::TcNewFlow);
        kernel.expect("out", "pod_ingress", &packet, REDIRECT, &out, begun);
        let answer = Packet::tcp(own, seen_from, tcp::SYN | tcp::ACK);
        let shown = answer.between(net.service, net.client).sent_back();
        let reply = Some(Counter::TcReply);
        kernel.expect("back", "pod_ingress", &answer, REDIRECT, &shown, reply);
    }
    Ok(())
}

#[test]
fn a_udp_flow_leaves_a_backend_that_is_gone_and_a_tcp_flow_stays() -> Result<()> {
    for net in nets() {
        let mut kernel = Kernel::new()?;
        let moved = SocketAddr::new(net.backend.ip(), 9090);
        for (proto, service) in [(TCP, 1), (UDP, 2)] {
            kernel.service(service, net.service, proto, Some(net.backend), true)?;
        }
        let (tcp, udp) = (
            Packet::tcp(net.client, net.service, tcp::ACK),
            Packet::udp(net.client, net.service),
        );
        for packet in [&tcp, &udp] {
            let out = packet.between(net.client, net.backend);
            let begun = Some(Counter::TcNewFlow);
            kernel.expect("first", "pod_ingress", packet, NEXT, &out, begun);
        }
        for service in [1, 2] {
            let step = plan::Step::RemoveBackend(service);
            plan::Store::apply(&mut kernel.datapath, &[step])?;
            // The next backend has another number.
            let steps = [
                plan::Step::PutBackend(service + 10, crate::kernel::backend(service, moved, true)),
                plan::Step::PutRing {
                    offset: service,
                    backends: vec![service + 10],
                },
            ];
            plan::Store::apply(&mut kernel.datapath, &steps)?;
        }
        let stays = tcp.between(net.client, net.backend);
        let known = Some(Counter::TcForward);
        kernel.expect("tcp", "pod_ingress", &tcp, NEXT, &stays, known);
        let goes = udp.between(net.client, moved);
        let begun = Some(Counter::TcNewFlow);
        kernel.expect("udp", "pod_ingress", &udp, NEXT, &goes, begun);
        // A new connection from the same port does not go where nobody answers.
        let again = Packet::tcp(net.client, net.service, tcp::SYN);
        let out = again.between(net.client, moved);
        kernel.expect("tcp again", "pod_ingress", &again, NEXT, &out, begun);
    }
    Ok(())
}

#[test]
fn a_client_with_affinity_keeps_its_backend() -> Result<()> {
    for net in nets() {
        let mut kernel = Kernel::new()?;
        let port = |port| SocketAddr::new(net.backend.ip(), port);
        let mut steps: Vec<_> = (1..=8)
            .map(|id| {
                let at = port(8000 + id as u16);
                plan::Step::PutBackend(id, crate::kernel::backend(1, at, true))
            })
            .collect();
        steps.push(plan::Step::PutRing {
            offset: 1,
            backends: (1..=8).collect(),
        });
        let frontend = |affinity_secs| abi::Frontend {
            service: 1,
            ring_offset: 1,
            ring_len: 8,
            affinity_secs,
            flags: 0,
        };
        let key = crate::kernel::key(net.service, TCP);
        steps.push(plan::Step::PutFrontend(key, frontend(3600)));
        plan::Store::apply(&mut kernel.datapath, &steps)?;
        let l4 = if net.node.is_ipv4() { 34 } else { 54 };
        let chosen = |kernel: &Kernel, from: u16| -> Result<u16> {
            let client = SocketAddr::new(net.client.ip(), from);
            let packet = Packet::tcp(client, net.service, tcp::SYN).bytes();
            let ran = kernel.run("pod_ingress", &packet)?;
            assert_eq!(ran.counted, [(Counter::TcNewFlow, 1)]);
            Ok(u16::from_be_bytes([ran.packet[l4 + 2], ran.packet[l4 + 3]]))
        };
        let first = chosen(&kernel, 1000)?;
        for from in 1001..1040 {
            assert_eq!(chosen(&kernel, from)?, first);
        }
        plan::Store::apply(
            &mut kernel.datapath,
            &[plan::Step::PutFrontend(key, frontend(0))],
        )?;
        let mut spread = std::collections::BTreeSet::new();
        for from in 2000..2100 {
            spread.insert(chosen(&kernel, from)?);
        }
        assert_eq!(
            spread.len(),
            8,
            "without affinity every backend has its share"
        );
    }
    Ok(())
}

#[test]
fn xdp_sends_from_devices_that_may_be_sent_from() -> Result<()> {
    const XDP_REDIRECT: u32 = 4;
    for net in nets() {
        let mut kernel = Kernel::new()?;
        kernel.service(1, net.service, TCP, Some(net.backend), false)?;
        kernel.allow_xdp_transmit()?;
        let first = Packet::tcp(net.client, net.service, tcp::SYN);
        let ran = kernel.run("device_xdp", &first.bytes())?;
        assert_eq!(ran.verdict, XDP_REDIRECT, "{ran:?}");
        assert_eq!(ran.counted, [(Counter::XdpNewFlow, 1)]);
        let l4 = if net.node.is_ipv4() { 34 } else { 54 };
        let port = u16::from_be_bytes([ran.packet[l4], ran.packet[l4 + 1]]);
        let source = SocketAddr::new(net.node, port);
        let hop = |packet: Packet| Packet {
            ttl: 63,
            link: [crate::kernel::NEXT_HOP, crate::kernel::NODE_LINK],
            ..packet
        };
        assert_eq!(ran.packet, hop(first.between(source, net.backend)).bytes());
        let later = Packet::tcp(net.client, net.service, tcp::ACK);
        let out = hop(later.between(source, net.backend));
        let known = Some(Counter::XdpForward);
        kernel.expect("later", "device_xdp", &later, XDP_REDIRECT, &out, known);
        let answer = later.between(net.backend, source);
        let shown = hop(later.between(net.service, net.client));
        let reply = Some(Counter::XdpReply);
        kernel.expect("answer", "device_xdp", &answer, XDP_REDIRECT, &shown, reply);
        // A tagged frame belongs to another device.
        let tagged = Packet {
            tags: vec![(0x8100, 7)],
            ..later.clone()
        };
        kernel.expect("tagged", "device_xdp", &tagged, XDP_PASS, &tagged, None);
    }
    Ok(())
}

#[test]
fn a_direct_connection_from_a_port_that_a_flow_has_is_told_apart() -> Result<()> {
    for net in nets() {
        let mut kernel = Kernel::new()?;
        kernel.service(1, net.service, TCP, Some(net.backend), true)?;
        let served = Packet::tcp(net.client, net.service, tcp::SYN);
        let begun = Some(Counter::TcNewFlow);
        let out = served.between(net.client, net.backend);
        kernel.expect("served", "pod_ingress", &served, NEXT, &out, begun);
        let direct = Packet::tcp(net.client, net.backend, tcp::SYN);
        let ran = kernel.run("pod_ingress", &direct.bytes())?;
        let l4 = if net.node.is_ipv4() { 34 } else { 54 };
        let port = u16::from_be_bytes([ran.packet[l4], ran.packet[l4 + 1]]);
        assert_ne!(port, net.client.port());
        let moved = SocketAddr::new(net.client.ip(), port);
        let reply = Some(Counter::TcReply);
        for (from, shown) in [(net.client, net.service), (moved, net.backend)] {
            let answer = Packet::tcp(net.backend, from, tcp::SYN | tcp::ACK);
            let shown = answer.between(shown, net.client);
            kernel.expect("answer", "pod_egress", &answer, NEXT, &shown, reply);
        }
    }
    Ok(())
}

/// A connection with the backend itself has no entry. Where a service's flow gets its ports, the backend says so with an
/// ACK to the SYN: both connections hear what is theirs.
#[test]
fn a_service_s_flow_leaves_its_port_to_a_direct_connection_that_had_it() -> Result<()> {
    for net in nets() {
        for (begins, ends) in [
            ("pod_ingress", "pod_egress"),
            ("device_ingress", "device_egress"),
            ("device_xdp", "device_egress"),
        ] {
            let mut kernel = Kernel::new()?;
            kernel.service(1, net.service, TCP, Some(net.backend), true)?;
            let first = Packet::tcp(net.client, net.service, tcp::SYN).bytes();
            kernel.run(begins, &first)?;
            let challenge = Packet::tcp(net.backend, net.client, tcp::ACK);
            kernel.expect(
                "challenge",
                "pod_ingress",
                &challenge,
                NEXT,
                &challenge,
                None,
            );
            kernel.expect("challenge", ends, &challenge, NEXT, &challenge, None);
            let ran = kernel.run(begins, &first)?;
            let l4 = if net.node.is_ipv4() { 34 } else { 54 };
            let port = u16::from_be_bytes([ran.packet[l4], ran.packet[l4 + 1]]);
            assert_ne!(port, net.client.port(), "{begins}");
            let moved = SocketAddr::new(net.client.ip(), port);
            let answer = Packet::tcp(net.backend, moved, tcp::SYN | tcp::ACK);
            let shown = answer.between(net.service, net.client);
            let reply = Some(Counter::TcReply);
            kernel.expect("answer", ends, &answer, NEXT, &shown, reply);
            kernel.expect("direct", ends, &challenge, NEXT, &challenge, None);
        }
    }
    Ok(())
}

/// Packets of a hashed service go where their tuple says, on every node alike, through a table of places.
#[test]
fn a_hashed_service_sends_equal_tuples_to_equal_backends() -> Result<()> {
    use abi::frontends::flags::{HASHED, SPREAD};
    for net in nets() {
        let backends = [net.backend, SocketAddr::new(net.backend.ip(), 8081)];
        let mut first: Vec<Vec<u8>> = Vec::new();
        for node in 0..2 {
            let mut kernel = Kernel::new()?;
            kernel.spread(1, net.service, TCP, &backends, HASHED | SPREAD)?;
            let mut reached = std::collections::BTreeSet::new();
            for sport in 2_000..2_032 {
                let client = SocketAddr::new(net.client.ip(), sport);
                let packet = Packet::tcp(client, net.service, tcp::SYN);
                let ran = kernel.run("pod_ingress", &packet.bytes())?;
                assert_eq!(ran.counted, [(Counter::TcNewFlow, 1)]);
                let found = backends
                    .into_iter()
                    .position(|backend| ran.packet == packet.between(client, backend).bytes());
                reached.insert(found.expect("one of the two"));
                if node == 0 {
                    first.push(ran.packet);
                } else {
                    assert_eq!(first[usize::from(sport) - 2_000], ran.packet);
                }
            }
            assert_eq!(reached.len(), 2, "both are reached");
        }
    }
    Ok(())
}
