//! What to do with a packet: find its flow, or choose a backend and begin one.

pub mod code;
pub mod known;
pub mod masquerade;
pub mod tunnel;

use abi::flows::flags::{self, CHECKED_AT, TUNNELLED};
use abi::frontends::WHOLE_ADDRESS;
use abi::frontends::flags::{CHECK_SOURCE, DROP, DSR, HASHED, HOST_ONLY, LEAST, LIMITED};
use abi::{
    AffinityKey, BackendId, Counter, FragmentKey, FragmentPorts, Frontend, Scope, ServiceId,
    affinity, backends, protocol,
};

use zerocopy::network_endian::U16;

use crate::choose::{self, Refused};
use crate::local_dns::{self, Way};
use crate::parse::tcp;
use crate::port_range::PortRange;
use crate::{Address, Family, Fault, Flow, Fragment, Headers, Inserted, State, Tables, Transport};

/// Where a packet is seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// Leaving a pod of this node. Clients are inside, and every answer comes back through this node.
    Pod,
    /// Arriving at a device of this node. Clients are outside; the answer of a backend on another node comes
    /// back only if the source is this node's. Where XDP runs on the device, it has seen the packet before.
    Device,
    /// As [`Device`](Place::Device), before any other program saw the packet.
    Wire,
}

/// What to do with a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// Not ours: leave it as it is.
    Pass,
    /// Give it the tuple that was decided on.
    Rewrite(Kind),
    /// An answer whose source becomes a service's address. The node's routing would refuse it then (rp_filter, or a
    /// local source), so it gets the tuple that was decided on where it leaves, or here by whoever takes it past
    /// that routing.
    Answer,
    /// Answer that nobody listens there.
    Refuse,
    /// Drop it, and count it under this name.
    Drop(Counter),
}

/// What a rewritten packet is to its flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// It begins the flow.
    New,
    /// From the client, of a known flow.
    Forward,
    /// As [`Forward`](Kind::Forward), arriving at the device where the client's source was checked when the flow began.
    Checked,
    /// From the backend.
    Reply,
    /// As [`Reply`](Kind::Reply), and what it becomes is one of another flow's, which is not looked at here.
    Nested,
    /// As [`New`](Kind::New), for a backend of another node, where it goes as it came ([`tunnel`]).
    TunnelNew,
    /// As [`Forward`](Kind::Forward), in the same way.
    Tunnel,
}

/// The service of a conversation with a backend itself, which has entries only to keep its answers apart from those
/// of a service's flow.
const DIRECT: ServiceId = 0;

/// Ports tried before a translated source counts as exhausted.
pub const PORT_TRIES: u32 = 4;

/// Decides on a packet on its way from a client, seen at the device with index `ifindex`. A later fragment's headers
/// get the ports of its first one; `to` is written where the packet shall be rewritten.
#[inline(always)]
pub fn balance<F: Family, T: Tables<F>>(
    tables: &T,
    place: Place,
    ifindex: u32,
    headers: &mut Headers<F>,
    to: &mut F::Flow,
) -> Decision {
    let fault = match headers.fault {
        Fault::None => None,
        Fault::NotIp => return Decision::Pass,
        Fault::Truncated => Some(Counter::DropTruncated),
        Fault::Malformed => Some(Counter::DropMalformed),
    };
    if let Some(counter) = fault {
        return if claimed(tables, &headers.tuple) {
            Decision::Drop(counter)
        } else {
            Decision::Pass
        };
    }
    match find_ports(tables, headers) {
        Ports::Known => {}
        Ports::None => return Decision::Pass,
        Ports::Lost => return Decision::Drop(Counter::DropFragment),
    }
    // Behind XDP a packet for a backend is one that XDP has just translated, or left alone for good reason.
    let behind_xdp = || place == Place::Device && tables.runs_xdp(ifindex);
    let mut was_direct = false;
    if let Some(state) = tables.flow(&headers.tuple, passing(headers)) {
        if state.flags() & flags::REPLY != 0 {
            if !is_answer(tables, headers, state) {
                return Decision::Pass;
            }
            // Hairpins and answers to our own address do not go through this node's routing.
            let here = state.flags() & flags::SNAT != 0
                || place == Place::Pod && bounces::<F>(&headers.tuple, state.to());
            *to = *state.to();
            if !here {
                return Decision::Answer;
            }
            let kind = if state.flags() & flags::NESTED == 0 {
                Kind::Reply
            } else {
                Kind::Nested
            };
            return rewrite(tables, headers, to, kind);
        }
        // That of what goes out of the cluster is carried out where the packet leaves the node. Its address may have
        // become a service's since.
        let leaves = masquerade::is(state);
        if state.service() == DIRECT && (behind_xdp() || leaves && !begins(headers)) {
            return Decision::Pass;
        }
        if !leaves && stays(tables, headers, state) {
            *to = *state.to();
            let checked = flags::checked_at(ifindex);
            let seen = state.flags() & (CHECKED_AT | TUNNELLED);
            let kind = if place == Place::Pod {
                Kind::Forward
            } else if seen == checked && checked != 0 {
                Kind::Checked
            } else if seen & TUNNELLED != 0 {
                Kind::Tunnel
            } else {
                Kind::Forward
            };
            return rewrite(tables, headers, to, kind);
        }
        was_direct = state.service() == DIRECT && !leaves;
    }
    let found = match frontend(tables, place, &headers.tuple) {
        None if place == Place::Pod && headers.transport == Transport::Udp => {
            local_dns::bereft(tables, &headers.tuple)
        }
        found => found,
    };
    let mut beginning = Beginning {
        service: DIRECT,
        backend: 0,
        now_secs: 0,
        place,
        sent: Sent::FromClient,
        nested: false,
        opens: headers.transport == Transport::Tcp && opens(headers),
        limited: false,
    };
    let begun = match found {
        Some(frontend) => {
            beginning.service = frontend.service;
            beginning.limited = frontend.flags & LIMITED != 0;
            beginning.now_secs = tables.now_secs();
            tables.choose(frontend, &headers.tuple, &mut beginning, to)
        }
        // What goes to a backend directly is no service's, unless its answers would be taken for those of a
        // service's flow: a client may use one port towards both. An entry of an earlier conversation is replaced:
        // it may name a port that is no longer this client's.
        None if was_direct || mixes(tables, headers) && !behind_xdp() => {
            beginning.now_secs = tables.now_secs();
            *to = headers.tuple;
            Decision::Rewrite(Kind::New)
        }
        // A port that the service does not have, on an address that is a service's alone.
        None if begins(headers) && claims(tables, headers.tuple.daddr()) => {
            return Decision::Refuse;
        }
        None => return Decision::Pass,
    };
    let begun = match begun {
        Decision::Rewrite(_) => tables.begin(&headers.tuple, &beginning, to),
        Decision::Pass | Decision::Answer | Decision::Refuse | Decision::Drop(_) => begun,
    };
    match begun {
        Decision::Rewrite(kind) => rewrite(tables, headers, to, kind),
        Decision::Pass | Decision::Answer | Decision::Refuse | Decision::Drop(_) => begun,
    }
}

/// Decides on a packet on its way to a client: only the answers of known flows are touched, and what goes out of the
/// cluster, which is for a node's device alone to carry out. For headers and `to` see [`balance`].
#[inline(always)]
pub fn reply<F: Family, T: Tables<F>>(
    tables: &T,
    headers: &mut Headers<F>,
    to: &mut F::Flow,
) -> Decision {
    if headers.fault != Fault::None {
        return Decision::Pass;
    }
    match find_ports(tables, headers) {
        Ports::Known => {}
        // On the way out an unknown fragment is a matter of whoever sent it.
        Ports::None | Ports::Lost => return Decision::Pass,
    }
    match tables.flow(&headers.tuple, passing(headers)) {
        Some(state) if state.flags() & flags::REPLY != 0 && is_answer(tables, headers, state) => {
            *to = *state.to();
            rewrite(tables, headers, to, Kind::Reply)
        }
        Some(state) if masquerade::goes_on(tables, headers, state) => {
            *to = *state.to();
            rewrite(tables, headers, to, Kind::Forward)
        }
        Some(_) | None => Decision::Pass,
    }
}

/// Whether the source changes as well: then the packet must not go through this node's routing, which takes a
/// source of its own (or of a service) on an arriving packet for forged.
#[inline(always)]
pub fn source_changes<F: Family>(from: &F::Flow, to: &F::Flow) -> bool {
    !from.saddr().is(to.saddr())
}

/// Whether a packet goes back to where it came from: a pod that is its own backend.
#[inline(always)]
pub fn bounces<F: Family>(from: &F::Flow, to: &F::Flow) -> bool {
    to.daddr().is(from.saddr())
}

/// Whether a packet's tuple has ports.
enum Ports {
    /// It has.
    Known,
    /// It has none, or none that a Service names.
    None,
    /// They were in a fragment that never came, and the destination is a service's address.
    Lost,
}

#[inline(always)]
fn find_ports<F: Family, T: Tables<F>>(tables: &T, headers: &mut Headers<F>) -> Ports {
    match headers.transport {
        Transport::Tcp | Transport::Udp | Transport::Sctp => Ports::Known,
        Transport::Icmp | Transport::Other => Ports::None,
        Transport::Elsewhere => find_fragment(tables, headers),
    }
}

/// Fills in what the first fragment carried. A function of its own: fragments are rare.
#[inline(never)]
fn find_fragment<F: Family, T: Tables<F>>(tables: &T, headers: &mut Headers<F>) -> Ports {
    let (saddr, daddr) = (headers.tuple.saddr(), headers.tuple.daddr());
    match tables.fragment(&fragment_key(headers)) {
        Some(first) => {
            headers.tuple = F::Flow::new(saddr, daddr, first.sport, first.dport, first.proto);
            Ports::Known
        }
        None => {
            if claimed(tables, &headers.tuple) {
                Ports::Lost
            } else {
                Ports::None
            }
        }
    }
}

/// Remembers the ports of a packet's first fragment for the later ones. Called through [`Tables::keep_first`].
#[inline(always)]
pub fn keep_fragment<F: Family, T: Tables<F>>(tables: &T, headers: &Headers<F>) {
    tables.keep_fragment(
        &fragment_key(headers),
        &FragmentPorts {
            sport: headers.tuple.sport(),
            dport: headers.tuple.dport(),
            proto: headers.tuple.proto(),
            _pad: [0; 3],
        },
    );
}

#[inline(always)]
fn fragment_key<F: Family>(headers: &Headers<F>) -> FragmentKey {
    FragmentKey {
        saddr: headers.tuple.saddr().padded(),
        daddr: headers.tuple.daddr().padded(),
        id: headers.fragment_id.id,
        proto: headers.fragment_id.proto,
        family: F::NUMBER,
        _pad: [0; 2],
    }
}

/// Whether an address is a service's alone, whatever the port: [`WHOLE_ADDRESS`].
#[inline(always)]
pub fn claims<F: Family, T: Tables<F>>(tables: &T, addr: F::Address) -> bool {
    let key = F::frontend_key(addr, U16::ZERO, WHOLE_ADDRESS, Scope::Any);
    tables.frontend(&key).is_some()
}

/// Whether a packet that cannot be read would have been ours: its ports and protocol are those of a frontend or,
/// where they are unknown (zero), its address is a service's alone.
#[inline(always)]
fn claimed<F: Family, T: Tables<F>>(tables: &T, tuple: &F::Flow) -> bool {
    let key = F::frontend_key(tuple.daddr(), tuple.dport(), tuple.proto(), Scope::Any);
    tables.frontend(&key).is_some()
}

#[inline(always)]
fn rewrite<F: Family, T: Tables<F>>(
    tables: &T,
    headers: &Headers<F>,
    to: &F::Flow,
    kind: Kind,
) -> Decision {
    if headers.fragment == Fragment::First {
        // SCTP's checksum can be mended only by whoever knows the length of all fragments together.
        if headers.transport == Transport::Sctp && headers.tuple.ports() != to.ports() {
            return Decision::Drop(Counter::DropFragment);
        }
        tables.keep_first(headers);
    }
    Decision::Rewrite(kind)
}

/// What a packet that passes says of the direction of the flow that it is of, as bits of [`flags`]. Without a branch, as
/// every packet is asked.
#[inline(always)]
pub fn passing<F: Family>(headers: &Headers<F>) -> u32 {
    const { assert!(tcp::FIN << 2 == tcp::RST && flags::CLOSING == tcp::RST as u32) };
    const { assert!((tcp::SYN as u32) << 30 == flags::GOES_ON) };
    const { assert!((tcp::RST as u32) << 28 == flags::RESET) };
    let bits = u32::from(headers.tcp_flags);
    (bits | bits << 2) & flags::CLOSING
        | bits << 28 & flags::RESET
        | !(bits << 30 | bits << 29) & flags::GOES_ON
}

/// Whether a flow whose entries have these flags is young: nothing is known of it but what began it.
#[inline(always)]
#[must_use]
pub const fn is_young(entry: u32) -> bool {
    entry & flags::GOES_ON == 0
}

/// Whether a packet asks for a new connection.
#[inline(always)]
fn opens<F: Family>(headers: &Headers<F>) -> bool {
    matches!(headers.transport, Transport::Tcp | Transport::Sctp)
        && headers.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN
}

/// Whether a packet with the tuple of a flow's answers is one. To a SYN the backend answers with a SYN or RST, unless
/// the client has a connection of the same ports with the backend itself, which has no entry here: then the answer, an
/// ACK (RFC 9293, section 3.10.7.4), is that one's, as is all that follows, and the flow gets another port with the
/// client's next SYN.
#[inline(always)]
fn is_answer<F: Family, T: Tables<F>>(tables: &T, headers: &Headers<F>, state: &F::State) -> bool {
    state.flags() & (flags::OPENING | flags::ANSWERED) != flags::OPENING
        || state.flags() & flags::TAKEN == 0 && accepts(tables, headers)
}

/// Whether the first packet with the tuple of a flow's answers is one; the entry remembers. A function of its own: there
/// is one such packet in a flow.
#[inline(never)]
fn accepts<F: Family, T: Tables<F>>(tables: &T, headers: &Headers<F>) -> bool {
    let accepts = headers.tcp_flags & (tcp::SYN | tcp::RST) != 0;
    let found = if accepts {
        flags::ANSWERED
    } else {
        flags::TAKEN
    };
    tables.mark_flow(&headers.tuple, found);
    accepts
}

/// Whether a packet of a known flow goes on to the flow's backend, or chooses anew.
#[inline(always)]
fn stays<F: Family, T: Tables<F>>(tables: &T, headers: &Headers<F>, state: &F::State) -> bool {
    if matches!(headers.transport, Transport::Tcp | Transport::Sctp) {
        // A client that takes a port again may have ended the flow before, and its answers may be another's since.
        !opens(headers)
            || state.flags() & flags::CLOSING == 0
                && serves(tables, state)
                && (state.flags() & TUNNELLED != 0 || tables.hears(&headers.tuple, state))
    } else {
        serves(tables, state)
    }
}

/// Whether a packet may begin a conversation.
#[inline(always)]
fn begins<F: Family>(headers: &Headers<F>) -> bool {
    match headers.transport {
        Transport::Tcp | Transport::Sctp => opens(headers),
        Transport::Udp => true,
        Transport::Icmp | Transport::Elsewhere | Transport::Other => false,
    }
}

/// Whether a packet that may begin a conversation has the tuple that a service's flow has behind its translation.
#[inline(always)]
fn mixes<F: Family, T: Tables<F>>(tables: &T, headers: &Headers<F>) -> bool {
    begins(headers)
        && match tables.known(&headers.tuple.reversed()) {
            Some(state) => {
                state.flags() & (flags::REPLY | flags::SNAT | flags::TAKEN) == flags::REPLY
            }
            None => false,
        }
}

/// Whether the answers of a flow still come back to it. Called through [`Tables::hears`].
#[inline(always)]
pub fn hears<F: Family, T: Tables<F>>(tables: &T, tuple: &F::Flow, state: &F::State) -> bool {
    match tables.known(&state.to().reversed()) {
        Some(answer) => answer.to().is(&tuple.reversed()) && answer.flags() & flags::TAKEN == 0,
        None => false,
    }
}

/// Whether the flow's backend still belongs to its service.
#[inline(always)]
fn serves<F: Family, T: Tables<F>>(tables: &T, state: &F::State) -> bool {
    match tables.backend(state.backend()) {
        Some(backend) if backend.service == state.service() => true,
        // A service's flow without a backend of the tables goes to this node's instance of DNS.
        Some(_) | None if state.backend() == 0 => match tables.local_dns() {
            Some(control) => tables.dns_answers(control),
            None => false,
        },
        Some(_) | None => false,
    }
}

/// Clients from outside find their own entry first, where there is one.
#[inline(always)]
fn frontend<'a, F: Family, T: Tables<F>>(
    tables: &'a T,
    place: Place,
    tuple: &F::Flow,
) -> Option<&'a Frontend> {
    let key = |scope| F::frontend_key(tuple.daddr(), tuple.dport(), tuple.proto(), scope);
    if place != Place::Pod
        && let Some(frontend) = tables.frontend(&key(Scope::External))
    {
        return Some(frontend);
    }
    tables.frontend(&key(Scope::Any))
}

/// What a flow begins with.
#[derive(Clone, Copy, Debug)]
pub struct Beginning {
    service: ServiceId,
    backend: BackendId,
    now_secs: u32,
    place: Place,
    sent: Sent,
    nested: bool,
    opens: bool,
    /// Its service has a bound.
    limited: bool,
}

/// How a flow's packets get to the backend.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sent {
    /// With their client's source.
    FromClient,
    /// With this node's.
    FromNode,
    /// With this node's, though they were to go in packets to another node.
    FromNodeInstead,
    /// In packets to another node.
    Tunnelled,
}

impl Beginning {
    /// Whether the flow should have gone to another node as it came, and has its source translated instead.
    #[inline(always)]
    #[must_use]
    pub const fn fell_back(&self) -> bool {
        matches!(self.sent, Sent::FromNodeInstead)
    }

    #[inline(always)]
    const fn is_snat(&self) -> bool {
        matches!(self.sent, Sent::FromNode | Sent::FromNodeInstead)
    }
}

/// Chooses the backend of a new flow; `to` becomes what the packet would be, were there no other flows. Called
/// through [`Tables::choose`].
#[inline(always)]
pub fn choose<F: Family, T: Tables<F>>(
    tables: &T,
    frontend: &Frontend,
    tuple: &F::Flow,
    beginning: &mut Beginning,
    to: &mut F::Flow,
) -> Decision {
    if frontend.flags & (CHECK_SOURCE | HOST_ONLY) != 0 {
        // A loopback address on the way between hosts is none of ours; the stack drops it.
        if frontend.flags & HOST_ONLY != 0 {
            return Decision::Pass;
        }
        if !tables.admits(&F::source_key(frontend.service, tuple.saddr())) {
            return Decision::Drop(Counter::DropSource);
        }
    }
    let client = || AffinityKey {
        client: tuple.saddr().padded(),
        service: frontend.service,
        client_kind: affinity::client::ADDRESS,
    };
    // A flow whose entry had to give way to others comes back to its backend so, as long as the ring stays.
    let random = if frontend.flags & (HASHED | LEAST) == LEAST {
        tables.random()
    } else {
        choose::hash(tuple)
    };
    let way = match beginning.place {
        Place::Pod => local_dns::way::<F, T>(tables, tuple.daddr(), tuple.dport()),
        Place::Device | Place::Wire => Way::Usual,
    };
    let chosen = match way {
        Way::Here(addr, port) => {
            *to = F::Flow::new(tuple.saddr(), addr, tuple.sport(), port, tuple.proto());
            return Decision::Rewrite(Kind::New);
        }
        Way::Past(addr, port) => choose::other(tables, frontend, random, |backend| {
            local_dns::is_other::<F>(backend, addr, port)
        }),
        Way::Usual => choose::choose(tables, frontend, client, random, beginning.now_secs),
    };
    let (id, backend) = match chosen {
        Ok(chosen) => chosen,
        Err(Refused::NoEndpoint) if frontend.flags & DROP != 0 => {
            return Decision::Drop(Counter::DropNoLocalEndpoint);
        }
        Err(Refused::NoEndpoint) => return Decision::Refuse,
        Err(Refused::NoBackend) => return Decision::Drop(Counter::DropNoBackend),
    };
    beginning.backend = id;
    let daddr = F::Address::from_padded(&backend.addr);
    let mut saddr = tuple.saddr();
    match beginning.place {
        Place::Device | Place::Wire if backend.flags & backends::flags::LOCAL == 0 => {
            let node = match tables.node().and_then(F::node_address) {
                Some(addr) => addr,
                None => return Decision::Drop(Counter::DropNoNodeAddress),
            };
            beginning.sent = if frontend.flags & DSR == 0 {
                Sent::FromNode
            } else if tunnel::may(tables, tuple, backend) {
                *to = F::Flow::new(saddr, daddr, tuple.sport(), backend.port, tuple.proto());
                beginning.sent = Sent::Tunnelled;
                return Decision::Rewrite(Kind::New);
            } else {
                Sent::FromNodeInstead
            };
            saddr = node;
        }
        // Hairpin: a pod that saw its own address as the source would answer itself directly.
        Place::Pod if daddr.is(saddr) => saddr = tuple.daddr(),
        Place::Device | Place::Wire | Place::Pod => {}
    }
    *to = F::Flow::new(saddr, daddr, tuple.sport(), backend.port, tuple.proto());
    Decision::Rewrite(Kind::New)
}

/// Writes the entries of a new flow; `to` gets another source port where its own is not free. Called through
/// [`Tables::begin`].
#[inline(always)]
pub fn begin<F: Family, T: Tables<F>>(
    tables: &T,
    tuple: &F::Flow,
    beginning: &Beginning,
    to: &mut F::Flow,
) -> Decision {
    if beginning.limited && !tables.takes_flow(beginning.service) {
        return Decision::Drop(Counter::DropQuota);
    }
    if beginning.sent == Sent::Tunnelled {
        return tunnel::begin(tables, tuple, beginning, to);
    }
    let snat = if beginning.is_snat() { flags::SNAT } else { 0 };
    let nested = if beginning.nested { flags::NESTED } else { 0 };
    let opening = if beginning.opens && !source_changes::<F>(tuple, to) {
        flags::OPENING
    } else {
        0
    };
    let mut state = F::State::new(
        tuple.reversed(),
        beginning.service,
        beginning.backend,
        beginning.now_secs,
        snat | opening | nested | flags::REPLY,
    );
    // The answer's tuple must be no other flow's. The client's own port is tried first, unless it would mix with
    // this node's.
    let mut answer = to.reversed();
    let range = PortRange::of(tables);
    let random = tables.random();
    for attempt in 0..PORT_TRIES {
        if attempt != 0 || beginning.is_snat() {
            answer.set_dport(range.candidate(random, attempt));
        }
        match tables.claim(&answer, &state) {
            Inserted::Done => {
                to.set_sport(answer.dport());
                state.redirect(to, snat);
                return match tables.put_flow(tuple, &state) {
                    Inserted::Done | Inserted::Taken => Decision::Rewrite(Kind::New),
                    Inserted::Full => Decision::Drop(Counter::DropFlowsFull),
                };
            }
            Inserted::Taken => {}
            Inserted::Full => return Decision::Drop(Counter::DropFlowsFull),
        }
    }
    Decision::Drop(Counter::DropSnatExhausted)
}

/// Writes the entry of a flow's answers, unless their tuple is that of another flow that has not ended. Called through
/// [`Tables::claim`].
#[inline(always)]
pub fn claim<F: Family, T: Tables<F>>(tables: &T, answer: &F::Flow, state: &F::State) -> Inserted {
    match tables.claim_flow(answer, state) {
        Inserted::Taken => match tables.known(answer) {
            Some(other)
                if other.flags() & flags::CLOSING != 0
                    || other.to().is(state.to()) && other.flags() & flags::TAKEN == 0
                    || is_vain(tables, answer, other, state.last_seen_secs()) =>
            {
                tables.put_flow(answer, state)
            }
            Some(_) | None => Inserted::Taken,
        },
        inserted => inserted,
    }
}

/// How long a connection may be begun before its tuple is another one's, in seconds: longer than it takes to send the first
/// packet again.
const OPENING_SECS: u32 = 5;

/// Whether the flow of an entry of answers is a connection that was begun a while ago, and never more than that.
#[inline(always)]
fn is_vain<F: Family, T: Tables<F>>(
    tables: &T,
    answer: &F::Flow,
    state: &F::State,
    now_secs: u32,
) -> bool {
    answer.proto() == protocol::TCP
        && is_young(state.flags())
        && now_secs.wrapping_sub(state.last_seen_secs()) >= OPENING_SECS
        && match tables.known(&state.to().reversed()) {
            Some(asked) => is_young(asked.flags()),
            None => true,
        }
}

#[cfg(test)]
mod tests;
