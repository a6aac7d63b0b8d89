//! SCTP through the programs, on packets made by hand: the kernel at hand may have no such sockets.

use abi::{Backend, Counter, FrontendKey4, FrontendKey6, NodeConfig, backends, family, protocol};
use bpf::Datapath;
use plan::{FrontendKey, Step, Store};

use crate::ground::{Ground, ip};
use crate::samples::frontend;

/// Verdicts: TC's of what goes on, and of what is sent to a device; XDP's of what goes on.
const NEXT: u32 = u32::MAX;
const REDIRECT: u32 = 7;
const XDP_PASS: u32 = 2;

const INIT: u8 = 1;
const DATA: u8 = 0;

/// CRC32c, bit by bit (RFC 9260 appendix A).
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
        }
    }
    !crc
}

fn internet_checksum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

type End = ([u8; 16], u16);

/// An address by its host part: 10.244.0.n or fd00::n.
fn addr(v4: bool, net: u8, host: u8) -> [u8; 16] {
    let mut addr = [0; 16];
    if v4 {
        addr[..4].copy_from_slice(&[10, net, 0, host]);
    } else {
        addr[0] = 0xfd;
        addr[7] = net;
        addr[15] = host;
    }
    addr
}

/// A frame with one chunk of a type and as many bytes of value.
fn frame(v4: bool, from: End, to: End, chunk: u8, value: usize) -> Vec<u8> {
    let mut sctp = [from.1.to_be_bytes(), to.1.to_be_bytes()].concat();
    let tag: u32 = if chunk == INIT { 0 } else { 0x0102_0304 };
    sctp.extend(tag.to_be_bytes());
    sctp.extend([0, 0, 0, 0, chunk, 0]);
    sctp.extend((4 + value as u16).to_be_bytes());
    sctp.extend((0..value).map(|i| i as u8));
    sctp.resize(sctp.len().next_multiple_of(4), 0);
    let check = crc32c(&sctp).to_le_bytes();
    sctp[8..12].copy_from_slice(&check);
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    if v4 {
        let mut ip = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 132, 0, 0];
        ip[2..4].copy_from_slice(&(20 + sctp.len() as u16).to_be_bytes());
        ip.extend(&from.0[..4]);
        ip.extend(&to.0[..4]);
        let check = internet_checksum(&ip).to_be_bytes();
        ip[10..12].copy_from_slice(&check);
        frame.extend([0x08, 0x00]);
        frame.extend(ip);
    } else {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend((sctp.len() as u16).to_be_bytes());
        frame.extend([132, 64]);
        frame.extend(from.0);
        frame.extend(to.0);
    }
    frame.extend(sctp);
    frame
}

/// A service at net 96, with one backend or none.
fn service(datapath: &mut Datapath, v4: bool, at: End, backend: Option<(End, bool)>) {
    let (host, port) = at;
    let proto = protocol::SCTP;
    let key = if v4 {
        let [a, b, c, d, ..] = host;
        FrontendKey::V4(FrontendKey4 {
            addr: [a, b, c, d],
            port: port.into(),
            proto,
            scope: 0,
        })
    } else {
        FrontendKey::V6(FrontendKey6 {
            addr: host,
            port: port.into(),
            proto,
            scope: 0,
        })
    };
    let mut steps = Vec::new();
    if let Some(((addr, port), local)) = backend {
        let backend = Backend {
            addr,
            port: port.into(),
            family: if v4 { family::V4 } else { family::V6 },
            flags: if local { backends::flags::LOCAL } else { 0 },
            service: 1,
        };
        steps.push(Step::PutBackend(1, backend));
        steps.push(Step::PutRing {
            offset: 0,
            backends: vec![1],
        });
    }
    steps.push(Step::PutFrontend(
        key,
        frontend(1, 0, u32::from(backend.is_some())),
    ));
    datapath.apply(&steps).unwrap();
}

/// Runs a program on a frame, and gives its verdict, the frame afterwards and what was counted.
fn run(datapath: &Datapath, program: &str, frame: &[u8]) -> (u32, Vec<u8>, Vec<Counter>) {
    let before = datapath.counters().unwrap();
    let ran = datapath.test_run(program, frame, &[], 1).unwrap();
    let after = datapath.counters().unwrap().into_iter().zip(before);
    let counted = after.filter(|((_, after), (_, before))| after != before);
    (
        ran.verdict,
        ran.packet,
        counted.map(|((counter, _), _)| counter).collect(),
    )
}

#[test]
fn ports_and_checksums_are_rewritten_on_every_path() {
    let ground = Ground::new("sctp");
    ground.in_netns(|| {
        ip("link set lo up");
        for v4 in [true, false] {
            let mut datapath = Datapath::open(&ground.settings()).unwrap();
            let at = (addr(v4, 96, 10), 3868);
            let backend = (addr(v4, 244, 9), 13_868);
            service(&mut datapath, v4, at, Some((backend, true)));
            // Of every length, padded and not.
            for (n, value) in [(0, 0), (1, 1), (2, 16), (3, 17), (4, 333), (5, 1_400)] {
                for (program, verdict, begun, known) in [
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
                ] {
                    let client = (addr(v4, 244, 7), 40_000 + 100 * n + program.len() as u16);
                    for (chunk, counter) in [(INIT, begun), (DATA, known)] {
                        let sent = frame(v4, client, at, chunk, value);
                        let becomes = frame(v4, client, backend, chunk, value);
                        let ran = run(&datapath, program, &sent);
                        assert_eq!(ran, (verdict, becomes, vec![counter]), "{program} {value}");
                    }
                    let answer = frame(v4, backend, client, DATA, value);
                    let shown = frame(v4, at, client, DATA, value);
                    let ran = run(&datapath, "device_egress", &answer);
                    assert_eq!(
                        ran,
                        (NEXT, shown, vec![Counter::TcReply]),
                        "{program} {value}"
                    );
                }
            }
            // A checksum that is left to the device stays so.
            let client = (addr(v4, 244, 7), 50_000);
            let zero = |mut frame: Vec<u8>| {
                let at = if v4 { 34 } else { 54 };
                frame[at + 8..at + 12].fill(0);
                frame
            };
            let sent = zero(frame(v4, client, at, INIT, 16));
            let (_, packet, _) = run(&datapath, "pod_ingress", &sent);
            assert_eq!(packet, zero(frame(v4, client, backend, INIT, 16)));
        }
    });
}

#[test]
fn a_pod_that_is_its_own_backend_hears_itself_as_the_service() {
    let ground = Ground::new("sctp-pin");
    ground.in_netns(|| {
        ip("link set lo up");
        for v4 in [true, false] {
            let mut datapath = Datapath::open(&ground.settings()).unwrap();
            let at = (addr(v4, 96, 10), 3868);
            let pod = addr(v4, 244, 9);
            service(&mut datapath, v4, at, Some(((pod, 13_868), true)));
            let sent = frame(v4, (pod, 40_000), at, INIT, 16);
            let (verdict, packet, counted) = run(&datapath, "pod_ingress", &sent);
            let mut becomes = frame(v4, (at.0, 40_000), (pod, 13_868), INIT, 16);
            becomes[..12].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
            assert_eq!((verdict, counted), (REDIRECT, vec![Counter::TcNewFlow]));
            assert_eq!(packet, becomes);
        }
    });
}

#[test]
fn a_source_of_this_node_gets_a_port_of_it() {
    let ground = Ground::new("sctp-snat");
    ground.in_netns(|| {
        ip("link set lo up");
        ip("link add up0 type veth peer name up1");
        ip("link set up0 up");
        ip("addr add 10.1.0.1/24 dev up0");
        ip("route add 10.244.0.0/16 via 10.1.0.2");
        ip("route add 10.200.0.0/16 via 10.1.0.2");
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        let mut datapath = Datapath::open(&ground.settings()).unwrap();
        let node = addr(true, 1, 1);
        let [a, b, c, d, ..] = node;
        let config = NodeConfig {
            addr4: [a, b, c, d],
            snat_port_min: 61_000.into(),
            snat_port_max: 61_000.into(),
            ..NodeConfig::default()
        };
        datapath.set_node(&config).unwrap();
        let (at, backend) = ((addr(true, 96, 10), 3868), (addr(true, 244, 9), 13_868));
        service(&mut datapath, true, at, Some((backend, false)));
        let client = (addr(true, 200, 7), 40_000);
        let sent = frame(true, client, at, INIT, 40);
        let (verdict, packet, counted) = run(&datapath, "device_ingress", &sent);
        assert_eq!((verdict, counted), (REDIRECT, vec![Counter::TcNewFlow]));
        let becomes = frame(true, (node, 61_000), backend, INIT, 40);
        // Behind the IP header; that has a hop less.
        assert_eq!(packet[34..], becomes[34..]);
        assert_eq!(packet[26..34], becomes[26..34]);
        let answer = frame(true, backend, (node, 61_000), DATA, 40);
        let (_, packet, counted) = run(&datapath, "device_ingress", &answer);
        let shown = frame(true, at, client, DATA, 40);
        assert_eq!(
            (&packet[34..], counted),
            (&shown[34..], vec![Counter::TcReply])
        );
    });
}

#[test]
fn who_reaches_no_endpoint_hears_that_the_port_is_unreachable() {
    let ground = Ground::new("sctp-no");
    ground.in_netns(|| {
        ip("link set lo up");
        for v4 in [true, false] {
            let mut datapath = Datapath::open(&ground.settings()).unwrap();
            let at = (addr(v4, 96, 11), 3868);
            service(&mut datapath, v4, at, None);
            let client = (addr(v4, 244, 7), 40_000);
            // Of an INIT as much is quoted as tells its sender which one it was (RFC 9260 section 10.1).
            for (chunk, quoted) in [(INIT, 20), (DATA, 8)] {
                let sent = frame(v4, client, at, chunk, 32);
                let (verdict, packet, counted) = run(&datapath, "pod_ingress", &sent);
                assert_eq!((verdict, counted), (REDIRECT, vec![Counter::TcNoEndpoint]));
                let header = if v4 { 20 } else { 40 };
                assert_eq!(packet.len(), 14 + header + 8 + header + quoted);
                let kind: [u8; 2] = if v4 { [3, 3] } else { [1, 4] };
                assert_eq!(packet[14 + header..][..2], kind);
                assert_eq!(packet[14 + header + 8..], sent[14..14 + header + quoted]);
            }
            let sent = frame(v4, client, at, INIT, 32);
            let (verdict, packet, _) = run(&datapath, "device_xdp", &sent);
            assert_eq!((verdict, packet), (XDP_PASS, sent), "left to TC");
        }
    });
}
