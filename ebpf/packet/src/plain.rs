//! Headers where they always are: TCP or UDP right behind an IP header without options, in a packet that is whole and no
//! fragment, behind a link header without tags. What is read here is read alike by [`crate::parse`], which reads all else.

use abi::protocol::{TCP, UDP};
use zerocopy::network_endian::U16;

use crate::parse::{ETHERNET_LEN, IPV4_LEN, IPV6_LEN, TCP_LEN, UDP_LEN};
use crate::{Bytes, Family, Fault, Flow as _, Headers, Transport, V4, V6};

/// Reads the headers of an IPv4 packet, of which nothing is read yet; false where they are not all plain.
#[inline(always)]
pub(crate) fn read_ipv4<B: Bytes + ?Sized>(bytes: &B, headers: &mut Headers<V4>) -> bool {
    let Some([first, second, third, saddr, daddr, ports, _]) = bytes.words::<7>(ETHERNET_LEN)
    else {
        return false;
    };
    let [version_ihl, _, total_high, total_low] = first.to_ne_bytes();
    let [id_high, id_low, fragment_high, fragment_low] = second.to_ne_bytes();
    let [ttl, proto, _, _] = third.to_ne_bytes();
    // More fragments, or an offset.
    let fragment = u16::from_be_bytes([fragment_high, fragment_low]) & 0x3fff;
    if version_ihl != 0x45 || fragment != 0 {
        return false;
    }
    headers.l4 = ETHERNET_LEN + IPV4_LEN;
    headers.bytes = u16::from_be_bytes([total_high, total_low]).into();
    headers.ttl = ttl;
    headers.fragment_id.id = [id_high, id_low, 0, 0];
    headers.fragment_id.proto = proto;
    headers.tuple = tuple::<V4>(saddr.to_ne_bytes(), daddr.to_ne_bytes(), ports, proto);
    transport(bytes, headers)
}

/// As [`read_ipv4`], of an IPv6 packet.
#[inline(always)]
pub(crate) fn read_ipv6<B: Bytes + ?Sized>(bytes: &B, headers: &mut Headers<V6>) -> bool {
    let Some([first, second, s0, s1, s2, s3, d0, d1, d2, d3, ports, _]) =
        bytes.words::<12>(ETHERNET_LEN)
    else {
        return false;
    };
    let [version, _, _, _] = first.to_ne_bytes();
    let [payload_high, payload_low, proto, hop_limit] = second.to_ne_bytes();
    if version >> 4 != 6 {
        return false;
    }
    headers.l4 = ETHERNET_LEN + IPV6_LEN;
    headers.bytes = IPV6_LEN + u32::from(u16::from_be_bytes([payload_high, payload_low]));
    headers.ttl = hop_limit;
    headers.tuple = tuple::<V6>(
        zerocopy::transmute!([s0, s1, s2, s3]),
        zerocopy::transmute!([d0, d1, d2, d3]),
        ports,
        proto,
    );
    transport(bytes, headers)
}

#[inline(always)]
fn tuple<F: Family>(saddr: F::Address, daddr: F::Address, ports: u32, proto: u8) -> F::Flow {
    let [s0, s1, d0, d1] = ports.to_ne_bytes();
    F::Flow::new(
        saddr,
        daddr,
        U16::from_bytes([s0, s1]),
        U16::from_bytes([d0, d1]),
        proto,
    )
}

/// Reads on behind the ports.
#[inline(always)]
fn transport<F: Family, B: Bytes + ?Sized>(bytes: &B, headers: &mut Headers<F>) -> bool {
    let end = headers.l3 + headers.bytes;
    match headers.tuple.proto() {
        TCP => {
            let Some([word]) = bytes.words::<1>(headers.l4 + 12) else {
                return false;
            };
            let [data_offset, flags, _, _] = word.to_ne_bytes();
            if headers.l4 + TCP_LEN > end || u32::from(data_offset >> 4) * 4 < TCP_LEN {
                return false;
            }
            headers.transport = Transport::Tcp;
            headers.tcp_flags = flags;
        }
        UDP if headers.l4 + UDP_LEN <= end => headers.transport = Transport::Udp,
        _ => return false,
    }
    headers.fault = Fault::None;
    bytes.holds(end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Link, parse};

    /// A packet of a flow, with what most bytes of it can become.
    fn frame(is_v4: bool, proto: u8) -> Vec<u8> {
        let mut frame = vec![0; 12];
        if is_v4 {
            frame.extend([0x08, 0x00]);
            frame.extend([0x45, 0, 0, 44, 0, 1, 0x40, 0, 64, proto, 0, 0]);
            frame.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        } else {
            frame.extend([0x86, 0xdd]);
            frame.extend([0x60, 0, 0, 0, 0, 24, proto, 64]);
            frame.extend([0xfd; 32]);
        }
        frame.extend([0x03, 0xe8, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 16, 0, 0]);
        frame.extend([0; 8]);
        frame
    }

    /// What both say of a frame; the second is `None` where it is not plain.
    fn read(frame: &[u8]) -> (String, Option<String>) {
        match parse::link(frame) {
            Link::V4(l3) => both::<V4>(frame, l3),
            Link::V6(l3) => both::<V6>(frame, l3),
            Link::Other => (String::new(), None),
        }
    }

    fn both<F: Family>(frame: &[u8], l3: u32) -> (String, Option<String>) {
        let mut headers = Headers::<F>::unread(ETHERNET_LEN);
        let is_plain = F::read_plain(frame, &mut headers);
        let whole = format!("{:?}", F::headers(frame, l3));
        (whole, is_plain.then(|| format!("{headers:?}")))
    }

    #[test]
    fn most_packets_are_plain() {
        for is_v4 in [true, false] {
            for proto in [TCP, UDP] {
                let (whole, plain) = read(&frame(is_v4, proto));
                assert_eq!(plain, Some(whole), "{is_v4} {proto}");
            }
            let (_, plain) = read(&frame(is_v4, 132));
            assert_eq!(plain, None, "SCTP");
        }
    }

    proptest! {
        #[test]
        fn what_is_plain_is_read_as_by_who_reads_all(
            is_v4 in any::<bool>(),
            proto in prop_oneof![Just(TCP), Just(UDP), any::<u8>()],
            changes in proptest::collection::vec((14usize..80, any::<u8>()), 0..4),
            len in 14usize..=80,
            cuts in any::<bool>(),
        ) {
            let mut frame = frame(is_v4, proto);
            for (at, value) in changes {
                if let Some(octet) = frame.get_mut(at) {
                    *octet = value;
                }
            }
            if cuts {
                frame.truncate(len);
            }
            let (whole, plain) = read(&frame);
            if let Some(plain) = plain {
                prop_assert_eq!(plain, whole);
            }
        }
    }
}
