//! ConfigMap and Secret: texts and bytes by key.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use time::OffsetDateTime;

use crate::duration::age;
use crate::field::{Fault, FieldError};
use crate::names;
use crate::table::{AGE, BASE, Column, Field, NAME, Resource, column};
use crate::value::{self, at, entries, flag, text};

/// Configuration that isn't secret.
pub(crate) static CONFIG_MAPS: Resource = Resource {
    kind: "ConfigMap",
    list_kind: "ConfigMapList",
    plural: "configmaps",
    singular: "configmap",
    short_names: &["cm"],
    storage_prefix: "/registry/configmaps",
    definition: "io.k8s.api.core.v1.ConfigMap",
    columns: &[NAME, column("Data", "Number of keys."), AGE],
    cells: |object, now| {
        let keys = entries(object, &["data"]).count() + entries(object, &["binaryData"]).count();
        cells(object, vec![keys.to_string().into()], now)
    },
    validate: validate_config_map,
    validate_update: |new, old| {
        let mut wrong = validate_config_map(new);
        wrong.extend(immutable(new, old, &["data", "binaryData"]));
        wrong
    },
    ..BASE
};

/// What not everybody should read.
pub(crate) static SECRETS: Resource = Resource {
    kind: "Secret",
    list_kind: "SecretList",
    plural: "secrets",
    singular: "secret",
    storage_prefix: "/registry/secrets",
    definition: "io.k8s.api.core.v1.Secret",
    columns: SECRET_COLUMNS,
    cells: |object, now| {
        let keys = entries(object, &["data"]).count();
        cells(
            object,
            vec![text(object, &["type"]).into(), keys.to_string().into()],
            now,
        )
    },
    fields: &[Field {
        label: "type",
        get: |object| text(object, &["type"]).to_owned(),
    }],
    default: |object| {
        value::set_default(object, "type", "Opaque");
        merge_string_data(object);
    },
    validate: validate_secret,
    validate_update: |new, old| {
        let mut wrong = Vec::new();
        if at(new, &["type"]) != at(old, &["type"]) {
            wrong.push(FieldError::invalid(
                "type",
                at(new, &["type"]),
                "field is immutable",
            ));
        }
        wrong.extend(immutable(new, old, &["data"]));
        wrong.extend(validate_secret(new));
        wrong
    },
    ..BASE
};

const SECRET_COLUMNS: &[Column] = &[
    NAME,
    column("Type", "What the data is for."),
    column("Data", "Number of keys."),
    AGE,
];

/// The most bytes in all values together.
const DATA_MAX: usize = 1024 * 1024;

fn cells(object: &Value, middle: Vec<Value>, now: OffsetDateTime) -> Vec<Value> {
    let mut cells = vec![text(object, &["metadata", "name"]).into()];
    cells.extend(middle);
    cells.push(age(at(object, &["metadata", "creationTimestamp"]), now).into());
    cells
}

/// `stringData` is only a way of writing: its entries become `data`, which is what is stored.
fn merge_string_data(object: &mut Value) {
    let Some(Value::Object(plain)) = value::remove(object, "stringData") else {
        return;
    };
    let encoded: Map<String, Value> = plain
        .into_iter()
        .map(|(key, text)| (key, STANDARD.encode(text.as_str().unwrap_or("")).into()))
        .collect();
    if let Some(Value::Object(data)) = value::object_mut(object, "data") {
        data.extend(encoded);
    }
}

fn validate_config_map(object: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let mut bytes = 0;
    for (key, val) in entries(object, &["data"]) {
        wrong.extend(bad_key("data", key));
        if at(object, &["binaryData"]).get(key).is_some() {
            wrong.push(FieldError::invalid_text(
                format!("data[{key}]"),
                key,
                "duplicate of key present in binaryData",
            ));
        }
        bytes += val.as_str().map_or(0, str::len);
    }
    for (key, val) in entries(object, &["binaryData"]) {
        wrong.extend(bad_key("binaryData", key));
        bytes += decoded_len(val);
    }
    if bytes > DATA_MAX {
        wrong.push(FieldError::too_long("[]", DATA_MAX));
    }
    wrong
}

fn validate_secret(object: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let mut bytes = 0;
    for (key, val) in entries(object, &["data"]) {
        wrong.extend(bad_key("data", key));
        bytes += decoded_len(val);
    }
    if bytes > DATA_MAX {
        wrong.push(FieldError::too_long("data", DATA_MAX));
    }
    let data = at(object, &["data"]);
    let mut need = |key: &str| {
        if data.get(key).is_none() {
            wrong.push(FieldError::required(format!("data[{key}]"), ""));
        }
    };
    match text(object, &["type"]) {
        "kubernetes.io/service-account-token" => {
            let account = "kubernetes.io/service-account.name";
            if text(object, &["metadata", "annotations", account]).is_empty() {
                wrong.push(FieldError::required(
                    format!("metadata.annotations[{account}]"),
                    "",
                ));
            }
        }
        "kubernetes.io/tls" => {
            need("tls.crt");
            need("tls.key");
        }
        "kubernetes.io/ssh-auth" => need("ssh-privatekey"),
        "kubernetes.io/basic-auth"
            if data.get("username").is_none() && data.get("password").is_none() =>
        {
            need("username");
            need("password");
        }
        "kubernetes.io/dockercfg" => wrong.extend(json_key(data, ".dockercfg")),
        "kubernetes.io/dockerconfigjson" => wrong.extend(json_key(data, ".dockerconfigjson")),
        _ => {}
    }
    wrong
}

fn json_key(data: &Value, key: &str) -> Option<FieldError> {
    let field = format!("data[{key}]");
    let Some(encoded) = data.get(key).and_then(Value::as_str) else {
        return Some(FieldError::required(field, ""));
    };
    let decoded = STANDARD.decode(encoded).ok()?;
    match serde_json::from_slice::<Map<String, Value>>(&decoded) {
        Ok(_) => None,
        Err(why) => Some(FieldError::new(
            field,
            Fault::Invalid("\"<secret contents redacted>\"".into()),
            if why.is_data() {
                format!(
                    "json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
                    json_kind(&decoded)
                )
            } else {
                crate::decode::json_fault(&decoded)
            },
        )),
    }
}

/// What Go calls the value that the bytes hold.
fn json_kind(bytes: &[u8]) -> &'static str {
    match bytes.trim_ascii_start().first() {
        Some(b'[') => "array",
        Some(b'"') => "string",
        Some(b't' | b'f') => "bool",
        _ => "number",
    }
}

fn bad_key(map: &str, key: &str) -> Vec<FieldError> {
    names::config_key(key)
        .into_iter()
        .map(|why| FieldError::invalid_text(format!("{map}[{key}]"), key, why))
        .collect()
}

fn decoded_len(base64: &Value) -> usize {
    let text = base64.as_str().unwrap_or("");
    text.len() / 4 * 3
        - text
            .bytes()
            .rev()
            .take_while(|b| *b == b'=')
            .count()
            .min(text.len() / 4 * 3)
}

/// What an object that was made immutable refuses.
fn immutable(new: &Value, old: &Value, keys: &[&str]) -> Vec<FieldError> {
    if !flag(old, &["immutable"]) {
        return Vec::new();
    }
    let mut wrong = Vec::new();
    if !flag(new, &["immutable"]) {
        wrong.push(FieldError::forbidden(
            "immutable",
            "field is immutable when `immutable` is set",
        ));
    }
    for key in keys {
        let (after, before) = (at(new, &[key]), at(old, &[key]));
        if after != before && !(value::is_empty(after) && value::is_empty(before)) {
            wrong.push(FieldError::forbidden(
                *key,
                "field is immutable when `immutable` is set",
            ));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn string_data_becomes_data() {
        let mut secret = json!({"stringData": {"user": "me"}, "data": {"old": "eA=="}});
        (SECRETS.default)(&mut secret);
        assert_eq!(
            secret,
            json!({"type": "Opaque", "data": {"old": "eA==", "user": "bWU="}})
        );
    }

    #[test]
    fn keys_and_kinds_of_secrets() {
        let faults = |secret: Value| -> Vec<String> {
            validate_secret(&secret)
                .iter()
                .map(ToString::to_string)
                .collect()
        };
        assert!(faults(json!({"type": "Opaque", "data": {"a": "eA=="}})).is_empty());
        assert_eq!(
            faults(json!({"type": "kubernetes.io/tls", "data": {}})),
            [
                "data[tls.crt]: Required value",
                "data[tls.key]: Required value"
            ]
        );
        assert_eq!(faults(json!({"data": {"a b": ""}})).len(), 1);
    }

    #[test]
    fn immutable_stays() {
        let old = json!({"immutable": true, "data": {"a": "1"}});
        let new = json!({"data": {"a": "2"}});
        let faults: Vec<String> = (CONFIG_MAPS.validate_update)(&new, &old)
            .iter()
            .map(|e| e.field.clone())
            .collect();
        assert_eq!(faults, ["immutable", "data"]);
    }
}
