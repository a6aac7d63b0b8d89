//! What Kubernetes' own suite asserts of NetworkPolicies (`[sig-network] Netpol NetworkPolicy between server and
//! client ...`), by its names: three namespaces of three pods, every pair at every port.

use std::collections::{BTreeMap, BTreeSet};

use model::Protocol::{self, Sctp, Tcp, Udp};
use model::policy::{
    Action, Direction, Namespaces, Peer, Peers, Policy, PolicyKey, Port, Ports, Requirement, Rule,
    Selection, Selector, Tier, World,
};
use plan::policy::{Inputs, PolicyLimits, PolicyPlanner, PolicyTables};

use super::worlds::{self, NAMESPACES, PODS, labels, pod_key, range};

const NAME: &str = "kubernetes.io/metadata.name";
const AT: [(Protocol, u16); 6] = [
    (Tcp, 80),
    (Tcp, 81),
    (Udp, 80),
    (Udp, 81),
    (Sctp, 80),
    (Sctp, 81),
];

/// From, to, protocol and port; a pod is namespace and name: "x/a".
type Reaches = fn(&str, &str, Protocol, u16) -> bool;

struct Case {
    name: &'static str,
    policies: Vec<Policy>,
    change: fn(&mut World),
    reaches: Reaches,
}

fn case(name: &'static str, policies: Vec<Policy>, reaches: Reaches) -> Case {
    Case {
        name,
        policies,
        change: |_| {},
        reaches,
    }
}

fn is(key: &str, values: &[&str]) -> Selector {
    let values = values.iter().map(|value| (*value).to_owned()).collect();
    Selector(vec![Requirement::In(key.to_owned(), values)])
}

fn not(key: &str, values: &[&str]) -> Selector {
    let values = values.iter().map(|value| (*value).to_owned()).collect();
    Selector(vec![Requirement::NotIn(key.to_owned(), values)])
}

fn all() -> Selector {
    Selector::default()
}

fn here(pods: Selector) -> Peer {
    Peer::Pods(Selection {
        namespaces: Namespaces::One("x".into()),
        pods,
    })
}

fn there(namespaces: Selector, pods: Selector) -> Peer {
    Peer::Pods(Selection {
        namespaces: Namespaces::Matching(namespaces),
        pods,
    })
}

fn rule(peers: Vec<Peer>, ports: Vec<Port>) -> Rule {
    Rule {
        action: Action::Accept,
        peers: if peers.is_empty() {
            Peers::All
        } else {
            Peers::Some(peers)
        },
        ports: if ports.is_empty() {
            Ports::All
        } else {
            Ports::Some(ports)
        },
    }
}

fn port(protocol: Protocol, number: u16) -> Port {
    Port::Range(protocol, number, number)
}

fn named(protocol: Protocol, name: &str) -> Port {
    Port::Named(Some(protocol), name.into())
}

/// A policy of namespace "x".
fn policy(pods: Selector, ingress: Option<Vec<Rule>>, egress: Option<Vec<Rule>>) -> Policy {
    let subject = Selection {
        namespaces: Namespaces::One("x".into()),
        pods,
    };
    Policy {
        mark: 1,
        tier: Tier::Namespace,
        subject,
        ingress,
        egress,
    }
}

fn to(pod: &str, ingress: Vec<Rule>) -> Policy {
    policy(is("pod", &[pod]), Some(ingress), None)
}

fn from(pod: &str, egress: Vec<Rule>) -> Policy {
    policy(is("pod", &[pod]), None, Some(egress))
}

fn of(pod: &str, namespace: &str) -> bool {
    pod.starts_with(namespace)
}

/// Address of pod "a" of "x", and of "b".
fn addresses(pods: &[&str]) -> Vec<Peer> {
    let world = worlds::world();
    let addresses = pods.iter().flat_map(|pod| {
        let (namespace, name) = pod.split_once('/').unwrap();
        world.pods[&pod_key(namespace, name)].addresses.clone()
    });
    addresses
        .map(|addr| Peer::Block {
            range: model::Range::new(addr, if addr.is_ipv4() { 32 } else { 128 }).unwrap(),
            except: Vec::new(),
        })
        .collect()
}

fn blocks(except: &[&str]) -> Vec<Peer> {
    ["10.0.0.0/16", "fd00::/16"]
        .map(|text| {
            let range = range(text);
            let except = except.iter().map(|text| worlds::range(text));
            let except = except.filter(|other| other.addr().is_ipv4() == range.addr().is_ipv4());
            Peer::Block {
                range,
                except: except.collect(),
            }
        })
        .to_vec()
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn cases() -> Vec<Case> {
    let deny = Vec::new;
    vec![
        case(
            "should support a 'default-deny-ingress' policy",
            vec![policy(all(), Some(deny()), None)],
            |_, to, _, _| !of(to, "x"),
        ),
        case(
            "should support a 'default-deny-all' policy",
            vec![policy(all(), Some(deny()), Some(deny()))],
            |from, to, _, _| !of(to, "x") && !of(from, "x"),
        ),
        case(
            "should enforce policy to allow traffic from pods within server namespace based on PodSelector",
            vec![to("a", vec![rule(vec![here(is("pod", &["b"]))], vec![])])],
            |from, to, _, _| to != "x/a" || from == "x/b",
        ),
        case(
            "should enforce policy to allow ingress traffic for a target",
            vec![
                policy(all(), Some(deny()), None),
                to("a", vec![rule(vec![], vec![])]),
            ],
            |_, to, _, _| !of(to, "x") || to == "x/a",
        ),
        case(
            "should enforce policy to allow ingress traffic from pods in all namespaces",
            vec![to("a", vec![rule(vec![there(all(), all())], vec![])])],
            |_, _, _, _| true,
        ),
        case(
            "should enforce policy to allow traffic only from a different namespace, based on NamespaceSelector",
            vec![to(
                "a",
                vec![rule(vec![there(is(NAME, &["y"]), all())], vec![])],
            )],
            |from, to, _, _| to != "x/a" || of(from, "y"),
        ),
        case(
            "should enforce policy based on PodSelector with MatchExpressions",
            vec![to("a", vec![rule(vec![here(is("pod", &["b"]))], vec![])])],
            |from, to, _, _| to != "x/a" || from == "x/b",
        ),
        case(
            "should enforce policy based on NamespaceSelector with MatchExpressions",
            vec![to(
                "a",
                vec![rule(vec![there(is("ns", &["y"]), all())], vec![])],
            )],
            |from, to, _, _| to != "x/a" || of(from, "y"),
        ),
        case(
            "should enforce policy based on NamespaceSelector with MatchExpressions using default ns label",
            vec![to(
                "a",
                vec![rule(vec![there(not(NAME, &["x"]), all())], vec![])],
            )],
            |from, to, _, _| to != "x/a" || !of(from, "x"),
        ),
        case(
            "should enforce policy based on PodSelector or NamespaceSelector",
            vec![to(
                "a",
                vec![rule(
                    vec![here(is("pod", &["b"])), there(not(NAME, &["x"]), all())],
                    vec![],
                )],
            )],
            |from, to, _, _| to != "x/a" || from == "x/b" || !of(from, "x"),
        ),
        case(
            "should enforce policy based on PodSelector and NamespaceSelector",
            vec![to(
                "a",
                vec![rule(
                    vec![there(not(NAME, &["x"]), is("pod", &["b"]))],
                    vec![],
                )],
            )],
            |from, to, _, _| to != "x/a" || !of(from, "x") && from.ends_with('b'),
        ),
        case(
            "should enforce policy based on Multiple PodSelectors and NamespaceSelectors",
            vec![to(
                "a",
                vec![rule(
                    vec![there(not(NAME, &["x"]), is("pod", &["b", "c"]))],
                    vec![],
                )],
            )],
            |from, to, _, _| to != "x/a" || !of(from, "x") && !from.ends_with('a'),
        ),
        case(
            "should enforce policy based on any PodSelectors",
            vec![to(
                "a",
                vec![rule(
                    vec![here(is("pod", &["b"])), here(is("pod", &["c"]))],
                    vec![],
                )],
            )],
            |from, to, _, _| to != "x/a" || ["x/b", "x/c"].contains(&from),
        ),
        case(
            "should enforce policy to allow traffic only from a pod in a different namespace based on PodSelector and NamespaceSelector",
            vec![to(
                "a",
                vec![rule(
                    vec![there(is(NAME, &["y"]), is("pod", &["a"]))],
                    vec![],
                )],
            )],
            |from, to, _, _| to != "x/a" || from == "y/a",
        ),
        case(
            "should enforce policy to allow traffic based on NamespaceSelector with MatchLabels using default ns label",
            vec![to(
                "a",
                vec![rule(vec![there(is(NAME, &["y"]), all())], vec![])],
            )],
            |from, to, _, _| to != "x/a" || of(from, "y"),
        ),
        case(
            "should enforce policy based on Ports",
            vec![to(
                "a",
                vec![rule(
                    vec![there(is(NAME, &["y"]), all())],
                    vec![port(Tcp, 81)],
                )],
            )],
            |from, to, protocol, port| {
                to != "x/a" || of(from, "y") && (protocol, port) == (Tcp, 81)
            },
        ),
        case(
            "should enforce multiple, stacked policies with overlapping podSelectors",
            vec![
                to(
                    "a",
                    vec![rule(
                        vec![there(is(NAME, &["y"]), all())],
                        vec![port(Tcp, 81)],
                    )],
                ),
                to(
                    "a",
                    vec![rule(
                        vec![there(is(NAME, &["y"]), all())],
                        vec![port(Tcp, 80)],
                    )],
                ),
            ],
            |from, to, protocol, _| to != "x/a" || of(from, "y") && protocol == Tcp,
        ),
        case(
            "should support allow-all policy",
            vec![policy(all(), Some(vec![rule(vec![], vec![])]), None)],
            |_, _, _, _| true,
        ),
        case(
            "should allow ingress access on one named port",
            vec![to(
                "a",
                vec![rule(vec![], vec![named(Tcp, "serve-81-tcp")])],
            )],
            |_, to, protocol, port| to != "x/a" || (protocol, port) == (Tcp, 81),
        ),
        case(
            "should allow ingress access from namespace on one named port",
            vec![to(
                "a",
                vec![rule(
                    vec![there(is(NAME, &["y"]), all())],
                    vec![named(Tcp, "serve-80-tcp")],
                )],
            )],
            |from, to, protocol, port| {
                to != "x/a" || of(from, "y") && (protocol, port) == (Tcp, 80)
            },
        ),
        case(
            "should allow egress access on one named port",
            vec![from(
                "a",
                vec![rule(vec![], vec![named(Tcp, "serve-80-tcp")])],
            )],
            |from, _, protocol, port| from != "x/a" || (protocol, port) == (Tcp, 80),
        ),
        Case {
            change: |world| {
                drop(
                    world
                        .namespaces
                        .insert("y".into(), labels(&[("ns2", "updated")])),
                );
            },
            ..case(
                "should allow ingress access from updated namespace",
                vec![to(
                    "a",
                    vec![rule(vec![there(is("ns2", &["updated"]), all())], vec![])],
                )],
                |from, to, _, _| to != "x/a" || of(from, "y"),
            )
        },
        Case {
            change: |world| {
                world.pods.get_mut(&pod_key("x", "b")).unwrap().labels =
                    labels(&[("pod2", "updated")]);
            },
            ..case(
                "should allow ingress access from updated pod",
                vec![to(
                    "a",
                    vec![rule(vec![here(is("pod2", &["updated"]))], vec![])],
                )],
                |from, to, _, _| to != "x/a" || from == "x/b",
            )
        },
        Case {
            change: |world| {
                world.pods.get_mut(&pod_key("x", "a")).unwrap().labels =
                    labels(&[("target", "isolated")]);
            },
            ..case(
                "should deny ingress access to updated pod",
                vec![policy(is("target", &["isolated"]), Some(deny()), None)],
                |_, to, _, _| to != "x/a",
            )
        },
        case(
            "should deny egress from pods based on PodSelector",
            vec![from("a", deny())],
            |from, _, _, _| from != "x/a",
        ),
        case(
            "should deny egress from all pods in a namespace",
            vec![policy(all(), None, Some(deny()))],
            |from, _, _, _| !of(from, "x"),
        ),
        case(
            "should work with Ingress, Egress specified together",
            vec![policy(
                is("pod", &["a"]),
                Some(vec![rule(vec![here(is("pod", &["b"]))], vec![])]),
                Some(vec![rule(vec![], vec![port(Tcp, 80)])]),
            )],
            |from, to, protocol, port| {
                (to != "x/a" || from == "x/b") && (from != "x/a" || (protocol, port) == (Tcp, 80))
            },
        ),
        case(
            "should support denying of egress traffic on the client side (even if the server explicitly allows this traffic)",
            vec![
                from(
                    "a",
                    vec![rule(
                        vec![there(is(NAME, &["y"]), is("pod", &["a", "b"]))],
                        vec![],
                    )],
                ),
                to("b", vec![rule(vec![here(is("pod", &["a"]))], vec![])]),
            ],
            |from, to, _, _| {
                (from != "x/a" || ["y/a", "y/b"].contains(&to)) && (to != "x/b" || from == "x/a")
            },
        ),
        case(
            "should enforce egress policy allowing traffic to a server in a different namespace based on PodSelector and NamespaceSelector",
            vec![from(
                "a",
                vec![rule(
                    vec![there(is(NAME, &["y"]), is("pod", &["a"]))],
                    vec![],
                )],
            )],
            |from, to, _, _| from != "x/a" || to == "y/a",
        ),
        case(
            "should enforce multiple ingress policies with ingress allow-all policy taking precedence",
            vec![
                to("a", vec![rule(vec![], vec![port(Tcp, 80)])]),
                to("a", vec![rule(vec![], vec![])]),
            ],
            |_, _, _, _| true,
        ),
        case(
            "should enforce multiple egress policies with egress allow-all policy taking precedence",
            vec![
                from("a", vec![rule(vec![], vec![port(Tcp, 80)])]),
                from("a", vec![rule(vec![], vec![])]),
            ],
            |_, _, _, _| true,
        ),
        case(
            "should stop enforcing policies after they are deleted",
            vec![],
            |_, _, _, _| true,
        ),
        case(
            "should allow egress access to server in CIDR block",
            vec![from("a", vec![rule(addresses(&["y/b"]), vec![])])],
            |from, to, _, _| from != "x/a" || to == "y/b",
        ),
        case(
            "should enforce except clause while egress access to server in CIDR block",
            vec![from(
                "a",
                vec![rule(blocks(&["10.0.0.2/32", "fd00::2/128"]), vec![])],
            )],
            |from, to, _, _| from != "x/a" || to != "x/b",
        ),
        case(
            "should ensure an IP overlapping both IPBlock.CIDR and IPBlock.Except is allowed",
            vec![
                from(
                    "a",
                    vec![rule(blocks(&["10.0.0.2/32", "fd00::2/128"]), vec![])],
                ),
                from("a", vec![rule(addresses(&["x/b"]), vec![])]),
            ],
            |_, _, _, _| true,
        ),
        case(
            "should enforce policies to check ingress and egress policies can be controlled independently based on PodSelector",
            vec![policy(
                is("pod", &["a"]),
                Some(deny()),
                Some(vec![rule(vec![], vec![])]),
            )],
            |_, to, _, _| to != "x/a",
        ),
        case(
            "should not mistakenly treat 'protocol: SCTP' as 'protocol: TCP', even if the plugin doesn't support SCTP",
            vec![to("a", vec![rule(vec![], vec![port(Sctp, 81)])])],
            |_, to, protocol, port| to != "x/a" || (protocol, port) == (Sctp, 81),
        ),
        case(
            "should properly isolate pods that are selected by a policy allowing SCTP, even if the plugin doesn't support SCTP",
            vec![to("a", vec![rule(vec![], vec![port(Sctp, 80)])])],
            |_, to, protocol, port| to != "x/a" || (protocol, port) == (Sctp, 80),
        ),
        case(
            "should not allow access by TCP when a policy specifies only UDP",
            vec![to("a", vec![rule(vec![], vec![port(Udp, 81)])])],
            |_, to, protocol, port| to != "x/a" || (protocol, port) == (Udp, 81),
        ),
        case(
            "should not allow all ports if it cannot limit to the requested port",
            vec![to("a", vec![rule(vec![], vec![Port::Range(Tcp, 81, 82)])])],
            |_, to, protocol, port| to != "x/a" || (protocol, port) == (Tcp, 81),
        ),
        case(
            "should enforce ingress policy allowing any port traffic to a server on a specific protocol",
            vec![to(
                "a",
                vec![rule(vec![], vec![Port::Range(Tcp, 0, u16::MAX)])],
            )],
            |_, to, protocol, _| to != "x/a" || protocol == Tcp,
        ),
        case(
            "should deny ingress from pods on other namespaces",
            vec![policy(
                all(),
                Some(vec![rule(vec![here(all())], vec![])]),
                None,
            )],
            |from, to, _, _| !of(to, "x") || of(from, "x"),
        ),
    ]
}

fn world() -> World {
    let mut world = worlds::world();
    for pod in world.pods.values_mut() {
        pod.local = true;
        pod.named_ports = AT
            .iter()
            .map(|(protocol, port)| {
                let name = format!("serve-{port}-{protocol}").to_lowercase();
                (name.as_str().into(), *protocol, *port)
            })
            .collect();
    }
    world
}

#[test]
fn kubernetes_own_assertions_hold() {
    // One planner for all of them, so that each also stands for an update of the one before.
    let mut planner = PolicyPlanner::new(PolicyTables::default(), PolicyLimits::default());
    let links = worlds::links(&world());
    let plan = |planner: &mut PolicyPlanner, world: &World| {
        planner.plan(&Inputs {
            world,
            links: &links,
            host_links: &BTreeMap::new(),
            open: &BTreeSet::new(),
            node: &[],
            now_secs: 0,
            unix_secs: 0,
        });
        planner.garbage();
    };
    for (number, case) in (0..).zip(cases()) {
        let mut world = world();
        for (at, mut policy) in (0..).zip(case.policies) {
            policy.mark = number * 10 + at;
            let key = PolicyKey::Namespaced("x".into(), format!("p{at}").into());
            world.policies.insert(key, policy);
        }
        plan(&mut planner, &world);
        (case.change)(&mut world);
        plan(&mut planner, &world);
        check(case.name, planner.told(), &links, case.reaches);
    }
}

fn check(
    name: &str,
    tables: &PolicyTables,
    links: &BTreeMap<std::net::IpAddr, u32>,
    reaches: Reaches,
) {
    let world = world();
    let pods = || {
        NAMESPACES
            .iter()
            .flat_map(|namespace| PODS.iter().map(move |pod| format!("{namespace}/{pod}")))
    };
    let addresses = |pod: &str| {
        let (namespace, name) = pod.split_once('/').unwrap();
        world.pods[&pod_key(namespace, name)].addresses.clone()
    };
    for (from, to) in pods().flat_map(|from| pods().map(move |to| (from.clone(), to))) {
        if from == to {
            continue; // always, and no packet of that leaves the pod
        }
        for (source, target) in addresses(&from).into_iter().zip(addresses(&to)) {
            for (protocol, port) in AT {
                let out = tables.lets_begin(
                    links[&source],
                    Direction::Egress,
                    target,
                    protocol.number(),
                    port,
                );
                let into = tables.lets_begin(
                    links[&target],
                    Direction::Ingress,
                    source,
                    protocol.number(),
                    port,
                );
                let expected = reaches(&from, &to, protocol, port);
                assert_eq!(
                    out && into,
                    expected,
                    "{name}: {from} to {to} at {port}/{protocol}"
                );
            }
        }
    }
}
