//! Addresses and node ports of Services.
//!
//! Each one given out is a key in the store, written in the same atomic write as the Service that holds it: no crash
//! and no race can give it out twice or lose it. What is in memory only helps to find a free one.

mod address;
mod keep;
mod port;
mod ranges;
mod repair;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::field::FieldError;
use api::service::{self, AddressRefusal, Family};
use api::status::Status;
use api::value::{at, list, number, object_mut, set, text};
use api::{meta, net};
use ipnet::IpNet;
use serde_json::{Value, json};
use storage::{Range, Revision, Storage, Write};

use crate::Error;
use crate::handlers::storage_failure;
use address::AddressRange;
use port::PortRange;
use repair::Conflict;

pub(crate) use keep::keep;
pub(crate) use ranges::{begin, follow};

/// An address that is in use is an IPAddress object, as in Kubernetes since 1.33.
const ADDRESSES: &str = "/registry/ipaddresses/";
const PORTS: &str = "/registry/ranges/servicenodeports/";

/// The label that says who made an IPAddress, and its value for those of Services.
const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
const MANAGER: &str = "ipallocator.k8s.io";

/// Something that one Service holds and no other may.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum Claim {
    Address(IpAddr),
    Port(u16),
}

impl Claim {
    fn key(self) -> String {
        match self {
            Claim::Address(address) => format!("{ADDRESSES}{address}"),
            Claim::Port(port) => format!("{PORTS}{port}"),
        }
    }

    fn from_key(key: &str) -> Option<Self> {
        if let Some(address) = key.strip_prefix(ADDRESSES) {
            return address.parse().ok().map(Claim::Address);
        }
        key.strip_prefix(PORTS)?.parse().ok().map(Claim::Port)
    }
}

/// The object that says whose the address is; `owner` is the Service's namespace and name.
fn ip_address(address: IpAddr, owner: &str) -> bytes::Bytes {
    let (namespace, name) = owner.split_once('/').unwrap_or(("", owner));
    crate::object::encode(&json!({
        "kind": "IPAddress", "apiVersion": "networking.k8s.io/v1",
        "metadata": {
            "name": address.to_string(),
            "uid": uuid::Uuid::new_v4().to_string(),
            "creationTimestamp": meta::timestamp(time::OffsetDateTime::now_utc()),
            "labels": {
                "ipaddress.kubernetes.io/ip-family": if address.is_ipv4() { "IPv4" } else { "IPv6" },
                MANAGED_BY: MANAGER,
            },
        },
        "spec": {"parentRef": {"group": "", "resource": "services", "namespace": namespace, "name": name}},
    }))
}

/// What stands at the key of a claim.
fn value_of(claim: Claim, owner: &str) -> bytes::Bytes {
    match claim {
        Claim::Address(address) => ip_address(address, owner),
        Claim::Port(_) => bytes::Bytes::from(json!({"service": owner}).to_string()),
    }
}

/// The first address of a range, which belongs to the API itself.
pub(crate) fn first_address(cidr: IpNet) -> IpAddr {
    AddressRange::new(cidr).first()
}

/// Gives out addresses and ports, and takes them back.
pub(crate) struct Allocator {
    storage: Arc<dyn Storage>,
    pool: Arc<Mutex<Pool>>,
    families: Vec<Family>,
    api_address: IpAddr,
    bounds: RangeInclusive<u16>,
    /// The ranges that the server was started with.
    configured: Vec<IpNet>,
    /// Found at the start, before anybody could be told.
    conflicts: Mutex<Vec<Conflict>>,
}

/// What is free, as far as is known.
struct Pool {
    addresses: Vec<AddressRange>,
    ports: PortRange,
}

impl Pool {
    /// Whether these are other ranges than before; what is taken in them has to be learnt then.
    fn set_ranges(&mut self, wanted: &[IpNet]) -> bool {
        let known = self.addresses.iter().map(AddressRange::network);
        if known.eq(wanted.iter().map(IpNet::trunc)) {
            return false;
        }
        self.addresses = wanted
            .iter()
            .map(|range| AddressRange::new(*range))
            .collect();
        true
    }

    fn mark(&mut self, claim: Claim) {
        match claim {
            Claim::Address(address) => self
                .addresses
                .iter_mut()
                .for_each(|range| range.mark(address)),
            Claim::Port(port) => self.ports.mark(port),
        }
    }

    fn release(&mut self, claim: Claim) {
        match claim {
            Claim::Address(address) => self
                .addresses
                .iter_mut()
                .for_each(|range| range.release(address)),
            Claim::Port(port) => self.ports.release(port),
        }
    }
}

/// What one change of a Service takes and gives back. Dropped without [`Grant::keep`], it all stays as it was.
#[derive(Default)]
pub(crate) struct Grant {
    pool: Option<Arc<Mutex<Pool>>>,
    owner: String,
    taken: BTreeSet<Claim>,
    /// With the revision at which the key stands.
    freed: BTreeMap<Claim, Revision>,
}

impl Grant {
    /// To be written together with the Service.
    pub(crate) fn writes(&self) -> Vec<Write> {
        let taken = self.taken.iter().map(|claim| Write::Create {
            key: claim.key(),
            value: value_of(*claim, &self.owner),
        });
        let freed = self.freed.iter().map(|(claim, at)| Write::Delete {
            key: claim.key(),
            expected: *at,
        });
        taken.chain(freed).collect()
    }

    /// The writes were carried out.
    pub(crate) fn keep(mut self) {
        self.taken.clear();
        if let Some(pool) = &self.pool {
            let mut pool = lock(pool);
            self.freed.keys().for_each(|claim| pool.release(*claim));
        }
    }

    /// The writes were refused because this key exists: somebody else holds what it stands for.
    pub(crate) fn refuse(mut self, key: &str) {
        if let Some(claim) = Claim::from_key(key) {
            self.taken.remove(&claim);
        }
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        if let Some(pool) = &self.pool
            && !self.taken.is_empty()
        {
            let mut pool = lock(pool);
            self.taken.iter().for_each(|claim| pool.release(*claim));
        }
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Allocator {
    /// Sees to it that every Service has its claims, and learns from the store what is taken.
    pub(crate) async fn load(
        storage: Arc<dyn Storage>,
        cidrs: &[IpNet],
        ports: RangeInclusive<u16>,
    ) -> Result<Self, Error> {
        let addresses: Vec<AddressRange> =
            cidrs.iter().map(|cidr| AddressRange::new(*cidr)).collect();
        let families = addresses
            .iter()
            .map(|range| {
                if range.is_ipv4() {
                    Family::V4
                } else {
                    Family::V6
                }
            })
            .collect();
        let first = addresses.first().map(AddressRange::first);
        let allocator = Allocator {
            storage,
            api_address: first
                .ok_or_else(|| Error::Config("no range of Service addresses is given".into()))?,
            bounds: ports.clone(),
            pool: Arc::new(Mutex::new(Pool {
                addresses,
                ports: PortRange::new(ports),
            })),
            families,
            configured: cidrs.iter().map(IpNet::trunc).collect(),
            conflicts: Mutex::default(),
        };
        let doing = "reading which Service addresses and node ports are taken";
        let conflicts = allocator
            .repair()
            .await
            .map_err(|source| Error::Storage { doing, source })?;
        *lock(&allocator.conflicts) = conflicts;
        Ok(allocator)
    }

    /// Makes claims agree with Services, and learns what is taken.
    async fn repair(&self) -> Result<Vec<Conflict>, storage::Error> {
        let repair = repair::repair(&*self.storage).await?;
        if repair.changed > 0 {
            let claims = repair.changed;
            tracing::warn!(
                claims,
                "addresses and node ports of Services were not claimed as they are held; repaired"
            );
        }
        for Conflict {
            service, message, ..
        } in &repair.conflicts
        {
            let (namespace, name) = (meta::namespace(service), meta::name(service));
            tracing::warn!(namespace, name, "{message}");
        }
        self.reload().await?;
        Ok(repair.conflicts)
    }

    fn take_conflicts(&self) -> Vec<Conflict> {
        std::mem::take(&mut *lock(&self.conflicts))
    }

    /// The address of the Service `kubernetes`.
    pub(crate) fn api_address(&self) -> IpAddr {
        self.api_address
    }

    async fn reload(&self) -> Result<(), storage::Error> {
        let mut claims = Vec::new();
        for prefix in [ADDRESSES, PORTS] {
            let page = self
                .storage
                .list(Range {
                    prefix: prefix.into(),
                    ..Range::default()
                })
                .await?;
            claims.extend(
                page.entries
                    .iter()
                    .filter_map(|entry| Claim::from_key(&entry.key)),
            );
        }
        let mut pool = lock(&self.pool);
        pool.addresses.iter_mut().for_each(AddressRange::clear);
        pool.ports.clear();
        claims.into_iter().for_each(|claim| pool.mark(claim));
        // Never given out by chance: the API's own Service asks for it.
        pool.mark(Claim::Address(self.api_address));
        Ok(())
    }

    /// Fills in what `new` still lacks, and says what has to be written beside it. `old` is the Service as it stands;
    /// without `new` it is being deleted.
    ///
    /// # Errors
    /// 422 where an address or port that was asked for is out of range or taken, 500 where none is left.
    pub(crate) async fn grant(
        &self,
        new: Option<&mut Value>,
        old: Option<&Value>,
    ) -> Result<Grant, Status> {
        let held = old.map(claims).unwrap_or_default();
        let mut grant = Grant::default();
        grant.pool = Some(self.pool.clone());
        let wanted = match new {
            None => BTreeSet::new(),
            Some(new) => {
                grant.owner = format!("{}/{}", meta::namespace(new), meta::name(new));
                if let Some(old) = old {
                    drop_second_family(new, old);
                }
                service::assign_families(new, old, &self.families)
                    .map_err(|errors| Status::invalid("", "Service", meta::name(new), &errors))?;
                self.check_numbers(new)?;
                let asked = claims(new);
                for claim in asked.difference(&held) {
                    self.check(new, *claim).await?;
                }
                self.choose(new, &mut grant.taken).await?;
                let wanted = claims(new);
                grant.taken.extend(asked.difference(&held));
                lock_and_mark(&self.pool, &grant.taken);
                wanted
            }
        };
        for claim in held.difference(&wanted) {
            let entry = self
                .storage
                .get(&claim.key())
                .await
                .map_err(|e| storage_failure(&e))?;
            if let Some(entry) = entry {
                grant.freed.insert(*claim, entry.modified);
            }
        }
        Ok(grant)
    }

    /// Whether what the author asked for can be had.
    async fn check(&self, service: &Value, claim: Claim) -> Result<(), Status> {
        let taken = self
            .storage
            .get(&claim.key())
            .await
            .map_err(|e| storage_failure(&e))?
            .is_some();
        let name = meta::name(service);
        let refuse = |error: FieldError| Err(Status::invalid("", "Service", name, &[error]));
        match claim {
            Claim::Address(address) => {
                let why = if !lock(&self.pool)
                    .addresses
                    .iter()
                    .any(|range| range.contains(address))
                {
                    AddressRefusal::OutOfRange
                } else if taken {
                    AddressRefusal::Taken
                } else {
                    return Ok(());
                };
                refuse(service::address_refused(service, &address.to_string(), why))
            }
            Claim::Port(port) => {
                let outside_of = (!self.bounds.contains(&port))
                    .then_some((*self.bounds.start(), *self.bounds.end()));
                if outside_of.is_none() && !taken {
                    return Ok(());
                }
                let number_of = i64::from(port);
                let ports = list(service, &["spec", "ports"]);
                let at = ports
                    .iter()
                    .position(|port| number(port, &["nodePort"]) == number_of);
                let mut error = service::node_port_refused(at.unwrap_or(0), number_of, outside_of);
                if at.is_none() {
                    error.field = "spec.healthCheckNodePort".into();
                }
                refuse(error)
            }
        }
    }

    /// Refuses node ports that are not even numbers of ports, so that nobody can hold them. Zero leaves the choice open.
    fn check_numbers(&self, service: &Value) -> Result<(), Status> {
        let wrong = |value: &Value| {
            value
                .as_i64()
                .filter(|number| *number != 0 && node_port(value).is_none())
        };
        let bounds = Some((*self.bounds.start(), *self.bounds.end()));
        let ports = list(service, &["spec", "ports"]).iter().enumerate();
        let mut errors: Vec<FieldError> = ports
            .filter_map(|(index, port)| Some((index, wrong(at(port, &["nodePort"]))?)))
            .map(|(index, port)| service::node_port_refused(index, port, bounds))
            .collect();
        if let Some(port) = wrong(at(service, &["spec", "healthCheckNodePort"])) {
            let mut error = service::node_port_refused(0, port, bounds);
            error.field = "spec.healthCheckNodePort".into();
            errors.push(error);
        }
        if errors.is_empty() {
            return Ok(());
        }
        Err(Status::invalid("", "Service", meta::name(service), &errors))
    }

    /// Chooses what the author left open.
    async fn choose(&self, service: &mut Value, taken: &mut BTreeSet<Claim>) -> Result<(), Status> {
        let mut addresses = Vec::new();
        for wanted in service::wanted_addresses(service) {
            addresses.push(match wanted.named {
                Some(named) => named,
                None => {
                    let address = self.take_address(wanted.family).await?;
                    taken.insert(Claim::Address(address));
                    address.to_string()
                }
            });
        }
        service::set_addresses(service, &addresses);
        if service::needs_node_ports(service) {
            // Ports of one number and several protocols share a node port.
            let mut chosen: BTreeMap<i64, u16> = BTreeMap::new();
            for port in list(service, &["spec", "ports"]) {
                if let Some(node_port) = node_port(at(port, &["nodePort"])) {
                    chosen.entry(number(port, &["port"])).or_insert(node_port);
                }
            }
            let mut ports = list(service, &["spec", "ports"]).to_vec();
            for port in &mut ports {
                if node_port(at(port, &["nodePort"])).is_none() {
                    let known = chosen.get(&number(port, &["port"])).copied();
                    let node_port = match known {
                        Some(known) => known,
                        None => self.take_port().await?,
                    };
                    chosen.insert(number(port, &["port"]), node_port);
                    if known.is_none() {
                        taken.insert(Claim::Port(node_port));
                    }
                    set(port, "nodePort", node_port);
                }
            }
            if let Some(spec) = object_mut(service, "spec") {
                set(spec, "ports", ports);
            }
        }
        if service::needs_health_check_port(service)
            && node_port(at(service, &["spec", "healthCheckNodePort"])).is_none()
        {
            let port = self.take_port().await?;
            taken.insert(Claim::Port(port));
            if let Some(spec) = object_mut(service, "spec") {
                set(spec, "healthCheckNodePort", port);
            }
        }
        Ok(())
    }

    async fn take_address(&self, family: Family) -> Result<IpAddr, Status> {
        let take = || {
            let mut pool = lock(&self.pool);
            let address = pool
                .addresses
                .iter_mut()
                .filter(|range| range.is_ipv4() == (family == Family::V4))
                .find_map(AddressRange::take)?;
            // Ranges may overlap.
            pool.mark(Claim::Address(address));
            Some(address)
        };
        self.take(take, "failed to allocate a serviceIP: range is full")
            .await
    }

    async fn take_port(&self) -> Result<u16, Status> {
        self.take(
            || lock(&self.pool).ports.take(),
            "failed to allocate a nodePort: range is full",
        )
        .await
    }

    /// When all seems taken, the store has the last word: what is in memory may only err towards too much.
    async fn take<T>(&self, take: impl Fn() -> Option<T>, full: &str) -> Result<T, Status> {
        if let Some(found) = take() {
            return Ok(found);
        }
        self.reload().await.map_err(|e| storage_failure(&e))?;
        take().ok_or_else(|| Status::internal(full))
    }
}

fn lock_and_mark(pool: &Mutex<Pool>, claims: &BTreeSet<Claim>) {
    let mut pool = lock(pool);
    claims.iter().for_each(|claim| pool.mark(*claim));
}

/// Everything that a Service holds.
fn claims(service: &Value) -> BTreeSet<Claim> {
    let mut claims = BTreeSet::new();
    if service::needs_cluster_ip(service) {
        let addresses = list(service, &["spec", "clusterIPs"])
            .iter()
            .filter_map(Value::as_str);
        // `None` is no address.
        claims.extend(addresses.filter_map(net::parse_ip).map(Claim::Address));
    }
    for port in list(service, &["spec", "ports"]) {
        claims.extend(node_port(at(port, &["nodePort"])).map(Claim::Port));
    }
    claims.extend(node_port(at(service, &["spec", "healthCheckNodePort"])).map(Claim::Port));
    claims
}

/// A Service that goes from two families to one, and says nothing else of it, gives the second address back.
fn drop_second_family(new: &mut Value, old: &Value) {
    let policy = |service: &Value| text(service, &["spec", "ipFamilyPolicy"]).to_owned();
    if policy(new) != "SingleStack"
        || policy(old) == "SingleStack"
        || list(old, &["spec", "clusterIPs"]).len() != 2
    {
        return;
    }
    let unchanged: Vec<&str> = ["clusterIPs", "ipFamilies"]
        .into_iter()
        .filter(|key| at(new, &["spec", key]) == at(old, &["spec", key]))
        .collect();
    if let Some(spec) = object_mut(new, "spec") {
        for key in unchanged {
            let first: Vec<Value> = list(spec, &[key]).first().cloned().into_iter().collect();
            set(spec, key, first);
        }
    }
}

fn node_port(value: &Value) -> Option<u16> {
    value
        .as_u64()
        .and_then(|port| u16::try_from(port).ok())
        .filter(|port| *port > 0)
}
