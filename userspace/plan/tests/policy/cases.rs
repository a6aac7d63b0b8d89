//! What is worth a name.

use std::collections::{BTreeMap, BTreeSet};

use model::Protocol;
use model::policy::{
    Action, Direction, HostPod, Namespaces, Peer, Peers, Pod, Port, Ports, Rule, World,
};
use plan::policy::{ADOPT_SECS, Inputs, PolicyLimits, PolicyPlanner, PolicyStep, PolicyTables};

use super::worlds::{addr, labels, links, of_x, pod_key, range, selection, world};

fn rule(peers: Peers, ports: Ports) -> Rule {
    Rule {
        action: Action::Accept,
        peers,
        ports,
    }
}

fn plan(planner: &mut PolicyPlanner, world: &World, now_secs: u32) -> Vec<PolicyStep> {
    let links = links(&super::worlds::world());
    let node = [addr(super::worlds::NODE)];
    planner
        .plan(&Inputs {
            world,
            links: &links,
            host_links: &BTreeMap::new(),
            open: &BTreeSet::from([99]),
            node: &node,
            now_secs,
            unix_secs: u64::from(now_secs),
        })
        .steps
}

fn tables(world: &World) -> PolicyTables {
    let mut planner = PolicyPlanner::new(PolicyTables::default(), PolicyLimits::default());
    plan(&mut planner, world, 0);
    planner.told().clone()
}

#[test]
fn without_policies_nothing_is_written() {
    assert_eq!(tables(&world()), PolicyTables::default());
}

#[test]
fn ten_thousand_rules_are_few_entries() {
    let mut world = world();
    let block = |n: u32| {
        let text = format!("172.{}.{}.0/24", 16 + n / 256, n % 256);
        Peer::Block {
            range: range(&text),
            except: Vec::new(),
        }
    };
    let rules = |each: fn(u32) -> u16| {
        (0..10_000)
            .map(|n| {
                rule(
                    Peers::Some(vec![block(n)]),
                    Ports::Some(vec![Port::Range(Protocol::Tcp, each(n), each(n))]),
                )
            })
            .collect::<Vec<_>>()
    };
    let (key, policy) = of_x("p", &[], Some(rules(|n| 1 + n as u16)), None);
    world.policies.insert(key, policy);
    let tables = tables(&world);
    assert!(tables.peers.len() <= 10_003, "{}", tables.peers.len());
    assert!(tables.verdicts.len() <= 10_000, "{}", tables.verdicts.len());
    assert!(tables.ports.len() <= 10_000, "{}", tables.ports.len());
    assert!(tables.lets_begin(10, Direction::Ingress, addr("172.17.1.9"), 6, 1 + 257));
    assert!(!tables.lets_begin(10, Direction::Ingress, addr("172.17.1.9"), 6, 1 + 256));
    assert!(
        tables.lets_begin(13, Direction::Ingress, addr("172.17.1.9"), 6, 1),
        "of another namespace"
    );
    let strange = |link| tables.lets_begin(link, Direction::Ingress, addr("172.17.1.9"), 6, 1);
    assert!(!strange(98), "nothing is known of who is there");
    assert!(strange(99), "nothing is judged there");
}

#[test]
fn pods_of_equal_policies_share_a_set() {
    let mut world = world();
    let everybody = Peer::Pods(selection(Namespaces::One("x".into()), &[]));
    let (key, policy) = of_x(
        "p",
        &[],
        Some(vec![rule(Peers::Some(vec![everybody]), Ports::All)]),
        None,
    );
    world.policies.insert(key, policy);
    let tables = tables(&world);
    let epoch = tables.control.epoch;
    let sets: Vec<u32> = tables
        .links
        .iter()
        .filter(|(key, _)| key.epoch == epoch)
        .map(|(_, link)| link.ingress)
        .collect();
    assert_eq!(sets.len(), 7);
    assert!(
        sets[0] != 0 && sets[..3].iter().all(|set| *set == sets[0]),
        "{sets:?}"
    );
    assert!(sets[3..].iter().all(|set| *set == 0), "{sets:?}");
}

#[test]
fn names_of_ports_mean_what_they_mean_at_pods_that_a_block_means() {
    let mut world = world();
    let block = Peer::Block {
        range: range("10.0.0.0/15"),
        except: vec![range("10.0.1.1/32")],
    };
    let http = Port::Named(Some(Protocol::Tcp), "http".into());
    let rules = vec![rule(Peers::Some(vec![block]), Ports::Some(vec![http]))];
    let (key, policy) = of_x("p", &[("pod", "c")], None, Some(rules));
    world.policies.insert(key, policy);
    let tables = tables(&world);
    let lets = |to: &str, port| tables.lets_begin(12, Direction::Egress, addr(to), 6, port);
    assert!(lets("10.0.0.1", 80) && !lets("10.0.0.1", 81));
    assert!(lets("10.0.1.2", 81) && !lets("10.0.1.2", 80));
    assert!(!lets("10.0.1.1", 80), "excepted");
    assert!(!lets("fd00::1", 80), "of the other family");
    assert!(!lets("10.0.0.3", 80), "has no port of that name");
    assert!(!lets("10.0.9.9", 80), "nobody's");
}

#[test]
fn what_is_older_than_its_policies_is_taken_over_for_a_while() {
    let mut world = world();
    let mut planner = PolicyPlanner::new(PolicyTables::default(), PolicyLimits::default());
    let until = |planner: &PolicyPlanner, ifindex: u32| {
        let epoch = planner.told().control.epoch;
        let of = |(key, link): (&abi::PolicyLinkKey, &abi::PolicyLink)| {
            (key.ifindex == ifindex && key.epoch == epoch).then_some(link.adopt_until_secs)
        };
        planner.told().links.iter().find_map(of)
    };
    let (key, policy) = of_x("first", &[("pod", "a")], Some(Vec::new()), None);
    world.policies.insert(key, policy);
    let late = world.pods.remove(&pod_key("x", "c")).unwrap();
    plan(&mut planner, &world, 100);
    assert_eq!(
        [until(&planner, 10), until(&planner, 11)],
        [Some(100 + ADOPT_SECS), Some(0)]
    );
    // Another policy on the same pod changes nothing of that; one on another pod begins there.
    let (key, policy) = of_x("all-of-them", &[], None, Some(Vec::new()));
    world.policies.insert(key, policy);
    plan(&mut planner, &world, 500);
    assert_eq!(
        [until(&planner, 10), until(&planner, 11)],
        [Some(100 + ADOPT_SECS), Some(500 + ADOPT_SECS)]
    );
    // A pod that comes while policies hold has nothing to be taken over.
    world.pods.insert(pod_key("x", "c"), late);
    plan(&mut planner, &world, 600);
    assert_eq!(until(&planner, 12), Some(0));
    // Nor is anything taken over a second time by the next process.
    let mut next = PolicyPlanner::new(planner.told().clone(), PolicyLimits::default());
    plan(&mut next, &world, 700);
    assert_eq!(
        [until(&next, 10), until(&next, 12)],
        [Some(100 + ADOPT_SECS), Some(0)]
    );
}

#[test]
fn since_when_a_policy_holds_is_kept_until_it_changes() {
    let mut world = world();
    let (key, policy) = of_x("p", &[("pod", "a")], Some(Vec::new()), None);
    world.policies.insert(key.clone(), policy);
    let mut planner = PolicyPlanner::new(PolicyTables::default(), PolicyLimits::default());
    let since = |planner: &PolicyPlanner| -> Vec<u32> {
        planner
            .told()
            .held
            .values()
            .map(|held| held.since_secs[0])
            .collect()
    };
    plan(&mut planner, &world, 100);
    assert_eq!(since(&planner), [100]);
    world.pods.get_mut(&pod_key("x", "b")).unwrap().labels = labels(&[("pod", "a")]);
    plan(&mut planner, &world, 200);
    let mut both = since(&planner);
    both.sort_unstable();
    assert_eq!(both, [100, 200]);
    let mut next = PolicyPlanner::new(planner.told().clone(), PolicyLimits::default());
    plan(&mut next, &world, 300);
    let mut both = since(&next);
    both.sort_unstable();
    assert_eq!(both, [100, 200], "for the next process, too");
    world.policies.get_mut(&key).unwrap().mark = 77;
    plan(&mut next, &world, 400);
    assert_eq!(since(&next), [400, 400]);
}

#[test]
fn a_change_of_one_pod_is_few_steps() {
    let mut world = world();
    let front = Peer::Pods(selection(Namespaces::One("z".into()), &[("tier", "front")]));
    let (key, policy) = of_x(
        "p",
        &[],
        Some(vec![rule(Peers::Some(vec![front]), Ports::All)]),
        None,
    );
    world.policies.insert(key, policy);
    let mut planner = PolicyPlanner::new(PolicyTables::default(), PolicyLimits::default());
    plan(&mut planner, &world, 0);
    planner.garbage();
    world.pods.get_mut(&pod_key("z", "b")).unwrap().labels = labels(&[("tier", "front")]);
    let steps = plan(&mut planner, &world, 0);
    assert_eq!(
        steps.len(),
        3,
        "two addresses and the generation: {steps:?}"
    );
}

/// Programs that began before the plan may still ask for what a link had; a second plan has the room back.
#[test]
fn what_no_link_has_any_more_lingers_for_one_plan() {
    let mut world = world();
    let block = Peer::Block {
        range: range("192.0.2.0/24"),
        except: Vec::new(),
    };
    let (key, policy) = of_x(
        "p",
        &[("pod", "a")],
        Some(vec![rule(Peers::Some(vec![block]), Ports::All)]),
        None,
    );
    world.policies.insert(key, policy);
    let mut planner = PolicyPlanner::new(PolicyTables::default(), PolicyLimits::default());
    plan(&mut planner, &world, 0);
    planner.garbage();
    let held = planner.told().peers.len();
    assert!(!planner.lingers(), "nothing went");
    world.pods.get_mut(&pod_key("x", "a")).unwrap().labels = labels(&[]);
    for (lingers, peers) in [(true, held), (false, held - 1), (false, held - 1)] {
        plan(&mut planner, &world, 0);
        planner.garbage();
        assert_eq!(
            (planner.lingers(), planner.told().peers.len()),
            (lingers, peers)
        );
    }
}

#[test]
fn a_policy_that_does_not_hold_as_it_is_written_is_marked_so() {
    let mut world = world();
    let (key, policy) = of_x("p", &[("pod", "a")], Some(Vec::new()), None);
    world.policies.insert(key.clone(), policy);
    let mut planner = PolicyPlanner::new(PolicyTables::default(), PolicyLimits::default());
    for (altered, bits) in [(true, abi::policy::held::ALTERED), (false, 0)] {
        world.altered.clear();
        world.altered.extend(altered.then(|| key.clone()));
        plan(&mut planner, &world, 100);
        let rows = planner.told().held.values();
        assert_eq!(rows.map(|row| row.closed).collect::<Vec<_>>(), [bits]);
    }
}

/// A pod of the node's network is held like any other, by the number that stands for its link, and is nobody's peer.
#[test]
fn a_pod_of_the_nodes_network_has_sets_of_its_own() {
    let mut world = world();
    let key = pod_key("x", "a");
    let pod = world.pods.remove(&key).unwrap();
    let block = Peer::Block {
        range: range("192.0.2.0/24"),
        except: Vec::new(),
    };
    let ports = Ports::Some(vec![Port::Named(None, "http".into())]);
    let (of, policy) = of_x(
        "p",
        &[],
        Some(vec![rule(Peers::Some(vec![block]), ports)]),
        None,
    );
    world.policies = BTreeMap::from([(of, policy)]);
    let host_pod = HostPod {
        uid: "1".to_owned(),
        pod: Pod {
            addresses: Vec::new(),
            ..pod
        },
    };
    world.host_pods.insert(key.clone(), host_pod);
    let number = abi::policy::CGROUP_LINK | 1;
    let host_links = BTreeMap::from([(key, number)]);
    let mut planner = PolicyPlanner::new(PolicyTables::default(), PolicyLimits::default());
    let plan = planner.plan(&Inputs {
        world: &world,
        links: &BTreeMap::new(),
        host_links: &host_links,
        open: &BTreeSet::new(),
        node: &[],
        now_secs: 5,
        unix_secs: 0,
    });
    assert_eq!(plan.selected, 1);
    let tables = planner.told();
    let asks = |from: &str, port| {
        let from = from.parse().unwrap();
        tables.lets_begin(number, Direction::Ingress, from, 6, port)
    };
    assert!(asks("192.0.2.7", 80) && !asks("192.0.2.7", 81) && !asks("198.51.100.1", 80));
    // What it said before its cgroup was found goes on.
    let link = tables.links.values().next().unwrap();
    assert_eq!(link.adopt_until_secs, 5 + ADOPT_SECS);
}
