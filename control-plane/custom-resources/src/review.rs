//! Everything that is wrong with a CustomResourceDefinition.

use api::field::FieldError;
use api::value::{at, entries, flag, list, text};
use api::webhook_client;
use serde_json::Value;

use crate::jsonpath;
use crate::schema::Schema;
use crate::structural::{self, Place};
use crate::{defaults, review_rules};

/// Everything wrong with a definition; with `old`, everything wrong with going there from it.
pub fn review(object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let spec = at(object, &["spec"]);
    if old.is_none() {
        let wanted = format!(
            "{}.{}",
            text(spec, &["names", "plural"]),
            text(spec, &["group"])
        );
        let name = api::meta::name(object);
        if name != wanted {
            let why = "must be spec.names.plural+\".\"+spec.group";
            wrong.push(FieldError::invalid_text("metadata.name", name, why));
        }
    }
    group_and_scope(spec, &mut wrong);
    versions(spec, old, &mut wrong);
    names(at(spec, &["names"]), "spec.names", true, &mut wrong);
    conversion(at(spec, &["conversion"]), &mut wrong);
    if flag(spec, &["preserveUnknownFields"]) {
        wrong.push(FieldError::invalid(
            "spec.preserveUnknownFields",
            &true.into(),
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead",
        ));
    }
    if let Some(old) = old {
        unchangeable(spec, old, &mut wrong);
        stored_versions(object, &mut wrong);
    }
    approval(object, old, &mut wrong);
    wrong
}

/// What is wrong with the names that were accepted, for writes of the status.
pub fn review_status(object: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    names(
        at(object, &["status", "acceptedNames"]),
        "status.acceptedNames",
        false,
        &mut wrong,
    );
    wrong
}

fn group_and_scope(spec: &Value, wrong: &mut Vec<FieldError>) {
    let group = text(spec, &["group"]);
    let faults = api::names::subdomain(group);
    if group.is_empty() {
        wrong.push(FieldError::required("spec.group", ""));
    } else if !faults.is_empty() {
        wrong.push(FieldError::invalid_text(
            "spec.group",
            group,
            faults.join(","),
        ));
    } else if !group.contains('.') {
        wrong.push(FieldError::invalid_text(
            "spec.group",
            group,
            "should be a domain with at least one dot",
        ));
    }
    one_of(
        "spec.scope",
        text(spec, &["scope"]),
        &["Cluster", "Namespaced"],
        wrong,
    );
}

fn one_of(field: &str, value: &str, known: &[&str], wrong: &mut Vec<FieldError>) {
    if value.is_empty() {
        wrong.push(FieldError::required(field, ""));
    } else if !known.contains(&value) {
        wrong.push(FieldError::not_supported(field, value, known));
    }
}

/// What all versions say alike is spoken of once, at the top of the spec.
fn shared(versions: &[Value], key: &str) -> bool {
    versions
        .first()
        .and_then(|first| first.get(key))
        .is_some_and(|first| {
            versions
                .iter()
                .all(|version| version.get(key) == Some(first))
        })
}

fn versions(spec: &Value, old: Option<&Value>, wrong: &mut Vec<FieldError>) {
    let versions = list(spec, &["versions"]);
    let mut seen: Vec<&str> = Vec::new();
    let mut unique = true;
    let hoisted = |key: &str| shared(versions, key);
    for (index, version) in versions.iter().enumerate() {
        let here = format!("spec.versions[{index}]");
        let name = text(version, &["name"]);
        unique &= !seen.contains(&name);
        seen.push(name);
        if !at(version, &["schema", "openAPIV3Schema"]).is_object() {
            let field = format!("{here}.schema.openAPIV3Schema");
            wrong.push(FieldError::required(field, "schemas are required"));
        }
        let faults = label(name);
        if !faults.is_empty() {
            wrong.push(FieldError::invalid_text(
                format!("{here}.name"),
                name,
                faults.join(","),
            ));
        }
        deprecation(version, &here, wrong);
        let place = |key: &str, top: &str| match hoisted(key) {
            true if index > 0 => None,
            true => Some(format!("spec.{top}")),
            false => Some(format!("{here}.{key}")),
        };
        if let Some(place) = place("schema", "validation") {
            schema(version, &place, old, name, wrong);
        }
        if let Some(place) = place("subresources", "subresources") {
            subresources(at(version, &["subresources"]), &place, wrong);
        }
        if let Some(place) = place("additionalPrinterColumns", "additionalPrinterColumns") {
            for (i, column) in list(version, &["additionalPrinterColumns"])
                .iter()
                .enumerate()
            {
                printed(column, &format!("{place}[{i}]"), wrong);
            }
        }
        if let Some(place) = place("selectableFields", "selectableFields") {
            selectable(version, &place, wrong);
        }
    }
    let whole = || at(spec, &["versions"]).clone();
    if !unique {
        wrong.push(FieldError::invalid(
            "spec.versions",
            &whole(),
            "must contain unique version names",
        ));
    }
    if versions
        .iter()
        .filter(|version| flag(version, &["storage"]))
        .count()
        != 1
    {
        let why = "must have exactly one version marked as storage version";
        wrong.push(FieldError::invalid("spec.versions", &whole(), why));
    }
}

fn deprecation(version: &Value, here: &str, wrong: &mut Vec<FieldError>) {
    let Some(words) = at(version, &["deprecationWarning"]).as_str() else {
        return;
    };
    let mut refuse = |why: String| {
        wrong.push(FieldError::invalid_text(
            format!("{here}.deprecationWarning"),
            words,
            why,
        ));
    };
    if !flag(version, &["deprecated"]) {
        refuse("can only be set for deprecated versions".into());
        return;
    }
    if words.len() > 256 {
        refuse("must be <= 256 characters long".into());
    }
    if words.is_empty() {
        refuse("must not be an empty string".into());
    }
    if let Some((at, _)) = words.char_indices().find(|(_, c)| c.is_control()) {
        refuse(format!(
            "must only contain printable UTF-8 characters; non-printable character found at index {at}"
        ));
    }
}

fn schema(
    version: &Value,
    place: &str,
    old: Option<&Value>,
    name: &str,
    wrong: &mut Vec<FieldError>,
) {
    let body = at(version, &["schema", "openAPIV3Schema"]);
    if !body.is_object() {
        return;
    }
    let root = format!("{place}.openAPIV3Schema");
    let before = old.and_then(|old| {
        list(old, &["spec", "versions"])
            .iter()
            .find(|version| text(version, &["name"]) == name)
    });
    if before.is_some_and(|before| before["schema"] == version["schema"]) {
        // What was accepted once is not held against the definition again.
        return;
    }
    if version["subresources"]
        .get("status")
        .is_some_and(Value::is_object)
    {
        status_root(body, &root, wrong);
    }
    let place = Place::Root(&root);
    let found = structural::check(body, place);
    let sound = found.is_empty();
    wrong.extend(found);
    let found = defaults::check(body, place);
    let sound = sound && found.is_empty();
    wrong.extend(found);
    if sound {
        wrong.extend(review_rules::check(body, place));
    }
}

/// With a status of its own, the root may only say some things.
fn status_root(body: &Value, root: &str, wrong: &mut Vec<FieldError>) {
    const ALLOWED: [&str; 22] = [
        "description",
        "type",
        "format",
        "title",
        "maximum",
        "exclusiveMaximum",
        "minimum",
        "exclusiveMinimum",
        "maxLength",
        "minLength",
        "pattern",
        "maxItems",
        "minItems",
        "uniqueItems",
        "multipleOf",
        "required",
        "items",
        "properties",
        "externalDocs",
        "example",
        "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-validations",
    ];
    let other = entries(body, &[])
        .any(|(key, value)| !ALLOWED.contains(&key.as_str()) && !api::value::is_empty(value));
    if other {
        wrong.push(FieldError::invalid(
            root,
            body,
            "only [description type format title maximum exclusiveMaximum minimum exclusiveMinimum maxLength minLength \
             pattern maxItems minItems uniqueItems multipleOf required items properties externalDocs example \
             x-kubernetes-preserve-unknown-fields x-kubernetes-validations] fields are allowed at the root of the \
             schema if the status subresource is enabled",
        ));
    }
}

fn subresources(body: &Value, place: &str, wrong: &mut Vec<FieldError>) {
    let scale = at(body, &["scale"]);
    if !scale.is_object() {
        return;
    }
    let mut path = |key: &str, below: &[&str], why: &str, required: bool| {
        let field = format!("{place}.scale.{key}");
        let value = text(scale, &[key]);
        if value.is_empty() {
            if required {
                wrong.push(FieldError::required(field, ""));
            }
        } else if !value.starts_with('.') {
            wrong.push(FieldError::invalid_text(
                field,
                value,
                "must be a simple json path starting with .",
            ));
        } else if !below.iter().any(|prefix| value.starts_with(prefix)) {
            wrong.push(FieldError::invalid_text(field, value, why));
        }
    };
    path(
        "specReplicasPath",
        &[".spec."],
        "should be a json path under .spec",
        true,
    );
    path(
        "statusReplicasPath",
        &[".status."],
        "should be a json path under .status",
        true,
    );
    let why = "should be a json path under either .spec or .status";
    path("labelSelectorPath", &[".spec.", ".status."], why, false);
}

fn printed(column: &Value, place: &str, wrong: &mut Vec<FieldError>) {
    if text(column, &["name"]).is_empty() {
        wrong.push(FieldError::required(format!("{place}.name"), ""));
    }
    let kinds = ["boolean", "date", "integer", "number", "string"];
    let kind = text(column, &["type"]);
    let why = "must be one of boolean,date,integer,number,string";
    if kind.is_empty() {
        wrong.push(FieldError::required(format!("{place}.type"), why));
    } else if !kinds.contains(&kind) {
        wrong.push(FieldError::invalid_text(format!("{place}.type"), kind, why));
    }
    let formats = [
        "byte",
        "date",
        "date-time",
        "double",
        "float",
        "int32",
        "int64",
        "password",
    ];
    let format = text(column, &["format"]);
    if !format.is_empty() && !formats.contains(&format) {
        let why = format!("must be one of {}", formats.join(","));
        wrong.push(FieldError::invalid_text(
            format!("{place}.format"),
            format,
            why,
        ));
    }
    let path = text(column, &["jsonPath"]);
    let field = format!("{place}.JSONPath");
    if path.is_empty() {
        wrong.push(FieldError::required(field, ""));
    } else if !path.starts_with('.') {
        wrong.push(FieldError::invalid_text(
            field,
            path,
            "must be a simple json path starting with .",
        ));
    } else if let Err(why) = jsonpath::JsonPath::parse(path) {
        wrong.push(FieldError::invalid_text(field, path, why));
    }
}

fn selectable(version: &Value, place: &str, wrong: &mut Vec<FieldError>) {
    let fields = list(version, &["selectableFields"]);
    if fields.len() > 8 {
        wrong.push(FieldError::too_many(place, fields.len(), 8));
    }
    let root = Schema::parse(at(version, &["schema", "openAPIV3Schema"]));
    let mut seen: Vec<&str> = Vec::new();
    for (index, field) in fields.iter().enumerate() {
        let path = text(field, &["jsonPath"]);
        let place = format!("{place}[{index}].jsonPath");
        if path.is_empty() {
            wrong.push(FieldError::required(place, ""));
            continue;
        }
        let mut here = Some(&root);
        let parts: Vec<&str> = path.split('.').skip(1).collect();
        for part in &parts {
            here = here.and_then(|schema| schema.property(part));
        }
        let Some(target) = here.filter(|_| path.starts_with('.') && !path.contains('[')) else {
            let why = if path.contains('[') {
                "is an invalid path: array notation is not allowed"
            } else if path.starts_with('.') {
                "is an invalid path: does not refer to a valid field"
            } else {
                "is an invalid path: expected [ or . but got: "
            };
            let got = if path.starts_with('.') || path.contains('[') {
                ""
            } else {
                path
            };
            wrong.push(FieldError::invalid_text(place, path, format!("{why}{got}")));
            continue;
        };
        if parts.first() == Some(&"metadata") {
            wrong.push(FieldError::invalid_text(
                &place,
                path,
                "must not point to fields in metadata",
            ));
        }
        use crate::schema::Type;
        if !matches!(
            target.kind,
            Some(Type::String | Type::Boolean | Type::Integer)
        ) {
            wrong.push(FieldError::invalid_text(
                &place,
                path,
                "must point to a field of type string, boolean or integer. Enum string fields and strings with formats \
                 are allowed.",
            ));
        }
        if seen.contains(&path) {
            wrong.push(FieldError::duplicate(place, api::field::quoted(path)));
        }
        seen.push(path);
    }
}

/// RFC 1035: as RFC 1123, but begins with a letter.
fn label(name: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if name.len() > 63 {
        wrong.push("must be no more than 63 characters".to_owned());
    }
    let inner = name
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !inner || !name.starts_with(|c: char| c.is_ascii_lowercase()) || name.ends_with('-') {
        wrong.push(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
             character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for \
             validation is '[a-z]([-a-z0-9]*[a-z0-9])?')"
                .to_owned(),
        );
    }
    wrong
}

fn names(names: &Value, place: &str, required: bool, wrong: &mut Vec<FieldError>) {
    for key in ["plural", "singular", "kind", "listKind"] {
        let name = text(names, &[key]);
        let field = format!("{place}.{key}");
        if name.is_empty() {
            if required {
                wrong.push(FieldError::required(field, ""));
            }
            continue;
        }
        let mixed = matches!(key, "kind" | "listKind");
        let faults = if mixed {
            label(&name.to_lowercase())
        } else {
            label(name)
        };
        if !faults.is_empty() {
            let prefix = if mixed {
                "may have mixed case, but should otherwise match: "
            } else {
                ""
            };
            wrong.push(FieldError::invalid_text(
                field,
                name,
                format!("{prefix}{}", faults.join(",")),
            ));
        }
    }
    for key in ["shortNames", "categories"] {
        for (index, name) in list(names, &[key]).iter().enumerate() {
            let name = name.as_str().unwrap_or_default();
            let faults = label(name);
            if !faults.is_empty() {
                wrong.push(FieldError::invalid_text(
                    format!("{place}.{key}[{index}]"),
                    name,
                    faults.join(","),
                ));
            }
        }
    }
    let (kind, list_kind) = (text(names, &["kind"]), text(names, &["listKind"]));
    if !kind.is_empty() && kind == list_kind {
        let why = "kind and listKind may not be the same";
        wrong.push(FieldError::invalid_text(
            format!("{place}.listKind"),
            list_kind,
            why,
        ));
    }
}

fn conversion(conversion: &Value, wrong: &mut Vec<FieldError>) {
    if conversion.is_null() {
        return;
    }
    let strategy = text(conversion, &["strategy"]);
    one_of(
        "spec.conversion.strategy",
        strategy,
        &["None", "Webhook"],
        wrong,
    );
    let webhook = at(conversion, &["webhook"]);
    let client = at(webhook, &["clientConfig"]);
    let versions = list(webhook, &["conversionReviewVersions"]);
    if strategy != "Webhook" {
        if !client.is_null() {
            let why = "should not be set when strategy is not set to Webhook";
            wrong.push(FieldError::forbidden(
                "spec.conversion.webhookClientConfig",
                why,
            ));
        }
        if !versions.is_empty() {
            let why = "should not be set when strategy is not set to Webhook";
            wrong.push(FieldError::forbidden(
                "spec.conversion.conversionReviewVersions",
                why,
            ));
        }
        return;
    }
    let field = "spec.conversion.webhookClientConfig";
    if client.is_null() {
        wrong.push(FieldError::required(
            field,
            "required when strategy is set to Webhook",
        ));
    } else {
        wrong.extend(webhook_client::check(field, client));
    }
    if versions.is_empty() {
        wrong.push(FieldError::required(
            "spec.conversion.conversionReviewVersions",
            "",
        ));
    } else if !versions.iter().any(|v| v == "v1" || v == "v1beta1") {
        wrong.push(FieldError::invalid(
            "spec.conversion.conversionReviewVersions",
            &Value::Array(versions.to_vec()),
            "must include at least one of v1, v1beta1",
        ));
    }
}

fn unchangeable(spec: &Value, old: &Value, wrong: &mut Vec<FieldError>) {
    let before = at(old, &["spec"]);
    let established = crate::conditions::is_true(old, "Established");
    let fields: [(&[&str], bool); 4] = [
        (&["scope"], established),
        (&["names", "kind"], established),
        (&["group"], true),
        (&["names", "plural"], true),
    ];
    for (path, fixed) in fields {
        if fixed && at(spec, path) != at(before, path) {
            let field = format!("spec.{}", path.join("."));
            wrong.push(FieldError::invalid(
                field,
                at(spec, path),
                "field is immutable",
            ));
        }
    }
}

fn stored_versions(object: &Value, wrong: &mut Vec<FieldError>) {
    let field = "status.storedVersions";
    let stored = list(object, &["status", "storedVersions"]);
    let whole = Value::Array(stored.to_vec());
    if stored.is_empty() {
        wrong.push(FieldError::invalid(
            field,
            &whole,
            "must have at least one stored version",
        ));
        return;
    }
    let versions = list(object, &["spec", "versions"]);
    for version in versions
        .iter()
        .filter(|version| flag(version, &["storage"]))
    {
        if !stored.contains(&version["name"]) {
            let why = format!("must have the storage version {}", text(version, &["name"]));
            wrong.push(FieldError::invalid(field, &whole, why));
        }
    }
    for (index, name) in stored.iter().enumerate() {
        if !versions.iter().any(|version| version["name"] == *name) {
            let v = name.as_str().unwrap_or_default();
            let why = format!(
                "missing from spec.versions; {v} was previously a storage version, and must remain in spec.versions \
                 until a storage migration ensures no data remains persisted in {v} and removes {v} from \
                 status.storedVersions"
            );
            wrong.push(FieldError::invalid(format!("{field}[{index}]"), name, why));
        }
    }
}

/// Groups below `k8s.io` and `kubernetes.io` are for what the Kubernetes project reviewed (KEP 1111).
fn approval(object: &Value, old: Option<&Value>, wrong: &mut Vec<FieldError>) {
    const KEY: &str = "api-approved.kubernetes.io";
    let group = text(object, &["spec", "group"]);
    let protected = ["k8s.io", "kubernetes.io"]
        .iter()
        .any(|domain| group == *domain || group.ends_with(&format!(".{domain}")));
    if !protected {
        return;
    }
    let value = |object: &Value| object["metadata"]["annotations"].get(KEY).cloned();
    let said = value(object);
    if old.is_some_and(|old| value(old) == said) {
        return;
    }
    let field = format!("metadata.annotations[{KEY}]");
    let said = said.as_ref().and_then(Value::as_str).unwrap_or_default();
    if said.is_empty() {
        let why = format!(
            "protected groups must have approval annotation \"{KEY}\", see \
             https://github.com/kubernetes/enhancements/pull/1111"
        );
        wrong.push(FieldError::required(field, why));
    } else if !said.starts_with("unapproved") && !cel::url::is_absolute(said) {
        let why = format!(
            "protected groups must have approval annotation \"{KEY}\" with either a URL or a reason starting with \
             \"unapproved\", see https://github.com/kubernetes/enhancements/pull/1111"
        );
        wrong.push(FieldError::invalid_text(field, said, why));
    }
}
