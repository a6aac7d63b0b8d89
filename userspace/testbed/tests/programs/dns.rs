//! DNS queries for names of Services: answered where they arrive, or left octet for octet as they came.

use std::net::{IpAddr, SocketAddr};

use abi::{Counter, DnsAnswer, DnsControl, DnsName, dns};
use anyhow::Result;
use bpf::DnsTable;
use testbed::packet::{Packet, SENDER, Transport};

use crate::kernel::{Kernel, NEXT, Net, REDIRECT, UDP, XDP_PASS, XDP_TX, nets};

const TTL: u32 = 30;
const SERIAL: u32 = 0x0102_0304;
const PROGRAMS: [(&str, u32, u32, Counter); 3] = [
    ("pod_ingress", REDIRECT, NEXT, Counter::TcDnsAnswer),
    ("device_ingress", REDIRECT, NEXT, Counter::TcDnsAnswer),
    ("device_xdp", XDP_TX, XDP_PASS, Counter::XdpDnsAnswer),
];
const V4: [u8; 4] = [10, 96, 0, 1];
const V6: [u8; 16] = [0xfd, 0, 0, 0x96, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const OPT: [u8; 11] = [0, 0, 41, 0x10, 0, 0, 0, 0, 0, 0, 0];

fn wire(name: &str) -> Vec<u8> {
    let mut wire = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        wire.push(u8::try_from(label.len()).expect("a label"));
        wire.extend_from_slice(label.as_bytes());
    }
    wire.push(0);
    wire
}

fn answer(name: &str, v4: bool, v6: bool) -> (DnsName, DnsAnswer) {
    let name = wire(name);
    let zone = wire("cluster.local");
    let flag = |on: bool, flag: u8| if on { flag } else { 0 };
    let answer = DnsAnswer {
        addr4: if v4 { V4 } else { [0; 4] },
        addr6: if v6 { V6 } else { [0; 16] },
        ttl: TTL.into(),
        zone_at: u8::try_from(name.len() - zone.len()).expect("a short name"),
        flags: flag(v4, dns::flags::A) | flag(v6, dns::flags::AAAA),
        _pad: [0; 2],
    };
    (DnsName::new(&name).expect("a short name"), answer)
}

/// The Service of DNS at the tests' service address, port 53, and this node's instance at the node's, port 5353.
fn control(nets: &[Net; 2]) -> DnsControl {
    let octets = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let four = |ip| octets(ip).try_into().expect("IPv4");
    let six = |ip| octets(ip).try_into().expect("IPv6");
    DnsControl {
        service4: four(nets[0].service.ip()),
        service6: six(nets[1].service.ip()),
        local4: four(nets[0].node),
        local6: six(nets[1].node),
        service_port: 53.into(),
        local_port: 5353.into(),
        serial: SERIAL.into(),
        answers_until_secs: u32::MAX,
        ..DnsControl::default()
    }
}

const LONG: &str = "a23456789-123456789-123456789-123456789-123456789-123456789-123\
    .b23456789-123456789-123456789-123456789-1.svc.cluster.local";

fn prepared(kernel: &mut Kernel) -> Result<DnsTable> {
    kernel.allow_xdp_transmit()?;
    let mut table = kernel.dns_table()?;
    let names = [
        answer("web.default.svc.cluster.local", true, true),
        answer("four.default.svc.cluster.local", true, false),
        answer("six.default.svc.cluster.local", false, true),
        answer("odd1.default.svc.cluster.local", true, false),
        answer(LONG, true, true),
    ];
    assert!(table.write(&[], &names)?.is_empty(), "there is room");
    table.set_control(&control(&nets()))?;
    Ok(table)
}

fn question(id: u16, flags: [u8; 2], name: &[u8], kind: u16, opt: Option<[u8; 11]>) -> Vec<u8> {
    let mut message = id.to_be_bytes().to_vec();
    message.extend_from_slice(&flags);
    message.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, u8::from(opt.is_some())]);
    message.extend_from_slice(name);
    message.extend_from_slice(&kind.to_be_bytes());
    message.extend_from_slice(&[0, 1]);
    message.extend_from_slice(&opt.unwrap_or_default()[..if opt.is_some() { 11 } else { 0 }]);
    message
}

/// What RFC 1035 says that the answer looks like: `records` in the answer section, or the zone's SOA.
fn expected(question: &[u8], name_len: usize, records: Option<&[u8]>, opt: bool) -> Vec<u8> {
    let head = 12 + name_len + 4;
    let mut message = question[..head].to_vec();
    message[2] = 0x84 | question[2] & 1;
    message[3] = question[3] & 0x10;
    let [answers, authorities] = [u8::from(records.is_some()), u8::from(records.is_none())];
    message[6..12].copy_from_slice(&[0, answers, 0, authorities, 0, u8::from(opt)]);
    match records {
        Some(data) => {
            let kind = if data.len() == 4 { 1 } else { 28 };
            message.extend_from_slice(&[0xc0, 12, 0, kind, 0, 1]);
            message.extend_from_slice(&TTL.to_be_bytes());
            message.extend_from_slice(&u16::try_from(data.len()).expect("short").to_be_bytes());
            message.extend_from_slice(data);
        }
        None => {
            let zone = [
                0xc0,
                u8::try_from(12 + name_len - 15).expect("a short name"),
            ];
            let mut data = b"\x02ns\x03dns".to_vec();
            data.extend_from_slice(&zone);
            data.extend_from_slice(b"\x0ahostmaster");
            data.extend_from_slice(&zone);
            for number in [SERIAL, 7200, 1800, 86400, TTL] {
                data.extend_from_slice(&number.to_be_bytes());
            }
            message.extend_from_slice(&zone);
            message.extend_from_slice(&[0, 6, 0, 1]);
            message.extend_from_slice(&TTL.to_be_bytes());
            message.extend_from_slice(&u16::try_from(data.len()).expect("short").to_be_bytes());
            message.extend_from_slice(&data);
        }
    }
    if opt {
        let asked = question.len() - 11;
        message.extend_from_slice(&[
            0,
            0,
            41,
            0x04,
            0xd0,
            0,
            0,
            question[asked + 7] & 0x80,
            0,
            0,
            0,
        ]);
    }
    message
}

fn datagram(net: &Net, port: u16, payload: Vec<u8>) -> Packet {
    to_this_device(Packet {
        payload,
        ..Packet::udp(net.client, SocketAddr::new(net.service.ip(), port))
    })
}

/// Addressed to the loopback device, where packets of a test run arrive.
fn to_this_device(packet: Packet) -> Packet {
    Packet {
        link: [[0; 6], SENDER],
        ..packet
    }
}

#[test]
fn names_of_services_are_answered_in_both_families() -> Result<()> {
    let mut kernel = Kernel::new()?;
    let _table = prepared(&mut kernel)?;
    let with = |size: u16, ok: u8| {
        let mut opt = OPT;
        opt[3..5].copy_from_slice(&size.to_be_bytes());
        opt[7] = ok;
        Some(opt)
    };
    // Name, flags of the query, type, OPT, address.
    type Case<'a> = (&'a str, [u8; 2], u16, Option<[u8; 11]>, Option<&'a [u8]>);
    let cases: [Case<'_>; 11] = [
        ("web.default.svc.cluster.local", [1, 0], 1, None, Some(&V4)),
        ("web.default.svc.cluster.local", [0, 0], 28, None, Some(&V6)),
        (
            "WEB.Default.SVC.cLuStEr.loCAL",
            [1, 0x20],
            1,
            with(4096, 0),
            Some(&V4),
        ),
        (
            "web.default.svc.cluster.local",
            [1, 0x10],
            28,
            with(1232, 0x80),
            Some(&V6),
        ),
        (
            "web.default.svc.cluster.local",
            [1, 0],
            1,
            with(0, 0),
            Some(&V4),
        ),
        ("four.default.svc.cluster.local", [1, 0], 28, None, None),
        (
            "four.default.svc.cluster.local",
            [1, 0],
            28,
            with(512, 0x80),
            None,
        ),
        (
            "six.default.svc.cluster.local",
            [1, 0],
            1,
            with(1232, 0),
            None,
        ),
        (
            "ODD1.default.svc.cluster.local",
            [1, 0],
            28,
            with(1232, 0),
            None,
        ),
        (
            "odd1.default.svc.cluster.local",
            [1, 0],
            1,
            with(1232, 0),
            Some(&V4),
        ),
        (LONG, [1, 0], 28, with(1232, 0), Some(&V6)),
    ];
    for net in nets() {
        for (name, flags, kind, opt, records) in cases {
            let name_wire = wire(name);
            let asked = question(0xabcd, flags, &name_wire, kind, opt);
            let said = expected(&asked, name_wire.len(), records, opt.is_some());
            let query = datagram(&net, 53, asked);
            let out = Packet {
                payload: said,
                ..query.between(query.destination, query.source).sent_back()
            };
            for (program, verdict, _, counter) in PROGRAMS {
                let what = format!("{name} {kind}");
                kernel.expect(&what, program, &query, verdict, &out, Some(counter));
            }
        }
    }
    Ok(())
}

#[test]
fn what_is_not_plain_is_left_as_it_came() -> Result<()> {
    let mut kernel = Kernel::new()?;
    let _table = prepared(&mut kernel)?;
    let web = wire("web.default.svc.cluster.local");
    let plain = question(7, [1, 0], &web, 1, None);
    let edns = question(7, [1, 0], &web, 1, Some(OPT));
    let change = |of: &[u8], changes: &[(usize, u8)]| {
        let mut message = of.to_vec();
        for (at, octet) in changes {
            message[*at] = *octet;
        }
        message
    };
    let at = plain.len();
    let compressed = [&plain[..12], b"\x03web\xc0\x0c\x00\x01\x00\x01"].concat();
    let labels = [&plain[..12], &[1, b'a'].repeat(40), &[0, 0, 1, 0, 1]].concat();
    let cookie = {
        let mut message = change(&edns, &[(at + 10, 12)]);
        message.extend_from_slice(&[0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8]);
        message
    };
    let messages: Vec<(&str, Vec<u8>)> = vec![
        (
            "another name",
            question(7, [1, 0], &wire("web.default.svc.cluster.loca"), 1, None),
        ),
        (
            "a name below",
            question(7, [1, 0], &wire("a.web.default.svc.cluster.local"), 1, None),
        ),
        ("the root", question(7, [1, 0], &wire(""), 1, None)),
        ("ANY", question(7, [1, 0], &web, 255, None)),
        ("SRV", question(7, [1, 0], &web, 33, None)),
        ("an answer", change(&plain, &[(2, 0x81)])),
        ("opcode NOTIFY", change(&plain, &[(2, 0x21)])),
        ("no question", change(&plain, &[(5, 0)])),
        ("two questions", change(&plain, &[(5, 2)])),
        ("an answer record", change(&plain, &[(7, 1)])),
        ("an authority record", change(&plain, &[(9, 1)])),
        (
            "an additional record that is not there",
            change(&plain, &[(11, 1)]),
        ),
        ("two additional records", change(&edns, &[(11, 2)])),
        ("class CH", change(&plain, &[(at - 1, 3)])),
        ("compression", compressed),
        ("many labels", labels),
        ("a label that reaches too far", change(&plain, &[(12, 63)])),
        ("octets behind", [&plain[..], &[0]].concat()),
        ("octets behind OPT", [&edns[..], &[0]].concat()),
        ("EDNS version 1", change(&edns, &[(at + 6, 1)])),
        ("another record than OPT", change(&edns, &[(at + 2, 1)])),
        ("OPT of a name", change(&edns, &[(at, 1)])),
        ("a cookie", cookie),
        ("cut off", plain[..at - 1].to_vec()),
        ("a header alone", plain[..12].to_vec()),
        ("nothing", Vec::new()),
    ];
    for net in nets() {
        // For another device: nobody's to answer by TC; XDP does not see the difference.
        let elsewhere = Packet {
            link: [[2; 6], SENDER],
            ..datagram(&net, 53, plain.clone())
        };
        for program in ["pod_ingress", "device_ingress"] {
            kernel.expect(
                "another device's",
                program,
                &elsewhere,
                NEXT,
                &elsewhere,
                None,
            );
        }
        let query = |payload: &[u8]| datagram(&net, 53, payload.to_vec());
        let mut packets: Vec<(&str, Packet)> = messages
            .iter()
            .map(|(what, message)| (*what, query(message)))
            .collect();
        packets.push(("another port", datagram(&net, 54, plain.clone())));
        packets.push((
            "over TCP",
            Packet {
                payload: plain.clone(),
                ..Packet::tcp(net.client, SocketAddr::new(net.service.ip(), 53), 0x18)
            },
        ));
        packets.push((
            "another address",
            Packet {
                payload: plain.clone(),
                ..Packet::udp(net.client, SocketAddr::new(net.backend.ip(), 53))
            },
        ));
        packets.push((
            "a first fragment",
            Packet {
                fragment: Some((0, 24, 9)),
                ..query(&plain)
            },
        ));
        packets.push((
            "a VLAN tag",
            Packet {
                tags: vec![(0x8100, 5)],
                ..query(&plain)
            },
        ));
        packets.push((
            "no time to live",
            Packet {
                ttl: 1,
                ..query(&plain)
            },
        ));
        if net.client.is_ipv4() {
            packets.push((
                "IP options",
                Packet {
                    options: vec![1; 4],
                    ..query(&plain)
                },
            ));
        } else {
            packets.push((
                "an extension header",
                Packet {
                    extensions: vec![(60, vec![0; 6])],
                    ..query(&plain)
                },
            ));
            packets.push((
                "no checksum",
                Packet {
                    transport: Transport::Udp { checked: false },
                    ..query(&plain)
                },
            ));
        }
        for (what, packet) in &packets {
            for (program, _, verdict, _) in PROGRAMS {
                kernel.expect(what, program, packet, verdict, packet, None);
            }
        }
    }
    Ok(())
}

#[test]
fn a_query_without_checksum_is_answered_without() -> Result<()> {
    let mut kernel = Kernel::new()?;
    let _table = prepared(&mut kernel)?;
    let [net, _] = nets();
    let name = wire("web.default.svc.cluster.local");
    let asked = question(1, [1, 0], &name, 1, None);
    let said = expected(&asked, name.len(), Some(&V4), false);
    let query = Packet {
        transport: Transport::Udp { checked: false },
        ..datagram(&net, 53, asked)
    };
    let out = Packet {
        payload: said,
        ..query.between(query.destination, query.source).sent_back()
    };
    for (program, verdict, _, counter) in PROGRAMS {
        kernel.expect("unchecked", program, &query, verdict, &out, Some(counter));
    }
    Ok(())
}

/// This node's instance is asked by pods alone: what comes from outside goes through the host's firewall.
#[test]
fn this_nodes_instance_is_answered_for_to_pods() -> Result<()> {
    let mut kernel = Kernel::new()?;
    let _table = prepared(&mut kernel)?;
    let name = wire("web.default.svc.cluster.local");
    for net in nets() {
        let asked = question(1, [1, 0], &name, 1, None);
        let said = expected(&asked, name.len(), Some(&V4), false);
        let query = to_this_device(Packet {
            payload: asked,
            ..Packet::udp(net.client, SocketAddr::new(net.node, 5353))
        });
        let out = Packet {
            payload: said,
            ..query.between(query.destination, query.source).sent_back()
        };
        for (program, verdict, left, counter) in PROGRAMS {
            if program == "pod_ingress" {
                kernel.expect("a pod", program, &query, verdict, &out, Some(counter));
            } else {
                kernel.expect("outside", program, &query, left, &query, None);
            }
        }
    }
    Ok(())
}

/// A lease that is over, a table that changes, a name that went: the query goes on, to a backend where there is one.
#[test]
fn nothing_is_answered_without_a_lease() -> Result<()> {
    let mut kernel = Kernel::new()?;
    let mut table = prepared(&mut kernel)?;
    let name = wire("web.default.svc.cluster.local");
    let [net, _] = nets();
    let query = datagram(&net, 53, question(1, [1, 0], &name, 1, None));
    let verdict = |kernel: &Kernel| {
        Ok::<_, anyhow::Error>(kernel.run("pod_ingress", &query.bytes())?.verdict)
    };
    assert_eq!(verdict(&kernel)?, REDIRECT);
    let whole = control(&nets());
    for until_secs in [0, 1, bpf::now_secs()] {
        table.set_control(&DnsControl {
            answers_until_secs: until_secs,
            ..whole
        })?;
        assert_eq!(verdict(&kernel)?, NEXT, "until {until_secs}");
    }
    table.set_control(&whole)?;
    assert_eq!(verdict(&kernel)?, REDIRECT);
    table.write(&[DnsName::new(&name).expect("a name")], &[])?;
    assert_eq!(verdict(&kernel)?, NEXT, "the name is gone");
    table.write(&[], &[answer("web.default.svc.cluster.local", true, true)])?;
    assert_eq!(verdict(&kernel)?, REDIRECT, "the name is back");
    drop(table);
    let taken = kernel.dns_table()?;
    assert_eq!(verdict(&kernel)?, NEXT, "another process took the table");
    assert_eq!(taken.entries()?.len(), 5, "what was written is still there");
    drop(taken);
    // With a backend, what is not answered becomes a flow.
    kernel.service(1, query.destination, UDP, Some(net.backend), true)?;
    let ran = kernel.run("pod_ingress", &query.bytes())?;
    assert_eq!(ran.counted, [(Counter::TcNewFlow, 1)]);
    Ok(())
}

#[test]
fn one_process_has_the_table() -> Result<()> {
    let kernel = Kernel::new()?;
    let table = kernel.dns_table()?;
    let error = kernel.dns_table().expect_err("it is taken");
    let text = error.to_string();
    let pid = format!("(pid {})", std::process::id());
    assert!(text.contains("belongs to") && text.contains(&pid), "{text}");
    drop(table);
    kernel.dns_table()?;
    Ok(())
}
