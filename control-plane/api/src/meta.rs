//! Metadata, which all objects have in common: names, generated names, owners, finalizers, labels, annotations.

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::field::{Fault, FieldError};
use crate::names;
use crate::table::Resource;
use crate::value::{self, at, entries, list, text};

/// What only the outside can know, given to each write.
#[derive(Clone, Debug)]
pub struct Stamps {
    /// The server's now; stored to the second.
    pub now: OffsetDateTime,
    /// For a new object; RFC 4122, lower case.
    pub uid: String,
    /// Five or so characters of a-z0-9 for a generated name.
    pub suffix: String,
}

/// The most bytes that a generated name takes from its prefix.
const GENERATE_BASE_MAX: usize = 58;
/// The most bytes that all annotations may take together.
const ANNOTATIONS_MAX: usize = 256 * 1024;

/// A time as objects carry it: RFC 3339, UTC, to the second.
pub fn timestamp(time: OffsetDateTime) -> String {
    let whole = time
        .to_offset(time::UtcOffset::UTC)
        .replace_nanosecond(0)
        .unwrap_or(time);
    // RFC 3339 has no years beyond 9999; a clock that shows one stands at the epoch for us.
    whole
        .format(&Rfc3339)
        .unwrap_or_else(|_| "1970-01-01T00:00:00Z".into())
}

/// `metadata.name`.
pub fn name(object: &Value) -> &str {
    text(object, &["metadata", "name"])
}

/// `metadata.namespace`; empty for cluster-wide objects.
pub fn namespace(object: &Value) -> &str {
    text(object, &["metadata", "namespace"])
}

/// `metadata.uid`.
pub fn uid(object: &Value) -> &str {
    text(object, &["metadata", "uid"])
}

/// `metadata.resourceVersion`; empty on objects that were never stored.
pub fn resource_version(object: &Value) -> &str {
    text(object, &["metadata", "resourceVersion"])
}

/// Whether somebody deleted the object and it only waits for its finalizers or its grace period.
pub fn is_terminating(object: &Value) -> bool {
    !text(object, &["metadata", "deletionTimestamp"]).is_empty()
}

/// `metadata.finalizers`.
pub fn finalizers(object: &Value) -> &[Value] {
    list(object, &["metadata", "finalizers"])
}

/// A name from `generateName`: the prefix, cut so that the whole fits into a label, and the suffix.
pub fn generated_name(prefix: &str, suffix: &str) -> String {
    let mut end = prefix.len().min(GENERATE_BASE_MAX);
    while !prefix.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{suffix}", &prefix[..end])
}

/// Everything wrong with the metadata of a new object.
pub fn validate(resource: &Resource, object: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let generate = text(object, &["metadata", "generateName"]);
    if !generate.is_empty() {
        for why in names::object_name(resource.name_rule, generate, true) {
            wrong.push(FieldError::invalid_text(
                "metadata.generateName",
                generate,
                why,
            ));
        }
    }
    let name = name(object);
    if name.is_empty() {
        wrong.push(FieldError::required(
            "metadata.name",
            "name or generateName is required",
        ));
    } else {
        for why in names::object_name(resource.name_rule, name, false) {
            wrong.push(FieldError::invalid_text("metadata.name", name, why));
        }
    }
    let namespace = namespace(object);
    if resource.namespaced {
        if namespace.is_empty() {
            wrong.push(FieldError::required("metadata.namespace", ""));
        } else {
            for why in names::label(namespace) {
                wrong.push(FieldError::invalid_text(
                    "metadata.namespace",
                    namespace,
                    why,
                ));
            }
        }
    } else if !namespace.is_empty() {
        wrong.push(FieldError::forbidden(
            "metadata.namespace",
            "not allowed on this type",
        ));
    }
    if value::number(object, &["metadata", "generation"]) < 0 {
        wrong.push(FieldError::invalid(
            "metadata.generation",
            at(object, &["metadata", "generation"]),
            "must be greater than or equal to 0",
        ));
    }
    wrong.extend(labels(
        at(object, &["metadata", "labels"]),
        "metadata.labels",
    ));
    wrong.extend(annotations(
        at(object, &["metadata", "annotations"]),
        "metadata.annotations",
    ));
    wrong.extend(owners(object));
    wrong.extend(validate_finalizers(object));
    wrong
}

/// Everything wrong with going from the metadata of `old` to that of `new`.
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let [before, after] = [old, new].map(|object| at(object, &["metadata"]));
    if is_terminating(old) {
        let added: Vec<String> = finalizers(new)
            .iter()
            .filter(|f| !finalizers(old).contains(f))
            .filter_map(Value::as_str)
            .map(crate::field::quoted)
            .collect();
        if !added.is_empty() {
            wrong.push(FieldError::forbidden(
                "metadata.finalizers",
                format!(
                    "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                    added.join(", ")
                ),
            ));
        }
    }
    if value::number(after, &["generation"]) < value::number(before, &["generation"]) {
        wrong.push(FieldError::invalid(
            "metadata.generation",
            at(after, &["generation"]),
            "must not be decremented",
        ));
    }
    for key in [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        let (before, after) = (at(before, &[key]), at(after, &[key]));
        if before != after && !(value::is_empty(before) && value::is_empty(after)) {
            wrong.push(FieldError::invalid(
                format!("metadata.{key}"),
                after,
                "field is immutable",
            ));
        }
    }
    wrong.extend(labels(at(after, &["labels"]), "metadata.labels"));
    wrong.extend(annotations(
        at(after, &["annotations"]),
        "metadata.annotations",
    ));
    wrong.extend(owners(new));
    wrong.extend(validate_finalizers(new));
    wrong
}

/// Everything wrong with a set of labels that stands at `field`.
pub fn labels(labels: &Value, field: &str) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    for (key, val) in entries(labels, &[]) {
        wrong.extend(label_key(key, field));
        let val = val.as_str().unwrap_or("");
        wrong.extend(
            names::label_value(val)
                .into_iter()
                .map(|why| FieldError::invalid_text(field, val, why)),
        );
    }
    wrong
}

/// Everything wrong with the key of a label.
pub fn label_key(key: &str, field: &str) -> Vec<FieldError> {
    names::qualified_name(key)
        .into_iter()
        .map(|why| FieldError::invalid_text(field, key, why))
        .collect()
}

/// Everything wrong with a set of annotations that stands at `field`.
pub fn annotations(annotations: &Value, field: &str) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let mut bytes = 0;
    for (key, val) in entries(annotations, &[]) {
        // Keys of annotations may be written with capital letters.
        for why in names::qualified_name(&key.to_lowercase()) {
            wrong.push(FieldError::invalid_text(field, key, why));
        }
        bytes += key.len() + val.as_str().map_or(0, str::len);
    }
    if bytes > ANNOTATIONS_MAX {
        wrong.push(FieldError::too_long(field, ANNOTATIONS_MAX));
    }
    wrong
}

fn owners(object: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let mut controllers: Vec<&str> = Vec::new();
    for (i, owner) in list(object, &["metadata", "ownerReferences"])
        .iter()
        .enumerate()
    {
        let path = format!("metadata.ownerReferences[{i}]");
        let version = text(owner, &["apiVersion"]);
        let (group, version) = version.rsplit_once('/').unwrap_or(("", version));
        if version.is_empty() {
            let shown = at(owner, &["apiVersion"]).clone();
            wrong.push(FieldError::invalid(
                format!("{path}.apiVersion"),
                &shown,
                "version must not be empty",
            ));
        }
        for (key, name) in [("kind", "kind"), ("name", "name"), ("uid", "uid")] {
            if text(owner, &[key]).is_empty() {
                wrong.push(FieldError::invalid_text(
                    format!("{path}.{key}"),
                    "",
                    format!("{name} must not be empty"),
                ));
            }
        }
        if group.is_empty() && version == "v1" && text(owner, &["kind"]) == "Event" {
            wrong.push(FieldError::invalid_text(
                path.clone(),
                "/v1, Kind=Event",
                "/v1, Kind=Event is disallowed from being an owner",
            ));
        }
        if value::flag(owner, &["controller"]) {
            controllers.push(text(owner, &["name"]));
        }
    }
    if let [first, second, ..] = controllers.as_slice() {
        wrong.push(FieldError::new(
            "metadata.ownerReferences",
            Fault::Invalid(at(object, &["metadata", "ownerReferences"]).to_string()),
            format!(
                "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {second}"
            ),
        ));
    }
    wrong
}

fn validate_finalizers(object: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let (mut orphan, mut foreground) = (false, false);
    for finalizer in finalizers(object) {
        let name = finalizer.as_str().unwrap_or("");
        for why in names::qualified_name(name) {
            wrong.push(FieldError::invalid_text("metadata.finalizers", name, why));
        }
        let standard = matches!(name, "orphan" | "foregroundDeletion" | "kubernetes");
        if !standard && !name.contains('/') && names::qualified_name(name).is_empty() {
            wrong.push(FieldError::invalid_text(
                "metadata.finalizers",
                name,
                "name is neither a standard finalizer name nor is it fully qualified",
            ));
        }
        orphan |= name == "orphan";
        foreground |= name == "foregroundDeletion";
    }
    if orphan && foreground {
        wrong.push(FieldError::invalid(
            "metadata.finalizers",
            at(object, &["metadata", "finalizers"]),
            "finalizer orphan and foregroundDeletion cannot be both set",
        ));
    }
    wrong
}
