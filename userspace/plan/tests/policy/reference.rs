//! The rules, read one by one for every conversation: slow, and as the API describes them.

use std::net::IpAddr;

use model::Protocol;
use model::policy::{
    Action, Direction, Namespaces, Peer, Peers, Pod, PodKey, Policy, Port, Ports, Rule, Selection,
    Tier, World,
};

/// What a conversation is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spoken {
    /// A protocol with ports; the server's.
    Port(Protocol, u16),
    /// Any other.
    Other,
}

impl Spoken {
    pub(crate) fn numbers(self) -> (u8, u16) {
        match self {
            Spoken::Port(protocol, port) => (protocol.number(), port),
            Spoken::Other => (1, 0),
        }
    }
}

/// Whether `pod`'s policies of a direction let a conversation with `remote` begin.
pub(crate) fn lets_begin(
    world: &World,
    pod: &PodKey,
    direction: Direction,
    remote: IpAddr,
    spoken: Spoken,
) -> bool {
    let me = &world.pods[pod];
    let selecting: Vec<&Policy> = world
        .policies
        .values()
        .filter(|policy| selects(world, &policy.subject, pod, me))
        .collect();
    let server = match direction {
        Direction::Ingress => Some(me),
        Direction::Egress => owner(world, remote).map(|key| &world.pods[key]),
    };
    let matches = |rule: &Rule| match &rule.peers {
        Peers::All => ports_match(&rule.ports, server, spoken),
        Peers::Some(peers) => peers.iter().any(|peer| {
            peer_matches(world, peer, remote) && ports_match(&rule.ports, server, spoken)
        }),
    };
    for tier in ["admin", "namespace", "baseline"] {
        let mut of_tier: Vec<&&Policy> = selecting
            .iter()
            .filter(|policy| {
                tier == match policy.tier {
                    Tier::Admin(_) => "admin",
                    Tier::Namespace => "namespace",
                    Tier::Baseline(_) => "baseline",
                }
            })
            .collect();
        if tier == "namespace" {
            let said: Vec<&[Rule]> = of_tier
                .iter()
                .filter_map(|policy| policy.rules(direction))
                .collect();
            if !said.is_empty() {
                return said.iter().any(|rules| rules.iter().any(&matches));
            }
            continue;
        }
        of_tier.sort_by_key(|policy| policy.tier);
        let mut rules = of_tier
            .iter()
            .flat_map(|policy| policy.rules(direction).unwrap_or_default());
        match rules.find(|rule| matches(rule)).map(|rule| rule.action) {
            Some(Action::Accept) => return true,
            Some(Action::Deny) => return false,
            Some(Action::Pass) | None => {}
        }
    }
    true
}

fn selects(world: &World, selection: &Selection, key: &PodKey, pod: &Pod) -> bool {
    let namespace = match &selection.namespaces {
        Namespaces::One(name) => *name == key.namespace,
        Namespaces::Matching(selector) => selector.matches(world.namespace(&key.namespace)),
    };
    namespace && selection.pods.matches(&pod.labels)
}

fn owner(world: &World, addr: IpAddr) -> Option<&PodKey> {
    let mut with: Vec<_> = world
        .pods
        .iter()
        .filter(|(_, pod)| pod.addresses.contains(&addr))
        .collect();
    with.sort_by_key(|(_, pod)| std::cmp::Reverse(pod.created));
    with.first().map(|(key, _)| *key)
}

fn peer_matches(world: &World, peer: &Peer, remote: IpAddr) -> bool {
    match peer {
        Peer::Pods(selection) => {
            owner(world, remote).is_some_and(|key| selects(world, selection, key, &world.pods[key]))
        }
        Peer::Block { range, except } => {
            range.contains(remote) && !except.iter().any(|except| except.contains(remote))
        }
        Peer::Nodes(selector) => world
            .nodes
            .values()
            .any(|node| node.addresses.contains(&remote) && selector.matches(&node.labels)),
    }
}

fn ports_match(ports: &Ports, server: Option<&Pod>, spoken: Spoken) -> bool {
    let Ports::Some(ports) = ports else {
        return true;
    };
    let Spoken::Port(protocol, port) = spoken else {
        return false;
    };
    ports.iter().any(|asked| match asked {
        Port::Range(of, first, last) => *of == protocol && (*first..=*last).contains(&port),
        Port::Named(of, name) => server.is_some_and(|server| {
            server.named_ports.iter().any(|(called, spoken, number)| {
                called == name
                    && *spoken == protocol
                    && *number == port
                    && of.is_none_or(|of| of == protocol)
            })
        }),
    })
}
