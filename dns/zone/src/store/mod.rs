//! What watches say, folded into the next snapshot: one change costs one Service.

mod owners;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use api::selector::LabelSelector;
use view::objects;
use view::{Event, Listing};

use crate::host::{IMPORT_NAME, SERVICE_NAME, Slice};
use crate::service::{Declared, Entry, Key, key, namespace_label};
use crate::snapshot::{PodName, Snapshot};

/// What is folded, and how.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Endpoints without a hostname are named after their pods.
    pub endpoint_pod_names: bool,
    /// Only namespaces that this matches are exposed.
    pub namespace_selector: Option<LabelSelector>,
    /// EndpointSlices are not watched.
    pub no_endpoints: bool,
    /// Pods are watched.
    pub pods: bool,
    /// ServiceImports are watched.
    pub imports: bool,
}

/// Everything known of the cluster, and the snapshot that follows from it.
#[derive(Debug, Default)]
pub struct Store {
    options: Options,
    next: Snapshot,
    changed: bool,
    /// The serial in `next` was shown before its last change was.
    shares_serial: bool,
    /// Services of our own that were rendered since everything was heard of once, and since [`Store::take_rendered`].
    rendered: BTreeSet<Key>,
    ours: Side,
    imported: Side,
    slice_owners: BTreeMap<Object, Owned>,
    /// Addresses of each pod, by namespace and name.
    pod_addresses: BTreeMap<Object, Box<[IpAddr]>>,
    known_namespaces: BTreeMap<Arc<str>, Option<Arc<[u8]>>>,
    /// Each topology zone once.
    zones: BTreeSet<Arc<str>>,
    texts: BTreeSet<Arc<str>>,
    services: Listing<Object>,
    slices: Listing<Object>,
    namespaces: Listing<Arc<str>>,
    pods: Listing<Object>,
    imports: Listing<Object>,
}

/// Namespace and name.
type Object = (Arc<str>, Arc<str>);

/// The services that a slice belongs to: one of ours, an import, or both.
#[derive(Debug, Default, PartialEq, Eq)]
struct Owned {
    ours: Option<Key>,
    imported: Option<Key>,
}

/// Services of our own, or imports, before they are rendered.
#[derive(Debug, Default)]
struct Side {
    declared: BTreeMap<Key, Arc<Declared>>,
    slices: BTreeMap<Key, Vec<(Arc<str>, Arc<Slice>)>>,
}

impl Store {
    /// Nothing known yet.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let next = Snapshot {
            selective: options.namespace_selector.is_some(),
            ..Snapshot::default()
        };
        Store {
            options,
            next,
            ..Store::default()
        }
    }

    /// How this store folds.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The cluster as known at `now`, in seconds since 1970, which is the serial of what changed: it grows across
    /// restarts, and never runs ahead of the clock, so that no restart takes it back. Changes of one second
    /// therefore share a serial. Who transferred the zone between two of them learns of the later ones by one more
    /// serial, which [`Store::due`] asks for once that second is over.
    pub fn publish(&mut self, now: u64) -> Snapshot {
        if self.changed || self.shares_serial {
            match self.later(now) {
                Some(serial) => {
                    self.next.serial = serial;
                    self.shares_serial = false;
                }
                None => self.shares_serial = true,
            }
            self.changed = false;
        }
        self.next.clone()
    }

    /// Whether [`Store::publish`] would tell something new.
    #[must_use]
    pub fn due(&self, now: u64) -> bool {
        self.changed || self.shares_serial && self.later(now).is_some()
    }

    /// Whether changes are shown under a serial that was shown before them: it is time for another as soon as the
    /// clock goes on.
    #[must_use]
    pub fn shares_serial(&self) -> bool {
        self.shares_serial
    }

    /// The serial of an instant, if it follows the one before (RFC 1982: the difference, as a signed number, is
    /// positive). Zero is no serial: it stands for none yet.
    fn later(&self, now: u64) -> Option<u32> {
        let now = ((now & u64::from(u32::MAX)) as u32).max(1);
        let ahead = now.wrapping_sub(self.next.serial).cast_signed() > 0;
        (ahead || self.next.serial == 0).then_some(now)
    }

    /// Services whose answers may differ from those when this was asked last: the name's first two labels of each. Before
    /// everything was heard of once, none are told.
    pub fn take_rendered(&mut self) -> Vec<Arc<[u8]>> {
        std::mem::take(&mut self.rendered).into_iter().collect()
    }

    /// Whether something changed since the last snapshot.
    #[must_use]
    pub fn changed(&self) -> bool {
        self.changed
    }

    /// Whether everything that exists was heard of once.
    #[must_use]
    pub fn synced(&self) -> bool {
        self.next.synced
    }

    /// Folds what the watch of Services said.
    pub fn service(&mut self, event: Event<objects::Service>) {
        match event {
            Event::Restarted => {
                let known = self.ours.declared.keys().map(|key| object_of(key));
                self.services.restart(known);
            }
            Event::Applied(service) => {
                let meta = &service.metadata;
                self.services.mention(&object(&meta.namespace, &meta.name));
                if let Some(key) = key(&meta.namespace, &meta.name) {
                    let declared = Declared::service(&service);
                    self.declare(key, Some(declared), false);
                }
            }
            Event::Deleted { namespace, name } => {
                self.services.mention(&object(&namespace, &name));
                self.undeclare(&namespace, &name, false);
            }
            Event::Synced => {
                for (namespace, name) in self.services.finish() {
                    self.undeclare(&namespace, &name, false);
                }
                self.look_synced();
            }
        }
    }

    /// Folds what the watch of ServiceImports said.
    pub fn import(&mut self, event: Event<objects::ServiceImport>) {
        match event {
            Event::Restarted => {
                let known = self.imported.declared.keys().map(|key| object_of(key));
                self.imports.restart(known);
            }
            Event::Applied(import) => {
                let meta = &import.metadata;
                self.imports.mention(&object(&meta.namespace, &meta.name));
                if let Some(key) = key(&meta.namespace, &meta.name) {
                    let declared = Declared::import(&import);
                    self.declare(key, Some(declared), true);
                }
            }
            Event::Deleted { namespace, name } => {
                self.imports.mention(&object(&namespace, &name));
                self.undeclare(&namespace, &name, true);
            }
            Event::Synced => {
                for (namespace, name) in self.imports.finish() {
                    self.undeclare(&namespace, &name, true);
                }
                self.look_synced();
            }
        }
    }

    /// Folds what the watch of EndpointSlices said.
    pub fn slice(&mut self, event: Event<objects::EndpointSlice>) {
        match event {
            Event::Restarted => self.slices.restart(self.slice_owners.keys().cloned()),
            Event::Applied(slice) => self.apply_slice(&slice),
            Event::Deleted { namespace, name } => {
                let at = object(&namespace, &name);
                self.slices.mention(&at);
                self.drop_slice(&at);
            }
            Event::Synced => {
                for at in self.slices.finish() {
                    self.drop_slice(&at);
                }
                self.look_synced();
            }
        }
    }

    /// Folds what the watch of Namespaces said.
    pub fn namespace(&mut self, event: Event<objects::Namespace>) {
        match event {
            Event::Restarted => self
                .namespaces
                .restart(self.known_namespaces.keys().cloned()),
            Event::Applied(namespace) => {
                let name: Arc<str> = namespace.metadata.name.as_str().into();
                self.namespaces.mention(&name);
                let labels = || {
                    let labels = namespace.metadata.labels.iter();
                    labels.map(|(k, v)| (k.clone(), v.clone().into())).collect()
                };
                let selector = self.options.namespace_selector.as_ref();
                let exposed =
                    selector.is_none_or(|s| s.matches(&serde_json::Value::Object(labels())));
                let label = namespace_label(&name).filter(|_| exposed);
                self.set_namespace(name, Some(label));
            }
            Event::Deleted { namespace: _, name } => {
                let name: Arc<str> = name.into();
                self.namespaces.mention(&name);
                self.set_namespace(name, None);
            }
            Event::Synced => {
                for name in self.namespaces.finish() {
                    self.set_namespace(name, None);
                }
                self.look_synced();
            }
        }
    }

    /// Folds what the watch of Pods said.
    pub fn pod(&mut self, event: Event<objects::Pod>) {
        match event {
            Event::Restarted => self.pods.restart(self.pod_addresses.keys().cloned()),
            Event::Applied(pod) => {
                let at = self.shared(&pod.metadata.namespace, &pod.metadata.name);
                self.pods.mention(&at);
                let over = matches!(pod.status.phase.as_str(), "Succeeded" | "Failed");
                let first = std::iter::once(pod.status.pod_ip.as_str());
                let all = first.chain(pod.status.pod_ips.iter().map(|ip| ip.ip.as_str()));
                let mut addresses: Vec<IpAddr> = all.filter_map(|ip| ip.parse().ok()).collect();
                addresses.sort_unstable();
                addresses.dedup();
                if over {
                    addresses.clear();
                }
                self.set_pod(at, addresses.into());
            }
            Event::Deleted { namespace, name } => {
                let at = object(&namespace, &name);
                self.pods.mention(&at);
                self.set_pod(at, Box::default());
            }
            Event::Synced => {
                for at in self.pods.finish() {
                    self.set_pod(at, Box::default());
                }
                self.look_synced();
            }
        }
    }

    fn apply_slice(&mut self, slice: &objects::EndpointSlice) {
        let meta = &slice.metadata;
        let at = self.shared(&meta.namespace, &meta.name);
        self.slices.mention(&at);
        let zones = &mut self.zones;
        let mut shared = |zone: &str| share(zones, zone);
        let read = Slice::read(slice, self.options.endpoint_pod_names, &mut shared);
        let owner = |label: &str| {
            let name = meta.labels.get(label)?;
            key(&meta.namespace, name)
        };
        let (Some(read), owned) = (
            read,
            Owned {
                ours: owner(SERVICE_NAME),
                imported: owner(IMPORT_NAME).filter(|_| self.options.imports),
            },
        ) else {
            return self.drop_slice(&at);
        };
        if owned == Owned::default() {
            return self.drop_slice(&at);
        }
        if self.slice_owners.get(&at).is_some_and(|o| *o != owned) {
            self.drop_slice(&at);
        }
        let read = Arc::new(read);
        for (owner, imported) in [(&owned.ours, false), (&owned.imported, true)] {
            let Some(key) = owner else { continue };
            let slices = self.side(imported).slices.entry(key.clone()).or_default();
            match slices.binary_search_by(|(name, _)| name.cmp(&at.1)) {
                Ok(found) if slices[found].1 == read => continue,
                Ok(found) => slices[found].1 = read.clone(),
                Err(place) => {
                    slices.reserve_exact(1);
                    slices.insert(place, (at.1.clone(), read.clone()));
                }
            }
            self.render(key, imported);
        }
        self.slice_owners.insert(at, owned);
    }

    fn drop_slice(&mut self, at: &Object) {
        let Some(owned) = self.slice_owners.remove(at) else {
            return;
        };
        for (owner, imported) in [(owned.ours, false), (owned.imported, true)] {
            let Some(key) = owner else { continue };
            let side = self.side(imported);
            if let Some(slices) = side.slices.get_mut(&key) {
                slices.retain(|(name, _)| *name != at.1);
                if slices.is_empty() {
                    side.slices.remove(&key);
                }
            }
            self.render(&key, imported);
        }
    }

    fn undeclare(&mut self, namespace: &str, name: &str, imported: bool) {
        if let Some(key) = key(namespace, name) {
            self.declare(key, None, imported);
        }
    }

    fn declare(&mut self, key: Key, declared: Option<Declared>, imported: bool) {
        let side = self.side(imported);
        let before = side.declared.get(&key);
        if before.map(|d| &**d) == declared.as_ref() {
            return;
        }
        match declared {
            Some(declared) => side.declared.insert(key.clone(), Arc::new(declared)),
            None => side.declared.remove(&key),
        };
        self.render(&key, imported);
    }

    /// Makes a service's entry anew, and the reverse names that changed with it.
    fn render(&mut self, key: &Key, imported: bool) {
        let side = self.side(imported);
        let entry = side.declared.get(key).map(|declared| {
            let slices = side.slices.get(key).map_or(&[][..], |slices| slices);
            let slices = slices.iter().map(|(_, slice)| slice.clone()).collect();
            Arc::new(Entry::new(declared.clone(), slices))
        });
        let entries = if imported {
            &mut self.next.imports
        } else {
            &mut self.next.services
        };
        let before = match &entry {
            Some(entry) => entries.insert(key.clone(), entry.clone()),
            None => entries.remove(key),
        };
        if before.is_none() && entry.is_none() {
            return;
        }
        self.changed = true;
        if !imported {
            // Before everything was heard of, all of it is new.
            if self.next.synced {
                self.rendered.insert(key.clone());
            }
            self.reverse(key, before.as_deref(), entry.as_deref());
            self.outside(key, before.as_deref(), entry.as_deref());
        }
    }

    /// `Some(None)` is a namespace that exists and is not exposed.
    fn set_namespace(&mut self, name: Arc<str>, state: Option<Option<Arc<[u8]>>>) {
        let before = match &state {
            Some(label) => self.known_namespaces.insert(name, label.clone()),
            None => self.known_namespaces.remove(&name),
        };
        let (before, after) = (before.flatten(), state.flatten());
        if before == after {
            return;
        }
        self.changed = true;
        if self.next.selective && self.next.synced {
            // What is in it gets names, or loses them.
            let here = before.as_ref().or(after.as_ref());
            let keys = self.ours.declared.keys();
            let here =
                keys.filter(|key| crate::name::labels(key).nth(1) == here.map(|label| &**label));
            self.rendered.extend(here.cloned());
        }
        if let Some(label) = before {
            self.next.namespaces.remove(&label);
        }
        if let Some(label) = after {
            self.next.namespaces.insert(label, ());
        }
    }

    fn set_pod(&mut self, at: Object, addresses: Box<[IpAddr]>) {
        let before = match addresses.is_empty() {
            true => self.pod_addresses.remove(&at),
            false => self.pod_addresses.insert(at.clone(), addresses.clone()),
        };
        let before = before.unwrap_or_default();
        if before == addresses {
            return;
        }
        self.changed = true;
        let pod = PodName {
            namespace: at.0,
            name: at.1,
        };
        for addr in before.iter().filter(|addr| !addresses.contains(addr)) {
            let known = self.next.pods.get(addr).cloned().unwrap_or_default();
            let rest: Arc<[PodName]> = known.iter().filter(|p| **p != pod).cloned().collect();
            if rest.is_empty() {
                self.next.pods.remove(addr);
            } else {
                self.next.pods.insert(*addr, rest);
            }
        }
        for addr in addresses.iter().filter(|addr| !before.contains(addr)) {
            let known = self.next.pods.get(addr).cloned().unwrap_or_default();
            let mut all: Vec<PodName> = known.to_vec();
            all.push(pod.clone());
            all.sort();
            self.next.pods.insert(*addr, all.into());
        }
    }

    fn look_synced(&mut self) {
        let synced = self.services.complete_once()
            && self.namespaces.complete_once()
            && (self.options.no_endpoints || self.slices.complete_once())
            && (!self.options.pods || self.pods.complete_once())
            && (!self.options.imports || self.imports.complete_once());
        if synced && !self.next.synced {
            self.next.synced = true;
            self.changed = true;
        }
    }

    fn side(&mut self, imported: bool) -> &mut Side {
        if imported {
            &mut self.imported
        } else {
            &mut self.ours
        }
    }

    fn shared(&mut self, namespace: &str, name: &str) -> Object {
        (share(&mut self.texts, namespace), name.into())
    }
}

fn share(known: &mut BTreeSet<Arc<str>>, text: &str) -> Arc<str> {
    if let Some(shared) = known.get(text) {
        return shared.clone();
    }
    // What nobody names any more goes, seldom enough to cost nothing.
    if known.len() >= 1024 && known.len().is_power_of_two() {
        known.retain(|text| Arc::strong_count(text) > 1);
    }
    let new: Arc<str> = text.into();
    known.insert(new.clone());
    new
}

fn object(namespace: &str, name: &str) -> Object {
    (namespace.into(), name.into())
}

fn object_of(key: &[u8]) -> Object {
    let (namespace, name) = crate::snapshot::names(key);
    (namespace.into(), name.into())
}
