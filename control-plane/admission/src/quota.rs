//! ResourceQuota: how much of everything a namespace may hold.
//!
//! A quota is charged in the same write as the object, so that its status says what is there and two writers cannot
//! both take the last of something. This module says what an object counts for, whether a quota is for it, and what
//! becomes of the quota's status; who writes reads the quota and stores both together.

use std::collections::BTreeMap;

use api::quantity::Quantity;
use api::status::Status;
use api::value::{at, list, number, set, text};
use serde_json::{Map, Value, json};

use crate::pod::{Amounts, add, amounts, containers, total};
use crate::{Attributes, Plugin};

/// Its place in the table; what it does is done with the write.
pub(crate) const RESOURCE_QUOTA: Plugin = Plugin {
    name: NAME,
    handles: |_| false,
    mutate: None,
    validate: None,
};

/// The plugin's name.
pub const NAME: &str = "ResourceQuota";

/// Core resources that are counted under their own name beside `count/...`.
const COUNTED: &[&str] = &[
    "configmaps",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
];

/// Of which containers have to say how much they want where a quota limits it.
const COMPUTE: &[&str] = &[
    "cpu",
    "memory",
    "requests.cpu",
    "requests.memory",
    "limits.cpu",
    "limits.memory",
];

/// What an object counts for, by the names that quotas use.
pub fn usage(group: &str, resource: &str, object: &Value) -> BTreeMap<String, Quantity> {
    let mut used = Amounts::new();
    let one = Quantity::units(1);
    let name = match group {
        "" => format!("count/{resource}"),
        group => format!("count/{resource}.{group}"),
    };
    used.insert(name, one);
    if !group.is_empty() {
        return used;
    }
    match resource {
        "pods" => {
            let phase = text(object, &["status", "phase"]);
            if !matches!(phase, "Succeeded" | "Failed") {
                used.insert("pods".into(), one);
                add(&mut used, &pod_usage(object));
            }
        }
        "services" => {
            used.insert("services".into(), one);
            let kind = text(object, &["spec", "type"]);
            let ports = list(object, &["spec", "ports"]);
            let node_ports = match kind {
                "NodePort" => ports.len(),
                "LoadBalancer"
                    if at(object, &["spec", "allocateLoadBalancerNodePorts"])
                        != &Value::Bool(false) =>
                {
                    ports.len()
                }
                "LoadBalancer" => ports
                    .iter()
                    .filter(|port| number(port, &["nodePort"]) != 0)
                    .count(),
                _ => 0,
            };
            if kind == "LoadBalancer" {
                used.insert("services.loadbalancers".into(), one);
            }
            let node_ports = i64::try_from(node_ports).unwrap_or(i64::MAX);
            used.insert("services.nodeports".into(), Quantity::units(node_ports));
        }
        "persistentvolumeclaims" => {
            used.insert(resource.into(), one);
            let storage = amounts(object, &["spec", "resources", "requests"]);
            let old = "volume.beta.kubernetes.io/storage-class";
            let class = match text(object, &["metadata", "annotations", old]) {
                "" => text(object, &["spec", "storageClassName"]),
                old => old,
            };
            let prefix = format!("{class}.storageclass.storage.k8s.io/");
            if !class.is_empty() {
                used.insert(format!("{prefix}{resource}"), one);
            }
            if let Some(size) = storage.get("storage") {
                used.insert("requests.storage".into(), *size);
                if !class.is_empty() {
                    used.insert(format!("{prefix}requests.storage"), *size);
                }
            }
        }
        _ if COUNTED.contains(&resource) => {
            used.insert(resource.into(), one);
        }
        _ => {}
    }
    used
}

fn pod_usage(pod: &Value) -> Amounts {
    let mut used = Amounts::new();
    for (name, amount) in total(pod, "requests") {
        // Amounts without a prefix are requests too.
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage")
            || name.starts_with("hugepages-")
        {
            used.insert(name.clone(), amount);
        }
        used.insert(format!("requests.{name}"), amount);
    }
    for (name, amount) in total(pod, "limits") {
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
            used.insert(format!("limits.{name}"), amount);
        }
    }
    used
}

/// Whether a name of a quota can be of objects of the resource.
pub fn measures(name: &str, group: &str, resource: &str) -> bool {
    let counted = match name.strip_prefix("count/") {
        Some(rest) if group.is_empty() => rest == resource,
        Some(rest) => rest
            .strip_prefix(resource)
            .and_then(|rest| rest.strip_prefix('.'))
            .is_some_and(|of| of == group),
        None => false,
    };
    if counted || !group.is_empty() || name.starts_with("count/") {
        return counted;
    }
    match resource {
        "persistentvolumeclaims" => {
            name == resource
                || name == "requests.storage"
                || name.contains(".storageclass.storage.k8s.io/")
        }
        "services" => name == resource || name.starts_with("services."),
        "pods" => {
            let amount = name.starts_with("requests.") || name.starts_with("limits.");
            name == "pods"
                || (amount && name != "requests.storage" && !name.contains(".storageclass."))
                || matches!(name, "cpu" | "memory" | "ephemeral-storage")
                || name.starts_with("hugepages-")
        }
        _ => COUNTED.contains(&resource) && name == resource,
    }
}

/// Whether the quota's scopes are of this object. A scope is of Pods alone.
pub fn covers(quota: &Value, group: &str, resource: &str, object: &Value) -> bool {
    let scopes = list(quota, &["spec", "scopes"])
        .iter()
        .filter_map(Value::as_str)
        .map(|scope| (scope, "Exists", &[][..]));
    let selected = list(quota, &["spec", "scopeSelector", "matchExpressions"])
        .iter()
        .map(|term| {
            let (scope, operator) = (text(term, &["scopeName"]), text(term, &["operator"]));
            (scope, operator, list(term, &["values"]))
        });
    scopes.chain(selected).all(|(scope, operator, values)| {
        group.is_empty() && resource == "pods" && in_scope(object, scope, operator, values)
    })
}

fn in_scope(pod: &Value, scope: &str, operator: &str, values: &[Value]) -> bool {
    let spec = at(pod, &["spec"]);
    let ends = at(spec, &["activeDeadlineSeconds"]).is_i64();
    let best_effort = || {
        containers(spec).all(|container| {
            ["requests", "limits"].iter().all(|which| {
                let of = amounts(container, &["resources", which]);
                !["cpu", "memory"]
                    .iter()
                    .any(|name| of.get(*name).is_some_and(|a| !a.is_zero()))
            })
        })
    };
    match scope {
        "Terminating" => ends,
        "NotTerminating" => !ends,
        "BestEffort" => best_effort(),
        "NotBestEffort" => !best_effort(),
        "PriorityClass" => {
            let class = text(spec, &["priorityClassName"]);
            let among = values.iter().any(|value| value == class);
            match operator {
                "In" => among,
                "NotIn" => !among,
                "Exists" => !class.is_empty(),
                "DoesNotExist" => class.is_empty(),
                _ => false,
            }
        }
        "CrossNamespacePodAffinity" => crosses(spec),
        _ => false,
    }
}

/// Whether the affinity of a Pod looks at Pods of other namespaces.
fn crosses(spec: &Value) -> bool {
    let crossing = |term: &Value| {
        !list(term, &["namespaces"]).is_empty() || !at(term, &["namespaceSelector"]).is_null()
    };
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let affinity = at(spec, &["affinity", kind]);
        let hard = "requiredDuringSchedulingIgnoredDuringExecution";
        let soft = "preferredDuringSchedulingIgnoredDuringExecution";
        list(affinity, &[hard]).iter().any(crossing)
            || list(affinity, &[soft])
                .iter()
                .any(|term| crossing(at(term, &["podAffinityTerm"])))
    })
}

/// The quota with its status as it is once `new` stands in the place of `old`. `None`: the quota is not concerned.
///
/// # Errors
/// 403 in Kubernetes' words where the quota has no room, does not know yet what is used, or where a container does not
/// say how much it wants.
pub fn charge(
    attributes: &Attributes<'_>,
    quota: &Value,
    new: Option<&Value>,
    old: Option<&Value>,
) -> Result<Option<Value>, Status> {
    let (group, resource) = (attributes.group, attributes.resource);
    let hard = amounts(quota, &["status", "hard"]);
    let hard = if hard.is_empty() {
        amounts(quota, &["spec", "hard"])
    } else {
        hard
    };
    let interesting: Vec<&String> = hard
        .keys()
        .filter(|name| measures(name, group, resource))
        .collect();
    if interesting.is_empty() {
        return Ok(None);
    }
    let counts = |object: Option<&Value>| match object {
        Some(object) if covers(quota, group, resource, object) => usage(group, resource, object),
        _ => Amounts::new(),
    };
    let (after, before) = (counts(new), counts(old));
    let quota_name = api::meta::name(quota);
    if let Some(pod) = new
        && old.is_none()
        && (group, resource) == ("", "pods")
        && covers(quota, group, resource, pod)
        && let Some(missing) = unspecified(pod, &interesting)
    {
        return Err(attributes.forbid(format!(
            "failed quota: {quota_name}: must specify {missing}"
        )));
    }
    let amount = |of: &Amounts, name: &str| of.get(name).copied().unwrap_or(Quantity::ZERO);
    let used = amounts(quota, &["status", "used"]);
    let (mut next, mut refused) = (used.clone(), Vec::new());
    let mut changed = false;
    for name in &interesting {
        let delta = amount(&after, name).minus(&amount(&before, name));
        if delta.is_zero() {
            continue;
        }
        let Some(now) = used.get(*name) else {
            if delta.is_negative() {
                continue;
            }
            let known: Vec<&str> = interesting.iter().map(|name| name.as_str()).collect();
            return Err(attributes.forbid(format!(
                "status unknown for quota: {quota_name}, resources: {}",
                known.join(",")
            )));
        };
        let sum = now.plus(&delta);
        if !delta.is_negative() && sum > amount(&hard, name) {
            refused.push((name.as_str(), delta));
        }
        let sum = if sum.is_negative() {
            Quantity::ZERO
        } else {
            sum
        };
        next.insert((*name).clone(), sum);
        changed = true;
    }
    if !refused.is_empty() {
        let show = |amount: &dyn Fn(&str, &Quantity) -> Quantity| {
            let told: Vec<String> = refused
                .iter()
                .map(|(name, delta)| format!("{name}={}", amount(name, delta)))
                .collect();
            told.join(",")
        };
        return Err(attributes.forbid(format!(
            "exceeded quota: {quota_name}, requested: {}, used: {}, limited: {}",
            show(&|_, delta| *delta),
            show(&|name, _| amount(&used, name)),
            show(&|name, _| amount(&hard, name)),
        )));
    }
    if !changed {
        return Ok(None);
    }
    let mut quota = quota.clone();
    set(&mut quota["status"], "used", shown(&next));
    Ok(Some(quota))
}

/// What a container should have said, for instance `limits.cpu for: a,b; requests.memory for: a`.
fn unspecified(pod: &Value, interesting: &[&String]) -> Option<String> {
    let mut missing: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let spec = at(pod, &["spec"]);
    for name in interesting
        .iter()
        .filter(|name| COMPUTE.contains(&name.as_str()))
    {
        let (which, what) = name.split_once('.').unwrap_or(("requests", name));
        if !at(spec, &["resources", which, what]).is_null() {
            continue;
        }
        for key in ["containers", "initContainers"] {
            for container in list(spec, &[key]) {
                if at(container, &["resources", which, what]).is_null() {
                    missing
                        .entry(name)
                        .or_default()
                        .push(text(container, &["name"]));
                }
            }
        }
    }
    let told: Vec<String> = missing
        .into_iter()
        .map(|(name, mut containers)| {
            containers.sort_unstable();
            containers.dedup();
            format!("{name} for: {}", containers.join(","))
        })
        .collect();
    (!told.is_empty()).then(|| told.join("; "))
}

/// The status of a quota whose namespace holds these objects, each with its group and resource.
pub fn recount<'a>(
    quota: &Value,
    objects: impl Iterator<Item = (&'a str, &'a str, &'a Value)>,
) -> Value {
    let hard = amounts(quota, &["spec", "hard"]);
    let mut used: Amounts = hard
        .keys()
        .map(|name| (name.clone(), Quantity::ZERO))
        .collect();
    for (group, resource, object) in objects {
        if !covers(quota, group, resource, object) {
            continue;
        }
        for (name, amount) in usage(group, resource, object) {
            if let Some(sum) = used.get_mut(&name) {
                *sum = sum.plus(&amount);
            }
        }
    }
    json!({"hard": at(quota, &["spec", "hard"]), "used": shown(&used)})
}

fn shown(amounts: &Amounts) -> Value {
    let map: Map<String, Value> = amounts
        .iter()
        .map(|(name, amount)| (name.clone(), amount.to_string().into()))
        .collect();
    Value::Object(map)
}
