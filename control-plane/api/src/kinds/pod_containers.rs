//! What a container must not say.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::field::{FieldError, quoted};
use crate::names;
use crate::quantity::Quantity;
use crate::value::{at, entries, list, number, text};

/// Where containers stand, and what they may refer to.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    /// `containers` or `initContainers`.
    pub(super) key: &'a str,
    /// Volumes of the Pod.
    pub(super) volumes: &'a BTreeSet<&'a str>,
    /// Whether the Pod has the node's network.
    pub(super) host_network: bool,
}

/// Everything wrong with the containers of a Pod; names are collected in `seen`.
pub(super) fn bad_containers<'a>(
    spec: &'a Value,
    place: Place<'_>,
    seen: &mut BTreeSet<&'a str>,
) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let containers = list(spec, &[place.key]);
    if containers.is_empty() && place.key == "containers" {
        wrong.push(FieldError::required("spec.containers", ""));
    }
    let mut host_ports = BTreeSet::new();
    for (i, container) in containers.iter().enumerate() {
        let path = format!("spec.{}[{i}]", place.key);
        let name = text(container, &["name"]);
        if name.is_empty() {
            wrong.push(FieldError::required(format!("{path}.name"), ""));
        } else {
            for why in names::label(name) {
                wrong.push(FieldError::invalid_text(format!("{path}.name"), name, why));
            }
            if !seen.insert(name) {
                wrong.push(FieldError::duplicate(format!("{path}.name"), quoted(name)));
            }
        }
        wrong.extend(bad_container(&path, container, place));
        for (j, port) in list(container, &["ports"]).iter().enumerate() {
            let host = number(port, &["hostPort"]);
            let key = (text(port, &["protocol"]), text(port, &["hostIP"]), host);
            if host != 0 && !host_ports.insert(key) {
                let shown = format!("{}/{}/{host}", key.0, key.1);
                wrong.push(FieldError::duplicate(
                    format!("{path}.ports[{j}].hostPort"),
                    quoted(&shown),
                ));
            }
        }
    }
    wrong
}

fn bad_container(path: &str, container: &Value, place: Place<'_>) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let image = text(container, &["image"]);
    if image.is_empty() {
        wrong.push(FieldError::required(format!("{path}.image"), ""));
    } else if image.trim() != image {
        let why = "must not have leading or trailing whitespace";
        wrong.push(FieldError::invalid_text(
            format!("{path}.image"),
            image,
            why,
        ));
    }
    let is_sidecar = text(container, &["restartPolicy"]) == "Always";
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let given = at(container, &[probe]);
        if given.is_null() {
            continue;
        }
        let field = format!("{path}.{probe}");
        if place.key == "initContainers" && !is_sidecar {
            let why = "may not be set for init containers without restartPolicy=Always";
            wrong.push(FieldError::forbidden(field.clone(), why));
        }
        wrong.extend(bad_probe(&field, given));
        if probe != "readinessProbe" && number(given, &["successThreshold"]) != 1 {
            let shown = at(given, &["successThreshold"]);
            wrong.push(FieldError::invalid(
                format!("{field}.successThreshold"),
                shown,
                "must be 1",
            ));
        }
    }
    match text(container, &["terminationMessagePolicy"]) {
        "File" | "FallbackToLogsOnError" | "" => {}
        other => wrong.push(FieldError::not_supported(
            format!("{path}.terminationMessagePolicy"),
            other,
            &["FallbackToLogsOnError", "File"],
        )),
    }
    wrong.extend(bad_ports(path, container, place.host_network));
    wrong.extend(bad_env(path, container));
    wrong.extend(bad_mounts(path, container, place.volumes));
    match text(container, &["imagePullPolicy"]) {
        "Always" | "IfNotPresent" | "Never" => {}
        "" => wrong.push(FieldError::required(format!("{path}.imagePullPolicy"), "")),
        other => wrong.push(FieldError::not_supported(
            format!("{path}.imagePullPolicy"),
            other,
            &["Always", "IfNotPresent", "Never"],
        )),
    }
    wrong.extend(bad_resources(
        &format!("{path}.resources"),
        at(container, &["resources"]),
    ));
    wrong
}

fn bad_ports(path: &str, container: &Value, host_network: bool) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for (i, port) in list(container, &["ports"]).iter().enumerate() {
        let field = format!("{path}.ports[{i}]");
        let name = text(port, &["name"]);
        if !name.is_empty() {
            for why in names::port_name(name) {
                wrong.push(FieldError::invalid_text(format!("{field}.name"), name, why));
            }
            if !seen.insert(name) {
                wrong.push(FieldError::duplicate(format!("{field}.name"), quoted(name)));
            }
        }
        let (inner, host) = (
            number(port, &["containerPort"]),
            number(port, &["hostPort"]),
        );
        if inner == 0 {
            wrong.push(FieldError::required(format!("{field}.containerPort"), ""));
        } else {
            for why in names::port_number(inner) {
                wrong.push(FieldError::invalid(
                    format!("{field}.containerPort"),
                    &inner.into(),
                    why,
                ));
            }
        }
        if host != 0 {
            for why in names::port_number(host) {
                wrong.push(FieldError::invalid(
                    format!("{field}.hostPort"),
                    &host.into(),
                    why,
                ));
            }
            if host_network && host != inner {
                let why = "must match `containerPort` when `hostNetwork` is true";
                wrong.push(FieldError::invalid(
                    format!("{field}.hostPort"),
                    &host.into(),
                    why,
                ));
            }
        }
        match text(port, &["protocol"]) {
            "TCP" | "UDP" | "SCTP" => {}
            "" => wrong.push(FieldError::required(format!("{field}.protocol"), "")),
            other => wrong.push(FieldError::not_supported(
                format!("{field}.protocol"),
                other,
                super::PROTOCOLS,
            )),
        }
    }
    wrong
}

fn bad_env(path: &str, container: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    for (i, env) in list(container, &["env"]).iter().enumerate() {
        let field = format!("{path}.env[{i}]");
        let name = text(env, &["name"]);
        if name.is_empty() {
            wrong.push(FieldError::required(format!("{field}.name"), ""));
        } else {
            for why in names::env_name(name) {
                wrong.push(FieldError::invalid_text(format!("{field}.name"), name, why));
            }
        }
        let from = at(env, &["valueFrom"]);
        if from.is_null() {
            continue;
        }
        let field = format!("{field}.valueFrom");
        if !text(env, &["value"]).is_empty() {
            let why = "may not be specified when `value` is not empty";
            wrong.push(FieldError::invalid_text(field.clone(), "", why));
        }
        match entries(from, &[])
            .filter(|(_, source)| !source.is_null())
            .count()
        {
            1 => {}
            0 => {
                let why = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
                wrong.push(FieldError::invalid_text(field, "", why));
            }
            _ => {
                let why = "may not have more than one field specified at a time";
                wrong.push(FieldError::invalid_text(field, "", why));
            }
        }
    }
    wrong
}

fn bad_mounts(path: &str, container: &Value, volumes: &BTreeSet<&str>) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for (i, mount) in list(container, &["volumeMounts"]).iter().enumerate() {
        let field = format!("{path}.volumeMounts[{i}]");
        let name = text(mount, &["name"]);
        if name.is_empty() {
            wrong.push(FieldError::required(format!("{field}.name"), ""));
        } else if !volumes.contains(name) {
            wrong.push(FieldError::not_found(format!("{field}.name"), name));
        }
        let at_path = text(mount, &["mountPath"]);
        if at_path.is_empty() {
            wrong.push(FieldError::required(format!("{field}.mountPath"), ""));
        } else if !seen.insert(at_path) {
            wrong.push(FieldError::invalid_text(
                format!("{field}.mountPath"),
                at_path,
                "must be unique",
            ));
        }
        let (sub, sub_expr) = (text(mount, &["subPath"]), text(mount, &["subPathExpr"]));
        if !sub.is_empty() && !sub_expr.is_empty() {
            wrong.push(FieldError::invalid_text(
                format!("{field}.subPathExpr"),
                sub_expr,
                "subPathExpr and subPath are mutually exclusive",
            ));
        }
        for (key, given) in [("subPath", sub), ("subPathExpr", sub_expr)] {
            if given.starts_with('/') {
                wrong.push(FieldError::invalid_text(
                    format!("{field}.{key}"),
                    given,
                    "must be a relative path",
                ));
            }
            if given.split('/').any(|part| part == "..") {
                wrong.push(FieldError::invalid_text(
                    format!("{field}.{key}"),
                    given,
                    "must not contain '..'",
                ));
            }
        }
    }
    wrong
}

fn bad_probe(field: &str, probe: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let handlers: Vec<&str> = ["exec", "httpGet", "tcpSocket", "grpc"]
        .into_iter()
        .filter(|h| !at(probe, &[h]).is_null())
        .collect();
    for extra in handlers.iter().skip(1) {
        wrong.push(FieldError::forbidden(
            format!("{field}.{extra}"),
            "may not specify more than 1 handler type",
        ));
    }
    match handlers.first() {
        None => wrong.push(FieldError::required(field, "must specify a handler type")),
        Some(&"exec") => {
            if list(probe, &["exec", "command"]).is_empty() {
                wrong.push(FieldError::required(format!("{field}.exec.command"), ""));
            }
        }
        Some(handler @ (&"httpGet" | &"tcpSocket")) => {
            wrong.extend(super::bad_port_or_name(
                &format!("{field}.{handler}.port"),
                at(probe, &[handler, "port"]),
            ));
            let scheme = text(probe, &[handler, "scheme"]);
            if !matches!(scheme, "" | "HTTP" | "HTTPS") {
                wrong.push(FieldError::not_supported(
                    format!("{field}.{handler}.scheme"),
                    scheme,
                    &["HTTP", "HTTPS"],
                ));
            }
        }
        Some(handler) => {
            let port = number(probe, &[handler, "port"]);
            for why in names::port_number(port) {
                wrong.push(FieldError::invalid(
                    format!("{field}.{handler}.port"),
                    &port.into(),
                    why,
                ));
            }
        }
    }
    for key in [
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ] {
        let given = at(probe, &[key]);
        if given.as_i64().unwrap_or(0) < 0 {
            wrong.push(FieldError::invalid(
                format!("{field}.{key}"),
                given,
                "must be greater than or equal to 0",
            ));
        }
    }
    wrong
}

fn bad_resources(field: &str, resources: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    for kind in ["limits", "requests"] {
        for (name, amount) in entries(resources, &[kind]) {
            let path = format!("{field}.{kind}[{name}]");
            wrong.extend(bad_resource_name(&format!("{field}.{kind}"), name));
            let Some(amount) = quantity(amount) else {
                continue;
            };
            if amount.is_negative() {
                let shown = amount.to_string();
                wrong.push(FieldError::invalid_text(
                    path,
                    &shown,
                    "must be greater than or equal to 0",
                ));
            } else if name.contains('/') && !amount.is_whole() {
                let shown = amount.to_string();
                wrong.push(FieldError::invalid_text(path, &shown, "must be an integer"));
            }
        }
    }
    for (name, request) in entries(resources, &["requests"]) {
        let limit = at(resources, &["limits", name]);
        let path = format!("{field}.requests");
        let exact = name.contains('/') || name.starts_with("hugepages-");
        let (Some(request), limit) = (quantity(request), quantity(limit)) else {
            continue;
        };
        match limit {
            Some(limit) if exact && request != limit => {
                let why = format!("must be equal to {name} limit of {limit}");
                wrong.push(FieldError::invalid_text(path, &request.to_string(), why));
            }
            Some(limit) if request > limit => {
                let why = format!("must be less than or equal to {name} limit of {limit}");
                wrong.push(FieldError::invalid_text(path, &request.to_string(), why));
            }
            None if exact => {
                wrong.push(FieldError::required(
                    format!("{field}.limits"),
                    "Limit must be set for non overcommitable resources",
                ));
            }
            _ => {}
        }
    }
    wrong
}

fn bad_resource_name(field: &str, name: &str) -> Vec<FieldError> {
    let mut wrong: Vec<FieldError> = names::qualified_name(name)
        .into_iter()
        .map(|why| FieldError::invalid_text(field, name, why))
        .collect();
    let known =
        matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
    if wrong.is_empty() && !known && !name.contains('/') {
        wrong.push(FieldError::invalid_text(
            field,
            name,
            "must be a standard resource type or fully qualified",
        ));
        wrong.push(FieldError::invalid_text(
            field,
            name,
            "must be a standard resource for containers",
        ));
    }
    wrong
}

fn quantity(amount: &Value) -> Option<Quantity> {
    match amount {
        Value::String(text) => Quantity::parse(text).ok(),
        Value::Number(number) => Quantity::parse(&number.to_string()).ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}
