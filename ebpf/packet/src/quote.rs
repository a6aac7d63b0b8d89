//! ICMP errors about packets of flows (RFC 792, RFC 4443): whoever sent the packet that is quoted in one knows it under
//! another tuple, and takes the error for its own only when the quotation says so too (RFC 5508 section 4.2).

use abi::flows::flags;
use abi::protocol::{SCTP, TCP, UDP};
use zerocopy::network_endian::U16;

use crate::balance::masquerade::{Echo, IDENTIFIER_OFFSET, echo_of};
use crate::parse::{FRAGMENT, IPV4_LEN, IPV6_LEN};
use crate::refuse::ICMP_LEN;
use crate::{
    Address as _, Bytes, Family, Fault, Flow, Fragment, Headers, State as _, Tables, Transport,
};

/// Length of a Fragment header (RFC 8200 section 4.5).
const FRAGMENT_LEN: u32 = 8;

/// The packet that an error quotes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quote<F: Family> {
    /// Offset of its IP header.
    pub l3: u32,
    /// Offset of its transport header, of which the first eight bytes are quoted at least; of an echo request, of the
    /// identifier in it.
    pub l4: u32,
    /// Its tuple.
    pub tuple: F::Flow,
}

/// What an error becomes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mended<F: Family> {
    /// The quoted packet's tuple.
    pub tuple: F::Flow,
    /// Whom the error is from.
    pub saddr: F::Address,
    /// Whom it is for.
    pub daddr: F::Address,
}

/// Where an error is seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// At a link that it arrives from.
    Arriving,
    /// At the link that it leaves by, behind this node's routing.
    Leaving,
}

/// Reads the packet that an ICMP error quotes; `None` where it is no error, or quotes no flow's packet.
#[inline(always)]
pub fn quote<F: Family, B: Bytes + ?Sized>(bytes: &B, headers: &Headers<F>) -> Option<Quote<F>> {
    of_error::<F, B, false>(bytes, headers)
}

/// Reads the echo request that an ICMP error quotes, see [`crate::balance::masquerade`]; `None` where it quotes another packet.
#[inline(always)]
pub fn echo_request<F: Family, B: Bytes + ?Sized>(
    bytes: &B,
    headers: &Headers<F>,
) -> Option<Quote<F>> {
    of_error::<F, B, true>(bytes, headers)
}

#[inline(always)]
fn of_error<F: Family, B: Bytes + ?Sized, const ECHO: bool>(
    bytes: &B,
    headers: &Headers<F>,
) -> Option<Quote<F>> {
    if headers.fault != Fault::None
        || headers.transport != Transport::Icmp
        || headers.fragment != Fragment::Whole
    {
        return None;
    }
    let [kind] = bytes.words::<1>(headers.l4)?;
    if !is_error::<F>(kind.to_ne_bytes()[0]) {
        return None;
    }
    packet_at::<F, B, ECHO>(bytes, headers.l4 + ICMP_LEN)
}

/// Reads a quoted packet whose IP header is at `l3`.
#[inline(always)]
pub(crate) fn quoted<F: Family, B: Bytes + ?Sized>(bytes: &B, l3: u32) -> Option<Quote<F>> {
    packet_at::<F, B, false>(bytes, l3)
}

#[inline(always)]
fn packet_at<F: Family, B: Bytes + ?Sized, const ECHO: bool>(
    bytes: &B,
    l3: u32,
) -> Option<Quote<F>> {
    if F::NUMBER == abi::family::V4 {
        let [first, second, third, saddr, daddr] = bytes.words::<5>(l3)?;
        let [version_ihl, ..] = first.to_ne_bytes();
        let [_, _, fragment_high, fragment_low] = second.to_ne_bytes();
        let [_, proto, _, _] = third.to_ne_bytes();
        let header_len = u32::from(version_ihl & 0xf) * 4;
        let later = u16::from_be_bytes([fragment_high, fragment_low]) & 0x1fff != 0;
        if version_ihl >> 4 != 4 || header_len < IPV4_LEN || later {
            return None;
        }
        let l4 = bytes.merge_paths(l3 + header_len);
        tuple::<F, B, ECHO>(bytes, l3, l4, proto, [saddr, 0, 0, 0], [daddr, 0, 0, 0])
    } else {
        let [first, second, s0, s1, s2, s3, d0, d1, d2, d3] = bytes.words::<10>(l3)?;
        let [_, _, mut proto, _] = second.to_ne_bytes();
        if first.to_ne_bytes()[0] >> 4 != 6 {
            return None;
        }
        let mut l4 = l3 + IPV6_LEN;
        // The first fragment carries the ports, and is as large as any: of it the sender learns what it needs to. One
        // with other extension headers is not looked into.
        if proto == FRAGMENT {
            let [fragment, _] = bytes.words::<2>(l4)?;
            let [next, _, offset_high, offset_low] = fragment.to_ne_bytes();
            if u16::from_be_bytes([offset_high, offset_low]) & 0xfff8 != 0 {
                return None;
            }
            proto = next;
            l4 += FRAGMENT_LEN;
        }
        let l4 = bytes.merge_paths(l4);
        tuple::<F, B, ECHO>(bytes, l3, l4, proto, [s0, s1, s2, s3], [d0, d1, d2, d3])
    }
}

/// Whether an ICMP message of a type is about a packet that it quotes.
#[inline(always)]
pub(crate) fn is_error<F: Family>(kind: u8) -> bool {
    if F::NUMBER == abi::family::V4 {
        // Destination unreachable, source quench, time exceeded, parameter problem.
        matches!(kind, 3 | 4 | 11 | 12)
    } else {
        (1..128).contains(&kind)
    }
}

#[inline(always)]
fn tuple<F: Family, B: Bytes + ?Sized, const ECHO: bool>(
    bytes: &B,
    l3: u32,
    l4: u32,
    proto: u8,
    saddr: [u32; 4],
    daddr: [u32; 4],
) -> Option<Quote<F>> {
    if ECHO && proto != F::ICMP || !ECHO && !matches!(proto, TCP | UDP | SCTP) {
        return None;
    }
    let [first, second] = bytes.words::<2>(l4)?;
    let (l4, [s0, s1, d0, d1]) = if ECHO {
        if echo_of::<F>(first.to_ne_bytes()[0]) != Some(Echo::Request) {
            return None;
        }
        let [a, b, _, _] = second.to_ne_bytes();
        (l4 + IDENTIFIER_OFFSET, [a, b, 0, 0])
    } else {
        (l4, first.to_ne_bytes())
    };
    let tuple = F::Flow::new(
        F::Address::from_padded(&zerocopy::transmute!(saddr)),
        F::Address::from_padded(&zerocopy::transmute!(daddr)),
        U16::from_bytes([s0, s1]),
        U16::from_bytes([d0, d1]),
        proto,
    );
    Some(Quote { l3, l4, tuple })
}

/// What an error about a packet becomes; `None` where the packet was of no flow, or what is to be done is done at
/// the link that the error leaves by.
///
/// The flow's other direction, found by the turned tuple of the quoted packet, leads to where that packet came from:
/// turned once more, that is the packet as its sender knows it.
#[inline(always)]
pub fn mend<F: Family, T: Tables<F>>(
    tables: &T,
    way: Way,
    headers: &Headers<F>,
    quoted: &F::Flow,
) -> Option<Mended<F>> {
    // An error for somebody else than the quoted packet's sender is nobody's we know.
    if !headers.tuple.daddr().is(quoted.saddr()) {
        return None;
    }
    let state = tables.known(&quoted.reversed())?;
    // About what a client sent, the error gets to the client by this node's routing, and like the answers of the flow
    // it must not carry a service's address before that; unless it was for the client's translated source.
    let leaves = state.flags() & (flags::REPLY | flags::SNAT) == flags::REPLY;
    if leaves != (way == Way::Leaving) {
        return None;
    }
    let tuple = state.to().reversed();
    // One from the flow's other end itself is from whom the quoted packet's sender takes that for.
    let saddr = headers.tuple.saddr();
    let saddr = if saddr.is(quoted.daddr()) {
        tuple.daddr()
    } else {
        saddr
    };
    Some(Mended {
        tuple,
        saddr,
        daddr: tuple.saddr(),
    })
}

#[cfg(test)]
mod tests {
    use abi::{Flow4, FlowState4};
    use proptest::prelude::*;

    use super::*;
    use crate::model::Model;
    use crate::{V4, V6, parse};

    const CLIENT: [u8; 4] = [10, 244, 0, 50];
    const SERVICE: [u8; 4] = [10, 96, 0, 10];
    const BACKEND: [u8; 4] = [10, 244, 0, 1];
    const ROUTER: [u8; 4] = [192, 0, 2, 254];
    const NODE: [u8; 4] = [192, 0, 2, 1];

    fn flow(saddr: [u8; 4], sport: u16, daddr: [u8; 4], dport: u16) -> Flow4 {
        Flow4::new(saddr, daddr, sport.into(), dport.into(), TCP)
    }

    /// A flow from a client to a service's backend; translated to `source` where that is not the client's own.
    fn model(source: ([u8; 4], u16)) -> Model {
        let model = Model::default();
        let asked = flow(CLIENT, 4000, SERVICE, 80);
        let given = flow(source.0, source.1, BACKEND, 8080);
        let snat = if source.0 == CLIENT { 0 } else { flags::SNAT };
        let put = |key: &Flow4, to, flags| {
            let state = FlowState4 {
                to,
                service: 1,
                backend: 1,
                last_seen_secs: 0,
                flags,
            };
            Tables::<V4>::put_flow(&model, key, &state);
        };
        put(&asked, given, snat);
        put(&given.reversed(), asked.reversed(), flags::REPLY | snat);
        model
    }

    fn error(from: [u8; 4], to: [u8; 4]) -> Headers<V4> {
        Headers {
            tuple: Flow4::new(from, to, 0.into(), 0.into(), parse::ICMP),
            ..Headers::unread(14)
        }
    }

    fn mended(
        model: &Model,
        way: Way,
        from: [u8; 4],
        quoted: Flow4,
    ) -> Option<(Flow4, [u8; 4], [u8; 4])> {
        mend::<V4, _>(model, way, &error(from, quoted.saddr), &quoted)
            .map(|mended| (mended.tuple, mended.saddr, mended.daddr))
    }

    #[test]
    fn errors_about_what_a_client_sent_are_mended_where_they_leave() {
        let model = model((CLIENT, 4000));
        let asked = flow(CLIENT, 4000, SERVICE, 80);
        let given = flow(CLIENT, 4000, BACKEND, 8080);
        let routers = Some((asked, ROUTER, CLIENT));
        assert_eq!(mended(&model, Way::Leaving, ROUTER, given), routers);
        assert_eq!(mended(&model, Way::Arriving, ROUTER, given), None);
        let backends = Some((asked, SERVICE, CLIENT));
        assert_eq!(mended(&model, Way::Leaving, BACKEND, given), backends);
        assert_eq!(mended(&model, Way::Leaving, ROUTER, asked), None, "no news");
    }

    #[test]
    fn errors_about_answers_are_mended_where_they_arrive() {
        let model = model((CLIENT, 4000));
        let answer = flow(SERVICE, 80, CLIENT, 4000);
        let untranslated = flow(BACKEND, 8080, CLIENT, 4000);
        for from in [ROUTER, CLIENT] {
            let expected = Some((untranslated, from, BACKEND));
            assert_eq!(mended(&model, Way::Arriving, from, answer), expected);
            assert_eq!(mended(&model, Way::Leaving, from, answer), None);
        }
    }

    #[test]
    fn errors_for_a_translated_source_find_the_client() {
        let model = model((NODE, 61_000));
        let asked = flow(CLIENT, 4000, SERVICE, 80);
        let given = flow(NODE, 61_000, BACKEND, 8080);
        let routers = Some((asked, ROUTER, CLIENT));
        assert_eq!(mended(&model, Way::Arriving, ROUTER, given), routers);
        let backends = Some((asked, SERVICE, CLIENT));
        assert_eq!(mended(&model, Way::Arriving, BACKEND, given), backends);
        assert_eq!(mended(&model, Way::Leaving, BACKEND, given), None);
        let answer = flow(SERVICE, 80, CLIENT, 4000);
        let clients = Some((given.reversed(), NODE, BACKEND));
        assert_eq!(mended(&model, Way::Arriving, CLIENT, answer), clients);
    }

    #[test]
    fn errors_for_others_are_left_alone() {
        let model = model((CLIENT, 4000));
        let given = flow(CLIENT, 4000, BACKEND, 8080);
        let headers = error(ROUTER, NODE);
        assert_eq!(
            mend::<V4, _>(&model, Way::Leaving, &headers, &given),
            None,
            "not for who sent it"
        );
        let unknown = flow(CLIENT, 4001, BACKEND, 8080);
        assert_eq!(mended(&model, Way::Leaving, ROUTER, unknown), None);
    }

    /// An IPv4 error of a type about a packet with these bytes before its ports.
    fn packet(kind: u8, quoted: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 12];
        bytes.extend([0x08, 0x00]);
        let len = (20 + 8 + quoted.len() + 8) as u8;
        bytes.extend([0x45, 0, 0, len, 0, 0, 0, 0, 64, parse::ICMP, 0, 0]);
        bytes.extend([ROUTER, CLIENT].concat());
        bytes.extend([kind, 4, 0, 0, 0, 0, 5, 0]);
        bytes.extend(quoted);
        bytes.extend([0x0f, 0xa0, 0x1f, 0x90, 1, 2, 3, 4]);
        bytes
    }

    fn read(bytes: &[u8]) -> Option<Quote<V4>> {
        quote(bytes, &parse::ipv4(bytes, 14))
    }

    #[test]
    fn a_quoted_packet_is_read() {
        let plain = |first: u8, fragment: [u8; 2], proto| {
            let mut quoted = vec![first, 0, 5, 220, 0, 7, fragment[0], fragment[1], 63, proto];
            quoted.extend([0, 0]);
            quoted.extend([CLIENT, BACKEND].concat());
            quoted
        };
        let whole = plain(0x45, [0x40, 0], TCP);
        let expected = Quote {
            l3: 42,
            l4: 62,
            tuple: flow(CLIENT, 4000, BACKEND, 8080),
        };
        for kind in 0..=255 {
            let found = read(&packet(kind, &whole));
            let error = matches!(kind, 3 | 4 | 11 | 12);
            assert_eq!(found, error.then_some(expected), "type {kind}");
        }
        let mut options = plain(0x46, [0, 0], TCP);
        options.extend([1; 4]);
        let l4 = read(&packet(3, &options)).map(|quote| quote.l4);
        assert_eq!(l4, Some(66));
        assert!(read(&packet(3, &plain(0x45, [0x20, 0], TCP))).is_some());
        for other in [
            plain(0x45, [0, 9], TCP),
            plain(0x45, [0, 0], parse::ICMP),
            plain(0x44, [0, 0], TCP),
            plain(0x65, [0, 0], TCP),
        ] {
            assert_eq!(read(&packet(3, &other)), None);
        }
        let bytes = packet(3, &whole);
        for len in 0..bytes.len() {
            assert_eq!(read(&bytes[..len]), None, "{len} bytes");
        }
    }

    #[test]
    fn an_echo_request_is_known_by_its_identifier() {
        let mut bytes = packet(3, &[]);
        bytes.truncate(42);
        bytes.extend([0x45, 0, 0, 28, 0, 7, 0x40, 0, 63, parse::ICMP, 0, 0]);
        bytes.extend([CLIENT, BACKEND].concat());
        bytes.extend([8, 0, 1, 2, 0x0f, 0xa0, 0, 9]);
        let echo = |bytes: &[u8]| echo_request::<V4, _>(bytes, &parse::ipv4(bytes, 14));
        let expected = Quote {
            l3: 42,
            l4: 66,
            tuple: Flow4::new(CLIENT, BACKEND, 4000.into(), 0.into(), parse::ICMP),
        };
        assert_eq!((echo(&bytes), read(&bytes)), (Some(expected), None));
        for kind in (0..8).chain(9..=255) {
            bytes[62] = kind;
            assert_eq!(echo(&bytes), None, "type {kind}");
        }
        bytes[51] = UDP;
        bytes[62] = 8;
        assert_eq!(echo(&bytes), None, "of another protocol");
    }

    #[test]
    fn of_fragments_the_first_is_read() {
        let read = |offset: u16, next: u8| {
            let addresses = [[0xfd; 16], [0xfe; 16]].concat();
            let mut bytes = vec![0; 12];
            bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 64, parse::ICMPV6, 64]);
            bytes.extend(&addresses);
            bytes.extend([2, 0, 0, 0, 0, 0, 5, 0]);
            bytes.extend([0x60, 0, 0, 0, 0, 16, FRAGMENT, 64]);
            bytes.extend(&addresses);
            let [high, low] = (offset | 1).to_be_bytes();
            bytes.extend([next, 0, high, low, 1, 2, 3, 4]);
            bytes.extend([0x0f, 0xa0, 0x1f, 0x90, 1, 2, 3, 4]);
            quote::<V6, _>(&bytes[..], &parse::ipv6(&bytes[..], 14))
        };
        let found = read(0, UDP).expect("the ports are there");
        assert_eq!((found.l3, found.l4), (62, 110));
        let ports = (found.tuple.sport().get(), found.tuple.dport().get());
        assert_eq!(ports, (4000, 8080));
        assert_eq!(found.tuple.proto(), UDP);
        assert_eq!(read(8, UDP), None, "no ports");
        assert_eq!(read(0, FRAGMENT), None, "nor in a fragment of a fragment");
        assert_eq!(read(0, parse::ICMPV6), None);
    }

    proptest! {
        #[test]
        fn nothing_that_is_quoted_does_harm(
            kind in any::<u8>(), quoted in prop::collection::vec(any::<u8>(), 0..80),
        ) {
            let mut bytes = packet(kind, &quoted);
            let _ = read(&bytes);
            bytes.splice(12..34, [0x86, 0xdd, 0x60, 0, 0, 0, 0, 60, parse::ICMPV6, 64]);
            let _ = quote::<V6, _>(&bytes[..], &parse::ipv6(&bytes[..], 14));
        }
    }
}
