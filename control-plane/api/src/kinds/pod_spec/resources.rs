//! What containers ask for and are limited to, and what the Pod as a whole is.

use std::collections::BTreeSet;

use serde_json::Value;

use super::findings::{Findings, Path};
use crate::field::{Fault, FieldError, quoted};
use crate::kinds::quotas::is_counted;
use crate::names;
use crate::quantity::Quantity;
use crate::value::{at, entries, list, text};

const NOT_NEGATIVE: &str = "must be greater than or equal to 0";

/// An amount, as text or number.
pub(super) fn quantity(amount: &Value) -> Option<Quantity> {
    match amount {
        Value::String(text) => Quantity::parse(text).ok(),
        Value::Number(number) => Quantity::parse(&number.to_string()).ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Whose resources they are: it decides which names there may be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    Container,
    Pod,
}

/// Looks at limits, requests and claims. `claims` are the names of the Pod's claims.
pub(super) fn check(
    resources: &Value,
    owner: Owner,
    claims: &BTreeSet<&str>,
    path: &Path<'_>,
    found: &mut Findings,
) {
    let limits = at(resources, &["limits"]);
    lists(limits, at(resources, &["requests"]), owner, path, found);
    claimed(
        list(resources, &["claims"]),
        claims,
        &path.child("claims"),
        found,
    );
}

/// What a sandbox needs beside its containers.
pub(super) fn overhead(amounts: &Value, path: &Path<'_>, found: &mut Findings) {
    lists(amounts, &Value::Null, Owner::Container, path, found);
}

fn lists(limits: &Value, requests: &Value, owner: Owner, path: &Path<'_>, found: &mut Findings) {
    let (limits_at, requests_at) = (path.child("limits"), path.child("requests"));
    let (mut huge, mut usual) = (false, false);
    for (name, amount) in entries(limits, &[]) {
        huge |= is_huge(name);
        usual |= matches!(name.as_str(), "cpu" | "memory");
        let here = limits_at.key(name);
        name_of(name, owner, &here, found);
        amount_of(name, amount, &here, found);
        pages(name, amount, &here, found);
    }
    for (name, amount) in entries(requests, &[]) {
        huge |= is_huge(name);
        usual |= matches!(name.as_str(), "cpu" | "memory");
        let here = requests_at.key(name);
        name_of(name, owner, &here, found);
        amount_of(name, amount, &here, found);
        let exact = !is_native(name) || is_huge(name);
        match (quantity(amount), quantity(at(limits, &[name]))) {
            (Some(asked), Some(limit)) if exact && asked != limit => {
                let why = format!("must be equal to {name} limit of {limit}");
                found.invalid_text(&requests_at, &asked.to_string(), why);
            }
            (Some(asked), Some(limit)) if asked > limit => {
                let why = format!("must be less than or equal to {name} limit of {limit}");
                found.invalid_text(&requests_at, &asked.to_string(), why);
            }
            (Some(_), None) if exact => {
                let why = "Limit must be set for non overcommitable resources";
                found.required(&limits_at, why);
            }
            _ => {}
        }
        pages(name, amount, &here, found);
    }
    if huge && !usual {
        found.forbidden(path, "HugePages require cpu or memory");
    }
}

/// Of memory in pages of a size of its own.
pub(in crate::kinds) fn is_huge(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// Without a domain, or with Kubernetes' own.
fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// Of a vendor, as device plugins offer them: in whole numbers only.
fn is_extended(name: &str) -> bool {
    !is_native(name)
        && !name.starts_with("requests.")
        && names::qualified_name(&format!("requests.{name}")).is_empty()
}

/// Names that quotas and limits know, without a domain.
fn is_standard(name: &str) -> bool {
    let plain = name
        .strip_prefix("requests.")
        .or_else(|| name.strip_prefix("limits."))
        .unwrap_or(name);
    matches!(plain, "cpu" | "memory" | "ephemeral-storage")
        || is_huge(name.strip_prefix("requests.").unwrap_or(name))
        || matches!(name, "storage" | "requests.storage")
        || is_counted(name)
}

/// What is wrong with the name of a resource of anything.
pub(in crate::kinds) fn resource_name(name: &str, path: &Path<'_>, found: &mut Findings) {
    let before = found.count();
    found.against(path, name, names::qualified_name(name));
    if found.count() == before && !name.contains('/') && !is_standard(name) {
        let why = "must be a standard resource type or fully qualified";
        found.invalid_text(path, name, why);
    }
}

/// What is wrong with the name of a resource that containers have.
pub(in crate::kinds) fn container_resource_name(name: &str, path: &Path<'_>, found: &mut Findings) {
    name_of(name, Owner::Container, path, found);
}

fn name_of(name: &str, owner: Owner, path: &Path<'_>, found: &mut Findings) {
    let before = found.count();
    resource_name(name, path, found);
    let container = matches!(name, "cpu" | "memory" | "ephemeral-storage") || is_huge(name);
    match owner {
        Owner::Pod if found.count() == before => {
            if !matches!(name, "cpu" | "memory") && !is_huge(name) {
                found.unsupported(path, name, &["cpu", "hugepages-", "memory"]);
            }
        }
        Owner::Pod => {}
        Owner::Container if !name.contains('/') => {
            if !container {
                found.invalid_text(path, name, "must be a standard resource for containers");
            }
        }
        Owner::Container => {
            if !is_native(name) && !is_extended(name) {
                let why = "doesn't follow extended resource name standard";
                found.invalid_text(path, name, why);
            }
        }
    }
}

fn amount_of(name: &str, amount: &Value, path: &Path<'_>, found: &mut Findings) {
    let Some(amount) = quantity(amount) else {
        return;
    };
    if amount.is_negative() {
        found.invalid_text(path, &amount.to_string(), NOT_NEGATIVE);
    }
    if (is_extended(name) || is_counted(name)) && !amount.is_whole() {
        found.invalid_text(path, &amount.to_string(), "must be an integer");
    }
}

/// Huge pages come whole.
fn pages(name: &str, amount: &Value, path: &Path<'_>, found: &mut Findings) {
    let (Some(size), Some(amount)) = (name.strip_prefix("hugepages-"), quantity(amount)) else {
        return;
    };
    let whole = Quantity::parse(size).is_ok_and(|size| {
        !size.is_zero()
            && !size.is_negative()
            && size.is_whole()
            && amount.nanos() % size.nanos() == 0
    });
    if !whole {
        let why = format!("{amount} is not positive integer multiple of {name}");
        found.invalid_text(path, &amount.to_string(), why);
    }
}

/// Each claim is one of the Pod's, and used once.
fn claimed(used: &[Value], claims: &BTreeSet<&str>, path: &Path<'_>, found: &mut Findings) {
    let mut seen: BTreeSet<(&str, &str)> = BTreeSet::new();
    for (i, one) in used.iter().enumerate() {
        let here = path.index(i);
        let (name, request) = (text(one, &["name"]), text(one, &["request"]));
        if name.is_empty() {
            found.required(&here, "");
            continue;
        }
        if seen.contains(&(name, "")) {
            found.duplicate(&here, name);
        } else {
            if !request.is_empty() {
                found.against(&here.child("request"), request, names::label(request));
            }
            if seen.contains(&(name, request)) {
                found.duplicate(&here, &format!("{name}/{request}"));
            } else if request.is_empty() {
                for _ in seen.iter().filter(|(before, _)| *before == name) {
                    found.duplicate(&here, name);
                }
            }
            seen.insert((name, request));
        }
        if !claims.contains(name) {
            let mut why = "must be one of the names in pod.spec.resourceClaims".to_owned();
            if claims.is_empty() {
                why.push_str(" which is empty");
            } else {
                let all: Vec<&str> = claims.iter().copied().collect();
                why.push_str(&format!(": {}", all.join(", ")));
            }
            let fault = Fault::NotFound(quoted(name));
            found.push(FieldError::new(&here, fault, why));
        }
    }
}

/// What the Pod as a whole asks for holds what its containers do.
pub(super) fn pod_level(
    spec: &Value,
    claims: &BTreeSet<&str>,
    path: &Path<'_>,
    found: &mut Findings,
) {
    let resources = at(spec, &["resources"]);
    if !resources.is_object() {
        return;
    }
    let path = path.child("resources");
    if at(resources, &["claims"]).is_array() {
        let why = "claims cannot be set for Resources at pod-level";
        found.forbidden(&path.child("claims"), why);
    }
    check(resources, Owner::Pod, claims, &path, found);
    let requests = path.child("requests");
    for (name, sum) in aggregate(spec, "requests") {
        let asked = quantity(at(resources, &["requests", name])).unwrap_or(Quantity::ZERO);
        if sum > asked {
            let why =
                format!("must be greater than or equal to aggregate container requests of {sum}");
            found.invalid_text(&requests.key(name), &asked.to_string(), why);
        }
    }
    let containers = path.child("containers");
    for (i, container) in list(spec, &["containers"]).iter().enumerate() {
        let here = containers.index(i);
        for (name, limit) in entries(container, &["resources", "limits"]) {
            let all = quantity(at(resources, &["limits", name]));
            if let (Some(limit), Some(all)) = (quantity(limit), all)
                && limit > all
            {
                let why = format!("must be less than or equal to pod limits of {all}");
                let here = here.key(name);
                found.invalid_text(&here.child("limits"), &limit.to_string(), why);
            }
        }
    }
}

/// Whether a Pod as a whole can ask for it.
pub(in crate::kinds) fn is_of_pods(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || is_huge(name)
}

/// The most that the containers have as `requests` or `limits` at one time: all that run together, or an init container
/// and the sidecars that were started before it.
pub(in crate::kinds) fn aggregate<'a>(spec: &'a Value, which: &str) -> Vec<(&'a str, Quantity)> {
    let inits = list(spec, &["initContainers"]);
    let containers = list(spec, &["containers"]);
    let names: BTreeSet<&String> = containers
        .iter()
        .chain(inits)
        .flat_map(|container| entries(container, &["resources", which]))
        .map(|(name, _)| name)
        .filter(|name| is_of_pods(name))
        .collect();
    let asks = |container: &Value, name: &str| {
        quantity(at(container, &["resources", which, name])).unwrap_or(Quantity::ZERO)
    };
    let sum = |name: &&String| {
        let all = containers
            .iter()
            .fold(Quantity::ZERO, |sum, one| sum.plus(&asks(one, name)));
        let (mut sidecars, mut most) = (Quantity::ZERO, Quantity::ZERO);
        for init in inits {
            let asked = asks(init, name);
            let at_once = sidecars.plus(&asked);
            if text(init, &["restartPolicy"]) == "Always" {
                sidecars = at_once;
            }
            if at_once > most {
                most = at_once;
            }
        }
        let all = all.plus(&sidecars);
        if most > all { most } else { all }
    };
    names
        .iter()
        .map(|name| (name.as_str(), sum(name)))
        .collect()
}

/// How containers take a change of their resources.
pub(super) fn resize_policies(
    container: &Value,
    pod_restarts: &str,
    path: &Path<'_>,
    found: &mut Findings,
) {
    let path = path.child("resizePolicy");
    let mut seen = BTreeSet::new();
    for (i, policy) in list(container, &["resizePolicy"]).iter().enumerate() {
        let (name, restart) = (
            text(policy, &["resourceName"]),
            text(policy, &["restartPolicy"]),
        );
        if !seen.insert(name) {
            found.duplicate(&path.index(i), name);
        }
        found.one_of(&path, name, &["cpu", "memory"]);
        found.one_of(&path, restart, &["NotRequired", "RestartContainer"]);
        if pod_restarts == "Never" && restart != "NotRequired" {
            let why = "must be 'NotRequired' when `restartPolicy` is 'Never'";
            found.invalid_text(&path, restart, why);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_runs_together_is_added_up() {
        let asks = |cpu: &str| json!({"requests": {"cpu": cpu}});
        let spec = json!({
            "initContainers": [
                {"resources": asks("1"), "restartPolicy": "Always"},
                {"resources": asks("5")},
            ],
            "containers": [{"resources": asks("2")}, {"resources": asks("1")}],
        });
        assert_eq!(aggregate(&spec, "requests")[0].1.to_string(), "6");
    }
}
