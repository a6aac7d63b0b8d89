//! Service: its row and how it is printed. What it is given by default and what it must not say stand beside, in
//! `service_defaults` and `service_validation`; giving out addresses and ports is [`crate::service`].

use std::collections::BTreeSet;

use serde_json::Value;
use time::OffsetDateTime;

use super::pod_parts::{PROXY_VERBS, connection};
use super::service_defaults::{default, prepare_create, prepare_update};
use super::service_validation::{validate, validate_update};
use crate::duration::age;
use crate::meta;
use crate::table::{AGE, BASE, Column, Field, NAME, NameRule, Resource, STATUS, column, wide};
use crate::value::{at, entries, list, number, text};

/// Services.
pub(crate) static SERVICES: Resource = Resource {
    kind: "Service",
    list_kind: "ServiceList",
    plural: "services",
    singular: "service",
    short_names: &["svc"],
    categories: &["all"],
    subresources: &[
        connection("proxy", "ServiceProxyOptions", PROXY_VERBS),
        STATUS,
    ],
    storage_prefix: "/registry/services/specs",
    definition: "io.k8s.api.core.v1.Service",
    returns_deleted: true,
    // A digit may not come first before 1.36: KEP-5311 is off in 1.35.
    name_rule: NameRule::Label1035,
    columns: COLUMNS,
    cells,
    fields: &[
        Field {
            label: "spec.clusterIP",
            get: |o| text(o, &["spec", "clusterIP"]).to_owned(),
        },
        Field {
            label: "spec.type",
            get: |o| text(o, &["spec", "type"]).to_owned(),
        },
    ],
    default,
    prepare_create,
    prepare_update,
    validate,
    validate_update,
    warnings: super::warnings::of_service,
    ..BASE
};

const COLUMNS: &[Column] = &[
    NAME,
    column("Type", "How far it can be reached."),
    column("Cluster-IP", "Its address within the cluster."),
    column("External-IP", "Its addresses from outside."),
    column(
        "Port(s)",
        "Its ports, node ports after the colon, and protocols.",
    ),
    AGE,
    wide("Selector", "Labels of the Pods that answer."),
];

fn cells(object: &Value, now: OffsetDateTime) -> Vec<Value> {
    let spec = at(object, &["spec"]);
    let first = list(spec, &["clusterIPs"])
        .first()
        .and_then(Value::as_str)
        .unwrap_or(text(spec, &["clusterIP"]));
    vec![
        meta::name(object).into(),
        text(spec, &["type"]).into(),
        if first.is_empty() { "<none>" } else { first }.into(),
        external(object).into(),
        ports(spec).into(),
        age(at(object, &["metadata", "creationTimestamp"]), now).into(),
        labels(at(spec, &["selector"])).into(),
    ]
}

fn external(object: &Value) -> String {
    let spec = at(object, &["spec"]);
    let ips: Vec<&str> = list(spec, &["externalIPs"])
        .iter()
        .filter_map(Value::as_str)
        .collect();
    match text(spec, &["type"]) {
        "ClusterIP" | "NodePort" if ips.is_empty() => "<none>".to_owned(),
        "ClusterIP" | "NodePort" => ips.join(","),
        "LoadBalancer" => {
            let balancer = balancer_addresses(object);
            let all: Vec<&str> = balancer
                .split(',')
                .filter(|a| !a.is_empty())
                .chain(ips)
                .collect();
            if all.is_empty() {
                "<pending>".to_owned()
            } else {
                all.join(",")
            }
        }
        "ExternalName" => text(spec, &["externalName"]).to_owned(),
        _ => "<unknown>".to_owned(),
    }
}

/// The addresses or names in `status.loadBalancer`, sorted, commas between.
pub(crate) fn balancer_addresses(object: &Value) -> String {
    let all: BTreeSet<&str> = list(object, &["status", "loadBalancer", "ingress"])
        .iter()
        .map(|i| match text(i, &["ip"]) {
            "" => text(i, &["hostname"]),
            ip => ip,
        })
        .filter(|a| !a.is_empty())
        .collect();
    Vec::from_iter(all).join(",")
}

fn ports(spec: &Value) -> String {
    let ports: Vec<String> = list(spec, &["ports"])
        .iter()
        .map(|p| match number(p, &["nodePort"]) {
            0 => format!("{}/{}", number(p, &["port"]), text(p, &["protocol"])),
            node => format!("{}:{node}/{}", number(p, &["port"]), text(p, &["protocol"])),
        })
        .collect();
    if ports.is_empty() {
        "<none>".to_owned()
    } else {
        ports.join(",")
    }
}

fn labels(selector: &Value) -> String {
    let all: Vec<String> = entries(selector, &[])
        .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or("")))
        .collect();
    if all.is_empty() {
        "<none>".to_owned()
    } else {
        all.join(",")
    }
}
