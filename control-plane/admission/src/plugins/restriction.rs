//! NodeRestriction: the agent of a node writes its own Node, its Lease, its CSINode, and the Pods on it; nothing of
//! others.

use api::status::Status;
use api::value::{at, entries, list, text};
use api::{field::quoted, meta};
use authorization::node;
use serde_json::Value;

use crate::{Attributes, Operation, Plugin};

const MIRROR: &str = "kubernetes.io/config.mirror";
/// Labels of a Node that its agent may set among those of Kubernetes.
const LABELS: &[&str] = &[
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/instance-type",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];

pub(crate) const NODE_RESTRICTION: Plugin = Plugin {
    name: "NodeRestriction",
    handles: |attributes| attributes.user.is(node::NODES),
    mutate: None,
    validate: Some(|attributes, object, old, _, _| validate(attributes, object, old)),
};

fn validate(
    attributes: &Attributes<'_>,
    object: &Value,
    old: Option<&Value>,
) -> Result<(), Status> {
    let Some(node) = node::name(attributes.user) else {
        let user = quoted(&attributes.user.name);
        return Err(attributes.forbid(format!("could not determine node from user {user}")));
    };
    let why = match (
        attributes.group,
        attributes.resource,
        attributes.subresource,
    ) {
        ("", "pods", "") => pod(node, attributes.operation, object, old),
        ("", "pods", "status") => status(node, object, old),
        ("", "nodes", _) => of_node(node, attributes, object, old),
        ("coordination.k8s.io", "leases", _) if attributes.namespace != "kube-node-lease" => {
            Some("can only access leases in the \"kube-node-lease\" system namespace".to_owned())
        }
        ("coordination.k8s.io", "leases", _) if attributes.name != node => {
            Some("can only access node lease with the same name as the requesting node".to_owned())
        }
        ("storage.k8s.io", "csinodes", _) if attributes.name != node => {
            Some("can only access CSINode with the same name as the requesting node".to_owned())
        }
        _ => None,
    };
    why.map_or(Ok(()), |why| Err(attributes.forbid(why)))
}

fn is_on(pod: &Value, node: &str) -> bool {
    text(pod, &["spec", "nodeName"]) == node
}

fn pod(node: &str, operation: Operation, object: &Value, old: Option<&Value>) -> Option<String> {
    let shown = quoted(node);
    match operation {
        Operation::Create => {
            if text(object, &["metadata", "annotations", MIRROR]).is_empty() {
                return Some(format!(
                    "pod does not have {} annotation, node {shown} can only create mirror pods",
                    quoted(MIRROR)
                ));
            }
            if !is_on(object, node) {
                return Some(format!(
                    "node {shown} can only create pods with spec.nodeName set to itself"
                ));
            }
            let owned = list(object, &["metadata", "ownerReferences"]);
            if !owned
                .iter()
                .all(|owner| text(owner, &["kind"]) == "Node" && text(owner, &["name"]) == node)
            {
                return Some(format!(
                    "node {shown} can only create pods with an owner reference set to itself"
                ));
            }
            // A mirror Pod runs already: it is given nothing.
            (!text(object, &["spec", "serviceAccountName"]).is_empty()).then(|| {
                format!("node {shown} can not create pods that reference a service account")
            })
        }
        Operation::Delete => (!is_on(object, node))
            .then(|| format!("node {shown} can only delete pods with spec.nodeName set to itself")),
        // Nothing but the status is an agent's to update, unless it marks its Pod before it is evicted.
        Operation::Update => (!is_on(old.unwrap_or(object), node))
            .then(|| format!("node {shown} can only update pods with spec.nodeName set to itself")),
        Operation::Connect => None,
    }
}

fn status(node: &str, object: &Value, old: Option<&Value>) -> Option<String> {
    let shown = quoted(node);
    let old = old.unwrap_or(object);
    if !is_on(old, node) {
        return Some(format!(
            "node {shown} can only update pod status for pods with spec.nodeName set to itself"
        ));
    }
    (at(object, &["metadata", "labels"]) != at(old, &["metadata", "labels"]))
        .then(|| format!("node {shown} cannot update labels through pod status"))
}

fn of_node(
    node: &str,
    attributes: &Attributes<'_>,
    object: &Value,
    old: Option<&Value>,
) -> Option<String> {
    let (shown, name) = (quoted(node), attributes.name);
    if name != node {
        return Some(format!(
            "node {shown} is not allowed to modify node {}",
            quoted(name)
        ));
    }
    let nothing = Value::Null;
    let before = old.unwrap_or(&nothing);
    let changed: Vec<&str> = entries(object, &["metadata", "labels"])
        .filter(|(key, value)| at(before, &["metadata", "labels", key]) != *value)
        .map(|(key, _)| key.as_str())
        .chain(
            entries(before, &["metadata", "labels"])
                .map(|(key, _)| key.as_str())
                .filter(|key| old.is_some() && at(object, &["metadata", "labels", key]).is_null()),
        )
        .filter(|key| is_reserved(key))
        .collect();
    if attributes.operation != Operation::Delete && !changed.is_empty() {
        let mut changed = changed;
        changed.sort_unstable();
        return Some(format!(
            "is not allowed to modify labels: {}",
            changed.join(", ")
        ));
    }
    if attributes.operation != Operation::Update {
        return None;
    }
    if at(object, &["spec", "taints"]) != at(before, &["spec", "taints"]) {
        return Some(format!("node {shown} is not allowed to modify taints"));
    }
    (meta::uid(object) == meta::uid(before)
        && at(object, &["metadata", "ownerReferences"])
            != at(before, &["metadata", "ownerReferences"]))
    .then(|| format!("node {shown} is not allowed to modify ownerReferences"))
}

/// Whether a label says something that only the cluster's administrators may say of a node.
fn is_reserved(label: &str) -> bool {
    let Some((domain, _)) = label.split_once('/') else {
        return false;
    };
    let within = |of: &str| domain == of || domain.ends_with(&format!(".{of}"));
    if within("node-restriction.kubernetes.io") {
        return true;
    }
    if !within("kubernetes.io") && !within("k8s.io") {
        return false;
    }
    !(LABELS.contains(&label) || within("kubelet.kubernetes.io") || within("node.kubernetes.io"))
}

#[cfg(test)]
mod tests {
    use authorization::User;
    use serde_json::json;

    use super::*;

    fn refused(
        resource: &str,
        sub: &str,
        operation: Operation,
        name: &str,
        object: &Value,
        old: Option<&Value>,
    ) -> String {
        let user = User::new("system:node:a", &[node::NODES]);
        let attributes = Attributes {
            operation,
            user: &user,
            group: if resource == "leases" {
                "coordination.k8s.io"
            } else {
                ""
            },
            resource,
            subresource: sub,
            namespace: if resource == "leases" {
                "kube-node-lease"
            } else {
                ""
            },
            name,
            suffix: "",
        };
        let refusal = validate(&attributes, object, old).err();
        refusal.map_or_else(String::new, |status| {
            status
                .message
                .split_once("is forbidden: ")
                .map_or(String::new(), |(_, why)| why.to_owned())
        })
    }

    #[test]
    fn what_an_agent_may_write() {
        use Operation::{Create, Delete, Update};
        let pod = |node: &str, mirror: bool| json!({"metadata": {"annotations": if mirror { json!({MIRROR: "x"}) } else { json!({}) }}, "spec": {"nodeName": node}});
        let node = |labels: Value, taints: Value| json!({"metadata": {"labels": labels}, "spec": {"taints": taints}});
        let plain = node(json!({}), json!([]));
        #[rustfmt::skip]
        let cases = [
            ("pods", "", Create, "p", pod("a", true), None, ""),
            ("pods", "", Create, "p", pod("a", false), None, "pod does not have \"kubernetes.io/config.mirror\" annotation, node \"a\" can only create mirror pods"),
            ("pods", "", Create, "p", pod("b", true), None, "node \"a\" can only create pods with spec.nodeName set to itself"),
            ("pods", "", Delete, "p", pod("b", true), None, "node \"a\" can only delete pods with spec.nodeName set to itself"),
            ("pods", "status", Update, "p", pod("a", false), Some(pod("a", false)), ""),
            ("pods", "status", Update, "p", pod("b", false), Some(pod("b", false)), "node \"a\" can only update pod status for pods with spec.nodeName set to itself"),
            ("nodes", "", Create, "a", node(json!({"kubernetes.io/hostname": "a", "own.io/x": "y"}), json!([])), None, ""),
            ("nodes", "", Create, "b", plain.clone(), None, "node \"a\" is not allowed to modify node \"b\""),
            ("nodes", "", Update, "a", node(json!({"node-restriction.kubernetes.io/x": "y"}), json!([])), Some(plain.clone()), "is not allowed to modify labels: node-restriction.kubernetes.io/x"),
            ("nodes", "", Update, "a", plain, Some(node(json!({}), json!([{"key": "k"}]))), "node \"a\" is not allowed to modify taints"),
            ("leases", "", Update, "b", json!({}), None, "can only access node lease with the same name as the requesting node"),
            ("leases", "", Update, "a", json!({}), None, ""),
            ("configmaps", "", Create, "m", json!({}), None, ""),
        ];
        for (resource, sub, operation, name, object, old, expected) in cases {
            assert_eq!(
                refused(resource, sub, operation, name, &object, old.as_ref()),
                expected,
                "{operation:?} {resource} {object}"
            );
        }
    }
}
