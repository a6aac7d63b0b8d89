//! The Node authorizer: what the agent of a node may do beyond its role, which is to read what the Pods on it need.
//!
//! Which Pods are on it is not known here: [`ruling`] says what has to be found out, [`refers`] looks at one Pod.

use api::value::{list, text};
use serde_json::Value;

use crate::{ResourceTarget, Rule, User};

/// The group of all nodes' agents.
pub const NODES: &str = "system:nodes";
const PREFIX: &str = "system:node:";

/// The node whose agent the user is.
pub fn name(user: &User) -> Option<&str> {
    user.name
        .strip_prefix(PREFIX)
        .filter(|name| !name.is_empty() && user.is(NODES))
}

/// What a Pod may need.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Need {
    /// A Secret of its namespace.
    Secret,
    /// A ConfigMap of its namespace.
    ConfigMap,
    /// A claim of its namespace.
    Claim,
    /// The volume that a claim of its is bound to.
    Volume,
    /// The account that it runs as.
    Account,
}

/// What decides a request of a node's agent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ruling {
    /// The rules of the role `system:node`.
    Role,
    /// It may.
    Yes,
    /// It may not; why.
    No(&'static str),
    /// It may where a Pod on the node needs the object.
    Needed(Need),
    /// It may where the Pod of that name is on the node.
    OwnPod,
    /// It may where the VolumeAttachment of that name is the node's.
    OwnAttachment,
}

/// What decides. `fields` is the field selector of a list or watch.
pub fn ruling(node: &str, verb: &str, at: &ResourceTarget<'_>, fields: &str) -> Ruling {
    let reads = matches!(verb, "get" | "list" | "watch");
    let needed = |need, verbs: &[&str]| {
        if !verbs.contains(&verb) || !at.subresource.is_empty() {
            Ruling::No("can only read resources of this type")
        } else if at.name.is_empty() {
            Ruling::No("can only read namespaced object of this type")
        } else {
            Ruling::Needed(need)
        }
    };
    match (at.group, at.resource) {
        ("", "secrets") => needed(Need::Secret, &["get", "list", "watch"]),
        ("", "configmaps") => needed(Need::ConfigMap, &["get", "list", "watch"]),
        ("", "persistentvolumeclaims") if at.subresource == "status" => Ruling::Role,
        ("", "persistentvolumeclaims") => needed(Need::Claim, &["get"]),
        ("", "persistentvolumes") => needed(Need::Volume, &["get"]),
        ("", "serviceaccounts") if at.subresource == "token" && verb == "create" => {
            Ruling::Needed(Need::Account)
        }
        ("", "serviceaccounts") => needed(Need::Account, &["get"]),
        ("storage.k8s.io", "volumeattachments") if verb == "get" && !at.name.is_empty() => {
            Ruling::OwnAttachment
        }
        ("storage.k8s.io", "volumeattachments") => {
            Ruling::No("can only get individual resources of this type")
        }
        ("coordination.k8s.io", "leases") if at.namespace != "kube-node-lease" => {
            Ruling::No("can only access leases in the \"kube-node-lease\" system namespace")
        }
        ("coordination.k8s.io", "leases") => own(node, verb, at),
        ("storage.k8s.io", "csinodes") => own(node, verb, at),
        ("", "nodes") if reads => match verb {
            "get" if at.name == node => Ruling::Yes,
            "list" | "watch" if selects(fields, "metadata.name", node) => Ruling::Yes,
            _ => Ruling::No("node may only read its own Node object"),
        },
        ("", "pods") if verb == "get" && at.subresource.is_empty() => Ruling::OwnPod,
        ("", "pods") if reads && at.subresource.is_empty() => {
            if selects(fields, "spec.nodeName", node) {
                Ruling::Yes
            } else {
                Ruling::No("can only list/watch pods with spec.nodeName field selector")
            }
        }
        _ => Ruling::Role,
    }
}

fn own(node: &str, verb: &str, at: &ResourceTarget<'_>) -> Ruling {
    match verb {
        "get" | "create" | "update" | "patch" | "delete" if at.subresource.is_empty() => {
            // The name of what is made stands in its body, which admission looks at.
            if verb == "create" || at.name == node {
                Ruling::Yes
            } else {
                Ruling::No("can only access the object with the same name as the requesting node")
            }
        }
        _ => Ruling::No("can only create, get, update, patch, or delete its own"),
    }
}

fn selects(fields: &str, label: &str, value: &str) -> bool {
    fields.split(',').any(|part| {
        part.trim()
            .strip_prefix(label)
            .and_then(|rest| rest.strip_prefix("==").or_else(|| rest.strip_prefix('=')))
            == Some(value)
    })
}

/// Whether one of the rules allows it.
pub fn by_role(rules: &[Rule], attributes: &crate::Attributes<'_>) -> bool {
    rules.iter().any(|rule| rule.allows(attributes))
}

/// Whether the Pod names an object of its namespace. Volumes are not looked for: Pods name claims.
pub fn refers(pod: &Value, need: Need, name: &str) -> bool {
    let spec = &pod["spec"];
    match need {
        Need::Account => text(spec, &["serviceAccountName"]) == name,
        Need::Claim => list(spec, &["volumes"]).iter().any(|volume| {
            text(volume, &["persistentVolumeClaim", "claimName"]) == name
                || (volume["ephemeral"].is_object()
                    && format!("{}-{}", api::meta::name(pod), text(volume, &["name"])) == name)
        }),
        Need::Secret => names(spec, &SECRETS, name),
        Need::ConfigMap => names(spec, &CONFIG_MAPS, name),
        Need::Volume => false,
    }
}

/// The fields of a Pod's spec that name a Secret: each with the key of the name.
const SECRETS: [(&str, &str); 7] = [
    ("secret", "secretName"),
    ("secret", "name"),
    ("secretRef", "name"),
    ("secretKeyRef", "name"),
    ("nodePublishSecretRef", "name"),
    ("azureFile", "secretName"),
    ("imagePullSecrets", "name"),
];
const CONFIG_MAPS: [(&str, &str); 3] = [
    ("configMap", "name"),
    ("configMapRef", "name"),
    ("configMapKeyRef", "name"),
];

fn names(value: &Value, fields: &[(&str, &str)], name: &str) -> bool {
    match value {
        Value::Object(map) => map.iter().any(|(key, below)| {
            let here = |field: &str, inner: &str| {
                let is = |object: &Value| object.get(inner).is_some_and(|found| found == name);
                key == field
                    && (is(below) || below.as_array().is_some_and(|all| all.iter().any(is)))
            };
            fields.iter().any(|(field, inner)| here(field, inner)) || names(below, fields, name)
        }),
        Value::Array(items) => items.iter().any(|item| names(item, fields, name)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn whose_agent() {
        let user =
            |name: &str, groups: &[&str]| super::name(&User::new(name, groups)).map(str::to_owned);
        assert_eq!(user("system:node:a", &[NODES]).as_deref(), Some("a"));
        assert_eq!(user("system:node:a", &[]), None);
        assert_eq!(user("system:node:", &[NODES]), None);
        assert_eq!(user("jane", &[NODES]), None);
    }

    #[test]
    fn what_decides() {
        let at = |group, resource, namespace, name, subresource| ResourceTarget {
            group,
            version: "v1",
            namespace,
            resource,
            subresource,
            name,
        };
        let no = |ruling| matches!(ruling, Ruling::No(_));
        #[rustfmt::skip]
        let cases = [
            ("get", at("", "secrets", "x", "s", ""), "", Ruling::Needed(Need::Secret)),
            ("get", at("", "nodes", "", "a", ""), "", Ruling::Yes),
            ("watch", at("", "nodes", "", "", ""), "metadata.name=a", Ruling::Yes),
            ("list", at("", "pods", "", "", ""), "spec.nodeName=a,status.phase!=Failed", Ruling::Yes),
            ("get", at("", "pods", "x", "p", ""), "", Ruling::OwnPod),
            ("update", at("coordination.k8s.io", "leases", "kube-node-lease", "a", ""), "", Ruling::Yes),
            ("patch", at("", "nodes", "", "a", "status"), "", Ruling::Role),
            ("create", at("", "serviceaccounts", "x", "s", "token"), "", Ruling::Needed(Need::Account)),
        ];
        for (verb, target, fields, expected) in cases {
            assert_eq!(
                ruling("a", verb, &target, fields),
                expected,
                "{verb} {target:?}"
            );
        }
        #[rustfmt::skip]
        let refused = [
            ("list", at("", "secrets", "x", "", ""), ""),
            ("update", at("", "secrets", "x", "s", ""), ""),
            ("get", at("", "nodes", "", "b", ""), ""),
            ("list", at("", "nodes", "", "", ""), ""),
            ("list", at("", "pods", "", "", ""), "spec.nodeName=b"),
            ("get", at("coordination.k8s.io", "leases", "kube-node-lease", "b", ""), ""),
            ("get", at("coordination.k8s.io", "leases", "default", "a", ""), ""),
        ];
        for (verb, target, fields) in refused {
            assert!(no(ruling("a", verb, &target, fields)), "{verb} {target:?}");
        }
    }

    #[test]
    fn what_a_pod_names() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {
            "serviceAccountName": "sa", "imagePullSecrets": [{"name": "pull"}],
            "containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "env", "key": "k"}}}], "envFrom": [{"configMapRef": {"name": "from"}}]}],
            "volumes": [
                {"name": "a", "secret": {"secretName": "vol"}}, {"name": "b", "configMap": {"name": "cm"}},
                {"name": "c", "projected": {"sources": [{"secret": {"name": "proj"}}]}},
                {"name": "d", "persistentVolumeClaim": {"claimName": "claim"}}, {"name": "e", "ephemeral": {}},
            ],
        }});
        #[rustfmt::skip]
        let cases = [
            (Need::Secret, "pull", true), (Need::Secret, "env", true), (Need::Secret, "vol", true), (Need::Secret, "proj", true),
            (Need::Secret, "cm", false), (Need::ConfigMap, "cm", true), (Need::ConfigMap, "from", true), (Need::ConfigMap, "vol", false),
            (Need::Claim, "claim", true), (Need::Claim, "p-e", true), (Need::Claim, "p-a", false), (Need::Account, "sa", true),
        ];
        for (need, name, expected) in cases {
            assert_eq!(refers(&pod, need, name), expected, "{need:?} {name}");
        }
    }
}
