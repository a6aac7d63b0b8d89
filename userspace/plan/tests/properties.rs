//! What holds on every prefix of every history: tables are whole, readers of yesterday find what they were
//! led to, a crash anywhere converges, and what is right already is never written.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use abi::frontends::flags::{CHECK_SOURCE, DROP, HASHED, LEAST, SPREAD};
use abi::{Backend, BackendId, Frontend};
use model::{Choice, Clients, FrontendKind, Protocol, Range, Service, ServiceKey, ServicePort};
use plan::{Capacities, Epoch, FrontendKey, Named, Planner, Problem, Step, Store, Tables, text};
use proptest::prelude::*;

type Desired = BTreeMap<ServiceKey, Service>;

const AMPLE: Capacities = Capacities {
    frontends4: 100,
    frontends6: 100,
    rings: 4000,
    backends: 4000,
    sources: 100,
    spreads: 2_000,
};

/// Before which epoch a program read a frontend, and where that leads.
type Reader = (Epoch, Frontend, Vec<(BackendId, Backend)>);

/// The kernel beside a planner, with what must not be pulled away under a running program.
struct World {
    planner: Planner,
    kernel: Tables,
    capacities: Capacities,
    /// What a program that read a frontend before that epoch still follows.
    readers: Vec<Reader>,
    /// Identifiers emptied and not released.
    cooling: BTreeMap<BackendId, Backend>,
}

impl World {
    fn new(capacities: Capacities) -> Self {
        let kernel = Tables::default();
        World {
            planner: Planner::restore(&kernel, capacities, Named::default()),
            kernel,
            capacities,
            readers: Vec::new(),
            cooling: BTreeMap::new(),
        }
    }

    fn apply(&mut self, steps: &[Step]) {
        for step in steps {
            if let Step::PutBackend(id, new) = step
                && let Some(old) = self.cooling.get(id)
            {
                panic!("{id} was {old:?}, is {new:?} and was not released");
            }
            self.kernel.apply(std::slice::from_ref(step)).unwrap();
            self.check(step);
        }
    }

    fn plan(&mut self, changes: Vec<(ServiceKey, Option<Service>)>) {
        let epoch = self.note_readers();
        let plan = self.planner.plan(changes);
        assert_eq!(plan.epoch, epoch);
        self.apply(&plan.steps);
    }

    fn plan_all(&mut self, desired: &Desired) -> Vec<Step> {
        self.note_readers();
        let plan = self.planner.plan_all(desired.clone().into_iter().collect());
        self.apply(&plan.steps);
        plan.steps
    }

    /// Programs start just before the next turn.
    fn note_readers(&mut self) -> Epoch {
        let epoch = self.planner.epoch() + 1;
        for frontend in self.kernel.frontends.values() {
            let reader = (epoch, *frontend, follow(&self.kernel, frontend).unwrap());
            self.readers.push(reader);
        }
        epoch
    }

    fn reclaim(&mut self) {
        let epoch = self.planner.epoch();
        self.readers.clear();
        let before = self.kernel.backends.clone();
        let steps = self.planner.reclaim(epoch);
        self.apply(&steps);
        for step in &steps {
            if let Step::RemoveBackend(id) = step {
                self.cooling.insert(*id, before[id]);
            }
        }
        assert!(!self.planner.has_retired());
    }

    fn release(&mut self) {
        let epoch = self.planner.epoch();
        self.planner.release(epoch);
        self.cooling.clear();
        self.plan(Vec::new());
    }

    fn restart(&mut self) {
        self.planner = Planner::restore(&self.kernel, self.capacities, Named::default());
        self.readers.clear();
        self.cooling.clear();
    }

    fn check(&self, step: &Step) {
        let kernel = &self.kernel;
        for (key, frontend) in &kernel.frontends {
            assert!(
                follow(kernel, frontend).is_some(),
                "{step:?}: {key} is not whole\n{kernel}"
            );
        }
        for (epoch, frontend, then) in &self.readers {
            let now = follow(kernel, frontend);
            let place = |(id, b): &(BackendId, Backend)| (*id, b.addr, b.port, b.service);
            assert_eq!(
                now.map(|now| now.iter().map(place).collect::<Vec<_>>()),
                Some(then.iter().map(place).collect()),
                "{step:?} pulled a ring away under a reader of before turn {epoch}"
            );
        }
        let v4 = kernel
            .frontends
            .keys()
            .filter(|k| matches!(k, FrontendKey::V4(_)))
            .count();
        assert!(v4 <= self.capacities.frontends4 as usize);
        assert!(kernel.frontends.len() - v4 <= self.capacities.frontends6 as usize);
        assert!(kernel.sources.len() <= self.capacities.sources as usize);
        assert!(
            kernel
                .rings
                .keys()
                .all(|slot| *slot < self.capacities.rings)
        );
        assert!(
            kernel
                .backends
                .keys()
                .all(|id| (1..self.capacities.backends).contains(id))
        );
    }

    /// Nothing is in the tables that no frontend leads to.
    fn check_no_leftovers(&self) {
        let checking = |service| {
            let mut frontends = self.kernel.frontends.values();
            frontends.any(|f| f.service == service && f.flags & CHECK_SOURCE != 0)
        };
        for source in &self.kernel.sources {
            assert!(checking(source.service), "{}", self.kernel);
        }
        let mut slots = BTreeSet::new();
        let mut backends = BTreeSet::new();
        let mut spreads = BTreeSet::new();
        for frontend in self.kernel.frontends.values() {
            let has_spread = u32::from(frontend.flags & SPREAD != 0);
            let end = frontend.ring_offset + frontend.ring_len + has_spread;
            slots.extend(frontend.ring_offset..end);
            if has_spread != 0 {
                spreads.extend(spread(&self.kernel, frontend).unwrap());
            }
            backends.extend(
                follow(&self.kernel, frontend)
                    .unwrap()
                    .iter()
                    .map(|(id, _)| *id),
            );
        }
        assert!(
            self.kernel.rings.keys().copied().eq(slots),
            "{}",
            self.kernel
        );
        assert!(
            self.kernel.spreads.keys().copied().eq(spreads),
            "{}",
            self.kernel
        );
        assert!(
            self.kernel.backends.keys().copied().eq(backends),
            "{}",
            self.kernel
        );
    }
}

/// What a program finds that starts at `frontend`; `None` when it would find a hole or another service.
fn follow(tables: &Tables, frontend: &Frontend) -> Option<Vec<(BackendId, Backend)>> {
    if frontend.flags & SPREAD != 0 {
        spread(tables, frontend)?;
    }
    (frontend.ring_offset..frontend.ring_offset + frontend.ring_len)
        .map(|slot| {
            let id = *tables.rings.get(&slot)?;
            let backend = *tables.backends.get(&id)?;
            (backend.service == frontend.service).then_some((id, backend))
        })
        .collect()
}

/// The elements of the table behind a ring; `None` when a program would find a hole in it, or a place that the ring has
/// not.
fn spread(tables: &Tables, frontend: &Frontend) -> Option<std::ops::Range<u32>> {
    let slot = frontend.ring_offset + frontend.ring_len;
    let first = *tables.rings.get(&slot)?;
    let [places, _] = *tables.spreads.get(&first)?;
    let end = first + 1 + places.div_ceil(8);
    let mut elements = (first + 1..end).map(|element| tables.spreads.get(&element));
    let whole = elements.all(|words| {
        let mut bytes = words.into_iter().flatten().flat_map(|w| w.to_le_bytes());
        words.is_some() && bytes.all(|place| u32::from(place) <= frontend.ring_len)
    });
    whole.then_some(first..end)
}

/// What tables mean, apart from identifiers: by frontend its backends, affinity and flags, and who is admitted.
type Meaning = BTreeMap<String, (Vec<String>, u32, u32, Vec<String>)>;

fn meaning(tables: &Tables) -> Meaning {
    let backend = |(_, b): &(BackendId, Backend)| format!("{} {}", text::backend_addr(b), b.flags);
    let frontends = tables.frontends.iter().map(|(key, f)| {
        let mut backends: Vec<_> = follow(tables, f).unwrap().iter().map(backend).collect();
        backends.sort();
        let checked = f.flags & CHECK_SOURCE != 0;
        let admitted = tables
            .sources
            .iter()
            .filter(|s| checked && s.service == f.service);
        let admitted = admitted.map(text::source_range).collect();
        (
            key.to_string(),
            (backends, f.affinity_secs, f.flags & !SPREAD, admitted),
        )
    });
    frontends.collect()
}

/// What `desired` means, by a second way: services in order of age, first come first served.
fn reference(desired: &Desired) -> Meaning {
    let mut meaning = Meaning::new();
    let mut services: Vec<_> = desired.iter().collect();
    services.sort_by_key(|(key, service)| (service.created, (*key).clone()));
    for (_, service) in services {
        for port in &service.ports {
            let backend = |b: &model::Backend| {
                format!(
                    "{} {}",
                    std::net::SocketAddr::new(b.addr, b.port),
                    u8::from(b.local)
                )
            };
            let mut backends: Vec<_> = port.backends.iter().map(backend).collect();
            backends.sort();
            for f in &port.frontends {
                let addr = std::net::SocketAddr::new(f.addr, f.port);
                let outside = f.clients == Clients::External;
                let outside = if outside { " from outside" } else { "" };
                let key = format!("{addr}/{}{outside}", port.protocol);
                let checked = f.kind == FrontendKind::LoadBalancer && !port.sources.is_empty();
                let flags = u32::from(f.kind == FrontendKind::NodePort)
                    | if port.drops { DROP } else { 0 }
                    | if checked { CHECK_SOURCE } else { 0 }
                    | match port.choice {
                        Choice::Random => 0,
                        Choice::Maglev => HASHED,
                        Choice::LeastConnection => LEAST,
                    };
                let admitted = port.sources.iter().filter(|_| checked);
                let admitted = admitted.map(ToString::to_string).collect();
                let value = (backends.clone(), port.affinity_secs, flags, admitted);
                meaning.entry(key).or_insert(value);
                if f.kind == FrontendKind::ClusterIp {
                    meaning.insert(f.addr.to_string(), (Vec::new(), 0, 0, Vec::new()));
                }
            }
        }
    }
    meaning
}

/// A service identifier stands for one port of one service, and an endpoint is held once.
fn check_unique(world: &World, desired: &Desired) {
    let mut ids = BTreeSet::new();
    for key in desired.keys() {
        for id in world.planner.ids_of(key).iter().filter(|id| **id != 0) {
            assert!(ids.insert(*id), "{id} stands for two ports");
        }
    }
    let places = world
        .kernel
        .backends
        .values()
        .map(|b| (b.service, b.addr, b.port));
    let unique: BTreeSet<_> = places.clone().map(|(s, a, p)| (s, a, p.get())).collect();
    assert_eq!(unique.len(), places.count());
}

/// No frontend leads to a service that does not want it.
fn check_owned(world: &World, desired: &Desired) {
    for (key, frontend) in &world.kernel.frontends {
        let (service, _) = world
            .planner
            .service_of(frontend.service)
            .expect("somebody's");
        let wanted = reference(&Desired::from([(
            service.clone(),
            desired[service].clone(),
        )]));
        assert!(
            wanted.contains_key(&key.to_string()),
            "{key} leads to {service}"
        );
    }
}

fn addr(v4: bool, net: u8, host: u8) -> IpAddr {
    if v4 {
        IpAddr::from([10, net, 0, host])
    } else {
        IpAddr::from([0xfd00, u16::from(net), 0, 0, 0, 0, 0, u16::from(host)])
    }
}

/// Numbers of hosts, and whether each is local.
fn hosts_subset(hosts: u8) -> impl Strategy<Value = BTreeMap<u8, bool>> {
    prop::collection::btree_map(0..hosts, any::<bool>(), 0..usize::from(hosts))
}

fn backends(v4: bool, hosts: &BTreeMap<u8, bool>) -> Vec<model::Backend> {
    let backend = |(host, local): (&u8, &bool)| model::Backend {
        addr: addr(v4, 244, *host),
        port: 8080,
        local: *local,
        on_node: host % 2 == 0,
        weight: u16::from(host % 3) + 1,
    };
    hosts.iter().map(backend).collect()
}

fn port(hosts: u8) -> impl Strategy<Value = ServicePort> {
    let frontends = prop::collection::btree_set((0..4u8, 0..2u16, 0..4u8), 0..4);
    let sources = prop::collection::btree_set(0..4u8, 0..3);
    let hosts = hosts_subset(hosts);
    let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)];
    let affinity = prop_oneof![Just(0u32), Just(10)];
    let choice = prop_oneof![
        Just(Choice::Random),
        Just(Choice::Maglev),
        Just(Choice::LeastConnection)
    ];
    (
        (any::<bool>(), choice),
        protocol,
        frontends,
        hosts,
        affinity,
        sources,
        any::<bool>(),
    )
        .prop_map(
            |((v4, choice), protocol, frontends, hosts, affinity_secs, sources, drops)| {
                ServicePort {
                    name: "p".into(),
                    protocol,
                    frontends: frontends
                        .into_iter()
                        .map(|(host, port, kind)| model::Frontend {
                            addr: addr(v4, 96, host),
                            port: 80 + port,
                            kind: match kind {
                                0 => FrontendKind::NodePort,
                                1 => FrontendKind::ClusterIp,
                                _ => FrontendKind::LoadBalancer,
                            },
                            clients: if kind == 3 {
                                Clients::External
                            } else {
                                Clients::All
                            },
                        })
                        .collect(),
                    backends: backends(v4, &hosts),
                    affinity_secs,
                    choice,
                    drops,
                    sources: sources
                        .into_iter()
                        .filter_map(|net| Range::new(addr(v4, net, 0), if v4 { 24 } else { 48 }))
                        .collect(),
                }
            },
        )
}

fn service(hosts: u8) -> impl Strategy<Value = Service> {
    (0..3u64, prop::collection::vec(port(hosts), 0..3)).prop_map(|(created, ports)| Service {
        created,
        flows_max: 0,
        ports,
    })
}

fn key() -> impl Strategy<Value = ServiceKey> {
    (0..4u8).prop_map(|n| ServiceKey::new("default", &format!("s{n}")))
}

fn desired(hosts: u8) -> impl Strategy<Value = Desired> {
    prop::collection::btree_map(key(), service(hosts), 0..5)
}

#[derive(Clone, Debug)]
enum Turn {
    Change(Vec<(ServiceKey, Option<Service>)>),
    /// The same services with other endpoints: what happens most.
    Endpoints(BTreeMap<u8, bool>),
    Reclaim,
    Release,
    /// The process ends after so many of the next change's steps, and starts anew.
    Crash(usize),
}

fn turn(hosts: u8) -> impl Strategy<Value = Turn> {
    let change = (key(), prop::option::weighted(0.8, service(hosts)));
    prop_oneof![
        5 => prop::collection::vec(change, 1..3).prop_map(Turn::Change),
        5 => hosts_subset(hosts).prop_map(Turn::Endpoints),
        2 => Just(Turn::Reclaim),
        1 => Just(Turn::Release),
        1 => (0..30usize).prop_map(Turn::Crash),
    ]
}

/// Runs a history; returns what is wanted at its end.
fn run(world: &mut World, turns: Vec<Turn>) -> Desired {
    let mut wanted = Desired::new();
    for turn in turns {
        match turn {
            Turn::Change(changes) => {
                for (key, service) in &changes {
                    match service {
                        Some(service) => wanted.insert(key.clone(), service.clone()),
                        None => wanted.remove(key),
                    };
                }
                // One service may change twice in a history, not within one turn.
                let last: BTreeMap<_, _> = changes.into_iter().collect();
                world.plan(last.into_iter().collect());
            }
            Turn::Endpoints(hosts) => {
                for port in wanted.values_mut().flat_map(|service| &mut service.ports) {
                    port.backends = backends(
                        port.frontends.first().is_none_or(|f| f.addr.is_ipv4()),
                        &hosts,
                    );
                }
                let all = wanted
                    .iter()
                    .map(|(key, service)| (key.clone(), Some(service.clone())));
                world.plan(all.collect());
            }
            Turn::Reclaim => world.reclaim(),
            Turn::Release => world.release(),
            Turn::Crash(after) => {
                wanted.pop_first();
                let steps = {
                    let all = wanted.clone().into_iter().collect();
                    world.planner.plan_all(all).steps
                };
                world.readers.clear();
                world.apply(&steps[..after.min(steps.len())]);
                world.restart();
                world.plan_all(&wanted);
            }
        }
        check_unique(world, &wanted);
        check_owned(world, &wanted);
    }
    wanted
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_prefix_of_every_history_is_whole_and_the_end_is_what_is_wanted(
        turns in prop::collection::vec(turn(7), 1..12)
    ) {
        let mut world = World::new(AMPLE);
        let wanted = run(&mut world, turns);
        prop_assert_eq!(meaning(&world.kernel), reference(&wanted));
        world.reclaim();
        world.check_no_leftovers();
        prop_assert_eq!(world.plan_all(&wanted), vec![], "planning twice");
        let before = world.kernel.clone();
        world.restart();
        prop_assert_eq!(world.plan_all(&wanted), vec![], "planning after a restart");
        prop_assert_eq!(before, world.kernel);
    }

    #[test]
    fn full_tables_hurt_only_who_does_not_fit_and_room_is_used_when_it_comes(
        turns in prop::collection::vec(turn(6), 1..12),
        frontends in 1..6u32, rings in 1..12u32, backends in 2..12u32,
    ) {
        let tight = Capacities { frontends4: frontends, frontends6: frontends, rings, backends, sources: 3, spreads: 300 };
        let mut world = World::new(tight);
        let wanted = run(&mut world, turns);
        for (key, _) in world.planner.problems() {
            prop_assert!(wanted.contains_key(key));
        }
        // All but one service go; it waits no longer, or says why it does not fit.
        let mut wanted = wanted.into_iter();
        let Some((key, service)) = wanted.next() else { return Ok(()) };
        world.plan(wanted.map(|(key, _)| (key, None)).collect());
        world.reclaim();
        world.release();
        let last = Desired::from([(key, service)]);
        let full = world.planner.problems().any(|(_, p)| {
            p.iter().any(|p| matches!(p, Problem::Full { .. }))
        });
        if !full {
            prop_assert_eq!(meaning(&world.kernel), reference(&last));
        } else if last.keys().all(|key| world.planner.ids_of(key).iter().all(|id| *id == 0)) {
            // It holds nothing that could be in its own way.
            let mut fresh = World::new(tight);
            fresh.plan_all(&last);
            prop_assert!(fresh.planner.problems().next().is_some(), "there is room");
        }
    }

    #[test]
    fn a_crash_after_any_step_converges(
        a in desired(6), b in desired(6), c in desired(6), cut in 0..60usize, reclaimed in any::<bool>(),
    ) {
        let mut world = World::new(AMPLE);
        world.plan_all(&a);
        let mut steps = world.planner.plan_all(b.into_iter().collect()).steps;
        if reclaimed {
            steps.extend(world.planner.reclaim(Epoch::MAX));
        }
        world.apply(&steps[..cut.min(steps.len())]);
        world.restart();
        world.plan_all(&c);
        prop_assert_eq!(meaning(&world.kernel), reference(&c));
        world.reclaim();
        world.check_no_leftovers();
        check_unique(&world, &c);
    }

    #[test]
    fn tables_not_of_our_writing_are_repaired(
        frontends in prop::collection::vec((0..4u8, 0..3u32, 0..20u32, 0..8u32), 0..6),
        rings in prop::collection::btree_map(0..24u32, 0..12u32, 0..24),
        backends in prop::collection::btree_map(1..12u32, (0..3u32, 0..6u8), 0..12),
        c in desired(6),
    ) {
        let mut kernel = Tables { rings, ..Tables::default() };
        for (id, (service, host)) in backends {
            let mut addr = [0; 16];
            addr[..4].copy_from_slice(&[10, 244, 0, host]);
            let backend = Backend { addr, port: 8080.into(), family: 4, flags: 0, service };
            kernel.backends.insert(id, backend);
        }
        for (host, service, ring_offset, ring_len) in frontends {
            let key = abi::FrontendKey4 { addr: [10, 96, 0, host], port: 80.into(), proto: 6, scope: 0 };
            let value = Frontend { service, ring_offset, ring_len, ..Frontend::default() };
            kernel.frontends.insert(FrontendKey::V4(key), value);
        }
        let mut planner = Planner::restore(&kernel, AMPLE, Named::default());
        let plan = planner.plan_all(c.clone().into_iter().collect());
        kernel.apply(&plan.steps).unwrap();
        prop_assert_eq!(meaning(&kernel), reference(&c));
        kernel.apply(&planner.reclaim(plan.epoch)).unwrap();
        prop_assert_eq!(meaning(&kernel), reference(&c));
    }
}

/// `n` services of five endpoints each.
fn many(n: u32) -> Vec<(ServiceKey, Service)> {
    let service = |i: u32| {
        let [_, a, b, c] = i.to_be_bytes();
        let backend = |k: u8| model::Backend {
            addr: IpAddr::from([10, 128 + a, b, c]),
            port: 8000 + u16::from(k),
            local: k == 0,
            on_node: false,
            weight: model::Backend::WEIGHT,
        };
        let frontend = model::Frontend {
            addr: IpAddr::from([10, 64 + a, b, c]),
            port: 80,
            kind: FrontendKind::ClusterIp,
            clients: Clients::All,
        };
        let port = ServicePort {
            name: "http".into(),
            protocol: Protocol::Tcp,
            frontends: vec![frontend],
            backends: (0..5).map(backend).collect(),
            affinity_secs: 0,
            drops: false,
            sources: Vec::new(),
            choice: Choice::Random,
        };
        let ports = vec![port];
        (
            ServiceKey::new("default", &format!("s{i}")),
            Service {
                created: 0,
                flows_max: 0,
                ports,
            },
        )
    };
    (0..n).map(service).collect()
}

#[test]
fn a_change_costs_the_same_among_fifty_thousand() {
    #[expect(clippy::disallowed_methods, reason = "this is what is measured")]
    let start = std::time::Instant::now();
    let mut planner = Planner::restore(&Tables::default(), Capacities::default(), Named::default());
    let plan = planner.plan_all(many(50_000));
    let elapsed = start.elapsed();
    assert_eq!(plan.steps.len(), 50_000 * 8);
    if !cfg!(debug_assertions) {
        assert!(elapsed.as_millis() < 500, "{elapsed:?}");
    }
    let (key, mut service) = many(1).remove(0);
    service.ports[0].backends.pop();
    let plan = planner.plan(vec![(key, Some(service))]);
    assert_eq!(plan.steps.len(), 2, "{:?}", plan.steps);
    assert_eq!(planner.reclaim(plan.epoch).len(), 2);
}
