//! resource.k8s.io: devices of nodes, and claims to them.

use serde_json::{Value, json};

use super::{device_claims, device_slices, immutable, named_cells};
use crate::field::FieldError;
use crate::meta;
use crate::names;
use crate::table::{AGE, BASE, Column, Field, NAME, Resource, STATUS, column};
use crate::value::{self, at, items_mut, list, number, set_default, text};

const DEVICES: Resource = Resource {
    group: "resource.k8s.io",
    returns_deleted: true,
    ..BASE
};

const NAME_AGE: &[Column] = &[NAME, AGE];

/// Classes of devices.
pub(crate) static DEVICE_CLASSES: Resource = Resource {
    kind: "DeviceClass",
    list_kind: "DeviceClassList",
    plural: "deviceclasses",
    singular: "deviceclass",
    namespaced: false,
    has_generation: true,
    storage_prefix: "/registry/deviceclasses",
    definition: "io.k8s.api.resource.v1.DeviceClass",
    columns: NAME_AGE,
    cells: |object, now| named_cells(object, [], now),
    default: |object| {
        value::object_mut(object, "spec");
    },
    validate: validate_device_class,
    validate_update: |new, _| validate_device_class(new),
    ..DEVICES
};

/// Claims to devices.
pub(crate) static RESOURCE_CLAIMS: Resource = Resource {
    kind: "ResourceClaim",
    list_kind: "ResourceClaimList",
    plural: "resourceclaims",
    singular: "resourceclaim",
    subresources: &[STATUS],
    storage_prefix: "/registry/resourceclaims",
    definition: "io.k8s.api.resource.v1.ResourceClaim",
    columns: &[
        NAME,
        column("State", "Whether devices were given out."),
        AGE,
    ],
    cells: |object, now| named_cells(object, [state(object).into()], now),
    default: |object| {
        if let Some(spec) = object.get_mut("spec") {
            default_claim(spec);
        }
    },
    prepare_create: |object| value::set(object, "status", json!({})),
    prepare_status: crate::write::keep_said_metadata,
    validate: |object| bad_claim("spec", at(object, &["spec"])),
    validate_update: |new, old| immutable(new, old, &["spec"]).into_iter().collect(),
    validate_status: Some(device_claims::bad_status),
    ..DEVICES
};

/// What claims are made from.
pub(crate) static RESOURCE_CLAIM_TEMPLATES: Resource = Resource {
    kind: "ResourceClaimTemplate",
    list_kind: "ResourceClaimTemplateList",
    plural: "resourceclaimtemplates",
    singular: "resourceclaimtemplate",
    storage_prefix: "/registry/resourceclaimtemplates",
    definition: "io.k8s.api.resource.v1.ResourceClaimTemplate",
    columns: NAME_AGE,
    cells: |object, now| named_cells(object, [], now),
    default: |object| {
        if let Some(template) = value::object_mut(object, "spec") {
            value::object_mut(template, "metadata");
            if let Some(spec) = template.get_mut("spec") {
                default_claim(spec);
            }
        }
    },
    validate: |object| bad_claim("spec.spec", at(object, &["spec", "spec"])),
    validate_update: |new, old| immutable(new, old, &["spec"]).into_iter().collect(),
    ..DEVICES
};

/// The devices that a driver offers.
pub(crate) static RESOURCE_SLICES: Resource = Resource {
    kind: "ResourceSlice",
    list_kind: "ResourceSliceList",
    plural: "resourceslices",
    singular: "resourceslice",
    namespaced: false,
    has_generation: true,
    storage_prefix: "/registry/resourceslices",
    definition: "io.k8s.api.resource.v1.ResourceSlice",
    columns: &[
        NAME,
        column("Node", "Where the devices are."),
        column("Driver", "Whose they are."),
        column("Pool", "The pool that they are in."),
        AGE,
    ],
    cells: |object, now| {
        let cell = |path: &[&str]| text(object, path).into();
        named_cells(
            object,
            [
                cell(&["spec", "nodeName"]),
                cell(&["spec", "driver"]),
                cell(&["spec", "pool", "name"]),
            ],
            now,
        )
    },
    fields: &[
        Field {
            label: "spec.nodeName",
            get: |object| text(object, &["spec", "nodeName"]).to_owned(),
        },
        Field {
            label: "spec.driver",
            get: |object| text(object, &["spec", "driver"]).to_owned(),
        },
    ],
    validate: validate_slice,
    validate_update: |new, old| {
        let mut wrong = validate_slice(new);
        for path in [
            ["spec", "driver"].as_slice(),
            &["spec", "pool", "name"],
            &["spec", "nodeName"],
        ] {
            wrong.extend(immutable(new, old, path));
        }
        wrong
    },
    ..DEVICES
};

fn state(object: &Value) -> String {
    let mut states = Vec::new();
    if meta::is_terminating(object) {
        states.push("deleted");
    }
    let status = at(object, &["status"]);
    if at(status, &["allocation"]).is_null() {
        if states.is_empty() {
            states.push("pending");
        }
    } else {
        states.push("allocated");
        if !list(status, &["reservedFor"]).is_empty() {
            states.push("reserved");
        }
    }
    states.join(",")
}

fn default_claim(spec: &mut Value) {
    let Some(devices) = spec.get_mut("devices") else {
        return;
    };
    for request in items_mut(devices, "requests") {
        if let Some(exactly) = request.get_mut("exactly").filter(|e| e.is_object()) {
            default_request(exactly);
        }
        for alternative in items_mut(request, "firstAvailable") {
            default_request(alternative);
        }
    }
}

fn default_request(request: &mut Value) {
    set_default(request, "allocationMode", "ExactCount");
    if text(request, &["allocationMode"]) == "ExactCount" && number(request, &["count"]) == 0 {
        value::set(request, "count", 1);
    }
    for toleration in items_mut(request, "tolerations") {
        set_default(toleration, "operator", "Equal");
    }
}

/// Requests in one claim.
const REQUESTS_MAX: usize = 32;
/// Alternatives of one request.
const ALTERNATIVES_MAX: usize = 8;
/// Devices in one slice.
const DEVICES_MAX: usize = 128;
/// Length of an expression in CEL.
const EXPRESSION_MAX: usize = 10 * 1024;

fn bad_claim(field: &str, spec: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let requests = list(spec, &["devices", "requests"]);
    if requests.len() > REQUESTS_MAX {
        wrong.push(FieldError::too_many(
            format!("{field}.devices.requests"),
            requests.len(),
            REQUESTS_MAX,
        ));
    }
    let mut seen = std::collections::BTreeSet::new();
    for (i, request) in requests.iter().enumerate() {
        let path = format!("{field}.devices.requests[{i}]");
        wrong.extend(bad_request_name(&path, text(request, &["name"]), &mut seen));
        let exactly = at(request, &["exactly"]);
        let alternatives = list(request, &["firstAvailable"]);
        match (exactly.is_object(), alternatives.is_empty()) {
            (true, false) => wrong.push(FieldError::invalid(
                path.clone(),
                &Value::Null,
                "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set",
            )),
            (false, true) => wrong.push(FieldError::required(
                path.clone(),
                "exactly one of `exactly` or `firstAvailable` is required",
            )),
            _ => {}
        }
        if exactly.is_object() {
            wrong.extend(bad_request(&format!("{path}.exactly"), exactly));
        }
        wrong.extend(bad_alternatives(
            &format!("{path}.firstAvailable"),
            alternatives,
        ));
    }
    wrong.extend(device_claims::bad_terms(field, spec));
    wrong
}

/// What is wrong with the alternatives of a request, of which the first that can be had is taken.
fn bad_alternatives(field: &str, alternatives: &[Value]) -> Vec<FieldError> {
    if alternatives.len() > ALTERNATIVES_MAX {
        let (count, max) = (alternatives.len(), ALTERNATIVES_MAX);
        return vec![FieldError::too_many(field, count, max)];
    }
    let mut wrong = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for (i, alternative) in alternatives.iter().enumerate() {
        let path = format!("{field}[{i}]");
        wrong.extend(bad_request_name(
            &path,
            text(alternative, &["name"]),
            &mut seen,
        ));
        wrong.extend(bad_request(&path, alternative));
    }
    wrong
}

/// What is wrong with the name of the request at `path`; `seen` are those before it.
fn bad_request_name<'a>(
    path: &str,
    name: &'a str,
    seen: &mut std::collections::BTreeSet<&'a str>,
) -> Vec<FieldError> {
    let field = format!("{path}.name");
    if name.is_empty() {
        return vec![FieldError::required(field, "")];
    }
    let mut wrong: Vec<FieldError> = names::label(name)
        .into_iter()
        .map(|why| FieldError::invalid_text(field.clone(), name, why))
        .collect();
    if !seen.insert(name) {
        wrong.push(FieldError::duplicate(field, crate::field::quoted(name)));
    }
    wrong
}

fn validate_device_class(object: &Value) -> Vec<FieldError> {
    let spec = at(object, &["spec"]);
    let mut wrong = bad_selectors("spec.selectors", at(spec, &["selectors"]));
    let config = list(spec, &["config"]);
    if config.len() > device_claims::LIST_MAX {
        let max = device_claims::LIST_MAX;
        wrong.push(FieldError::too_many("spec.config", config.len(), max));
        return wrong;
    }
    for (i, one) in config.iter().enumerate() {
        wrong.extend(device_claims::bad_config(&format!("spec.config[{i}]"), one));
    }
    if let Some(name) = at(spec, &["extendedResourceName"]).as_str() {
        let own = !name.contains('/') || name.contains("kubernetes.io/");
        let prefixed = format!("requests.{name}");
        if own || name.starts_with("requests.") || !names::qualified_name(&prefixed).is_empty() {
            let why = "must be a valid extended resource name";
            wrong.push(FieldError::invalid_text(
                "spec.extendedResourceName",
                name,
                why,
            ));
        }
    }
    wrong
}

fn bad_request(path: &str, request: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let class = text(request, &["deviceClassName"]);
    if class.is_empty() {
        wrong.push(FieldError::required(format!("{path}.deviceClassName"), ""));
    } else {
        for why in names::subdomain(class) {
            wrong.push(FieldError::invalid_text(
                format!("{path}.deviceClassName"),
                class,
                why,
            ));
        }
    }
    wrong.extend(bad_selectors(
        &format!("{path}.selectors"),
        at(request, &["selectors"]),
    ));
    let count = at(request, &["count"]);
    match text(request, &["allocationMode"]) {
        "All" => {
            if number(request, &["count"]) != 0 {
                wrong.push(FieldError::invalid(
                    format!("{path}.count"),
                    count,
                    "must not be specified when allocationMode is 'All'",
                ));
            }
        }
        "ExactCount" => {
            if number(request, &["count"]) <= 0 {
                wrong.push(FieldError::invalid(
                    format!("{path}.count"),
                    count,
                    "must be greater than zero",
                ));
            }
        }
        other => wrong.push(FieldError::not_supported(
            format!("{path}.allocationMode"),
            other,
            &["All", "ExactCount"],
        )),
    }
    wrong.extend(device_claims::bad_tolerations(
        &format!("{path}.tolerations"),
        list(request, &["tolerations"]),
    ));
    wrong
}

fn bad_selectors(field: &str, selectors: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let selectors = list(selectors, &[]);
    if selectors.len() > REQUESTS_MAX {
        wrong.push(FieldError::too_many(field, selectors.len(), REQUESTS_MAX));
    }
    for (i, selector) in selectors.iter().enumerate() {
        let path = format!("{field}[{i}].cel");
        if !at(selector, &["cel"]).is_object() {
            wrong.push(FieldError::required(path, ""));
            continue;
        }
        let expression = text(selector, &["cel", "expression"]);
        if expression.len() > EXPRESSION_MAX {
            wrong.push(FieldError::too_long(
                format!("{path}.expression"),
                EXPRESSION_MAX,
            ));
        }
    }
    wrong
}

/// What is wrong with the name of a pool: subdomains with slashes between.
fn bad_pool_name(field: &str, name: &str) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    if name.len() > names::SUBDOMAIN_MAX {
        wrong.push(FieldError::too_long(field, names::SUBDOMAIN_MAX));
    }
    for part in name.split('/') {
        for why in names::subdomain(part) {
            wrong.push(FieldError::invalid_text(field, part, why));
        }
    }
    wrong
}

fn validate_slice(object: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let spec = at(object, &["spec"]);
    let driver = text(spec, &["driver"]);
    if driver.is_empty() {
        wrong.push(FieldError::required("spec.driver", ""));
    } else {
        for why in names::subdomain(driver) {
            wrong.push(FieldError::invalid_text("spec.driver", driver, why));
        }
    }
    let pool = text(spec, &["pool", "name"]);
    if pool.is_empty() {
        wrong.push(FieldError::required("spec.pool.name", ""));
    } else {
        wrong.extend(bad_pool_name("spec.pool.name", pool));
    }
    let count = number(spec, &["pool", "resourceSliceCount"]);
    if count <= 0 {
        wrong.push(FieldError::invalid(
            "spec.pool.resourceSliceCount",
            &count.into(),
            "must be greater than zero",
        ));
    }
    let places = [
        !text(spec, &["nodeName"]).is_empty(),
        at(spec, &["nodeSelector"]).is_object(),
        value::flag(spec, &["allNodes"]),
        value::flag(spec, &["perDeviceNodeSelection"]),
    ];
    match places.iter().filter(|given| **given).count() {
        1 => {}
        0 => wrong.push(FieldError::required(
            "spec",
            "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required",
        )),
        _ => wrong.push(FieldError::invalid(
            "spec",
            &Value::Null,
            "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required, but multiple fields are set",
        )),
    }
    let devices = list(spec, &["devices"]);
    if devices.len() > DEVICES_MAX {
        wrong.push(FieldError::too_many(
            "spec.devices",
            devices.len(),
            DEVICES_MAX,
        ));
    }
    let mut seen = std::collections::BTreeSet::new();
    for (i, device) in devices.iter().enumerate() {
        let name = text(device, &["name"]);
        let field = format!("spec.devices[{i}].name");
        for why in names::label(name) {
            wrong.push(FieldError::invalid_text(field.clone(), name, why));
        }
        if !seen.insert(name) {
            wrong.push(FieldError::duplicate(field, crate::field::quoted(name)));
        }
        wrong.extend(device_slices::bad_device(
            &format!("spec.devices[{i}]"),
            device,
        ));
    }
    wrong
}
