//! Objects that go with their owners: background, foreground and orphaning deletion, as Kubernetes' garbage collector
//! does them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use view::objects::{ObjectMeta, OwnerReference};

use crate::Key;
use crate::snapshot::{Name, Snapshot};
use crate::write::{Origin, Write};

/// Finalizer of an owner that waits until its dependents are gone.
const FOREGROUND: &str = "foregroundDeletion";
/// Finalizer of an owner whose dependents are to be let go of.
const ORPHAN: &str = "orphan";

/// Who owns whom, by uid.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    /// Every object that there is.
    present: BTreeSet<Arc<str>>,
    /// Those that have owners or are to go.
    items: BTreeMap<Arc<str>, Item>,
    dependents: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
    /// To be looked at again.
    touched: BTreeSet<Arc<str>>,
}

#[derive(Debug)]
struct Item {
    origin: Origin,
    name: Name,
    resource_version: String,
    owners: Vec<OwnerReference>,
    finalizers: Vec<String>,
    leaving: bool,
}

impl Graph {
    /// An object changed from `before` to `after`.
    pub(crate) fn update(
        &mut self,
        origin: &Origin,
        before: Option<&ObjectMeta>,
        after: Option<&ObjectMeta>,
    ) {
        if let Some(before) = before {
            self.remove(before, after.is_some_and(|after| after.uid == before.uid));
        }
        if let Some(after) = after {
            self.insert(origin, after);
        }
    }

    fn remove(&mut self, meta: &ObjectMeta, stays: bool) {
        if let Some((uid, item)) = self.items.remove_entry(meta.uid.as_str()) {
            for owner in &item.owners {
                if let Some(dependents) = self.dependents.get_mut(owner.uid.as_str()) {
                    dependents.remove(&uid);
                    if dependents.is_empty() {
                        self.dependents.remove(owner.uid.as_str());
                    }
                }
                self.touched.extend(self.leaving(&owner.uid));
            }
        }
        if !stays {
            self.present.remove(meta.uid.as_str());
            let dependents = self.dependents.get(meta.uid.as_str());
            self.touched
                .extend(dependents.into_iter().flatten().cloned());
        }
    }

    fn insert(&mut self, origin: &Origin, meta: &ObjectMeta) {
        let uid: Arc<str> = meta.uid.as_str().into();
        self.present.insert(Arc::clone(&uid));
        let leaving = meta.deletion_timestamp.is_some();
        if meta.owner_references.is_empty() && !leaving {
            return;
        }
        for owner in &meta.owner_references {
            let dependents = self
                .dependents
                .entry(owner.uid.as_str().into())
                .or_default();
            dependents.insert(Arc::clone(&uid));
            self.touched.extend(self.leaving(&owner.uid));
        }
        let item = Item {
            origin: origin.clone(),
            name: Name::new(&meta.namespace, &meta.name),
            resource_version: meta.resource_version.clone(),
            owners: meta.owner_references.clone(),
            finalizers: meta.finalizers.clone(),
            leaving,
        };
        self.items.insert(Arc::clone(&uid), item);
        self.touched.insert(uid);
    }

    /// What changes touched since this was last asked.
    pub(crate) fn take_touched(&mut self) -> Vec<Key> {
        std::mem::take(&mut self.touched)
            .into_iter()
            .map(Key::Owned)
            .collect()
    }

    fn dependents_of(&self, uid: &str) -> impl Iterator<Item = &Arc<str>> {
        self.dependents.get(uid).into_iter().flatten()
    }

    /// The uid, if that object is to go and may wait for its dependents.
    fn leaving(&self, uid: &str) -> Option<Arc<str>> {
        let (uid, item) = self.items.get_key_value(uid)?;
        item.leaving.then(|| Arc::clone(uid))
    }
}

pub(crate) fn reconcile(uid: &Arc<str>, snapshot: &Snapshot) -> Vec<Write> {
    let graph = snapshot.graph();
    let Some(item) = graph.items.get(uid) else {
        return Vec::new();
    };
    let has = |finalizer: &str| item.finalizers.iter().any(|present| present == finalizer);
    if item.leaving && has(ORPHAN) {
        return let_go(graph, uid, item);
    }
    if item.leaving && has(FOREGROUND) {
        return take_along(graph, uid, item);
    }
    let abandoned = !item.leaving
        && !item.owners.is_empty()
        && item
            .owners
            .iter()
            .all(|owner| !graph.present.contains(owner.uid.as_str()));
    match abandoned {
        true => vec![item.collect(uid)],
        false => Vec::new(),
    }
}

/// Takes the reference to the owner out of every dependent, then lets the owner go.
fn let_go(graph: &Graph, uid: &Arc<str>, item: &Item) -> Vec<Write> {
    let dependents = graph
        .dependents_of(uid)
        .filter_map(|dependent| graph.items.get_key_value(dependent));
    let disown = dependents.map(|(dependent_uid, dependent)| Write::SetOwners {
        origin: dependent.origin.clone(),
        name: dependent.name.clone(),
        uid: dependent_uid.to_string(),
        resource_version: dependent.resource_version.clone(),
        owners: dependent
            .owners
            .iter()
            .filter(|owner| *owner.uid != **uid)
            .cloned()
            .collect(),
    });
    disown.chain([item.without(uid, ORPHAN)]).collect()
}

/// Deletes every dependent; lets the owner go when none is left that it waits for.
fn take_along(graph: &Graph, uid: &Arc<str>, item: &Item) -> Vec<Write> {
    let mut writes = Vec::new();
    let mut waits = false;
    for (dependent_uid, dependent) in graph
        .dependents_of(uid)
        .filter_map(|dependent| graph.items.get_key_value(dependent))
    {
        // One that another owner needs stays.
        let needed = |owner: &OwnerReference| *owner.uid != **uid && graph.stays(&owner.uid);
        if dependent.owners.iter().any(needed) {
            continue;
        }
        let blocks = |owner: &OwnerReference| *owner.uid == **uid && owner.block_owner_deletion;
        waits |= dependent.owners.iter().any(blocks);
        if !dependent.leaving {
            writes.push(Write::Remove {
                origin: dependent.origin.clone(),
                name: dependent.name.clone(),
                uid: dependent_uid.to_string(),
                resource_version: dependent.resource_version.clone(),
                unless_owned_by: Vec::new(),
                at_once: false,
            });
        }
    }
    if !waits {
        writes.push(item.without(uid, FOREGROUND));
    }
    writes
}

impl Graph {
    /// Whether the object is there and not about to go.
    fn stays(&self, uid: &str) -> bool {
        self.present.contains(uid) && self.items.get(uid).is_none_or(|item| !item.leaving)
    }
}

impl Item {
    /// All owners seem to be gone. That is asked for once more before the object goes: an owner may be so new that
    /// its watch has not told of it.
    fn collect(&self, uid: &Arc<str>) -> Write {
        Write::Remove {
            origin: self.origin.clone(),
            name: self.name.clone(),
            uid: uid.to_string(),
            resource_version: self.resource_version.clone(),
            unless_owned_by: self.owners.clone(),
            at_once: false,
        }
    }

    fn without(&self, uid: &Arc<str>, finalizer: &str) -> Write {
        let rest = self
            .finalizers
            .iter()
            .filter(|present| *present != finalizer);
        Write::SetFinalizers {
            origin: self.origin.clone(),
            name: self.name.clone(),
            uid: uid.to_string(),
            resource_version: self.resource_version.clone(),
            finalizers: rest.cloned().collect(),
            unless_used: None,
        }
    }
}
