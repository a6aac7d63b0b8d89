//! Endpoints: the older form of EndpointSlices, one object for each Service.

use serde_json::Value;

use crate::duration::age;
use crate::field::FieldError;
use crate::meta;
use crate::names;
use crate::net;
use crate::table::{AGE, BASE, NAME, Resource, column};
use crate::value::{self, at, items_mut, list, number, text};

/// Endpoints.
pub(crate) static ENDPOINTS: Resource = Resource {
    kind: "Endpoints",
    list_kind: "EndpointsList",
    plural: "endpoints",
    singular: "endpoints",
    short_names: &["ep"],
    storage_prefix: "/registry/services/endpoints",
    definition: "io.k8s.api.core.v1.Endpoints",
    deprecation: "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
    create_on_update: true,
    columns: &[
        NAME,
        column("Endpoints", "The first addresses and ports."),
        AGE,
    ],
    cells: |object, now| {
        vec![
            meta::name(object).into(),
            shown(object).into(),
            age(at(object, &["metadata", "creationTimestamp"]), now).into(),
        ]
    },
    default: |object| {
        for subset in items_mut(object, "subsets") {
            for port in items_mut(subset, "ports") {
                value::set_default(port, "protocol", "TCP");
            }
        }
    },
    validate,
    validate_update: |new, _| validate(new),
    ..BASE
};

/// Three addresses at most, then how many more there are.
fn shown(object: &Value) -> String {
    let mut all = Vec::new();
    for subset in list(object, &["subsets"]) {
        let addresses = list(subset, &["addresses"])
            .iter()
            .map(|a| text(a, &["ip"]));
        let ports = list(subset, &["ports"]);
        if ports.is_empty() {
            all.extend(addresses.map(str::to_owned));
            continue;
        }
        for port in ports {
            all.extend(
                addresses
                    .clone()
                    .map(|ip| join(ip, number(port, &["port"]))),
            );
        }
    }
    match all.len() {
        0 => "<none>".to_owned(),
        1..=3 => all.join(","),
        more => format!("{} + {} more...", all[..3].join(","), more - 3),
    }
}

fn join(ip: &str, port: i64) -> String {
    if ip.contains(':') {
        format!("[{ip}]:{port}")
    } else {
        format!("{ip}:{port}")
    }
}

fn validate(object: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    for (i, subset) in list(object, &["subsets"]).iter().enumerate() {
        let path = format!("subsets[{i}]");
        let (ready, not_ready) = (
            list(subset, &["addresses"]),
            list(subset, &["notReadyAddresses"]),
        );
        if ready.is_empty() && not_ready.is_empty() {
            wrong.push(FieldError::required(
                path.clone(),
                "must specify `addresses` or `notReadyAddresses`",
            ));
        }
        for (key, addresses) in [("addresses", ready), ("notReadyAddresses", not_ready)] {
            for (j, address) in addresses.iter().enumerate() {
                wrong.extend(bad_address(&format!("{path}.{key}[{j}]"), address));
            }
        }
        let ports = list(subset, &["ports"]);
        for (j, port) in ports.iter().enumerate() {
            wrong.extend(bad_port(
                &format!("{path}.ports[{j}]"),
                port,
                ports.len() > 1,
            ));
        }
    }
    wrong
}

fn bad_address(field: &str, address: &Value) -> Vec<FieldError> {
    let ip = text(address, &["ip"]);
    let field = format!("{field}.ip");
    if let Some(why) = net::bad_ip(ip) {
        return vec![FieldError::invalid_text(field, ip, why)];
    }
    let mut wrong: Vec<FieldError> = net::not_special(ip)
        .into_iter()
        .map(|why| FieldError::invalid_text(field.clone(), ip, why))
        .collect();
    let hostname = text(address, &["hostname"]);
    if !hostname.is_empty() {
        for why in names::label(hostname) {
            wrong.push(FieldError::invalid_text(
                field.replace(".ip", ".hostname"),
                hostname,
                why,
            ));
        }
    }
    wrong
}

fn bad_port(field: &str, port: &Value, needs_name: bool) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let name = text(port, &["name"]);
    if needs_name && name.is_empty() {
        wrong.push(FieldError::required(format!("{field}.name"), ""));
    } else if !name.is_empty() {
        for why in names::label(name) {
            wrong.push(FieldError::invalid_text(format!("{field}.name"), name, why));
        }
    }
    wrong.extend(super::bad_number_or_protocol(field, port));
    wrong
}
