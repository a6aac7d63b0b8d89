//! Answers to clients of a service without endpoints: RST for TCP (RFC 9293 section 3.10.7.1), port unreachable
//! for UDP (RFC 792, RFC 4443), as kube-proxy's REJECT gives them.

use abi::protocol::TCP;

use crate::checksum::{finished, fold, sum};
use crate::parse::{IPV4_LEN, IPV6_LEN, TCP_LEN, UDP_LEN, tcp};
use crate::{Address, Family, Flow, Headers};

/// Length of an ICMP header.
pub const ICMP_LEN: u32 = 8;

const TTL: u8 = 64;

/// Number of words of the family's IP header without options or extensions.
#[must_use]
pub const fn header_words<F: Family>() -> usize {
    header_len::<F>() as usize / 4
}

/// Length of the family's IP header without options or extensions.
#[must_use]
pub const fn header_len<F: Family>() -> u32 {
    if F::NUMBER == abi::family::V4 {
        IPV4_LEN
    } else {
        IPV6_LEN
    }
}

/// An IP header in front of `payload_len` bytes; the words behind the family's [`header_words`] are zero.
#[inline(always)]
pub fn header<F: Family>(flow: &F::Flow, proto: u8, payload_len: u32) -> [u32; 10] {
    let ([s0, s1, s2, s3], [d0, d1, d2, d3]) = (flow.saddr().words(), flow.daddr().words());
    if F::NUMBER == abi::family::V4 {
        let [high, low] = ((IPV4_LEN + payload_len) as u16).to_be_bytes();
        let mut header = [0; 10];
        header[0] = u32::from_ne_bytes([0x45, 0, high, low]);
        header[1] = u32::from_ne_bytes([0, 0, 0x40, 0]); // may not be fragmented
        header[2] = u32::from_ne_bytes([TTL, proto, 0, 0]);
        header[3] = s0;
        header[4] = d0;
        let [c0, c1] = finished(sum(&header)).to_ne_bytes();
        header[2] = u32::from_ne_bytes([TTL, proto, c0, c1]);
        header
    } else {
        let [high, low] = (payload_len as u16).to_be_bytes();
        let first = u32::from_ne_bytes([0x60, 0, 0, 0]);
        let second = u32::from_ne_bytes([high, low, proto, TTL]);
        [first, second, s0, s1, s2, s3, d0, d1, d2, d3]
    }
}

/// The TCP header that answers `segment`, the first five words of the header at `headers.l4`; `None` to a segment
/// that is a reset itself.
#[inline(always)]
pub fn reset<F: Family>(headers: &Headers<F>, segment: &[u32; 5]) -> Option<[u32; 5]> {
    let [_, sequence, acknowledged, flags_word, check_word] = *segment;
    let [data_offset, flags, _, _] = flags_word.to_ne_bytes();
    if flags & tcp::RST != 0 {
        return None;
    }
    let len = headers.bytes - (headers.l4 - headers.l3);
    let (sequence, acknowledged, flags) = if flags & tcp::ACK != 0 {
        (acknowledged, 0, tcp::RST)
    } else {
        // What the segment takes of the sequence: its data, and one each for SYN and FIN.
        let taken = len
            .wrapping_sub(u32::from(data_offset >> 4) * 4)
            .wrapping_add(u32::from(flags & tcp::SYN != 0))
            .wrapping_add(u32::from(flags & tcp::FIN != 0));
        let next = u32::from_be(sequence).wrapping_add(taken).to_be();
        (0, next, tcp::RST | tcp::ACK)
    };
    let flow = headers.tuple.reversed();
    let mut answer = [
        flow.ports(),
        sequence,
        acknowledged,
        u32::from_ne_bytes([(TCP_LEN / 4 << 4) as u8, flags, 0, 0]),
        0,
    ];
    let pseudo = pseudo::<F>(&flow, TCP, TCP_LEN);
    // A sender that leaves checksums to the device writes only the pseudo-header's sum (CHECKSUM_PARTIAL), and so
    // must the answer in the same buffer be.
    let [c0, c1, _, _] = check_word.to_ne_bytes();
    let check = if u16::from_ne_bytes([c0, c1]) == fold(self::pseudo::<F>(&headers.tuple, TCP, len))
    {
        fold(pseudo)
    } else {
        finished(pseudo + sum(&answer))
    };
    let [c0, c1] = check.to_ne_bytes();
    answer[4] = u32::from_ne_bytes([c0, c1, 0, 0]);
    Some(answer)
}

/// The ICMP or ICMPv6 header in front of an undelivered UDP packet that is quoted up to its UDP header. `quoted`
/// are the words that the ICMP checksum has to cover: of IPv6 the IP header, of IPv4 none (the sum over a valid
/// header is zero, whatever its options), and then the UDP header.
#[inline(always)]
pub fn unreachable<F: Family>(headers: &Headers<F>, quoted: u64) -> [u32; 2] {
    let kind: [u8; 2] = if F::NUMBER == abi::family::V4 {
        [3, 3]
    } else {
        [1, 4]
    };
    let first = u32::from_ne_bytes([kind[0], kind[1], 0, 0]);
    let pseudo = if F::NUMBER == abi::family::V4 {
        0
    } else {
        let len = ICMP_LEN + quoted_len(headers);
        self::pseudo::<F>(&headers.tuple.reversed(), F::ICMP, len)
    };
    let [c0, c1] = finished(pseudo + u64::from(first) + quoted).to_ne_bytes();
    [u32::from_ne_bytes([kind[0], kind[1], c0, c1]), 0]
}

/// How much of an undelivered UDP packet is quoted: the IP header and the UDP header.
#[inline(always)]
#[must_use]
pub const fn quoted_len<F: Family>(headers: &Headers<F>) -> u32 {
    headers.l4 - headers.l3 + UDP_LEN
}

/// Sum of the pseudo-header (RFC 9293 section 3.1, RFC 8200 section 8.1).
#[inline(always)]
pub fn pseudo<F: Family>(flow: &F::Flow, proto: u8, len: u32) -> u64 {
    let proto = u32::from_ne_bytes([0, 0, 0, proto]);
    flow.saddr().sum() + flow.daddr().sum() + u64::from(proto) + u64::from(len.to_be())
}
