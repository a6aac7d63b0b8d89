//! Who uses what of storage, for protection.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Deserialize;
use view::Event;
use view::objects::{ObjectMeta, Pod};

use super::{Bare, Name, Snapshot, slim_more};
use crate::Key;
use crate::protection::{Protected, claim_name};
use crate::write::Origin;

/// A PersistentVolumeClaim, a PersistentVolume or a VolumeAttributesClass, whichever of the fields it has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Stored {
    metadata: ObjectMeta,
    spec: Option<Spec>,
    status: Option<Status>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    volume_attributes_class_name: Option<Arc<str>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    phase: Option<String>,
    current_volume_attributes_class_name: Option<Arc<str>>,
    modify_volume_status: Option<ModifyVolumeStatus>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ModifyVolumeStatus {
    target_volume_attributes_class_name: Option<Arc<str>>,
}

/// What matters about an object beside its metadata.
#[derive(Debug, Default, PartialEq)]
struct Facts {
    bound: bool,
    /// The VolumeAttributesClasses that it has, had until now, or is to have.
    classes: BTreeSet<Arc<str>>,
}

/// What keeps what from going.
#[derive(Debug, Default)]
pub(super) struct Uses {
    /// Where each protected kind is kept.
    origins: BTreeMap<Protected, Origin>,
    /// Names of pods by the claims that they name.
    pods_by_claim: BTreeMap<Name, BTreeSet<Arc<str>>>,
    /// Of those objects that there is something to say about.
    facts: BTreeMap<(Protected, Name), Facts>,
    /// How many claims and volumes name a class.
    class_users: BTreeMap<Arc<str>, usize>,
}

impl Uses {
    pub(super) fn expect(&mut self, origin: &Origin) {
        if let Some(kind) = Protected::at(origin) {
            self.origins.insert(kind, origin.clone());
        }
    }

    pub(super) fn insert_pod(&mut self, name: &Name, pod: &Pod) {
        for claim in claims_of(name, pod) {
            let pods = self.pods_by_claim.entry(claim).or_default();
            pods.insert(Arc::clone(&name.name));
        }
    }

    /// Adds the claims that the pod named to `released`; it may name them still.
    pub(super) fn remove_pod(&mut self, name: &Name, pod: &Pod, released: &mut Vec<Name>) {
        for claim in claims_of(name, pod) {
            if let Some(pods) = self.pods_by_claim.get_mut(&claim) {
                pods.remove(&name.name);
                if pods.is_empty() {
                    self.pods_by_claim.remove(&claim);
                }
            }
            released.push(claim);
        }
    }

    /// Adds the classes that nobody names any more to `released`.
    fn replace(&mut self, key: (Protected, Name), facts: Facts, released: &mut Vec<Arc<str>>) {
        for class in &facts.classes {
            *self.class_users.entry(Arc::clone(class)).or_default() += 1;
        }
        let before = match facts == Facts::default() {
            true => self.facts.remove(&key),
            false => self.facts.insert(key, facts),
        };
        for class in before.unwrap_or_default().classes {
            if let Some(count) = self.class_users.get_mut(&class) {
                *count -= 1;
                if *count == 0 {
                    self.class_users.remove(&class);
                    released.push(class);
                }
            }
        }
    }
}

fn claims_of(name: &Name, pod: &Pod) -> impl Iterator<Item = Name> {
    pod.spec.volumes.iter().map(|volume| Name {
        namespace: Arc::clone(&name.namespace),
        name: claim_name(pod, volume).into(),
    })
}

/// Takes an object apart.
fn facts(stored: Stored) -> (Bare, Facts) {
    let status = stored.status.unwrap_or_default();
    let modify = status.modify_volume_status.unwrap_or_default();
    let classes = [
        stored.spec.unwrap_or_default().volume_attributes_class_name,
        status.current_volume_attributes_class_name,
        modify.target_volume_attributes_class_name,
    ];
    let facts = Facts {
        bound: status.phase.as_deref() == Some("Bound"),
        classes: classes
            .into_iter()
            .flatten()
            .filter(|class| !class.is_empty())
            .collect(),
    };
    let bare = Bare {
        metadata: stored.metadata,
    };
    (bare, facts)
}

impl Snapshot {
    /// Folds objects of a protected kind, which was announced to [`Snapshot::expect`].
    pub fn fold_stored(&mut self, origin: &Origin, event: Event<Stored>) -> Vec<Key> {
        let (Some(kind), Some(store)) = (Protected::at(origin), self.others.get_mut(origin)) else {
            return Vec::new();
        };
        let mut new_facts = Facts::default();
        let event = match event {
            Event::Applied(stored) => {
                let (bare, facts) = facts(stored);
                new_facts = facts;
                Event::Applied(bare)
            }
            Event::Restarted => Event::Restarted,
            Event::Deleted { namespace, name } => Event::Deleted { namespace, name },
            Event::Synced => Event::Synced,
        };
        let mut keys = Vec::new();
        let mut released = Vec::new();
        for (name, _) in store.fold(slim_more(event), &mut self.graph) {
            let present = store.get(&name);
            // An event that is not the end of objects is of one object.
            let facts = present.map(|_| std::mem::take(&mut new_facts));
            let key = (kind, name.clone());
            self.uses
                .replace(key, facts.unwrap_or_default(), &mut released);
            if present.is_some_and(|bare| kind.concerns(&bare.metadata)) {
                keys.push(Key::Protected(kind, name));
            }
        }
        for class in released {
            let name = Name {
                namespace: "".into(),
                name: class,
            };
            keys.extend(self.leaving(Protected::Class, name));
        }
        keys.extend(self.graph.take_touched());
        keys
    }

    /// Those of the claims that are to go.
    pub(super) fn leaving_claims(&self, claims: Vec<Name>) -> impl Iterator<Item = Key> {
        let claims = claims.into_iter();
        claims.filter_map(|name| self.leaving(Protected::Claim, name))
    }

    fn leaving(&self, kind: Protected, name: Name) -> Option<Key> {
        let (_, meta) = self.stored(kind, &name)?;
        meta.deletion_timestamp.as_ref()?;
        Some(Key::Protected(kind, name))
    }

    /// A protected object, and where it is kept.
    pub(crate) fn stored(&self, kind: Protected, name: &Name) -> Option<(&Origin, &ObjectMeta)> {
        let origin = self.uses.origins.get(&kind)?;
        let bare = self.others.get(origin)?.get(name)?;
        Some((origin, &bare.metadata))
    }

    /// Pods that name a claim.
    pub(crate) fn pods_at(&self, claim: &Name) -> impl Iterator<Item = &Pod> {
        let names = self.uses.pods_by_claim.get(claim).into_iter().flatten();
        names.filter_map(|name| {
            self.pods.get(&Name {
                namespace: Arc::clone(&claim.namespace),
                name: Arc::clone(name),
            })
        })
    }

    /// Whether a PersistentVolume is bound.
    pub(crate) fn is_bound(&self, volume: &Name) -> bool {
        let facts = self.uses.facts.get(&(Protected::Volume, volume.clone()));
        facts.is_some_and(|facts| facts.bound)
    }

    /// Whether a claim or a volume names a VolumeAttributesClass.
    pub(crate) fn is_class_named(&self, class: &str) -> bool {
        self.uses.class_users.contains_key(class)
    }
}
