//! What a claim to devices must not say: of requests that are not there, of attributes without a domain, of
//! configuration that is none; and what may be said of devices that were given out.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::storage_class::bad_driver_name;
use super::workload_status::bad_conditions;
use crate::field::{FieldError, quoted};
use crate::meta;
use crate::names;
use crate::value::{at, list, text};

/// Items in lists of requests, constraints, configurations and selectors, and in those of results.
pub(super) const LIST_MAX: usize = 32;
const TOLERATIONS_MAX: usize = 16;
const RESERVED_MAX: usize = 256;
/// Bytes of a driver's own parameters.
const PARAMETERS_MAX: usize = 10 * 1024;
/// Bytes of the part of a qualified name behind the slash.
const ID_MAX: usize = 32;
const DRIVER_MAX: usize = 63;

/// The names of requests, each with those of its alternatives.
type Requests<'a> = BTreeMap<&'a str, BTreeSet<&'a str>>;

fn requests(claim: &Value) -> Requests<'_> {
    list(claim, &["devices", "requests"])
        .iter()
        .map(|request| {
            let alternatives = list(request, &["firstAvailable"])
                .iter()
                .map(|alternative| text(alternative, &["name"]))
                .collect();
            (text(request, &["name"]), alternatives)
        })
        .collect()
}

/// What is wrong with the constraints and configurations of a claim's spec at `field`.
pub(super) fn bad_terms(field: &str, spec: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let known = requests(spec);
    let path = format!("{field}.devices.constraints");
    let constraints = list(spec, &["devices", "constraints"]);
    if constraints.len() > LIST_MAX {
        wrong.push(FieldError::too_many(path, constraints.len(), LIST_MAX));
    } else {
        for (i, constraint) in constraints.iter().enumerate() {
            wrong.extend(bad_constraint(&format!("{path}[{i}]"), constraint, &known));
        }
    }
    let path = format!("{field}.devices.config");
    let config = list(spec, &["devices", "config"]);
    if config.len() > LIST_MAX {
        wrong.push(FieldError::too_many(path, config.len(), LIST_MAX));
    } else {
        for (i, one) in config.iter().enumerate() {
            let path = format!("{path}[{i}]");
            wrong.extend(bad_references(&path, one, &known));
            wrong.extend(bad_config(&path, one));
        }
    }
    wrong
}

fn bad_constraint(field: &str, constraint: &Value, known: &Requests<'_>) -> Vec<FieldError> {
    let mut wrong = bad_references(field, constraint, known);
    let named = ["matchAttribute", "distinctAttribute"]
        .into_iter()
        .find_map(|key| Some((key, at(constraint, &[key]).as_str()?)));
    match named {
        Some((key, attribute)) => {
            let field = format!("{field}.{key}");
            wrong.extend(bad_qualified(&field, attribute));
            if !attribute.contains('/') {
                let why =
                    "a fully qualified name must be a domain and a name separated by a slash";
                wrong.push(FieldError::invalid_text(field, attribute, why));
            }
        }
        None => wrong.push(FieldError::required(
            field,
            "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set",
        )),
    }
    wrong
}

/// The requests that a part of a claim speaks of.
fn bad_references(field: &str, part: &Value, known: &Requests<'_>) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let named = list(part, &["requests"]);
    let field = format!("{field}.requests");
    if named.len() > LIST_MAX {
        return vec![FieldError::too_many(field, named.len(), LIST_MAX)];
    }
    let mut seen = BTreeSet::new();
    for (i, name) in named.iter().enumerate() {
        let (path, name) = (format!("{field}[{i}]"), name.as_str().unwrap_or(""));
        wrong.extend(bad_reference(&path, name, known));
        if !seen.insert(name) {
            wrong.push(FieldError::duplicate(path, quoted(name)));
        }
    }
    wrong
}

fn bad_reference(field: &str, name: &str, known: &Requests<'_>) -> Vec<FieldError> {
    let unknown = || {
        let why = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
        FieldError::invalid_text(field, name, why)
    };
    let parts: Vec<&str> = name.split('/').collect();
    if parts.len() > 2 {
        return vec![unknown()];
    }
    let mut wrong = Vec::new();
    for part in &parts {
        for why in names::label(part) {
            wrong.push(FieldError::invalid_text(field, part, why));
        }
    }
    let found = known
        .get(parts[0])
        .is_some_and(|alternatives| parts.get(1).is_none_or(|part| alternatives.contains(part)));
    if !found {
        wrong.push(unknown());
    }
    wrong
}

/// What is wrong with the configuration at `field`, which only its driver understands.
pub(super) fn bad_config(field: &str, config: &Value) -> Vec<FieldError> {
    let opaque = at(config, &["opaque"]);
    let field = format!("{field}.opaque");
    if !opaque.is_object() {
        return vec![FieldError::required(field, "")];
    }
    let mut wrong = bad_driver(&format!("{field}.driver"), text(opaque, &["driver"]));
    let field = format!("{field}.parameters");
    match at(opaque, &["parameters"]) {
        Value::Null => wrong.push(FieldError::required(field, "")),
        parameters if parameters.to_string().len() > PARAMETERS_MAX => {
            wrong.push(FieldError::too_long(field, PARAMETERS_MAX));
        }
        Value::Object(_) => {}
        _ => wrong.push(FieldError::invalid_text(
            field,
            "<value omitted>",
            "must be a valid JSON object",
        )),
    }
    wrong
}

/// What is wrong with the name of a driver: a subdomain of at most 63 bytes.
pub(super) fn bad_driver(field: &str, name: &str) -> Vec<FieldError> {
    if name.is_empty() {
        return bad_driver_name(field, name);
    }
    let mut wrong = Vec::new();
    if name.len() > DRIVER_MAX {
        wrong.push(FieldError::too_long(field, DRIVER_MAX));
    }
    for why in names::subdomain(&name.to_lowercase()) {
        wrong.push(FieldError::invalid_text(field, name, why));
    }
    wrong
}

/// What is wrong with the name of an attribute or capacity: an identifier, perhaps with a domain before it.
pub(super) fn bad_qualified(field: &str, name: &str) -> Vec<FieldError> {
    let (domain, id) = match name.split_once('/') {
        Some((domain, id)) => (Some(domain), id),
        None => (None, name),
    };
    if id.contains('/') {
        let why = "must not contain more than one slash";
        return vec![FieldError::invalid_text(field, name, why)];
    }
    let mut wrong = match domain {
        Some("") => vec![FieldError::invalid_text(
            field,
            "",
            "the domain must not be empty",
        )],
        Some(domain) => bad_driver(field, domain),
        None => Vec::new(),
    };
    if id.is_empty() && domain.is_some() {
        wrong.push(FieldError::invalid_text(
            field,
            "",
            "the name must not be empty",
        ));
        return wrong;
    }
    if id.len() > ID_MAX {
        wrong.push(FieldError::too_long(field, ID_MAX));
    }
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let fits = id.bytes().all(word) && id.bytes().next().is_some_and(|b| !b.is_ascii_digit());
    if !fits {
        wrong.push(FieldError::invalid_text(
            field,
            id,
            "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is '[A-Za-z_][A-Za-z0-9_]*')",
        ));
    }
    wrong
}

const EFFECTS: &[&str] = &["NoExecute", "NoSchedule", "None"];

/// What is wrong with the taints of devices that are tolerated.
pub(super) fn bad_tolerations(field: &str, tolerations: &[Value]) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    if tolerations.len() > TOLERATIONS_MAX {
        wrong.push(FieldError::too_many(
            field,
            tolerations.len(),
            TOLERATIONS_MAX,
        ));
        return wrong;
    }
    for (i, toleration) in tolerations.iter().enumerate() {
        let path = format!("{field}[{i}]");
        let key = text(toleration, &["key"]);
        if !key.is_empty() {
            wrong.extend(meta::label_key(key, &format!("{path}.key")));
        }
        let value = text(toleration, &["value"]);
        let field = format!("{path}.value");
        match text(toleration, &["operator"]) {
            "Exists" if !value.is_empty() => {
                let why = "must be empty for operator `Exists`";
                wrong.push(FieldError::invalid_text(field, value, why));
            }
            "Exists" => {}
            "Equal" => wrong.extend(
                names::label_value(value)
                    .into_iter()
                    .map(|why| FieldError::invalid_text(field.clone(), value, why)),
            ),
            "" => wrong.push(FieldError::required(format!("{path}.operator"), "")),
            other => wrong.push(FieldError::not_supported(
                format!("{path}.operator"),
                other,
                &["Equal", "Exists"],
            )),
        }
        let effect = text(toleration, &["effect"]);
        if !effect.is_empty() && !EFFECTS.contains(&effect) {
            wrong.push(FieldError::not_supported(
                format!("{path}.effect"),
                effect,
                EFFECTS,
            ));
        }
    }
    wrong
}

/// What must not be said of a claim's state: who uses it without its having devices, devices that it does not ask for.
pub(super) fn bad_status(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let status = at(new, &["status"]);
    let (allocation, before) = (
        at(status, &["allocation"]),
        at(old, &["status", "allocation"]),
    );
    let users = list(status, &["reservedFor"]);
    let field = "status.reservedFor";
    if users.len() > RESERVED_MAX {
        wrong.push(FieldError::too_many(field, users.len(), RESERVED_MAX));
    }
    let mut seen = BTreeSet::new();
    for (i, user) in users.iter().enumerate() {
        for key in ["resource", "name", "uid"] {
            if text(user, &[key]).is_empty() {
                wrong.push(FieldError::required(format!("{field}[{i}].{key}"), ""));
            }
        }
        let uid = text(user, &["uid"]);
        if !seen.insert(uid) {
            wrong.push(FieldError::duplicate(format!("{field}[{i}]"), quoted(uid)));
        }
    }
    wrong.extend(bad_device_states(status, allocation));
    if !users.is_empty() && allocation.is_null() {
        let why = "may not be specified when `allocated` is not set";
        wrong.push(FieldError::forbidden(field, why));
    } else if meta::is_terminating(new) {
        let had = list(old, &["status", "reservedFor"]);
        if users.iter().any(|user| !had.contains(user)) {
            let why = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
            wrong.push(FieldError::forbidden(field, why));
        }
    }
    if !before.is_null() && !allocation.is_null() {
        if before != allocation {
            let why = "field is immutable";
            wrong.push(FieldError::invalid("status.allocation", allocation, why));
        }
    } else if !allocation.is_null() {
        let known = requests(at(new, &["spec"]));
        wrong.extend(bad_allocation(at(allocation, &["devices"]), &known));
    }
    wrong
}

/// A driver tells of devices that were given out, and of those alone.
fn bad_device_states(status: &Value, allocation: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let id = |device: &'_ Value| -> Vec<String> {
        ["driver", "pool", "device", "shareID"]
            .map(|key| text(device, &[key]).to_owned())
            .to_vec()
    };
    let given: BTreeSet<Vec<String>> = list(allocation, &["devices", "results"])
        .iter()
        .map(id)
        .collect();
    for (i, device) in list(status, &["devices"]).iter().enumerate() {
        let path = format!("status.devices[{i}]");
        wrong.extend(bad_driver(
            &format!("{path}.driver"),
            text(device, &["driver"]),
        ));
        if !given.contains(&id(device)) {
            let shown = id(device)[..3].join("/");
            let why = "must be an allocated device in the claim";
            wrong.push(FieldError::invalid_text(path.clone(), &shown, why));
        }
        wrong.extend(bad_conditions(
            at(device, &["conditions"]),
            &format!("{path}.conditions"),
        ));
    }
    wrong
}

fn bad_allocation(devices: &Value, known: &Requests<'_>) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let field = "status.allocation.devices";
    let results = list(devices, &["results"]);
    if results.len() > LIST_MAX {
        return vec![FieldError::too_many(
            format!("{field}.results"),
            results.len(),
            LIST_MAX,
        )];
    }
    for (i, result) in results.iter().enumerate() {
        let path = format!("{field}.results[{i}]");
        wrong.extend(bad_reference(
            &format!("{path}.request"),
            text(result, &["request"]),
            known,
        ));
        wrong.extend(bad_driver(
            &format!("{path}.driver"),
            text(result, &["driver"]),
        ));
        let device = text(result, &["device"]);
        for why in names::label(device) {
            wrong.push(FieldError::invalid_text(
                format!("{path}.device"),
                device,
                why,
            ));
        }
    }
    for (i, config) in list(devices, &["config"]).iter().enumerate() {
        let path = format!("{field}.config[{i}]");
        match text(config, &["source"]) {
            "FromClaim" | "FromClass" => {}
            "" => wrong.push(FieldError::required(format!("{path}.source"), "")),
            other => wrong.push(FieldError::not_supported(
                format!("{path}.source"),
                other,
                &["FromClaim", "FromClass"],
            )),
        }
        wrong.extend(bad_references(&path, config, known));
        wrong.extend(bad_config(&path, config));
    }
    wrong
}
