//! Packets of pods that leave the cluster: outside, nobody knows a way back to a pod, so they get this node's address
//! where they leave the node, and their answers the pod's where they arrive.
//!
//! What a pod answers to somebody outside who knows the way to it keeps the pod's address. TCP's answers tell that
//! themselves; of UDP and SCTP it is remembered where the question arrives.
//!
//! That is a flow of no service, whose source is translated: an entry of the pod's tuple, and one of the answers' with
//! [`flags::SNAT`], which is found and carried out as every other entry. Only what a pod begins is one. Between the pod and
//! the node's device packets are as the pod sends and gets them, for policies, the node's firewall and its routing.
//!
//! An echo request (RFC 792, RFC 4443) is a conversation, too: its identifier is the port of who asks.

use abi::flows::flags;
use abi::masquerade::{FAMILY_BITS, flags::PODS_HERE};
use abi::{Counter, InsideKey};

use super::{Beginning, DIRECT, Decision, Kind, Place, Sent, opens, passing, rewrite};
use crate::parse::tcp;
use crate::{
    Address as _, Bytes, Family, Fault, Flow as _, Headers, Shared, State as _, Tables, Transport,
    hop,
};
use zerocopy::network_endian::U16;

/// Offset of the checksum in an echo message.
pub const CHECK_OFFSET: u32 = 2;
/// Offset of the identifier in an echo message.
pub const IDENTIFIER_OFFSET: u32 = 4;

/// How often [`Tables::begin`] is asked for a port, of which it tries [`super::PORT_TRIES`].
const ROUNDS: u32 = 4;

/// Whether an address is none of the cluster's, so that a pod's packet to it needs this node's.
#[inline(always)]
pub fn is_outside<F: Family, T: Shared>(tables: &T, addr: F::Address) -> bool {
    hop::is_routable::<F>(addr) && tables.inside(&key::<F>(addr)).is_none()
}

#[inline(always)]
fn key<F: Family>(addr: F::Address) -> InsideKey {
    InsideKey {
        prefix_len: FAMILY_BITS + F::Address::WORDS as u32 * 32,
        family: F::NUMBER.into(),
        addr: addr.padded(),
    }
}

/// Whether an entry is that of a pod's packets to the outside.
#[inline(always)]
pub(super) fn is<S: crate::State>(state: &S) -> bool {
    state.service() == DIRECT && state.flags() & (flags::SNAT | flags::REPLY) == flags::SNAT
}

/// Whether a packet of a pod's goes on as the entry of its tuple says, rather than begin anew: who takes a port again may
/// have ended the conversation before, and its answers may be another's since.
#[inline(always)]
pub(super) fn goes_on<F: Family, T: Tables<F>>(
    tables: &T,
    headers: &Headers<F>,
    state: &F::State,
) -> bool {
    is(state)
        && (!opens(headers)
            || state.flags() & flags::CLOSING == 0 && tables.hears(&headers.tuple, state))
}

/// Decides on a packet that leaves by a node device and that [`super::reply`] has left alone; `to` is written where it gets
/// this node's address. Of ICMP only echo requests are given to it.
#[inline(always)]
pub fn leave<F: Family, T: Tables<F>>(
    tables: &T,
    headers: &Headers<F>,
    to: &mut F::Flow,
) -> Decision {
    let tuple = &headers.tuple;
    let of_a_pod = |flags: u32| flags & PODS_HERE != 0;
    if headers.fault != Fault::None
        || !tables
            .inside(&key::<F>(tuple.saddr()))
            .is_some_and(of_a_pod)
        || !is_outside::<F, T>(tables, tuple.daddr())
    {
        return Decision::Pass;
    }
    match headers.transport {
        Transport::Tcp | Transport::Udp | Transport::Sctp => {}
        // An echo request, see [`echo`].
        Transport::Icmp if tuple.proto() == F::ICMP => {}
        // Later fragments are of a conversation that began with a first one.
        Transport::Icmp | Transport::Elsewhere | Transport::Other => return Decision::Pass,
    }
    if let Some(state) = tables.flow(tuple, passing(headers)) {
        if goes_on(tables, headers, state) {
            *to = *state.to();
            return rewrite(tables, headers, to, Kind::Forward);
        }
        if state.service() != DIRECT || state.flags() & flags::REPLY != 0 {
            return Decision::Pass;
        }
    }
    let now_secs = tables.now_secs();
    if answers(headers) {
        if headers.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN | tcp::ACK {
            // Whoever is outside and knows the way to the pod is answered as it asked, from now on.
            let state = F::State::new(*tuple, DIRECT, 0, now_secs, flags::REPLY);
            tables.put_flow(tuple, &state);
        }
        return Decision::Pass;
    }
    let Some(node) = tables.node().and_then(F::node_address) else {
        return Decision::Drop(Counter::DropNoNodeAddress);
    };
    *to = F::Flow::new(
        node,
        tuple.daddr(),
        tuple.sport(),
        tuple.dport(),
        tuple.proto(),
    );
    let nested = match tables.known(&tuple.reversed()) {
        Some(answers) => answers.flags() & (flags::REPLY | flags::SNAT) == flags::REPLY,
        None => false,
    };
    let beginning = Beginning {
        service: DIRECT,
        backend: 0,
        now_secs,
        place: Place::Device,
        sent: Sent::FromNode,
        nested,
        opens: false,
        limited: false,
    };
    let mut round = 0;
    loop {
        round += 1;
        match tables.begin(tuple, &beginning, to) {
            Decision::Drop(Counter::DropSnatExhausted) if round < ROUNDS => {}
            Decision::Rewrite(kind) => return rewrite(tables, headers, to, kind),
            begun => return begun,
        }
    }
}

/// Remembers that a pod is asked from outside of the cluster, by a packet that arrives at a node device and is no flow's:
/// an entry of the answers, which become what they are.
#[inline(always)]
pub fn note_asked<F: Family, T: Tables<F>>(tables: &T, headers: &Headers<F>) {
    let tuple = &headers.tuple;
    if !may_ask(headers) || !is_outside::<F, T>(tables, tuple.saddr()) {
        return;
    }
    let answers = tuple.reversed();
    // A question more does not say that it is answered: the entry stays young.
    let is_known = tables.flow(&answers, 0).is_some();
    let is_of_a_pod = |flags: u32| flags & PODS_HERE != 0;
    if is_known && !opens(headers)
        || !tables
            .inside(&key::<F>(tuple.daddr()))
            .is_some_and(is_of_a_pod)
    {
        return;
    }
    let now_secs = tables.now_secs();
    // The client's ports are taken by this conversation for services' flows, too.
    let kind = flags::REPLY | flags::TAKEN;
    tables.take_place(&answers);
    tables.put_flow(&answers, &F::State::new(answers, DIRECT, 0, now_secs, kind));
}

/// Whether a packet may ask a pod, and its answers do not tell so themselves.
#[inline(always)]
pub fn may_ask<F: Family>(headers: &Headers<F>) -> bool {
    headers.fault == Fault::None && matches!(headers.transport, Transport::Udp | Transport::Sctp)
}

/// Whether a packet of no known conversation is its server's rather than its client's, as in [`crate::policy`]: of what is
/// older than the tables, the lower port is taken for the server's, which is wrong where a pod serves at a high one.
#[inline(always)]
fn answers<F: Family>(headers: &Headers<F>) -> bool {
    matches!(headers.transport, Transport::Tcp | Transport::Sctp)
        && !opens(headers)
        && (headers.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN | tcp::ACK
            || headers.tuple.sport().get() < headers.tuple.dport().get())
}

/// Decides on an echo reply that arrives at a node device; `to` is written where it is for a pod.
#[inline(always)]
pub fn arrive<F: Family, T: Tables<F>>(
    tables: &T,
    headers: &Headers<F>,
    to: &mut F::Flow,
) -> Decision {
    match tables.flow(&headers.tuple, passing(headers)) {
        Some(state)
            if state.flags() & (flags::REPLY | flags::SNAT) == flags::REPLY | flags::SNAT =>
        {
            *to = *state.to();
            rewrite(tables, headers, to, Kind::Reply)
        }
        Some(_) | None => Decision::Pass,
    }
}

/// An echo message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Echo {
    /// Its source asks.
    Request,
    /// Its source answers.
    Reply,
}

/// Gives an echo message's headers the tuple of its conversation; `None` where it is none.
#[inline(always)]
pub fn echo<F: Family, B: Bytes + ?Sized>(bytes: &B, headers: &mut Headers<F>) -> Option<Echo> {
    if headers.fault != Fault::None || headers.transport != Transport::Icmp {
        return None;
    }
    let [kind, identifier] = bytes.words::<2>(headers.l4)?;
    let echo = echo_of::<F>(kind.to_ne_bytes()[0])?;
    headers.tuple = echo_tuple::<F>(
        headers.tuple.saddr(),
        headers.tuple.daddr(),
        identifier,
        echo,
    );
    Some(echo)
}

/// Which echo message an ICMP message of a type is.
#[inline(always)]
pub(crate) fn echo_of<F: Family>(kind: u8) -> Option<Echo> {
    let is_v4 = F::NUMBER == abi::family::V4;
    match kind {
        8 if is_v4 => Some(Echo::Request),
        0 if is_v4 => Some(Echo::Reply),
        128 if !is_v4 => Some(Echo::Request),
        129 if !is_v4 => Some(Echo::Reply),
        _ => None,
    }
}

/// The tuple of an echo message; `identifier` is the word that begins with it.
#[inline(always)]
fn echo_tuple<F: Family>(
    saddr: F::Address,
    daddr: F::Address,
    identifier: u32,
    echo: Echo,
) -> F::Flow {
    let [a, b, _, _] = identifier.to_ne_bytes();
    let identifier = U16::from_bytes([a, b]);
    let (sport, dport) = match echo {
        Echo::Request => (identifier, U16::ZERO),
        Echo::Reply => (U16::ZERO, identifier),
    };
    F::Flow::new(saddr, daddr, sport, dport, F::ICMP)
}

/// The identifier in the tuple of an echo message, as it lies there.
#[inline(always)]
pub fn identifier<F: Family>(tuple: &F::Flow) -> u16 {
    let ([a, b], [c, d]) = (tuple.sport().to_bytes(), tuple.dport().to_bytes());
    u16::from_ne_bytes([a | c, b | d])
}

#[cfg(test)]
mod tests;
