//! Policies between real sockets: every pair of ends, both families and protocols, on each way that packets take.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use abi::Counter;
use anyhow::Result;
use bpf::PolicyTable;
use model::Protocol;
use model::policy::{
    Action, Direction, Namespaces, Peer, Peers, PodKey, Policy, PolicyKey, Port, Ports,
    Requirement, Rule, Selection, Selector, Tier, World,
};
use plan::policy::{Inputs, PolicyLimits, PolicyPlanner};
use testbed::netns::Netns;
use testbed::probe::{self, How};
use testbed::topology::{CLIENT4, CLIENT6, NODE4, NODE6};

use crate::paths::{HTTP, Path, Stage, UDP};

/// A stage whose pods have policies.
struct Enforced {
    stage: Stage,
    world: World,
    planner: PolicyPlanner,
    table: PolicyTable,
    links: BTreeMap<IpAddr, u32>,
}

impl Enforced {
    fn set(stage: Stage) -> Result<Self> {
        let mut stage = stage;
        let mut world = World::default();
        let mut links = BTreeMap::new();
        world.namespaces.insert("x".into(), BTreeMap::new());
        for pod in stage.backends.iter().chain([stage.client_pod()]) {
            let addresses = [false, true].map(|v6| pod.address(v6));
            let key = PodKey {
                namespace: "x".into(),
                name: pod.name().into(),
            };
            let ifindex = testbed::balancer::ifindex(&stage.node, pod)?;
            links.extend(addresses.map(|addr| (addr, ifindex)));
            world.pods.insert(
                key,
                model::policy::Pod {
                    created: 1,
                    labels: BTreeMap::from([("pod".to_owned(), pod.name().to_owned())]),
                    addresses: addresses.to_vec(),
                    local: true,
                    named_ports: vec![("http".into(), Protocol::Tcp, HTTP)],
                },
            );
        }
        let table = stage.balancer()?.datapath().policy_table()?;
        let planner = PolicyPlanner::new(table.tables()?, PolicyLimits::default());
        Ok(Self {
            stage,
            world,
            planner,
            table,
            links,
        })
    }

    /// Makes what the world says hold.
    fn hold(&mut self) -> Result<()> {
        let node: [IpAddr; 4] = [
            NODE4.into(),
            NODE6.into(),
            [169, 254, 1, 1].into(),
            "fe80::1".parse()?,
        ];
        let plan = self.planner.plan(&Inputs {
            world: &self.world,
            links: &self.links,
            host_links: &BTreeMap::new(),
            open: &BTreeSet::new(),
            node: &node,
            now_secs: bpf::now_secs(),
            unix_secs: 0,
        });
        self.table.apply(&plan.steps)?;
        std::thread::sleep(Duration::from_millis(20));
        Ok(self.table.apply(&self.planner.garbage())?)
    }

    fn policies(&mut self, policies: Vec<(&str, Policy)>) -> Result<()> {
        self.world.policies = policies
            .into_iter()
            .map(|(name, policy)| (PolicyKey::Namespaced("x".into(), name.into()), policy))
            .collect();
        self.hold()
    }

    /// Who asks: name, address, namespace; pods, somebody outside and the node.
    fn askers(&self, v6: bool) -> Vec<(String, IpAddr, &Netns)> {
        let pod = |pod: &'_ testbed::topology::Pod| (pod.name().to_owned(), pod.address(v6));
        let mut askers = Vec::new();
        for of in [self.stage.client_pod(), &self.stage.backends[0]] {
            let (name, addr) = pod(of);
            askers.push((name, addr, of.netns()));
        }
        let outside: IpAddr = if v6 { CLIENT6.into() } else { CLIENT4.into() };
        askers.push((
            "outside".to_owned(),
            outside,
            self.stage.node.outside().netns(),
        ));
        let node: IpAddr = if v6 { NODE6.into() } else { NODE4.into() };
        askers.push(("node".to_owned(), node, self.stage.node.netns()));
        askers
    }

    /// Whether the tables let a conversation begin, at both of its ends.
    fn lets(&self, from: IpAddr, to: IpAddr, protocol: Protocol, port: u16) -> bool {
        let at = |end: IpAddr, direction, remote| {
            self.links.get(&end).is_none_or(|ifindex| {
                self.planner
                    .told()
                    .lets_begin(*ifindex, direction, remote, protocol.number(), port)
            })
        };
        let node = [IpAddr::from(NODE4), NODE6.into()].contains(&from);
        from == to || node || at(from, Direction::Egress, to) && at(to, Direction::Ingress, from)
    }

    /// Asks everybody from everywhere, and compares.
    fn compare(&self, what: &str) -> Result<usize> {
        let mut refused = 0;
        for v6 in [false, true] {
            let mut asked = Vec::new();
            for (name, addr, netns) in self.askers(v6) {
                let mut questions = Vec::new();
                for server in self.stage.pods(v6) {
                    for (how, protocol, port) in [
                        (How::Tcp, Protocol::Tcp, HTTP),
                        (How::UdpUnconnected, Protocol::Udp, UDP),
                    ] {
                        let passes = self.lets(addr, server, protocol, port);
                        questions.push((how, SocketAddr::new(server, port), passes));
                    }
                }
                refused += questions.iter().filter(|(_, _, passes)| !passes).count();
                asked.push((name, netns, questions));
            }
            let done: Vec<Result<()>> = std::thread::scope(|scope| {
                let start = |(name, netns, questions): (String, &Netns, Vec<_>)| {
                    let path = netns.path();
                    scope.spawn(move || ask(what, &name, &path, &questions))
                };
                let threads: Vec<_> = asked.into_iter().map(start).collect();
                let join =
                    |thread: std::thread::ScopedJoinHandle<'_, _>| thread.join().expect("no panic");
                threads.into_iter().map(join).collect()
            });
            done.into_iter().collect::<Result<()>>()?;
        }
        Ok(refused)
    }
}

/// Asks from a namespace.
fn ask(
    what: &str,
    name: &str,
    netns: &std::path::Path,
    questions: &[(How, SocketAddr, bool)],
) -> Result<()> {
    testbed::netns::enter(netns)?;
    for (how, server, passes) in questions {
        // What passes may take its time on a busy machine; what does not never comes.
        let limit = Duration::from_millis(if *passes { 8_000 } else { 200 });
        let seen = probe::ask(*how, *server, limit);
        let expected = if *passes { None } else { Some("timed out") };
        assert_eq!(
            seen.error.as_deref(),
            expected,
            "{what}: {name} to {server} {how:?}: {seen:?}"
        );
    }
    Ok(())
}

fn named(names: &[&str]) -> Selector {
    match names {
        [] => Selector::default(),
        names => {
            let values = names.iter().map(|name| (*name).to_owned()).collect();
            Selector(vec![Requirement::In("pod".to_owned(), values)])
        }
    }
}

fn pods(names: &[&str]) -> Peer {
    Peer::Pods(Selection {
        namespaces: Namespaces::One("x".into()),
        pods: named(names),
    })
}

fn policy(subject: &[&str], ingress: Option<Vec<Rule>>, egress: Option<Vec<Rule>>) -> Policy {
    use std::sync::atomic::{AtomicU64, Ordering};
    static MARK: AtomicU64 = AtomicU64::new(1);
    Policy {
        mark: MARK.fetch_add(1, Ordering::Relaxed),
        tier: Tier::Namespace,
        subject: Selection {
            namespaces: Namespaces::One("x".into()),
            pods: named(subject),
        },
        ingress,
        egress,
    }
}

fn allow(peers: Peers, ports: Ports) -> Rule {
    Rule {
        action: Action::Accept,
        peers,
        ports,
    }
}

fn tcp_only() -> Ports {
    Ports::Some(vec![Port::Named(Some(Protocol::Tcp), "http".into())])
}

#[test]
fn everybody_reaches_whom_the_policies_let() -> Result<()> {
    for straight in [false, true] {
        let mut stage = Stage::set(Path::PodLink)?;
        if straight {
            stage.go_straight()?;
        }
        let mut enforced = Enforced::set(stage)?;
        let block = |text: &str, except: &[&str]| Peer::Block {
            range: text.parse().expect("a range"),
            except: except
                .iter()
                .map(|text| text.parse().expect("a range"))
                .collect(),
        };
        let everything = || Rule {
            action: Action::Accept,
            peers: Peers::All,
            ports: Ports::All,
        };
        let cases = vec![
            ("no policy", vec![], false),
            (
                "default deny ingress",
                vec![("p", policy(&[], Some(vec![]), None))],
                true,
            ),
            (
                "default deny egress",
                vec![("p", policy(&[], None, Some(vec![])))],
                true,
            ),
            (
                "pods by label, one port",
                vec![(
                    "p",
                    policy(
                        &["web-0", "web-1"],
                        Some(vec![allow(
                            Peers::Some(vec![pods(&["client"])]),
                            tcp_only(),
                        )]),
                        None,
                    ),
                )],
                true,
            ),
            (
                "blocks with exceptions, in both directions",
                vec![
                    (
                        "in",
                        policy(
                            &["web-1"],
                            Some(vec![allow(
                                Peers::Some(vec![
                                    block("172.31.0.0/16", &[]),
                                    block("fd10:244::/64", &["fd10:244::10/128"]),
                                ]),
                                Ports::All,
                            )]),
                            None,
                        ),
                    ),
                    (
                        "out",
                        policy(
                            &["client"],
                            None,
                            Some(vec![allow(
                                Peers::Some(vec![
                                    block("0.0.0.0/0", &["10.244.0.12/32"]),
                                    block("fd10:244::12/128", &[]),
                                ]),
                                Ports::Some(vec![Port::Range(Protocol::Udp, 1, 65535)]),
                            )]),
                        ),
                    ),
                ],
                true,
            ),
            (
                "everything again, beside a policy that denies",
                vec![
                    ("deny", policy(&[], Some(vec![]), Some(vec![]))),
                    (
                        "allow",
                        policy(&[], Some(vec![everything()]), Some(vec![everything()])),
                    ),
                ],
                false,
            ),
        ];
        for (what, policies, refuses) in cases {
            enforced.policies(policies)?;
            let refused = enforced.compare(&format!("{what}, straight: {straight}"))?;
            assert_eq!(refused > 0, refuses, "{what}: {refused} refused");
        }
    }
    Ok(())
}

#[test]
fn a_service_s_client_is_judged_by_its_backend() -> Result<()> {
    for straight in [false, true] {
        for path in [
            Path::Socket,
            Path::PodLink,
            Path::TcNodePort,
            Path::XdpNodePort,
        ] {
            let mut stage = Stage::set(path)?;
            if straight {
                stage.go_straight()?;
            }
            for v6 in [false, true] {
                let backend = stage.pods(v6)[0];
                stage.serve(v6, &[backend], 0)?;
            }
            let mut enforced = Enforced::set(stage)?;
            for (what, policies, passes) in [
                (
                    "ingress of another",
                    vec![("p", policy(&["web-1"], Some(vec![]), None))],
                    true,
                ),
                (
                    "ingress",
                    vec![("p", policy(&["web-0"], Some(vec![]), None))],
                    false,
                ),
                (
                    "egress",
                    vec![("p", policy(&["client"], None, Some(vec![])))],
                    path == Path::TcNodePort || path == Path::XdpNodePort,
                ),
                (
                    "egress to the backend",
                    vec![(
                        "p",
                        policy(
                            &["client"],
                            None,
                            Some(vec![allow(Peers::Some(vec![pods(&["web-0"])]), tcp_only())]),
                        ),
                    )],
                    true,
                ),
            ] {
                enforced.policies(policies)?;
                for v6 in [false, true] {
                    if !passes && v6 != straight {
                        continue; // what never comes takes its time
                    }
                    let target = enforced.stage.target(v6, HTTP);
                    let seen = enforced.stage.client().probe(How::Tcp, target)?;
                    assert_eq!(
                        seen.error.is_none(),
                        passes,
                        "{path:?} {what} straight: {straight} {target}: {seen:?}"
                    );
                }
            }
        }
    }
    Ok(())
}

#[test]
fn connections_that_stand_are_judged_anew() -> Result<()> {
    use std::io::{Read as _, Write as _};
    for straight in [false, true] {
        let mut stage = Stage::set(Path::PodLink)?;
        if straight {
            stage.go_straight()?;
        }
        let mut enforced = Enforced::set(stage)?;
        let server = SocketAddr::new(enforced.stage.pods(false)[0], HTTP);
        // Who began what is older than the policies is told from the ports: the server's is the lower one. Here the
        // range that clients' ports come from begins below it.
        let connect = |enforced: &Enforced| {
            enforced.stage.client_pod().netns().run(|| {
                loop {
                    let limit = Duration::from_secs(8);
                    let stream = std::net::TcpStream::connect_timeout(&server, limit)?;
                    if stream.local_addr()?.port() > HTTP {
                        stream.set_read_timeout(Some(Duration::from_millis(700)))?;
                        return Ok(stream);
                    }
                }
            })
        };
        // Older than any policy, and let go on by the first one.
        let mut stream = connect(&enforced)?;
        let mut say = |what: &str, passes: bool| -> Result<()> {
            stream.write_all(b"GET / HTTP/1.1\r\nhost: testbed\r\n\r\n")?;
            let heard = stream.read(&mut [0; 4096]);
            assert_eq!(
                heard.as_ref().is_ok_and(|len| *len > 0),
                passes,
                "{what}, straight: {straight}: {heard:?}"
            );
            Ok(())
        };
        say("before", true)?;
        let lets = |names: &[&str]| {
            policy(
                &["web-0"],
                Some(vec![allow(Peers::Some(vec![pods(names)]), Ports::All)]),
                None,
            )
        };
        enforced.policies(vec![("p", lets(&["client"]))])?;
        say("let in", true)?;
        enforced.policies(vec![("p", lets(&["web-1"]))])?;
        say("no longer", false)?;
        enforced.policies(vec![("p", lets(&["client"]))])?;
        // What was said meanwhile was sent again, and is heard now.
        std::thread::sleep(Duration::from_millis(1500));
        let counters = enforced.stage.balancer()?.datapath().counters()?;
        let dropped = counters
            .iter()
            .find(|(counter, _)| *counter == Counter::DropPolicyIngress);
        assert!(dropped.is_some_and(|(_, value)| value.packets > 0));
        say("again", true)?;
    }
    Ok(())
}

/// Whoever may go on does while nobody holds the tables, loses nothing when the next agent takes over, and who may not
/// still may not.
#[test]
fn what_policies_say_outlives_the_agent() -> Result<()> {
    for straight in [false, true] {
        let mut stage = Stage::set(Path::PodLink)?;
        if straight {
            stage.go_straight()?;
        }
        let mut enforced = Enforced::set(stage)?;
        let client_only = allow(Peers::Some(vec![pods(&["client"])]), tcp_only());
        enforced.policies(vec![
            ("in", policy(&["web-0"], Some(vec![client_only]), None)),
            ("none", policy(&["web-1"], Some(vec![]), None)),
        ])?;
        for v6 in [false, true] {
            let open = SocketAddr::new(enforced.stage.pods(v6)[0], HTTP);
            let closed = SocketAddr::new(enforced.stage.pods(v6)[1], HTTP);
            let minute = Duration::from_secs(60);
            let load = |mode, count| testbed::Load {
                pause_micros: 500,
                ..testbed::Load::lasting(open, mode, count, minute)
            };
            let kept = enforced
                .stage
                .client()
                .start_load(&load(testbed::Mode::Keep, 3))?;
            let new = enforced
                .stage
                .client()
                .start_load(&load(testbed::Mode::Close, 2))?;
            let judge = |enforced: &Enforced, what: &str| {
                enforced.stage.client_pod().netns().run(|| {
                    let seen = probe::ask(How::Tcp, closed, Duration::from_millis(200));
                    let expected = Some("timed out");
                    assert_eq!(seen.error.as_deref(), expected, "{what}: {closed}");
                    let seen = probe::ask(How::Tcp, open, Duration::from_secs(8));
                    assert_eq!(seen.error, None, "{what}: {open}");
                    Ok(())
                })
            };
            judge(&enforced, "with an agent")?;
            enforced.stage.agent_goes();
            judge(&enforced, "without one")?;
            enforced.stage.agent_comes()?;
            judge(&enforced, "with the next")?;
            let (kept, new) = (kept.stop()?, new.stop()?);
            assert_eq!(kept.failed, 0, "kept connections: {:?}", kept.errors);
            assert_eq!(new.failed, 0, "new connections: {:?}", new.errors);
            assert!(kept.ok > 0 && new.ok > 0);
        }
    }
    Ok(())
}
