//! What the programs' table holds, and how it becomes what the cluster's next snapshot says.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use abi::dns::{LEASE_SECS, Reason};
use abi::{DnsAnswer, DnsControl, DnsName};
use zone::Snapshot;

use super::Table;
use super::plan::{Plan, Wanted};
use crate::cluster::{Cluster, Follower};

/// Keeps the table. Where the kernel refuses, the table is given up, and taken anew by whoever set it.
pub struct Mirror {
    answers: bool,
    service: (String, String),
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    table: Option<Box<dyn Table>>,
    plan: Option<Arc<Plan>>,
    cluster: Option<Arc<Cluster>>,
    /// What the table holds of each Service.
    known: HashMap<Arc<[u8]>, Box<[Wanted]>>,
    /// Whether the table holds what the last snapshot says.
    filled: bool,
    /// Services whose names found no room.
    left_out: BTreeSet<Arc<[u8]>>,
    /// Whether names went since somebody found no room.
    roomier: bool,
    control: DnsControl,
}

/// A lease that was, so that queries go to other endpoints than this process.
const OVER: u32 = 1;

/// How full the table is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fill {
    /// Names that are answered.
    pub names: usize,
    /// Services whose names found no room.
    pub left_out: usize,
    /// Queries that were answered, where that can be told.
    pub answered: Option<u64>,
}

impl Mirror {
    /// Of nothing yet. `service` is the DNS Service's namespace and name.
    #[must_use]
    pub fn new(answers: bool, service: (String, String)) -> Self {
        Mirror {
            answers,
            service,
            inner: Mutex::default(),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is a table that the programs read.
    #[must_use]
    pub fn has_table(&self) -> bool {
        let mut inner = self.inner();
        if inner
            .table
            .as_ref()
            .is_some_and(|table| !table.is_current())
        {
            inner.table = None;
        }
        inner.table.is_some()
    }

    /// Takes a table, which is filled by the next snapshot.
    pub fn set_table(&self, table: Box<dyn Table>) {
        let mut inner = self.inner();
        inner.table = Some(table);
        inner.forget();
    }

    /// Which names are answered from now on; nothing is before the next snapshot.
    pub fn set_plan(&self, plan: Option<Arc<Plan>>) {
        let mut inner = self.inner();
        inner.forget();
        inner.control.answers_reason = Reason::Unsynced as u8;
        if plan.is_none() {
            inner.control.answers_reason = match self.answers {
                true => Reason::Chain as u8,
                false => Reason::NotAsked as u8,
            };
        }
        inner.cluster = plan.as_ref().map(|plan| Arc::clone(plan.cluster()));
        inner.plan = plan;
        inner.tell();
    }

    /// Follows a cluster for the DNS Service's address alone.
    pub fn watch(&self, cluster: &Arc<Cluster>) {
        self.inner().cluster = Some(Arc::clone(cluster));
    }

    /// The cluster that is followed.
    #[must_use]
    pub fn cluster(&self) -> Option<Arc<Cluster>> {
        self.inner().cluster.clone()
    }

    /// How full the table is.
    #[must_use]
    pub fn fill(&self) -> Fill {
        let inner = self.inner();
        Fill {
            names: inner.known.values().map(|wanted| wanted.len()).sum(),
            left_out: inner.left_out.len(),
            answered: inner.table.as_ref().and_then(|table| table.answered().ok()),
        }
    }

    /// Renews the leases. `here` is where pods reach this process; `local` says whether they shall.
    pub fn renew(&self, here: &[SocketAddr], local: Result<(), Reason>) {
        let mut inner = self.inner();
        let Some(now_secs) = inner.table.as_ref().map(|table| table.now_secs()) else {
            return;
        };
        if let Some(cluster) = inner.cluster.clone() {
            let snapshot = cluster.snapshot();
            if inner.roomier && !inner.left_out.is_empty() {
                let again: Vec<_> = inner.left_out.iter().cloned().collect();
                inner.roomier = false;
                inner.change(&snapshot, &again);
            }
            self.look_up_service(&mut inner, &snapshot);
        }
        let until_secs = now_secs.saturating_add(LEASE_SECS);
        let control = &mut inner.control;
        (control.local4, control.local6, control.local_port) = Default::default();
        for address in here.iter().rev() {
            control.local_port = address.port().into();
            match address.ip() {
                IpAddr::V4(v4) => control.local4 = v4.octets(),
                IpAddr::V6(v6) => control.local6 = v6.octets(),
            }
        }
        let no_service = control.service_port.get() == 0;
        let lease = |state: Result<(), Reason>| match state {
            Err(reason) => (0, reason as u8),
            Ok(()) if no_service => (0, Reason::NoService as u8),
            Ok(()) => (until_secs, Reason::None as u8),
        };
        (control.local_until_secs, control.local_reason) = match (lease(local), local) {
            ((until_secs, reason), Ok(()) | Err(Reason::NotAsked)) => (until_secs, reason),
            ((_, reason), Err(_)) => (OVER, reason),
        };
        if inner.plan.is_some() {
            let answers = match inner.filled {
                true => Ok(()),
                false => Err(Reason::Unsynced),
            };
            let (until_secs, reason) = lease(answers);
            inner.control.answers_until_secs = until_secs;
            inner.control.answers_reason = reason;
        }
        inner.tell();
    }

    /// Ends both leases at once.
    pub fn close(&self, reason: Reason) {
        let mut inner = self.inner();
        inner.filled = false;
        inner.plan = None;
        if inner.control.answers_until_secs != 0 {
            inner.control.answers_until_secs = OVER;
        }
        inner.control.answers_reason = reason as u8;
        if inner.control.local_until_secs != 0 {
            inner.control.local_until_secs = OVER;
            inner.control.local_reason = reason as u8;
        }
        inner.tell();
    }

    fn look_up_service(&self, inner: &mut Inner, snapshot: &Snapshot) {
        let (namespace, name) = &self.service;
        let control = &mut inner.control;
        (control.service4, control.service6, control.service_port) = Default::default();
        let Some(service) = snapshot.service(namespace, name) else {
            return;
        };
        let Some((_, _, port)) = service.ports().find(|(_, protocol, _)| *protocol == "udp") else {
            return;
        };
        for ip in service.cluster_ips() {
            control.service_port = port.into();
            match ip {
                IpAddr::V4(v4) => control.service4 = v4.octets(),
                IpAddr::V6(v6) => control.service6 = v6.octets(),
            }
        }
    }
}

impl Follower for Mirror {
    fn all(&self, snapshot: &Snapshot) {
        let mut inner = self.inner();
        inner.fill(snapshot);
    }

    fn changed(&self, snapshot: &Snapshot, services: &[Arc<[u8]>]) {
        let mut inner = self.inner();
        if inner.filled {
            inner.change(snapshot, services);
        } else {
            inner.fill(snapshot);
        }
    }
}

impl Inner {
    /// Nothing is known of the table any more, and nothing is answered from it.
    fn forget(&mut self) {
        self.filled = false;
        self.known.clear();
        self.left_out.clear();
        self.control.answers_until_secs = 0;
    }

    /// Makes the table say what a snapshot says, whatever it said before.
    fn fill(&mut self, snapshot: &Snapshot) {
        let (Some(plan), Some(table)) = (self.plan.clone(), &mut self.table) else {
            return;
        };
        if !snapshot.synced() {
            return;
        }
        self.known.clear();
        self.left_out.clear();
        let mut wanted: HashMap<DnsName, (DnsAnswer, (Arc<[u8]>, u16))> = HashMap::new();
        for service in snapshot.service_keys() {
            let answers = plan.wanted(snapshot, service);
            for (zone, answer) in &answers {
                if let Some(name) = plan.name(*zone, service) {
                    wanted.insert(name, (*answer, (Arc::clone(service), *zone)));
                }
            }
            if !answers.is_empty() {
                self.known.insert(Arc::clone(service), answers);
            }
        }
        let held = match table.entries() {
            Ok(held) => held,
            Err(error) => return self.give_up(&error),
        };
        let mut remove = Vec::new();
        for (name, answer) in held {
            match wanted.get(&name) {
                Some((same, _)) if *same == answer => {
                    wanted.remove(&name);
                }
                Some(_) => {}
                None => remove.push(name),
            }
        }
        let (put, of): (Vec<_>, Vec<_>) = wanted
            .into_iter()
            .map(|(name, (answer, of))| ((name, answer), of))
            .unzip();
        match table.write(&remove, &put) {
            Ok(left_out) => self.leave_out(left_out.into_iter().filter_map(|at| of.get(at))),
            Err(error) => return self.give_up(&error),
        }
        self.filled = true;
        self.control.serial = snapshot.serial().into();
        self.tell();
    }

    /// Brings the names of some Services up to date.
    fn change(&mut self, snapshot: &Snapshot, services: &[Arc<[u8]>]) {
        let (Some(plan), Some(table)) = (self.plan.clone(), &mut self.table) else {
            return;
        };
        let (mut remove, mut put, mut of) = (Vec::new(), Vec::new(), Vec::new());
        for service in services {
            let wanted = plan.wanted(snapshot, service);
            self.left_out.remove(service);
            let known = self.known.get(service).map_or(&[][..], |known| known);
            if *known == *wanted {
                continue;
            }
            let gone = known
                .iter()
                .filter(|(zone, _)| wanted.iter().all(|(z, _)| z != zone));
            remove.extend(gone.filter_map(|(zone, _)| plan.name(*zone, service)));
            for (zone, answer) in wanted.iter().filter(|wanted| !known.contains(wanted)) {
                if let Some(name) = plan.name(*zone, service) {
                    put.push((name, *answer));
                    of.push((Arc::clone(service), *zone));
                }
            }
            match wanted.is_empty() {
                true => self.known.remove(service),
                false => self.known.insert(Arc::clone(service), wanted),
            };
        }
        self.roomier |= !remove.is_empty();
        match table.write(&remove, &put) {
            Ok(left_out) => self.leave_out(left_out.into_iter().filter_map(|at| of.get(at))),
            Err(error) => return self.give_up(&error),
        }
        self.control.serial = snapshot.serial().into();
        self.tell();
    }

    /// Names that found no room are tried again when others went, or when their Service changes.
    fn leave_out<'a>(&mut self, names: impl Iterator<Item = &'a (Arc<[u8]>, u16)>) {
        for (service, zone) in names {
            if let Some(known) = self.known.get_mut(service) {
                *known = known.iter().filter(|(z, _)| z != zone).copied().collect();
            }
            self.left_out.insert(Arc::clone(service));
        }
        self.control.left_out = u16::try_from(self.left_out.len()).unwrap_or(u16::MAX);
    }

    fn tell(&mut self) {
        if let Some(table) = &mut self.table
            && let Err(error) = table.set_control(&self.control)
        {
            self.give_up(&error);
        }
    }

    /// Nobody renews the lease of a table that cannot be written: the programs leave it within seconds.
    fn give_up(&mut self, error: &super::Failure) {
        tracing::error!(%error, "the kernel refuses the table of DNS names");
        self.table = None;
        self.forget();
    }
}
