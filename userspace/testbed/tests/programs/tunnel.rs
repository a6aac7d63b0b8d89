//! Packets in packets: what a node sends to a backend's node, and what it takes off.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use abi::members::flags::{HERE, KNOWN, NODE};
use abi::{Backend, Counter, Frontend, Member, MemberKey, backends, frontends};
use anyhow::Result;
use plan::{Step, Store as _};
use testbed::packet::{Packet, Transport, tcp};

use crate::kernel::{
    Kernel, LOOPBACK, NEXT, NEXT_HOP, NODE_LINK, Net, REDIRECT, SHOT, TCP, UDP, XDP_DROP, XDP_PASS,
    backend, key, nets,
};

/// XDP: send to another device.
const XDP_REDIRECT: u32 = 4;

/// The address of another node.
pub(crate) fn other(net: &Net) -> IpAddr {
    match net.node {
        IpAddr::V4(_) => [192, 0, 2, 9].into(),
        IpAddr::V6(_) => "2001:db8::9".parse().expect("an address"),
    }
}

/// A client outside of the cluster.
fn outside(net: &Net) -> SocketAddr {
    let addr = match net.node {
        IpAddr::V4(_) => "198.51.100.7",
        IpAddr::V6(_) => "2001:db8:99::7",
    };
    SocketAddr::new(addr.parse().expect("an address"), 40_000)
}

pub(crate) fn member(addr: IpAddr, bits_left_out: u32, flags: u32) -> (MemberKey, Member) {
    let addr = match addr {
        IpAddr::V4(addr) => addr.to_ipv6_mapped(),
        IpAddr::V6(addr) => addr,
    };
    let kept = u128::from(addr) >> bits_left_out << bits_left_out;
    let key = MemberKey {
        prefix_len: 128 - bits_left_out,
        addr: kept.to_be_bytes(),
    };
    let flags = flags | KNOWN;
    (key, Member { flags })
}

/// Tells of this node and another one, and of which of them the backend's range is.
pub(crate) fn members(kernel: &mut Kernel, backend_here: bool) -> Result<()> {
    let mut members = BTreeMap::new();
    for net in nets() {
        members.extend([
            member(net.node, 0, NODE | HERE),
            member(other(&net), 0, NODE),
            member(net.backend.ip(), 8, if backend_here { HERE } else { 0 }),
        ]);
    }
    kernel.datapath.set_members(&members)?;
    Ok(())
}

/// A service whose backend is on another node, by `dsr`.
fn remote(kernel: &mut Kernel, id: u32, net: &Net, proto: u8, flags: u8) -> Result<()> {
    let backend = Backend {
        flags,
        ..backend(id, net.backend, false)
    };
    let frontend = Frontend {
        service: id,
        ring_offset: id,
        ring_len: 1,
        affinity_secs: 0,
        flags: frontends::flags::DSR,
    };
    kernel.datapath.apply(&[
        Step::PutBackend(id, backend),
        Step::PutRing {
            offset: id,
            backends: vec![id],
        },
        Step::PutFrontend(key(net.service, proto), frontend),
    ])?;
    Ok(())
}

fn entry(net: &Net) -> Result<Kernel> {
    let mut kernel = Kernel::new()?;
    members(&mut kernel, false)?;
    remote(&mut kernel, 1, net, TCP, backends::flags::TUNNELS)?;
    remote(&mut kernel, 2, net, UDP, backends::flags::TUNNELS)?;
    Ok(kernel)
}

/// The packet in one from `from` to the backend.
pub(crate) fn around(packet: &Packet, from: IpAddr, backend: SocketAddr) -> Vec<u8> {
    let inner = packet.bytes()[14..].to_vec();
    let v4 = from.is_ipv4();
    let (proto, at) = if v4 { (4, 18) } else { (41, 16) };
    let outer = Packet {
        link: packet.link,
        payload: inner,
        ..Packet::new(
            SocketAddr::new(from, 0),
            SocketAddr::new(backend.ip(), 0),
            Transport::Raw(proto),
        )
    };
    let mut frame = outer.bytes();
    frame[at..at + 2].copy_from_slice(&backend.port().to_be_bytes());
    if v4 {
        frame[24..26].fill(0);
        let check = testbed::packet::checksum(&frame[14..34]);
        frame[24..26].copy_from_slice(&check.to_be_bytes());
    }
    frame
}

#[test]
fn a_packet_goes_to_its_backend_s_node_as_it_came() -> Result<()> {
    for net in nets() {
        let client = outside(&net);
        for (proto, packet) in [
            (TCP, Packet::tcp(client, net.service, tcp::SYN)),
            (UDP, Packet::udp(client, net.service)),
        ] {
            let hop = |packet: &Packet| Packet {
                ttl: 63,
                ..packet.clone()
            };
            let kernel = entry(&net)?;
            let out = around(&hop(&packet), net.node, net.backend);
            for counters in [
                [Counter::TcNewFlow, Counter::TcTunnelled],
                [Counter::TcForward, Counter::TcTunnelled],
            ] {
                let ran = kernel.run("device_ingress", &packet.bytes())?;
                assert_eq!(ran.verdict, REDIRECT, "{ran:?}");
                assert_eq!(ran.counted, counters.map(|counter| (counter, 1)));
                assert!(ran.packet == out, "{:02x?}\nnot {out:02x?}", ran.packet);
            }
            // A VLAN's tag is not taken along.
            let tagged = Packet {
                tags: vec![(0x8100, 7)],
                ..packet.clone()
            };
            let ran = kernel.run("device_ingress", &tagged.bytes())?;
            assert!(ran.packet == out, "{:02x?}\nnot {out:02x?}", ran.packet);

            let mut kernel = entry(&net)?;
            let left = kernel.run("device_xdp", &packet.bytes())?;
            assert_eq!(left.verdict, XDP_PASS, "TC sends it");
            assert_eq!(left.counted, [(Counter::XdpNewFlow, 1)]);
            assert!(left.packet == packet.bytes());
            kernel.allow_xdp_transmit()?;
            let ran = kernel.run("device_xdp", &packet.bytes())?;
            assert_eq!(ran.verdict, XDP_REDIRECT, "{proto}: {ran:?}");
            let counted = [(Counter::XdpForward, 1), (Counter::XdpTunnelled, 1)];
            assert_eq!(ran.counted, counted);
            let onward = Packet {
                link: [NEXT_HOP, NODE_LINK],
                ..hop(&packet)
            };
            let out = around(&onward, net.node, net.backend);
            assert!(ran.packet == out, "{:02x?}\nnot {out:02x?}", ran.packet);
        }
    }
    Ok(())
}

#[test]
fn what_cannot_go_so_gets_this_node_s_source_and_is_counted() -> Result<()> {
    for net in nets() {
        for (what, client, flags) in [
            ("a backend on no node", outside(&net), 0),
            (
                "a client of the cluster",
                SocketAddr::new(other(&net), 40_000),
                backends::flags::TUNNELS,
            ),
        ] {
            let mut kernel = Kernel::new()?;
            members(&mut kernel, false)?;
            remote(&mut kernel, 1, &net, TCP, flags)?;
            let packet = Packet::tcp(client, net.service, tcp::SYN);
            let ran = kernel.run("device_ingress", &packet.bytes())?;
            let counted = [(Counter::TcNewFlow, 1), (Counter::SnatInstead, 1)];
            assert_eq!(ran.counted, counted, "{what}");
            assert_eq!(ran.packet.len(), packet.bytes().len(), "{what}");
        }
    }
    Ok(())
}

#[test]
fn what_ends_here_is_dropped_and_what_is_too_long_hears_so() -> Result<()> {
    for net in nets() {
        let kernel = entry(&net)?;
        let client = outside(&net);
        let dying = Packet {
            ttl: 1,
            ..Packet::udp(client, net.service)
        };
        let ran = kernel.run("device_ingress", &dying.bytes())?;
        assert_eq!(ran.verdict, SHOT);
        assert_eq!(ran.counted, [(Counter::DropTtlExceeded, 1)]);
        let (own, outer) = if net.node.is_ipv4() {
            (28, 20)
        } else {
            (48, 40)
        };
        let long = |len: usize| Packet {
            payload: vec![7; len - own],
            ..Packet::udp(client, net.service)
        };
        let fits = kernel.run("device_ingress", &long(1500 - outer).bytes())?;
        assert_eq!(fits.packet.len(), 14 + 1500);
        let too_long = kernel.run("device_ingress", &long(1500 - outer + 1).bytes())?;
        assert_eq!(too_long.verdict, REDIRECT);
        assert_eq!(too_long.counted, [(Counter::TcTooBig, 1)]);
        let mtu = if net.node.is_ipv4() {
            assert_eq!(too_long.packet[34..36], [3, 4], "fragmentation needed");
            u16::from_be_bytes([too_long.packet[40], too_long.packet[41]])
        } else {
            assert_eq!(too_long.packet[54..56], [2, 0], "packet too big");
            u16::from_be_bytes([too_long.packet[60], too_long.packet[61]])
        };
        assert_eq!(usize::from(mtu), 1500 - outer);
    }
    Ok(())
}

#[test]
fn fragments_go_one_by_one_and_are_put_to_their_flow_again() -> Result<()> {
    for net in nets() {
        let client = outside(&net);
        let piece = |offset: usize| Packet {
            payload: vec![0x5a; 40],
            fragment: Some((offset, 16, 0x1234)),
            ttl: 63,
            ..Packet::udp(client, net.service)
        };
        let sender = entry(&net)?;
        let mut taker = Kernel::new()?;
        members(&mut taker, true)?;
        taker.service(1, net.service, UDP, Some(net.backend), true)?;
        for offset in [0, 16, 32] {
            let came = Packet {
                ttl: 64,
                ..piece(offset)
            };
            let sent = sender.run("device_ingress", &came.bytes())?;
            let out = around(&piece(offset), net.node, net.backend);
            assert!(sent.packet == out, "{offset}: {:02x?}", sent.packet);
            let arrived = around(&piece(offset), other(&net), net.backend);
            let taken = taker.run("device_ingress", &arrived)?;
            let given = piece(offset).between(client, net.backend).bytes();
            assert_eq!(taken.verdict, NEXT, "{taken:?}");
            assert!(taken.packet == given, "{offset}: {:02x?}", taken.packet);
        }
    }
    Ok(())
}

#[test]
fn what_another_node_sent_is_taken_off_and_its_answers_are_the_service_s() -> Result<()> {
    for net in nets() {
        for (program, pass, counters) in [
            (
                "device_ingress",
                NEXT,
                [
                    Counter::TcNewFlow,
                    Counter::TcForward,
                    Counter::TcUntunnelled,
                ],
            ),
            (
                "device_xdp",
                XDP_PASS,
                [
                    Counter::XdpNewFlow,
                    Counter::XdpForward,
                    Counter::XdpUntunnelled,
                ],
            ),
        ] {
            let mut kernel = Kernel::new()?;
            members(&mut kernel, true)?;
            kernel.service(1, net.service, TCP, Some(net.backend), true)?;
            // A node port, which this node knows at its own address.
            let port = SocketAddr::new(net.node, 30_080);
            kernel.service(2, port, TCP, Some(net.backend), true)?;
            let there = SocketAddr::new(other(&net), 30_080);
            let [begun, known, taken] = counters;
            for (asked, client) in [
                (net.service, outside(&net)),
                (there, SocketAddr::new(outside(&net).ip(), 40_001)),
            ] {
                for (flags, counter) in [(tcp::SYN, begun), (tcp::ACK, known)] {
                    let inner = Packet::tcp(client, asked, flags);
                    let ran = kernel.run(program, &around(&inner, other(&net), net.backend))?;
                    assert_eq!(ran.verdict, pass, "{program}: {ran:?}");
                    assert_eq!(ran.counted, [(counter, 1), (taken, 1)], "{program}");
                    let out = inner.between(client, net.backend).bytes();
                    assert!(ran.packet == out, "{:02x?}\nnot {out:02x?}", ran.packet);
                }
                let answer = Packet::tcp(net.backend, client, tcp::SYN | tcp::ACK);
                let shown = answer.between(asked, client);
                let reply = Some(Counter::TcReply);
                kernel.expect("answer", "device_egress", &answer, NEXT, &shown, reply);
            }
        }
    }
    Ok(())
}

#[test]
fn what_is_somebody_else_s_is_left_alone() -> Result<()> {
    for net in nets() {
        let mut kernel = Kernel::new()?;
        members(&mut kernel, true)?;
        kernel.service(1, net.service, TCP, Some(net.backend), true)?;
        let client = outside(&net);
        let inner = Packet::tcp(client, net.service, tcp::SYN);
        let no_service = Packet::tcp(client, SocketAddr::new(net.service.ip(), 81), tcp::SYN);
        let pods = Packet::tcp(net.backend, net.service, tcp::SYN);
        let elsewhere = SocketAddr::new(client.ip(), 8080);
        let strange = around(&inner, client.ip(), net.backend);
        let mut cut = around(&inner, other(&net), net.backend);
        cut.truncate(70);
        let no_port = SocketAddr::new(net.backend.ip(), 0);
        for (what, frame) in [
            ("from who is no node", strange),
            ("from this node", around(&inner, net.node, net.backend)),
            (
                "for who is not here",
                around(&inner, other(&net), elsewhere),
            ),
            (
                "for no service",
                around(&no_service, other(&net), net.backend),
            ),
            ("the cluster's own", around(&pods, other(&net), net.backend)),
            ("without a port", around(&inner, other(&net), no_port)),
            ("cut", cut),
        ] {
            for (program, pass) in [("device_ingress", NEXT), ("device_xdp", XDP_PASS)] {
                let ran = kernel.run(program, &frame)?;
                assert_eq!(ran.verdict, pass, "{what}");
                assert_eq!(ran.counted, [], "{what}");
                assert!(ran.packet == frame, "{what}");
            }
            let ran = kernel.run("pod_ingress", &frame)?;
            assert!(ran.packet == frame, "{what}");
        }
        // Nothing at a pod's link is taken off, whoever it says that it is from.
        let forged = around(&inner, other(&net), net.backend);
        let ran = kernel.run("pod_ingress", &forged)?;
        assert!(ran.packet == forged);
    }
    Ok(())
}

#[test]
fn an_error_on_the_way_to_the_other_node_reaches_the_client() -> Result<()> {
    for net in nets() {
        let kernel = entry(&net)?;
        let client = outside(&net);
        let packet = Packet::udp(client, net.service);
        let sent = kernel.run("device_ingress", &packet.bytes())?.packet;
        let v4 = net.node.is_ipv4();
        let (kind, len, proto) = if v4 {
            ([3, 4], 20_u16, 1)
        } else {
            ([2, 0], 40, 58)
        };
        let icmp = |from: IpAddr, to: IpAddr, mtu: u32, quoted: &[u8]| {
            let mut message = vec![kind[0], kind[1], 0, 0];
            message.extend(mtu.to_be_bytes());
            message.extend(quoted);
            let check = if v4 {
                testbed::packet::checksum(&message)
            } else {
                testbed::packet::transport_checksum(from, to, proto, &message)
            };
            message[2..4].copy_from_slice(&check.to_be_bytes());
            Packet {
                payload: message,
                ..Packet::new(
                    SocketAddr::new(from, 0),
                    SocketAddr::new(to, 0),
                    Transport::Raw(proto),
                )
            }
        };
        let router: IpAddr = if v4 {
            [192, 0, 2, 77].into()
        } else {
            "2001:db8::77".parse()?
        };
        let error = icmp(router, net.node, 1400, &sent[14..]);
        let ran = kernel.run("device_ingress", &error.bytes())?;
        assert_eq!(ran.verdict, REDIRECT, "{ran:?}");
        assert_eq!(ran.counted, [(Counter::TcIcmpError, 1)]);
        let inner = &sent[14 + usize::from(len)..];
        let told = icmp(router, client.ip(), u32::from(1400 - len), inner);
        assert!(ran.packet == told.bytes(), "{:02x?}", ran.packet);
        // About what is nobody's flow it is this node's own.
        let strange = icmp(router, net.node, 1400, &error.bytes()[14..]);
        let ran = kernel.run("device_ingress", &strange.bytes())?;
        assert_eq!((ran.verdict, ran.counted.len()), (NEXT, 0));
    }
    Ok(())
}

#[test]
fn xdp_drops_what_it_took_off_and_cannot_carry() -> Result<()> {
    // Of a fragmented packet to a service's own address whose first piece never came.
    for net in nets() {
        let mut kernel = Kernel::new()?;
        members(&mut kernel, true)?;
        kernel.service(1, net.service, UDP, Some(net.backend), true)?;
        kernel.whole_address(net.service.ip())?;
        let lost = Packet {
            payload: vec![0x5a; 40],
            fragment: Some((16, 16, 0x1234)),
            ..Packet::udp(outside(&net), net.service)
        };
        let frame = around(&lost, other(&net), net.backend);
        for (program, drop) in [("device_ingress", SHOT), ("device_xdp", XDP_DROP)] {
            let ran = kernel.run(program, &frame)?;
            assert_eq!(ran.verdict, drop);
            assert_eq!(ran.counted, [(Counter::DropFragment, 1)]);
        }
        kernel
            .datapath
            .set_device(LOOPBACK, abi::Device::default())?;
    }
    Ok(())
}
