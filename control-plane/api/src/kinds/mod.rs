//! The rows of the resource table, a file for each kind or family: names, printed cells, defaults, validation.

use serde_json::Value;

use crate::field::FieldError;
use crate::names;

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
pub(crate) mod service;
pub(crate) mod service_account;
mod service_addresses;
mod service_defaults;
mod service_validation;

/// Protocols of ports, in the order in which refusals list them.
pub(crate) const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];

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
