//! From bytes to headers: Ethernet with up to two VLAN tags, IPv4 with options, IPv6 with extension headers,
//! TCP, UDP, SCTP and ICMP.

use abi::protocol::{SCTP, TCP, UDP};
use zerocopy::network_endian::U16;

use crate::sctp::{self, chunk};
use crate::{Address, Bytes, Family, Flow, V4, V6};

/// ICMP (RFC 792).
pub const ICMP: u8 = 1;
/// ICMPv6 (RFC 4443).
pub const ICMPV6: u8 = 58;
/// Length of an IPv4 header without options.
pub const IPV4_LEN: u32 = 20;
/// Length of an IPv6 header without extension headers.
pub const IPV6_LEN: u32 = 40;
/// Extension headers that are walked through; a packet with more passes untouched.
pub const EXTENSIONS_MAX: usize = 4;

/// Length of a TCP header without options.
pub const TCP_LEN: u32 = 20;
/// Length of a UDP header.
pub const UDP_LEN: u32 = 8;

const ETHERTYPE_OFFSET: u32 = 12;
/// What an Ethernet header says of an IPv4 packet.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// And of an IPv6 packet.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
/// Length of an Ethernet header without tags.
pub const ETHERNET_LEN: u32 = 14;
/// Length of a VLAN tag.
pub const VLAN_LEN: u32 = 4;

/// What a link header says right behind its addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ethertype {
    /// An IPv4 header follows.
    V4,
    /// An IPv6 header follows.
    V6,
    /// A VLAN tag.
    Tag,
    /// Something else, or nothing.
    Other,
}

/// What the link header announces.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Link {
    /// An IPv4 header at this offset.
    V4(u32),
    /// An IPv6 header at this offset.
    V6(u32),
    /// Something else, or too many VLAN tags.
    Other,
}

/// A packet's headers. Where they cannot be read (see `fault`), what could be is there and the rest is zero: a
/// value that is whole in every case, because the verifier follows no value that is there in some.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Headers<F: Family> {
    /// What is wrong with them.
    pub fault: Fault,
    /// Offset of the IP header.
    pub l3: u32,
    /// Offset of what follows the IP header and its extensions.
    pub l4: u32,
    /// Length from the network header on, as that header says.
    pub bytes: u32,
    /// The tuple; ports are zero where there are none.
    pub tuple: F::Flow,
    /// What follows at `l4`.
    pub transport: Transport,
    /// Flags of a TCP header, bits of [`tcp`], or those that an SCTP packet's first chunk means the like of; zero where
    /// there is none.
    pub tcp_flags: u8,
    /// Time to live (hop limit).
    pub ttl: u8,
    /// Whether it is a fragment.
    pub fragment: Fragment,
    /// Which packet it is a fragment of; zeros where it is whole.
    pub fragment_id: FragmentId,
}

/// What is wrong with a packet's headers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Nothing.
    None,
    /// Not even the addresses can be read, or it is not the version that the link header announced.
    NotIp,
    /// Shorter than its headers say.
    Truncated,
    /// A header field has an impossible value.
    Malformed,
}

/// The header behind IP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
    /// ICMP for IPv4, ICMPv6 for IPv6.
    Icmp,
    /// The header is in another fragment.
    Elsewhere,
    /// Anything that no Service names.
    Other,
}

/// Bits of [`Headers::tcp_flags`] (RFC 9293 section 3.1).
pub mod tcp {
    /// The sender has no more to send.
    pub const FIN: u8 = 1 << 0;
    /// Opens the connection.
    pub const SYN: u8 = 1 << 1;
    /// Ends the connection at once.
    pub const RST: u8 = 1 << 2;
    /// The acknowledgement number counts.
    pub const ACK: u8 = 1 << 4;
}

/// A packet's place among fragments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fragment {
    /// Not fragmented.
    Whole,
    /// Carries the transport header; more follow.
    First,
    /// Carries no transport header.
    Later,
}

/// What tells fragmented packets of the same addresses apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FragmentId {
    /// Identification as it lies in the header; IPv4's in the first two bytes.
    pub id: [u8; 4],
    /// Protocol of IPv4, next header of IPv6's fragment header.
    pub proto: u8,
}

/// Reads the link header.
#[inline(always)]
pub fn link<B: Bytes + ?Sized>(bytes: &B) -> Link {
    let mut at = ETHERTYPE_OFFSET;
    let mut tags = 0;
    loop {
        match ethertype_at(bytes, at) {
            Ethertype::V4 => return Link::V4(bytes.merge_paths(at + 2)),
            Ethertype::V6 => return Link::V6(bytes.merge_paths(at + 2)),
            Ethertype::Tag if tags < 2 => {
                at += VLAN_LEN;
                tags += 1;
            }
            Ethertype::Tag | Ethertype::Other => return Link::Other,
        }
    }
}

/// Reads the first ethertype of the link header.
#[inline(always)]
pub fn ethertype<B: Bytes + ?Sized>(bytes: &B) -> Ethertype {
    ethertype_at(bytes, ETHERTYPE_OFFSET)
}

#[inline(always)]
fn ethertype_at<B: Bytes + ?Sized>(bytes: &B, offset: u32) -> Ethertype {
    let Some([word]) = bytes.words(offset) else {
        return Ethertype::Other;
    };
    let [high, low, _, _] = word.to_ne_bytes();
    match u16::from_be_bytes([high, low]) {
        ETHERTYPE_IPV4 => Ethertype::V4,
        ETHERTYPE_IPV6 => Ethertype::V6,
        0x8100 | 0x88a8 => Ethertype::Tag,
        _ => Ethertype::Other,
    }
}

/// Reads the IPv4 header at `l3` and what follows.
#[inline(always)]
pub fn ipv4<B: Bytes + ?Sized>(bytes: &B, l3: u32) -> Headers<V4> {
    let mut headers = Headers::unread(l3);
    read_ipv4(bytes, &mut headers);
    headers
}

/// As [`ipv4`], into headers of which nothing is read yet.
#[inline(always)]
pub fn read_ipv4<B: Bytes + ?Sized>(bytes: &B, headers: &mut Headers<V4>) {
    let l3 = headers.l3;
    let Some([first, second, third, saddr, daddr]) = bytes.words::<5>(l3) else {
        return;
    };
    let [version_ihl, _, total_high, total_low] = first.to_ne_bytes();
    let [id_high, id_low, fragment_high, fragment_low] = second.to_ne_bytes();
    let [ttl, proto, _, _] = third.to_ne_bytes();
    if version_ihl >> 4 != 4 {
        return;
    }
    let header_len = u32::from(version_ihl & 0xf) * 4;
    let stated = u16::from_be_bytes([total_high, total_low]).into();
    headers.bytes = total_len(bytes, l3, stated);
    headers.ttl = ttl;
    headers.set_addresses(saddr.to_ne_bytes(), daddr.to_ne_bytes());
    if header_len < IPV4_LEN || headers.bytes < header_len {
        headers.fault = Fault::Malformed;
        return;
    }
    headers.l4 = l3 + header_len;
    headers.fragment = fragment(
        u16::from_be_bytes([fragment_high, fragment_low]) & 0x1fff,
        fragment_high & 0x20 != 0,
    );
    headers.fragment_id = FragmentId {
        id: [id_high, id_low, 0, 0],
        proto,
    };
    headers.transport(bytes, proto);
}

/// Reads the IPv6 header at `l3` and what follows.
#[inline(always)]
pub fn ipv6<B: Bytes + ?Sized>(bytes: &B, l3: u32) -> Headers<V6> {
    let mut headers = Headers::unread(l3);
    read_ipv6(bytes, &mut headers);
    headers
}

/// As [`ipv6`], into headers of which nothing is read yet.
#[inline(always)]
pub fn read_ipv6<B: Bytes + ?Sized>(bytes: &B, headers: &mut Headers<V6>) {
    let l3 = headers.l3;
    let Some([first, second, s0, s1, s2, s3, d0, d1, d2, d3]) = bytes.words::<10>(l3) else {
        return;
    };
    let [version, _, _, _] = first.to_ne_bytes();
    let [payload_high, payload_low, proto, hop_limit] = second.to_ne_bytes();
    if version >> 4 != 6 {
        return;
    }
    let payload = u32::from(u16::from_be_bytes([payload_high, payload_low]));
    let stated = if payload == 0 { 0 } else { IPV6_LEN + payload };
    headers.bytes = total_len(bytes, l3, stated);
    headers.ttl = hop_limit;
    headers.set_addresses(
        zerocopy::transmute!([s0, s1, s2, s3]),
        zerocopy::transmute!([d0, d1, d2, d3]),
    );
    let mut walk = Walk {
        l4: l3 + IPV6_LEN,
        fragment: Fragment::Whole,
        fragment_id: FragmentId {
            id: [0; 4],
            proto: 0,
        },
        proto,
    };
    if matches!(proto, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION) && !walk.extensions(bytes) {
        headers.fault = Fault::Truncated;
        return;
    }
    headers.l4 = walk.l4;
    headers.fragment = walk.fragment;
    headers.fragment_id = walk.fragment_id;
    headers.transport(bytes, walk.proto);
}

/// A walk through IPv6's extension headers.
struct Walk {
    /// Where it stands.
    l4: u32,
    /// What was found on the way.
    fragment: Fragment,
    fragment_id: FragmentId,
    /// The header that it stands before.
    proto: u8,
}

impl Walk {
    /// Walks on to the transport header; false where the packet ends before. A function of its own: extension
    /// headers are rare.
    #[inline(never)]
    fn extensions<B: Bytes + ?Sized>(&mut self, bytes: &B) -> bool {
        for _ in 0..EXTENSIONS_MAX {
            let at = self.l4;
            match self.proto {
                HOP_BY_HOP | ROUTING | DESTINATION => {
                    let Some([word, _]) = bytes.words(at) else {
                        return false;
                    };
                    let [next, len, _, _] = word.to_ne_bytes();
                    self.proto = next;
                    self.l4 = bytes.merge_paths(at + (u32::from(len) + 1) * 8);
                }
                FRAGMENT => {
                    let Some([word, id]) = bytes.words(at) else {
                        return false;
                    };
                    let [next, _, offset_high, offset_low] = word.to_ne_bytes();
                    let offset = u16::from_be_bytes([offset_high, offset_low]);
                    self.proto = next;
                    self.l4 = bytes.merge_paths(at + 8);
                    self.fragment = fragment(offset >> 3, offset & 1 != 0);
                    self.fragment_id = FragmentId {
                        id: id.to_ne_bytes(),
                        proto: next,
                    };
                    if self.fragment == Fragment::Later {
                        break;
                    }
                }
                _ => break,
            }
        }
        true
    }
}

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
/// Next header of a Fragment header (RFC 8200 section 4.5).
pub(crate) const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;

/// The length that the IP header states; zero stands for a packet of more than 64 kB (BIG TCP), whose length
/// only the kernel knows.
#[inline(always)]
fn total_len<B: Bytes + ?Sized>(bytes: &B, l3: u32, stated: u32) -> u32 {
    if stated == 0 {
        bytes.len().saturating_sub(l3)
    } else {
        stated
    }
}

#[inline(always)]
fn fragment(offset: u16, more: bool) -> Fragment {
    if offset != 0 {
        Fragment::Later
    } else if more {
        Fragment::First
    } else {
        Fragment::Whole
    }
}

impl<F: Family> Headers<F> {
    /// Headers of which nothing is read yet.
    #[inline(always)]
    #[must_use]
    pub fn unread(l3: u32) -> Self {
        let none = F::Address::from_padded(&[0; 16]);
        Self {
            fault: Fault::NotIp,
            l3,
            l4: 0,
            bytes: 0,
            tuple: F::Flow::new(none, none, U16::ZERO, U16::ZERO, 0),
            transport: Transport::Other,
            tcp_flags: 0,
            ttl: 0,
            fragment: Fragment::Whole,
            fragment_id: FragmentId {
                id: [0; 4],
                proto: 0,
            },
        }
    }

    #[inline(always)]
    fn set_addresses(&mut self, saddr: F::Address, daddr: F::Address) {
        self.tuple = F::Flow::new(saddr, daddr, U16::ZERO, U16::ZERO, 0);
    }

    /// Reads the transport header, and says what is wrong with all of them.
    #[inline(always)]
    fn transport<B: Bytes + ?Sized>(&mut self, bytes: &B, proto: u8) {
        let end = self.l3 + self.bytes;
        let whole = bytes.holds(end);
        self.fault = Fault::Truncated;
        if self.fragment == Fragment::Later {
            self.transport = Transport::Elsewhere;
            if whole && self.l4 <= end {
                self.fault = Fault::None;
            }
            return;
        }
        if proto != TCP && proto != UDP && proto != SCTP {
            self.fault = Fault::None;
            if proto == F::ICMP && whole {
                self.transport = Transport::Icmp;
            }
            return;
        }
        let Some([ports, _]) = bytes.words::<2>(self.l4) else {
            return;
        };
        let [s0, s1, d0, d1] = ports.to_ne_bytes();
        self.tuple = F::Flow::new(
            self.tuple.saddr(),
            self.tuple.daddr(),
            U16::from_bytes([s0, s1]),
            U16::from_bytes([d0, d1]),
            proto,
        );
        let len = match proto {
            TCP => TCP_LEN,
            SCTP => sctp::HEADER_LEN,
            _ => UDP_LEN,
        };
        if !whole || self.l4 + len > end {
            return;
        }
        if proto == UDP {
            self.transport = Transport::Udp;
            self.fault = Fault::None;
            return;
        }
        if proto == SCTP {
            self.transport = Transport::Sctp;
            if self.l4 + sctp::CHUNK_LEN <= end {
                let whole_init = self.l4 + sctp::INIT_LEN <= end;
                self.tcp_flags = chunk_flags(bytes, self.l4, whole_init);
            }
            self.fault = Fault::None;
            return;
        }
        let Some([word, _]) = bytes.words::<2>(self.l4 + 12) else {
            return;
        };
        let [data_offset, flags, _, _] = word.to_ne_bytes();
        self.transport = Transport::Tcp;
        self.tcp_flags = flags;
        self.fault = if u32::from(data_offset >> 4) * 4 < TCP_LEN {
            Fault::Malformed
        } else {
            Fault::None
        };
    }
}

/// What the first chunk of an SCTP packet is to its association, as TCP's flags say it: an INIT, which carries no
/// verification tag and is as long as one must be, opens one.
#[inline(always)]
fn chunk_flags<B: Bytes + ?Sized>(bytes: &B, l4: u32, whole_init: bool) -> u8 {
    let Some([_, tag, _, first]) = bytes.words::<4>(l4) else {
        return 0;
    };
    match first.to_ne_bytes()[0] {
        chunk::INIT if tag == 0 && whole_init => tcp::SYN,
        chunk::ABORT => tcp::RST,
        chunk::SHUTDOWN_COMPLETE => tcp::FIN,
        _ => 0,
    }
}

const _: () = assert!(ETHERTYPE_OFFSET + 2 == ETHERNET_LEN);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A TCP SYN from 10.0.0.1:1000 to 10.0.0.2:80.
    fn syn() -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([0x08, 0x00]);
        frame.extend([
            0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
        ]);
        frame.extend([
            0x03, 0xe8, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 2, 0, 0, 0, 0, 0, 0,
        ]);
        frame
    }

    fn read(frame: &[u8]) -> Option<Fault> {
        match link(frame) {
            Link::V4(l3) => Some(ipv4(frame, l3).fault),
            Link::V6(l3) => Some(ipv6(frame, l3).fault),
            Link::Other => None,
        }
    }

    #[test]
    fn a_segment_is_read() {
        let headers = ipv4(&syn()[..], 14);
        assert_eq!(
            (headers.fault, headers.l4, headers.bytes),
            (Fault::None, 34, 40)
        );
        assert_eq!(
            (headers.transport, headers.tcp_flags),
            (Transport::Tcp, tcp::SYN)
        );
        let tuple = headers.tuple;
        assert_eq!((tuple.saddr, tuple.daddr), ([10, 0, 0, 1], [10, 0, 0, 2]));
        assert_eq!(
            (tuple.sport.get(), tuple.dport.get(), tuple.proto),
            (1000, 80, 6)
        );
    }

    #[test]
    fn what_begins_and_ends_an_association_is_known_by_its_chunk() {
        let packet = |tag: u32, kind: u8, chunk_len: usize| {
            let mut frame = syn();
            frame.truncate(34);
            frame[23] = SCTP;
            frame[16..18].copy_from_slice(&(20 + 12 + chunk_len as u16).to_be_bytes());
            frame.extend([0x03, 0xe8, 0x0f, 0x1c]);
            frame.extend(tag.to_be_bytes());
            frame.extend([1, 2, 3, 4, kind, 0, 0, chunk_len as u8]);
            frame.resize(34 + 12 + chunk_len, 0);
            frame
        };
        for (tag, kind, chunk_len, flags) in [
            (0, chunk::INIT, 20, tcp::SYN),
            (0, chunk::INIT, 8, tcp::SYN),
            (0, chunk::INIT, 4, 0),
            (7, chunk::INIT, 20, 0),
            (7, 2, 20, 0),
            (7, 0, 17, 0),
            // These have no more than their header.
            (7, chunk::ABORT, 4, tcp::RST),
            (7, chunk::SHUTDOWN_COMPLETE, 4, tcp::FIN),
        ] {
            let frame = packet(tag, kind, chunk_len);
            let headers = ipv4(&frame[..], 14);
            assert_eq!(
                (headers.fault, headers.transport, headers.tcp_flags),
                (Fault::None, Transport::Sctp, flags),
                "chunk {kind} of {chunk_len} bytes, tag {tag}"
            );
            assert_eq!(headers.tuple.dport.get(), 3868);
            for len in 34..46 {
                assert_eq!(ipv4(&frame[..len], 14).fault, Fault::Truncated, "{len}");
            }
        }
    }

    #[test]
    fn tags_are_skipped_up_to_two() {
        for (tags, l3) in [(0, Some(14)), (1, Some(18)), (2, Some(22)), (3, None)] {
            let mut frame = syn();
            for _ in 0..tags {
                frame.splice(12..12, [0x81, 0x00, 0, 1]);
            }
            let expected = l3.map_or(Link::Other, Link::V4);
            assert_eq!(link(&frame[..]), expected, "{tags} tags");
        }
    }

    proptest! {
        #[test]
        fn nothing_is_read_beyond_the_end(frame in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&frame);
        }

        #[test]
        fn a_damaged_packet_is_read_or_refused(
            at in 12usize..54, value in any::<u8>(), len in 0usize..=54,
        ) {
            let mut frame = syn();
            frame[at] = value;
            frame.truncate(len);
            if read(&frame) == Some(Fault::None) {
                // What is read as whole is there: the length that it states lies in the frame.
                let headers = ipv4(&frame[..], 14);
                prop_assert!(headers.transport == Transport::Other || 14 + headers.bytes as usize <= len);
            }
        }
    }
}
