//! Conversations between pods, packet by packet.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

use abi::{Flow4, FlowState4};
use zerocopy::IntoBytes as _;

use super::*;
use crate::V4;

const NODE_ADDR: [u8; 4] = [192, 0, 2, 1];
const CLIENT: [u8; 4] = [10, 0, 0, 1];
const SERVER: [u8; 4] = [10, 0, 0, 2];
const OTHER: [u8; 4] = [10, 0, 0, 3];
const CLIENT_LINK: u32 = 11;
const SERVER_LINK: u32 = 12;
const EPOCH: u32 = 3;

const SYN: u8 = tcp::SYN;
const ACK: u8 = tcp::ACK;

#[derive(Default)]
struct Tables {
    control: PolicyControl,
    links: BTreeMap<u32, PolicyLink>,
    peers: BTreeMap<[u8; 4], u32>,
    verdicts: BTreeMap<PolicyVerdictKey, u32>,
    ports: Vec<(u32, u8, u16)>,
    flows: RefCell<BTreeMap<Vec<u8>, Conversation>>,
    now_secs: Cell<u32>,
    asked: Cell<u32>,
    /// Whether what passed is remembered.
    remembers: bool,
    passed: RefCell<BTreeSet<Remembered>>,
    answers: RefCell<Vec<PolicyAnswer>>,
}

/// A conversation as its pod's packets have it, a link, and a generation.
type Remembered = (Vec<u8>, u32, u32);

fn remembered(tuple: &Flow4, seen: &Seen) -> Remembered {
    let key = match seen.side {
        Side::Egress => *tuple,
        Side::Ingress => tuple.reversed(),
    };
    (key.as_bytes().to_vec(), seen.link, seen.generation)
}

impl Policies<V4> for Tables {
    fn control(&self) -> Option<&PolicyControl> {
        Some(&self.control)
    }
    fn link(&self, key: &PolicyLinkKey) -> Option<&PolicyLink> {
        assert_eq!(key.epoch, EPOCH);
        self.links.get(&key.ifindex)
    }
    fn peer(&self, key: &PolicyPeerKey) -> u32 {
        assert_eq!((key.epoch, key.prefix_len), (EPOCH, 160));
        assert_eq!(key.addr[..12], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
        let [.., a, b, c, d] = key.addr;
        self.peers.get(&[a, b, c, d]).copied().unwrap_or_default()
    }
    fn verdict(&self, key: &PolicyVerdictKey) -> Option<u32> {
        self.asked.set(self.asked.get() + 1);
        self.verdicts.get(key).copied()
    }
    fn port(&self, key: &PolicyPortKey) -> bool {
        self.ports
            .contains(&(key.profile, key.proto, key.port.get()))
    }
    fn conversation(&self, key: &Flow4) -> Option<Conversation> {
        self.flows.borrow().get(key.as_bytes()).copied()
    }
    fn keep_conversation(&self, key: &Flow4, conversation: &Conversation) {
        let key = key.as_bytes().to_vec();
        self.flows.borrow_mut().insert(key, *conversation);
    }
    fn policy_secs(&self) -> u32 {
        self.now_secs.get()
    }
    fn has_passed(&self, tuple: &Flow4, seen: &Seen, tcp_flags: u8) -> bool {
        let passed = remembered(tuple, seen);
        if opens::<V4>(tuple, tcp_flags) {
            self.passed.borrow_mut().remove(&passed);
        }
        self.passed.borrow().contains(&passed)
    }
    fn remember_passed(&self, tuple: &Flow4, seen: &Seen) {
        self.passed.borrow_mut().insert(remembered(tuple, seen));
    }
    fn lets_pass(&self, asked: &PolicyAnswer, epoch: u32, side: Side, remembers: bool) -> bool {
        lets_pass::<V4, _>(self, asked, epoch, side, remembers)
    }
    fn is_answered(&self, asked: &PolicyAnswer) -> bool {
        self.answers.borrow().contains(asked)
    }
    fn remember_answer(&self, answer: &PolicyAnswer) {
        self.answers.borrow_mut().push(*answer);
    }
}

/// The server lets the client in at TCP 80 and UDP 53; the client may begin nothing but that.
fn tables() -> Tables {
    let mut tables = Tables {
        control: PolicyControl {
            flags: flags::ENFORCED | flags::UNKNOWN_CLOSED,
            epoch: EPOCH,
            generation: 1,
            _pad: 0,
        },
        ..Tables::default()
    };
    let closed = PolicyLink::default();
    tables.links.insert(
        CLIENT_LINK,
        PolicyLink {
            egress: 20,
            ..closed
        },
    );
    tables.links.insert(
        SERVER_LINK,
        PolicyLink {
            ingress: 21,
            ..closed
        },
    );
    tables.peers.insert(CLIENT, 30);
    tables.peers.insert(SERVER, 31);
    tables.peers.insert(NODE_ADDR, NODE | 32);
    let verdict = |set, identity| PolicyVerdictKey { set, identity };
    tables.verdicts.insert(verdict(20, 31), 40);
    tables.verdicts.insert(verdict(21, 30), 40);
    tables.ports = vec![(40, TCP, 80), (40, UDP, 53)];
    tables
}

fn flow(from: ([u8; 4], u16), to: ([u8; 4], u16), proto: u8) -> Flow4 {
    Flow4::new(from.0, to.0, from.1.into(), to.1.into(), proto)
}

fn at(tables: &Tables, side: Side, ifindex: u32, flow: &Flow4, flags: u8) -> Result<(), Counter> {
    judge::<V4, _>(tables, side, ifindex, flow, flags, tables.remembers).map(drop)
}

const OUT: Side = Side::Egress;
const IN: Side = Side::Ingress;
const NO_IN: Result<(), Counter> = Err(Counter::DropPolicyIngress);
const NO_OUT: Result<(), Counter> = Err(Counter::DropPolicyEgress);

#[test]
fn what_may_begin_goes_on_in_both_directions() {
    let tables = tables();
    let ask = flow((CLIENT, 40_000), (SERVER, 80), TCP);
    let answer = ask.reversed();
    for (side, link, flow, flags) in [
        (OUT, CLIENT_LINK, &ask, SYN),
        (IN, SERVER_LINK, &ask, SYN),
        (OUT, SERVER_LINK, &answer, SYN | ACK),
        (IN, CLIENT_LINK, &answer, SYN | ACK),
        (OUT, CLIENT_LINK, &ask, ACK),
        (IN, SERVER_LINK, &ask, ACK),
    ] {
        assert_eq!(
            at(&tables, side, link, flow, flags),
            Ok(()),
            "{side:?} {link} {flow:?}"
        );
    }
    assert_eq!(tables.asked.get(), 2, "each end was asked once");
    assert_eq!(
        tables.flows.borrow().len(),
        1,
        "one entry for both ends and directions"
    );
    // The server begins nothing by what it may answer.
    assert_eq!(
        at(&tables, OUT, SERVER_LINK, &answer, SYN),
        Ok(()),
        "its policies say nothing of that"
    );
    assert_eq!(
        at(&tables, IN, CLIENT_LINK, &answer, SYN),
        Ok(()),
        "nor the client's of what comes"
    );
}

#[test]
fn what_passed_is_remembered_until_a_change() {
    let mut tables = tables();
    tables.remembers = true;
    let ask = |port| flow((CLIENT, port), (SERVER, 80), TCP);
    for port in [40_000, 40_001] {
        for (side, link) in [(OUT, CLIENT_LINK), (IN, SERVER_LINK)] {
            assert_eq!(at(&tables, side, link, &ask(port), SYN), Ok(()));
        }
    }
    assert_eq!(tables.asked.get(), 2, "each end was asked once");
    // What passed a moment ago is not looked up, in either direction.
    let (there, back) = (ask(40_000), ask(40_000).reversed());
    tables.flows.borrow_mut().clear();
    tables.now_secs.set(1000);
    for (side, link, flow) in [
        (OUT, CLIENT_LINK, &there),
        (IN, SERVER_LINK, &there),
        (OUT, SERVER_LINK, &back),
        (IN, CLIENT_LINK, &back),
    ] {
        assert_eq!(at(&tables, side, link, flow, ACK), Ok(()), "{side:?}");
    }
    assert_eq!(tables.flows.borrow().len(), 0);
    // It passed at its own links, from their own pods.
    assert_eq!(at(&tables, IN, SERVER_LINK, &back, ACK), NO_IN);
    let unknown = Err(Counter::DropPolicyUnknown);
    assert_eq!(at(&tables, OUT, 14, &there, ACK), unknown);
    // A change meets it, and what was answered.
    tables.control.generation = 2;
    tables.verdicts.clear();
    assert_eq!(at(&tables, OUT, CLIENT_LINK, &there, ACK), NO_OUT);
    assert_eq!(at(&tables, OUT, CLIENT_LINK, &ask(40_002), SYN), NO_OUT);
}

#[test]
fn who_opens_a_connection_is_asked_whatever_is_remembered() {
    let mut tables = tables();
    tables.remembers = true;
    tables.links.insert(
        CLIENT_LINK,
        PolicyLink {
            egress: 20,
            ingress: 22,
            ..PolicyLink::default()
        },
    );
    let ask = flow((CLIENT, 40_000), (SERVER, 80), TCP);
    assert_eq!(at(&tables, OUT, CLIENT_LINK, &ask, SYN), Ok(()));
    assert_eq!(at(&tables, IN, CLIENT_LINK, &ask.reversed(), ACK), Ok(()));
    assert_eq!(
        at(&tables, IN, CLIENT_LINK, &ask.reversed(), SYN),
        NO_IN,
        "the server may begin nothing"
    );
    assert_eq!(at(&tables, OUT, CLIENT_LINK, &ask, ACK), Ok(()));
}

#[test]
fn an_answer_to_the_node_opens_nothing_to_it() {
    let mut tables = tables();
    tables.remembers = true;
    let to_node = flow((SERVER, 80), (NODE_ADDR, 40_000), UDP);
    tables.links.insert(
        SERVER_LINK,
        PolicyLink {
            ingress: 21,
            egress: 20,
            ..PolicyLink::default()
        },
    );
    assert_eq!(at(&tables, OUT, SERVER_LINK, &to_node, 0), Ok(()));
    assert_eq!(tables.answers.borrow().len(), 0);
}

#[test]
fn what_may_not_begin_does_not() {
    let tables = tables();
    for (side, link, flow, flags, expected) in [
        (
            OUT,
            CLIENT_LINK,
            flow((CLIENT, 40_000), (SERVER, 81), TCP),
            SYN,
            NO_OUT,
        ),
        (
            OUT,
            CLIENT_LINK,
            flow((CLIENT, 40_000), (OTHER, 80), TCP),
            SYN,
            NO_OUT,
        ),
        (
            OUT,
            CLIENT_LINK,
            flow((CLIENT, 40_000), (SERVER, 80), UDP),
            0,
            NO_OUT,
        ),
        (
            OUT,
            CLIENT_LINK,
            flow((CLIENT, 40_000), (SERVER, 53), UDP),
            0,
            Ok(()),
        ),
        (
            OUT,
            CLIENT_LINK,
            flow((CLIENT, 0), (SERVER, 0), 0),
            0,
            NO_OUT,
        ),
        (
            IN,
            SERVER_LINK,
            flow((OTHER, 40_000), (SERVER, 80), TCP),
            SYN,
            NO_IN,
        ),
        (
            IN,
            SERVER_LINK,
            flow((CLIENT, 40_000), (SERVER, 8080), TCP),
            SYN,
            NO_IN,
        ),
        (
            IN,
            SERVER_LINK,
            flow((CLIENT, 40_000), (SERVER, 8080), TCP),
            ACK,
            NO_IN,
        ),
        (
            IN,
            SERVER_LINK,
            flow((CLIENT, 80), (SERVER, 40_000), TCP),
            ACK,
            NO_IN,
        ),
        (
            IN,
            SERVER_LINK,
            flow((CLIENT, 40_000), (SERVER, 80), SCTP),
            0,
            NO_IN,
        ),
        (IN, SERVER_LINK, flow((OTHER, 0), (SERVER, 0), 0), 0, NO_IN),
        (
            OUT,
            SERVER_LINK,
            flow((SERVER, 0), (OTHER, 0), 0),
            0,
            Ok(()),
        ),
        (
            IN,
            SERVER_LINK,
            flow((SERVER, 9), (SERVER, 9), UDP),
            0,
            Ok(()),
        ),
    ] {
        assert_eq!(
            at(&tables, side, link, &flow, flags),
            expected,
            "{side:?} {flow:?} {flags:#x}"
        );
    }
}

#[test]
fn answers_to_what_a_pod_began_come_in() {
    let tables = tables();
    for (proto, flags) in [(TCP, SYN), (UDP, 0), (0, 0)] {
        let ask = flow((SERVER, 45_000), (OTHER, 443), proto);
        let answer = ask.reversed();
        assert_eq!(
            at(&tables, IN, SERVER_LINK, &answer, ACK),
            NO_IN,
            "nobody asked"
        );
        assert_eq!(at(&tables, OUT, SERVER_LINK, &ask, flags), Ok(()));
        assert_eq!(at(&tables, IN, SERVER_LINK, &answer, ACK), Ok(()));
        if proto == TCP {
            assert_eq!(
                at(&tables, IN, SERVER_LINK, &answer, SYN),
                NO_IN,
                "that is no answer"
            );
        }
        tables.now_secs.set(tables.now_secs.get() + IDLE_SECS + 1);
        let late = if proto == TCP { Ok(()) } else { NO_IN };
        assert_eq!(
            at(&tables, IN, SERVER_LINK, &answer, ACK),
            late,
            "after a while"
        );
    }
}

#[test]
fn a_change_is_asked_about_once() {
    let mut tables = tables();
    let ask = flow((CLIENT, 40_000), (SERVER, 80), TCP);
    assert_eq!(at(&tables, IN, SERVER_LINK, &ask, SYN), Ok(()));
    tables.control.generation = 2;
    assert_eq!(at(&tables, IN, SERVER_LINK, &ask, ACK), Ok(()));
    assert_eq!(at(&tables, IN, SERVER_LINK, &ask, ACK), Ok(()));
    assert_eq!(tables.asked.get(), 2);
    tables.ports.clear();
    assert_eq!(
        at(&tables, IN, SERVER_LINK, &ask, ACK),
        Ok(()),
        "nobody said so yet"
    );
    tables.control.generation = 3;
    assert_eq!(
        at(&tables, IN, SERVER_LINK, &ask, ACK),
        NO_IN,
        "a connection that stands"
    );
    let answer = ask.reversed();
    assert_eq!(
        at(&tables, OUT, SERVER_LINK, &answer, ACK),
        NO_IN,
        "in both directions"
    );
}

#[test]
fn what_is_older_than_the_policies_goes_on() {
    let mut tables = tables();
    tables.now_secs.set(100);
    let until = |tables: &mut Tables, secs| {
        let link = tables.links.get_mut(&SERVER_LINK).unwrap();
        link.adopt_until_secs = secs;
    };
    let download = flow((OTHER, 443), (SERVER, 45_000), TCP);
    assert_eq!(at(&tables, IN, SERVER_LINK, &download, ACK), NO_IN);
    until(&mut tables, 160);
    assert_eq!(
        at(&tables, IN, SERVER_LINK, &download, ACK),
        Ok(()),
        "the pod is its client"
    );
    let served = flow((OTHER, 45_000), (SERVER, 8080), TCP);
    assert_eq!(
        at(&tables, IN, SERVER_LINK, &served, ACK),
        NO_IN,
        "the pod is its server"
    );
    assert_eq!(
        at(&tables, OUT, SERVER_LINK, &served.reversed(), ACK),
        NO_IN
    );
    let new = flow((OTHER, 443), (SERVER, 45_001), TCP);
    assert_eq!(
        at(&tables, IN, SERVER_LINK, &new, SYN),
        NO_IN,
        "that begins"
    );
    // What was forgotten goes on when the pod speaks, for ever.
    tables.flows.borrow_mut().clear();
    tables.now_secs.set(1000);
    assert_eq!(at(&tables, IN, SERVER_LINK, &download, ACK), NO_IN);
    assert_eq!(
        at(&tables, OUT, SERVER_LINK, &download.reversed(), ACK),
        Ok(())
    );
    assert_eq!(at(&tables, IN, SERVER_LINK, &download, ACK), Ok(()));
}

#[test]
fn links_without_policies_and_unknown_ones() {
    let mut tables = tables();
    let free = 13;
    tables.links.insert(free, PolicyLink::default());
    let ask = flow((OTHER, 40_000), (SERVER, 80), TCP);
    let no = Err(Counter::DropPolicyUnknown);
    assert_eq!(at(&tables, OUT, free, &ask, SYN), Ok(()));
    assert_eq!(tables.flows.borrow().len(), 0, "not followed");
    assert_eq!(at(&tables, OUT, 14, &ask, SYN), no);
    assert_eq!(at(&tables, IN, 14, &ask, SYN), no);
    let to_node = flow((OTHER, 40_000), (NODE_ADDR, 80), TCP);
    assert_eq!(
        at(&tables, OUT, 14, &to_node, ACK),
        Ok(()),
        "its node may ask it"
    );
    assert_eq!(at(&tables, OUT, CLIENT_LINK, &to_node, SYN), Ok(()));
    let from_node = to_node.reversed();
    assert_eq!(
        at(&tables, IN, SERVER_LINK, &from_node, SYN),
        NO_IN,
        "who says it is the node may lie"
    );
    assert!(limits_egress::<V4, _>(&tables, CLIENT_LINK) && limits_egress::<V4, _>(&tables, 14));
    assert!(!limits_egress::<V4, _>(&tables, SERVER_LINK));
    tables.control.flags = flags::ENFORCED;
    assert_eq!(at(&tables, IN, 14, &ask, SYN), Ok(()));
    tables.control.flags = 0;
    assert_eq!(at(&tables, OUT, CLIENT_LINK, &ask, SYN), Ok(()));
    assert!(!limits_egress::<V4, _>(&tables, CLIENT_LINK));
}

#[test]
fn a_closed_set_lets_nothing_pass() {
    let mut tables = tables();
    tables.links.insert(
        SERVER_LINK,
        PolicyLink {
            ingress: CLOSED,
            ..PolicyLink::default()
        },
    );
    let ask = flow((CLIENT, 40_000), (SERVER, 80), TCP);
    assert_eq!(at(&tables, IN, SERVER_LINK, &ask, SYN), NO_IN);
}

#[test]
fn both_directions_have_one_key() {
    let (a, b) = ([10, 0, 0, 1], [10, 0, 0, 2]);
    for (from, to) in [
        ((a, 1), (b, 2)),
        ((b, 1), (a, 2)),
        ((a, 2), (a, 1)),
        ((a, 7), (b, 7)),
    ] {
        let there = flow(from, to, TCP);
        let (key, second) = ordered::<V4>(&there);
        assert_eq!(ordered::<V4>(&there.reversed()), (key, 1 - second));
    }
    // One table holds both families' tuples in their own forms; a state of a flow is none of a conversation.
    assert_eq!(size_of::<Conversation>(), 16);
    assert_ne!(size_of::<FlowState4>(), size_of::<Conversation>());
}
