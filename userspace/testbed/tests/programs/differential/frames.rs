//! Packets between those that the tables know, mostly; whole, mostly.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use testbed::packet::{Packet, Transport, tcp};

use crate::kernel::{Net, nets};
use crate::tunnel::{around, other};

/// The address that is `number` behind another one, and a port as far behind.
pub(super) fn behind(end: &SocketAddr, number: u16, port: u16) -> SocketAddr {
    let ip = match end.ip() {
        IpAddr::V4(ip) => IpAddr::from((u32::from(ip) + u32::from(number)).to_be_bytes()),
        IpAddr::V6(ip) => IpAddr::from((u128::from(ip) + u128::from(number)).to_be_bytes()),
    };
    SocketAddr::new(ip, end.port() + port)
}

/// One of six clients, by three addresses.
pub(super) fn client(end: &SocketAddr, number: u16) -> SocketAddr {
    behind(end, number % 3, number / 3)
}

/// A frame.
pub(super) fn random(random: &mut fastrand::Rng) -> Vec<u8> {
    let mut packet = whole(random);
    if random.u8(0..5) == 0 {
        let node = nets()[usize::from(packet.source.is_ipv6())].node;
        let from = match random.u8(0..3) {
            0 => node,
            1 => packet.destination.ip(),
            _ => behind(&SocketAddr::new(node, 0), 77, 0).ip(),
        };
        packet = error(from, &packet, random.u8(0..4));
    }
    odd(&mut packet, random);
    let mut frame = match random.u8(0..12) {
        0 | 1 if packet.tags.is_empty() => in_another(&packet, random),
        2 if packet.tags.is_empty() => about_another(&packet, random),
        _ => packet.bytes(),
    };
    match random.u8(0..10) {
        0 => frame.truncate(random.usize(14..=frame.len())),
        1 => {
            for _ in 0..random.usize(1..4) {
                let at = random.usize(12..frame.len());
                // Where addresses lead is the kernel's routing's to say.
                if !addresses(&packet).contains(&at) {
                    frame[at] = random.u8(..);
                }
            }
        }
        2 => {
            // A header that is impossibly short: IPv4's own, or TCP's behind one that is usual.
            let l3 = 14 + 4 * packet.tags.len();
            let (at, mask) = if packet.source.is_ipv4() && random.bool() {
                (l3, 0xf3)
            } else {
                let ip_len = if packet.source.is_ipv4() { 20 } else { 40 };
                (l3 + ip_len + 12, 0x3f)
            };
            if let Some(octet) = frame.get_mut(at) {
                *octet &= mask;
            }
        }
        3 => frame.extend((0..random.usize(1..32)).map(|_| 0)),
        _ => {}
    }
    frame
}

fn addresses(packet: &Packet) -> Range<usize> {
    let l3 = 14 + 4 * packet.tags.len();
    if packet.source.is_ipv4() {
        l3 + 12..l3 + 20
    } else {
        l3 + 8..l3 + 40
    }
}

/// A packet in another one, from a node to a backend, mostly.
fn in_another(packet: &Packet, random: &mut fastrand::Rng) -> Vec<u8> {
    let net = &nets()[usize::from(packet.source.is_ipv6())];
    let from = match random.u8(0..8) {
        0 => net.node,
        1 => net.client.ip(),
        _ => other(net),
    };
    around(packet, from, told(net, random))
}

fn told(net: &Net, random: &mut fastrand::Rng) -> SocketAddr {
    match random.u8(0..8) {
        0 => SocketAddr::new(net.node, 8080),
        1 => SocketAddr::new(net.client.ip(), 8080),
        _ => behind(&net.backend, random.u16(0..4), random.u16(0..2)),
    }
}

/// An ICMP error about a packet that this node put another one around, perhaps.
fn about_another(packet: &Packet, random: &mut fastrand::Rng) -> Vec<u8> {
    let net = &nets()[usize::from(packet.source.is_ipv6())];
    let backend = told(net, random);
    let from = if random.bool() {
        behind(&SocketAddr::new(net.node, 0), 77, 0).ip()
    } else {
        backend.ip()
    };
    let own = SocketAddr::new(net.node, 0);
    let mut error = error(from, &packet.between(own, own), random.u8(0..4));
    error.payload.truncate(8);
    error
        .payload
        .extend(&around(packet, net.node, backend)[14..]);
    error.bytes()
}

fn whole(random: &mut fastrand::Rng) -> Packet {
    let nets = nets();
    let net = &nets[random.usize(0..2)];
    let from = client(&net.client, random.u16(0..6));
    let to = match random.u8(0..8) {
        0 => net.node_socket(),
        1 => behind(&net.backend, random.u16(1..6), 0),
        2 => behind(&net.service, random.u16(0..3), 1),
        _ => behind(&net.service, random.u16(0..3), 0),
    };
    // An answer of a backend, or of anybody.
    let (from, to) = match random.u8(0..4) {
        0 => (behind(&net.backend, random.u16(1..6), 0), from),
        1 if random.bool() => (to, from),
        _ => (from, to),
    };
    let flags = [
        tcp::SYN,
        tcp::ACK,
        tcp::SYN | tcp::ACK,
        tcp::FIN | tcp::ACK,
        tcp::RST,
        0,
    ];
    let mut packet = match random.u8(0..12) {
        0 => Packet::new(from, to, Transport::Raw(random.u8(..))),
        1 => Packet::new(from, to, Transport::Udp { checked: false }),
        2..=4 => Packet::udp(from, to),
        5 | 6 => {
            let (tag, chunk) = (random.u32(0..2), random.u8(0..16));
            Packet::new(from, to, Transport::Sctp { tag, chunk })
        }
        _ => Packet::tcp(from, to, flags[random.usize(0..flags.len())]),
    };
    packet.payload = (0..random.usize(0..64)).map(|_| random.u8(..)).collect();
    packet
}

/// An ICMP error about a packet.
pub(super) fn error(from: IpAddr, about: &Packet, kind: u8) -> Packet {
    let (proto, kinds) = if from.is_ipv4() {
        (1, [[3, 1], [3, 4], [11, 0], [12, 0]])
    } else {
        (58, [[1, 4], [2, 0], [3, 0], [4, 1]])
    };
    let from = SocketAddr::new(from, 0);
    let mut error = Packet::new(from, about.source, Transport::Raw(proto));
    let [kind, code] = kinds[usize::from(kind) % kinds.len()];
    error.payload = vec![kind, code, 0x12, 0x34, 0, 0, 0, 0];
    error.payload.extend(&about.bytes()[14..]);
    error
}

/// What a packet may have that hardly any has.
fn odd(packet: &mut Packet, random: &mut fastrand::Rng) {
    if random.u8(0..10) == 0 {
        packet.ttl = random.u8(0..3);
    }
    if random.u8(0..8) == 0 {
        let tags = 0..random.u16(1..4);
        packet.tags = tags.map(|id| (0x8100, id)).collect();
    }
    if random.u8(0..8) == 0 {
        if packet.source.is_ipv4() {
            packet.options = vec![1; 4 * random.usize(1..11)];
        } else {
            let numbers = [0, 43, 60];
            let header = |_| {
                let content = vec![0; 8 * random.usize(1..3) - 2];
                (numbers[random.usize(0..3)], content)
            };
            packet.extensions = (0..4).map(header).collect();
            packet.extensions.truncate(random.usize(1..5));
        }
    }
    if random.u8(0..6) == 0 {
        packet.payload.resize(64, 7);
        // First and later ones, in any order and overlapping, of a few packets.
        let offset = 8 * random.usize(0..5);
        let len = 8 * random.usize(1..4);
        packet.fragment = Some((offset, len, random.u32(0..4)));
    }
}
