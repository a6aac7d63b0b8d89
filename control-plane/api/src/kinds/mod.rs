//! The rows of the resource table, a file for each kind or family: names, printed cells, defaults, validation.

use serde_json::Value;
use time::OffsetDateTime;

use crate::duration::age;
use crate::field::FieldError;
use crate::names;
use crate::value::{at, number, text};

pub(crate) mod admission_policy;
pub mod api_service;
pub(crate) mod autoscaler;
mod autoscaler_metrics;
mod autoscaler_validation;
pub(crate) mod certificate_request;
pub(crate) mod config;
pub(crate) mod cron_job;
mod cron_schedule;
pub(crate) mod csi;
pub(crate) mod daemon_set;
pub(crate) mod deployment;
mod device_claims;
mod device_slices;
pub(crate) mod devices;
pub(crate) mod disruption_budget;
pub(crate) mod endpoint_slice;
pub(crate) mod endpoints;
pub(crate) mod event;
pub(crate) mod flow_control;
pub(crate) mod ingress;
pub(crate) mod job;
mod job_policies;
mod job_status;
mod job_validation;
pub(crate) mod label_selector;
pub(crate) mod lease;
pub(crate) mod limits;
pub(crate) mod namespace;
pub(crate) mod network_policy;
pub(crate) mod node;
pub(crate) mod passing;
pub(crate) mod persistent_volume;
pub(crate) mod persistent_volume_claim;
mod persistent_volume_validation;
pub(crate) mod pod;
mod pod_defaults;
pub mod pod_parts;
mod pod_spec;
mod pod_volume_warnings;
mod pod_warnings;
pub(crate) mod priority_class;
pub(crate) mod quotas;
pub(crate) mod rbac;
pub(crate) mod replica_set;
pub(crate) mod review;
pub(crate) mod service;
pub(crate) mod service_account;
mod service_addresses;
pub(crate) mod service_cidr;
mod service_defaults;
mod service_validation;
pub(crate) mod stateful_set;
pub(crate) mod storage_class;
mod warnings;
pub(crate) mod webhooks;
mod workload;
mod workload_status;

/// Protocols of ports, in the order in which refusals list them.
pub(crate) const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];

/// The cells of a row that has a name, something of its own, and an age.
pub(crate) fn named_cells(
    object: &Value,
    middle: impl IntoIterator<Item = Value>,
    now: OffsetDateTime,
) -> Vec<Value> {
    let mut cells = vec![text(object, &["metadata", "name"]).into()];
    cells.extend(middle);
    cells.push(age(at(object, &["metadata", "creationTimestamp"]), now).into());
    cells
}

/// The cells of a row that has a name and the time of its creation.
pub(crate) fn created_at(object: &Value, _: OffsetDateTime) -> Vec<Value> {
    vec![
        text(object, &["metadata", "name"]).into(),
        text(object, &["metadata", "creationTimestamp"]).into(),
    ]
}

/// A label selector of an object as people write it; without one, `<none>`.
pub(crate) fn selector_shown(selector: &Value) -> String {
    let mut parts: Vec<String> = crate::value::entries(selector, &["matchLabels"])
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or("")))
        .collect();
    for requirement in crate::value::list(selector, &["matchExpressions"]) {
        let key = text(requirement, &["key"]);
        let mut values: Vec<&str> = crate::value::list(requirement, &["values"])
            .iter()
            .filter_map(Value::as_str)
            .collect();
        values.sort_unstable();
        let values = values.join(",");
        parts.push(match text(requirement, &["operator"]) {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        });
    }
    parts.sort();
    if parts.is_empty() {
        "<none>".to_owned()
    } else {
        parts.join(",")
    }
}

/// A quantity as it was written.
pub(crate) fn amount_text(amount: &Value) -> String {
    match amount {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The refusal of a change of `field`, if it differs.
pub(crate) fn immutable(new: &Value, old: &Value, path: &[&str]) -> Option<FieldError> {
    let (after, before) = (at(new, path), at(old, path));
    (!crate::value::same(after, before))
        .then(|| FieldError::invalid(path.join("."), after, "field is immutable"))
}

/// What is wrong with the `port` and the `protocol` of a port object at `field`.
pub(crate) fn bad_number_or_protocol(field: &str, port: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let port_number = number(port, &["port"]);
    for why in names::port_number(port_number) {
        wrong.push(FieldError::invalid(
            format!("{field}.port"),
            &port_number.into(),
            why,
        ));
    }
    match text(port, &["protocol"]) {
        "" => wrong.push(FieldError::required(format!("{field}.protocol"), "")),
        "TCP" | "UDP" | "SCTP" => {}
        other => wrong.push(FieldError::not_supported(
            format!("{field}.protocol"),
            other,
            PROTOCOLS,
        )),
    }
    wrong
}

/// What is wrong with a port that may be given by number or by name.
pub(crate) fn bad_port_or_name(field: &str, port: &Value) -> Vec<FieldError> {
    match port {
        Value::String(name) => names::port_name(name)
            .into_iter()
            .map(|why| FieldError::invalid_text(field, name, why))
            .collect(),
        other => names::port_number(other.as_i64().unwrap_or(0))
            .into_iter()
            .map(|why| FieldError::invalid(field, other, why))
            .collect(),
    }
}
