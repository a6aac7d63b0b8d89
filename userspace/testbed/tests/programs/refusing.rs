//! A service without endpoints: TC answers, XDP leaves it to TC.

use std::net::SocketAddr;

use abi::Counter;
use anyhow::Result;
use testbed::packet::{Packet, Transport, checksum, tcp, transport_checksum};

use crate::kernel::{Kernel, NEXT, REDIRECT, SCTP, SHOT, TCP, UDP, XDP_PASS, nets};

#[test]
fn tcp_is_reset() -> Result<()> {
    for net in nets() {
        let mut kernel = Kernel::new()?;
        kernel.service(1, net.service, TCP, None, false)?;
        let answer = |flags, sequence, acknowledged| Packet {
            payload: Vec::new(),
            link: [testbed::packet::SENDER, testbed::packet::RECEIVER],
            ..Packet::new(
                net.service,
                net.client,
                Transport::Tcp {
                    flags,
                    sequence,
                    acknowledged,
                },
            )
        };
        let with = |flags, payload: &[u8]| Packet {
            payload: payload.to_vec(),
            ..Packet::tcp(net.client, net.service, flags)
        };
        let first = 0x0102_0304;
        let (rst, ack) = (tcp::RST, tcp::ACK);
        let cases = [
            ("SYN", with(tcp::SYN, b""), answer(rst | ack, 0, first + 1)),
            (
                "SYN and data",
                with(tcp::SYN, b"abc"),
                answer(rst | ack, 0, first + 4),
            ),
            ("FIN", with(tcp::FIN, b"a"), answer(rst | ack, 0, first + 2)),
            ("ACK", with(ack, b"some data"), answer(rst, 0x0506_0708, 0)),
        ];
        for (what, packet, answer) in cases {
            for program in ["pod_ingress", "device_ingress"] {
                let ran = kernel.run(program, &packet.bytes())?;
                assert_eq!(ran.verdict, REDIRECT, "{what}");
                assert_eq!(ran.counted, [(Counter::TcNoEndpoint, 1)], "{what}");
                // A reset promises no window.
                let mut expected = answer.bytes();
                let l4 = expected.len() - 20;
                expected[l4 + 14..l4 + 18].fill(0);
                let check =
                    transport_checksum(net.service.ip(), net.client.ip(), 6, &expected[l4..]);
                expected[l4 + 16..l4 + 18].copy_from_slice(&check.to_be_bytes());
                assert!(
                    ran.packet == expected,
                    "{what}\n  is {:02x?}\n not {expected:02x?}",
                    ran.packet
                );
            }
            let counter = Some(Counter::XdpNoEndpoint);
            kernel.expect(what, "device_xdp", &packet, XDP_PASS, &packet, counter);
        }
        let reset = with(rst, b"");
        let counter = Some(Counter::TcNoEndpoint);
        kernel.expect(
            "a reset is not answered",
            "pod_ingress",
            &reset,
            SHOT,
            &reset,
            counter,
        );
    }
    Ok(())
}

#[test]
fn a_port_that_a_service_s_address_does_not_have_is_refused() -> Result<()> {
    for net in nets() {
        let mut kernel = Kernel::new()?;
        kernel.service(1, net.service, TCP, Some(net.backend), true)?;
        let unknown = SocketAddr::new(net.service.ip(), 99);
        let first = Packet::tcp(net.client, unknown, tcp::SYN);
        let datagram = Packet::udp(net.client, net.service);
        for program in ["pod_ingress", "device_ingress"] {
            let ran = kernel.run(program, &first.bytes())?;
            assert_eq!((ran.verdict, ran.counted), (NEXT, vec![]), "{program}");
        }
        kernel.whole_address(net.service.ip())?;
        for packet in [&first, &datagram] {
            for program in ["pod_ingress", "device_ingress"] {
                let ran = kernel.run(program, &packet.bytes())?;
                assert_eq!(ran.verdict, REDIRECT, "{program}");
                assert_eq!(ran.counted, [(Counter::TcNoEndpoint, 1)], "{program}");
            }
            let counter = Some(Counter::XdpNoEndpoint);
            kernel.expect("XDP", "device_xdp", packet, XDP_PASS, packet, counter);
        }
        // What goes on may be a connection of before the address was a service's.
        let later = Packet::tcp(net.client, unknown, tcp::ACK);
        kernel.expect("goes on", "pod_ingress", &later, NEXT, &later, None);
    }
    Ok(())
}

#[test]
fn udp_and_sctp_hear_that_the_port_is_unreachable() -> Result<()> {
    for net in nets() {
        let mut kernel = Kernel::new()?;
        kernel.service(1, net.service, UDP, None, false)?;
        kernel.service(2, net.service, SCTP, None, false)?;
        // Of an INIT as much is quoted as tells its sender which one it was.
        let mut packets = vec![
            (Packet::udp(net.client, net.service), 8),
            (Packet::sctp(net.client, net.service, false), 20),
            (Packet::sctp(net.client, net.service, true), 8),
        ];
        if net.node.is_ipv4() {
            let options = Packet {
                options: vec![1, 1, 1, 0],
                ..packets[0].0.clone()
            };
            packets.push((options, 8));
        }
        for (packet, quoted_len) in packets {
            let whole = packet.bytes();
            let ran = kernel.run("pod_ingress", &whole)?;
            assert_eq!(
                (ran.verdict, &ran.counted[..]),
                (REDIRECT, &[(Counter::TcNoEndpoint, 1)][..])
            );
            let header = if net.node.is_ipv4() { 20 } else { 40 };
            let quoted = &whole[14..14 + header + packet.options.len() + quoted_len];
            let (proto, kind) = if net.node.is_ipv4() {
                (1, [3, 3])
            } else {
                (58, [1, 4])
            };
            let mut icmp = vec![kind[0], kind[1], 0, 0, 0, 0, 0, 0];
            icmp.extend(quoted);
            let check = if net.node.is_ipv4() {
                checksum(&icmp)
            } else {
                transport_checksum(net.service.ip(), net.client.ip(), proto, &icmp)
            };
            icmp[2..4].copy_from_slice(&check.to_be_bytes());
            let expected = Packet {
                payload: icmp,
                ..Packet::new(net.service, net.client, Transport::Raw(proto))
            }
            .sent_back()
            .bytes();
            assert!(
                ran.packet == expected,
                "is {:02x?}\nnot {expected:02x?}",
                ran.packet
            );
        }
    }
    Ok(())
}
