//! A packet in a packet: a client's packet gets to the backend's node as it came, and the backend's answers straight to
//! the client (direct server return).
//!
//! The node that the client's packet reaches chooses the backend and puts an IP header around the packet (IPv4 in IPv4,
//! RFC 2003; IPv6 in IPv6, RFC 2473): from the node's own address to the backend's, routed as whatever is for that. The
//! backend's port stands where nothing reads it: in the identification of a packet that is never cut (RFC 6864), or in
//! the flow label. The backend's node chooses nothing: it takes the header off, and begins an ordinary flow to the backend
//! that it was told.

use abi::frontends::flags::{HOST_ONLY, LIMITED};
use abi::members::flags::{HERE, KNOWN, NODE};
use abi::{Backend, Counter, Frontend, MemberKey, Scope, backends};
use zerocopy::network_endian::U16;

use super::{
    Beginning, DIRECT, Decision, Kind, Place, Ports, Sent, find_ports, opens, passing, rewrite,
};
use crate::{
    Address as _, Bytes, Family, Fault, Flow as _, Fragment, Headers, State as _, Tables,
    Transport, refuse,
};
use abi::flows::flags;

/// Time to live of the outer header.
const TTL: u8 = 64;
/// The high bits of IPv4's fragmentation word of a packet that may not be cut.
const MAY_NOT: u8 = 0x40;
/// What a traffic class says of the service that is wanted (RFC 2474). Its other bits are about congestion: a receiver
/// that does not carry them over to the inner header must not be sent any (RFC 6040 section 4.1).
const DSCP: u8 = 0xfc;

/// Protocol number of a packet in a packet.
#[must_use]
pub const fn proto<F: Family>() -> u8 {
    if F::NUMBER == abi::family::V4 { 4 } else { 41 }
}

/// Length of the outer header.
#[must_use]
pub const fn outer_len<F: Family>() -> u32 {
    refuse::header_len::<F>()
}

/// The outer header of a packet of `len` octets whose header begins with `first`, from the address `node` to the backend
/// of the tuple `to`; the words behind the family's are zero.
#[inline(always)]
pub fn header<F: Family>(node: F::Address, to: &F::Flow, len: u32, first: u32) -> [u32; 10] {
    let outer = F::Flow::new(node, to.daddr(), U16::ZERO, U16::ZERO, 0);
    let mut header = refuse::header::<F>(&outer, proto::<F>(), len);
    let [a, b, _, _] = first.to_ne_bytes();
    let [p0, p1] = to.dport().to_bytes();
    if F::NUMBER == abi::family::V4 {
        let [version, _, _, _] = header[0].to_ne_bytes();
        let whole = refuse::header_len::<F>() + len;
        // What is longer only the kernel knows; what it is cut into says how long it is.
        let [l0, l1] = if whole > 0xffff {
            [0, 0]
        } else {
            (whole as u16).to_be_bytes()
        };
        header[0] = u32::from_ne_bytes([version, b & DSCP, l0, l1]);
        header[1] = u32::from_ne_bytes([p0, p1, MAY_NOT, 0]);
        header[2] = u32::from_ne_bytes([TTL, proto::<F>(), 0, 0]);
        let sum = crate::checksum::sum(&header);
        let [c0, c1] = crate::checksum::finished(sum).to_ne_bytes();
        header[2] = u32::from_ne_bytes([TTL, proto::<F>(), c0, c1]);
    } else {
        let class = (a << 4 | b >> 4) & DSCP;
        header[0] = u32::from_ne_bytes([0x60 | class >> 4, class << 4, p0, p1]);
        if len > 0xffff {
            header[1] = u32::from_ne_bytes([0, 0, proto::<F>(), TTL]);
        }
    }
    header
}

/// Whether there may be a packet inside: of the transports that are read, it has none.
#[inline(always)]
#[must_use]
pub fn may_be<F: Family>(headers: &Headers<F>) -> bool {
    headers.transport == Transport::Other && headers.fault == Fault::None
}

/// Reads the outer header of what may be such a packet: `told` becomes a tuple from the node that sent it to the backend
/// that it chose. False for anything else.
#[inline(always)]
pub fn told<F: Family, B: Bytes + ?Sized>(
    bytes: &B,
    headers: &Headers<F>,
    told: &mut F::Flow,
) -> bool {
    if !may_be(headers)
        || headers.fragment != Fragment::Whole
        || headers.l4.wrapping_sub(headers.l3) != outer_len::<F>()
    {
        return false;
    }
    let Some([first, second, third]) = bytes.words::<3>(headers.l3) else {
        return false;
    };
    let (next, port) = if F::NUMBER == abi::family::V4 {
        let [p0, p1, cuts, _] = second.to_ne_bytes();
        let next = third.to_ne_bytes()[1];
        (next, if cuts == MAY_NOT { [p0, p1] } else { [0, 0] })
    } else {
        let [_, _, p0, p1] = first.to_ne_bytes();
        (second.to_ne_bytes()[2], [p0, p1])
    };
    let (saddr, daddr) = (headers.tuple.saddr(), headers.tuple.daddr());
    *told = F::Flow::new(saddr, daddr, U16::ZERO, U16::from_bytes(port), 0);
    next == proto::<F>() && port != [0, 0]
}

/// Reads the packet inside; false where it is not whole.
#[inline(always)]
pub fn inner<F: Family, B: Bytes + ?Sized>(bytes: &B, headers: &mut Headers<F>) -> bool {
    let end = end(headers);
    *headers = Headers::unread(headers.l4);
    F::read(bytes, headers);
    is_whole(headers, end)
}

/// Where a packet ends.
#[inline(always)]
pub fn end<F: Family>(headers: &Headers<F>) -> u32 {
    headers.l3.wrapping_add(headers.bytes)
}

/// Whether a packet was read and lies within one that ends there.
#[inline(always)]
pub fn is_whole<F: Family>(headers: &Headers<F>, outer_end: u32) -> bool {
    headers.fault == Fault::None && end(headers) <= outer_end
}

/// Whether an outside client's new flow may go to a backend of another node as it came: that node takes off what is put
/// around it, and the client is not of the cluster, where the answer might find another way or be refused as forged.
#[inline(always)]
pub(super) fn may<F: Family, T: Tables<F>>(tables: &T, tuple: &F::Flow, backend: &Backend) -> bool {
    backend.flags & backends::flags::TUNNELS != 0 && member::<F, T>(tables, tuple.saddr()) == 0
}

/// Writes the one entry of a new flow: the answers do not come this way.
#[inline(always)]
pub(super) fn begin<F: Family, T: Tables<F>>(
    tables: &T,
    tuple: &F::Flow,
    beginning: &Beginning,
    to: &F::Flow,
) -> Decision {
    let state = F::State::new(
        *to,
        beginning.service,
        beginning.backend,
        beginning.now_secs,
        flags::TUNNELLED,
    );
    // Without an entry the next packet's backend is computed as this one's was, and no answer comes this way.
    tables.put_flow(tuple, &state);
    Decision::Rewrite(Kind::TunnelNew)
}

/// Decides on a packet that arrived in another one at the device with index `ifindex`. `to` is what [`told`] made of that
/// one, and becomes what the packet inside shall be; [`Decision::Pass`] leaves both as they are, for somebody else.
#[inline(always)]
pub fn arrive<F: Family, T: Tables<F>>(
    tables: &T,
    ifindex: u32,
    headers: &mut Headers<F>,
    to: &mut F::Flow,
) -> Decision {
    let (backend, port) = (to.daddr(), to.dport());
    let from_node = member::<F, T>(tables, to.saddr()) & (NODE | HERE) == NODE;
    if !from_node || member::<F, T>(tables, backend) & HERE == 0 && !tables.has_pod(backend) {
        return Decision::Pass;
    }
    match find_ports(tables, headers) {
        Ports::Known => {}
        Ports::None => return Decision::Pass,
        Ports::Lost => return Decision::Drop(Counter::DropFragment),
    }
    // The cluster's own packets are somebody else's tunnel's.
    if member::<F, T>(tables, headers.tuple.saddr()) != 0 {
        return Decision::Pass;
    }
    let begins = opens(headers);
    if let Some(state) = tables.flow(&headers.tuple, passing(headers))
        && state.flags() & (flags::REPLY | flags::SNAT | flags::TUNNELLED) == 0
        && state.service() != DIRECT
    {
        let same = state.to().daddr().is(backend) && state.to().dport() == port;
        // A connection stays where it is, whoever its packets come from now.
        let stays = match headers.transport {
            Transport::Tcp | Transport::Sctp if !begins => true,
            Transport::Tcp | Transport::Sctp => {
                same && state.flags() & flags::CLOSING == 0 && tables.hears(&headers.tuple, state)
            }
            _ => same,
        };
        if stays {
            *to = *state.to();
            let checked = flags::checked_at(ifindex);
            let kind = if state.flags() & flags::CHECKED_AT == checked && checked != 0 {
                Kind::Checked
            } else {
                Kind::Forward
            };
            return rewrite(tables, headers, to, kind);
        }
    }
    let Some(frontend) = frontend(tables, &headers.tuple) else {
        return Decision::Pass;
    };
    if frontend.flags & HOST_ONLY != 0 {
        return Decision::Pass;
    }
    let beginning = Beginning {
        service: frontend.service,
        // The other node's number for it means nothing here.
        backend: 0,
        now_secs: tables.now_secs(),
        place: Place::Wire,
        sent: Sent::FromClient,
        nested: false,
        opens: begins && headers.transport == Transport::Tcp,
        limited: frontend.flags & LIMITED != 0,
    };
    let tuple = &headers.tuple;
    *to = F::Flow::new(tuple.saddr(), backend, tuple.sport(), port, tuple.proto());
    match tables.begin(tuple, &beginning, to) {
        Decision::Rewrite(kind) => rewrite(tables, headers, to, kind),
        refused => refused,
    }
}

/// The frontend that a packet for another node was for: a node port is every node's.
#[inline(always)]
fn frontend<'a, F: Family, T: Tables<F>>(tables: &'a T, tuple: &F::Flow) -> Option<&'a Frontend> {
    let mut addr = tuple.daddr();
    if member::<F, T>(tables, addr) & NODE != 0 {
        addr = tables.node().and_then(F::node_address)?;
    }
    let key = |scope| F::frontend_key(addr, tuple.dport(), tuple.proto(), scope);
    match tables.frontend(&key(Scope::External)) {
        None => tables.frontend(&key(Scope::Any)),
        found => found,
    }
}

/// What is known of an address: flags of [`abi::members`], zero where it is outside of the cluster.
#[inline(always)]
fn member<F: Family, T: Tables<F>>(tables: &T, addr: F::Address) -> u32 {
    let key = MemberKey {
        prefix_len: 128,
        // Mapped there as here.
        addr: F::source_key(0, addr).addr,
    };
    match tables.member(&key) {
        Some(member) => member.flags | KNOWN,
        None => 0,
    }
}

/// An ICMP error about a packet that this node put another one around.
pub mod error {
    use super::*;
    use crate::quote;
    use crate::refuse::ICMP_LEN;

    /// What the client is told.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Relayed<F: Family> {
        /// The ICMP header; it and an IP header take the place of the outer packet's quotation.
        pub icmp: [u32; 2],
        /// Length of what is behind the IP header.
        pub payload: u32,
        /// From whom to whom.
        pub flow: F::Flow,
    }

    impl<F: Family> Relayed<F> {
        /// The IP header.
        #[inline(always)]
        #[must_use]
        pub fn ip(&self) -> [u32; 10] {
            refuse::header::<F>(&self.flow, F::ICMP, self.payload)
        }
    }

    /// Reads an error about an outer packet: gives it to the client of the flow that the inner one was of, as one about
    /// that. Behind the new headers follows what followed the quotation of the outer header. `None` for any other error.
    #[inline(always)]
    pub fn relay<F: Family, B: Bytes + ?Sized, T: Tables<F>>(
        bytes: &B,
        tables: &T,
        headers: &Headers<F>,
    ) -> Option<Relayed<F>> {
        let len = outer_len::<F>();
        let own = tables.node().and_then(F::node_address)?;
        if headers.fault != Fault::None
            || headers.fragment != Fragment::Whole
            || headers.l4.wrapping_sub(headers.l3) != len
            || headers.bytes < len * 3 + ICMP_LEN * 2
            || !headers.tuple.daddr().is(own)
        {
            return None;
        }
        let [first, rest] = bytes.words::<2>(headers.l4)?;
        let [kind, code, c0, c1] = first.to_ne_bytes();
        let is_v4 = F::NUMBER == abi::family::V4;
        let too_big = if is_v4 {
            (kind, code) == (3, 4)
        } else {
            kind == 2
        };
        // What a node says that takes nothing off concerns this node, not the client.
        let protocol = if is_v4 { (3, 2) } else { (4, 1) };
        if !quote::is_error::<F>(kind) || (kind, code) == protocol {
            return None;
        }
        let outer = headers.l4 + ICMP_LEN;
        let (sum, from, backend) = quoted_outer::<F, B>(bytes, outer)?;
        if !from.is(own) {
            return None;
        }
        let tuple = quote::quoted::<F, B>(bytes, outer + len)?.tuple;
        let state = tables.flow(&tuple, 0)?;
        if state.flags() & flags::TUNNELLED == 0 {
            return None;
        }
        // Every link takes that much (RFC 791, RFC 8200).
        let least = if is_v4 { 576 } else { 1280 };
        let rest_new = if too_big {
            let mtu = u32::from_be(rest) & if is_v4 { 0xffff } else { u32::MAX };
            mtu.saturating_sub(len).max(least).to_be()
        } else {
            0
        };
        let saddr = headers.tuple.saddr();
        let saddr = if saddr.is(backend) {
            tuple.daddr()
        } else {
            saddr
        };
        let flow = F::Flow::new(saddr, tuple.saddr(), U16::ZERO, U16::ZERO, F::ICMP);
        let payload = headers.bytes - len - len;
        let first = u32::from_ne_bytes([kind, code, 0, 0]);
        let (mut old, mut new) = (
            u64::from(first) + u64::from(rest) + sum,
            u64::from(first) + u64::from(rest_new),
        );
        if !is_v4 {
            old += refuse::pseudo::<F>(&headers.tuple, F::ICMP, payload + len);
            new += refuse::pseudo::<F>(&flow, F::ICMP, payload);
        }
        let change = crate::checksum::difference(old, new);
        let check = crate::checksum::updated(u16::from_ne_bytes([c0, c1]), change);
        let [c0, c1] = check.to_ne_bytes();
        Some(Relayed {
            payload,
            icmp: [u32::from_ne_bytes([kind, code, c0, c1]), rest_new],
            flow,
        })
    }

    /// The sum of a quoted outer header, and its addresses; `None` where it is none of a packet in a packet.
    #[inline(always)]
    fn quoted_outer<F: Family, B: Bytes + ?Sized>(
        bytes: &B,
        at: u32,
    ) -> Option<(u64, F::Address, F::Address)> {
        let addr = |words: [u32; 4]| F::Address::from_padded(&zerocopy::transmute!(words));
        if F::NUMBER == abi::family::V4 {
            let words = bytes.words::<5>(at)?;
            let [version, ..] = words[0].to_ne_bytes();
            let [_, next, ..] = words[2].to_ne_bytes();
            (version == 0x45 && next == proto::<F>()).then(|| {
                let (from, to) = (addr([words[3], 0, 0, 0]), addr([words[4], 0, 0, 0]));
                (crate::checksum::sum(&words), from, to)
            })
        } else {
            let words = bytes.words::<10>(at)?;
            let [version, ..] = words[0].to_ne_bytes();
            let [_, _, next, _] = words[1].to_ne_bytes();
            let [_, _, s0, s1, s2, s3, d0, d1, d2, d3] = words;
            (version >> 4 == 6 && next == proto::<F>()).then(|| {
                let (from, to) = (addr([s0, s1, s2, s3]), addr([d0, d1, d2, d3]));
                (crate::checksum::sum(&words), from, to)
            })
        }
    }
}

#[cfg(test)]
mod tests;
