//! Pods that are to go, on nodes where nobody sees to it.

use crate::snapshot::{Name, Snapshot};
use crate::write::{Origin, Write};

/// A pod that is deleted waits for its node to say that it stopped. Where there is no such node, or one that was
/// registered as having no agent, nobody would ever say so, and the pod goes at once: the part of Kubernetes' pod garbage
/// collector that deletion depends on. On any other node it waits, even if that never reports: its agent may be late.
pub(crate) fn reconcile(name: &Name, snapshot: &Snapshot) -> Vec<Write> {
    let Some(pod) = snapshot.pod(name) else {
        return Vec::new();
    };
    let node = pod.spec.node_name.as_str();
    let stuck = pod.metadata.deletion_timestamp.is_some() && !snapshot.is_attended(node);
    // With a finalizer it waits for somebody else, whom we do not replace.
    if !stuck || !pod.metadata.finalizers.is_empty() {
        return Vec::new();
    }
    vec![Write::Remove {
        origin: Origin::of::<view::objects::Pod>(),
        name: name.clone(),
        uid: pod.metadata.uid.clone(),
        resource_version: pod.metadata.resource_version.clone(),
        unless_owned_by: Vec::new(),
        at_once: true,
    }]
}
