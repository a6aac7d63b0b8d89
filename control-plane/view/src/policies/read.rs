//! From policies as objects to what they mean. What cannot be understood lets nothing more pass than without it.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use model::policy::{
    Action, Direction, Namespaces, Peer, Peers, Policy, PolicyKey, Port, Ports, Requirement, Rule,
    Selection, Selector, Tier,
};
use model::{Protocol, Range};

use super::protocol;
use crate::objects::{
    ClusterNetworkPolicy, ClusterNetworkPolicyPeer, ClusterNetworkPolicyPorts,
    ClusterNetworkPolicyProtocol, ClusterNetworkPolicyRule, IntOrString, LabelSelector,
    NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort,
};

/// What could not be understood of a policy, in words.
pub type PolicyFindings = Vec<String>;

/// What a NetworkPolicy means.
#[must_use]
pub fn network_policy(object: &NetworkPolicy) -> (PolicyKey, Policy, PolicyFindings) {
    let mut reader = Reader::default();
    let namespace: Arc<str> = object.metadata.namespace.as_str().into();
    let spec = &object.spec;
    let has = |type_: &str| spec.policy_types.iter().any(|has| has == type_);
    let by_rules = spec.policy_types.is_empty();
    let ingress = (by_rules || has("Ingress")).then(|| {
        let rules = spec.ingress.iter().enumerate();
        rules
            .map(|(at, rule)| {
                reader.at = format!("ingress[{at}]");
                reader.rule(&namespace, &rule.from, &rule.ports)
            })
            .collect()
    });
    let egress = (has("Egress") || by_rules && !spec.egress.is_empty()).then(|| {
        let rules = spec.egress.iter().enumerate();
        rules
            .map(|(at, rule)| {
                reader.at = format!("egress[{at}]");
                reader.rule(&namespace, &rule.to, &rule.ports)
            })
            .collect()
    });
    let policy = Policy {
        mark: 0,
        tier: Tier::Namespace,
        subject: Selection {
            namespaces: Namespaces::One(namespace.clone()),
            pods: selector(&spec.pod_selector),
        },
        ingress,
        egress,
    };
    let key = PolicyKey::Namespaced(namespace, object.metadata.name.as_str().into());
    let policy = marked(&key, &object.metadata.uid, policy);
    (key, policy, reader.findings)
}

/// What a ClusterNetworkPolicy means.
#[must_use]
pub fn cluster_network_policy(
    object: &ClusterNetworkPolicy,
) -> (PolicyKey, Policy, PolicyFindings) {
    let mut reader = Reader::default();
    let spec = &object.spec;
    let priority = u32::try_from(spec.priority).unwrap_or(0);
    let tier = match spec.tier.as_str() {
        "Admin" => Tier::Admin(priority),
        "Baseline" => Tier::Baseline(priority),
        other => {
            // Where it would stand is not known, so that it may only forbid, and before the others.
            reader.find(format!(
                "tier {other:?} is not known: it is taken for Admin"
            ));
            Tier::Admin(priority)
        }
    };
    let subject = cluster_pods(&spec.subject).unwrap_or_else(|| {
        reader.find("its subject selects nothing that is known: it applies to no pod".to_owned());
        Selection {
            namespaces: Namespaces::Matching(nobody()),
            pods: nobody(),
        }
    });
    let mut rules = |field: &str, rules: &[ClusterNetworkPolicyRule]| {
        let rules = rules.iter().enumerate();
        let read = |(at, rule): (usize, &ClusterNetworkPolicyRule)| {
            reader.at = format!("{field}[{at}]");
            let (peers, direction) = if field == "ingress" {
                (&rule.from, Direction::Ingress)
            } else {
                (&rule.to, Direction::Egress)
            };
            reader.cluster_rule(rule, peers, direction)
        };
        Some(rules.map(read).collect())
    };
    let policy = Policy {
        mark: 0,
        tier,
        subject,
        ingress: rules("ingress", &spec.ingress),
        egress: rules("egress", &spec.egress),
    };
    let key = PolicyKey::Cluster(object.metadata.name.as_str().into());
    let policy = marked(&key, &object.metadata.uid, policy);
    (key, policy, reader.findings)
}

#[derive(Default)]
struct Reader {
    /// The rule that is read.
    at: String,
    findings: PolicyFindings,
}

impl Reader {
    fn find(&mut self, what: String) {
        if self.at.is_empty() {
            self.findings.push(what);
        } else {
            self.findings.push(format!("{}: {what}", self.at));
        }
    }

    fn rule(
        &mut self,
        namespace: &Arc<str>,
        peers: &[NetworkPolicyPeer],
        ports: &[NetworkPolicyPort],
    ) -> Rule {
        let peers = if peers.is_empty() {
            Peers::All
        } else {
            Peers::Some(
                peers
                    .iter()
                    .filter_map(|peer| self.peer(namespace, peer))
                    .collect(),
            )
        };
        let ports = if ports.is_empty() {
            Ports::All
        } else {
            Ports::Some(ports.iter().filter_map(|port| self.port(port)).collect())
        };
        Rule {
            action: Action::Accept,
            peers,
            ports,
        }
    }

    fn peer(&mut self, namespace: &Arc<str>, peer: &NetworkPolicyPeer) -> Option<Peer> {
        let namespaces = match (&peer.namespace_selector, &peer.pod_selector, &peer.ip_block) {
            (None, None, Some(block)) => {
                let range = self.range(&block.cidr)?;
                let except = block.except.iter().map(|text| self.range(text));
                // Without an exception that cannot be read the block would mean more.
                let except = except.collect::<Option<Vec<Range>>>()?;
                return Some(Peer::Block { range, except });
            }
            (None, Some(_), None) => Namespaces::One(namespace.clone()),
            (Some(namespaces), _, None) => Namespaces::Matching(selector(namespaces)),
            (..) => {
                self.find("a peer is left out: neither selectors nor an ipBlock alone".to_owned());
                return None;
            }
        };
        let pods = peer.pod_selector.as_ref().map(selector).unwrap_or_default();
        Some(Peer::Pods(Selection { namespaces, pods }))
    }

    fn range(&mut self, text: &str) -> Option<Range> {
        let range = api::net::parse_cidr(text).and_then(|(addr, len)| Range::new(addr, len));
        if range.is_none() {
            self.find(format!(
                "a peer is left out: {text:?} is not a range of addresses"
            ));
        }
        range
    }

    fn port(&mut self, port: &NetworkPolicyPort) -> Option<Port> {
        let Some(of) = protocol(&port.protocol) else {
            self.find(format!(
                "a port is left out: protocol {:?} is not known",
                port.protocol
            ));
            return None;
        };
        match &port.port {
            None => Some(Port::Range(of, 0, u16::MAX)),
            Some(IntOrString::String(name)) => Some(Port::Named(Some(of), name.as_str().into())),
            Some(IntOrString::Int(first)) => {
                self.numbers(of, *first, port.end_port.unwrap_or(*first))
            }
        }
    }

    fn numbers(&mut self, of: Protocol, first: i32, last: i32) -> Option<Port> {
        match (u16::try_from(first), u16::try_from(last)) {
            (Ok(first), Ok(last)) if first != 0 && first <= last => {
                Some(Port::Range(of, first, last))
            }
            _ => {
                self.find(format!(
                    "a port is left out: there is none from {first} to {last}"
                ));
                None
            }
        }
    }

    fn cluster_rule(
        &mut self,
        rule: &ClusterNetworkPolicyRule,
        peers: &[ClusterNetworkPolicyPeer],
        direction: Direction,
    ) -> Rule {
        let action = match rule.action.as_str() {
            "Accept" => Some(Action::Accept),
            "Deny" => Some(Action::Deny),
            "Pass" => Some(Action::Pass),
            _ => None,
        };
        let mut unknown = Vec::new();
        if action.is_none() {
            unknown.push(format!("action {:?}", rule.action));
        }
        let mut read = Vec::new();
        for (at, peer) in peers.iter().enumerate() {
            match cluster_pods(peer) {
                None if fields(peer) > 1 => {
                    unknown.push(format!("peer {at} by {} fields", fields(peer)));
                }
                Some(selection) => read.push(Peer::Pods(selection)),
                None if let Some(nodes) = &peer.nodes => match direction {
                    Direction::Egress => read.push(Peer::Nodes(selector(nodes))),
                    Direction::Ingress => unknown.push(format!("peer {at} by \"nodes\"")),
                },
                None if !peer.networks.is_empty() => {
                    for text in &peer.networks {
                        match self.range(text) {
                            Some(range) => read.push(Peer::Block {
                                range,
                                except: Vec::new(),
                            }),
                            None => unknown.push(format!("network {text:?}")),
                        }
                    }
                }
                None => unknown.push(match peer.others.keys().next() {
                    Some(field) => format!("peer {at} by {field:?}"),
                    None => format!("peer {at}"),
                }),
            }
        }
        let mut protocols = Vec::new();
        for (at, protocol) in rule.protocols.iter().enumerate() {
            protocols.push(self.cluster_port(protocol));
            if protocols.last().is_some_and(Option::is_none) {
                unknown.push(format!("protocol {at}"));
            }
        }
        if unknown.is_empty() {
            return Rule {
                action: action.unwrap_or(Action::Deny),
                peers: Peers::Some(read),
                ports: if protocols.is_empty() {
                    Ports::All
                } else {
                    Ports::Some(protocols.into_iter().flatten().collect())
                },
            };
        }
        // As the API asks of those who meet fields that they do not know.
        let accepts = action == Some(Action::Accept);
        let instead = if accepts {
            "it matches nothing"
        } else {
            "it denies everything"
        };
        self.find(format!(
            "{} is not known here: {instead}",
            unknown.join(", ")
        ));
        Rule {
            action: Action::Deny,
            peers: if accepts {
                Peers::Some(Vec::new())
            } else {
                Peers::All
            },
            ports: Ports::All,
        }
    }

    /// `None` where it is no one protocol.
    fn cluster_port(&mut self, asked: &ClusterNetworkPolicyProtocol) -> Option<Port> {
        let numbered = [&asked.tcp, &asked.udp, &asked.sctp];
        let named = !asked.destination_named_port.is_empty();
        if numbered.into_iter().flatten().count() + usize::from(named) > 1 {
            return None;
        }
        if !asked.destination_named_port.is_empty() {
            return Some(Port::Named(
                None,
                asked.destination_named_port.as_str().into(),
            ));
        }
        let of = |protocol: Protocol, ports: &Option<ClusterNetworkPolicyPorts>| {
            ports
                .as_ref()
                .map(|ports| (protocol, ports.destination_port.clone()))
        };
        let (of, ports) = of(Protocol::Tcp, &asked.tcp)
            .or_else(|| of(Protocol::Udp, &asked.udp))
            .or_else(|| of(Protocol::Sctp, &asked.sctp))?;
        match ports {
            None => Some(Port::Range(of, 0, u16::MAX)),
            Some(port) => match port.range {
                Some(range) => self.numbers(of, range.start, range.end),
                None => self.numbers(of, port.number, port.number),
            },
        }
    }
}

/// How many ways of naming somebody a peer has; there should be one.
fn fields(peer: &ClusterNetworkPolicyPeer) -> usize {
    let known = [
        peer.namespaces.is_some(),
        peer.pods.is_some(),
        !peer.networks.is_empty(),
        peer.nodes.is_some(),
    ];
    known.into_iter().filter(|is| *is).count() + peer.others.len()
}

/// `None` where no pods are selected, or something else as well.
fn cluster_pods(peer: &ClusterNetworkPolicyPeer) -> Option<Selection> {
    match (&peer.namespaces, &peer.pods) {
        _ if fields(peer) > 1 => None,
        (Some(namespaces), None) => Some(Selection {
            namespaces: Namespaces::Matching(selector(namespaces)),
            pods: Selector::default(),
        }),
        (None, Some(pods)) => Some(Selection {
            namespaces: Namespaces::Matching(selector(&pods.namespace_selector)),
            pods: selector(&pods.pod_selector),
        }),
        _ => None,
    }
}

fn nobody() -> Selector {
    Selector(vec![Requirement::Never])
}

fn selector(object: &LabelSelector) -> Selector {
    let labels = object.match_labels.iter();
    let mut requirements: Vec<Requirement> = labels
        .map(|(key, value)| Requirement::In(key.clone(), vec![value.clone()]))
        .collect();
    for expression in &object.match_expressions {
        let (key, values) = (expression.key.clone(), expression.values.clone());
        requirements.push(match expression.operator.as_str() {
            "In" if !values.is_empty() => Requirement::In(key, values),
            "NotIn" if !values.is_empty() => Requirement::NotIn(key, values),
            "Exists" if values.is_empty() => Requirement::Exists(key),
            "DoesNotExist" if values.is_empty() => Requirement::Absent(key),
            _ => Requirement::Never,
        });
    }
    Selector(requirements)
}

/// The policy with its mark: the same in every process that reads the object.
fn marked(key: &PolicyKey, uid: &str, policy: Policy) -> Policy {
    let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
    (key, uid, &policy).hash(&mut hasher);
    Policy {
        mark: hasher.finish(),
        ..policy
    }
}

/// FNV-1a, 64 bits.
struct Fnv(u64);

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
