//! What to do with a packet: find its flow, or choose a backend and begin one.

use abi::flows::flags::{self, CHECKED_AT};
use abi::frontends::flags::{CHECK_SOURCE, DROP, HASHED, HOST_ONLY};
use abi::{
    AffinityKey, BackendId, Counter, FragmentKey, FragmentPorts, Frontend, Scope, ServiceId,
    affinity, backends,
};

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

/// Decisions as numbers, for functions that the kernel's verifier walks by themselves: those return numbers alone.
pub mod code {
    use abi::Counter;

    use super::{Decision, Kind};

    /// [`Decision::Pass`].
    pub const PASS: u32 = 0;
    /// [`Decision::Answer`].
    pub const ANSWER: u32 = 1;
    /// [`Decision::Refuse`].
    pub const REFUSE: u32 = 2;
    /// [`Decision::Rewrite`], of each kind.
    pub const NEW: u32 = 3;
    /// As [`NEW`].
    pub const FORWARD: u32 = 4;
    /// As [`NEW`].
    pub const REPLY: u32 = 5;
    /// As [`NEW`].
    pub const CHECKED: u32 = 6;
    /// No decision of these: the packet was given its new tuple before, as with [`CHECKED`].
    pub const DONE: u32 = 7;
    /// [`Decision::Drop`] begins here, plus the counter.
    pub const DROP: u32 = 16;

    /// The number of a decision.
    #[inline(always)]
    #[must_use]
    pub const fn of(decision: Decision) -> u32 {
        match decision {
            Decision::Pass => PASS,
            Decision::Answer => ANSWER,
            Decision::Refuse => REFUSE,
            Decision::Rewrite(Kind::New) => NEW,
            Decision::Rewrite(Kind::Forward) => FORWARD,
            Decision::Rewrite(Kind::Reply) => REPLY,
            Decision::Rewrite(Kind::Checked) => CHECKED,
            Decision::Drop(counter) => DROP + counter as u32,
        }
    }

    /// The decision on beginning a flow that a number stands for; there are no other ones.
    #[inline(always)]
    #[must_use]
    pub const fn beginning(code: u32) -> Decision {
        const NO_NODE_ADDRESS: u32 = DROP + Counter::DropNoNodeAddress as u32;
        const FLOWS_FULL: u32 = DROP + Counter::DropFlowsFull as u32;
        const SNAT_EXHAUSTED: u32 = DROP + Counter::DropSnatExhausted as u32;
        const NO_LOCAL_ENDPOINT: u32 = DROP + Counter::DropNoLocalEndpoint as u32;
        const SOURCE: u32 = DROP + Counter::DropSource as u32;
        match code {
            PASS => Decision::Pass,
            NEW => Decision::Rewrite(Kind::New),
            REFUSE => Decision::Refuse,
            NO_NODE_ADDRESS => Decision::Drop(Counter::DropNoNodeAddress),
            FLOWS_FULL => Decision::Drop(Counter::DropFlowsFull),
            SNAT_EXHAUSTED => Decision::Drop(Counter::DropSnatExhausted),
            NO_LOCAL_ENDPOINT => Decision::Drop(Counter::DropNoLocalEndpoint),
            SOURCE => Decision::Drop(Counter::DropSource),
            _ => Decision::Drop(Counter::DropNoBackend),
        }
    }
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
    let closing = headers.tcp_flags & (tcp::FIN | tcp::RST) != 0;
    if let Some(state) = tables.flow(&headers.tuple, closing) {
        if state.flags() & flags::REPLY != 0 {
            // Hairpins and answers to our own address do not go through this node's routing.
            let here = state.flags() & flags::SNAT != 0
                || place == Place::Pod && bounces::<F>(&headers.tuple, state.to());
            *to = *state.to();
            if !here {
                return Decision::Answer;
            }
            return rewrite(tables, headers, to, Kind::Reply);
        }
        if state.service() == DIRECT && behind_xdp() {
            return Decision::Pass;
        }
        if stays(tables, headers, state) {
            *to = *state.to();
            let checked = flags::checked_at(ifindex);
            let kind =
                if place != Place::Pod && state.flags() & CHECKED_AT == checked && checked != 0 {
                    Kind::Checked
                } else {
                    Kind::Forward
                };
            return rewrite(tables, headers, to, kind);
        }
        was_direct = state.service() == DIRECT;
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
        snat: false,
    };
    let begun = match found {
        Some(frontend) => {
            beginning.service = frontend.service;
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

/// Decides on a packet on its way to a client: only the answers of known flows are touched. For headers and `to`
/// see [`balance`].
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
    let closing = headers.tcp_flags & (tcp::FIN | tcp::RST) != 0;
    match tables.flow(&headers.tuple, closing) {
        Some(state) if state.flags() & flags::REPLY != 0 => {
            *to = *state.to();
            rewrite(tables, headers, to, Kind::Reply)
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

/// Remembers the ports of a packet's first fragment for the later ones.
#[inline(never)]
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
        keep_fragment(tables, headers);
    }
    Decision::Rewrite(kind)
}

/// Whether a packet of a known flow goes on to the flow's backend, or chooses anew.
#[inline(always)]
fn stays<F: Family, T: Tables<F>>(tables: &T, headers: &Headers<F>, state: &F::State) -> bool {
    if matches!(headers.transport, Transport::Tcp | Transport::Sctp) {
        let opens = headers.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN;
        // A client that takes a port again may have ended the flow before, and its answers may be another's since.
        !opens
            || state.flags() & flags::CLOSING == 0
                && serves(tables, state)
                && hears(tables, &headers.tuple, state)
    } else {
        serves(tables, state)
    }
}

/// Whether a packet that may begin a conversation has the tuple that a service's flow has behind its translation.
#[inline(always)]
fn mixes<F: Family, T: Tables<F>>(tables: &T, headers: &Headers<F>) -> bool {
    let begins = match headers.transport {
        Transport::Tcp | Transport::Sctp => headers.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN,
        Transport::Udp => true,
        Transport::Icmp | Transport::Elsewhere | Transport::Other => false,
    };
    begins
        && match tables.flow(&headers.tuple.reversed(), false) {
            Some(state) => state.flags() & (flags::REPLY | flags::SNAT) == flags::REPLY,
            None => false,
        }
}

/// Whether the answers of a flow still come back to it.
#[inline(never)]
fn hears<F: Family, T: Tables<F>>(tables: &T, tuple: &F::Flow, state: &F::State) -> bool {
    match tables.flow(&state.to().reversed(), false) {
        Some(answer) => answer.to().is(&tuple.reversed()),
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
    snat: bool,
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
    let random = if frontend.flags & HASHED == 0 {
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
            saddr = match tables.node().and_then(F::node_address) {
                Some(addr) => addr,
                None => return Decision::Drop(Counter::DropNoNodeAddress),
            };
            beginning.snat = true;
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
    let snat = if beginning.snat { flags::SNAT } else { 0 };
    let mut state = F::State::new(
        tuple.reversed(),
        beginning.service,
        beginning.backend,
        beginning.now_secs,
        snat | flags::REPLY,
    );
    // The answer's tuple must be no other flow's. The client's own port is tried first, unless it would mix with
    // this node's.
    let mut answer = to.reversed();
    let range = PortRange::of(tables);
    let random = tables.random();
    for attempt in 0..PORT_TRIES {
        if attempt != 0 || beginning.snat {
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
        Inserted::Taken => match tables.flow(answer, false) {
            Some(other) if other.to().is(state.to()) || other.flags() & flags::CLOSING != 0 => {
                tables.put_flow(answer, state)
            }
            Some(_) | None => Inserted::Taken,
        },
        inserted => inserted,
    }
}

#[cfg(test)]
mod tests {
    use abi::{Backend, Flow4, NodeConfig};
    use proptest::prelude::*;

    use super::*;
    use crate::V4;
    use crate::model::Model;
    use crate::parse::FragmentId;

    const NODE: [u8; 4] = [192, 0, 2, 1];
    const IFINDEX: u32 = 2;

    /// Services 1 to 3 at 10.96.0.n:80, all with the same three backends 10.244.0.n:8080, of which the last is on
    /// another node.
    fn model(affinity_secs: u32) -> Model {
        let mut model = Model {
            node: NodeConfig {
                addr4: NODE,
                snat_port_min: 61_000.into(),
                snat_port_max: 62_000.into(),
                ..NodeConfig::default()
            },
            ..Model::default()
        };
        for service in 1..=3u8 {
            let key = V4::frontend_key([10, 96, 0, service], 80.into(), 6, Scope::Any);
            let ring_offset = u32::from(service) * 10;
            let frontend = Frontend {
                service: service.into(),
                ring_offset,
                ring_len: 3,
                affinity_secs,
                flags: 0,
            };
            let key = zerocopy::IntoBytes::as_bytes(&key).to_vec();
            model.frontends.insert(key, frontend);
            for n in 0..3u8 {
                let mut addr = [0; 16];
                addr[..4].copy_from_slice(&[10, 244, 0, n + 1]);
                let id = ring_offset + u32::from(n);
                let backend = Backend {
                    addr,
                    port: 8080.into(),
                    family: abi::family::V4,
                    flags: if n < 2 { backends::flags::LOCAL } else { 0 },
                    service: service.into(),
                };
                model.slots.insert(id, id);
                model.backends.insert(id, backend);
            }
        }
        model
    }

    fn headers(tuple: Flow4, tcp_flags: u8) -> Headers<V4> {
        Headers {
            fault: Fault::None,
            l3: 14,
            l4: 34,
            bytes: 40,
            tuple,
            transport: Transport::Tcp,
            tcp_flags,
            ttl: 64,
            fragment: Fragment::Whole,
            fragment_id: FragmentId {
                id: [0; 4],
                proto: 6,
            },
        }
    }

    fn tuple(client: u8, sport: u16, service: u8) -> Flow4 {
        Flow4::new(
            [10, 244, 0, client],
            [10, 96, 0, service],
            sport.into(),
            80.into(),
            6,
        )
    }

    fn send(model: &Model, place: Place, tuple: Flow4, flags: u8) -> (Decision, Flow4) {
        let mut to = tuple;
        let decision = balance(model, place, IFINDEX, &mut headers(tuple, flags), &mut to);
        (decision, to)
    }

    proptest! {
        /// Whatever flows there are, each keeps its backend, no two look the same to a backend, and each answer
        /// finds its own way back.
        #[test]
        fn flows_never_mix(
            sent in proptest::collection::vec((1u8..6, 1000u16..1003, 1u8..4, any::<bool>()), 1..60),
            seed in any::<u32>(),
        ) {
            let model = model(0);
            model.seed.set(seed);
            let mut known: Vec<(Flow4, Flow4, Place)> = Vec::new();
            for (client, sport, service, outside) in sent {
                // A client is in one place only.
                let place = if outside { Place::Device } else { Place::Pod };
                let client = if outside { client + 100 } else { client };
                let tuple = tuple(client, sport, service);
                let (decision, to) = send(&model, place, tuple, tcp::ACK);
                match known.iter().find(|(from, ..)| *from == tuple) {
                    Some((_, before, _)) => {
                        prop_assert_eq!(decision, Decision::Rewrite(Kind::Forward));
                        prop_assert_eq!(to, *before);
                    }
                    None => {
                        prop_assert_eq!(decision, Decision::Rewrite(Kind::New));
                        prop_assert!(known.iter().all(|(_, other, _)| *other != to));
                        known.push((tuple, to, place));
                    }
                }
            }
            for (from, to, place) in known {
                let mut shown = to.reversed();
                let mut answer = headers(to.reversed(), tcp::ACK);
                let decision = if source_changes::<V4>(&from, &to) {
                    balance(&model, place, IFINDEX, &mut answer, &mut shown)
                } else {
                    reply(&model, &mut answer, &mut shown)
                };
                prop_assert_eq!(decision, Decision::Rewrite(Kind::Reply));
                prop_assert_eq!(shown, from.reversed());
            }
        }

        #[test]
        fn translated_ports_lie_in_their_range(first in 1u16.., len in any::<u16>(), random in any::<u32>()) {
            let last = first.saturating_add(len);
            let range = PortRange::new(first, last);
            for attempt in 0..PORT_TRIES {
                prop_assert!((first..=last).contains(&range.candidate(random, attempt).get()));
            }
        }
    }

    #[test]
    fn a_source_is_translated_only_where_the_answer_would_not_come_back() {
        let model = model(0);
        for sport in 1000..1100 {
            let (_, to) = send(&model, Place::Device, tuple(100, sport, 1), tcp::SYN);
            let local = to.daddr != [10, 244, 0, 3];
            assert_eq!(to.saddr, if local { [10, 244, 0, 100] } else { NODE });
            assert_eq!((61_000..=62_000).contains(&to.sport.get()), !local);
            let (_, to) = send(&model, Place::Pod, tuple(50, sport, 1), tcp::SYN);
            assert_eq!(to.saddr, [10, 244, 0, 50]);
        }
    }

    /// The frontend of service 1 changed, seen from inside and, where that is `Some`, from outside.
    fn with_frontend(any: Frontend, external: Option<Frontend>) -> Model {
        let mut model = model(0);
        for (scope, frontend) in [(Scope::Any, Some(any)), (Scope::External, external)] {
            let key = V4::frontend_key([10, 96, 0, 1], 80.into(), 6, scope);
            let key = zerocopy::IntoBytes::as_bytes(&key).to_vec();
            if let Some(frontend) = frontend {
                model.frontends.insert(key, frontend);
            }
        }
        model
    }

    const ONE: Frontend = Frontend {
        service: 1,
        ring_offset: 10,
        ring_len: 3,
        affinity_secs: 0,
        flags: 0,
    };

    #[test]
    fn a_policy_that_leaves_no_endpoint_drops_those_outside_only() {
        let none = Frontend {
            ring_len: 0,
            flags: DROP,
            ..ONE
        };
        let model = with_frontend(ONE, Some(none));
        let dropped = Decision::Drop(Counter::DropNoLocalEndpoint);
        for (place, sport, expected) in [
            (Place::Pod, 1000, Decision::Rewrite(Kind::New)),
            (Place::Device, 1001, dropped),
            (Place::Wire, 1002, dropped),
        ] {
            let (decision, _) = send(&model, place, tuple(100, sport, 1), tcp::SYN);
            assert_eq!(decision, expected, "{place:?}");
        }
        let model = with_frontend(none, None);
        let (decision, _) = send(&model, Place::Pod, tuple(100, 1000, 1), tcp::SYN);
        assert_eq!(decision, dropped, "internalTrafficPolicy");
        let model = with_frontend(Frontend { flags: 0, ..none }, None);
        let (decision, _) = send(&model, Place::Device, tuple(100, 1000, 1), tcp::SYN);
        assert_eq!(decision, Decision::Refuse);
    }

    #[test]
    fn only_admitted_clients_begin_flows() {
        let restricted = Frontend {
            flags: CHECK_SOURCE,
            ..ONE
        };
        let mut model = with_frontend(restricted, None);
        model.admitted = vec![V4::source_key(1, [10, 244, 0, 100])];
        for place in [Place::Pod, Place::Device, Place::Wire] {
            let (decision, _) = send(&model, place, tuple(100, 1000, 1), tcp::SYN);
            assert!(matches!(decision, Decision::Rewrite(_)), "{place:?}");
            let (decision, _) = send(&model, place, tuple(101, 1000, 1), tcp::SYN);
            assert_eq!(decision, Decision::Drop(Counter::DropSource), "{place:?}");
        }
    }

    #[test]
    fn a_loopback_frontend_is_no_packet_s() {
        let model = with_frontend(
            Frontend {
                flags: HOST_ONLY,
                ..ONE
            },
            None,
        );
        for place in [Place::Pod, Place::Device, Place::Wire] {
            let (decision, _) = send(&model, place, tuple(100, 1000, 1), tcp::SYN);
            assert_eq!(decision, Decision::Pass, "{place:?}");
        }
    }

    #[test]
    fn a_client_with_affinity_stays_until_its_time_is_over_or_its_backend_gone() {
        let mut model = model(10);
        let first = send(&model, Place::Pod, tuple(50, 1000, 1), tcp::SYN)
            .1
            .daddr;
        for sport in 1001..1050 {
            model.now_secs.set(model.now_secs.get() + 9);
            let to = send(&model, Place::Pod, tuple(50, sport, 1), tcp::SYN).1;
            assert_eq!(to.daddr, first, "every use prolongs it");
        }
        model.now_secs.set(model.now_secs.get() + 10);
        let mut later: Vec<_> = Vec::new();
        for sport in 2000..2030 {
            later.push(
                send(&model, Place::Pod, tuple(50, sport, 1), tcp::SYN)
                    .1
                    .daddr,
            );
            model.now_secs.set(model.now_secs.get() + 10);
        }
        assert!(later.iter().any(|daddr| *daddr != first), "it ends");

        let bound = send(&model, Place::Pod, tuple(50, 3000, 1), tcp::SYN)
            .1
            .daddr;
        let gone = model
            .backends
            .iter()
            .find(|(id, backend)| **id < 20 && backend.addr[..4] == bound);
        let gone = *gone.expect("the backend that was chosen").0;
        model.backends.remove(&gone);
        let others: Vec<_> = (10..13).filter(|id| *id != gone).collect();
        for (slot, id) in (10..13).zip(others.iter().cycle()) {
            model.slots.insert(slot, *id);
        }
        let to = send(&model, Place::Pod, tuple(50, 3001, 1), tcp::SYN).1;
        assert_ne!(to.daddr, bound);
    }

    #[test]
    fn a_port_taken_again_after_its_flow_ended_is_a_new_flow() {
        let model = model(0);
        let tuple = tuple(50, 1000, 1);
        let kinds: Vec<_> = [
            tcp::SYN,
            tcp::ACK,
            tcp::SYN,
            tcp::FIN | tcp::ACK,
            tcp::ACK,
            tcp::SYN,
        ]
        .map(|flags| send(&model, Place::Pod, tuple, flags).0)
        .into();
        let (new, forward) = (
            Decision::Rewrite(Kind::New),
            Decision::Rewrite(Kind::Forward),
        );
        assert_eq!(kinds, [new, forward, forward, forward, forward, new]);
    }

    #[test]
    fn a_port_that_was_used_directly_serves_a_service_again() {
        let model = model(0);
        let place = Place::Pod;
        let service = tuple(100, 1000, 1);
        let (_, first) = send(&model, place, service, tcp::SYN);
        // The client ends the flow one-sidedly, then talks to the backend itself from the same port.
        send(&model, place, first.reversed(), tcp::RST);
        let (_, direct) = send(&model, place, first, tcp::SYN);
        assert_eq!(direct, first, "the port is free again");
        let (_, again) = send(&model, place, service, tcp::SYN);
        assert!(
            hears_model(&model, service, again),
            "answers go to the service's flow"
        );
        // And the other way round: a direct conversation takes the place of an earlier one on its port.
        let (_, later) = send(&model, place, first, tcp::SYN);
        assert!(hears_model(&model, first, later));
    }

    fn hears_model(model: &Model, tuple: Flow4, to: Flow4) -> bool {
        Tables::<V4>::flow(model, &to.reversed(), false)
            .is_some_and(|answer| answer.to == tuple.reversed())
    }

    #[test]
    fn a_direct_conversation_does_not_mix_with_a_service_s_unless_xdp_made_it() {
        for (place, xdp, told) in [
            (Place::Pod, true, true),
            (Place::Wire, true, true),
            (Place::Device, false, true),
            (Place::Device, true, false),
        ] {
            let model = Model { xdp, ..model(0) };
            // Backends of this node only.
            let to = (1000..)
                .map(|sport| send(&model, place, tuple(100, sport, 1), tcp::SYN).1)
                .find(|to| to.saddr != NODE);
            let seen = to.expect("one of three is chosen sooner or later");
            let (decision, direct) = send(&model, place, seen, tcp::SYN);
            if told {
                assert_eq!(decision, Decision::Rewrite(Kind::New), "{place:?}");
                assert_ne!(direct.sport, seen.sport, "{place:?}");
                let later = send(&model, place, seen, tcp::ACK);
                assert_eq!(later, (Decision::Rewrite(Kind::Forward), direct));
            } else {
                assert_eq!((decision, direct), (Decision::Pass, seen), "{place:?}");
            }
        }
    }
}
