//! NetworkPolicies and ClusterNetworkPolicies as they are written, and what they mean.

use model::policy::{
    Action, Namespaces, Peer, Peers, PolicyKey, Port, Ports, Requirement, Rule, Selection,
    Selector, Tier,
};
use model::{Protocol, Range};
use serde_json::{Value, json};
use view::objects::{ClusterNetworkPolicyPorts, ClusterNetworkPolicyProtocol};
use view::{Event, Policies, objects, policies};

fn read(spec: Value) -> (model::policy::Policy, Vec<String>) {
    let object = json!({"metadata": {"name": "p", "namespace": "ns"}, "spec": spec});
    let (key, policy, findings) =
        policies::network_policy(&serde_json::from_value(object).unwrap());
    assert_eq!(key, PolicyKey::Namespaced("ns".into(), "p".into()));
    (policy, findings)
}

fn range(text: &str) -> Range {
    text.parse().unwrap()
}

fn is(key: &str, value: &str) -> Selector {
    Selector(vec![Requirement::In(key.into(), vec![value.into()])])
}

fn rule(peers: Peers, ports: Ports) -> Rule {
    Rule {
        action: Action::Accept,
        peers,
        ports,
    }
}

#[test]
fn policy_types_default_to_what_the_rules_tell() {
    let rule = json!([{}]);
    for (types, ingress, egress, expected) in [
        (json!(null), json!(null), json!(null), (true, false)),
        (json!([]), json!([]), rule.clone(), (true, true)),
        (json!(["Ingress"]), json!(null), rule.clone(), (true, false)),
        (json!(["Egress"]), rule, json!(null), (false, true)),
        (
            json!(["Ingress", "Egress"]),
            json!(null),
            json!(null),
            (true, true),
        ),
    ] {
        let spec =
            json!({"podSelector": {}, "policyTypes": types, "ingress": ingress, "egress": egress});
        let (policy, _) = read(spec.clone());
        assert_eq!(
            (policy.ingress.is_some(), policy.egress.is_some()),
            expected,
            "{spec}"
        );
    }
    let (policy, _) = read(json!({"podSelector": {}, "policyTypes": ["Ingress"]}));
    assert_eq!(policy.ingress, Some(vec![]), "nothing may come in");
}

#[test]
fn peers_and_ports_are_read() {
    let (policy, findings) = read(json!({
        "podSelector": {"matchLabels": {"app": "db"}},
        "ingress": [
            {},
            {"from": [{"podSelector": {}}, {"namespaceSelector": {"matchLabels": {"team": "a"}}}]},
            {"from": [{"podSelector": {"matchLabels": {"app": "web"}}, "namespaceSelector": {}}],
             "ports": [{"port": 80}, {"protocol": "UDP"}, {"protocol": "SCTP", "port": 100, "endPort": 200}, {"port": "http"}]},
            {"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}]},
        ],
    }));
    assert_eq!(findings, [""; 0]);
    let pods = |namespaces, pods| Peer::Pods(Selection { namespaces, pods });
    let team = Namespaces::Matching(is("team", "a"));
    let anywhere = Namespaces::Matching(Selector::default());
    let expected = vec![
        rule(Peers::All, Ports::All),
        rule(
            Peers::Some(vec![
                pods(Namespaces::One("ns".into()), Selector::default()),
                pods(team, Selector::default()),
            ]),
            Ports::All,
        ),
        rule(
            Peers::Some(vec![pods(anywhere, is("app", "web"))]),
            Ports::Some(vec![
                Port::Range(Protocol::Tcp, 80, 80),
                Port::Range(Protocol::Udp, 0, u16::MAX),
                Port::Range(Protocol::Sctp, 100, 200),
                Port::Named(Some(Protocol::Tcp), "http".into()),
            ]),
        ),
        rule(
            Peers::Some(vec![Peer::Block {
                range: range("10.0.0.0/8"),
                except: vec![range("10.1.0.0/16")],
            }]),
            Ports::All,
        ),
    ];
    assert_eq!(policy.ingress, Some(expected));
    assert_eq!(policy.subject.pods, is("app", "db"));
}

#[test]
fn what_cannot_be_understood_lets_nothing_pass() {
    for (rule, finds) in [
        (json!({"from": [{}]}), 1),
        (json!({"from": [{"ipBlock": {"cidr": "10.0.0.0"}}]}), 1),
        (
            json!({"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["x"]}}]}),
            1,
        ),
        (
            json!({"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}]}),
            1,
        ),
        (json!({"ports": [{"protocol": "ICMP"}]}), 1),
        (json!({"ports": [{"port": 0}]}), 1),
        (json!({"ports": [{"port": 90, "endPort": 80}]}), 1),
        (json!({"ports": [{"port": 70000}]}), 1),
    ] {
        let (policy, findings) = read(json!({"podSelector": {}, "ingress": [rule]}));
        assert_eq!(findings.len(), finds, "{rule}: {findings:?}");
        let read = &policy.ingress.unwrap()[0];
        let nothing = read.peers == Peers::Some(vec![]) || read.ports == Ports::Some(vec![]);
        assert!(nothing, "{rule}: {read:?}");
    }
    let (policy, _) = read(
        json!({"podSelector": {"matchExpressions": [{"key": "a", "operator": "In", "values": []}]}}),
    );
    assert_eq!(policy.subject.pods, Selector(vec![Requirement::Never]));
}

#[test]
fn cluster_policies_are_read() {
    let object = json!({"metadata": {"name": "p"}, "spec": {
        "tier": "Admin", "priority": 7, "subject": {"namespaces": {"matchLabels": {"a": "b"}}},
        "ingress": [
            {"action": "Pass", "from": [{"namespaces": {}}]},
            {"action": "Deny", "from": [{"pods": {"podSelector": {"matchLabels": {"x": "y"}}}}],
             "protocols": [{"tcp": {"destinationPort": {"number": 80}}}, {"udp": {}},
                           {"sctp": {"destinationPort": {"range": {"start": 1, "end": 9}}}}, {"destinationNamedPort": "web"}]},
            {"action": "Accept", "from": [{"future": true}]},
            {"action": "Deny", "from": [{"future": true}]},
        ],
        "egress": [{"action": "Accept", "to": [{"networks": ["10.0.0.0/8", "fd00::/8"]}]}],
    }});
    let (key, policy, findings) =
        policies::cluster_network_policy(&serde_json::from_value(object).unwrap());
    assert_eq!(
        (key, policy.tier),
        (PolicyKey::Cluster("p".into()), Tier::Admin(7))
    );
    assert_eq!(
        findings,
        [
            "ingress[2]: peer 0 by \"future\" is not known here: it matches nothing",
            "ingress[3]: peer 0 by \"future\" is not known here: it denies everything",
        ]
    );
    let rules = policy.ingress.unwrap();
    assert_eq!(rules[0].action, Action::Pass);
    let ports = vec![
        Port::Range(Protocol::Tcp, 80, 80),
        Port::Range(Protocol::Udp, 0, u16::MAX),
        Port::Range(Protocol::Sctp, 1, 9),
        Port::Named(None, "web".into()),
    ];
    assert_eq!(rules[1].ports, Ports::Some(ports));
    assert_eq!(
        (&rules[2].peers, rules[2].action),
        (&Peers::Some(vec![]), Action::Deny)
    );
    assert_eq!(
        (&rules[3].peers, &rules[3].ports, rules[3].action),
        (&Peers::All, &Ports::All, Action::Deny)
    );
    let blocks = ["10.0.0.0/8", "fd00::/8"].map(|text| Peer::Block {
        range: range(text),
        except: vec![],
    });
    assert_eq!(
        policy.egress.unwrap()[0].peers,
        Peers::Some(blocks.to_vec())
    );
}

#[test]
fn nodes_are_peers_of_what_pods_send() {
    let object =
        |direction: &str, peer: &str, action: &str, to: Value| -> objects::ClusterNetworkPolicy {
            serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {
                "tier": "Admin", "subject": {"namespaces": {}},
                direction: [{"action": action, peer: [to]}],
            }}))
            .unwrap()
        };
    let nodes = json!({"nodes": {"matchLabels": {"tier": "front"}}});
    let front = Requirement::In("tier".into(), vec!["front".into()]);
    let (_, policy, findings) =
        policies::cluster_network_policy(&object("egress", "to", "Deny", nodes.clone()));
    assert_eq!(findings, [""; 0]);
    let rules = policy.egress.unwrap();
    let peers = Peers::Some(vec![Peer::Nodes(Selector(vec![front]))]);
    assert_eq!((&rules[0].peers, rules[0].action), (&peers, Action::Deny));

    // What is not one thing is none.
    for (direction, peer, to, instead) in [
        ("ingress", "from", nodes, "peer 0 by \"nodes\""),
        (
            "egress",
            "to",
            json!({"nodes": {}, "networks": ["::/0"]}),
            "peer 0 by 2 fields",
        ),
        (
            "egress",
            "to",
            json!({"namespaces": {}, "domainNames": ["a.b"]}),
            "peer 0 by 2 fields",
        ),
        (
            "egress",
            "to",
            json!({"domainNames": ["a.b"]}),
            "peer 0 by \"domainNames\"",
        ),
    ] {
        for (action, means) in [
            ("Accept", "it matches nothing"),
            ("Deny", "it denies everything"),
        ] {
            let (_, _, findings) =
                policies::cluster_network_policy(&object(direction, peer, action, to.clone()));
            let expected = format!("{direction}[0]: {instead} is not known here: {means}");
            assert_eq!(findings, [expected]);
        }
    }
    let mut both = object("egress", "to", "Accept", json!({"networks": ["::/0"]}));
    both.spec.egress[0].protocols = vec![ClusterNetworkPolicyProtocol {
        tcp: Some(ClusterNetworkPolicyPorts::default()),
        udp: Some(ClusterNetworkPolicyPorts::default()),
        ..ClusterNetworkPolicyProtocol::default()
    }];
    let (_, _, findings) = policies::cluster_network_policy(&both);
    let expected = "egress[0]: protocol 0 is not known here: it matches nothing";
    assert_eq!(findings, [expected]);

    // They are asked for where they are meant, and nothing is decided before they are known.
    let mut folded = Policies::new("node-a");
    folded.network_policy(Event::Restarted);
    folded.network_policy(Event::Synced);
    folded.cluster_network_policy(Event::Restarted);
    let policy = object("egress", "to", "Deny", json!({"nodes": {}}));
    folded.cluster_network_policy(Event::Applied(policy));
    folded.cluster_network_policy(Event::Synced);
    folded.pod(Event::Restarted);
    folded.pod(Event::Synced);
    folded.namespace(Event::Restarted);
    folded.namespace(Event::Synced);
    assert!(folded.asks_for_nodes() && !folded.synced());
    folded.node(Event::Restarted);
    let node = |address: &str| -> objects::Node {
        serde_json::from_value(json!({
            "metadata": {"name": "n", "labels": {"tier": "front"}},
            "status": {"addresses": [
                {"type": "InternalIP", "address": address},
                {"type": "Hostname", "address": "n"},
            ]},
        }))
        .unwrap()
    };
    folded.node(Event::Applied(node("192.0.2.7")));
    folded.node(Event::Synced);
    assert!(folded.synced() && folded.take_changed());
    let addresses = ["192.0.2.7".parse::<std::net::IpAddr>().unwrap()];
    assert_eq!(folded.world().nodes["n"].addresses, addresses);
    folded.node(Event::Applied(node("192.0.2.7")));
    assert!(!folded.take_changed(), "nothing new");
    folded.node(Event::Applied(node("192.0.2.8")));
    assert!(folded.take_changed());
}

#[test]
fn watches_are_folded() {
    fn object<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).unwrap()
    }
    let mut folded = Policies::new("node-a");
    folded.serves_cluster_policies(false);
    folded.network_policy(Event::Restarted);
    folded.network_policy(Event::Synced);
    assert!(
        folded.synced() && !folded.asks_for_pods(),
        "no policies, no pods"
    );
    let policy = json!({"metadata": {"name": "p", "namespace": "ns", "uid": "1"}, "spec": {"podSelector": {}}});
    folded.network_policy(Event::Applied(object(policy.clone())));
    assert!(folded.take_changed() && folded.asks_for_pods() && !folded.synced());
    folded.network_policy(Event::Applied(object(policy.clone())));
    assert!(!folded.take_changed(), "nothing new");
    folded.pod(Event::Restarted);
    folded.namespace(Event::Restarted);
    let pod = |name: &str, host: bool, phase: &str| -> objects::Pod {
        object(json!({
            "metadata": {"name": name, "namespace": "ns", "uid": "uid"},
            "spec": {"nodeName": "node-a", "hostNetwork": host, "containers": [{"ports": [{"name": "http", "containerPort": 80}]}]},
            "status": {"phase": phase, "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]},
        }))
    };
    folded.pod(Event::Applied(pod("a", false, "Running")));
    folded.pod(Event::Applied(pod("host", true, "Running")));
    folded.pod(Event::Applied(pod("done", false, "Succeeded")));
    folded.namespace(Event::Applied(object(
        json!({"metadata": {"name": "ns", "labels": {"a": "b"}}}),
    )));
    folded.pod(Event::Synced);
    folded.namespace(Event::Synced);
    assert!(folded.synced() && folded.take_changed());
    let pods: Vec<String> = folded
        .world()
        .pods
        .keys()
        .map(ToString::to_string)
        .collect();
    assert_eq!(pods, ["ns/a"]);
    let host_pods = |folded: &Policies| -> Vec<String> {
        let host_pods = folded.world().host_pods.iter();
        host_pods
            .map(|(key, host)| format!("{key} {} {:?}", host.uid, host.pod.named_ports))
            .collect()
    };
    assert_eq!(host_pods(&folded), [r#"ns/host uid [("http", Tcp, 80)]"#]);
    // What kubelet knows from a file has a cgroup of another name.
    let mut mirror = pod("host", true, "Running");
    let annotation = ("kubernetes.io/config.mirror".to_owned(), "hash".to_owned());
    mirror.metadata.annotations.extend([annotation]);
    folded.pod(Event::Applied(mirror));
    assert_eq!(host_pods(&folded), [r#"ns/host hash [("http", Tcp, 80)]"#]);
    folded.pod(Event::Applied(pod("host", true, "Failed")));
    assert!(host_pods(&folded).is_empty());
    let read = folded.world().pods.values().next().unwrap();
    assert!(read.local && read.addresses.len() == 2 && read.named_ports.len() == 1);
    folded.pod(Event::Applied(pod("a", false, "Failed")));
    assert!(folded.world().pods.is_empty() && folded.take_changed());
    let mark = folded.world().policies.values().next().unwrap().mark;
    let mut other = policy;
    other["metadata"]["uid"] = json!("2");
    folded.network_policy(Event::Applied(object(other)));
    assert_ne!(
        folded.world().policies.values().next().unwrap().mark,
        mark,
        "another object of the name"
    );
    folded.network_policy(Event::Restarted);
    folded.network_policy(Event::Synced);
    assert!(folded.world().policies.is_empty());

    // What does not mean what is written in it is told apart, as long as that is so.
    let cluster = |to: Value| -> objects::ClusterNetworkPolicy {
        object(json!({"metadata": {"name": "p"}, "spec": {
            "tier": "Admin", "subject": {"namespaces": {}}, "egress": [{"action": "Deny", "to": [to]}],
        }}))
    };
    folded.serves_cluster_policies(true);
    let names = json!({"domainNames": ["example.com"]});
    folded.cluster_network_policy(Event::Applied(cluster(names.clone())));
    let key = PolicyKey::Cluster("p".into());
    assert!(folded.world().altered.contains(&key));
    folded.cluster_network_policy(Event::Applied(cluster(json!({"networks": ["::/0"]}))));
    assert!(folded.world().altered.is_empty());
    folded.cluster_network_policy(Event::Applied(cluster(names)));
    folded.serves_cluster_policies(false);
    assert!(folded.world().altered.is_empty());
}
