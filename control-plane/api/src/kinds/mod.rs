//! The rows of the resource table, a file for each kind or family: names, printed cells, defaults, validation.

use serde_json::Value;

use crate::field::FieldError;
use crate::names;
use crate::value::{number, text};

pub(crate) mod config;
pub(crate) mod endpoint_slice;
pub(crate) mod endpoints;
pub(crate) mod event;
pub(crate) mod ingress;
pub(crate) mod lease;
pub(crate) mod namespace;
pub(crate) mod node;
pub(crate) mod pod;
mod pod_containers;
mod pod_defaults;
mod pod_validation;
pub(crate) mod review;
pub(crate) mod service;
pub(crate) mod service_account;
mod service_addresses;
mod service_defaults;
mod service_validation;

/// Protocols of ports, in the order in which refusals list them.
pub(crate) const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];

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
