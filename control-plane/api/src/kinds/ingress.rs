//! Ingress and IngressClass: HTTP routes into the cluster, and who serves them.

use serde_json::{Value, json};

use crate::duration::age;
use crate::field::FieldError;
use crate::names;
use crate::table::{AGE, BASE, Column, NAME, Resource, STATUS, column};
use crate::value::{self, at, list, number, text};

/// Routes.
pub(crate) static INGRESSES: Resource = Resource {
    group: "networking.k8s.io",
    kind: "Ingress",
    list_kind: "IngressList",
    plural: "ingresses",
    singular: "ingress",
    short_names: &["ing"],
    subresources: &[STATUS],
    storage_prefix: "/registry/ingress",
    definition: "io.k8s.api.networking.v1.Ingress",
    has_generation: true,
    columns: INGRESS_COLUMNS,
    cells: |object, now| {
        vec![
            text(object, &["metadata", "name"]).into(),
            class(object).into(),
            hosts(object).into(),
            crate::kinds::service::balancer_addresses(object).into(),
            if list(object, &["spec", "tls"]).is_empty() {
                "80"
            } else {
                "80, 443"
            }
            .into(),
            age(at(object, &["metadata", "creationTimestamp"]), now).into(),
        ]
    },
    default: |object| {
        if let Some(spec) = value::object_mut(object, "spec") {
            default_resources(spec);
        }
        if let Some(status) = value::object_mut(object, "status") {
            value::object_mut(status, "loadBalancer");
        }
    },
    prepare_create: |object| value::set(object, "status", json!({"loadBalancer": {}})),
    validate: |object| {
        let mut wrong = Vec::new();
        let class = text(object, &["metadata", "annotations", CLASS_ANNOTATION]);
        let name = text(object, &["spec", "ingressClassName"]);
        if !class.is_empty() && !name.is_empty() {
            wrong.push(FieldError::invalid_text(
                "metadata.annotations",
                class,
                "can not be set when the class field is also set",
            ));
        }
        wrong.extend(validate(object));
        wrong
    },
    validate_update: |new, old| {
        let (mut wrong, before) = (validate(new), validate(old));
        // Names that later versions allow stay where they stand already; with one bad name of a secret, all are let be.
        wrong.retain(|error| !error.field.ends_with(".service.name") || !before.contains(error));
        let of_secret = |error: &FieldError| error.field.ends_with(".secretName");
        if before.iter().any(of_secret) {
            wrong.retain(|error| !of_secret(error));
        }
        wrong
    },
    warnings: super::warnings::of_ingress,
    ..BASE
};

const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

const INGRESS_COLUMNS: &[Column] = &[
    NAME,
    column("Class", "Who serves it."),
    column("Hosts", "Names that its rules are for."),
    column("Address", "Where clients reach it."),
    column("Ports", "Ports that clients connect to."),
    AGE,
];

/// Who serves routes.
pub(crate) static INGRESS_CLASSES: Resource = Resource {
    group: "networking.k8s.io",
    kind: "IngressClass",
    list_kind: "IngressClassList",
    plural: "ingressclasses",
    singular: "ingressclass",
    namespaced: false,
    storage_prefix: "/registry/ingressclasses",
    definition: "io.k8s.api.networking.v1.IngressClass",
    has_generation: true,
    columns: CLASS_COLUMNS,
    cells: |object, now| {
        let parameters = at(object, &["spec", "parameters"]);
        let shown = match (
            text(parameters, &["apiGroup"]),
            text(parameters, &["kind"]),
            text(parameters, &["name"]),
        ) {
            ("", "", "") => "<none>".to_owned(),
            ("", kind, name) => format!("{kind}/{name}"),
            (group, kind, name) => format!("{kind}.{group}/{name}"),
        };
        vec![
            text(object, &["metadata", "name"]).into(),
            text(object, &["spec", "controller"]).into(),
            shown.into(),
            age(at(object, &["metadata", "creationTimestamp"]), now).into(),
        ]
    },
    default: |object| {
        if let Some(parameters) = object
            .get_mut("spec")
            .and_then(|s| s.get_mut("parameters"))
            .filter(|p| p.is_object())
        {
            value::set_default(parameters, "scope", "Cluster");
        }
    },
    validate: validate_class,
    validate_update: |new, old| {
        let mut wrong = validate_class(new);
        if at(new, &["spec", "controller"]) != at(old, &["spec", "controller"]) {
            wrong.push(FieldError::invalid(
                "spec.controller",
                at(new, &["spec", "controller"]),
                "field is immutable",
            ));
        }
        wrong
    },
    ..BASE
};

const CLASS_COLUMNS: &[Column] = &[
    NAME,
    column(
        "Controller",
        "The controller that serves Ingresses of the class.",
    ),
    column("Parameters", "Object that configures the controller."),
    AGE,
];

fn class(object: &Value) -> &str {
    match text(object, &["spec", "ingressClassName"]) {
        "" => match text(object, &["metadata", "annotations", CLASS_ANNOTATION]) {
            "" => "<none>",
            annotated => annotated,
        },
        name => name,
    }
}

/// Three names at most, then how many more there are.
fn hosts(object: &Value) -> String {
    let mut shown: Vec<&str> = Vec::new();
    let mut more = 0;
    for rule in list(object, &["spec", "rules"]) {
        let host = text(rule, &["host"]);
        if host.is_empty() {
            continue;
        }
        if shown.len() < 3 {
            shown.push(host);
        } else {
            more += 1;
        }
    }
    match (shown.is_empty(), more) {
        (true, _) => "*".to_owned(),
        (false, 0) => shown.join(","),
        (false, more) => format!("{} + {more} more...", shown.join(",")),
    }
}
/// The group of a backend that is a resource is written even where it is null.
fn default_resources(spec: &mut Value) {
    let named = |backend: &mut Value| {
        if let Some(resource) = backend.get_mut("resource").filter(|r| r.is_object()) {
            value::set_default(resource, "apiGroup", Value::Null);
        }
    };
    if let Some(backend) = spec.get_mut("defaultBackend") {
        named(backend);
    }
    for rule in value::items_mut(spec, "rules") {
        let Some(http) = rule.get_mut("http") else {
            continue;
        };
        for path in value::items_mut(http, "paths") {
            if let Some(backend) = path.get_mut("backend") {
                named(backend);
            }
        }
    }
}

fn validate(object: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let spec = at(object, &["spec"]);
    let rules = list(spec, &["rules"]);
    for (i, tls) in list(spec, &["tls"]).iter().enumerate() {
        for (j, host) in list(tls, &["hosts"]).iter().enumerate() {
            wrong.extend(bad_host(
                &format!("spec.tls[{i}].hosts[{j}]"),
                host.as_str().unwrap_or(""),
            ));
        }
        let secret = text(tls, &["secretName"]);
        if !secret.is_empty() {
            for why in names::subdomain(secret) {
                let field = format!("spec.tls[{i}].secretName");
                wrong.push(FieldError::invalid_text(field, secret, why));
            }
        }
    }
    if rules.is_empty() && at(spec, &["defaultBackend"]).is_null() {
        wrong.push(FieldError::invalid(
            "spec",
            &Value::Null,
            "either `defaultBackend` or `rules` must be specified",
        ));
    }
    if !at(spec, &["defaultBackend"]).is_null() {
        wrong.extend(bad_backend(
            "spec.defaultBackend",
            at(spec, &["defaultBackend"]),
        ));
    }
    for (i, rule) in rules.iter().enumerate() {
        let path = format!("spec.rules[{i}]");
        let host = text(rule, &["host"]);
        if !host.is_empty() {
            if host.parse::<std::net::IpAddr>().is_ok() {
                wrong.push(FieldError::invalid_text(
                    format!("{path}.host"),
                    host,
                    "must be a DNS name, not an IP address",
                ));
            } else {
                wrong.extend(bad_host(&format!("{path}.host"), host));
            }
        }
        if let Some(http) = rule.get("http").filter(|h| !h.is_null()) {
            wrong.extend(bad_paths(&format!("{path}.http"), http));
        }
    }
    if let Some(class) = at(spec, &["ingressClassName"]).as_str() {
        for why in names::subdomain(class) {
            wrong.push(FieldError::invalid_text(
                "spec.ingressClassName",
                class,
                why,
            ));
        }
    }
    wrong
}

fn bad_host(field: &str, host: &str) -> Vec<FieldError> {
    let why = if host.contains('*') {
        names::wildcard_subdomain(host)
    } else {
        names::subdomain(host)
    };
    why.into_iter()
        .map(|why| FieldError::invalid_text(field, host, why))
        .collect()
}

fn bad_paths(field: &str, http: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let paths = list(http, &["paths"]);
    if paths.is_empty() {
        wrong.push(FieldError::required(format!("{field}.paths"), ""));
    }
    for (i, path) in paths.iter().enumerate() {
        let field = format!("{field}.paths[{i}]");
        let given = text(path, &["path"]);
        match at(path, &["pathType"]).as_str() {
            None => wrong.push(FieldError::required(
                format!("{field}.pathType"),
                "pathType must be specified",
            )),
            Some("Exact" | "Prefix") => wrong.extend(bad_path(&format!("{field}.path"), given)),
            Some("ImplementationSpecific") => {
                if !given.is_empty() && !given.starts_with('/') {
                    wrong.push(FieldError::invalid_text(
                        format!("{field}.path"),
                        given,
                        "must be an absolute path",
                    ));
                }
            }
            Some(other) => wrong.push(FieldError::not_supported(
                format!("{field}.pathType"),
                other,
                &["Exact", "ImplementationSpecific", "Prefix"],
            )),
        }
        wrong.extend(bad_backend(
            &format!("{field}.backend"),
            at(path, &["backend"]),
        ));
    }
    wrong
}

fn bad_path(field: &str, path: &str) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    if !path.starts_with('/') {
        wrong.push(FieldError::invalid_text(
            field,
            path,
            "must be an absolute path",
        ));
    }
    for part in ["//", "/./", "/../", "%2f", "%2F"] {
        if path.contains(part) {
            wrong.push(FieldError::invalid_text(
                field,
                path,
                format!("must not contain '{part}'"),
            ));
        }
    }
    for end in ["/..", "/."] {
        if path.ends_with(end) {
            wrong.push(FieldError::invalid_text(
                field,
                path,
                format!("cannot end with '{end}'"),
            ));
        }
    }
    wrong
}

fn bad_backend(field: &str, backend: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let (service, resource) = (at(backend, &["service"]), at(backend, &["resource"]));
    match (service.is_null(), resource.is_null()) {
        (true, true) => {
            wrong.push(FieldError::invalid_text(
                field,
                "",
                "resource or service backend is required",
            ));
        }
        (false, false) => {
            wrong.push(FieldError::invalid_text(
                field,
                "",
                "cannot set both resource and service backends",
            ));
        }
        (true, false) => {
            for key in ["kind", "name"] {
                if text(resource, &[key]).is_empty() {
                    wrong.push(FieldError::required(format!("{field}.resource.{key}"), ""));
                }
            }
        }
        (false, true) => {
            let name = text(service, &["name"]);
            if name.is_empty() {
                wrong.push(FieldError::required(format!("{field}.service.name"), ""));
            } else {
                for why in names::label_1035(name) {
                    wrong.push(FieldError::invalid_text(
                        format!("{field}.service.name"),
                        name,
                        why,
                    ));
                }
            }
            let (port, port_name) = (
                number(service, &["port", "number"]),
                text(service, &["port", "name"]),
            );
            let field = format!("{field}.service.port");
            match (port_name.is_empty(), port == 0) {
                (true, true) => wrong.push(FieldError::required(
                    field,
                    "port name or number is required",
                )),
                (false, false) => {
                    wrong.push(FieldError::invalid_text(
                        field,
                        "",
                        "cannot set both port name & port number",
                    ));
                }
                (false, true) => {
                    for why in names::port_name(port_name) {
                        wrong.push(FieldError::invalid_text(
                            format!("{field}.name"),
                            port_name,
                            why,
                        ));
                    }
                }
                (true, false) => {
                    for why in names::port_number(port) {
                        wrong.push(FieldError::invalid(
                            format!("{field}.number"),
                            &port.into(),
                            why,
                        ));
                    }
                }
            }
        }
    }
    wrong
}

/// A reference to an object of a class's controller.
fn bad_parameters_reference(parameters: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let group = text(parameters, &["apiGroup"]);
    if !group.is_empty() {
        for why in names::subdomain(group) {
            wrong.push(FieldError::invalid_text(
                "spec.parameters.apiGroup",
                group,
                why,
            ));
        }
    }
    for key in ["kind", "name"] {
        let field = format!("spec.parameters.{key}");
        let value = text(parameters, &[key]);
        if value.is_empty() {
            wrong.push(FieldError::required(field, format!("{key} is required")));
            continue;
        }
        for why in names::path_segment(value) {
            wrong.push(FieldError::invalid_text(field.clone(), value, why));
        }
    }
    wrong
}

fn validate_class(object: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let controller = text(object, &["spec", "controller"]);
    if controller.len() > 250 {
        wrong.push(FieldError::too_long("spec.controller", 250));
    }
    if controller.is_empty() {
        wrong.push(FieldError::required("spec.controller", ""));
    } else {
        match controller.split_once('/') {
            Some((domain, path)) if !path.is_empty() => {
                for why in names::subdomain(domain) {
                    wrong.push(FieldError::invalid_text("spec.controller", domain, why));
                }
            }
            _ => wrong.push(FieldError::invalid_text(
                "spec.controller",
                controller,
                "must be a domain-prefixed path (such as \"acme.io/foo\")",
            )),
        }
    }
    let parameters = at(object, &["spec", "parameters"]);
    if !parameters.is_null() {
        wrong.extend(bad_parameters_reference(parameters));
        let namespace = text(parameters, &["namespace"]);
        match text(parameters, &["scope"]) {
            "Cluster" if !namespace.is_empty() => wrong.push(FieldError::forbidden(
                "spec.parameters.namespace",
                "`parameters.scope` is set to 'Cluster'",
            )),
            "Namespace" if namespace.is_empty() => wrong.push(FieldError::required(
                "spec.parameters.namespace",
                "`parameters.scope` is set to 'Namespace'",
            )),
            "Cluster" | "Namespace" => {}
            other => {
                wrong.push(FieldError::not_supported(
                    "spec.parameters.scope",
                    other,
                    &["Cluster", "Namespace"],
                ));
            }
        }
    }
    wrong
}
