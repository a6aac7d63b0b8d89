//! What a Pod must not say, and what may change in it once it exists.

use std::collections::BTreeSet;

use serde_json::Value;

use super::pod_containers::{Place, bad_containers};
use crate::field::{FieldError, quoted};
use crate::meta;
use crate::names;
use crate::net;
use crate::value::{self, at, entries, flag, items_mut, list, number, text};

const FROZEN: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
    `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
    tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

pub(crate) fn validate(object: &Value) -> Vec<FieldError> {
    let spec = at(object, &["spec"]);
    let (mut wrong, volumes) = bad_volumes(list(spec, &["volumes"]));
    let host_network = flag(spec, &["hostNetwork"]);
    let mut seen = BTreeSet::new();
    wrong.extend(bad_containers(
        spec,
        Place {
            key: "containers",
            volumes: &volumes,
            host_network,
        },
        &mut seen,
    ));
    wrong.extend(bad_containers(
        spec,
        Place {
            key: "initContainers",
            volumes: &volumes,
            host_network,
        },
        &mut seen,
    ));
    match text(spec, &["restartPolicy"]) {
        "Always" | "OnFailure" | "Never" => {}
        "" => wrong.push(FieldError::required("spec.restartPolicy", "")),
        other => {
            wrong.push(FieldError::not_supported(
                "spec.restartPolicy",
                other,
                &["Always", "OnFailure", "Never"],
            ));
        }
    }
    wrong.extend(bad_dns(spec));
    wrong.extend(bad_sysctls(spec));
    wrong.extend(meta::labels(
        at(spec, &["nodeSelector"]),
        "spec.nodeSelector",
    ));
    let not_negative = |key: &str| {
        let given = at(spec, &[key]);
        (given.as_i64().unwrap_or(0) < 0).then(|| {
            FieldError::invalid(
                format!("spec.{key}"),
                given,
                "must be greater than or equal to 0",
            )
        })
    };
    wrong.extend(not_negative("terminationGracePeriodSeconds"));
    let deadline = at(spec, &["activeDeadlineSeconds"]);
    if deadline
        .as_i64()
        .is_some_and(|secs| !(1..=i64::from(i32::MAX)).contains(&secs))
    {
        let why = format!("must be between 1 and {}, inclusive", i32::MAX);
        wrong.push(FieldError::invalid(
            "spec.activeDeadlineSeconds",
            deadline,
            why,
        ));
    }
    for key in [
        "serviceAccountName",
        "nodeName",
        "priorityClassName",
        "runtimeClassName",
    ] {
        let name = text(spec, &[key]);
        for why in names::subdomain(name)
            .into_iter()
            .filter(|_| !name.is_empty())
        {
            wrong.push(FieldError::invalid_text(format!("spec.{key}"), name, why));
        }
    }
    for key in ["hostname", "subdomain"] {
        let name = text(spec, &[key]);
        for why in names::label(name).into_iter().filter(|_| !name.is_empty()) {
            wrong.push(FieldError::invalid_text(format!("spec.{key}"), name, why));
        }
    }
    for (i, alias) in list(spec, &["hostAliases"]).iter().enumerate() {
        let ip = text(alias, &["ip"]);
        let field = format!("spec.hostAliases[{i}].ip");
        wrong.extend(net::bad_ip(ip).map(|why| FieldError::invalid_text(field, ip, why)));
    }
    for (i, toleration) in list(spec, &["tolerations"]).iter().enumerate() {
        wrong.extend(bad_toleration(
            &format!("spec.tolerations[{i}]"),
            toleration,
        ));
    }
    for (i, gate) in list(spec, &["readinessGates"]).iter().enumerate() {
        let kind = text(gate, &["conditionType"]);
        for why in names::qualified_name(kind) {
            wrong.push(FieldError::invalid_text(
                format!("spec.readinessGates[{i}].conditionType"),
                kind,
                why,
            ));
        }
    }
    wrong.extend(bad_addresses(object));
    wrong
}

/// The names that a kernel's parameters have: words between dots or slashes.
const SYSCTL: &str = "^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
const SYSCTL_MAX: usize = 253;

fn bad_sysctls(spec: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_word = |word: &str| {
        word.starts_with(alphanumeric)
            && word.ends_with(alphanumeric)
            && word
                .chars()
                .all(|c| alphanumeric(c) || matches!(c, '-' | '_'))
    };
    for (i, sysctl) in list(spec, &["securityContext", "sysctls"])
        .iter()
        .enumerate()
    {
        let field = format!("spec.securityContext.sysctls[{i}].name");
        let name = text(sysctl, &["name"]);
        if name.is_empty() {
            wrong.push(FieldError::required(field, ""));
        } else if name.len() > SYSCTL_MAX || !name.split(['.', '/']).all(is_word) {
            let why = format!("must have at most {SYSCTL_MAX} characters and match regex {SYSCTL}");
            wrong.push(FieldError::invalid_text(field, name, why));
        } else if !seen.insert(name) {
            wrong.push(FieldError::duplicate(field, crate::field::quoted(name)));
        }
    }
    wrong
}

pub(crate) fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut wrong = validate(new);
    let (before, after) = (at(old, &["spec"]), at(new, &["spec"]));
    for key in ["containers", "initContainers"] {
        if list(before, &[key]).len() != list(after, &[key]).len() {
            let why = "pod updates may not add or remove containers";
            wrong.push(FieldError::forbidden(format!("spec.{key}"), why));
            return wrong;
        }
    }
    let (was, is) = (
        at(before, &["activeDeadlineSeconds"]),
        at(after, &["activeDeadlineSeconds"]),
    );
    match (was.as_i64(), is.as_i64()) {
        (Some(was), Some(is)) if is > was => {
            let why = "must be less than or equal to previous value";
            wrong.push(FieldError::invalid(
                "spec.activeDeadlineSeconds",
                &is.into(),
                why,
            ));
        }
        (Some(_), None) => {
            let why = "must not update from a positive integer to nil value";
            wrong.push(FieldError::invalid("spec.activeDeadlineSeconds", is, why));
        }
        _ => {}
    }
    let added = list(after, &["tolerations"]);
    let kept = list(before, &["tolerations"])
        .iter()
        .all(|t| added.contains(t));
    if !kept {
        let why = "existing toleration can not be modified except its tolerationSeconds";
        wrong.push(FieldError::forbidden("spec.tolerations", why));
    }
    // With everything that may change made equal, nothing else may differ.
    let mut rest = after.clone();
    for key in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        value::keep(&mut rest, before, key);
    }
    if number(before, &["terminationGracePeriodSeconds"]) < 0
        && number(after, &["terminationGracePeriodSeconds"]) == 1
    {
        value::keep(&mut rest, before, "terminationGracePeriodSeconds");
    }
    for key in ["containers", "initContainers"] {
        for (container, was) in items_mut(&mut rest, key).zip(list(before, &[key])) {
            value::keep(container, was, "image");
        }
    }
    if rest != *before {
        wrong.push(FieldError::forbidden("spec", FROZEN));
    }
    wrong
}

fn bad_dns(spec: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    match text(spec, &["dnsPolicy"]) {
        "ClusterFirst" | "ClusterFirstWithHostNet" | "Default" => {}
        "None" => {
            if list(spec, &["dnsConfig", "nameservers"]).is_empty() {
                let why = "must provide at least one DNS nameserver when `dnsPolicy` is None";
                wrong.push(FieldError::required("spec.dnsConfig.nameservers", why));
            }
        }
        "" => wrong.push(FieldError::required("spec.dnsPolicy", "")),
        other => wrong.push(FieldError::not_supported(
            "spec.dnsPolicy",
            other,
            &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"],
        )),
    }
    let servers = list(spec, &["dnsConfig", "nameservers"]);
    if servers.len() > 3 {
        let shown = at(spec, &["dnsConfig", "nameservers"]);
        wrong.push(FieldError::invalid(
            "spec.dnsConfig.nameservers",
            shown,
            "must not have more than 3 nameservers",
        ));
    }
    for (i, server) in servers.iter().enumerate() {
        let ip = server.as_str().unwrap_or("");
        let field = format!("spec.dnsConfig.nameservers[{i}]");
        wrong.extend(net::bad_ip(ip).map(|why| FieldError::invalid_text(field, ip, why)));
    }
    wrong
}

/// Faults, and the names of the volumes.
fn bad_volumes(volumes: &[Value]) -> (Vec<FieldError>, BTreeSet<&str>) {
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for (i, volume) in volumes.iter().enumerate() {
        let path = format!("spec.volumes[{i}]");
        let name = text(volume, &["name"]);
        if name.is_empty() {
            wrong.push(FieldError::required(format!("{path}.name"), ""));
        } else {
            for why in names::label(name) {
                wrong.push(FieldError::invalid_text(format!("{path}.name"), name, why));
            }
        }
        if !seen.insert(name) {
            wrong.push(FieldError::duplicate(format!("{path}.name"), quoted(name)));
        }
        let sources: Vec<&String> = entries(volume, &[])
            .filter(|(key, source)| *key != "name" && !source.is_null())
            .map(|(key, _)| key)
            .collect();
        for extra in sources.iter().skip(1) {
            wrong.push(FieldError::forbidden(
                format!("{path}.{extra}"),
                "may not specify more than 1 volume type",
            ));
        }
        for (source, key) in [
            ("configMap", "name"),
            ("secret", "secretName"),
            ("hostPath", "path"),
            ("persistentVolumeClaim", "claimName"),
        ] {
            if volume.get(source).is_some_and(Value::is_object)
                && text(volume, &[source, key]).is_empty()
            {
                wrong.push(FieldError::required(format!("{path}.{source}.{key}"), ""));
            }
        }
    }
    (wrong, seen)
}

pub(super) fn bad_toleration(field: &str, toleration: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let (key, val, effect) = (
        text(toleration, &["key"]),
        text(toleration, &["value"]),
        text(toleration, &["effect"]),
    );
    let operator = text(toleration, &["operator"]);
    if !key.is_empty() {
        wrong.extend(meta::label_key(key, &format!("{field}.key")));
    } else if operator != "Exists" {
        let why = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        wrong.push(FieldError::invalid_text(
            format!("{field}.operator"),
            operator,
            why,
        ));
    }
    if !at(toleration, &["tolerationSeconds"]).is_null() && effect != "NoExecute" {
        let why = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        wrong.push(FieldError::invalid_text(
            format!("{field}.effect"),
            effect,
            why,
        ));
    }
    match operator {
        "" | "Equal" => {
            for why in names::label_value(val) {
                wrong.push(FieldError::invalid_text(
                    format!("{field}.operator"),
                    val,
                    why,
                ));
            }
        }
        "Exists" => {
            if !val.is_empty() {
                let why = "value must be empty when `operator` is 'Exists'";
                wrong.push(FieldError::invalid_text(
                    format!("{field}.operator"),
                    val,
                    why,
                ));
            }
        }
        other => wrong.push(FieldError::not_supported(
            format!("{field}.operator"),
            other,
            &["Equal", "Exists"],
        )),
    }
    if !matches!(effect, "" | "NoSchedule" | "PreferNoSchedule" | "NoExecute") {
        let known = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
        wrong.push(FieldError::not_supported(
            format!("{field}.effect"),
            effect,
            &known,
        ));
    }
    wrong
}

/// At most one address of each family, and each an address.
fn bad_addresses(object: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let ips = list(object, &["status", "podIPs"]);
    for (i, ip) in ips.iter().enumerate() {
        let ip = text(ip, &["ip"]);
        wrong.extend(
            net::bad_ip(ip)
                .map(|why| FieldError::invalid_text(format!("status.podIPs[{i}]"), ip, why)),
        );
    }
    let shown = at(object, &["status", "podIPs"]);
    if ips.len() > 1 && wrong.is_empty() {
        let v6: Vec<bool> = ips
            .iter()
            .map(|ip| text(ip, &["ip"]).contains(':'))
            .collect();
        if ips.len() > 2 || v6[0] == v6[1] {
            let why = "may specify no more than one IP for each IP family";
            wrong.push(FieldError::invalid("status.podIPs", shown, why));
        }
    }
    wrong
}
