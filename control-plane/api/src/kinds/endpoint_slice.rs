//! EndpointSlice: some of the addresses that answer for a Service.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::duration::age;
use crate::field::{FieldError, quoted};
use crate::meta;
use crate::names;
use crate::net;
use crate::table::{AGE, BASE, Column, NAME, Resource, column};
use crate::value::{self, at, items_mut, list, text};

/// Slices.
pub(crate) static ENDPOINT_SLICES: Resource = Resource {
    group: "discovery.k8s.io",
    kind: "EndpointSlice",
    list_kind: "EndpointSliceList",
    plural: "endpointslices",
    singular: "endpointslice",
    storage_prefix: "/registry/endpointslices",
    definition: "io.k8s.api.discovery.v1.EndpointSlice",
    has_generation: true,
    columns: COLUMNS,
    cells: |object, now| {
        let ports: Vec<String> = list(object, &["ports"]).iter().map(shown_port).collect();
        let addresses: Vec<String> = list(object, &["endpoints"])
            .iter()
            .flat_map(|e| list(e, &["addresses"]))
            .map(|a| a.as_str().unwrap_or("").to_owned())
            .collect();
        vec![
            meta::name(object).into(),
            text(object, &["addressType"]).into(),
            first_three(&ports).into(),
            first_three(&addresses).into(),
            age(at(object, &["metadata", "creationTimestamp"]), now).into(),
        ]
    },
    default: |object| {
        for port in items_mut(object, "ports") {
            value::set_default(port, "name", "");
            value::set_default(port, "protocol", "TCP");
        }
        value::null_if_empty(object, "endpoints");
        value::null_if_empty(object, "ports");
    },
    validate,
    validate_update: |new, old| {
        let mut wrong = validate(new);
        if at(new, &["addressType"]) != at(old, &["addressType"]) {
            wrong.push(FieldError::invalid(
                "addressType",
                at(new, &["addressType"]),
                "field is immutable",
            ));
        }
        wrong
    },
    ..BASE
};

const COLUMNS: &[Column] = &[
    NAME,
    column("AddressType", "IPv4, IPv6 or FQDN."),
    column("Ports", "The first ports."),
    column("Endpoints", "The first addresses."),
    AGE,
];

const ENDPOINTS_MAX: usize = 1000;
const PORTS_MAX: usize = 20_000;
const ADDRESSES_MAX: usize = 100;

fn shown_port(port: &Value) -> String {
    match (at(port, &["port"]).as_i64(), at(port, &["name"]).as_str()) {
        (Some(number), _) => number.to_string(),
        (None, Some(name)) => name.to_owned(),
        (None, None) => "*".to_owned(),
    }
}

fn first_three(all: &[String]) -> String {
    match all.len() {
        0 => "<unset>".to_owned(),
        1..=3 => all.join(","),
        more => format!("{} + {} more...", all[..3].join(","), more - 3),
    }
}

fn validate(object: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let kind = text(object, &["addressType"]);
    match kind {
        "IPv4" | "IPv6" | "FQDN" => {}
        "" => wrong.push(FieldError::required("addressType", "")),
        other => wrong.push(FieldError::not_supported(
            "addressType",
            other,
            &["FQDN", "IPv4", "IPv6"],
        )),
    }
    let endpoints = list(object, &["endpoints"]);
    if endpoints.len() > ENDPOINTS_MAX {
        wrong.push(FieldError::too_many(
            "endpoints",
            endpoints.len(),
            ENDPOINTS_MAX,
        ));
        return wrong;
    }
    for (i, endpoint) in endpoints.iter().enumerate() {
        wrong.extend(bad_endpoint(&format!("endpoints[{i}]"), endpoint, kind));
    }
    wrong.extend(bad_ports(list(object, &["ports"])));
    wrong
}

fn bad_endpoint(field: &str, endpoint: &Value, kind: &str) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let addresses = list(endpoint, &["addresses"]);
    if addresses.is_empty() {
        wrong.push(FieldError::required(
            format!("{field}.addresses"),
            "must contain at least 1 address",
        ));
    } else if addresses.len() > ADDRESSES_MAX {
        wrong.push(FieldError::too_many(
            format!("{field}.addresses"),
            addresses.len(),
            ADDRESSES_MAX,
        ));
    }
    for (i, address) in addresses.iter().enumerate() {
        let address = address.as_str().unwrap_or("");
        let path = format!("{field}.addresses[{i}]");
        let invalid = |field: &str, why: &str| FieldError::invalid_text(field, address, why);
        match (kind, net::parse_ip(address)) {
            ("IPv4" | "IPv6", Some(ip)) => {
                // An IPv4 address in IPv6's clothes is IPv4.
                if ip.to_canonical().is_ipv4() != (kind == "IPv4")
                    || ip.is_ipv4() != (kind == "IPv4")
                {
                    wrong.push(invalid(
                        &format!("{field}.addresses"),
                        &format!("must be an {kind} address"),
                    ));
                }
                wrong.extend(
                    net::not_special(address)
                        .into_iter()
                        .map(|why| invalid(&path, why)),
                );
            }
            ("IPv4" | "IPv6", None) => {
                wrong.extend(net::bad_ip(address).map(|why| invalid(&path, why)));
                wrong.push(invalid(
                    &format!("{field}.addresses"),
                    &format!("must be an {kind} address"),
                ));
            }
            ("FQDN", _) => {
                for why in names::subdomain(address) {
                    wrong.push(invalid(&path, &why));
                }
                if !address.contains('.') {
                    wrong.push(invalid(
                        &path,
                        "should be a domain with at least two segments separated by dots",
                    ));
                }
            }
            _ => {}
        }
    }
    let node = text(endpoint, &["nodeName"]);
    if !node.is_empty() {
        for why in names::subdomain(node) {
            wrong.push(FieldError::invalid_text(
                format!("{field}.nodeName"),
                node,
                why,
            ));
        }
    }
    let topology = at(endpoint, &["deprecatedTopology"]);
    if value::entries(topology, &[]).count() > 16 {
        wrong.push(FieldError::too_many(
            format!("{field}.deprecatedTopology"),
            value::entries(topology, &[]).count(),
            16,
        ));
    }
    wrong.extend(meta::labels(
        topology,
        &format!("{field}.deprecatedTopology"),
    ));
    if let Some(hostname) = at(endpoint, &["hostname"]).as_str() {
        for why in names::label(hostname) {
            wrong.push(FieldError::invalid_text(
                format!("{field}.hostname"),
                hostname,
                why,
            ));
        }
    }
    for (key, max) in [("forZones", 8), ("forNodes", 8)] {
        let hints = list(endpoint, &["hints", key]);
        let path = format!("{field}.hints.{key}");
        if hints.len() > max {
            wrong.push(FieldError::too_many(path.clone(), hints.len(), max));
        }
        let mut seen = BTreeSet::new();
        for (i, hint) in hints.iter().enumerate() {
            let name = text(hint, &["name"]);
            let path = format!("{path}[{i}].name");
            if !seen.insert(name) {
                wrong.push(FieldError::duplicate(path.clone(), quoted(name)));
            }
            for why in names::qualified_name(name) {
                wrong.push(FieldError::invalid_text(path.clone(), name, why));
            }
        }
    }
    wrong
}

fn bad_ports(ports: &[Value]) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    if ports.len() > PORTS_MAX {
        wrong.push(FieldError::too_many("ports", ports.len(), PORTS_MAX));
        return wrong;
    }
    let mut seen = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let path = format!("ports[{i}]");
        let name = text(port, &["name"]);
        if !name.is_empty() {
            for why in names::label(name) {
                wrong.push(FieldError::invalid_text(format!("{path}.name"), name, why));
            }
        }
        if !seen.insert(name) {
            wrong.push(FieldError::duplicate(format!("{path}.name"), quoted(name)));
        }
        if let Some(number) = at(port, &["port"]).as_i64() {
            for why in names::port_number(number) {
                wrong.push(FieldError::invalid(
                    format!("{path}.port"),
                    &number.into(),
                    why,
                ));
            }
        }
        match text(port, &["protocol"]) {
            "TCP" | "UDP" | "SCTP" => {}
            "" => wrong.push(FieldError::required(format!("{path}.protocol"), "")),
            other => wrong.push(FieldError::not_supported(
                format!("{path}.protocol"),
                other,
                super::PROTOCOLS,
            )),
        }
        if let Some(app) = at(port, &["appProtocol"]).as_str() {
            for why in names::qualified_name(app) {
                wrong.push(FieldError::invalid_text(
                    format!("{path}.appProtocol"),
                    app,
                    why,
                ));
            }
        }
    }
    wrong
}
