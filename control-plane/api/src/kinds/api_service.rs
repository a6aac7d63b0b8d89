//! APIService: who serves a version of a group.

use serde_json::{Value, json};

use super::named_cells;
use crate::field::FieldError;
use crate::meta;
use crate::table::{AGE, BASE, NAME, NameRule, Resource, STATUS, column};
use crate::value::{self, at, flag, list, number, text};

/// Who serves a version of a group: this server, or a Service.
pub(crate) static API_SERVICES: Resource = Resource {
    group: "apiregistration.k8s.io",
    kind: "APIService",
    list_kind: "APIServiceList",
    plural: "apiservices",
    singular: "apiservice",
    categories: &["api-extensions"],
    namespaced: false,
    subresources: &[STATUS],
    storage_prefix: "/registry/apiregistration.k8s.io/apiservices",
    definition: "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1.APIService",
    name_rule: NameRule::PathSegment,
    unconditional_update: false,
    prepare_status: crate::write::keep_said_metadata,
    columns: &[
        NAME,
        column("Service", "The Service that answers, or this server."),
        column("Available", "Whether it can be reached."),
        AGE,
    ],
    cells: |object, now| {
        let service = at(object, &["spec", "service"]);
        let service = if service.is_object() {
            format!(
                "{}/{}",
                text(service, &["namespace"]),
                text(service, &["name"])
            )
        } else {
            "Local".to_owned()
        };
        let available = list(object, &["status", "conditions"])
            .iter()
            .find(|condition| text(condition, &["type"]) == "Available");
        let available = match available {
            None => "Unknown".to_owned(),
            Some(condition) => match (text(condition, &["status"]), text(condition, &["reason"])) {
                ("True", _) | (_, "") => text(condition, &["status"]).to_owned(),
                (status, reason) => format!("{status} ({reason})"),
            },
        };
        named_cells(object, [service.into(), available.into()], now)
    },
    default: |object| {
        let service = object
            .get_mut("spec")
            .and_then(|spec| spec.get_mut("service"));
        if let Some(service) = service.filter(|service| service.is_object()) {
            value::set_default(service, "port", 443);
        }
    },
    // What this server answers itself is always there.
    prepare_create: |object| {
        let status = if at(object, &["spec", "service"]).is_null() {
            let now = at(object, &["metadata", "creationTimestamp"]).clone();
            json!({"conditions": [{
                "type": "Available", "status": "True", "lastTransitionTime": now,
                "reason": "Local", "message": "Local APIServices are always available",
            }]})
        } else {
            json!({})
        };
        value::set(object, "status", status);
    },
    validate,
    validate_update: |new, _| validate(new),
    ..BASE
};

fn validate(object: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let spec = at(object, &["spec"]);
    let (group, version) = (text(spec, &["group"]), text(spec, &["version"]));
    let expected = format!("{version}.{group}");
    if meta::name(object) != expected {
        wrong.push(FieldError::invalid_text(
            "metadata.name",
            meta::name(object),
            format!("must be `spec.version+\".\"+spec.group`: \"{expected}\""),
        ));
    }
    if group.is_empty() && version != "v1" {
        wrong.push(FieldError::required(
            "spec.group",
            "only v1 may have an empty group and it better be legacy kube",
        ));
    }
    if !group.is_empty() {
        for why in crate::names::subdomain(group) {
            wrong.push(FieldError::invalid_text("spec.group", group, why));
        }
    }
    for why in crate::names::label(version) {
        wrong.push(FieldError::invalid_text("spec.version", version, why));
    }
    let least = number(spec, &["groupPriorityMinimum"]);
    if least <= 0 || least > 20_000 {
        wrong.push(FieldError::invalid(
            "spec.groupPriorityMinimum",
            &least.into(),
            "must be positive and less than 20000",
        ));
    }
    let priority = number(spec, &["versionPriority"]);
    if priority <= 0 || priority > 1000 {
        wrong.push(FieldError::invalid(
            "spec.versionPriority",
            &priority.into(),
            "must be positive and less than 1000",
        ));
    }
    let (bundle, skips) = (
        at(spec, &["caBundle"]),
        flag(spec, &["insecureSkipTLSVerify"]),
    );
    let service = at(spec, &["service"]);
    if service.is_null() {
        if !value::is_empty(bundle) {
            wrong.push(FieldError::invalid(
                "spec.caBundle",
                bundle,
                "local APIServices may not have a caBundle",
            ));
        }
        if skips {
            wrong.push(FieldError::invalid(
                "spec.insecureSkipTLSVerify",
                &skips.into(),
                "local APIServices may not have insecureSkipTLSVerify",
            ));
        }
        return wrong;
    }
    for key in ["namespace", "name"] {
        if text(service, &[key]).is_empty() {
            wrong.push(FieldError::required(format!("spec.service.{key}"), ""));
        }
    }
    let port = number(service, &["port"]);
    for why in crate::names::port_number(port) {
        wrong.push(FieldError::invalid(
            "spec.service.port",
            &port.into(),
            format!("port is not valid: {why}"),
        ));
    }
    if skips && !value::is_empty(bundle) {
        wrong.push(FieldError::invalid(
            "spec.insecureSkipTLSVerify",
            &skips.into(),
            "may not be true if caBundle is present",
        ));
    }
    wrong
}

/// Groups that this server answers, with the priority that discovery gives them: name, group priority, version priority.
#[rustfmt::skip]
const PRIORITIES: &[(&str, &str, u32, u32)] = &[
    ("", "v1", 18000, 1),
    ("admissionregistration.k8s.io", "v1", 16700, 15),
    ("apiextensions.k8s.io", "v1", 16700, 15),
    ("apps", "v1", 17800, 15),
    ("authentication.k8s.io", "v1", 17700, 15),
    ("authorization.k8s.io", "v1", 17600, 15),
    ("autoscaling", "v1", 17500, 15),
    ("autoscaling", "v2", 17500, 30),
    ("batch", "v1", 17400, 15),
    ("certificates.k8s.io", "v1", 17300, 15),
    ("coordination.k8s.io", "v1", 16500, 15),
    ("discovery.k8s.io", "v1", 16200, 15),
    ("events.k8s.io", "v1", 17750, 15),
    ("flowcontrol.apiserver.k8s.io", "v1", 16100, 21),
    ("networking.k8s.io", "v1", 17200, 15),
    ("node.k8s.io", "v1", 16300, 15),
    ("policy", "v1", 17100, 15),
    ("rbac.authorization.k8s.io", "v1", 17000, 15),
    ("resource.k8s.io", "v1", 16200, 21),
    ("scheduling.k8s.io", "v1", 16600, 15),
    ("storage.k8s.io", "v1", 16800, 15),
];

/// Custom resources come after everything built in.
const CUSTOM_PRIORITY: (u32, u32) = (1000, 100);

/// The APIService that says that this server answers a version of a group. `None` for the group of APIServices itself,
/// which nothing else could answer.
pub fn local(group: &str, version: &str) -> Option<Value> {
    if group == API_SERVICES.group {
        return None;
    }
    let known = PRIORITIES
        .iter()
        .find(|(name, served, ..)| *name == group && *served == version);
    let (least, priority) = known.map_or(CUSTOM_PRIORITY, |(_, _, least, priority)| {
        (*least, *priority)
    });
    let mut spec = json!({
        "version": version, "groupPriorityMinimum": least, "versionPriority": priority,
    });
    if !group.is_empty() {
        value::set(&mut spec, "group", group);
    }
    Some(json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {
            "name": format!("{version}.{group}"),
            "labels": {
                "kube-aggregator.kubernetes.io/automanaged": if known.is_some() { "onstart" } else { "true" },
            },
        },
        "spec": spec,
    }))
}
