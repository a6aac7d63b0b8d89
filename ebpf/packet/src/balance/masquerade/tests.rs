//! Pods' packets to the outside, over tables in memory.

use abi::{Flow4, FlowState4, NodeConfig};

use super::super::{balance, reply};
use super::*;
use crate::model::Model;
use crate::{Fragment, V4, V6, parse};

const POD: [u8; 4] = [10, 244, 1, 7];
const OUTSIDE: [u8; 4] = [203, 0, 113, 9];
const NODE: [u8; 4] = [192, 0, 2, 1];

fn range(addr: [u8; 4], bits: u32, flags: u32) -> (InsideKey, u32) {
    let key = InsideKey {
        prefix_len: FAMILY_BITS + bits,
        ..key::<V4>(addr)
    };
    (key, flags)
}

/// A node whose ports are few.
fn model(last_port: u16) -> Model {
    Model {
        node: NodeConfig {
            addr4: NODE,
            snat_port_min: 61_000.into(),
            snat_port_max: last_port.into(),
            ..NodeConfig::default()
        },
        inside: vec![
            range([192, 0, 2, 2], 32, 0),
            range([10, 244, 1, 0], 24, PODS_HERE),
            range([10, 244, 0, 0], 16, 0),
        ],
        ..Model::default()
    }
}

fn headers(tuple: Flow4, tcp_flags: u8) -> Headers<V4> {
    let transport = match tuple.proto {
        abi::protocol::TCP => Transport::Tcp,
        abi::protocol::SCTP => Transport::Sctp,
        abi::protocol::UDP => Transport::Udp,
        parse::ICMP => Transport::Icmp,
        _ => Transport::Other,
    };
    Headers {
        fault: Fault::None,
        l4: 34,
        bytes: 40,
        tuple,
        transport,
        tcp_flags,
        ..Headers::unread(14)
    }
}

fn flow(from: ([u8; 4], u16), to: ([u8; 4], u16), proto: u8) -> Flow4 {
    Flow4::new(from.0, to.0, from.1.into(), to.1.into(), proto)
}

/// What becomes of a packet where it leaves by a node device.
fn send(model: &Model, tuple: Flow4, tcp_flags: u8) -> (Decision, Flow4) {
    let mut to = tuple;
    let mut headers = headers(tuple, tcp_flags);
    let known = reply::<V4, _>(model, &mut headers, &mut to);
    if known != Decision::Pass {
        return (known, to);
    }
    (leave::<V4, _>(model, &headers, &mut to), to)
}

/// What becomes of a packet where it arrives.
fn receive(model: &Model, place: Place, tuple: Flow4, tcp_flags: u8) -> (Decision, Flow4) {
    let mut to = tuple;
    let decision = balance::<V4, _>(model, place, 2, &mut headers(tuple, tcp_flags), &mut to);
    (decision, to)
}

const NEW: Decision = Decision::Rewrite(Kind::New);
const FORWARD: Decision = Decision::Rewrite(Kind::Forward);
const REPLY: Decision = Decision::Rewrite(Kind::Reply);
const PASS: Decision = Decision::Pass;
const TCP: u8 = abi::protocol::TCP;
const UDP: u8 = abi::protocol::UDP;
const SCTP: u8 = abi::protocol::SCTP;

#[test]
fn what_a_pod_begins_leaves_with_the_node_s_address_and_comes_back() {
    for (proto, opens, goes_on) in [(TCP, tcp::SYN, tcp::ACK), (UDP, 0, 0), (SCTP, tcp::SYN, 0)] {
        let model = model(62_000);
        let asked = flow((POD, 4000), (OUTSIDE, 443), proto);
        let (decision, to) = send(&model, asked, opens);
        assert_eq!(decision, NEW);
        assert_eq!((to.saddr, to.daddr, to.dport), (NODE, OUTSIDE, asked.dport));
        assert!((61_000..=62_000).contains(&to.sport.get()));
        assert_eq!(send(&model, asked, goes_on), (FORWARD, to));
        // At the pod's link it is as the pod sent it.
        let at_link = receive(&model, Place::Pod, asked, goes_on);
        assert_eq!(at_link, (PASS, asked), "{proto}");
        for place in [Place::Device, Place::Wire] {
            let answer = receive(&model, place, to.reversed(), tcp::ACK);
            assert_eq!(answer, (REPLY, asked.reversed()), "{proto}");
            let given = receive(&model, place, asked.reversed(), tcp::ACK);
            assert_eq!(given, (PASS, asked.reversed()), "translated once");
        }
    }
}

#[test]
fn what_stays_inside_or_is_not_a_pod_s_keeps_its_source() {
    let model = model(62_000);
    for (from, to) in [
        (POD, [10, 244, 1, 8]),
        (POD, [10, 244, 2, 9]),
        (POD, [192, 0, 2, 2]),
        (POD, [224, 0, 0, 251]),
        (POD, [127, 0, 0, 1]),
        (NODE, OUTSIDE),
        ([10, 244, 2, 9], OUTSIDE),
        ([172, 16, 0, 1], OUTSIDE),
    ] {
        let tuple = flow((from, 4000), (to, 443), TCP);
        assert_eq!(send(&model, tuple, tcp::SYN), (PASS, tuple));
    }
    let other = flow((POD, 0), (OUTSIDE, 0), 47);
    assert_eq!(send(&model, other, 0), (PASS, other));
    let mut broken = headers(flow((POD, 4000), (OUTSIDE, 443), TCP), tcp::SYN);
    broken.fault = Fault::Truncated;
    assert_eq!(leave::<V4, _>(&model, &broken, &mut { broken.tuple }), PASS);
    assert!(model.flows.borrow().is_empty());
}

#[test]
fn who_asks_from_outside_is_answered_by_the_pod() {
    let model = model(62_000);
    let answer = flow((POD, 8080), (OUTSIDE, 40_000), TCP);
    assert_eq!(send(&model, answer, tcp::SYN | tcp::ACK), (PASS, answer));
    // What follows is known by that.
    for _ in 0..2 {
        assert_eq!(send(&model, answer, tcp::ACK), (REPLY, answer));
    }
    // Of what is older than that, the lower port is the server's.
    let older = flow((POD, 8080), (OUTSIDE, 40_001), TCP);
    assert_eq!(send(&model, older, tcp::ACK), (PASS, older));
    let forgotten = flow((POD, 40_000), (OUTSIDE, 443), TCP);
    assert_eq!(send(&model, forgotten, tcp::ACK).0, NEW);
}

#[test]
fn who_asks_by_datagrams_is_answered_by_the_pod() {
    for (proto, opens) in [(UDP, 0), (SCTP, tcp::SYN)] {
        let model = model(62_000);
        let asked = flow((OUTSIDE, 4000), (POD, 40_000), proto);
        let note = |tuple, flags| note_asked::<V4, _>(&model, &headers(tuple, flags));
        for flags in [opens, 0] {
            assert_eq!(receive(&model, Place::Device, asked, flags), (PASS, asked));
            note(asked, flags);
            let answer = asked.reversed();
            assert_eq!(send(&model, answer, 0), (REPLY, answer), "{proto}");
        }
        // What the pod asks of the same host is another conversation.
        let other = flow((POD, 40_001), (OUTSIDE, 4000), proto);
        assert_eq!(send(&model, other, opens).0, NEW);
        let known = model.flows.borrow().len();
        note(other.reversed(), opens);
        // Nobody asks from inside, the node itself, or another node's pod.
        note(flow(([10, 244, 2, 9], 4000), (POD, 40_000), proto), opens);
        note(flow((OUTSIDE, 4000), (NODE, 40_000), proto), opens);
        note(
            flow((OUTSIDE, 4000), ([10, 244, 2, 9], 40_000), proto),
            opens,
        );
        assert_eq!(model.flows.borrow().len(), known);
    }
}

#[test]
fn questions_that_a_pod_does_not_answer_leave_young_entries() {
    let model = model(62_000);
    let asked = flow((OUTSIDE, 4000), (POD, 53), UDP);
    let is_young = || {
        let flows = model.flows.borrow();
        flows
            .values()
            .all(|state| super::super::is_young(state.flags))
    };
    for _ in 0..3 {
        note_asked::<V4, _>(&model, &headers(asked, 0));
    }
    assert!(is_young());
    assert_eq!(send(&model, asked.reversed(), 0).0, REPLY);
    assert!(!is_young());
}

#[test]
fn a_port_taken_again_begins_anew() {
    let model = model(62_000);
    let asked = flow((POD, 4000), (OUTSIDE, 443), TCP);
    let (_, first) = send(&model, asked, tcp::SYN);
    assert_eq!(
        send(&model, asked, tcp::SYN),
        (FORWARD, first),
        "asked twice"
    );
    assert_eq!(send(&model, asked, tcp::FIN | tcp::ACK), (FORWARD, first));
    assert_eq!(send(&model, asked, tcp::ACK), (FORWARD, first));
    let (decision, second) = send(&model, asked, tcp::SYN);
    assert_eq!(decision, NEW);
    assert_eq!(send(&model, asked, tcp::ACK), (FORWARD, second));
    // Its answers are somebody else's by now.
    let taken: &'static FlowState4 = Box::leak(Box::new(FlowState4 {
        to: flow((OUTSIDE, 443), ([10, 244, 1, 8], 9), TCP),
        service: 0,
        backend: 0,
        last_seen_secs: 0,
        flags: flags::REPLY | flags::SNAT,
    }));
    let key = zerocopy::IntoBytes::as_bytes(&second.reversed()).to_vec();
    model.flows.borrow_mut().insert(key, taken);
    let (decision, third) = send(&model, asked, tcp::SYN);
    assert_eq!((decision, third == second), (NEW, false));
}

#[test]
fn ports_that_are_used_up_are_dropped() {
    let model = model(61_003);
    let mut seen = Vec::new();
    for port in 1..=4 {
        let (decision, to) = send(&model, flow((POD, port), (OUTSIDE, 443), UDP), 0);
        assert_eq!(decision, NEW);
        assert!(!seen.contains(&to.sport), "a port for each");
        seen.push(to.sport);
    }
    let one_more = flow((POD, 5), (OUTSIDE, 443), UDP);
    let exhausted = Decision::Drop(Counter::DropSnatExhausted);
    assert_eq!(send(&model, one_more, 0).0, exhausted);
    let elsewhere = flow((POD, 5), (OUTSIDE, 444), UDP);
    assert_eq!(
        send(&model, elsewhere, 0).0,
        NEW,
        "each host and port has them all"
    );
}

#[test]
fn a_node_without_an_address_says_so() {
    let model = Model {
        node: NodeConfig::default(),
        ..model(62_000)
    };
    let asked = flow((POD, 4000), (OUTSIDE, 443), TCP);
    let (decision, _) = send(&model, asked, tcp::SYN);
    assert_eq!(decision, Decision::Drop(Counter::DropNoNodeAddress));
}

/// A service whose backend is outside: the answers are translated twice.
#[test]
fn answers_that_are_a_service_s_too_are_told_apart() {
    let model = model(62_000);
    let behind = flow((POD, 4000), (OUTSIDE, 443), TCP);
    let answer = FlowState4 {
        to: flow(([10, 96, 0, 1], 80), (POD, 4000), TCP),
        service: 1,
        backend: 1,
        last_seen_secs: 0,
        flags: flags::REPLY,
    };
    Tables::<V4>::put_flow(&model, &behind.reversed(), &answer);
    let (decision, to) = send(&model, behind, tcp::SYN);
    assert_eq!(decision, NEW);
    let nested = Decision::Rewrite(Kind::Nested);
    let came = receive(&model, Place::Device, to.reversed(), tcp::ACK);
    assert_eq!(came, (nested, behind.reversed()));
}

#[test]
fn an_echo_is_a_conversation() {
    let message = |kind: u8, first: u8| {
        let mut bytes = vec![0; 34];
        bytes.extend([kind, 0, 0xaa, 0xaa, first, 0x34, 0, 1]);
        bytes
    };
    let read = |bytes: &[u8], from, to| {
        let mut headers = headers(flow((from, 0), (to, 0), parse::ICMP), 0);
        headers.tuple.proto = 0;
        let echo = echo::<V4, _>(bytes, &mut headers);
        (echo, headers)
    };
    let (echo_sent, asked) = read(&message(8, 0x12), POD, OUTSIDE);
    assert_eq!(echo_sent, Some(Echo::Request));
    assert_eq!(asked.tuple.sport.get(), 0x1234);
    assert_eq!(u16::from_be(identifier::<V4>(&asked.tuple)), 0x1234);
    let model = model(62_000);
    let mut to = asked.tuple;
    assert_eq!(leave::<V4, _>(&model, &asked, &mut to), NEW);
    assert_eq!((to.saddr, to.dport.get()), (NODE, 0));
    let mut again = asked.tuple;
    assert_eq!(leave::<V4, _>(&model, &asked, &mut again), FORWARD);
    assert_eq!(again, to);

    let [a, b] = to.sport.to_bytes();
    let mut answer = message(0, 0);
    answer[38..40].copy_from_slice(&[a, b]);
    let (echo_received, answered) = read(&answer, OUTSIDE, NODE);
    assert_eq!(echo_received, Some(Echo::Reply));
    let mut given = answered.tuple;
    assert_eq!(arrive::<V4, _>(&model, &answered, &mut given), REPLY);
    assert_eq!(given, asked.tuple.reversed());
    let (_, others) = read(&message(0, 0x12), OUTSIDE, NODE);
    assert_eq!(arrive::<V4, _>(&model, &others, &mut given), PASS);

    for kind in 0..=255 {
        let (found, _) = read(&message(kind, 1), POD, OUTSIDE);
        assert_eq!(found.is_some(), kind == 8 || kind == 0, "type {kind}");
        assert_eq!(echo_of::<V6>(kind).is_some(), matches!(kind, 128 | 129));
    }
    for len in 34..42 {
        assert_eq!(read(&message(8, 1)[..len], POD, OUTSIDE).0, None);
    }
}

#[test]
fn fragments_follow_the_first() {
    let model = model(62_000);
    let tuple = flow((POD, 4000), (OUTSIDE, 53), UDP);
    let mut first = headers(tuple, 0);
    first.fragment = Fragment::First;
    first.fragment_id.id = [1, 2, 0, 0];
    let mut to = tuple;
    assert_eq!(leave::<V4, _>(&model, &first, &mut to), NEW);
    let mut later = Headers {
        transport: Transport::Elsewhere,
        fragment: Fragment::Later,
        tuple: Flow4::new(POD, OUTSIDE, 0.into(), 0.into(), 0),
        ..first
    };
    let mut given = later.tuple;
    assert_eq!(reply::<V4, _>(&model, &mut later, &mut given), FORWARD);
    assert_eq!(given, to);
}
