//! Pods' packets judged by policies: which tuple, at which link, in which direction.

use std::net::{IpAddr, SocketAddr};

use abi::policy::{self, ACCEPT, ADDRESS_BITS, EPOCH_BITS, PORT_AT, REFUSE};
use abi::{
    Counter, PolicyControl, PolicyLink, PolicyLinkKey, PolicyPeerKey, PolicyPortKey,
    PolicyVerdictKey,
};
use anyhow::Result;
use plan::policy::PolicyStep;
use testbed::packet::{Packet, SENDER, Transport, tcp};

use crate::kernel::{Kernel, LOOPBACK, NEXT, Net, REDIRECT, SCTP, SHOT, TCP, UDP, VETH, nets};

const EPOCH: u32 = 5;
pub(crate) const CLIENTS: u32 = 20;
pub(crate) const SERVERS: u32 = 21;
pub(crate) const CLIENT: u32 = 30;
pub(crate) const SERVER: u32 = 31;
const PROFILE: u32 = 40;

fn peer(addr: IpAddr, identity: u32) -> PolicyStep {
    let addr = match addr {
        IpAddr::V4(addr) => addr.to_ipv6_mapped(),
        IpAddr::V6(addr) => addr,
    };
    let key = PolicyPeerKey {
        prefix_len: EPOCH_BITS + ADDRESS_BITS,
        epoch: EPOCH,
        addr: addr.octets(),
    };
    PolicyStep::PutPeer(key, identity)
}

pub(crate) fn link(ifindex: u32, ingress: u32, egress: u32) -> PolicyStep {
    let link = PolicyLink {
        ingress,
        ingress_default: REFUSE,
        egress,
        egress_default: REFUSE,
        adopt_until_secs: 0,
    };
    PolicyStep::PutLink(
        PolicyLinkKey {
            ifindex,
            epoch: EPOCH,
        },
        link,
    )
}

pub(crate) fn control(flags: u32, generation: u32) -> PolicyStep {
    PolicyStep::Control(PolicyControl {
        flags,
        epoch: EPOCH,
        generation,
        _pad: 0,
    })
}

/// The backend's port by TCP and UDP is open from the client to the backend, and nothing else is.
pub(crate) fn rules(net: &Net) -> Vec<PolicyStep> {
    let port = |proto| {
        PolicyStep::PutPort(PolicyPortKey {
            prefix_len: PORT_AT + 16,
            profile: PROFILE,
            proto,
            _pad: 0,
            port: net.backend.port().into(),
        })
    };
    let verdict =
        |set, identity| PolicyStep::PutVerdict(PolicyVerdictKey { set, identity }, PROFILE);
    vec![
        port(TCP),
        port(UDP),
        verdict(CLIENTS, SERVER),
        verdict(SERVERS, CLIENT),
        peer(net.client.ip(), CLIENT),
        peer(net.backend.ip(), SERVER),
        peer(net.node, policy::NODE | 32),
        control(policy::flags::ENFORCED | policy::flags::UNKNOWN_CLOSED, 1),
    ]
}

pub(crate) fn set(kernel: &Kernel, steps: &[PolicyStep]) -> Result<()> {
    Ok(kernel.datapath.policy_table()?.apply(steps)?)
}

/// A kernel where a service leads to the backend, and the pods at the loopback and the veth have these sets.
fn judged(net: &Net, loopback: (u32, u32), veth: (u32, u32)) -> Result<Kernel> {
    let mut kernel = Kernel::new()?;
    for (id, proto) in [(1, TCP), (2, UDP)] {
        kernel.service(id, net.service, proto, Some(net.backend), true)?;
    }
    set(
        &kernel,
        &[
            link(LOOPBACK, loopback.0, loopback.1),
            link(VETH, veth.0, veth.1),
        ],
    )?;
    set(&kernel, &rules(net))?;
    Ok(kernel)
}

/// A pod at the loopback whose policies let it begin what [`rules`] say.
pub(crate) fn client_judged(net: &Net) -> Result<Kernel> {
    judged(net, (0, CLIENTS), (0, 0))
}

/// Pods at both links, whose policies let pass what [`rules`] say.
pub(crate) fn both_judged(net: &Net) -> Result<Kernel> {
    judged(net, (0, CLIENTS), (SERVERS, 0))
}

/// A context in which a packet arrived at `from`.
pub(crate) fn arrived(from: u32) -> Vec<u8> {
    let mut context = vec![0; 40];
    context[36..40].copy_from_slice(&from.to_ne_bytes());
    context
}

pub(crate) fn counts(counted: &[(Counter, u64)], counter: Counter) -> bool {
    counted.iter().any(|(of, _)| *of == counter)
}

fn to(at: SocketAddr, port: u16) -> SocketAddr {
    SocketAddr::new(at.ip(), port)
}

#[test]
fn what_a_pod_sends_is_judged_behind_translation() -> Result<()> {
    for net in nets() {
        let kernel = judged(&net, (0, CLIENTS), (0, 0))?;
        let elsewhere = to(net.node_socket(), 22);
        let stranger = SocketAddr::new(net.service.ip(), 81);
        for (what, packet, passes) in [
            (
                "the backend",
                Packet::tcp(net.client, net.backend, tcp::SYN),
                true,
            ),
            (
                "another port",
                Packet::tcp(net.client, to(net.backend, 81), tcp::SYN),
                false,
            ),
            ("by UDP", Packet::udp(net.client, net.backend), true),
            (
                "the service",
                Packet::tcp(net.client, net.service, tcp::SYN),
                true,
            ),
            (
                "the service, on",
                Packet::tcp(net.client, net.service, tcp::ACK),
                true,
            ),
            (
                "the service by UDP",
                Packet::udp(net.client, net.service),
                true,
            ),
            (
                "no service's port",
                Packet::tcp(net.client, stranger, tcp::SYN),
                false,
            ),
            (
                "its node",
                Packet::tcp(net.client, elsewhere, tcp::SYN),
                true,
            ),
            (
                "another protocol",
                Packet::new(net.client, net.backend, Transport::Raw(47)),
                false,
            ),
        ] {
            let ran = kernel.run("pod_ingress", &packet.bytes())?;
            assert_eq!(ran.verdict == SHOT, !passes, "{what}: {ran:?}");
            assert_eq!(
                counts(&ran.counted, Counter::DropPolicyEgress),
                !passes,
                "{what}: {ran:?}"
            );
        }
        // Without policies the same packets pass.
        set(&kernel, &[control(0, 2)])?;
        let packet = Packet::tcp(net.client, to(net.backend, 81), tcp::SYN);
        kernel.expect("off", "pod_ingress", &packet, NEXT, &packet, None);
    }
    Ok(())
}

#[test]
fn what_a_pod_gets_is_judged_at_its_link() -> Result<()> {
    for net in nets() {
        let kernel = judged(&net, (SERVERS, 0), (0, 0))?;
        let from_client = Packet::tcp(net.client, net.backend, tcp::SYN);
        let wrong_port = Packet::tcp(net.client, to(net.backend, 81), tcp::SYN);
        let stranger = Packet::tcp(to(net.node_socket(), 40_000), net.backend, tcp::SYN);
        for (what, packet, from, passes) in [
            ("the client", &from_client, VETH, true),
            ("another port", &wrong_port, VETH, false),
            ("a stranger with the node's address", &stranger, VETH, false),
            ("the node itself", &wrong_port, 0, true),
            (
                "what comes back to where it came from",
                &wrong_port,
                LOOPBACK,
                true,
            ),
        ] {
            let ran = kernel.run_in("pod_egress", &packet.bytes(), &arrived(from))?;
            assert_eq!(ran.verdict == SHOT, !passes, "{what}: {ran:?}");
            assert_eq!(
                counts(&ran.counted, Counter::DropPolicyIngress),
                !passes,
                "{what}: {ran:?}"
            );
        }
        // A device of the node judges nothing.
        let ran = kernel.run_in("device_egress", &wrong_port.bytes(), &arrived(VETH))?;
        assert_eq!(ran.verdict, NEXT);
    }
    Ok(())
}

#[test]
fn what_goes_straight_is_judged_at_both_ends() -> Result<()> {
    for net in nets() {
        for (loopback, veth, port, expected) in [
            ((0, CLIENTS), (SERVERS, 0), net.backend.port(), None),
            ((0, CLIENTS), (0, 0), 81, Some(Counter::DropPolicyEgress)),
            ((0, 0), (SERVERS, 0), 81, Some(Counter::DropPolicyIngress)),
            (
                (0, 0),
                (policy::CLOSED, 0),
                net.backend.port(),
                Some(Counter::DropPolicyIngress),
            ),
            ((0, 0), (0, 0), 81, None),
        ] {
            let mut kernel = judged(&net, loopback, veth)?;
            kernel.pod(net.client.ip(), LOOPBACK)?;
            kernel.pod(net.backend.ip(), VETH)?;
            let packet = Packet {
                link: [[0; 6], SENDER],
                ..Packet::tcp(net.client, to(net.backend, port), tcp::SYN)
            };
            let ran = kernel.run("pod_ingress", &packet.bytes())?;
            let verdict = if expected.is_none() { REDIRECT } else { SHOT };
            assert_eq!(
                ran.verdict, verdict,
                "{loopback:?} {veth:?} {port}: {ran:?}"
            );
            if let Some(counter) = expected {
                assert!(
                    counts(&ran.counted, counter),
                    "{loopback:?} {veth:?}: {ran:?}"
                );
                assert!(!counts(&ran.counted, Counter::TcHostRouted));
            }
            // The answer passes the ends that let the question pass.
            if expected.is_none() {
                let answer = Packet {
                    link: [[0; 6], SENDER],
                    ..Packet::tcp(to(net.backend, port), net.client, tcp::SYN | tcp::ACK)
                };
                let ran = kernel.run_in("pod_egress", &answer.bytes(), &arrived(VETH))?;
                assert_eq!(ran.verdict, NEXT, "{ran:?}");
            }
        }
    }
    Ok(())
}

#[test]
fn a_link_of_which_nothing_is_known_is_closed() -> Result<()> {
    for net in nets() {
        let kernel = Kernel::new()?;
        set(&kernel, &rules(&net))?;
        let packet = Packet::tcp(net.client, net.backend, tcp::SYN);
        let to_node = Packet::tcp(net.client, net.node_socket(), tcp::ACK);
        kernel.expect(
            "from",
            "pod_ingress",
            &packet,
            SHOT,
            &packet,
            Some(Counter::DropPolicyUnknown),
        );
        kernel.expect("to its node", "pod_ingress", &to_node, NEXT, &to_node, None);
        let ran = kernel.run_in("pod_egress", &packet.bytes(), &arrived(VETH))?;
        assert_eq!(ran.verdict, SHOT);
        assert!(counts(&ran.counted, Counter::DropPolicyUnknown));
        let ran = kernel.run_in("pod_egress", &packet.bytes(), &arrived(0))?;
        assert_eq!(ran.verdict, NEXT, "its node's own");
        set(&kernel, &[link(LOOPBACK, 0, 0)])?;
        kernel.expect("known", "pod_ingress", &packet, NEXT, &packet, None);
    }
    Ok(())
}

#[test]
fn a_change_meets_connections_that_stand() -> Result<()> {
    for net in nets() {
        let kernel = judged(&net, (0, CLIENTS), (0, 0))?;
        let opens = Packet::tcp(net.client, net.backend, tcp::SYN);
        let goes_on = Packet::tcp(net.client, net.backend, tcp::ACK);
        kernel.expect("opens", "pod_ingress", &opens, NEXT, &opens, None);
        let closed = PolicyStep::PutVerdict(
            PolicyVerdictKey {
                set: CLIENTS,
                identity: SERVER,
            },
            REFUSE,
        );
        let open = PolicyStep::PutVerdict(
            PolicyVerdictKey {
                set: CLIENTS,
                identity: SERVER,
            },
            ACCEPT,
        );
        let on = policy::flags::ENFORCED | policy::flags::UNKNOWN_CLOSED;
        set(&kernel, &[closed, control(on, 2)])?;
        let no = Some(Counter::DropPolicyEgress);
        kernel.expect("closed", "pod_ingress", &goes_on, SHOT, &goes_on, no);
        set(&kernel, &[open, control(on, 3)])?;
        kernel.expect("open", "pod_ingress", &goes_on, NEXT, &goes_on, None);
    }
    Ok(())
}

#[test]
fn fragments_follow_their_first() -> Result<()> {
    for net in nets() {
        let kernel = judged(&net, (0, CLIENTS), (0, 0))?;
        let piece = |port: u16, offset, id| Packet {
            payload: vec![0x5a; 40],
            fragment: Some((offset, 16, id)),
            ..Packet::udp(net.client, to(net.backend, port))
        };
        let open = net.backend.port();
        let no = Some(Counter::DropPolicyEgress);
        let lost = Some(Counter::DropFragment);
        for (what, piece, verdict, counter) in [
            ("nobody's", piece(open, 16, 1), SHOT, lost),
            ("first", piece(open, 0, 2), NEXT, None),
            ("later", piece(open, 16, 2), NEXT, None),
            ("first of a bad one", piece(81, 0, 3), SHOT, no),
            ("later of a bad one", piece(81, 16, 3), SHOT, lost),
        ] {
            kernel.expect(what, "pod_ingress", &piece, verdict, &piece, counter);
        }
    }
    Ok(())
}

#[test]
fn nothing_of_a_damaged_packet_slips_through() -> Result<()> {
    for net in nets() {
        // Nobody may speak with anybody.
        let kernel = judged(&net, (policy::CLOSED, policy::CLOSED), (0, 0))?;
        for packet in [
            Packet::tcp(net.client, net.backend, tcp::SYN),
            Packet::udp(net.client, net.backend),
            Packet::new(net.client, net.backend, Transport::Raw(132)),
        ] {
            let bytes = packet.bytes();
            // The kernel runs no program on less than the headers that the link header announces.
            let least = if net.client.is_ipv6() { 54 } else { 34 };
            for len in least..=bytes.len() {
                let ran = kernel.run("pod_ingress", &bytes[..len])?;
                assert_eq!(ran.verdict, SHOT, "{len} of {} bytes: {ran:?}", bytes.len());
            }
        }
    }
    Ok(())
}

/// The ports of SCTP are judged as those of other protocols, whoever began the association; and without a port of their
/// own nobody is let in by another protocol's.
#[test]
fn associations_of_sctp_are_judged_by_their_ports() -> Result<()> {
    for net in nets() {
        let kernel = judged(&net, (0, CLIENTS), (0, 0))?;
        let no = Some(Counter::DropPolicyEgress);
        let init = |port| Packet::sctp(net.client, to(net.backend, port), false);
        let data = |port| Packet::sctp(net.client, to(net.backend, port), true);
        let open = net.backend.port();
        for packet in [init(open), data(open)] {
            kernel.expect(
                "by TCP and UDP alone",
                "pod_ingress",
                &packet,
                SHOT,
                &packet,
                no,
            );
        }
        let range = |port: u16, bits| {
            PolicyStep::PutPort(PolicyPortKey {
                prefix_len: PORT_AT + bits,
                profile: PROFILE,
                proto: SCTP,
                _pad: 0,
                port: port.into(),
            })
        };
        let on = policy::flags::ENFORCED | policy::flags::UNKNOWN_CLOSED;
        // One port, and four that an endPort makes a range of.
        set(
            &kernel,
            &[range(open, 16), range(36_412, 14), control(on, 2)],
        )?;
        for (port, passes) in [
            (open, true),
            (36_412, true),
            (36_415, true),
            (36_416, false),
            (36_411, false),
        ] {
            for packet in [init(port), data(port)] {
                let (verdict, counter) = if passes { (NEXT, None) } else { (SHOT, no) };
                kernel.expect("SCTP", "pod_ingress", &packet, verdict, &packet, counter);
            }
        }
        // Its answers come back, and what it did not ask for does too: nothing limits what begins with this pod.
        let kernel = judged(&net, (SERVERS, 0), (0, 0))?;
        set(&kernel, &[range(open, 16), control(on, 2)])?;
        let arrives =
            |packet: &Packet| kernel.run_in("pod_egress", &packet.bytes(), &arrived(VETH));
        assert_eq!(arrives(&init(open))?.verdict, NEXT);
        assert_eq!(arrives(&init(open + 1))?.verdict, SHOT);
        let answer = Packet::sctp(net.backend, net.client, true);
        kernel.expect("an answer", "pod_ingress", &answer, NEXT, &answer, None);
        // Cut where its ports end, it is nobody's.
        let bytes = init(open).bytes();
        let l4 = if net.client.is_ipv4() { 34 } else { 54 };
        for len in l4..bytes.len() {
            let ran = kernel.run_in("pod_egress", &bytes[..len], &arrived(VETH))?;
            assert!(ran.verdict == NEXT || ran.verdict == SHOT, "{len}: {ran:?}");
        }
    }
    Ok(())
}

/// A client from outside whose way back was found right when its flow began is judged by the pod's port all the same.
#[test]
fn a_checked_flow_is_judged_by_its_backend() -> Result<()> {
    for net in nets() {
        let mut kernel = judged(&net, (0, 0), (SERVERS, 0))?;
        // Clients are where packets of a test run come from.
        let bits = if net.client.is_ipv4() { 24 } else { 64 };
        kernel
            .netns()
            .ip(&format!("route add {}/{bits} dev lo", subnet(&net)))?;
        kernel.pod(net.backend.ip(), VETH)?;
        for flags in [tcp::SYN, tcp::ACK, tcp::ACK] {
            let packet = Packet {
                link: [[0; 6], SENDER],
                ..Packet::tcp(net.client, net.service, flags)
            };
            let ran = kernel.run("device_ingress", &packet.bytes())?;
            assert_eq!(ran.verdict, REDIRECT, "{ran:?}");
        }
    }
    Ok(())
}

fn subnet(net: &Net) -> &'static str {
    if net.client.is_ipv4() {
        "10.244.1.0"
    } else {
        "fd00:1::"
    }
}

/// What comes back to a translated source is the pod's conversation, also where it goes straight to the pod.
#[test]
fn answers_to_a_translated_source_are_the_pod_s() -> Result<()> {
    for net in nets() {
        let kernel = judged(&net, (0, CLIENTS), (policy::CLOSED, CLIENTS))?;
        crate::masquerade::switch_on(&kernel)?;
        let mut kernel = kernel;
        kernel.pod(net.client.ip(), VETH)?;
        let far = to(crate::masquerade::outside(&net), net.backend.port());
        set(&kernel, &[peer(far.ip(), SERVER)])?;
        let asked = Packet {
            link: [[0; 6], SENDER],
            ..Packet::tcp(net.client, far, tcp::SYN)
        };
        let ran = kernel.run("pod_ingress", &asked.bytes())?;
        assert_ne!(ran.verdict, SHOT, "{ran:?}");
        let ran = kernel.run_in("device_egress", &asked.bytes(), &arrived(VETH))?;
        assert!(counts(&ran.counted, Counter::TcMasquerade), "{ran:?}");
        let l4 = if net.client.is_ipv4() { 34 } else { 54 };
        let port = u16::from_be_bytes([ran.packet[l4], ran.packet[l4 + 1]]);
        let answer = |from| Packet {
            link: [[0; 6], SENDER],
            ..Packet::tcp(from, SocketAddr::new(net.node, port), tcp::SYN | tcp::ACK)
        };
        let ran = kernel.run("device_ingress", &answer(far).bytes())?;
        assert_ne!(ran.verdict, SHOT, "{ran:?}");
        assert!(counts(&ran.counted, Counter::TcReply), "{ran:?}");
        // A packet to the pod itself, which it did not ask for.
        let unasked = Packet {
            link: [[0; 6], SENDER],
            ..Packet::tcp(to(far, 9), net.client, tcp::SYN)
        };
        let ran = kernel.run("device_ingress", &unasked.bytes())?;
        assert_eq!(ran.verdict, SHOT, "{ran:?}");
    }
    Ok(())
}
