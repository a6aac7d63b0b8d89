//! Answers to clients of a service without endpoints: RST for TCP (RFC 9293 section 3.10.7.1), port unreachable
//! for UDP and SCTP (RFC 792, RFC 4443), as kube-proxy's REJECT gives them.

use abi::protocol::TCP;

use crate::checksum::{finished, fold, sum};
use crate::parse::{IPV4_LEN, IPV6_LEN, TCP_LEN, UDP_LEN, tcp};
use crate::sctp::INIT_LEN;
use crate::{Address, Family, Flow, Headers, Transport};

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
        u32::from_ne_bytes([((TCP_LEN / 4) << 4) as u8, flags, 0, 0]),
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

/// Why a packet is not delivered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Undelivered {
    /// Nobody listens there.
    NoPort,
    /// It is longer than the way on takes; the longest packet that fits.
    TooBig(u32),
}

/// The ICMP or ICMPv6 header in front of an undelivered packet that is quoted as far as [`quoted_len`]. `quoted` are the
/// words that the ICMP checksum has to cover: of IPv6 the IP header, of IPv4 none (the sum over a valid header is zero,
/// whatever its options), and then the transport header.
#[inline(always)]
pub fn undelivered<F: Family>(headers: &Headers<F>, why: Undelivered, quoted: u64) -> [u32; 2] {
    let is_v4 = F::NUMBER == abi::family::V4;
    let ([kind, code], rest) = match why {
        Undelivered::NoPort if is_v4 => ([3, 3], 0),
        Undelivered::NoPort => ([1, 4], 0),
        // RFC 1191 has sixteen bits for it, behind as many unused ones.
        Undelivered::TooBig(mtu) if is_v4 => ([3, 4], (mtu & 0xffff).to_be()),
        Undelivered::TooBig(mtu) => ([2, 0], mtu.to_be()),
    };
    let first = u32::from_ne_bytes([kind, code, 0, 0]);
    let pseudo = if is_v4 {
        0
    } else {
        let len = ICMP_LEN + quoted_len(headers);
        self::pseudo::<F>(&headers.tuple.reversed(), F::ICMP, len)
    };
    let sum = pseudo + u64::from(first) + u64::from(rest) + quoted;
    let [c0, c1] = finished(sum).to_ne_bytes();
    [u32::from_ne_bytes([kind, code, c0, c1]), rest]
}

/// How much of an undelivered packet is quoted: the IP header and the transport header without options.
#[inline(always)]
#[must_use]
pub fn quoted_len<F: Family>(headers: &Headers<F>) -> u32 {
    headers.l4 - headers.l3 + quoted_transport_len(headers)
}

/// How much of that is the transport header: [`TCP_LEN`], of TCP and of what opens an association of SCTP, which is
/// known by a tag that stands as far behind; [`UDP_LEN`] otherwise.
#[inline(always)]
#[must_use]
pub fn quoted_transport_len<F: Family>(headers: &Headers<F>) -> u32 {
    match headers.transport {
        Transport::Tcp => TCP_LEN,
        Transport::Sctp if headers.tcp_flags & tcp::SYN != 0 => INIT_LEN,
        _ => UDP_LEN,
    }
}

const _: () = assert!(INIT_LEN == TCP_LEN);

/// Sum of the pseudo-header (RFC 9293 section 3.1, RFC 8200 section 8.1).
#[inline(always)]
pub fn pseudo<F: Family>(flow: &F::Flow, proto: u8, len: u32) -> u64 {
    let proto = u32::from_ne_bytes([0, 0, 0, proto]);
    flow.saddr().sum() + flow.daddr().sum() + u64::from(proto) + u64::from(len.to_be())
}

#[cfg(test)]
mod tests {
    use abi::Flow4;

    use super::*;
    use crate::V4;
    use crate::parse::{Fault, Fragment, FragmentId};

    fn headers(payload_len: u32) -> Headers<V4> {
        Headers {
            fault: Fault::None,
            l3: 14,
            l4: 34,
            bytes: 40 + payload_len,
            tuple: Flow4::new([10, 0, 0, 1], [10, 0, 0, 2], 1000.into(), 80.into(), TCP),
            transport: Transport::Tcp,
            ttl: 64,
            tcp_flags: 0,
            fragment: Fragment::Whole,
            fragment_id: FragmentId {
                id: [0; 4],
                proto: TCP,
            },
        }
    }

    fn segment(sequence: u32, flags: u8, check: u16) -> [u32; 5] {
        let [c0, c1] = check.to_ne_bytes();
        [
            0,
            sequence.to_be(),
            0x0a0b_0c0d_u32.to_be(),
            u32::from_ne_bytes([0x50, flags, 0, 0]),
            u32::from_ne_bytes([c0, c1, 0, 0]),
        ]
    }

    #[test]
    fn a_reset_is_acceptable_to_the_sender() {
        let cases = [
            // (flags, payload) to (sequence, acknowledged, flags)
            (tcp::SYN, 0, Some((0, 8, tcp::RST | tcp::ACK))),
            (tcp::SYN, 5, Some((0, 13, tcp::RST | tcp::ACK))),
            (tcp::FIN, 5, Some((0, 13, tcp::RST | tcp::ACK))),
            (tcp::ACK, 5, Some((0x0a0b_0c0d, 0, tcp::RST))),
            (tcp::RST, 0, None),
            (tcp::RST | tcp::ACK, 0, None),
        ];
        for (flags, payload, expected) in cases {
            let answer = reset(&headers(payload), &segment(7, flags, 0xabcd));
            let seen = answer.map(|words| {
                let flags = words[3].to_ne_bytes()[1];
                (u32::from_be(words[1]), u32::from_be(words[2]), flags)
            });
            assert_eq!(seen, expected, "{flags:#x} with {payload} bytes");
        }
    }

    #[test]
    fn a_reset_is_checksummed_as_far_as_the_segment_was() {
        let headers = headers(0);
        let pseudo_sum = |flow: &Flow4| pseudo::<V4>(flow, TCP, TCP_LEN);
        let whole = reset(&headers, &segment(7, tcp::SYN, 0xabcd)).expect("an answer");
        let answer = headers.tuple.reversed();
        assert_eq!(fold(pseudo_sum(&answer) + sum(&whole)), 0xffff);

        let partial = fold(pseudo_sum(&headers.tuple));
        let left = reset(&headers, &segment(7, tcp::SYN, partial)).expect("an answer");
        let [c0, c1, _, _] = left[4].to_ne_bytes();
        assert_eq!(u16::from_ne_bytes([c0, c1]), fold(pseudo_sum(&answer)));
    }

    #[test]
    fn an_ip_header_checks_out() {
        let header = header::<V4>(&headers(0).tuple, TCP, 20);
        assert_eq!(fold(sum(&header)), 0xffff);
        assert_eq!(header[5..], [0; 5]);
    }
}
