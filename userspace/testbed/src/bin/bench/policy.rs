//! Ten thousand rules at both ends of a conversation.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context as _, Result};
use model::policy::{
    Action, Namespaces, Peer, Peers, PodKey, Policy, PolicyKey, Port, Ports, Rule, Selection,
    Selector, Tier, World,
};
use model::{Protocol, Range};
use plan::policy::{Inputs, PolicyLimits, PolicyPlanner};
use testbed::balancer::{Balancer, ifindex};
use testbed::{Node, Pod};

/// Rules of each direction.
const RULES: u32 = 10_000;

/// Makes policies hold that let these pods speak at a port by the last of so many rules, and nobody else at other ones
/// by the others.
pub(crate) fn hold(balancer: &Balancer, node: &Node, pods: &[&Pod], port: u16) -> Result<()> {
    let mut world = World::default();
    let mut links = BTreeMap::new();
    for pod in pods {
        let key = PodKey {
            namespace: "bench".into(),
            name: pod.name().into(),
        };
        let addresses = vec![pod.address(false), pod.address(true)];
        let index = ifindex(node, pod)?;
        links.extend(addresses.iter().map(|addr| (*addr, index)));
        let pod = model::policy::Pod {
            addresses,
            local: true,
            ..model::policy::Pod::default()
        };
        world.pods.insert(key, pod);
    }
    let everybody = Selection {
        namespaces: Namespaces::One("bench".into()),
        pods: Selector::default(),
    };
    let rules = (1..RULES).map(|n| {
        let addr = Ipv4Addr::from(0xac10_0000 + n * 16); // 172.16.0.0/12, in pieces of 16
        let range = Range::new(IpAddr::V4(addr), 28).context("a range")?;
        let number = 1 + (n % 60_000) as u16;
        Ok(rule(
            Peer::Block {
                range,
                except: Vec::new(),
            },
            number,
        ))
    });
    let mut rules = rules.collect::<Result<Vec<Rule>>>()?;
    rules.push(rule(Peer::Pods(everybody.clone()), port));
    let policy = Policy {
        mark: 1,
        tier: Tier::Namespace,
        subject: everybody,
        ingress: Some(rules.clone()),
        egress: Some(rules),
    };
    let key = PolicyKey::Namespaced("bench".into(), "many".into());
    world.policies.insert(key, policy);
    let table = balancer.datapath().policy_table()?;
    let mut planner = PolicyPlanner::new(table.tables()?, PolicyLimits::default());
    let plan = planner.plan(&Inputs {
        world: &world,
        links: &links,
        host_links: &BTreeMap::new(),
        open: &BTreeSet::new(),
        node: &[],
        now_secs: bpf::now_secs(),
        unix_secs: 0,
    });
    Ok(table.apply(&plan.steps)?)
}

fn rule(peer: Peer, port: u16) -> Rule {
    Rule {
        action: Action::Accept,
        peers: Peers::Some(vec![peer]),
        ports: Ports::Some(vec![Port::Range(Protocol::Tcp, port, port)]),
    }
}
