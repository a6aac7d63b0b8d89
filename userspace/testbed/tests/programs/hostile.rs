//! Packets that lie about themselves or end too soon.

use abi::Counter;
use anyhow::Result;
use testbed::packet::{Packet, tcp};

use crate::kernel::{Kernel, NEXT, SCTP, SHOT, TCP, UDP, XDP_DROP, XDP_PASS, nets};

const ARRIVING: [(&str, u32, u32); 3] = [
    ("pod_ingress", NEXT, SHOT),
    ("device_ingress", NEXT, SHOT),
    ("device_xdp", XDP_PASS, XDP_DROP),
];

#[test]
fn a_packet_cut_at_any_byte_is_dropped_where_it_was_ours_and_passes_elsewhere() -> Result<()> {
    for net in nets() {
        let mut kernel = Kernel::new()?;
        kernel.service(1, net.service, TCP, Some(net.backend), true)?;
        kernel.service(2, net.service, UDP, Some(net.backend), true)?;
        kernel.service(3, net.service, SCTP, Some(net.backend), true)?;
        kernel.whole_address(net.service.ip())?;
        let l3 = 14;
        let addresses_end = l3 + if net.node.is_ipv4() { 20 } else { 40 };
        for ours in [true, false] {
            let to = if ours { net.service } else { net.backend };
            for packet in [
                Packet::tcp(net.client, to, tcp::SYN),
                Packet::udp(net.client, to),
                Packet::sctp(net.client, to, false),
            ] {
                let whole = packet.bytes();
                // The kernel runs nothing on less than a link header.
                for len in l3..whole.len() {
                    for (program, pass, drop) in ARRIVING {
                        // TC of a packet without its IP header cannot be tried: the kernel's test run refuses it.
                        let Ok(ran) = kernel.run(program, &whole[..len]) else {
                            assert!(len < addresses_end, "{program} does not run on {len} bytes");
                            continue;
                        };
                        let (verdict, counted) = if ours && len >= addresses_end {
                            (drop, vec![(Counter::DropTruncated, 1)])
                        } else {
                            (pass, Vec::new())
                        };
                        assert_eq!(
                            (ran.verdict, ran.counted),
                            (verdict, counted),
                            "{program} on {len} bytes, ours: {ours}"
                        );
                        assert_eq!(ran.packet, whole[..len], "{program} on {len} bytes");
                    }
                }
            }
        }
    }
    Ok(())
}

#[test]
fn impossible_lengths_are_malformed() -> Result<()> {
    let net = &nets()[0];
    let mut kernel = Kernel::new()?;
    kernel.service(1, net.service, TCP, Some(net.backend), true)?;
    let whole = Packet::tcp(net.client, net.service, tcp::SYN).bytes();
    let edit = |at: usize, bytes: &[u8]| {
        let mut packet = whole.clone();
        packet[at..at + bytes.len()].copy_from_slice(bytes);
        packet
    };
    let (malformed, truncated) = (Some(Counter::DropMalformed), Some(Counter::DropTruncated));
    let cases = [
        ("no IHL", edit(14, &[0x40]), malformed),
        ("IHL of 4", edit(14, &[0x44]), malformed),
        ("another version", edit(14, &[0x65]), None),
        (
            "total length below the header",
            edit(16, &[0, 19]),
            malformed,
        ),
        (
            "total length beyond the packet",
            edit(16, &[0x10, 0]),
            truncated,
        ),
        (
            "total length within the TCP header",
            edit(16, &[0, 39]),
            truncated,
        ),
        ("IHL beyond the packet", edit(14, &[0x4f]), truncated),
        ("TCP data offset of 4", edit(46, &[0x40]), malformed),
    ];
    for ours in [false, true] {
        if ours {
            kernel.whole_address(net.service.ip())?;
        }
        for (what, packet, counter) in &cases {
            for (program, pass, drop) in ARRIVING {
                let ran = kernel.run(program, packet)?;
                // Where the port can be read the frontend is known without its address being a service's alone.
                let known = ours
                    || matches!(
                        *what,
                        "total length beyond the packet"
                            | "total length within the TCP header"
                            | "TCP data offset of 4"
                    );
                let counted: Vec<_> = counter
                    .filter(|_| known)
                    .map(|c| (c, 1))
                    .into_iter()
                    .collect();
                if *what == "IHL beyond the packet" && !ours {
                    continue; // the ports lie in the payload
                }
                let verdict = if counted.is_empty() { pass } else { drop };
                assert_eq!(
                    (ran.verdict, ran.counted),
                    (verdict, counted),
                    "{what}, {program}, {ours}"
                );
                assert_eq!(&ran.packet, packet, "{what}, {program}");
            }
        }
    }
    Ok(())
}

#[test]
fn too_many_extension_headers_pass() -> Result<()> {
    let net = &nets()[1];
    let mut kernel = Kernel::new()?;
    kernel.service(1, net.service, TCP, Some(net.backend), true)?;
    let packet = Packet {
        extensions: vec![(60, vec![0; 6]); 5],
        ..Packet::tcp(net.client, net.service, tcp::SYN)
    };
    for (program, pass, _) in ARRIVING {
        kernel.expect("five headers", program, &packet, pass, &packet, None);
    }
    Ok(())
}

#[test]
fn tables_that_are_not_whole_drop_and_tell() -> Result<()> {
    for net in nets() {
        let mut kernel = Kernel::new()?;
        kernel.service(1, net.service, TCP, Some(net.backend), true)?;
        plan::Store::apply(&mut kernel.datapath, &[plan::Step::RemoveBackend(1)])?;
        let packet = Packet::tcp(net.client, net.service, tcp::SYN);
        for (program, _, drop) in ARRIVING {
            let counter = Some(Counter::DropNoBackend);
            kernel.expect("no backend", program, &packet, drop, &packet, counter);
        }
        // Translation needs an address of this node.
        kernel.service(1, net.service, TCP, Some(net.backend), false)?;
        kernel.datapath.set_node(&abi::NodeConfig::default())?;
        for (program, _, drop) in &ARRIVING[1..] {
            let counter = Some(Counter::DropNoNodeAddress);
            kernel.expect("no address", program, &packet, *drop, &packet, counter);
        }
    }
    Ok(())
}

#[test]
fn a_packet_to_forward_whose_time_is_over_is_dropped() -> Result<()> {
    for net in nets() {
        let mut kernel = Kernel::new()?;
        kernel.service(1, net.service, TCP, Some(net.backend), false)?;
        let packet = Packet {
            ttl: 1,
            ..Packet::tcp(net.client, net.service, tcp::SYN)
        };
        let counter = Some(Counter::DropTtlExceeded);
        kernel.expect("ttl", "device_ingress", &packet, SHOT, &packet, counter);
    }
    Ok(())
}
