//! What the policies of a pod say together in one direction.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::Protocol;
use model::policy::{Action, Direction, Peers, Pod, PolicyKey, Port, Ports, Rule, Tier, World};

use super::peers::Element;
use super::ports::PortSet;

/// Names a clause as long as its policy is as it was.
pub(crate) type ClauseKey = (PolicyKey, Direction, usize);

/// A rule in use.
#[derive(Clone, Debug)]
pub(crate) struct Clause<'a> {
    pub(crate) id: u32,
    pub(crate) direction: Direction,
    tier: Tier,
    pub(crate) rule: &'a Rule,
    numbered: PortSet,
    /// Some of its ports are named.
    pub(crate) names: bool,
}

impl<'a> Clause<'a> {
    pub(crate) fn new(id: u32, direction: Direction, tier: Tier, rule: &'a Rule) -> Self {
        let names = match &rule.ports {
            Ports::All => false,
            Ports::Some(ports) => ports.iter().any(|port| matches!(port, Port::Named(..))),
        };
        Clause {
            id,
            direction,
            tier,
            rule,
            numbered: PortSet::numbered(&rule.ports),
            names,
        }
    }

    /// It means anybody.
    pub(crate) fn is_universal(&self) -> bool {
        self.rule.peers == Peers::All
    }
}

/// Tells sets apart as long as their policies are as they were.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SetKey {
    pub(crate) direction: Direction,
    /// In order of keys.
    pub(crate) policies: Vec<PolicyKey>,
    /// What names of ports mean at the pods that have the set, where its clauses go by that.
    names: Vec<(Arc<str>, Protocol, u16)>,
}

impl SetKey {
    /// The set of a pod that these policies select; `None` where they say nothing of the direction.
    pub(crate) fn of(
        world: &World,
        pod: &Pod,
        selecting: &[&PolicyKey],
        direction: Direction,
    ) -> Option<SetKey> {
        let mut policies = Vec::new();
        let mut names = false;
        for key in selecting {
            let Some(policy) = world.policies.get(key) else {
                continue;
            };
            // One of a cluster's without rules affects nothing; one of a namespace without rules allows nothing.
            let rules = policy.rules(direction);
            let Some(rules) =
                rules.filter(|rules| policy.tier == Tier::Namespace || !rules.is_empty())
            else {
                continue;
            };
            names |= direction == Direction::Ingress
                && rules.iter().any(|rule| match &rule.ports {
                    Ports::All => false,
                    Ports::Some(ports) => ports.iter().any(|port| matches!(port, Port::Named(..))),
                });
            policies.push((*key).clone());
        }
        let mut named_ports = if names {
            pod.named_ports.clone()
        } else {
            Vec::new()
        };
        named_ports.sort();
        named_ports.dedup();
        (!policies.is_empty()).then_some(SetKey {
            direction,
            policies,
            names: named_ports,
        })
    }
}

/// A set, ready to be asked.
#[derive(Debug)]
pub(crate) struct Set<'a> {
    /// In the order in which they are asked, with the ports that each has whoever the other end is.
    clauses: Vec<(&'a Clause<'a>, PortSet)>,
    /// Positions of those that mean somebody in particular, by identifier.
    particular: BTreeMap<u32, usize>,
    /// A NetworkPolicy selects the pods: what none allows is refused.
    isolated: bool,
}

impl<'a> Set<'a> {
    pub(crate) fn new(
        key: &SetKey,
        world: &World,
        clauses: &'a BTreeMap<ClauseKey, Clause<'a>>,
    ) -> Set<'a> {
        let mut isolated = false;
        let mut own = Vec::new();
        for policy in &key.policies {
            let tier = world.policies.get(policy).map(|policy| policy.tier);
            isolated |= tier == Some(Tier::Namespace);
            let from = (policy.clone(), key.direction, 0);
            let to = (policy.clone(), key.direction, usize::MAX);
            for clause in clauses.range(from..=to).map(|(_, clause)| clause) {
                let named = PortSet::named(&clause.rule.ports, &key.names);
                own.push((clause, clause.numbered.union(&named)));
            }
        }
        // Stable: rules of one policy stay in their order.
        own.sort_by_key(|(clause, _)| clause.tier);
        let positions = own.iter().enumerate();
        let particular = positions
            .filter(|(_, (clause, _))| !clause.is_universal() || clause.names)
            .map(|(at, (clause, _))| (clause.id, at))
            .collect();
        Set {
            clauses: own,
            particular,
            isolated,
        }
    }

    /// Those of an address's elements that concern the set.
    pub(crate) fn concerning(&self, elements: &[Element]) -> Vec<Element> {
        let concerning = |(clause, _): &&Element| self.particular.contains_key(clause);
        elements.iter().filter(concerning).copied().collect()
    }

    /// The clauses that mean somebody in particular.
    pub(crate) fn particular(&self) -> impl Iterator<Item = u32> + '_ {
        self.particular.keys().copied()
    }

    /// What passes where the other end is meant by `elements`, in order; `named` gives the ports of their profiles.
    pub(crate) fn passes(&self, elements: &[Element], named: impl Fn(u32) -> PortSet) -> PortSet {
        let mut meant: BTreeMap<usize, PortSet> = BTreeMap::new();
        for (clause, profile) in elements {
            if let Some(at) = self.particular.get(clause) {
                let ports = meant.entry(*at).or_default();
                if *profile != 0 {
                    *ports = ports.union(&named(*profile));
                }
            }
        }
        for (at, (clause, _)) in self.clauses.iter().enumerate() {
            if clause.is_universal() {
                meant.entry(at).or_default();
            }
        }
        let matching: Vec<(&Clause<'_>, PortSet)> = meant
            .into_iter()
            .filter_map(|(at, ports)| {
                let (clause, own) = self.clauses.get(at)?;
                Some((*clause, ports.union(own)))
            })
            .collect();
        let of = |which: fn(Tier) -> bool| {
            matching
                .iter()
                .filter(move |(clause, _)| which(clause.tier))
        };
        let mut allowed = PortSet::default();
        let mut open = PortSet::all();
        let rest = ask(
            of(|tier| matches!(tier, Tier::Admin(_))),
            &mut open,
            &mut allowed,
        );
        if self.isolated {
            let accepted = of(|tier| tier == Tier::Namespace).map(|(_, ports)| ports);
            return allowed.union(&rest.intersection(&PortSet::union_of(accepted)));
        }
        let mut open = rest;
        let rest = ask(
            of(|tier| matches!(tier, Tier::Baseline(_))),
            &mut open,
            &mut allowed,
        );
        allowed.union(&rest)
    }
}

/// Asks the clauses of a tier, the first that matches decides; gives what none has decided.
fn ask<'a>(
    clauses: impl Iterator<Item = &'a (&'a Clause<'a>, PortSet)>,
    open: &mut PortSet,
    allowed: &mut PortSet,
) -> PortSet {
    let mut passed = PortSet::default();
    for (clause, ports) in clauses {
        let decided = open.intersection(ports);
        *open = open.minus(ports);
        match clause.rule.action {
            Action::Accept => *allowed = allowed.union(&decided),
            Action::Deny => {}
            Action::Pass => passed = passed.union(&decided),
        }
    }
    open.union(&passed)
}
