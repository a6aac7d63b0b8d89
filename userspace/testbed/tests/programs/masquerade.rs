//! Pods' packets to the outside of the cluster: this node's address where they leave, the pod's where answers arrive.

use std::net::{IpAddr, SocketAddr};

use abi::masquerade::{FAMILY_BITS, families, flags::PODS_HERE};
use abi::{Counter, InsideKey, Masquerade, family};
use anyhow::{Context as _, Result};
use bpf::Masquerading;
use testbed::packet::{Packet, SENDER, Transport, checksum, tcp, transport_checksum};

use crate::errors::too_big;
use crate::kernel::{Kernel, NEXT, Net, REDIRECT, Ran, SHOT, VETH, XDP_PASS, nets};
use crate::policy::arrived;

/// Where pods' packets come from.
const LINK: u32 = VETH;
const BOTH: Masquerade = Masquerade {
    families: families::V4 | families::V6,
};

fn range(addr: IpAddr, bits: u32, flags: u32) -> (InsideKey, u32) {
    let mut padded = [0; 16];
    let number = match addr {
        IpAddr::V4(addr) => {
            padded[..4].copy_from_slice(&addr.octets());
            family::V4
        }
        IpAddr::V6(addr) => {
            padded = addr.octets();
            family::V6
        }
    };
    let key = InsideKey {
        prefix_len: FAMILY_BITS + bits,
        family: number.into(),
        addr: padded,
    };
    (key, flags)
}

fn masquerading(how: Masquerade) -> Result<Kernel> {
    let kernel = Kernel::new()?;
    set(&kernel, how)?;
    Ok(kernel)
}

/// As [`set`], for both families.
pub(crate) fn switch_on(kernel: &Kernel) -> Result<()> {
    set(kernel, BOTH)
}

/// The client's subnet is this node's pods', the backend's another node's.
fn set(kernel: &Kernel, how: Masquerade) -> Result<()> {
    let ranges = nets().into_iter().flat_map(|net| {
        let bits = if net.node.is_ipv4() { 24 } else { 64 };
        [
            range(net.client.ip(), bits, PODS_HERE),
            range(net.backend.ip(), bits, 0),
            range(net.node, if bits == 24 { 32 } else { 128 }, 0),
        ]
    });
    Ok(Masquerading::open(&kernel.root())?.set(&ranges.collect(), how)?)
}

/// Somebody outside of the cluster.
pub(crate) fn outside(net: &Net) -> SocketAddr {
    let text = if net.node.is_ipv4() {
        "203.0.113.9:443"
    } else {
        "[2001:db8:f::9]:443"
    };
    text.parse().expect("an address")
}

fn leave(kernel: &Kernel, packet: &Packet) -> Result<Ran> {
    kernel.run_in("device_egress", &packet.bytes(), &arrived(LINK))
}

/// The source port (or what stands in its place at `offset` behind IP) of a packet without tags or options.
fn word_at(packet: &[u8], net: &Net, offset: usize) -> u16 {
    let l4 = if net.node.is_ipv4() { 34 } else { 54 };
    u16::from_be_bytes([packet[l4 + offset], packet[l4 + offset + 1]])
}

fn counts(ran: &Ran) -> Vec<Counter> {
    ran.counted.iter().map(|(counter, _)| *counter).collect()
}

#[test]
fn conversations_leave_as_the_node_s_and_come_back_to_the_pod() -> Result<()> {
    let kernel = masquerading(BOTH)?;
    for net in nets() {
        let (pod, far) = (net.client, outside(&net));
        let flows = [
            (
                Packet::tcp(pod, far, tcp::SYN),
                Packet::tcp(pod, far, tcp::ACK),
            ),
            (Packet::udp(pod, far), Packet::udp(pod, far)),
            (Packet::sctp(pod, far, false), Packet::sctp(pod, far, true)),
        ];
        for (first, later) in flows {
            let ran = leave(&kernel, &first)?;
            let node = SocketAddr::new(net.node, word_at(&ran.packet, &net, 0));
            assert!((61_000..=61_003).contains(&node.port()), "{node}");
            assert_eq!(
                (ran.verdict, counts(&ran)),
                (NEXT, vec![Counter::TcMasquerade])
            );
            assert_eq!(ran.packet, first.between(node, far).bytes());
            let ran = leave(&kernel, &later)?;
            assert_eq!(ran.packet, later.between(node, far).bytes());
            assert_eq!(
                (ran.verdict, counts(&ran)),
                (NEXT, vec![Counter::TcMasquerade])
            );
            kernel.expect(
                "at the pod's link",
                "pod_ingress",
                &later,
                NEXT,
                &later,
                None,
            );
            let (answer, given) = (later.between(far, node), later.between(far, pod));
            let by_tc = Some(Counter::TcReply);
            kernel.expect("answer", "device_ingress", &answer, NEXT, &given, by_tc);
            let by_xdp = Some(Counter::XdpReply);
            kernel.expect("answer", "device_xdp", &answer, XDP_PASS, &given, by_xdp);
            for place in ["device_ingress", "pod_egress"] {
                kernel.expect("given", place, &given, NEXT, &given, None);
            }
        }
    }
    Ok(())
}

#[test]
fn who_asks_a_pod_from_outside_is_answered_by_it() -> Result<()> {
    let kernel = masquerading(BOTH)?;
    for net in nets() {
        let (pod, far) = (net.client, outside(&net));
        for asked in [Packet::udp(far, pod), Packet::sctp(far, pod, true)] {
            let answer = asked.between(pod, far);
            for _ in 0..2 {
                kernel.expect("asked", "device_ingress", &asked, NEXT, &asked, None);
                let ran = leave(&kernel, &answer)?;
                assert_eq!((ran.verdict, ran.packet), (NEXT, answer.bytes()));
            }
        }
    }
    Ok(())
}

#[test]
fn what_is_not_a_pod_s_or_stays_inside_is_left_alone() -> Result<()> {
    for (how, masquerades) in [(BOTH, true), (Masquerade::default(), false)] {
        let kernel = masquerading(how)?;
        for net in nets() {
            let (pod, far) = (net.client, outside(&net));
            let own = SocketAddr::new(net.node, 40_000);
            let stranger = SocketAddr::new(net.backend.ip(), 40_000);
            let mut packets = vec![
                Packet::tcp(pod, net.backend, tcp::SYN),
                Packet::tcp(pod, net.node_socket(), tcp::SYN),
                Packet::tcp(stranger, far, tcp::SYN),
                Packet::tcp(own, far, tcp::SYN),
                Packet::new(pod, far, Transport::Raw(47)),
                Packet::new(
                    pod,
                    far,
                    Transport::Raw(if net.node.is_ipv4() { 1 } else { 58 }),
                ),
            ];
            let first = Packet::tcp(pod, far, tcp::SYN);
            if !masquerades {
                packets.push(first.clone());
            }
            for packet in &packets {
                let ran = leave(&kernel, packet)?;
                assert_eq!(ran.packet, packet.bytes(), "{packet:?}");
                assert_eq!((ran.verdict, counts(&ran)), (NEXT, vec![]), "{packet:?}");
            }
            // What the host itself sends, from whichever address.
            kernel.expect("the host's", "device_egress", &first, NEXT, &first, None);
        }
    }
    Ok(())
}

/// An echo message and what its identifier is.
fn echo(net: &Net, from: SocketAddr, to: SocketAddr, asks: bool, identifier: u16) -> Packet {
    let (v4, proto) = (net.node.is_ipv4(), if net.node.is_ipv4() { 1 } else { 58 });
    let kind = match (v4, asks) {
        (true, true) => 8,
        (true, false) => 0,
        (false, true) => 128,
        (false, false) => 129,
    };
    let mut payload = vec![kind, 0, 0, 0];
    payload.extend(identifier.to_be_bytes());
    payload.extend([0, 7]);
    payload.extend(b"a payload of odd length");
    let check = if v4 {
        checksum(&payload)
    } else {
        transport_checksum(from.ip(), to.ip(), proto, &payload)
    };
    payload[2..4].copy_from_slice(&check.to_be_bytes());
    Packet {
        payload,
        ..Packet::new(from, to, Transport::Raw(proto))
    }
}

#[test]
fn echo_requests_are_answered_too() -> Result<()> {
    let kernel = masquerading(BOTH)?;
    for net in nets() {
        let ends = [net.client, outside(&net), net.node_socket()];
        let [pod, far, node] = ends.map(|end| SocketAddr::new(end.ip(), 0));
        let ran = leave(&kernel, &echo(&net, pod, far, true, 77))?;
        let identifier = word_at(&ran.packet, &net, 4);
        assert!((61_000..=61_003).contains(&identifier), "{identifier}");
        assert_eq!(ran.packet, echo(&net, node, far, true, identifier).bytes());
        assert_eq!(
            (ran.verdict, counts(&ran)),
            (NEXT, vec![Counter::TcMasquerade])
        );
        let answer = echo(&net, far, node, false, identifier);
        let given = echo(&net, far, pod, false, 77);
        let counted = Some(Counter::TcMasquerade);
        kernel.expect("answer", "device_ingress", &answer, NEXT, &given, counted);
        kernel.expect("answer", "device_xdp", &answer, XDP_PASS, &answer, None);
        // This node's own.
        let own = echo(&net, far, node, false, 78);
        kernel.expect("own", "device_ingress", &own, NEXT, &own, None);
        // A pod that is asked answers as itself.
        let asked = echo(&net, pod, far, false, 5);
        assert_eq!(leave(&kernel, &asked)?.packet, asked.bytes());
    }
    Ok(())
}

#[test]
fn errors_are_about_what_the_pod_or_its_peer_sent() -> Result<()> {
    let kernel = masquerading(BOTH)?;
    for net in nets() {
        let (pod, far) = (net.client, outside(&net));
        let router = SocketAddr::new(far.ip(), 0);
        let mended = Some(Counter::TcIcmpError);
        let asked = Packet::tcp(pod, far, tcp::SYN);
        let ran = leave(&kernel, &asked)?;
        let node = SocketAddr::new(net.node, word_at(&ran.packet, &net, 0));
        let error = too_big(router.ip(), net.node, &asked.between(node, far));
        let given = too_big(router.ip(), pod.ip(), &asked);
        kernel.expect(
            "about a request",
            "device_ingress",
            &error,
            NEXT,
            &given,
            mended,
        );

        let [from, to] = [pod, far].map(|end| SocketAddr::new(end.ip(), 0));
        let mut asked = echo(&net, from, to, true, 77);
        let ran = leave(&kernel, &asked)?;
        let identifier = word_at(&ran.packet, &net, 4);
        let node_end = SocketAddr::new(net.node, 0);
        let sent = echo(&net, node_end, to, true, identifier);
        // Nobody checks the checksum of what is quoted in part, and it stays.
        asked.payload[2..4].copy_from_slice(&sent.payload[2..4]);
        kernel.expect(
            "about an echo request",
            "device_ingress",
            &too_big(router.ip(), net.node, &sent),
            NEXT,
            &too_big(router.ip(), pod.ip(), &asked),
            mended,
        );

        let answer = Packet::tcp(far, pod, tcp::ACK);
        let error = too_big(pod.ip(), far.ip(), &answer);
        let given = Packet {
            ttl: error.ttl - 1,
            ..too_big(net.node, far.ip(), &answer.between(far, node))
        };
        kernel.expect(
            "about an answer",
            "pod_ingress",
            &error,
            REDIRECT,
            &given,
            mended,
        );
    }
    Ok(())
}

#[test]
fn without_a_port_or_an_address_packets_are_dropped() -> Result<()> {
    let mut kernel = masquerading(BOTH)?;
    for net in nets() {
        for number in 0..8 {
            let pod = SocketAddr::new(net.client.ip(), 30_000 + number);
            let ran = leave(&kernel, &Packet::udp(pod, outside(&net)))?;
            let (verdict, counter) = if number < 4 {
                (NEXT, Counter::TcMasquerade)
            } else {
                (SHOT, Counter::DropSnatExhausted)
            };
            assert_eq!(
                (ran.verdict, counts(&ran)),
                (verdict, vec![counter]),
                "{number}"
            );
        }
    }
    let node = kernel.datapath.node()?;
    kernel.datapath.set_node(&abi::NodeConfig {
        addr4: [0; 4],
        addr6: [0; 16],
        ..node
    })?;
    for net in nets() {
        let ran = leave(&kernel, &Packet::tcp(net.client, outside(&net), tcp::SYN))?;
        assert_eq!(
            (ran.verdict, counts(&ran)),
            (SHOT, vec![Counter::DropNoNodeAddress])
        );
    }
    Ok(())
}

#[test]
fn packets_to_inside_and_outside_leave_without_the_stack() -> Result<()> {
    let mut kernel = masquerading(BOTH)?;
    kernel.say_tc_runs()?;
    for net in nets() {
        kernel.pod(net.client.ip(), crate::kernel::LOOPBACK)?;
        let straight = |to| -> Result<Ran> {
            // Addressed to the device of a test run.
            let packet = Packet {
                link: [[0; 6], SENDER],
                ..Packet::tcp(net.client, to, tcp::SYN)
            };
            kernel.run("pod_ingress", &packet.bytes())
        };
        for to in [outside(&net), net.backend] {
            let ran = straight(to)?;
            assert_eq!(
                (ran.verdict, counts(&ran)),
                (REDIRECT, vec![Counter::TcHostRouted])
            );
        }
    }
    Ok(())
}

#[test]
fn fragments_of_one_packet_leave_alike() -> Result<()> {
    let kernel = masquerading(BOTH)?;
    for net in nets() {
        let (pod, far) = (net.client, outside(&net));
        let whole = Packet {
            payload: vec![7; 48],
            ..Packet::udp(pod, far)
        };
        let part = |from: usize| Packet {
            fragment: Some((from, if from == 0 { 24 } else { 32 }, 9)),
            ..whole.clone()
        };
        let ran = leave(&kernel, &part(0))?;
        let l4 = ran.packet.len() - 24;
        let port = u16::from_be_bytes([ran.packet[l4], ran.packet[l4 + 1]]);
        let node = SocketAddr::new(net.node, port);
        for (from, ran) in [(0, ran), (24, leave(&kernel, &part(24))?)] {
            let expected = part(from).between(node, far).bytes();
            assert_eq!(ran.packet, expected, "from byte {from}");
            assert_eq!(counts(&ran), [Counter::TcMasquerade]);
        }
    }
    Ok(())
}

/// Little for a pod's packet that stays inside, and little more than a lookup where it is translated.
#[test]
fn it_costs_little() -> Result<()> {
    let net = &nets()[0];
    let context = arrived(LINK);
    let time = |kernel: &Kernel, packet: &Packet| -> Result<u32> {
        let run = || {
            kernel
                .datapath
                .test_run("device_egress", &packet.bytes(), &context, 100_000)
        };
        Ok(kernel.netns().run(|| Ok(run()?))?.duration_ns)
    };
    let inside = Packet::tcp(net.client, net.backend, tcp::ACK);
    let (off, on) = (masquerading(Masquerade::default())?, masquerading(BOTH)?);
    let (off_ns, on_ns) = (time(&off, &inside)?, time(&on, &inside)?);
    println!("a pod's packet that stays inside: {off_ns} ns while off, {on_ns} while on");
    // Loose: the machine may be busy.
    let most = off_ns.checked_mul(4).context("an odd time")? + 400;
    assert!(on_ns < most, "{on_ns} ns");
    Ok(())
}
