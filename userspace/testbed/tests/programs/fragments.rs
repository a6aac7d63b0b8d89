//! Fragments: only the first carries ports.

use abi::Counter;
use anyhow::Result;
use testbed::packet::{Packet, tcp};

use crate::kernel::{Kernel, NEXT, Net, SCTP, SHOT, TCP, UDP, XDP_DROP, XDP_PASS, nets};

fn fragment(packet: &Packet, offset: usize, len: usize) -> Packet {
    Packet {
        payload: vec![0x5a; 40],
        fragment: Some((offset, len, 0x1234)),
        ..packet.clone()
    }
}

fn pieces(net: &Net) -> [Packet; 3] {
    let whole = Packet::udp(net.client, net.service);
    [
        fragment(&whole, 0, 16),
        fragment(&whole, 16, 16),
        fragment(&whole, 32, 16),
    ]
}

#[test]
fn later_fragments_follow_the_first() -> Result<()> {
    let programs = [
        ("pod_ingress", NEXT, Counter::TcNewFlow, Counter::TcForward),
        (
            "device_ingress",
            NEXT,
            Counter::TcNewFlow,
            Counter::TcForward,
        ),
        (
            "device_xdp",
            XDP_PASS,
            Counter::XdpNewFlow,
            Counter::XdpForward,
        ),
    ];
    for net in nets() {
        for (program, pass, begun, known) in programs {
            let mut kernel = Kernel::new()?;
            kernel.service(1, net.service, UDP, Some(net.backend), true)?;
            let [first, second, third] = pieces(&net);
            let to = |packet: &Packet| packet.between(net.client, net.backend);
            kernel.expect("first", program, &first, pass, &to(&first), Some(begun));
            for later in [&third, &second, &second] {
                kernel.expect("later", program, later, pass, &to(later), Some(known));
            }
            // Another packet's fragment is not this one's.
            let other = Packet {
                fragment: Some((16, 16, 0x1235)),
                ..second.clone()
            };
            kernel.expect("other", program, &other, pass, &other, None);

            let answer = Packet::udp(net.backend, net.client);
            let shown = answer.between(net.service, net.client);
            for (offset, len) in [(0, 24), (24, 24)] {
                let (answer, shown) = (
                    fragment(&answer, offset, len),
                    fragment(&shown, offset, len),
                );
                let counter = Some(Counter::TcReply);
                kernel.expect("answer", "pod_egress", &answer, NEXT, &shown, counter);
            }
        }
    }
    Ok(())
}

#[test]
fn a_fragment_whose_first_never_came_is_dropped_where_the_address_is_a_service_s() -> Result<()> {
    for net in nets() {
        let mut kernel = Kernel::new()?;
        kernel.service(1, net.service, UDP, Some(net.backend), true)?;
        let [_, second, third] = pieces(&net);
        kernel.expect(
            "unknown address",
            "pod_ingress",
            &second,
            NEXT,
            &second,
            None,
        );
        kernel.whole_address(net.service.ip())?;
        for (program, drop) in [
            ("pod_ingress", SHOT),
            ("device_ingress", SHOT),
            ("device_xdp", XDP_DROP),
        ] {
            for later in [&second, &third] {
                let counter = Some(Counter::DropFragment);
                kernel.expect("service's address", program, later, drop, later, counter);
            }
        }
        kernel.expect("on its way out", "pod_egress", &second, NEXT, &second, None);
    }
    Ok(())
}

#[test]
fn a_first_fragment_without_all_of_its_transport_header_is_cut_short() -> Result<()> {
    for net in nets() {
        let mut kernel = Kernel::new()?;
        kernel.service(1, net.service, TCP, Some(net.backend), true)?;
        let tiny = fragment(&Packet::tcp(net.client, net.service, tcp::SYN), 0, 8);
        let counter = Some(Counter::DropTruncated);
        kernel.expect("tiny", "pod_ingress", &tiny, SHOT, &tiny, counter);
    }
    Ok(())
}

/// What the checksum of all fragments together changes by, nobody knows who sees one of them.
#[test]
fn fragments_of_sctp_pass_where_no_port_changes_and_are_dropped_elsewhere() -> Result<()> {
    for net in nets() {
        let mut kernel = Kernel::new()?;
        let same_port = std::net::SocketAddr::new(net.service.ip(), net.backend.port());
        kernel.service(1, net.service, SCTP, Some(net.backend), true)?;
        kernel.service(2, same_port, SCTP, Some(net.backend), true)?;
        let data = |to| Packet::sctp(net.client, to, true);
        for (program, pass, drop, begun) in [
            ("pod_ingress", NEXT, SHOT, Counter::TcNewFlow),
            ("device_xdp", XDP_PASS, XDP_DROP, Counter::XdpNewFlow),
        ] {
            let other = fragment(&data(net.service), 0, 24);
            let counter = Some(Counter::DropFragment);
            kernel.expect("other port", program, &other, drop, &other, counter);
            // Another client for each program, so that each begins a flow.
            let client = std::net::SocketAddr::new(net.client.ip(), 41_000 + program.len() as u16);
            let same = fragment(&data(same_port).between(client, same_port), 0, 24);
            let becomes = fragment(&data(same_port).between(client, net.backend), 0, 24);
            kernel.expect("same port", program, &same, pass, &becomes, Some(begun));
        }
    }
    Ok(())
}
