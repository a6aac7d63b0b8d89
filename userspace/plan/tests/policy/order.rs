//! Histories of changes: after each the tables say what the rules say; between any two steps a conversation is let
//! through only if it was before, or is afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use model::Protocol;
use model::policy::{Direction, Labels, Policy, PolicyKey, World};
use plan::policy::{Inputs, PolicyLimits, PolicyPlanner, PolicyTables};
use proptest::prelude::*;

use super::reference::{self, Spoken};
use super::worlds::{self, labels, pod_key};

const SPOKEN: [Spoken; 10] = [
    Spoken::Port(Protocol::Tcp, 79),
    Spoken::Port(Protocol::Tcp, 80),
    Spoken::Port(Protocol::Tcp, 81),
    Spoken::Port(Protocol::Tcp, 443),
    Spoken::Port(Protocol::Udp, 53),
    Spoken::Port(Protocol::Udp, 80),
    Spoken::Port(Protocol::Sctp, 80),
    Spoken::Port(Protocol::Sctp, 9000),
    Spoken::Port(Protocol::Tcp, 65535),
    Spoken::Other,
];

#[derive(Clone, Debug)]
enum Change {
    Policy(PolicyKey, Policy),
    NoPolicy(PolicyKey),
    Labels(usize, usize, Labels),
    Namespace(usize, Labels),
    PodGone(usize, usize),
    PodBack(usize, usize),
    /// Another process takes over from what the kernel holds.
    Restart,
}

fn change() -> impl Strategy<Value = Change> {
    let some_labels = prop::sample::select(vec![
        labels(&[("pod", "a")]),
        labels(&[("pod", "b"), ("tier", "front")]),
        labels(&[]),
    ]);
    let some_ns = prop::sample::select(vec![
        labels(&[("ns", "x")]),
        labels(&[("ns", "z")]),
        labels(&[]),
    ]);
    prop_oneof![
        6 => worlds::named_policy().prop_map(|(key, policy)| Change::Policy(key, policy)),
        2 => worlds::named_policy().prop_map(|(key, _)| Change::NoPolicy(key)),
        3 => (0..3_usize, 0..3_usize, some_labels).prop_map(|(n, p, labels)| Change::Labels(n, p, labels)),
        1 => (0..3_usize, some_ns).prop_map(|(n, labels)| Change::Namespace(n, labels)),
        1 => (0..3_usize, 0..3_usize).prop_map(|(n, p)| Change::PodGone(n, p)),
        1 => (0..3_usize, 0..3_usize).prop_map(|(n, p)| Change::PodBack(n, p)),
        1 => Just(Change::Restart),
    ]
}

/// Everything that anybody may ask of the tables.
type Answers = BTreeMap<(u32, Direction, IpAddr, usize), bool>;

fn ask(tables: &PolicyTables, links: &BTreeMap<IpAddr, u32>, remotes: &[IpAddr]) -> Answers {
    let mut answers = Answers::new();
    for ifindex in links.values() {
        for direction in Direction::BOTH {
            for remote in remotes {
                for (at, spoken) in SPOKEN.into_iter().enumerate() {
                    let (proto, port) = spoken.numbers();
                    let passes = tables.lets_begin(*ifindex, direction, *remote, proto, port);
                    answers.insert((*ifindex, direction, *remote, at), passes);
                }
            }
        }
    }
    answers
}

fn expected(world: &World, links: &BTreeMap<IpAddr, u32>, remotes: &[IpAddr]) -> Answers {
    let mut answers = Answers::new();
    for (addr, ifindex) in links {
        let owner = world
            .pods
            .iter()
            .find(|(_, pod)| pod.local && pod.addresses.contains(addr));
        for direction in Direction::BOTH {
            for remote in remotes {
                for (at, spoken) in SPOKEN.into_iter().enumerate() {
                    let passes = match owner {
                        Some((pod, _)) => {
                            reference::lets_begin(world, pod, direction, *remote, spoken)
                        }
                        None => world.policies.is_empty(), // nobody's link
                    };
                    answers.insert((*ifindex, direction, *remote, at), passes);
                }
            }
        }
    }
    answers
}

fn apply(world: &mut World, change: &Change) {
    let key = |n: &usize, p: &usize| pod_key(worlds::NAMESPACES[*n], worlds::PODS[*p]);
    match change {
        Change::Policy(key, policy) => drop(world.policies.insert(key.clone(), policy.clone())),
        Change::NoPolicy(key) => drop(world.policies.remove(key)),
        Change::Labels(n, p, labels) => {
            if let Some(pod) = world.pods.get_mut(&key(n, p)) {
                pod.labels.clone_from(labels);
            }
        }
        Change::Namespace(n, labels) => {
            world
                .namespaces
                .insert(worlds::NAMESPACES[*n].into(), labels.clone());
        }
        Change::PodGone(n, p) => drop(world.pods.remove(&key(n, p))),
        Change::PodBack(n, p) => {
            let pod = worlds::world().pods.remove(&key(n, p)).unwrap();
            world.pods.insert(key(n, p), pod);
        }
        Change::Restart => {}
    }
}

fn run(changes: &[Change], limits: PolicyLimits, exact: bool) {
    let mut world = worlds::world();
    let links = worlds::links(&world);
    let remotes = worlds::remotes(&world);
    let node = [worlds::addr(worlds::NODE)];
    let mut kernel = PolicyTables::default();
    let mut planner = PolicyPlanner::new(kernel.clone(), limits);
    let mut before = ask(&kernel, &links, &remotes);
    for (turn, change) in changes.iter().enumerate() {
        apply(&mut world, change);
        if matches!(change, Change::Restart) {
            planner = PolicyPlanner::new(kernel.clone(), limits);
        }
        let inputs = Inputs {
            world: &world,
            links: &links,
            host_links: &BTreeMap::new(),
            open: &BTreeSet::new(),
            node: &node,
            now_secs: turn as u32,
            unix_secs: 7,
        };
        let plan = planner.plan(&inputs);
        let after = expected(&world, &links, &remotes);
        for step in &plan.steps {
            kernel.apply(step);
            assert!(kernel.peers.len() <= limits.peers && kernel.verdicts.len() <= limits.verdicts);
            assert!(kernel.ports.len() <= limits.ports && kernel.links.len() <= limits.links);
            if exact {
                for (question, passes) in ask(&kernel, &links, &remotes) {
                    let meant = [before[&question], after[&question]];
                    assert!(
                        meant.contains(&passes),
                        "{question:?} {meant:?} in {change:?} at {step:?}"
                    );
                }
            }
        }
        let mut found = ask(&kernel, &links, &remotes);
        for (question, passes) in &found {
            if exact {
                assert_eq!(
                    *passes, after[question],
                    "{question:?} after {change:?} in {world:?}"
                );
            } else {
                assert!(
                    !*passes || after[question],
                    "{question:?}: what has no room is closed"
                );
            }
        }
        if !exact && plan.problems.is_empty() {
            assert_eq!(found, after, "nothing is closed without a word");
        }
        for step in planner.garbage() {
            kernel.apply(&step);
        }
        assert_eq!(&kernel, planner.told());
        assert_eq!(
            ask(&kernel, &links, &remotes),
            found,
            "garbage is what nobody reads"
        );
        if planner.lingers() {
            for step in planner.plan(&inputs).steps {
                kernel.apply(&step);
            }
            for step in planner.garbage() {
                kernel.apply(&step);
            }
            let now = ask(&kernel, &links, &remotes);
            let shut = |(question, passes): (&_, &bool)| *passes && !now[question];
            assert!(!found.iter().any(shut), "room was had back, and none taken");
            assert!(
                now.iter()
                    .all(|(question, passes)| !passes || after[question])
            );
            found = now;
        }
        let again = planner.plan(&inputs);
        assert!(again.steps.is_empty(), "nothing changed: {:?}", again.steps);
        before = found;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn tables_say_what_rules_say(changes in prop::collection::vec(change(), 1..12)) {
        run(&changes, PolicyLimits::default(), false);
    }

    #[test]
    fn between_steps_nothing_passes_that_never_should(changes in prop::collection::vec(change(), 1..5)) {
        run(&changes, PolicyLimits::default(), true);
    }

    #[test]
    fn what_finds_no_room_is_closed(
        changes in prop::collection::vec(change(), 1..8), peers in 2..40_usize, verdicts in 0..30_usize, ports in 0..60_usize,
    ) {
        run(&changes, PolicyLimits { peers, verdicts, ports, links: 100 }, false);
    }
}
