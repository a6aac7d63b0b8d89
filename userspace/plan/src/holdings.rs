//! What the kernel holds behind the frontends: rings and backends, by the service that they belong to, and
//! which of them nothing points at any more.

mod sources;
mod spreads;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use abi::{Backend, BackendId, Frontend, ServiceId, SourceKey, backends, family};
use model::ServiceKey;

use self::spreads::Spreads;
use crate::ids::Ids;
use crate::maglev::Words;
use crate::planner::{Capacities, Epoch, Left, Named};
use crate::problem::Table;
use crate::ranges::Ranges;
use crate::{FrontendKey, Reach, Step, Tables};

/// Rings and backends, as the kernel holds them once every planned step is done.
#[derive(Clone, Debug)]
pub(crate) struct Holdings {
    groups: BTreeMap<ServiceId, Group>,
    /// By first slot; without retired ones.
    rings: BTreeMap<u32, Ring>,
    ring_space: Ranges,
    spreads: Spreads,
    backend_ids: Ids,
    last_service: ServiceId,
    frontends4_len: usize,
    frontends6_len: usize,
    sources_len: usize,
    sources_max: usize,
    retired: VecDeque<(Epoch, Retired)>,
    cooling: VecDeque<(Epoch, BackendId)>,
    /// What no ring leads to any more, since somebody asked.
    pub(crate) left: Vec<Left>,
    /// Whether packets may go to backends of other nodes as they came.
    pub(crate) tunnels: bool,
    /// And how far those get.
    pub(crate) reach: Reach,
    /// Whether a table has room that it had not when somebody was last refused.
    pub(crate) room_grew: bool,
}

/// What carries one service identifier.
#[derive(Clone, Debug)]
struct Group {
    owner: Owner,
    /// In order of address and port, retired ones included.
    members: Vec<Member>,
    /// First slots of its rings. One, but for moments.
    rings: Vec<u32>,
    /// How many frontends carry the identifier.
    frontends: usize,
    /// Their IP protocol number; zero before there is one.
    protocol: u8,
    /// Ranges of clients, and since when they are not asked for.
    sources: BTreeMap<SourceKey, Option<Epoch>>,
    /// Whether the ranges are asked for.
    restricted: bool,
}

/// Whose an identifier is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// Found in the kernel; whoever has one of its frontends may take it over.
    Observed,
    /// This service's.
    Service(ServiceKey),
    /// Nobody's any more.
    Nobody,
}

#[derive(Clone, Copy, Debug)]
struct Member {
    id: BackendId,
    backend: Backend,
    /// Since when no ring leads to it.
    retired: Option<Epoch>,
}

#[derive(Clone, Debug)]
struct Ring {
    /// Zero where the kernel held nothing.
    backends: Box<[BackendId]>,
    /// How many frontends lead to it.
    frontends: usize,
    /// First element of its table in [`abi::spreads`], which the slot behind its last one names.
    spread: Option<u32>,
}

impl Ring {
    /// How many slots it takes.
    fn slots(&self) -> u32 {
        self.backends.len() as u32 + u32::from(self.spread.is_some())
    }
}

#[derive(Clone, Copy, Debug)]
enum Retired {
    Ring { offset: u32, len: u32 },
    Backend { service: ServiceId, id: BackendId },
    Source(SourceKey),
    Spread { offset: u32 },
}

impl Holdings {
    pub(crate) fn restore(tables: &Tables, capacities: Capacities, named: Named) -> Self {
        let used: BTreeSet<BackendId> = tables.backends.keys().copied().collect();
        let services = tables.frontends.values().map(|f| f.service);
        let services = services.chain(tables.backends.values().map(|b| b.service));
        let services = services.chain(tables.sources.iter().map(|s| s.service));
        let mut holdings = Holdings {
            groups: BTreeMap::new(),
            rings: BTreeMap::new(),
            ring_space: Ranges::new(capacities.rings),
            spreads: Spreads::new(capacities.spreads),
            backend_ids: Ids::new(capacities.backends, &used, named.backend),
            last_service: services.max().unwrap_or(0).max(named.service),
            frontends4_len: 0,
            frontends6_len: 0,
            sources_len: 0,
            sources_max: capacities.sources as usize,
            retired: VecDeque::new(),
            cooling: VecDeque::new(),
            left: Vec::new(),
            tunnels: false,
            reach: Reach::default(),
            room_grew: false,
        };
        for (id, backend) in &tables.backends {
            holdings.group(backend.service).members.push(Member {
                id: *id,
                backend: *backend,
                retired: None,
            });
        }
        for group in holdings.groups.values_mut() {
            group.members.sort_by_key(Member::place);
        }
        for (key, frontend) in &tables.frontends {
            holdings.restore_ring(tables, frontend);
            holdings.point(key, None, Some(*frontend));
        }
        holdings.retire_stray_slots(tables);
        holdings
            .spreads
            .retire_strays(tables, &mut holdings.retired);
        holdings.restore_sources(tables);
        holdings
    }

    /// Registers the ring of a frontend, if no other frontend led there. A range that overlaps another one
    /// in part (not of our writing) is not registered; its frontend never matches what is wanted, and is
    /// rewritten.
    fn restore_ring(&mut self, tables: &Tables, frontend: &Frontend) {
        let (offset, len) = (frontend.ring_offset, frontend.ring_len);
        let spread = tables.spread_of(frontend).map(|(_, table)| table);
        let spread = spread.filter(|table| self.spreads.restore(tables, *table, len));
        let taken = len.saturating_add(u32::from(spread.is_some()));
        if len > 0 && !self.rings.contains_key(&offset) && self.ring_space.take_at(offset, taken) {
            if let Some(table) = spread {
                self.spreads.lead(table);
            }
            let slots = offset..offset + len;
            let backends = slots.map(|slot| tables.rings.get(&slot).copied().unwrap_or(0));
            let ring = Ring {
                backends: backends.collect(),
                frontends: 0,
                spread,
            };
            self.rings.insert(offset, ring);
            self.group(frontend.service).rings.push(offset);
        }
    }

    /// Retires slots that hold something and belong to no ring: a process ended before it emptied them.
    fn retire_stray_slots(&mut self, tables: &Tables) {
        let mut stray: Vec<(u32, u32)> = Vec::new();
        for slot in tables.rings.keys() {
            if self.ring_space.take_at(*slot, 1) {
                match stray.last_mut() {
                    Some((offset, len)) if *offset + *len == *slot => *len += 1,
                    Some(_) | None => stray.push((*slot, 1)),
                }
            }
        }
        for (offset, len) in stray {
            self.retired.push_back((0, Retired::Ring { offset, len }));
        }
    }

    /// Writes the backends and the ring of a port, and gives its identifier and first slot. A ring that is
    /// right already stays.
    ///
    /// # Errors
    ///
    /// The table that has no room; nothing was changed then.
    pub(crate) fn place(
        &mut self,
        adopted: Option<ServiceId>,
        key: &ServiceKey,
        wanted: &[model::Backend],
        spread: Option<&Words>,
        backend_steps: &mut Vec<Step>,
        ring_steps: &mut Vec<Step>,
    ) -> Result<(ServiceId, u32), Table> {
        let group = adopted.and_then(|id| self.groups.get(&id));
        let known = |b: &model::Backend| group.and_then(|g| Some(g.members[g.find(b).ok()?].id));
        let ids: Vec<Option<BackendId>> = wanted.iter().map(known).collect();
        let missing = ids.iter().filter(|id| id.is_none()).count();
        if missing > self.backend_ids.available() {
            return Err(Table::Backends);
        }
        let same = |offset: &&u32| {
            let ring = &self.rings[*offset];
            let table = ring.spread.and_then(|table| self.spreads.words(table));
            let slots = ring.backends.iter();
            table == spread && slots.copied().map(Some).eq(ids.iter().copied())
        };
        let (ring_offset, ring_is_new) = if ids.is_empty() {
            (0, false)
        } else if let Some(offset) = group.and_then(|g| g.rings.iter().find(same)) {
            (*offset, false)
        } else {
            let len = u32::try_from(ids.len()).map_err(|_| Table::Rings)?;
            let len = len + u32::from(spread.is_some());
            let offset = self.ring_space.take(len).ok_or(Table::Rings)?;
            if spread.is_some_and(|words| !self.spreads.has_room_for(words)) {
                self.ring_space.give_back(offset, len);
                return Err(Table::Spreads);
            }
            (offset, true)
        };

        let service = adopted.unwrap_or_else(|| self.new_service());
        self.set_owner(service, Owner::Service(key.clone()));
        let mut ring = Vec::with_capacity(ids.len());
        for backend in wanted {
            ring.push(self.put_backend(service, backend, backend_steps));
        }
        if ring_is_new {
            let table = spread.and_then(|words| self.spreads.put(words, ring_steps));
            let mut slots = ring.clone();
            slots.extend(table);
            ring_steps.push(Step::PutRing {
                offset: ring_offset,
                backends: slots,
            });
            let ring = Ring {
                backends: ring.into(),
                frontends: 0,
                spread: table,
            };
            self.rings.insert(ring_offset, ring);
            self.group(service).rings.push(ring_offset);
        }
        Ok((service, ring_offset))
    }

    /// Makes a backend a member of the group; room was made sure of.
    fn put_backend(
        &mut self,
        service: ServiceId,
        backend: &model::Backend,
        steps: &mut Vec<Step>,
    ) -> BackendId {
        let tunnels = self.tunnels && self.reach.is_straight(backend.addr);
        let value = backend_value(service, backend, tunnels);
        let group = self.groups.entry(service).or_default();
        match group.find(backend) {
            Ok(at) => {
                let member = &mut group.members[at];
                member.retired = None;
                if member.backend != value {
                    member.backend = value;
                    steps.push(Step::PutBackend(member.id, value));
                }
                member.id
            }
            Err(at) => {
                let id = self.backend_ids.take().unwrap_or(0);
                debug_assert_ne!(id, 0, "place() counted the identifiers");
                let member = Member {
                    id,
                    backend: value,
                    retired: None,
                };
                group.members.insert(at, member);
                steps.push(Step::PutBackend(id, value));
                id
            }
        }
    }

    /// Notes that a frontend leads elsewhere now.
    pub(crate) fn point(
        &mut self,
        key: &FrontendKey,
        old: Option<Frontend>,
        new: Option<Frontend>,
    ) {
        let len = match Table::of(key) {
            Table::Frontends6 => &mut self.frontends6_len,
            Table::Frontends4
            | Table::Rings
            | Table::Backends
            | Table::Sources
            | Table::Spreads => &mut self.frontends4_len,
        };
        *len = *len + usize::from(new.is_some()) - usize::from(old.is_some());
        self.room_grew |= new.is_none();
        if let Some(new) = new {
            if let Some(ring) = self.ring_of(&new) {
                ring.frontends += 1;
            }
            let group = self.group(new.service);
            group.frontends += 1;
            if !key.is_whole_address() {
                group.protocol = key.proto();
            }
        }
        if let Some(old) = old {
            if let Some(ring) = self.ring_of(&old) {
                ring.frontends = ring.frontends.saturating_sub(1);
            }
            let group = self.group(old.service);
            group.frontends = group.frontends.saturating_sub(1);
        }
    }

    /// Retires what no frontend of the group leads to, and forgets an empty group.
    pub(crate) fn settle(&mut self, service: ServiceId, epoch: Epoch) {
        let Some(group) = self.groups.get_mut(&service) else {
            return;
        };
        group.rings.retain(|offset| {
            let led_to = self
                .rings
                .get(offset)
                .is_some_and(|ring| ring.frontends > 0);
            if !led_to && let Some(ring) = self.rings.remove(offset) {
                let (offset, len) = (*offset, ring.slots());
                self.retired
                    .push_back((epoch, Retired::Ring { offset, len }));
                if let Some(table) = ring.spread {
                    self.spreads.leave(table, epoch, &mut self.retired);
                }
            }
            led_to
        });
        let slots = group
            .rings
            .iter()
            .flat_map(|offset| &self.rings[offset].backends);
        let mut live: Vec<BackendId> = slots.copied().collect();
        live.sort_unstable();
        for member in &mut group.members {
            if member.retired.is_none() && live.binary_search(&member.id).is_err() {
                member.retired = Some(epoch);
                let id = member.id;
                self.left.push(Left {
                    protocol: group.protocol,
                    addr: crate::text::backend_addr(&member.backend),
                });
                self.retired
                    .push_back((epoch, Retired::Backend { service, id }));
            }
        }
        group.retire_sources(epoch, &mut self.retired);
        self.forget_if_empty(service);
    }

    /// Ends the time in which what was found in the kernel could be taken over; gives what was left.
    pub(crate) fn disown_observed(&mut self) -> Vec<ServiceId> {
        let groups = self.groups.iter_mut();
        let observed = groups.filter(|(_, group)| group.owner == Owner::Observed);
        let disown = |(id, group): (&ServiceId, &mut Group)| {
            group.owner = Owner::Nobody;
            *id
        };
        observed.map(disown).collect()
    }

    pub(crate) fn reclaim(&mut self, epoch: Epoch) -> Vec<Step> {
        let (mut rings, mut backends, mut sources) = (Vec::new(), Vec::new(), Vec::new());
        let mut spreads = Vec::new();
        while let Some((of, what)) = self.retired.pop_front_if(|(of, _)| *of <= epoch) {
            self.room_grew = true;
            match what {
                Retired::Ring { offset, len } => {
                    self.ring_space.give_back(offset, len);
                    rings.push(Step::ClearRing { offset, len });
                }
                Retired::Backend { service, id } => {
                    let Some(group) = self.groups.get_mut(&service) else {
                        continue;
                    };
                    // Retired once more, or taken back into use, since.
                    let still = |m: &Member| m.id == id && m.retired == Some(of);
                    let Some(at) = group.members.iter().position(still) else {
                        continue;
                    };
                    group.members.remove(at);
                    self.cooling.push_back((of, id));
                    self.forget_if_empty(service);
                    backends.push(Step::RemoveBackend(id));
                }
                Retired::Source(key) => sources.extend(self.forget_source(&key, of)),
                Retired::Spread { offset } => spreads.extend(self.spreads.forget(offset, of)),
            }
        }
        rings.append(&mut spreads);
        rings.append(&mut backends);
        rings.append(&mut sources);
        rings
    }

    pub(crate) fn release(&mut self, epoch: Epoch) {
        while let Some((_, id)) = self.cooling.pop_front_if(|(of, _)| *of <= epoch) {
            self.backend_ids.give_back(id);
            self.room_grew = true;
        }
    }

    pub(crate) fn has_retired(&self) -> bool {
        !self.retired.is_empty()
    }

    pub(crate) fn frontends_len(&self, table: Table) -> usize {
        match table {
            Table::Frontends4 => self.frontends4_len,
            Table::Frontends6 => self.frontends6_len,
            Table::Sources => self.sources_len,
            Table::Rings | Table::Backends | Table::Spreads => 0,
        }
    }

    pub(crate) fn set_owner(&mut self, service: ServiceId, owner: Owner) {
        self.group(service).owner = owner;
    }

    pub(crate) fn owner(&self, service: ServiceId) -> Option<&ServiceKey> {
        match &self.groups.get(&service)?.owner {
            Owner::Service(key) => Some(key),
            Owner::Observed | Owner::Nobody => None,
        }
    }

    /// Whether the identifier was found in the kernel and taken over by no service yet.
    pub(crate) fn is_unclaimed(&self, service: ServiceId) -> bool {
        let group = self.groups.get(&service);
        service != 0 && group.is_some_and(|group| group.owner == Owner::Observed)
    }

    fn group(&mut self, service: ServiceId) -> &mut Group {
        self.groups.entry(service).or_default()
    }

    fn ring_of(&mut self, frontend: &Frontend) -> Option<&mut Ring> {
        let ring = self.rings.get_mut(&frontend.ring_offset)?;
        (frontend.ring_len > 0 && ring.backends.len() == frontend.ring_len as usize).then_some(ring)
    }

    fn forget_if_empty(&mut self, service: ServiceId) {
        let unused = |g: &Group| {
            g.frontends == 0 && g.members.is_empty() && g.rings.is_empty() && g.sources.is_empty()
        };
        if self.groups.get(&service).is_some_and(unused) {
            self.groups.remove(&service);
        }
    }

    /// The next number; after 2^32 services it starts anew and passes over those in use.
    fn new_service(&mut self) -> ServiceId {
        loop {
            self.last_service = self.last_service.wrapping_add(1);
            if self.last_service != 0 && !self.groups.contains_key(&self.last_service) {
                return self.last_service;
            }
        }
    }
}

impl Default for Group {
    fn default() -> Self {
        Group {
            owner: Owner::Observed,
            members: Vec::new(),
            rings: Vec::new(),
            frontends: 0,
            protocol: 0,
            sources: BTreeMap::new(),
            restricted: false,
        }
    }
}

impl Group {
    /// Where a backend is among the members, or would be.
    fn find(&self, backend: &model::Backend) -> Result<usize, usize> {
        let place = (octets(backend.addr), backend.port);
        self.members.binary_search_by_key(&place, Member::place)
    }
}

impl Member {
    fn place(&self) -> ([u8; 16], u16) {
        (self.backend.addr, self.backend.port.get())
    }
}

fn backend_value(service: ServiceId, backend: &model::Backend, tunnels: bool) -> Backend {
    Backend {
        addr: octets(backend.addr),
        port: backend.port.into(),
        family: if backend.addr.is_ipv4() {
            family::V4
        } else {
            family::V6
        },
        flags: if backend.local {
            backends::flags::LOCAL
        } else if backend.on_node && tunnels {
            backends::flags::TUNNELS
        } else {
            0
        },
        service,
    }
}

fn octets(addr: IpAddr) -> [u8; 16] {
    match addr {
        IpAddr::V4(v4) => {
            let mut octets = [0; 16];
            octets[..4].copy_from_slice(&v4.octets());
            octets
        }
        IpAddr::V6(v6) => v6.octets(),
    }
}
