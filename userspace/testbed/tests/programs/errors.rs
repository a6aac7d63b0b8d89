//! ICMP errors about packets of flows: they reach whoever sent the packet that they quote, as errors about what it sent.

use std::net::{IpAddr, SocketAddr};

use abi::Counter;
use anyhow::Result;
use testbed::packet::{Packet, Transport, checksum, tcp, transport_checksum};

use crate::kernel::{Kernel, NEXT, Net, REDIRECT, TCP, UDP, nets};

/// "Too big" from one address to another, about a packet.
pub(crate) fn too_big(from: IpAddr, to: IpAddr, quoted: &Packet) -> Packet {
    let fragment_header = if quoted.fragment.is_some() { 8 } else { 0 };
    let (kind, code, proto, header) = if from.is_ipv4() {
        (3, 4, 1, 20)
    } else {
        (2, 0, 58, 40 + fragment_header)
    };
    let mut payload = vec![kind, code, 0, 0, 0, 0, 5, 20];
    payload.extend(&quoted.bytes()[14..14 + header + 8]);
    let check = if from.is_ipv4() {
        checksum(&payload)
    } else {
        transport_checksum(from, to, proto, &payload)
    };
    payload[2..4].copy_from_slice(&check.to_be_bytes());
    let (from, to) = (SocketAddr::new(from, 0), SocketAddr::new(to, 0));
    Packet {
        payload,
        ..Packet::new(from, to, Transport::Raw(proto))
    }
}

/// Somebody on the way.
fn router(net: &Net) -> IpAddr {
    if net.client.is_ipv4() {
        [203, 0, 113, 254].into()
    } else {
        [0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 0xfe].into()
    }
}

const MENDED: Option<Counter> = Some(Counter::TcIcmpError);

#[test]
fn an_error_about_a_request_is_one_about_the_service() -> Result<()> {
    for net in nets() {
        let mut kernel = Kernel::new()?;
        kernel.service(1, net.service, TCP, Some(net.backend), true)?;
        let asked = Packet::tcp(net.client, net.service, tcp::SYN);
        kernel.run("pod_ingress", &asked.bytes())?;
        let given = asked.between(net.client, net.backend);
        let client = net.client.ip();
        for (from, seen_from) in [
            (router(&net), router(&net)),
            (net.backend.ip(), net.service.ip()),
        ] {
            let error = too_big(from, client, &given);
            let mended = too_big(seen_from, client, &asked);
            for program in ["pod_egress", "device_egress"] {
                kernel.expect("leaving", program, &error, NEXT, &mended, MENDED);
            }
            for program in ["pod_ingress", "device_ingress"] {
                kernel.expect("arriving", program, &error, NEXT, &error, None);
            }
        }
    }
    Ok(())
}

/// A client that fragments must learn how large its fragments may be.
#[test]
fn an_error_about_a_fragment_is_one_about_the_service() -> Result<()> {
    for net in nets() {
        let mut kernel = Kernel::new()?;
        kernel.service(1, net.service, TCP, Some(net.backend), true)?;
        let cut = |offset: usize| Packet {
            payload: vec![0x5a; 40],
            fragment: Some((offset, 24, 0x1234)),
            ..Packet::tcp(net.client, net.service, tcp::SYN)
        };
        let given = |asked: &Packet| asked.between(net.client, net.backend);
        let (first, later) = (cut(0), cut(24));
        kernel.run("device_ingress", &first.bytes())?;
        let client = net.client.ip();
        let error = too_big(router(&net), client, &given(&first));
        let mended = too_big(router(&net), client, &first);
        for program in ["pod_egress", "device_egress"] {
            kernel.expect("the first", program, &error, NEXT, &mended, MENDED);
        }
        // The others are no larger, and without ports they are of no flow.
        let error = too_big(router(&net), client, &given(&later));
        kernel.expect("a later", "device_egress", &error, NEXT, &error, None);
    }
    Ok(())
}

#[test]
fn an_error_about_an_answer_finds_the_backend() -> Result<()> {
    for net in nets() {
        let mut kernel = Kernel::new()?;
        kernel.service(1, net.service, TCP, Some(net.backend), true)?;
        let asked = Packet::tcp(net.client, net.service, tcp::SYN);
        kernel.run("device_ingress", &asked.bytes())?;
        let answer = Packet::tcp(net.service, net.client, tcp::ACK);
        let sent = answer.between(net.backend, net.client);
        for from in [router(&net), net.client.ip()] {
            let error = too_big(from, net.service.ip(), &answer);
            let mended = too_big(from, net.backend.ip(), &sent);
            for program in ["device_ingress", "pod_ingress"] {
                kernel.expect("arriving", program, &error, NEXT, &mended, MENDED);
            }
            kernel.expect("leaving", "device_egress", &error, NEXT, &error, None);
        }
    }
    Ok(())
}

#[test]
fn an_error_for_a_translated_source_finds_the_client() -> Result<()> {
    for net in nets() {
        let mut kernel = Kernel::new()?;
        kernel.service(1, net.node_socket(), TCP, Some(net.backend), false)?;
        let asked = Packet::tcp(net.client, net.node_socket(), tcp::SYN);
        let ran = kernel.run("device_ingress", &asked.bytes())?;
        let l4 = if net.client.is_ipv4() { 34 } else { 54 };
        let port = u16::from_be_bytes([ran.packet[l4], ran.packet[l4 + 1]]);
        let given = asked.between(SocketAddr::new(net.node, port), net.backend);
        let (node, client) = (net.node, net.client.ip());
        let error = too_big(router(&net), node, &given);
        let mended = too_big(router(&net), client, &asked);
        kernel.expect("a router", "device_ingress", &error, NEXT, &mended, MENDED);
        // With this node as its source it cannot go by the stack's routing.
        let error = too_big(net.backend.ip(), node, &given);
        let mended = Packet {
            ttl: error.ttl - 1,
            ..too_big(node, client, &asked)
        };
        kernel.expect(
            "the backend",
            "device_ingress",
            &error,
            REDIRECT,
            &mended,
            MENDED,
        );
    }
    Ok(())
}

#[test]
fn other_errors_stay_as_they_are() -> Result<()> {
    for net in nets() {
        let mut kernel = Kernel::new()?;
        kernel.service(1, net.service, TCP, Some(net.backend), true)?;
        let asked = Packet::tcp(net.client, net.service, tcp::SYN);
        kernel.run("pod_ingress", &asked.bytes())?;
        let given = asked.between(net.client, net.backend);
        let (client, node) = (net.client.ip(), net.node);
        let unknown = given.between(net.node_socket(), net.backend);
        let cut = {
            let whole = too_big(router(&net), client, &given);
            Packet {
                payload: whole.payload[..whole.payload.len() - 1].to_vec(),
                ..whole
            }
        };
        let echo = {
            let mut echo = too_big(router(&net), client, &given);
            echo.payload[0] = if client.is_ipv4() { 8 } else { 128 };
            echo
        };
        for (what, packet) in [
            ("for somebody else", too_big(router(&net), node, &given)),
            ("of no flow", too_big(router(&net), node, &unknown)),
            ("cut short", cut),
            ("an echo request", echo),
        ] {
            for program in [
                "pod_egress",
                "device_egress",
                "pod_ingress",
                "device_ingress",
            ] {
                kernel.expect(what, program, &packet, NEXT, &packet, None);
            }
        }
    }
    Ok(())
}

#[test]
fn what_is_too_big_on_its_way_to_another_node_hears_so() -> Result<()> {
    for net in nets() {
        let mut kernel = Kernel::new()?;
        kernel.service(1, net.node_socket(), TCP, Some(net.backend), false)?;
        kernel.service(2, net.service, UDP, Some(net.backend), false)?;
        let header = if net.client.is_ipv4() { 20 } else { 40 };
        for (packet, transport) in [
            (Packet::tcp(net.client, net.node_socket(), tcp::SYN), 20),
            (Packet::udp(net.client, net.service), 8),
        ] {
            let len = |len: usize| Packet {
                payload: vec![7; len - header - transport],
                ..packet.clone()
            };
            let fits = kernel.run("device_ingress", &len(1500).bytes())?;
            assert_eq!(fits.verdict, REDIRECT);
            let big = len(1501);
            // Quoted as far as the transport header.
            let mut mended = too_big(packet.destination.ip(), net.client.ip(), &big);
            mended.payload.truncate(8);
            mended.payload[6..8].copy_from_slice(&1500_u16.to_be_bytes());
            mended.payload[2..4].fill(0);
            mended
                .payload
                .extend(&big.bytes()[14..14 + header + transport]);
            let check = if net.client.is_ipv4() {
                checksum(&mended.payload)
            } else {
                let (from, to) = (mended.source.ip(), mended.destination.ip());
                transport_checksum(from, to, 58, &mended.payload)
            };
            mended.payload[2..4].copy_from_slice(&check.to_be_bytes());
            kernel.expect(
                "too big",
                "device_ingress",
                &big,
                REDIRECT,
                &mended.sent_back(),
                Some(Counter::TcTooBig),
            );
        }
    }
    Ok(())
}
