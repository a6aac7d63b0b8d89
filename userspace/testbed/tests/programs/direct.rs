//! Straight to a pod of this node, past the stack: who may, where to, and what the packet looks like then.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use abi::Counter;
use anyhow::Result;
use testbed::packet::{Packet, SENDER, Transport, tcp};

use crate::kernel::{
    HOST_LINK, Kernel, LOOPBACK, NEXT, Net, POD_LINK, REDIRECT, Ran, TCP, UDP, VETH, nets,
};

/// Addressed to the device that packets of a test run arrive at, whose link address is zero: others are not this
/// node's.
fn to_us(packet: Packet) -> Packet {
    Packet {
        link: [[0; 6], SENDER],
        ..packet
    }
}

/// The packet one hop on, between these ends, on the pod's link.
fn hop(packet: &Packet, source: SocketAddr, destination: SocketAddr) -> Packet {
    Packet {
        link: [POD_LINK, HOST_LINK],
        ttl: packet.ttl - 1,
        ..packet.between(source, destination)
    }
}

/// The client behind the link that packets come from, the backend behind another.
fn two_pods(net: &Net) -> Result<Kernel> {
    let mut kernel = Kernel::new()?;
    kernel.pod(net.client.ip(), LOOPBACK)?;
    kernel.pod(net.backend.ip(), VETH)?;
    Ok(kernel)
}

#[track_caller]
fn expect(
    kernel: &Kernel,
    what: &str,
    program: &str,
    packet: &Packet,
    straight: Option<(&Packet, &[Counter])>,
) {
    let ran: Ran = kernel
        .run(program, &packet.bytes())
        .expect("the program runs");
    let (verdict, out, mut counted) = match straight {
        Some((out, counted)) => (REDIRECT, out, counted.to_vec()),
        None => (NEXT, packet, Vec::new()),
    };
    counted.sort();
    let counted: Vec<_> = counted.into_iter().map(|counter| (counter, 1)).collect();
    assert_eq!(
        (ran.verdict, &ran.counted),
        (verdict, &counted),
        "{what}: {program}"
    );
    let out = out.bytes();
    assert!(
        ran.packet == out,
        "{what}: {program}\n  is {:02x?}\n not {out:02x?}",
        ran.packet
    );
}

#[test]
fn a_pod_s_packet_goes_straight_to_another_pod() -> Result<()> {
    for net in nets() {
        let kernel = two_pods(&net)?;
        let packets = [
            Packet::tcp(net.client, net.backend, tcp::SYN),
            Packet::tcp(net.client, net.backend, tcp::ACK),
            Packet::udp(net.client, net.backend),
            Packet::new(net.client, net.backend, Transport::Raw(132)),
            Packet {
                ttl: 2,
                ..Packet::udp(net.client, net.backend)
            },
            Packet {
                ttl: 255,
                ..Packet::udp(net.client, net.backend)
            },
        ];
        for packet in packets.map(to_us) {
            let out = hop(&packet, net.client, net.backend);
            expect(
                &kernel,
                "plain",
                "pod_ingress",
                &packet,
                Some((&out, &[Counter::TcHostRouted])),
            );
        }
    }
    Ok(())
}

#[test]
fn what_the_stack_must_see_goes_there() -> Result<()> {
    for net in nets() {
        let kernel = two_pods(&net)?;
        let plain = to_us(Packet::udp(net.client, net.backend));
        let mut packets = vec![
            (
                "last hop",
                Packet {
                    ttl: 1,
                    ..plain.clone()
                },
            ),
            (
                "no hop left",
                Packet {
                    ttl: 0,
                    ..plain.clone()
                },
            ),
            (
                "tagged",
                Packet {
                    tags: vec![(0x8100, 7)],
                    ..plain.clone()
                },
            ),
            (
                "to another link address",
                Packet::udp(net.client, net.backend),
            ),
            (
                "first fragment",
                Packet {
                    fragment: Some((0, 16, 9)),
                    ..plain.clone()
                },
            ),
            (
                "later fragment",
                Packet {
                    fragment: Some((16, 8, 9)),
                    ..plain.clone()
                },
            ),
            (
                "to nobody's address",
                plain.between(net.client, net.service),
            ),
            ("to the node", plain.between(net.client, net.node_socket())),
            (
                "from another pod's address",
                plain.between(SocketAddr::new(net.backend.ip(), 9), net.backend),
            ),
            (
                "from nobody's address",
                plain.between(net.service, net.backend),
            ),
            (
                "back over the link that it came from",
                plain.between(net.client, SocketAddr::new(net.client.ip(), 9)),
            ),
            (
                "too big for the link",
                Packet {
                    payload: vec![0; 1600],
                    ..plain.clone()
                },
            ),
        ];
        if net.client.is_ipv4() {
            packets.push((
                "options",
                Packet {
                    options: vec![1; 4],
                    ..plain.clone()
                },
            ));
        } else {
            packets.push((
                "extension",
                Packet {
                    extensions: vec![(60, vec![1, 4, 0, 0, 0, 0])],
                    ..plain.clone()
                },
            ));
        }
        for (what, packet) in packets {
            expect(&kernel, what, "pod_ingress", &packet, None);
        }
        for program in ["pod_egress", "device_egress"] {
            expect(&kernel, "leaving already", program, &plain, None);
        }
    }
    Ok(())
}

#[test]
fn the_lease_and_the_link_decide() -> Result<()> {
    for net in nets() {
        let mut kernel = two_pods(&net)?;
        let packet = to_us(Packet::udp(net.client, net.backend));
        let out = hop(&packet, net.client, net.backend);
        let straight = Some((&out, &[Counter::TcHostRouted][..]));
        kernel.lease(0)?;
        expect(&kernel, "never", "pod_ingress", &packet, None);
        kernel.lease(bpf::now_secs() - 1)?;
        expect(&kernel, "run out", "pod_ingress", &packet, None);
        kernel.lease(bpf::now_secs() + 10)?;
        expect(&kernel, "running", "pod_ingress", &packet, straight);
        let endpoint = crate::kernel::endpoint(VETH);
        for (what, endpoint) in [
            (
                "gone without a word",
                abi::Endpoint {
                    ifindex: 999,
                    ..endpoint
                },
            ),
            (
                "somebody's queue",
                abi::Endpoint {
                    flags: 0,
                    ..endpoint
                },
            ),
        ] {
            kernel
                .datapath
                .set_endpoint(net.backend.ip(), Some(endpoint))?;
            expect(&kernel, what, "pod_ingress", &packet, None);
        }
        kernel.datapath.set_endpoint(net.backend.ip(), None)?;
        expect(&kernel, "forgotten", "pod_ingress", &packet, None);
    }
    Ok(())
}

#[test]
fn a_service_s_packets_and_answers_go_straight() -> Result<()> {
    for net in nets() {
        for (proto, first, later) in [
            (
                TCP,
                Packet::tcp(net.client, net.service, tcp::SYN),
                Packet::tcp(net.client, net.service, tcp::ACK),
            ),
            (
                UDP,
                Packet::udp(net.client, net.service),
                Packet::udp(net.client, net.service),
            ),
        ] {
            let (first, later) = (to_us(first), to_us(later));
            let mut kernel = two_pods(&net)?;
            kernel.service(1, net.service, proto, Some(net.backend), true)?;
            let out = hop(&first, net.client, net.backend);
            let begun = [Counter::TcNewFlow, Counter::TcHostRouted];
            expect(
                &kernel,
                "first",
                "pod_ingress",
                &first,
                Some((&out, &begun)),
            );
            let out = hop(&later, net.client, net.backend);
            let known = [Counter::TcForward, Counter::TcHostRouted];
            expect(
                &kernel,
                "later",
                "pod_ingress",
                &later,
                Some((&out, &known)),
            );
            // The answer comes from the backend's link: the two change sides.
            let answer = later.between(net.backend, net.client).accepting();
            expect(
                &kernel,
                "answer from elsewhere",
                "pod_ingress",
                &answer,
                None,
            );
            kernel.pod(net.client.ip(), VETH)?;
            kernel.pod(net.backend.ip(), LOOPBACK)?;
            let out = hop(&answer, net.service, net.client);
            let replied = [Counter::TcReply, Counter::TcHostRouted];
            expect(
                &kernel,
                "answer",
                "pod_ingress",
                &answer,
                Some((&out, &replied)),
            );
            kernel.lease(0)?;
            expect(&kernel, "answer by the stack", "pod_ingress", &answer, None);
        }
    }
    Ok(())
}

#[test]
fn from_outside_only_sources_that_are_routed_back_there() -> Result<()> {
    for net in nets() {
        let kernel = two_pods(&net)?;
        let packet = to_us(Packet::tcp(net.client, net.backend, tcp::SYN));
        expect(
            &kernel,
            "routed back elsewhere",
            "device_ingress",
            &packet,
            None,
        );
        kernel
            .netns()
            .ip(&format!("route add {} dev lo", net.client.ip()))?;
        let out = hop(&packet, net.client, net.backend);
        expect(
            &kernel,
            "routed back",
            "device_ingress",
            &packet,
            Some((&out, &[Counter::TcHostRouted])),
        );
        let own = packet.between(SocketAddr::new(net.node, 9), net.backend);
        expect(
            &kernel,
            "the node's own address",
            "device_ingress",
            &own,
            None,
        );
    }
    Ok(())
}

/// The packet as it goes to its next hop; the kernel writes the link header behind the program.
fn leaving(packet: &Packet, source: SocketAddr, destination: SocketAddr) -> Packet {
    Packet {
        ttl: packet.ttl - 1,
        ..packet.between(source, destination)
    }
}

/// Another host, behind the default route, and an address of the link itself.
fn elsewhere(net: &Net) -> [SocketAddr; 2] {
    if net.client.is_ipv4() {
        [
            SocketAddr::from(([203, 0, 113, 9], 443)),
            SocketAddr::from(([192, 0, 2, 254], 443)),
        ]
    } else {
        [
            SocketAddr::from(([0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 9], 443)),
            SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xfe], 443)),
        ]
    }
}

#[test]
fn a_pod_s_packet_for_another_host_goes_to_its_next_hop() -> Result<()> {
    for net in nets() {
        let mut kernel = two_pods(&net)?;
        let packets = elsewhere(&net).map(|host| to_us(Packet::tcp(net.client, host, tcp::SYN)));
        for packet in &packets {
            expect(&kernel, "a device of nobody's", "pod_ingress", packet, None);
        }
        kernel.say_tc_runs()?;
        for packet in &packets {
            let out = leaving(packet, packet.source, packet.destination);
            let straight = Some((&out, &[Counter::TcHostRouted][..]));
            expect(&kernel, "plain", "pod_ingress", packet, straight);
            for program in ["device_ingress", "pod_egress", "device_egress"] {
                expect(&kernel, "no pod's", program, packet, None);
            }
            let forged = packet.between(net.backend, packet.destination);
            expect(
                &kernel,
                "another pod's source",
                "pod_ingress",
                &forged,
                None,
            );
        }
        kernel.lease(0)?;
        expect(&kernel, "no lease", "pod_ingress", &packets[0], None);
    }
    Ok(())
}

#[test]
fn what_cannot_simply_leave_goes_to_the_stack() -> Result<()> {
    for net in nets() {
        let mut kernel = two_pods(&net)?;
        kernel.say_tc_runs()?;
        let [host, neighbour] = elsewhere(&net);
        let plain = to_us(Packet::udp(net.client, host));
        let (unknown, link_local) = if net.client.is_ipv4() {
            ([192, 0, 2, 77].into(), None)
        } else {
            let link_local = IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, 9]);
            kernel.netns().ip(&format!(
                "neigh add {link_local} lladdr 02:00:00:00:00:fe dev net0"
            ))?;
            (
                [0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x77].into(),
                Some(link_local),
            )
        };
        let to = |address: IpAddr| plain.between(net.client, SocketAddr::new(address, 9));
        let mut packets = vec![
            (
                "last hop",
                Packet {
                    ttl: 1,
                    ..plain.clone()
                },
            ),
            ("a neighbour that is not known yet", to(unknown)),
            (
                "too big for the device",
                Packet {
                    payload: vec![0; 1600],
                    ..plain.clone()
                },
            ),
            ("to the node", plain.between(net.client, net.node_socket())),
        ];
        packets.extend(link_local.map(|address| ("link-local", to(address))));
        for (what, packet) in packets {
            expect(&kernel, what, "pod_ingress", &packet, None);
        }
        // The route may be narrower than its device.
        let payload = vec![0; 1372 - if host.is_ipv4() { 28 } else { 48 }];
        let narrow = Packet {
            payload,
            ..plain.clone()
        };
        let out = leaving(&narrow, net.client, host);
        let straight = Some((&out, &[Counter::TcHostRouted][..]));
        let route = |mtu| {
            // Of IPv4's, an MTU that is not locked makes the agent leave all to the stack.
            format!(
                "route replace {} via {} mtu lock {mtu}",
                host.ip(),
                neighbour.ip()
            )
        };
        kernel.netns().ip(&route(1372))?;
        expect(&kernel, "fits the route", "pod_ingress", &narrow, straight);
        kernel.netns().ip(&route(1371))?;
        let_ways_be_forgotten();
        expect(
            &kernel,
            "too big for the route",
            "pod_ingress",
            &narrow,
            None,
        );
        kernel
            .netns()
            .ip(&format!("route replace unreachable {}", host.ip()))?;
        let_ways_be_forgotten();
        expect(&kernel, "no route", "pod_ingress", &plain, None);
    }
    Ok(())
}

/// Waits for as long as an answer of the routing table is used.
fn let_ways_be_forgotten() {
    // Milliseconds of 2^20 nanoseconds, and a tick of the clock that they are read from.
    let lasts = Duration::from_nanos(u64::from(abi::next_hops::LASTS_MS) << 20);
    std::thread::sleep(lasts + Duration::from_millis(20));
}

#[test]
fn the_way_off_the_node_is_remembered_for_a_moment() -> Result<()> {
    // Each CPU remembers for itself.
    let mut cpus = rustix::thread::CpuSet::new();
    cpus.set(rustix::thread::sched_getcpu());
    rustix::thread::sched_setaffinity(None, &cpus)?;
    for net in nets() {
        let mut kernel = two_pods(&net)?;
        kernel.say_tc_runs()?;
        let [host, _] = elsewhere(&net);
        let packet = to_us(Packet::tcp(net.client, host, tcp::ACK));
        let out = leaving(&packet, net.client, host);
        let straight = Some((&out, &[Counter::TcHostRouted][..]));
        expect(&kernel, "asked for", "pod_ingress", &packet, straight);
        kernel
            .netns()
            .ip(&format!("route replace unreachable {}", host.ip()))?;
        expect(&kernel, "remembered", "pod_ingress", &packet, straight);
        let other = packet.between(net.backend, host);
        expect(&kernel, "another pod's source", "pod_ingress", &other, None);
        let long = Packet {
            payload: vec![0; 1600],
            ..packet.clone()
        };
        expect(&kernel, "too long for it", "pod_ingress", &long, None);
        kernel.lease(0)?;
        expect(&kernel, "no lease", "pod_ingress", &packet, None);
        kernel.lease(bpf::now_secs() + 10)?;
        let_ways_be_forgotten();
        expect(&kernel, "forgotten", "pod_ingress", &packet, None);
    }
    Ok(())
}

#[test]
fn a_service_s_packets_and_answers_leave_without_the_stack() -> Result<()> {
    for net in nets() {
        let mut kernel = two_pods(&net)?;
        kernel.say_tc_runs()?;
        // A backend on another node.
        let [far, _] = elsewhere(&net);
        kernel.service(1, net.service, TCP, Some(far), false)?;
        let first = to_us(Packet::tcp(net.client, net.service, tcp::SYN));
        let out = leaving(&first, net.client, far);
        let begun = [Counter::TcNewFlow, Counter::TcHostRouted];
        expect(
            &kernel,
            "first",
            "pod_ingress",
            &first,
            Some((&out, &begun)),
        );
        // An outside client of a backend here: the answer gets the service's address on its way past the stack, or
        // where it leaves.
        kernel.service(2, net.node_socket(), TCP, Some(net.client), true)?;
        let asked = Packet::tcp(far, net.node_socket(), tcp::SYN);
        kernel.run("device_ingress", &asked.bytes())?;
        let answer = to_us(Packet::tcp(net.client, far, tcp::SYN | tcp::ACK));
        let given = leaving(&answer, net.node_socket(), far);
        let straight = Some((&given, &[Counter::TcReply, Counter::TcHostRouted][..]));
        expect(&kernel, "answer", "pod_ingress", &answer, straight);
        let routed = leaving(&answer, net.client, far);
        let ran = kernel.run("device_egress", &routed.bytes())?;
        assert_eq!(ran.counted, [(Counter::TcReply, 1)]);
        assert!(ran.packet == given.bytes(), "{:02x?}", ran.packet);
    }
    Ok(())
}
