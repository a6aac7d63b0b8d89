//! Node: a machine of the cluster.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::pod_parts::{PROXY_VERBS, connection};
use crate::duration::age;
use crate::field::{FieldError, quoted};
use crate::meta;
use crate::names;
use crate::quantity::Quantity;
use crate::table::{AGE, BASE, Column, Field, NAME, Resource, STATUS, column, wide};
use crate::value::{self, at, entries, flag, list, text};

/// Nodes.
pub(crate) static NODES: Resource = Resource {
    kind: "Node",
    list_kind: "NodeList",
    plural: "nodes",
    singular: "node",
    short_names: &["no"],
    namespaced: false,
    subresources: &[connection("proxy", "NodeProxyOptions", PROXY_VERBS), STATUS],
    storage_prefix: "/registry/minions",
    definition: "io.k8s.api.core.v1.Node",
    columns: COLUMNS,
    cells,
    fields: &[Field {
        label: "spec.unschedulable",
        get: |object| flag(object, &["spec", "unschedulable"]).to_string(),
    }],
    default,
    validate,
    validate_update,
    warnings: super::warnings::of_node,
    ..BASE
};

const COLUMNS: &[Column] = &[
    NAME,
    column(
        "Status",
        "Whether it can run Pods, and whether new ones may come.",
    ),
    column("Roles", "Roles by its labels."),
    AGE,
    column("Version", "Version of its node agent."),
    wide("Internal-IP", "Its address within the cluster."),
    wide("External-IP", "Its address from outside."),
    wide("OS-Image", "Its operating system."),
    wide("Kernel-Version", "Its kernel."),
    wide("Container-Runtime", "What runs its containers."),
];

fn cells(object: &Value, now: OffsetDateTime) -> Vec<Value> {
    let or_unknown = |path: &[&str]| match text(object, path) {
        "" => "<unknown>".to_owned(),
        text => text.to_owned(),
    };
    let address = |kind: &str| {
        list(object, &["status", "addresses"])
            .iter()
            .find(|a| text(a, &["type"]) == kind)
            .map_or("<none>", |a| text(a, &["address"]))
            .to_owned()
    };
    vec![
        meta::name(object).into(),
        status(object).into(),
        roles(object).into(),
        age(at(object, &["metadata", "creationTimestamp"]), now).into(),
        text(object, &["status", "nodeInfo", "kubeletVersion"]).into(),
        address("InternalIP").into(),
        address("ExternalIP").into(),
        or_unknown(&["status", "nodeInfo", "osImage"]).into(),
        or_unknown(&["status", "nodeInfo", "kernelVersion"]).into(),
        or_unknown(&["status", "nodeInfo", "containerRuntimeVersion"]).into(),
    ]
}

fn status(object: &Value) -> String {
    let ready = list(object, &["status", "conditions"])
        .iter()
        .find(|c| text(c, &["type"]) == "Ready");
    let mut shown = match ready.map(|c| text(c, &["status"])) {
        None => "Unknown".to_owned(),
        Some("True") => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
    };
    if flag(object, &["spec", "unschedulable"]) {
        shown.push_str(",SchedulingDisabled");
    }
    shown
}

fn roles(object: &Value) -> String {
    let roles: BTreeSet<&str> = entries(object, &["metadata", "labels"])
        .filter_map(
            |(key, val)| match key.strip_prefix("node-role.kubernetes.io/") {
                Some(role) => Some(role),
                None if key == "kubernetes.io/role" => val.as_str(),
                None => None,
            },
        )
        .filter(|role| !role.is_empty())
        .collect();
    if roles.is_empty() {
        "<none>".to_owned()
    } else {
        Vec::from_iter(roles).join(",")
    }
}

/// The single and the plural form of the address range say the same; what the status holds by value is always there.
fn default(object: &mut Value) {
    zero_status(object);
    let Some(spec) = value::object_mut(object, "spec") else {
        return;
    };
    let (one, many) = (
        text(spec, &["podCIDR"]).to_owned(),
        list(spec, &["podCIDRs"]).to_vec(),
    );
    if !one.is_empty() && many.is_empty() {
        value::set(spec, "podCIDRs", json!([one]));
    } else if let (true, Some(first)) = (one.is_empty(), many.first()) {
        value::set(spec, "podCIDR", first.clone());
    }
}

fn zero_status(object: &mut Value) {
    let Some(status) = value::object_mut(object, "status") else {
        return;
    };
    let capacity = at(status, &["capacity"]).clone();
    if capacity.is_object() && at(status, &["allocatable"]).is_null() {
        value::set(status, "allocatable", capacity);
    }
    if let Some(daemons) = value::object_mut(status, "daemonEndpoints")
        && let Some(kubelet) = value::object_mut(daemons, "kubeletEndpoint")
    {
        value::set_default(kubelet, "Port", 0);
    }
    if let Some(info) = value::object_mut(status, "nodeInfo") {
        for key in [
            "machineID",
            "systemUUID",
            "bootID",
            "kernelVersion",
            "osImage",
            "containerRuntimeVersion",
            "kubeletVersion",
            "kubeProxyVersion",
            "operatingSystem",
            "architecture",
        ] {
            value::set_default(info, key, "");
        }
    }
}

fn validate(object: &Value) -> Vec<FieldError> {
    let mut wrong = taints(at(object, &["spec", "taints"]));
    let cidrs = list(object, &["spec", "podCIDRs"]);
    for (i, cidr) in cidrs.iter().enumerate() {
        let text = cidr.as_str().unwrap_or("");
        if let Some(why) = crate::net::bad_cidr(text) {
            wrong.push(FieldError::invalid_text(
                format!("spec.podCIDRs[{i}]"),
                text,
                why,
            ));
        }
    }
    let first = cidrs.first().and_then(Value::as_str).unwrap_or("");
    let one = text(object, &["spec", "podCIDR"]);
    if one != first {
        wrong.push(FieldError::invalid_text(
            "spec.podCIDR",
            one,
            format!("must match `podCIDRs[0]`: {first}"),
        ));
    }
    if cidrs.len() > 1 {
        let v6: Vec<bool> = cidrs
            .iter()
            .map(|c| c.as_str().unwrap_or("").contains(':'))
            .collect();
        if cidrs.len() > 2 || v6[0] == v6[1] {
            let why = "may specify no more than one CIDR for each IP family";
            wrong.push(FieldError::invalid(
                "spec.podCIDRs",
                at(object, &["spec", "podCIDRs"]),
                why,
            ));
        }
    }
    wrong.extend(bad_amounts(at(object, &["status"])));
    let mut seen = BTreeSet::new();
    for (i, address) in list(object, &["status", "addresses"]).iter().enumerate() {
        let key = (text(address, &["type"]), text(address, &["address"]));
        if !seen.insert(key) {
            let shown = format!(
                "{{\"Type\":{},\"Address\":{}}}",
                quoted(key.0),
                quoted(key.1)
            );
            wrong.push(FieldError::duplicate(
                format!("status.addresses[{i}]"),
                shown,
            ));
        }
    }
    wrong
}

/// What a node has and gives is not less than nothing, and of things that are counted, a whole number.
fn bad_amounts(status: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    for key in ["capacity", "allocatable"] {
        for (name, amount) in entries(status, &[key]) {
            let field = format!("status.{key}.{name}");
            let Ok(read) = Quantity::parse(&super::amount_text(amount)) else {
                continue;
            };
            if read.is_negative() {
                let why = "must be greater than or equal to 0";
                wrong.push(FieldError::invalid(field.clone(), amount, why));
            }
            // Of resources outside of Kubernetes' own domain there are only whole ones.
            let own = name.contains("kubernetes.io/") || name.starts_with("requests.");
            let counted = name == "pods" || (name.contains('/') && !own);
            if counted && !read.is_whole() {
                wrong.push(FieldError::invalid(field, amount, "must be an integer"));
            }
        }
    }
    wrong
}

fn taints(taints: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for (i, taint) in list(taints, &[]).iter().enumerate() {
        let path = format!("spec.taints[{i}]");
        let (key, val, effect) = (
            text(taint, &["key"]),
            text(taint, &["value"]),
            text(taint, &["effect"]),
        );
        wrong.extend(meta::label_key(key, &format!("{path}.key")));
        for why in names::label_value(val) {
            wrong.push(FieldError::invalid_text(format!("{path}.value"), val, why));
        }
        let field = format!("{path}.effect");
        match effect {
            "NoSchedule" | "PreferNoSchedule" | "NoExecute" => {}
            "" => wrong.push(FieldError::required(field, "")),
            other => {
                wrong.push(FieldError::not_supported(
                    field,
                    other,
                    &["NoSchedule", "PreferNoSchedule", "NoExecute"],
                ));
            }
        }
        if !seen.insert((key, effect)) {
            wrong.push(FieldError::new(
                path,
                crate::field::Fault::Duplicate(taint.to_string()),
                "taints must be unique by key and effect pair",
            ));
        }
    }
    wrong
}

fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut wrong = validate(new);
    let before = list(old, &["spec", "podCIDRs"]);
    if !before.is_empty() && before != list(new, &["spec", "podCIDRs"]) {
        let why = "node updates may not change podCIDR except from \"\" to valid";
        wrong.push(FieldError::forbidden("spec.podCIDRs", why));
    }
    let before = text(old, &["spec", "providerID"]);
    if !before.is_empty() && before != text(new, &["spec", "providerID"]) {
        let why = "node updates may not change providerID except from \"\" to valid";
        wrong.push(FieldError::forbidden("spec.providerID", why));
    }
    wrong
}
