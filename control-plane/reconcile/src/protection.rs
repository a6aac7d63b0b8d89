//! Objects of storage that stay while they are in use: what Kubernetes' three protection controllers do. A finalizer
//! keeps each; admission gives it, here it is given to what came before, and taken when nobody uses the object.

use view::objects::{ObjectMeta, Pod, Volume};

use crate::snapshot::{Name, Snapshot};
use crate::write::{Origin, Write};

/// The kinds that are protected.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Protected {
    /// PersistentVolumeClaim: used by pods.
    Claim,
    /// PersistentVolume: used while it is bound.
    Volume,
    /// VolumeAttributesClass: used by the claims and volumes that name it.
    Class,
}

impl Protected {
    /// The kind that is kept in this collection, in whatever version.
    pub fn at(origin: &Origin) -> Option<Protected> {
        match (&*origin.group, &*origin.plural) {
            ("", "persistentvolumeclaims") => Some(Protected::Claim),
            ("", "persistentvolumes") => Some(Protected::Volume),
            ("storage.k8s.io", "volumeattributesclasses") => Some(Protected::Class),
            _ => None,
        }
    }

    fn finalizer(self) -> &'static str {
        match self {
            Protected::Claim => "kubernetes.io/pvc-protection",
            Protected::Volume => "kubernetes.io/pv-protection",
            Protected::Class => "kubernetes.io/vac-protection",
        }
    }

    /// Whether the object waits for its finalizer, or for being let go.
    pub(crate) fn concerns(self, meta: &ObjectMeta) -> bool {
        self.holds(meta) == meta.deletion_timestamp.is_some()
    }

    fn holds(self, meta: &ObjectMeta) -> bool {
        let mut finalizers = meta.finalizers.iter();
        finalizers.any(|finalizer| finalizer == self.finalizer())
    }
}

/// A PersistentVolumeClaim that pods may use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Claim {
    /// Its namespace and name.
    pub name: Name,
    /// Uid of the object that controls it: the pod, for a claim that was made for one.
    controller: Option<String>,
}

impl Claim {
    pub(crate) fn of(name: &Name, meta: &ObjectMeta) -> Claim {
        let mut owners = meta.owner_references.iter();
        Claim {
            name: name.clone(),
            controller: owners
                .find(|owner| owner.controller)
                .map(|owner| owner.uid.clone()),
        }
    }

    /// Whether a pod uses the claim. One that no node was chosen for does not: no node starts a pod whose claim is to
    /// go. One that has finished does until it is gone, for its volumes may still be mounted.
    pub fn is_used_by(&self, pod: &Pod) -> bool {
        if pod.spec.node_name.is_empty() || *pod.metadata.namespace != *self.name.namespace {
            return false;
        }
        let names = |volume: &Volume| *claim_name(pod, volume) == *self.name.name;
        let made_for_it = self.controller.as_ref() == Some(&pod.metadata.uid);
        let mut volumes = pod.spec.volumes.iter();
        volumes.any(|volume| {
            let used = volume.persistent_volume_claim.is_some();
            names(volume) && (used || made_for_it && !is_shut_down(pod))
        })
    }
}

/// The claim that a volume of a pod is. One that is made for the pod is named after both.
pub(crate) fn claim_name(pod: &Pod, volume: &Volume) -> String {
    match &volume.persistent_volume_claim {
        Some(source) => source.claim_name.clone(),
        None => format!("{}-{}", pod.metadata.name, volume.name),
    }
}

/// Whether the node is done with the pod, or was told not to be waited for. Such a pod may wait for the very claims
/// that were made for it, so they do not wait for the pod.
fn is_shut_down(pod: &Pod) -> bool {
    let meta = &pod.metadata;
    meta.deletion_timestamp.is_some() && meta.deletion_grace_period_seconds == Some(0)
}

pub(crate) fn reconcile(kind: Protected, name: &Name, snapshot: &Snapshot) -> Vec<Write> {
    let Some((origin, meta)) = snapshot.stored(kind, name) else {
        return Vec::new();
    };
    if !kind.concerns(meta) {
        return Vec::new();
    }
    let mut finalizers = meta.finalizers.clone();
    let mut unless_used = None;
    if meta.deletion_timestamp.is_none() {
        finalizers.push(kind.finalizer().to_owned());
    } else {
        let in_use = match kind {
            Protected::Claim => {
                let claim = Claim::of(name, meta);
                let used = snapshot.pods_at(name).any(|pod| claim.is_used_by(pod));
                unless_used = Some(claim);
                used
            }
            Protected::Volume => snapshot.is_bound(name),
            Protected::Class => snapshot.is_class_named(&name.name),
        };
        if in_use {
            return Vec::new();
        }
        finalizers.retain(|present| present != kind.finalizer());
    }
    vec![Write::SetFinalizers {
        origin: origin.clone(),
        name: name.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        finalizers,
        unless_used,
    }]
}
