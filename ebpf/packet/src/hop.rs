//! One hop of a packet's way that is made here rather than by the stack: which packets may, and what changes.

use abi::{Endpoint, endpoints};

use crate::parse::{ETHERNET_LEN, IPV4_LEN, IPV6_LEN};
use crate::{Address as _, Family, Fault, Fragment, Headers, checksum};

/// Whether a packet is plain enough to be sent on without the stack: whole, its headers where they always are, with
/// time to live. Tagged frames belong to another device, options and fragments may concern this node, and what cannot
/// be sent on earns an ICMP error that the stack makes.
#[inline(always)]
#[must_use]
pub fn is_plain<F: Family>(headers: &Headers<F>) -> bool {
    let header_len = if F::CHECK_OFFSET.is_some() {
        IPV4_LEN
    } else {
        IPV6_LEN
    };
    headers.fault == Fault::None
        && headers.l3 == ETHERNET_LEN
        && headers.l4 == ETHERNET_LEN + header_len
        && headers.fragment == Fragment::Whole
        && headers.ttl > 1
}

/// Whether a packet's source is the pod's at the link where it was seen. The stack makes that check with a strict
/// rp_filter; without one it lets other sources pass, and still does, because those are left to it.
#[inline(always)]
#[must_use]
pub fn is_own_source(source: Option<&Endpoint>, ifindex: u32) -> bool {
    match source {
        Some(endpoint) => endpoint.ifindex == ifindex,
        None => false,
    }
}

/// Whether a packet may go straight to a pod.
#[inline(always)]
#[must_use]
pub fn is_direct(endpoint: &Endpoint, ifindex: u32) -> bool {
    // Back to where it came from only by a hairpin, which is another matter.
    endpoint.flags & endpoints::flags::DIRECT != 0 && endpoint.ifindex != ifindex
}

/// Whether an address may be in a packet that goes from link to link: that of one host, and not of a link or the host
/// itself alone (RFC 1122 section 3.2.1.3, RFC 4291 section 2). Routing knows the same of what it routes; a look at
/// its tables does not.
#[inline(always)]
#[must_use]
pub fn is_routable<F: Family>(address: F::Address) -> bool {
    let [first, second, third, _] = address.words();
    let high = first.to_ne_bytes()[0];
    if F::NUMBER == abi::family::V4 {
        high != 0 && high != 127 && high < 224
    } else {
        let link_local = u32::from_be(first) & 0xffc0_0000 == 0xfe80_0000;
        high != 0xff && !link_local && first | second | third != 0
    }
}

/// Length of a packet from its network header on, as it is when it leaves: of each segment of one that the device cuts
/// into segments with `segment` bytes of payload each. `transport_len` is the length of its transport header.
#[inline(always)]
#[must_use]
pub fn len_on_wire<F: Family>(headers: &Headers<F>, segment: u32, transport_len: u32) -> u32 {
    if segment == 0 {
        headers.bytes
    } else {
        headers.l4 - headers.l3 + transport_len + segment
    }
}

/// The word of an IP header that holds its time to live, with one less of it and the checksum right.
#[inline(always)]
#[must_use]
pub fn one_less<F: Family>(word: u32) -> u32 {
    let mut bytes = word.to_ne_bytes();
    let at = (F::TTL_OFFSET & 3) as usize;
    let old = bytes[at];
    let new = old.wrapping_sub(1);
    bytes[at] = new;
    if F::CHECK_OFFSET.is_some() {
        // IPv4 has time to live, protocol and checksum in one word.
        let check = u16::from_ne_bytes([bytes[2], bytes[3]]);
        let (old, new) = (u16::from_ne_bytes([old, 0]), u16::from_ne_bytes([new, 0]));
        let check = checksum::updated(check, checksum::difference(old.into(), new.into()));
        [bytes[2], bytes[3]] = check.to_ne_bytes();
    }
    u32::from_ne_bytes(bytes)
}

/// The first three words of a frame between two link addresses.
#[inline(always)]
#[must_use]
pub const fn link(source: [u8; 6], destination: [u8; 6]) -> [u32; 3] {
    let [d0, d1, d2, d3, d4, d5] = destination;
    let [s0, s1, s2, s3, s4, s5] = source;
    [
        u32::from_ne_bytes([d0, d1, d2, d3]),
        u32::from_ne_bytes([d4, d5, s0, s1]),
        u32::from_ne_bytes([s2, s3, s4, s5]),
    ]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{V4, V6, parse};

    /// An IPv4 header without options, with a right checksum.
    fn header(ttl: u8, proto: u8, source: [u8; 4], id: u16) -> Vec<u8> {
        let [i, j] = id.to_be_bytes();
        let [a, b, c, d] = source;
        let mut bytes = vec![
            0x45, 0, 0, 20, i, j, 0x40, 0, ttl, proto, 0, 0, a, b, c, d, 10, 0, 0, 2,
        ];
        let check = sum(&bytes);
        bytes[10..12].copy_from_slice(&check.to_be_bytes());
        bytes
    }

    /// RFC 1071, as it is written there.
    fn sum(bytes: &[u8]) -> u16 {
        let mut sum: u32 = bytes
            .chunks(2)
            .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
            .sum();
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    proptest! {
        #[test]
        fn a_hop_leaves_the_checksum_right(
            ttl in 2_u8.., proto in any::<u8>(), source in any::<[u8; 4]>(), id in any::<u16>(),
        ) {
            let mut bytes = header(ttl, proto, source, id);
            let word = u32::from_ne_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
            bytes[8..12].copy_from_slice(&one_less::<V4>(word).to_ne_bytes());
            prop_assert_eq!((bytes[8], bytes[9], sum(&bytes)), (ttl - 1, proto, 0));
            let six = one_less::<V6>(u32::from_ne_bytes([0, 40, proto, ttl]));
            prop_assert_eq!(six.to_ne_bytes(), [0, 40, proto, ttl - 1]);
        }
    }

    #[test]
    fn only_plain_packets_go_without_the_stack() {
        let mut frame = vec![0; 12];
        frame.extend([0x08, 0x00]);
        frame.extend(header(64, 1, [10, 0, 0, 1], 7));
        type Edit = fn(&mut Vec<u8>);
        let cases: [(&str, bool, Edit); 8] = [
            ("plain", true, |_| {}),
            ("two left", true, |frame| frame[22] = 2),
            ("one left", false, |frame| frame[22] = 1),
            ("none left", false, |frame| frame[22] = 0),
            ("first fragment", false, |frame| frame[20] = 0x20),
            ("later fragment", false, |frame| frame[21] = 1),
            ("options", false, |frame| {
                frame[14] = 0x46;
                frame[17] = 24;
                frame.extend([1; 4]);
            }),
            ("tagged", false, |frame| {
                frame.splice(12..12, [0x81, 0x00, 0, 1]);
            }),
        ];
        for (what, plain, edit) in cases {
            let mut frame = frame.clone();
            edit(&mut frame);
            let parse::Link::V4(l3) = parse::link(&frame[..]) else {
                panic!("{what}");
            };
            assert_eq!(is_plain(&parse::ipv4(&frame[..], l3)), plain, "{what}");
        }
    }

    #[test]
    fn only_hosts_addresses_are_routable() {
        for (address, routable) in [
            ([0, 0, 0, 5], false),
            ([1, 0, 0, 1], true),
            ([127, 0, 0, 1], false),
            ([169, 254, 1, 1], true),
            ([192, 0, 2, 1], true),
            ([223, 255, 255, 254], true),
            ([224, 0, 0, 9], false),
            ([255, 255, 255, 255], false),
        ] {
            assert_eq!(is_routable::<V4>(address), routable, "{address:?}");
        }
        for (first, routable) in [
            ([0xfe, 0x7f], true),
            ([0xfe, 0x80], false),
            ([0xfe, 0xbf], false),
            ([0xfe, 0xc0], true),
            ([0xff, 0x02], false),
            ([0x20, 0x01], true),
        ] {
            let mut address = [1; 16];
            address[..2].copy_from_slice(&first);
            assert_eq!(is_routable::<V6>(address), routable, "{first:02x?}");
        }
        let mut own = [0; 16];
        assert!(!is_routable::<V6>(own), "nobody's");
        own[15] = 1;
        assert!(!is_routable::<V6>(own), "the host's own");
    }

    #[test]
    fn a_segment_is_as_long_as_it_leaves() {
        let headers = Headers::<V4> {
            l4: 34,
            bytes: 9000,
            ..Headers::unread(14)
        };
        assert_eq!(len_on_wire(&headers, 0, 32), 9000);
        assert_eq!(len_on_wire(&headers, 1448, 32), 1500);
    }

    #[test]
    fn a_pod_is_who_it_says_it_is() {
        let endpoint = Endpoint {
            ifindex: 7,
            flags: endpoints::flags::DIRECT,
            ..Endpoint::default()
        };
        assert!(is_own_source(Some(&endpoint), 7));
        assert!(!is_own_source(Some(&endpoint), 8), "another pod's address");
        assert!(!is_own_source(None, 7), "nobody's address");
        assert!(is_direct(&endpoint, 8) && !is_direct(&endpoint, 7));
        assert!(!is_direct(
            &Endpoint {
                flags: 0,
                ..endpoint
            },
            8
        ));
    }
}
