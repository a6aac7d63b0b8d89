//! Small worlds with everything in them: three namespaces of three pods, as the upstream suites have them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use model::policy::{
    Action, Labels, Namespaces, Node, Peer, Peers, Pod, PodKey, Policy, PolicyKey, Port, Ports,
    Requirement, Rule, Selection, Selector, Tier, World,
};
use model::{Protocol, Range};
use proptest::prelude::*;

pub(crate) const NAMESPACES: [&str; 3] = ["x", "y", "z"];
pub(crate) const PODS: [&str; 3] = ["a", "b", "c"];
pub(crate) const NODE: &str = "192.0.2.1";

pub(crate) fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

pub(crate) fn pod_key(namespace: &str, name: &str) -> PodKey {
    PodKey {
        namespace: namespace.into(),
        name: name.into(),
    }
}

pub(crate) fn addr(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn range(text: &str) -> Range {
    text.parse().unwrap()
}

/// Nine pods of two addresses; those of "x" and "y" are here. Pods "a" call port 80 "http", "b" call 81 so. Two other
/// nodes.
pub(crate) fn world() -> World {
    let mut world = World::default();
    for (n, namespace) in NAMESPACES.into_iter().enumerate() {
        world.namespaces.insert(
            namespace.into(),
            labels(&[
                ("ns", namespace),
                ("kubernetes.io/metadata.name", namespace),
            ]),
        );
        for (p, pod) in PODS.into_iter().enumerate() {
            let number = 80 + p as u16;
            world.pods.insert(
                pod_key(namespace, pod),
                Pod {
                    created: 1,
                    labels: labels(&[
                        ("pod", pod),
                        ("tier", if p == 0 { "front" } else { "back" }),
                    ]),
                    addresses: vec![
                        addr(&format!("10.0.{n}.{}", p + 1)),
                        addr(&format!("fd00::{n}:{}", p + 1)),
                    ],
                    local: n < 2,
                    named_ports: if p < 2 {
                        vec![
                            ("http".into(), Protocol::Tcp, number),
                            ("dns".into(), Protocol::Udp, 53),
                        ]
                    } else {
                        Vec::new()
                    },
                },
            );
        }
    }
    for (name, tier, addresses) in [
        ("a", "front", ["10.0.9.9", "fd00::9"]),
        ("b", "back", ["8.8.8.8", "2001:db8::1"]),
    ] {
        let node = Node {
            labels: labels(&[("tier", tier)]),
            addresses: addresses.map(addr).to_vec(),
        };
        world.nodes.insert(name.into(), node);
    }
    world
}

/// The links of the pods that are here.
pub(crate) fn links(world: &World) -> BTreeMap<IpAddr, u32> {
    let local = world.pods.iter().filter(|(_, pod)| pod.local);
    (10..)
        .zip(local)
        .flat_map(|(ifindex, (_, pod))| pod.addresses.iter().map(move |addr| (*addr, ifindex)))
        .collect()
}

/// Addresses of all kinds.
pub(crate) fn remotes(world: &World) -> Vec<IpAddr> {
    let mut remotes: Vec<IpAddr> = world
        .pods
        .values()
        .flat_map(|pod| pod.addresses.clone())
        .collect();
    remotes.extend(
        [
            "10.0.0.0",
            "10.0.9.9",
            "8.8.8.8",
            "fd00::9",
            "2001:db8::1",
            "::1",
            "255.255.255.255",
        ]
        .map(addr),
    );
    remotes
}

pub(crate) fn selector() -> impl Strategy<Value = Selector> {
    let key = prop::sample::select(vec![
        "pod",
        "ns",
        "tier",
        "kubernetes.io/metadata.name",
        "none",
    ])
    .prop_map(str::to_owned);
    let value = prop::sample::select(vec!["a", "b", "c", "x", "y", "front", "back"])
        .prop_map(str::to_owned);
    let values = prop::collection::vec(value, 1..4);
    let requirement = (key, values, 0..10).prop_map(|(key, values, kind)| match kind {
        0..5 => Requirement::In(key, values),
        5..7 => Requirement::NotIn(key, values),
        7 => Requirement::Exists(key),
        8 => Requirement::Absent(key),
        _ => Requirement::Never,
    });
    prop::collection::vec(requirement, 0..3).prop_map(Selector)
}

fn a_range() -> impl Strategy<Value = Range> {
    prop::sample::select(vec![
        "0.0.0.0/0",
        "::/0",
        "10.0.0.0/8",
        "10.0.0.0/16",
        "10.0.0.0/24",
        "10.0.1.0/24",
        "10.0.0.1/32",
        "10.0.1.2/32",
        "10.0.0.0/30",
        "fd00::/8",
        "fd00::/64",
        "fd00::1:0/112",
        "fd00::1:2/128",
        "8.8.0.0/16",
        "::ffff:10.0.0.0/104",
    ])
    .prop_map(range)
}

fn peer() -> impl Strategy<Value = Peer> {
    let one =
        prop::sample::select(NAMESPACES.to_vec()).prop_map(|name| Namespaces::One(name.into()));
    let namespaces = prop_oneof![one, selector().prop_map(Namespaces::Matching)];
    let pods = (namespaces, selector())
        .prop_map(|(namespaces, pods)| Peer::Pods(Selection { namespaces, pods }));
    let block = (a_range(), prop::collection::vec(a_range(), 0..3))
        .prop_map(|(range, except)| Peer::Block { range, except });
    prop_oneof![3 => pods, 2 => block, 1 => selector().prop_map(Peer::Nodes)]
}

pub(crate) fn protocol() -> impl Strategy<Value = Protocol> {
    prop::sample::select(vec![Protocol::Tcp, Protocol::Udp, Protocol::Sctp])
}

fn port() -> impl Strategy<Value = Port> {
    let number = prop::sample::select(vec![1_u16, 53, 79, 80, 81, 82, 443, 8080, 65535]);
    let name: Vec<Arc<str>> = vec!["http".into(), "dns".into(), "nobody".into()];
    prop_oneof![
        (protocol(), number.clone()).prop_map(|(protocol, port)| Port::Range(protocol, port, port)),
        (protocol(), number.clone(), number).prop_map(|(protocol, a, b)| Port::Range(
            protocol,
            a.min(b),
            a.max(b)
        )),
        protocol().prop_map(|protocol| Port::Range(protocol, 0, u16::MAX)),
        (prop::option::of(protocol()), prop::sample::select(name))
            .prop_map(|(protocol, name)| Port::Named(protocol, name)),
    ]
}

fn rule(actions: Vec<Action>) -> impl Strategy<Value = Rule> {
    let peers = prop_oneof![
        1 => Just(Peers::All),
        4 => prop::collection::vec(peer(), 0..4).prop_map(Peers::Some),
    ];
    let ports = prop_oneof![
        2 => Just(Ports::All),
        3 => prop::collection::vec(port(), 0..4).prop_map(Ports::Some),
    ];
    (prop::sample::select(actions), peers, ports).prop_map(|(action, peers, ports)| Rule {
        action,
        peers,
        ports,
    })
}

fn policy(namespaced: bool) -> BoxedStrategy<Policy> {
    let actions = if namespaced {
        vec![Action::Accept]
    } else {
        vec![Action::Accept, Action::Deny, Action::Pass]
    };
    let rules = || prop::option::of(prop::collection::vec(rule(actions.clone()), 0..4));
    let tier = if namespaced {
        Just(Tier::Namespace).boxed()
    } else {
        prop_oneof![
            (0..3_u32).prop_map(Tier::Admin),
            (0..3_u32).prop_map(Tier::Baseline)
        ]
        .boxed()
    };
    (tier, selector(), selector(), rules(), rules(), any::<u64>())
        .prop_map(
            move |(tier, namespaces, pods, ingress, egress, mark)| Policy {
                mark,
                tier,
                subject: Selection {
                    namespaces: Namespaces::Matching(namespaces),
                    pods,
                },
                ingress,
                egress,
            },
        )
        .boxed()
}

/// Policies under a few names, so that histories meet them again.
pub(crate) fn named_policy() -> impl Strategy<Value = (PolicyKey, Policy)> {
    let names = prop::sample::select(vec!["p", "q", "r"]);
    prop_oneof![
        2 => (prop::sample::select(NAMESPACES.to_vec()), names.clone(), policy(true)).prop_map(|(namespace, name, mut policy)| {
            policy.subject.namespaces = Namespaces::One(namespace.into());
            (PolicyKey::Namespaced(namespace.into(), name.into()), policy)
        }),
        1 => (names, policy(false)).prop_map(|(name, policy)| (PolicyKey::Cluster(name.into()), policy)),
    ]
}

pub(crate) fn selection(namespaces: Namespaces, pairs: &[(&str, &str)]) -> Selection {
    let pods = pairs
        .iter()
        .map(|(key, value)| Requirement::In((*key).to_owned(), vec![(*value).to_owned()]));
    Selection {
        namespaces,
        pods: Selector(pods.collect()),
    }
}

/// A NetworkPolicy of namespace "x".
pub(crate) fn of_x(
    name: &str,
    pods: &[(&str, &str)],
    ingress: Option<Vec<Rule>>,
    egress: Option<Vec<Rule>>,
) -> (PolicyKey, Policy) {
    let policy = Policy {
        mark: name.len() as u64,
        tier: Tier::Namespace,
        subject: selection(Namespaces::One("x".into()), pods),
        ingress,
        egress,
    };
    (PolicyKey::Namespaced("x".into(), name.into()), policy)
}
