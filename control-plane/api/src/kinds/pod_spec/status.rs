//! What may be said of how a Pod is.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::findings::{Findings, Path};
use super::{ROOT, security, update};
use crate::field::FieldError;
use crate::names;
use crate::net;
use crate::value::{self, at, list, number, text};

/// Fills what goes together: one address and all addresses, the class that never changes.
pub(in crate::kinds) fn prepare(new: &mut Value, old: &Value) {
    crate::value::keep(&mut new["metadata"], &old["metadata"], "ownerReferences");
    let class = at(old, &["status", "qosClass"]).clone();
    let Some(status) = new.get_mut("status").filter(|status| status.is_object()) else {
        return;
    };
    if class.is_string() {
        value::set_default(status, "qosClass", class);
    }
    for (one, all) in [("podIP", "podIPs"), ("hostIP", "hostIPs")] {
        let ip = text(status, &[one]).to_owned();
        let first = list(status, &[all])
            .first()
            .map(|first| text(first, &["ip"]));
        if !ip.is_empty() && first != Some(ip.as_str()) {
            value::set(status, all, json!([{"ip": ip}]));
        } else if ip.is_empty()
            && let Some(first) = first.map(str::to_owned)
        {
            value::set(status, one, first);
        }
    }
}

/// Everything wrong with another status.
pub(in crate::kinds) fn check(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut found = Findings::default();
    update::annotation_changes(new, old, &mut found);
    let metadata = ROOT.child("metadata");
    let conditions = metadata.child("conditions");
    for (i, condition) in list(new, &["status", "conditions"]).iter().enumerate() {
        let kind = text(condition, &["type"]);
        if !matches!(kind, "PodScheduled" | "Ready" | "Initialized") {
            let here = conditions.index(i);
            found.against(&here.child("Type"), kind, names::qualified_name(kind));
        }
    }
    let path = ROOT.child("status");
    let (before, after) = (at(old, &["status"]), at(new, &["status"]));
    let node = text(after, &["nominatedNodeName"]);
    if !node.is_empty() && node != text(before, &["nominatedNodeName"]) {
        let here = path.child("nominatedNodeName");
        found.against(&here, node, names::subdomain(node));
    }
    let (was, is) = (at(before, &["qosClass"]), at(after, &["qosClass"]));
    if !value::same(was, is) {
        found.invalid(&path.child("qosClass"), is, "field is immutable");
    }
    let policy = text(old, &["spec", "restartPolicy"]);
    let inits = list(old, &["spec", "initContainers"]);
    for (key, policy, restarts) in [
        (
            "containerStatuses",
            policy,
            list(old, &["spec", "containers"]),
        ),
        ("initContainerStatuses", policy, inits),
        ("ephemeralContainerStatuses", "Never", &[]),
    ] {
        comes_back(after, before, key, policy, restarts, &path, &mut found);
    }
    claims(new, &path.child("resourceClaimStatuses"), &mut found);
    addresses(after, "podIPs", &path, &mut found);
    let hosts = list(after, &["hostIPs"]);
    if let Some(first) = hosts.first().map(|first| text(first, &["ip"]))
        && first != text(after, &["hostIP"])
    {
        let all = path.child("hostIPs");
        let here = all.index(0);
        found.invalid_text(&here.child("ip"), first, "must be equal to `hostIP`");
    }
    addresses(after, "hostIPs", &path, &mut found);
    users(new, &path, &mut found);
    found.into_vec()
}

/// Containers that ended for good stay so: by the Pod's policy, unless they have their own.
fn comes_back(
    after: &Value,
    before: &Value,
    key: &str,
    policy: &str,
    containers: &[Value],
    path: &Path<'_>,
    found: &mut Findings,
) {
    if policy == "Always" {
        return;
    }
    let path = path.child(key);
    for (i, was) in list(before, &[key]).iter().enumerate() {
        let ended = at(was, &["state", "terminated"]);
        if !ended.is_object() || (policy == "OnFailure" && number(ended, &["exitCode"]) != 0) {
            continue;
        }
        let name = text(was, &["name"]);
        let own = containers.iter().any(|container| {
            text(container, &["name"]) == name
                && (at(container, &["restartPolicy"]).is_string()
                    || !list(container, &["restartPolicyRules"]).is_empty())
        });
        if own {
            continue;
        }
        for is in list(after, &[key]) {
            if text(is, &["name"]) == name && !at(is, &["state", "terminated"]).is_object() {
                let why = "may not be transitioned to non-terminated state";
                found.forbidden(&path.index(i).child("state"), why);
            }
        }
    }
}

fn claims(pod: &Value, path: &Path<'_>, found: &mut Findings) {
    let known = list(pod, &["spec", "resourceClaims"]);
    let mut seen = BTreeSet::new();
    for (i, status) in list(pod, &["status", "resourceClaimStatuses"])
        .iter()
        .enumerate()
    {
        let item = path.index(i);
        let here = item.child("name");
        let name = text(status, &["name"]);
        if !known.iter().any(|claim| text(claim, &["name"]) == name) {
            let why = "must match the name of an entry in `spec.resourceClaims`";
            found.invalid_text(&here, name, why);
        }
        if !seen.insert(name) {
            found.duplicate(&here, name);
        }
        if let Some(claim) = at(status, &["resourceClaimName"]).as_str() {
            found.against(&here, claim, names::subdomain(claim));
        }
    }
}

/// At most one address of each family, and each an address.
fn addresses(status: &Value, key: &str, path: &Path<'_>, found: &mut Findings) {
    let here = path.child(key);
    let ips: Vec<&str> = list(status, &[key])
        .iter()
        .map(|ip| text(ip, &["ip"]))
        .collect();
    let before = found.count();
    for (i, ip) in ips.iter().enumerate() {
        if let Some(why) = net::bad_ip(ip) {
            found.invalid_text(&here.index(i), ip, why);
        }
    }
    let [first, second, rest @ ..] = ips.as_slice() else {
        return;
    };
    if found.count() > before {
        return;
    }
    if !rest.is_empty() || first.contains(':') == second.contains(':') {
        let why = "may specify no more than one IP for each IP family";
        found.invalid(&here, at(status, &[key]), why);
    }
    let mut seen = BTreeSet::new();
    for (i, ip) in ips.iter().enumerate() {
        if !seen.insert(ip) {
            let shown = json!({"IP": ip}).to_string();
            found.push(FieldError::duplicate(&here.index(i), shown));
        }
    }
}

/// Whom containers run as.
fn users(pod: &Value, path: &Path<'_>, found: &mut Findings) {
    let windows = text(pod, &["spec", "os", "name"]) == "windows";
    for key in [
        "containerStatuses",
        "initContainerStatuses",
        "ephemeralContainerStatuses",
    ] {
        let path = path.child(key);
        for (i, status) in list(pod, &["status", key]).iter().enumerate() {
            let user = at(status, &["user", "linux"]);
            if !user.is_object() {
                continue;
            }
            let item = path.index(i);
            let here = item.child("linux");
            if windows {
                found.forbidden(&here, "cannot be set for a windows pod");
                continue;
            }
            for key in ["uid", "gid"] {
                security::id(at(user, &[key]), &here.child(key), found);
            }
            let groups = here.child("supplementalGroups");
            for (j, group) in list(user, &["supplementalGroups"]).iter().enumerate() {
                security::id(group, &groups.index(j), found);
            }
        }
    }
}
