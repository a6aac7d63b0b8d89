//! The packet that would be sent first, and the kernel's context for it.

use std::net::{IpAddr, SocketAddr};

use abi::protocol::{SCTP, TCP, UDP};
use packet::balance::tunnel;
use packet::{Link, V4, V6, parse};

/// Between whom, on a link and beyond.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) from_link: [u8; 6],
    pub(super) to_link: [u8; 6],
    pub(super) protocol: u8,
}

/// A frame that opens a conversation: a SYN, a datagram, or the header of a chunk.
pub(super) fn opening(ends: &Ends) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(ends.from.port().to_be_bytes());
    segment.extend(ends.to.port().to_be_bytes());
    match ends.protocol {
        TCP => {
            segment.extend([0; 8]);
            segment.extend([0x50, parse::tcp::SYN, 0xff, 0xff, 0, 0, 0, 0]);
        }
        UDP => segment.extend([0, 8, 0, 0]),
        // A tag, a checksum, and INIT (RFC 9260 section 3.3.2).
        _ => segment.extend([0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 4]),
    }
    let mut frame = [ends.to_link, ends.from_link].concat();
    match (ends.from.ip(), ends.to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            frame.extend([0x08, 0x00]);
            let len = (20 + segment.len()) as u16;
            let mut header = vec![0x45, 0];
            header.extend(len.to_be_bytes());
            header.extend([0, 0, 0x40, 0, 64, ends.protocol, 0, 0]);
            header.extend(from.octets());
            header.extend(to.octets());
            let words: Vec<u64> = header
                .chunks_exact(2)
                .map(|pair| u64::from(u16::from_ne_bytes([pair[0], pair[1]])))
                .collect();
            let check = packet::checksum::finished(words.iter().sum());
            header[10..12].copy_from_slice(&check.to_ne_bytes());
            frame.extend(header);
        }
        (from, to) => {
            let octets = |addr: IpAddr| match addr {
                IpAddr::V4(addr) => addr.to_ipv6_mapped().octets(),
                IpAddr::V6(addr) => addr.octets(),
            };
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend((segment.len() as u16).to_be_bytes());
            frame.extend([ends.protocol, 64]);
            frame.extend(octets(from));
            frame.extend(octets(to));
        }
    }
    frame.extend(segment);
    frame
}

/// Source and destination of a frame; `None` for what has none. Of a packet that another one was put around, the node
/// that did so and the backend.
pub(super) fn ends(frame: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    macro_rules! ends {
        ($family:ty, $l3:expr) => {{
            let headers = <$family as packet::Family>::headers(frame, $l3);
            let mut tuple = headers.tuple;
            if !tunnel::told::<$family, _>(frame, &headers, &mut tuple) {
                tuple = headers.tuple;
            }
            let end = |addr, port: u16| SocketAddr::new(IpAddr::from(addr), port);
            Some((
                end(tuple.saddr, tuple.sport.get()),
                end(tuple.daddr, tuple.dport.get()),
            ))
        }};
    }
    match parse::link(frame) {
        Link::V4(l3) => ends!(V4, l3),
        Link::V6(l3) => ends!(V6, l3),
        Link::Other => None,
    }
}

/// A `struct __sk_buff` of a packet that arrives at a device: the other fields are the kernel's.
pub(super) fn skb(ifindex: u32) -> Vec<u8> {
    let mut context = vec![0; 44];
    context[40..].copy_from_slice(&ifindex.to_ne_bytes());
    context
}

/// A `struct xdp_md` of a frame of `len` bytes that arrives at a device; at the loopback device for none.
pub(super) fn xdp(ifindex: u32, len: usize) -> Vec<u8> {
    let words = [0, len as u32, 0, ifindex, 0, 0];
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// The frame of what an XDP program left, without what it tells TC in the octets before it: the context afterwards says
/// where the frame begins.
pub(super) fn behind_hint(mut left: Vec<u8>, context: &[u8]) -> Vec<u8> {
    let begins = context
        .first_chunk()
        .map_or(0, |word| u32::from_ne_bytes(*word));
    left.drain(..left.len().min(begins as usize));
    left
}

/// Kubernetes' name of a protocol.
pub(super) fn protocol_name(number: u8) -> &'static str {
    match number {
        UDP => "UDP",
        SCTP => "SCTP",
        _ => "TCP",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_begins_behind_what_xdp_left_before_it() {
        let mut context = xdp(0, 2);
        assert_eq!(behind_hint(vec![7, 8], &context), [7, 8]);
        assert_eq!(behind_hint(vec![7, 8], &[]), [7, 8]);
        context[..4].copy_from_slice(&4_u32.to_ne_bytes());
        assert_eq!(behind_hint(vec![1, 2, 3, 4, 7, 8], &context), [7, 8]);
        assert!(behind_hint(vec![1], &context).is_empty());
    }

    #[test]
    fn an_opening_is_read_as_it_was_meant() {
        for (from, to) in [
            ("10.0.0.1:4000", "10.96.0.1:80"),
            ("[fd00::1]:4000", "[fd00::2]:80"),
        ] {
            for protocol in [TCP, UDP] {
                let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
                let frame = opening(&Ends {
                    from,
                    to,
                    from_link: [2; 6],
                    to_link: [4; 6],
                    protocol,
                });
                assert_eq!(ends(&frame), Some((from, to)));
            }
        }
    }
}
