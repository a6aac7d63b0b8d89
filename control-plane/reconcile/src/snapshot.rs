//! What the watches said so far, and which keys a change touches.

mod stored;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use view::objects::{EndpointSlice, Endpoints, Namespace, Node, ObjectMeta, Pod, Service};
use view::{Event, Object, ServiceAccount};

use crate::Key;
use crate::garbage::Graph;
use crate::index::LabelIndex;
use crate::pods::selects;
use crate::slices::SERVICE_NAME;
use crate::write::Origin;

pub use stored::Stored;
use stored::Uses;

/// Namespace and name of an object.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Name {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

impl Name {
    /// A name of a namespaced object.
    pub fn new(namespace: &str, name: &str) -> Name {
        Name {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    fn of(meta: &ObjectMeta) -> Name {
        Name::new(&meta.namespace, &meta.name)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The world as the controllers see it. The `fold_…` functions take what a watch said, or what the server answered
/// to a write, and return the keys to look at again.
#[derive(Debug, Default)]
pub struct Snapshot {
    services: Store<Service>,
    pods: Store<Pod>,
    nodes: Store<Node>,
    slices: Store<EndpointSlice>,
    endpoints: Store<Endpoints>,
    namespaces: Store<Namespace>,
    accounts: Store<ServiceAccount>,
    others: BTreeMap<Origin, Store<Bare>>,
    /// Those of `others` that the snapshot is complete without.
    lent: BTreeSet<Origin>,
    graph: Graph,
    uses: Uses,
    pods_by_label: LabelIndex,
    /// Services by the first pair of their selector.
    services_by_selector: LabelIndex,
    /// Names of slices by the Service that they say they are of.
    slices_by_service: BTreeMap<Name, BTreeSet<Arc<str>>>,
}

impl Snapshot {
    /// Whether every kind was listed at least once. Before, what is missing may just not have been read yet, and
    /// nothing must be decided.
    pub fn is_complete(&self) -> bool {
        self.services.lists > 0
            && self.pods.lists > 0
            && self.nodes.lists > 0
            && self.slices.lists > 0
            && self.endpoints.lists > 0
            && self.namespaces.lists > 0
            && self.accounts.lists > 0
            && self
                .others
                .iter()
                .all(|(origin, store)| store.lists > 0 || self.lent.contains(origin))
    }

    /// No write is under way: no answer can come late any more.
    pub fn quiesce(&mut self) {
        self.services.buried.clear();
        self.pods.buried.clear();
        self.nodes.buried.clear();
        self.slices.buried.clear();
        self.endpoints.buried.clear();
        self.namespaces.buried.clear();
        self.accounts.buried.clear();
        self.others
            .values_mut()
            .for_each(|store| store.buried.clear());
    }

    /// How many lists of what controllers write were completed. The answer to a write that began before the last of
    /// them may speak of an object that came and went unseen, and is not to be folded.
    pub fn lists(&self) -> u64 {
        self.slices.lists + self.endpoints.lists + self.accounts.lists
    }

    /// Folds Services.
    pub fn fold_services(&mut self, event: Event<Service>) -> Vec<Key> {
        let mut keys = Vec::new();
        for (name, before) in self
            .services
            .fold(slim(event, |object| &mut object.metadata), &mut self.graph)
        {
            if let Some((key, value)) = before.as_ref().and_then(first_pair) {
                self.services_by_selector
                    .remove(&name.namespace, key, value, &name.name);
            }
            if let Some((key, value)) = self.services.get(&name).and_then(first_pair) {
                self.services_by_selector
                    .insert(&name.namespace, key, value, &name.name);
            }
            keys.push(Key::Slices(name.clone()));
            keys.push(Key::Endpoints(name.clone()));
            keys.push(Key::Mirror(name));
        }
        keys.extend(self.graph.take_touched());
        keys
    }

    /// Folds Pods.
    pub fn fold_pods(&mut self, event: Event<Pod>) -> Vec<Key> {
        let mut touched = BTreeSet::new();
        let mut closing = BTreeSet::new();
        let mut leaving = Vec::new();
        let mut released = Vec::new();
        for (name, before) in self
            .pods
            .fold(slim(event, |object| &mut object.metadata), &mut self.graph)
        {
            // A namespace that is to go waits for its pods.
            if self.pods.get(&name).is_none() && !self.is_open(&name.namespace) {
                closing.insert(Arc::clone(&name.namespace));
            }
            if let Some(before) = &before {
                self.uses.remove_pod(&name, before, &mut released);
                self.selecting(&name.namespace, before, &mut touched);
                for (key, value) in &before.metadata.labels {
                    self.pods_by_label
                        .remove(&name.namespace, key, value, &name.name);
                }
            }
            if let Some(after) = self.pods.get(&name) {
                if after.metadata.deletion_timestamp.is_some() {
                    leaving.push(Key::Pod(name.clone()));
                }
                self.uses.insert_pod(&name, after);
                self.selecting(&name.namespace, after, &mut touched);
                for (key, value) in &after.metadata.labels {
                    self.pods_by_label
                        .insert(&name.namespace, key, value, &name.name);
                }
            }
        }
        let mut keys = endpoint_keys(touched);
        keys.extend(closing.into_iter().map(Key::Namespace));
        keys.extend(leaving);
        keys.extend(self.leaving_claims(released));
        keys.extend(self.graph.take_touched());
        keys
    }

    /// Folds Nodes. Only their zone matters, and whether they are there and attended.
    pub fn fold_nodes(&mut self, event: Event<Node>) -> Vec<Key> {
        let mut changed = BTreeSet::new();
        let event = slim(event, |node| &mut node.metadata);
        for (name, before) in self.nodes.fold(event, &mut self.graph) {
            let before = before.as_ref();
            let moved = before.and_then(zone_label) != self.zone(&name.name);
            if moved || before.is_some_and(attended) != self.is_attended(&name.name) {
                changed.insert(name.name);
            }
        }
        let mut keys = self.graph.take_touched();
        if changed.is_empty() {
            return keys;
        }
        let mut touched = BTreeSet::new();
        for (name, pod) in &self.pods.objects {
            if changed.contains(pod.spec.node_name.as_str()) {
                self.selecting(&name.namespace, pod, &mut touched);
                if pod.metadata.deletion_timestamp.is_some() {
                    keys.push(Key::Pod(name.clone()));
                }
            }
        }
        keys.extend(touched.into_iter().map(Key::Slices));
        keys
    }

    /// Folds EndpointSlices.
    pub fn fold_slices(&mut self, event: Event<EndpointSlice>) -> Vec<Key> {
        let mut keys = Vec::new();
        for (name, before) in self.slices.fold(event, &mut self.graph) {
            let before = before.as_ref().and_then(service_of);
            let after = self.slices.get(&name).and_then(service_of);
            if before != after
                && let Some(service) = &before
                && let Some(names) = self.slices_by_service.get_mut(service)
            {
                names.remove(&name.name);
                if names.is_empty() {
                    self.slices_by_service.remove(service);
                }
            }
            if let Some(service) = &after {
                let names = self.slices_by_service.entry(service.clone()).or_default();
                names.insert(Arc::clone(&name.name));
            }
            for service in before.into_iter().chain(after) {
                keys.push(Key::Slices(service.clone()));
                keys.push(Key::Mirror(service));
            }
        }
        keys.extend(self.graph.take_touched());
        keys
    }

    /// Folds Endpoints.
    pub fn fold_endpoints(&mut self, event: Event<Endpoints>) -> Vec<Key> {
        let mut keys = Vec::new();
        for (name, _) in self.endpoints.fold(event, &mut self.graph) {
            keys.push(Key::Endpoints(name.clone()));
            keys.push(Key::Mirror(name));
        }
        keys.extend(self.graph.take_touched());
        keys
    }

    /// Folds Namespaces.
    pub fn fold_namespaces(&mut self, event: Event<Namespace>) -> Vec<Key> {
        let changes = self
            .namespaces
            .fold(slim(event, |object| &mut object.metadata), &mut self.graph)
            .into_iter();
        let mut keys: Vec<Key> = changes.map(|(name, _)| Key::Namespace(name.name)).collect();
        keys.extend(self.graph.take_touched());
        keys
    }

    /// Folds ServiceAccounts.
    pub fn fold_accounts(&mut self, event: Event<ServiceAccount>) -> Vec<Key> {
        let mut keys = Vec::new();
        for (name, _) in self
            .accounts
            .fold(slim(event, |object| &mut object.metadata), &mut self.graph)
        {
            if &*name.name == "default" {
                keys.push(Key::Namespace(name.namespace));
            }
        }
        keys.extend(self.graph.take_touched());
        keys
    }

    /// Further kinds will be told of, for the sake of ownership alone; the snapshot is not complete without them.
    pub fn expect(&mut self, origins: impl IntoIterator<Item = Origin>) {
        for origin in origins {
            let store = Store::new(origin.clone());
            self.uses.expect(&origin);
            self.others.insert(origin, store);
        }
    }

    /// Further kinds may be told of, for the sake of ownership alone; nobody waits for them.
    pub fn allow(&mut self, origins: impl IntoIterator<Item = Origin>) {
        for origin in origins {
            self.lent.insert(origin.clone());
            let store = Store::new(origin.clone());
            self.others.insert(origin, store);
        }
    }

    /// Folds objects of a kind that was announced to [`Snapshot::expect`] or [`Snapshot::allow`].
    pub fn fold_others(&mut self, origin: &Origin, event: Event<Bare>) -> Vec<Key> {
        if let Some(store) = self.others.get_mut(origin) {
            store.fold(slim_more(event), &mut self.graph);
        }
        self.graph.take_touched()
    }

    pub(crate) fn graph(&self) -> &Graph {
        &self.graph
    }

    pub(crate) fn service(&self, name: &Name) -> Option<&Service> {
        self.services.get(name)
    }

    pub(crate) fn endpoints(&self, name: &Name) -> Option<&Endpoints> {
        self.endpoints.get(name)
    }

    pub(crate) fn namespace(&self, name: &str) -> Option<&Namespace> {
        self.namespaces.get(&Name::new("", name))
    }

    pub(crate) fn account(&self, name: &Name) -> Option<&ServiceAccount> {
        self.accounts.get(name)
    }

    /// Whether objects may still be created in a namespace. One that is not known has not arrived yet.
    pub(crate) fn is_open(&self, namespace: &str) -> bool {
        self.namespace(namespace)
            .is_none_or(|namespace| namespace.metadata.deletion_timestamp.is_none())
    }

    pub(crate) fn pod(&self, name: &Name) -> Option<&Pod> {
        self.pods.get(name)
    }

    /// Whether the node is there, and has or may get an agent.
    pub(crate) fn is_attended(&self, node: &str) -> bool {
        self.nodes.get(&Name::new("", node)).is_some_and(attended)
    }

    /// The zone of a node, where it is known.
    pub(crate) fn zone(&self, node: &str) -> Option<&str> {
        zone_label(self.nodes.get(&Name::new("", node))?)
    }

    /// Slices that say they are of a Service, in order of name.
    pub(crate) fn slices_of(&self, service: &Name) -> Vec<(Name, &EndpointSlice)> {
        let names = self.slices_by_service.get(service).into_iter().flatten();
        names
            .filter_map(|slice| {
                let name = Name {
                    namespace: Arc::clone(&service.namespace),
                    name: Arc::clone(slice),
                };
                let slice = self.slices.get(&name)?;
                Some((name, slice))
            })
            .collect()
    }

    /// Pods that a Service selects, in order of name.
    pub(crate) fn pods_of(&self, namespace: &Arc<str>, service: &Service) -> Vec<&Pod> {
        let mut candidates: Option<&BTreeSet<Arc<str>>> = None;
        for (key, value) in &service.spec.selector {
            let Some(names) = self.pods_by_label.get(namespace, key, value) else {
                return Vec::new();
            };
            if candidates.is_none_or(|fewest| names.len() < fewest.len()) {
                candidates = Some(names);
            }
        }
        let candidates = candidates.into_iter().flatten();
        candidates
            .filter_map(|name| {
                self.pods.get(&Name {
                    namespace: Arc::clone(namespace),
                    name: Arc::clone(name),
                })
            })
            .filter(|pod| selects(service, pod))
            .collect()
    }

    /// Adds the Services that select a pod.
    fn selecting(&self, namespace: &Arc<str>, pod: &Pod, found: &mut BTreeSet<Name>) {
        for (key, value) in &pod.metadata.labels {
            let names = self.services_by_selector.get(namespace, key, value);
            for name in names.into_iter().flatten() {
                let name = Name {
                    namespace: Arc::clone(namespace),
                    name: Arc::clone(name),
                };
                if self
                    .services
                    .get(&name)
                    .is_some_and(|service| selects(service, pod))
                {
                    found.insert(name);
                }
            }
        }
    }
}

/// Leaves out the annotations, which nobody asks these objects for: the configuration that kubectl applied last is the
/// size of the object.
fn slim<T>(mut event: Event<T>, meta: fn(&mut T) -> &mut ObjectMeta) -> Event<T> {
    if let Event::Applied(object) = &mut event {
        meta(object).annotations = BTreeMap::new();
    }
    event
}

/// Leaves out the labels too.
fn slim_more(event: Event<Bare>) -> Event<Bare> {
    let mut event = slim(event, |bare| &mut bare.metadata);
    if let Event::Applied(bare) = &mut event {
        bare.metadata.labels = BTreeMap::new();
    }
    event
}

fn endpoint_keys(services: BTreeSet<Name>) -> Vec<Key> {
    let keys = services.into_iter();
    keys.flat_map(|name| [Key::Slices(name.clone()), Key::Endpoints(name)])
        .collect()
}

fn first_pair(service: &Service) -> Option<(&String, &String)> {
    service.spec.selector.first_key_value()
}

/// Whether the node has or may get an agent. Where Fairlead registers a host that has none, a condition says so, until
/// somebody reports whether the host is ready.
fn attended(node: &Node) -> bool {
    let conditions = &node.status.conditions;
    conditions
        .iter()
        .any(|condition| condition.type_ == "Ready")
        || !conditions
            .iter()
            .any(|condition| condition.reason == "NoNodeAgent")
}

fn zone_label(node: &Node) -> Option<&str> {
    let zone = node.metadata.labels.get("topology.kubernetes.io/zone")?;
    Some(zone.as_str()).filter(|zone| !zone.is_empty())
}

fn service_of(slice: &EndpointSlice) -> Option<Name> {
    let service = slice.metadata.labels.get(SERVICE_NAME)?;
    Some(Name::new(&slice.metadata.namespace, service))
}

/// An object of which nothing but its metadata matters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Bare {
    /// Object metadata.
    pub metadata: ObjectMeta,
}

/// What has metadata.
trait Held {
    fn meta(&self) -> &ObjectMeta;
}

impl<T: Object> Held for T {
    fn meta(&self) -> &ObjectMeta {
        Object::meta(self)
    }
}

impl Held for Bare {
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
}

/// The objects of one kind.
#[derive(Debug)]
struct Store<T> {
    origin: Origin,
    objects: BTreeMap<Name, T>,
    /// What the list that is running has not mentioned; `None` between lists.
    unmentioned: Option<BTreeSet<Name>>,
    /// How many lists were completed.
    lists: u64,
    /// Uids of objects that went while writes were under way: an answer from before must not bring one back.
    buried: BTreeSet<String>,
}

impl<T: Object> Default for Store<T> {
    fn default() -> Self {
        Store::new(Origin::of::<T>())
    }
}

impl<T> Store<T> {
    fn new(origin: Origin) -> Self {
        Store {
            origin,
            objects: BTreeMap::new(),
            unmentioned: None,
            lists: 0,
            buried: BTreeSet::new(),
        }
    }
}

impl<T: Held> Store<T> {
    fn get(&self, name: &Name) -> Option<&T> {
        self.objects.get(name)
    }

    /// Returns the names that changed, with what was there before.
    fn fold(&mut self, event: Event<T>, graph: &mut Graph) -> Vec<(Name, Option<T>)> {
        let changes = self.change(event);
        for (name, before) in &changes {
            let before = before.as_ref().map(Held::meta);
            graph.update(&self.origin, before, self.get(name).map(Held::meta));
        }
        changes
    }

    fn change(&mut self, event: Event<T>) -> Vec<(Name, Option<T>)> {
        match event {
            Event::Restarted => {
                self.unmentioned = Some(self.objects.keys().cloned().collect());
                Vec::new()
            }
            Event::Applied(object) => self.apply(object).into_iter().collect(),
            Event::Deleted { namespace, name } => {
                let before = self.bury(Name::new(&namespace, &name));
                before.into_iter().collect()
            }
            Event::Synced => {
                self.lists += 1;
                let gone = self.unmentioned.take().unwrap_or_default().into_iter();
                gone.filter_map(|name| self.bury(name)).collect()
            }
        }
    }

    fn bury(&mut self, name: Name) -> Option<(Name, Option<T>)> {
        let before = self.objects.remove(&name)?;
        self.buried.insert(before.meta().uid.clone());
        Some((name, Some(before)))
    }

    fn apply(&mut self, object: T) -> Option<(Name, Option<T>)> {
        let name = Name::of(object.meta());
        if self.buried.contains(&object.meta().uid) {
            return None;
        }
        if let Some(unmentioned) = &mut self.unmentioned {
            unmentioned.remove(&name);
        } else if self
            .get(&name)
            .is_some_and(|known| is_older(object.meta(), known.meta()))
        {
            // The watch is behind the answer to our own write.
            return None;
        }
        let before = self.objects.insert(name.clone(), object);
        Some((name, before))
    }
}

/// Whether `new` is a version of the same object from before `known`. Versions that are no numbers do not tell.
fn is_older(new: &ObjectMeta, known: &ObjectMeta) -> bool {
    let number = |meta: &ObjectMeta| meta.resource_version.parse::<u64>().ok();
    new.uid == known.uid
        && match (number(new), number(known)) {
            (Some(new), Some(known)) => new < known,
            (None, _) | (_, None) => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(uid: &str, version: &str) -> Event<ServiceAccount> {
        let mut account = ServiceAccount::default();
        account.metadata.namespace = "n".to_owned();
        account.metadata.name = "default".to_owned();
        account.metadata.uid = uid.to_owned();
        account.metadata.resource_version = version.to_owned();
        Event::Applied(account)
    }

    fn deleted() -> Event<ServiceAccount> {
        Event::Deleted {
            namespace: "n".to_owned(),
            name: "default".to_owned(),
        }
    }

    /// The answer to a write and the watch come in any order.
    #[test]
    fn what_is_older_changes_nothing() {
        let mut snapshot = Snapshot::default();
        let held = |snapshot: &Snapshot| {
            let account = snapshot.account(&Name::new("n", "default"))?;
            Some(account.metadata.resource_version.clone())
        };
        let version = |text: &str| Some(text.to_owned());
        snapshot.fold_accounts(Event::Restarted);
        snapshot.fold_accounts(Event::Synced);

        assert_eq!(snapshot.fold_accounts(account("a", "7")).len(), 1);
        assert_eq!(snapshot.fold_accounts(account("a", "5")), []);
        assert_eq!(held(&snapshot), version("7"));

        snapshot.fold_accounts(deleted());
        assert_eq!(snapshot.fold_accounts(account("a", "6")), []);
        assert_eq!(held(&snapshot), None, "a late answer brings nothing back");
        assert_eq!(
            snapshot.fold_accounts(account("b", "3")).len(),
            1,
            "another object may"
        );
        snapshot.fold_accounts(deleted());
        snapshot.quiesce();
        assert_eq!(snapshot.fold_accounts(account("b", "3")).len(), 1);

        // A list is believed, whatever its numbers: the server may have been restored.
        let lists = snapshot.lists();
        snapshot.fold_accounts(Event::Restarted);
        snapshot.fold_accounts(account("b", "2"));
        snapshot.fold_accounts(Event::Synced);
        assert_eq!(
            (held(&snapshot), snapshot.lists()),
            (version("2"), lists + 1)
        );
    }
}
