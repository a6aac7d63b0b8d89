//! The planner: what is wanted, what the kernel holds, and the steps from one to the other, at the cost of
//! what changed.
//!
//! The kernel's tables are the memory. A service port takes over the identifier that its frontends carry in
//! the restored tables, so a restart writes nothing that is right already. A changed set of backends goes
//! into a new range of the rings table, then each frontend is switched by one update; what nothing points at
//! any more is *retired* and stays readable until the caller says that no program can still read it
//! ([`Planner::reclaim`]), and its identifiers stay unused until flows have had time to forget them
//! ([`Planner::release`]).

mod claims;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use abi::balancing::Mode;
use abi::{Frontend, ServiceId, frontends};
use model::{Backend, Range, Service, ServiceKey, ServicePort};

use self::claims::Claimant;
use crate::entries::{LeadsTo, Wanted, entries};
use crate::holdings::{Holdings, Owner};
use crate::maglev;
use crate::problem::{Problem, Table};
use crate::{FrontendKey, Reach, Step, Tables};

/// Plans the tables of one node. A value: no clock, no input or output, no error.
#[derive(Clone, Debug)]
pub struct Planner {
    capacities: Capacities,
    holdings: Holdings,
    frontends: BTreeMap<FrontendKey, Slot>,
    /// Every claimant of the frontends that more than one service claims.
    contested: BTreeMap<FrontendKey, BTreeSet<Claimant>>,
    services: BTreeMap<ServiceKey, Planned>,
    /// Services that a full table kept from what they want.
    waiting: BTreeSet<ServiceKey>,
    epoch: Epoch,
    mode: Mode,
    /// Every service has a bound on its flows.
    limits: bool,
    /// Those that name one.
    bounded: BTreeSet<ServiceKey>,
}

/// Numbers the turns of a planner.
pub type Epoch = u64;

/// How many elements each table has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacities {
    /// Entries of [`frontends::NAME4`].
    pub frontends4: u32,
    /// Entries of [`frontends::NAME6`].
    pub frontends6: u32,
    /// Slots of [`abi::rings::NAME`].
    pub rings: u32,
    /// Elements of [`abi::backends::NAME`]; element zero stays empty.
    pub backends: u32,
    /// Entries of [`abi::sources::NAME`].
    pub sources: u32,
    /// Elements of [`abi::spreads::NAME`]; element zero stays empty.
    pub spreads: u32,
}

impl Default for Capacities {
    fn default() -> Self {
        Capacities {
            frontends4: frontends::CAPACITY,
            frontends6: frontends::CAPACITY,
            rings: abi::rings::CAPACITY,
            backends: abi::backends::CAPACITY,
            sources: abi::sources::CAPACITY,
            spreads: abi::spreads::CAPACITY,
        }
    }
}

/// The highest identifiers that something beside the planned tables still names: flows, affinities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// Highest service.
    pub service: ServiceId,
    /// Highest backend.
    pub backend: abi::BackendId,
}

/// What one turn decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What to do, in order.
    pub steps: Vec<Step>,
    /// This turn's number: once `steps` are done and a grace period is over, it may be reclaimed.
    pub epoch: Epoch,
    /// Services whose problems changed, each with all that it has now.
    pub problems: Vec<(ServiceKey, Vec<Problem>)>,
    /// Backends that new connections to their service no longer reach.
    pub left: Vec<Left>,
}

/// A backend that left its service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Left {
    /// IP protocol number.
    pub protocol: u8,
    /// Where it listens.
    pub addr: SocketAddr,
}

#[derive(Clone, Debug, Default)]
struct Slot {
    /// As the kernel holds it.
    held: Option<Frontend>,
    /// Whose it should be.
    owner: Option<Claimant>,
}

#[derive(Clone, Debug)]
struct Planned {
    service: Service,
    /// By port; zero where nothing was placed.
    ids: Vec<ServiceId>,
    problems: Vec<Problem>,
}

/// What a turn gathers. The stages keep every prefix of the steps whole: backends before the rings that name
/// them, rings before the frontends that name them, and nobody is kept out for a moment who may come in.
#[derive(Default)]
struct Turn {
    backends: Vec<Step>,
    rings: Vec<Step>,
    sources: Vec<Step>,
    frontends: Vec<Step>,
    /// Ranges of clients that a service that goes on being restricted no longer admits.
    shut_out: Vec<Step>,
    /// Services to write.
    dirty: BTreeSet<ServiceKey>,
    /// Frontends that a service no longer wants.
    let_go: Vec<FrontendKey>,
    /// Identifiers with less that leads to them, perhaps.
    touched: BTreeSet<ServiceId>,
    problems: BTreeMap<ServiceKey, Vec<Problem>>,
}

impl Planner {
    /// Takes over what the kernel holds.
    #[must_use]
    pub fn restore(tables: &Tables, capacities: Capacities, named: Named) -> Self {
        let held = |(key, frontend): (&FrontendKey, &Frontend)| {
            let slot = Slot {
                held: Some(*frontend),
                owner: None,
            };
            (*key, slot)
        };
        Planner {
            capacities,
            holdings: Holdings::restore(tables, capacities, named),
            frontends: tables.frontends.iter().map(held).collect(),
            contested: BTreeMap::new(),
            services: BTreeMap::new(),
            waiting: BTreeSet::new(),
            epoch: 0,
            mode: Mode::Snat,
            limits: false,
            bounded: BTreeSet::new(),
        }
    }

    /// Says how external traffic gets to backends of other nodes. What is planned before keeps its way until it is
    /// planned again.
    #[must_use]
    pub fn with_mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self.holdings.tunnels = mode != Mode::Snat;
        self
    }

    /// Says how far packets in packets get, as [`Planner::with_mode`] says whether there are any.
    #[must_use]
    pub fn with_reach(mut self, reach: Reach) -> Self {
        self.holdings.reach = reach;
        self
    }

    /// How far packets in packets get.
    #[must_use]
    pub fn reach(&self) -> &Reach {
        &self.holdings.reach
    }

    /// Says that anew.
    pub fn set_reach(&mut self, reach: Reach) {
        self.holdings.reach = reach;
    }

    /// Says whether every service has a bound on its flows, as [`Planner::with_mode`] says its way.
    #[must_use]
    pub fn with_limits(mut self, limits: bool) -> Self {
        self.limits = limits;
        self
    }

    /// Every service that has a bound on its flows, with its identifiers and the bound that it names; zero where it
    /// names none.
    pub fn bounded(&self) -> impl Iterator<Item = (&ServiceKey, &[ServiceId], u32)> {
        let every = self.services.iter().filter(|_| self.limits);
        let some = self.bounded.iter().filter(|_| !self.limits);
        let some = some.filter_map(|key| self.services.get_key_value(key));
        every
            .chain(some)
            .map(|(key, planned)| (key, &*planned.ids, planned.service.flows_max))
    }

    /// Plans changed services; `None` means that nothing is wanted of it any more. What the kernel held
    /// before and no service claimed yet is left alone.
    pub fn plan(&mut self, changes: Vec<(ServiceKey, Option<Service>)>) -> Plan {
        self.turn(changes, false)
    }

    /// Plans all that is wanted: a service that is not mentioned is gone, and what the kernel holds for
    /// nobody goes too.
    pub fn plan_all(&mut self, wanted: Vec<(ServiceKey, Service)>) -> Plan {
        let mentioned: BTreeSet<&ServiceKey> = wanted.iter().map(|(key, _)| key).collect();
        let gone: Vec<ServiceKey> = {
            let known = self.services.keys();
            known.filter(|k| !mentioned.contains(k)).cloned().collect()
        };
        let changes = gone.into_iter().map(|key| (key, None));
        let changes = changes.chain(wanted.into_iter().map(|(key, s)| (key, Some(s))));
        self.turn(changes.collect(), true)
    }

    /// Empties what was retired in `epoch` and before. Call it when no program that started before that
    /// epoch's steps were done can still be running. The emptied identifiers stay unused.
    pub fn reclaim(&mut self, epoch: Epoch) -> Vec<Step> {
        self.holdings.reclaim(epoch)
    }

    /// Lets identifiers be given out again that were reclaimed from `epoch` and before. Call it when flows
    /// and affinities have had time to forget them.
    pub fn release(&mut self, epoch: Epoch) {
        self.holdings.release(epoch);
    }

    /// The number of the last turn.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Whether something waits for [`Planner::reclaim`].
    #[must_use]
    pub fn has_retired(&self) -> bool {
        self.holdings.has_retired()
    }

    /// Whether a service waits for room that has come since: [`Planner::plan`] serves it, also without
    /// changes.
    #[must_use]
    pub fn can_retry(&self) -> bool {
        self.holdings.room_grew && !self.waiting.is_empty()
    }

    /// Every service with problems.
    pub fn problems(&self) -> impl Iterator<Item = (&ServiceKey, &[Problem])> {
        let services = self.services.iter().map(|(key, p)| (key, &*p.problems));
        services.filter(|(_, problems)| !problems.is_empty())
    }

    /// Tables without room for what is wanted; one may be named more than once.
    pub fn full_tables(&self) -> impl Iterator<Item = Table> {
        let waiting = self.waiting.iter().filter_map(|key| self.services.get(key));
        let problems = waiting.flat_map(|planned| &planned.problems);
        problems.filter_map(|problem| match problem {
            Problem::Full { table, .. } => Some(*table),
            Problem::Taken { .. } => None,
        })
    }

    /// The service and the name of the port that an identifier stands for.
    #[must_use]
    pub fn service_of(&self, id: ServiceId) -> Option<(&ServiceKey, &str)> {
        let key = self.holdings.owner(id)?;
        let planned = self.services.get(key)?;
        let port = planned.ids.iter().position(|i| *i == id)?;
        Some((key, &planned.service.ports[port].name))
    }

    /// The identifiers of a service's ports, in the order of its ports; zero where nothing is held.
    #[must_use]
    pub fn ids_of(&self, key: &ServiceKey) -> &[ServiceId] {
        self.services.get(key).map_or(&[], |planned| &planned.ids)
    }

    fn turn(&mut self, changes: Vec<(ServiceKey, Option<Service>)>, prune: bool) -> Plan {
        self.epoch += 1;
        let mut turn = Turn::default();
        // First who has what, then what is written: no frontend changes hands twice in a turn.
        for (key, service) in changes {
            self.declare(&key, service, &mut turn);
        }
        for frontend in std::mem::take(&mut turn.let_go) {
            self.remove_if_unowned(frontend, &mut turn);
        }
        self.place_dirty(&mut turn);
        if prune {
            self.prune(&mut turn);
        }
        while self.can_retry() {
            self.holdings.room_grew = false;
            turn.dirty.append(&mut self.waiting);
            self.place_dirty(&mut turn);
        }
        for id in &turn.touched {
            self.holdings.settle(*id, self.epoch);
        }
        let mut steps = turn.backends;
        steps.append(&mut turn.rings);
        // Who is no longer admitted goes last, or first where both do not fit beside each other.
        let held = self.holdings.frontends_len(Table::Sources) + turn.shut_out.len();
        if held > self.capacities.sources as usize {
            steps.append(&mut turn.shut_out);
        }
        steps.append(&mut turn.sources);
        steps.append(&mut turn.frontends);
        steps.append(&mut turn.shut_out);
        Plan {
            steps,
            epoch: self.epoch,
            problems: turn.problems.into_iter().collect(),
            left: std::mem::take(&mut self.holdings.left),
        }
    }

    /// Notes what is wanted of a service now and whose its frontends are.
    fn declare(&mut self, key: &ServiceKey, service: Option<Service>, turn: &mut Turn) {
        let old = self.services.remove(key);
        self.move_claims(
            key,
            old.as_ref().map(|old| &old.service),
            service.as_ref(),
            turn,
        );
        let (ids, problems) = old.map_or_else(Default::default, |old| (old.ids, old.problems));
        if service.as_ref().is_some_and(|it| it.flows_max != 0) {
            self.bounded.insert(key.clone());
        } else {
            self.bounded.remove(key);
        }
        if let Some(service) = service {
            let planned = Planned {
                service,
                ids,
                problems,
            };
            self.services.insert(key.clone(), planned);
            turn.dirty.insert(key.clone());
            return;
        }
        self.waiting.remove(key);
        turn.dirty.remove(key);
        for id in ids.into_iter().filter(|id| *id != 0) {
            self.holdings.set_owner(id, Owner::Nobody);
            turn.touched.insert(id);
        }
        if !problems.is_empty() {
            turn.problems.insert(key.clone(), Vec::new());
        }
    }

    fn place_dirty(&mut self, turn: &mut Turn) {
        while let Some(key) = turn.dirty.pop_first() {
            if let Some(planned) = self.services.remove(&key) {
                let planned = self.place_service(&key, planned, turn);
                self.services.insert(key, planned);
            }
        }
    }

    /// Writes a service as it is wanted and as far as its frontends are its own.
    fn place_service(&mut self, key: &ServiceKey, planned: Planned, turn: &mut Turn) -> Planned {
        let Planned {
            service,
            ids: mut spare,
            problems: old_problems,
        } = planned;
        spare.retain(|id| *id != 0);
        for id in &spare {
            self.holdings.set_owner(*id, Owner::Nobody);
            turn.touched.insert(*id);
        }
        let (mut ids, mut problems) = (Vec::new(), Vec::new());
        for (port, wanted) in service.ports.iter().zip(entries(
            &service,
            self.mode,
            &self.holdings.reach,
            self.limits,
        )) {
            let mut granted = Vec::with_capacity(wanted.len());
            for wanted in wanted {
                match &self.frontends[&wanted.key].owner {
                    Some(owner) if owner.key != *key => {
                        if wanted.leads_to != LeadsTo::Nothing {
                            problems.push(Problem::Taken {
                                frontend: wanted.key,
                                by: owner.key.clone(),
                            });
                        }
                    }
                    Some(_) | None => granted.push(wanted),
                }
            }
            let adopted = self.adopt(&granted, &mut spare);
            let placed = self.place(key, port, &granted, adopted, turn);
            ids.push(placed.id.unwrap_or(0));
            problems.extend(placed.problem);
        }
        if problems.iter().any(|p| matches!(p, Problem::Full { .. })) {
            self.waiting.insert(key.clone());
        } else {
            self.waiting.remove(key);
        }
        if problems != old_problems {
            turn.problems.insert(key.clone(), problems.clone());
        }
        Planned {
            service,
            ids,
            problems,
        }
    }

    /// The identifier that a port takes over: one that its frontends carry, if it was this service's or
    /// was found in the kernel and is nobody's yet.
    fn adopt(&self, granted: &[Wanted], spare: &mut Vec<ServiceId>) -> Option<ServiceId> {
        let held = granted
            .iter()
            .filter_map(|wanted| Some(self.frontends[&wanted.key].held?.service));
        for id in held {
            if let Some(at) = spare.iter().position(|s| *s == id) {
                spare.swap_remove(at);
                return Some(id);
            }
            if self.holdings.is_unclaimed(id) {
                return Some(id);
            }
        }
        None
    }

    /// Writes one port: its backends, its ring, its frontends; or nothing at all when a table is full.
    fn place(
        &mut self,
        key: &ServiceKey,
        port: &ServicePort,
        granted: &[Wanted],
        adopted: Option<ServiceId>,
        turn: &mut Turn,
    ) -> Placed {
        if let Some(id) = adopted {
            self.holdings.set_owner(id, Owner::Service(key.clone()));
        }
        if granted.is_empty() {
            return Placed::default();
        }
        let (fitting, mut problem) = self.fitting(granted);
        let mut has_spread = false;
        let placed = if fitting.is_empty() {
            None
        } else {
            let leads = |w: &Wanted| w.leads_to != LeadsTo::Nothing;
            let backends: &[Backend] = if fitting.iter().any(leads) {
                &port.backends
            } else {
                &[]
            };
            let checks = |w: &Wanted| w.leads_to.flags() & frontends::flags::CHECK_SOURCE != 0;
            let sources: &[Range] = if fitting.iter().any(checks) {
                &port.sources
            } else {
                &[]
            };
            let room = self.holdings.has_room_for_sources(adopted, sources);
            let placed = if room {
                let spread = maglev::spread(backends, port.choice);
                has_spread = spread.is_some();
                let (new, rings) = (&mut turn.backends, &mut turn.rings);
                self.holdings
                    .place(adopted, key, backends, spread.as_ref(), new, rings)
            } else {
                Err(Table::Sources)
            };
            match placed {
                Ok((id, ring_offset)) => {
                    let (new, old) = (&mut turn.sources, &mut turn.shut_out);
                    self.holdings.admit(id, sources, new, old);
                    Some((id, ring_offset))
                }
                Err(table) => {
                    problem = Some(self.full(table));
                    None
                }
            }
        };
        let Some((id, ring_offset)) = placed else {
            // What still leads to another service's backends must not go on doing so.
            for Wanted { key, .. } in granted {
                let held = self.frontends[key].held;
                if held.is_some_and(|held| Some(held.service) != adopted) {
                    self.remove_frontend(*key, turn);
                }
            }
            return Placed {
                id: adopted,
                problem,
            };
        };
        turn.touched.insert(id);
        for wanted in fitting {
            let nothing = Frontend {
                service: id,
                ..Frontend::default()
            };
            let value = match wanted.leads_to {
                LeadsTo::Nothing => nothing,
                LeadsTo::Ring { flags } => Frontend {
                    ring_offset,
                    ring_len: port.backends.len() as u32,
                    affinity_secs: port.affinity_secs,
                    flags: flags
                        | if has_spread {
                            frontends::flags::SPREAD
                        } else {
                            0
                        },
                    ..nothing
                },
            };
            self.put_frontend(wanted.key, value, turn);
        }
        Placed {
            id: Some(id),
            problem,
        }
    }

    /// Those of `granted` that the table of their family has room for, and the problem of the others.
    fn fitting(&self, granted: &[Wanted]) -> (Vec<Wanted>, Option<Problem>) {
        let mut room = [
            (self.capacities.frontends4 as usize)
                .saturating_sub(self.holdings.frontends_len(Table::Frontends4)),
            (self.capacities.frontends6 as usize)
                .saturating_sub(self.holdings.frontends_len(Table::Frontends6)),
        ];
        let mut problem = None;
        let mut fitting = Vec::with_capacity(granted.len());
        for wanted in granted {
            let table = Table::of(&wanted.key);
            let room = &mut room[usize::from(table == Table::Frontends6)];
            if self.frontends[&wanted.key].held.is_none() {
                if *room == 0 {
                    problem = Some(self.full(table));
                    continue;
                }
                *room -= 1;
            }
            fitting.push(*wanted);
        }
        (fitting, problem)
    }

    fn full(&self, table: Table) -> Problem {
        Problem::Full {
            table,
            capacity: match table {
                Table::Frontends4 => self.capacities.frontends4,
                Table::Frontends6 => self.capacities.frontends6,
                Table::Rings => self.capacities.rings,
                Table::Backends => self.capacities.backends,
                Table::Sources => self.capacities.sources,
                Table::Spreads => self.capacities.spreads,
            },
        }
    }

    fn put_frontend(&mut self, key: FrontendKey, value: Frontend, turn: &mut Turn) {
        let slot = self.frontends.entry(key).or_default();
        if slot.held == Some(value) {
            return;
        }
        let old = slot.held.replace(value);
        self.holdings.point(&key, old, Some(value));
        turn.touched.extend(old.map(|old| old.service));
        turn.frontends.push(Step::PutFrontend(key, value));
    }

    fn remove_frontend(&mut self, key: FrontendKey, turn: &mut Turn) {
        let slot = self.frontends.entry(key).or_default();
        if let Some(old) = slot.held.take() {
            self.holdings.point(&key, Some(old), None);
            turn.touched.insert(old.service);
            turn.frontends.push(Step::RemoveFrontend(key));
        }
    }

    fn remove_if_unowned(&mut self, key: FrontendKey, turn: &mut Turn) {
        if self.frontends.get(&key).is_some_and(|s| s.owner.is_none()) {
            self.remove_frontend(key, turn);
            self.frontends.remove(&key);
        }
    }

    /// Removes what the kernel held and no service claimed.
    fn prune(&mut self, turn: &mut Turn) {
        let unowned = self
            .frontends
            .iter()
            .filter(|(_, slot)| slot.owner.is_none());
        let unowned: Vec<FrontendKey> = unowned.map(|(key, _)| *key).collect();
        for key in unowned {
            self.remove_if_unowned(key, turn);
        }
        turn.touched.extend(self.holdings.disown_observed());
    }
}

#[derive(Default)]
struct Placed {
    id: Option<ServiceId>,
    problem: Option<Problem>,
}
