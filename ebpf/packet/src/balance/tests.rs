//! Flows in tables in memory.

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

#[test]
fn a_service_at_its_bound_begins_no_flow_and_keeps_those_that_it_has() {
    let mut model = model(0);
    for frontend in model.frontends.values_mut().take(1) {
        frontend.flags = LIMITED;
    }
    model.room.set(Some(2));
    let new = Decision::Rewrite(Kind::New);
    let full = Decision::Drop(Counter::DropQuota);
    for (sport, expected) in [(1, new), (2, new), (3, full)] {
        let tuple = tuple(9, sport, 1);
        assert_eq!(
            send(&model, Place::Pod, tuple, tcp::SYN).0,
            expected,
            "{sport}"
        );
    }
    let known = send(&model, Place::Pod, tuple(9, 1, 1), tcp::ACK).0;
    assert_eq!(known, Decision::Rewrite(Kind::Forward));
    let other = send(&model, Place::Pod, tuple(9, 3, 2), tcp::SYN).0;
    assert_eq!(other, new, "another service has no bound");
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
    Tables::<V4>::flow(model, &to.reversed(), 0).is_some_and(|answer| answer.to == tuple.reversed())
}

/// A connection with the backend itself has no entry. The backend answers a SYN of the same ports with an ACK.
#[test]
fn a_service_s_flow_leaves_its_port_to_a_connection_that_had_it() {
    let model = model(0);
    let place = Place::Pod;
    let service = tuple(100, 1000, 1);
    let (_, first) = send(&model, place, service, tcp::SYN);
    let back = |tuple: Flow4, flags| send(&model, place, tuple.reversed(), flags).0;
    assert_eq!(
        back(first, tcp::ACK),
        Decision::Pass,
        "the other connection's"
    );
    assert_eq!(back(first, tcp::SYN | tcp::ACK), Decision::Pass, "for good");
    assert_eq!(
        send(&model, place, first, tcp::ACK),
        (Decision::Pass, first),
        "which goes on"
    );
    let (kind, again) = send(&model, place, service, tcp::SYN);
    assert_eq!(kind, Decision::Rewrite(Kind::New));
    let same_backend = Flow4 {
        sport: again.sport,
        ..first
    };
    if again == same_backend {
        assert_ne!(again.sport, first.sport);
    }
    assert_eq!(back(again, tcp::SYN | tcp::ACK), Decision::Answer);
    assert_eq!(back(again, tcp::ACK), Decision::Answer);
    assert_eq!(back(first, tcp::ACK), Decision::Pass);
    // Once it has ended, its port is anybody's.
    back(first, tcp::FIN | tcp::ACK);
    for sport in 1000..1100 {
        let (_, to) = send(&model, place, tuple(100, sport, 2), tcp::SYN);
        assert_eq!(to.sport.get(), sport);
    }
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

#[test]
fn a_port_of_a_connection_that_nobody_answers_is_another_s_after_a_while() {
    let begun = Decision::Rewrite(Kind::New);
    let none = Decision::Drop(Counter::DropSnatExhausted);
    for goes_on in [false, true] {
        let mut model = model(0);
        model.node.snat_port_max = model.node.snat_port_min;
        for frontend in model.frontends.values_mut() {
            // The one backend of another node.
            frontend.ring_offset += 2;
            frontend.ring_len = 1;
        }
        let from = |client: u8, flags| {
            let tuple = Flow4 {
                saddr: [198, 51, 100, client],
                ..tuple(0, 2000, 1)
            };
            send(&model, Place::Device, tuple, flags).0
        };
        assert_eq!(from(1, tcp::SYN), begun);
        if goes_on {
            from(1, tcp::ACK);
        }
        assert_eq!(from(2, tcp::SYN), none, "the port is the first one's");
        model.now_secs.set(OPENING_SECS);
        let later = if goes_on { none } else { begun };
        assert_eq!(from(2, tcp::SYN), later, "goes on: {goes_on}");
        if !goes_on {
            assert_eq!(from(1, tcp::SYN), none, "the port is the second one's now");
        }
    }
}

proptest! {
    /// Whatever a table says of a packet's tuple and of the reversed one.
    #[test]
    fn one_look_says_what_a_closer_one_says(
        entries in proptest::collection::vec(
            (any::<bool>(), any::<u32>(), 0u32..4, prop_oneof![Just(0u32), 10u32..14]),
            0..3,
        ),
        is_udp in any::<bool>(),
        tcp_flags in any::<u8>(),
        service in 0u8..5,
        whole_address in any::<bool>(),
        now_secs in 0u32..3,
    ) {
        let mut model = model(0);
        if whole_address {
            let address = [10, 96, 0, service];
            let key = V4::frontend_key(address, U16::ZERO, WHOLE_ADDRESS, Scope::Any);
            let key = zerocopy::IntoBytes::as_bytes(&key).to_vec();
            model.frontends.insert(key, ONE);
        }
        model.now_secs.set(now_secs);
        let mut tuple = tuple(100, 1000, service);
        let mut headers = headers(tuple, tcp_flags);
        if is_udp {
            tuple.proto = protocol::UDP;
            headers = Headers { tuple, transport: Transport::Udp, tcp_flags: 0, ..headers };
        }
        for (is_own, flags, service, backend) in entries {
            let to = Flow4 { sport: 61_000.into(), ..tuple };
            let state = abi::FlowState4::new(to, service, backend, 0, flags);
            let key = if is_own { tuple } else { tuple.reversed() };
            model.put_flow(&key, &state);
        }
        let mut to = tuple;
        let decided = known::decide(&model, IFINDEX, &headers, &mut to);
        if let Some(decided) = decided {
            let mut closer = tuple;
            let decision = balance(&model, Place::Wire, IFINDEX, &mut headers, &mut closer);
            prop_assert_eq!((decided, to), (decision, closer));
        }
    }
}

#[test]
fn one_look_is_enough_for_a_flow_that_goes_on_and_for_what_is_not_ours() {
    let model = model(0);
    let decide = |tuple, flags| {
        let mut to = tuple;
        known::decide(&model, IFINDEX, &headers(tuple, flags), &mut to)
    };
    let ours = tuple(100, 1000, 1);
    assert_eq!(decide(ours, tcp::SYN), None, "a flow begins");
    send(&model, Place::Wire, ours, tcp::SYN);
    assert_eq!(decide(ours, tcp::SYN), None, "or is asked for again");
    let forward = Decision::Rewrite(Kind::Forward);
    assert_eq!(decide(ours, tcp::ACK), Some(forward));
    let other = tuple(100, 1000, 9);
    for flags in [tcp::SYN, tcp::ACK] {
        assert_eq!(decide(other, flags), Some(Decision::Pass));
    }
}
