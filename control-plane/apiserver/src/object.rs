//! Objects as bytes. What is stored is JSON that begins with kind, apiVersion and metadata and has no
//! resourceVersion: that is the revision of the entry, known only once it is written. Reads put it in by copying
//! bytes around it, without parsing.

use std::io::Write as _;
use std::sync::Arc;

use api::custom::Rules;
use api::table::Resource;
use bytes::Bytes;
use serde_json::Value;
use storage::{Entry, Revision};

use crate::json;

/// The revision of an object that was only tried: it has no resourceVersion.
pub(crate) const UNWRITTEN: Revision = Revision(0);

const KIND: &str = "{\"kind\":\"";
const API_VERSION: &str = "\",\"apiVersion\":\"";
const METADATA: &str = "\",\"metadata\":{";
const RESOURCE_VERSION: &str = "\"resourceVersion\":\"";

/// The stored form of an object. Its kind and apiVersion are those in the value. It stays in memory, and takes no more
/// of it than it has bytes.
pub(crate) fn encode(object: &Value) -> Bytes {
    let mut out = Vec::with_capacity(4096);
    let text = |out: &mut Vec<u8>, key: &str| {
        json::append(out, object.get(key).unwrap_or(&Value::from("")));
    };
    out.extend_from_slice(b"{\"kind\":");
    text(&mut out, "kind");
    out.extend_from_slice(b",\"apiVersion\":");
    text(&mut out, "apiVersion");
    out.extend_from_slice(b",\"metadata\":{");
    let mut first = true;
    let member = |out: &mut Vec<u8>, first: &mut bool, key: &str, value: &Value| {
        if !std::mem::take(first) {
            out.push(b',');
        }
        json::append_text(out, key);
        out.push(b':');
        json::append(out, value);
    };
    for (key, value) in api::value::entries(object, &["metadata"]) {
        if key != "resourceVersion" {
            member(&mut out, &mut first, key, value);
        }
    }
    out.push(b'}');
    first = false;
    for (key, value) in object.as_object().into_iter().flatten() {
        if !matches!(key.as_str(), "kind" | "apiVersion" | "metadata") {
            member(&mut out, &mut first, key, value);
        }
    }
    out.push(b'}');
    Bytes::copy_from_slice(&out)
}

/// The object as a value of the row's version, with its resourceVersion.
pub(crate) fn decode(row: &Resource, entry: &Entry) -> Value {
    decode_at(row, &entry.value, entry.modified)
}

/// As [`decode`], at a revision of its own: a deleted object carries that of the deletion.
pub(crate) fn decode_at(row: &Resource, bytes: &[u8], revision: Revision) -> Value {
    // It is: engines give what `encode` made, and tell of what is something else (`Error::Unreadable`).
    let mut object: Value = serde_json::from_slice(bytes).unwrap_or_default();
    if let Some(conversion) = &row.conversion {
        (conversion.from_stored)(&mut object);
    }
    if let Some(rules) = row.rules() {
        // Stored as another version perhaps, or before the schema was what it is.
        api::value::set(&mut object, "apiVersion", row.api_version());
        if !rules.sent_as_stored() {
            rules.prune(&mut object);
            rules.default(&mut object);
        }
    }
    set_resource_version(&mut object, revision);
    object
}

/// Puts the revision into `metadata.resourceVersion`, where there is one.
pub(crate) fn set_resource_version(object: &mut Value, revision: Revision) {
    if revision != UNWRITTEN
        && let Some(metadata) = api::value::object_mut(object, "metadata")
    {
        api::value::set(metadata, "resourceVersion", revision.0.to_string());
    }
}

/// Whether an object appears with its kind and apiVersion, or, as in the items of a list, without.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Head {
    Typed,
    Untyped,
}

/// Appends the object as JSON with its resourceVersion.
pub(crate) fn append(
    out: &mut Vec<u8>,
    row: &Resource,
    bytes: &[u8],
    revision: Revision,
    head: Head,
) {
    let Some(at) = metadata_start(row, bytes) else {
        let mut object = decode_at(row, bytes, revision);
        if head == Head::Untyped {
            api::value::remove(&mut object, "kind");
            api::value::remove(&mut object, "apiVersion");
        }
        json::append(out, &object);
        return;
    };
    match head {
        Head::Typed => out.extend_from_slice(&bytes[..at]),
        Head::Untyped => {
            out.push(b'{');
            out.extend_from_slice(&METADATA.as_bytes()[2..]);
        }
    }
    if revision != UNWRITTEN {
        out.extend_from_slice(RESOURCE_VERSION.as_bytes());
        // Writing to a Vec can't fail.
        let _ = write!(out, "{}", revision.0);
        out.push(b'"');
        if bytes.get(at) != Some(&b'}') {
            out.push(b',');
        }
    }
    out.extend_from_slice(&bytes[at..]);
}

/// How many bytes [`append`] appends without kind and apiVersion. `None`: the bytes have to be parsed to tell.
pub(crate) fn untyped_len(row: &Resource, bytes: &[u8], revision: Revision) -> Option<usize> {
    let at = metadata_start(row, bytes)?;
    let mut len = METADATA.len() - 1 + bytes.len() - at;
    if revision != UNWRITTEN {
        let digits = revision.0.checked_ilog10().unwrap_or(0) as usize + 1;
        let comma = usize::from(bytes.get(at) != Some(&b'}'));
        len += RESOURCE_VERSION.len() + digits + 1 + comma;
    }
    Some(len)
}

/// Where the members of metadata begin. `None`: the bytes have to be parsed.
fn metadata_start(row: &Resource, bytes: &[u8]) -> Option<usize> {
    let changes = |rules: Arc<dyn Rules>| !rules.sent_as_stored();
    if row.conversion.is_some() || row.rules().is_some_and(changes) {
        return None;
    }
    let group = if row.group.is_empty() {
        0
    } else {
        row.group.len() + 1
    };
    let at = KIND.len()
        + row.kind.len()
        + API_VERSION.len()
        + group
        + row.version.len()
        + METADATA.len();
    bytes
        .get(at - METADATA.len()..at)
        .is_some_and(|found| found == METADATA.as_bytes())
        .then_some(at)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row() -> &'static Resource {
        api::table::find("", "v1", "configmaps").unwrap()
    }

    #[test]
    fn the_revision_goes_in_without_parsing() {
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "data": {"metadata": "\"metadata\":{"},
            "metadata": {"name": "a", "resourceVersion": "999"}, "unknown": [1.5, null],
        });
        let stored = encode(&object);
        assert_eq!(
            stored,
            r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a"},"data":{"metadata":"\"metadata\":{"},"unknown":[1.5,null]}"#
        );
        assert!(metadata_start(row(), &stored).is_some());
        assert_eq!(Vec::from(encode(&object)).capacity(), stored.len());
        let mut typed = Vec::new();
        append(&mut typed, row(), &stored, Revision(7), Head::Typed);
        let mut expected = object;
        expected["metadata"]["resourceVersion"] = "7".into();
        assert_eq!(serde_json::from_slice::<Value>(&typed).unwrap(), expected);
        assert_eq!(decode_at(row(), &stored, Revision(7)), expected);

        let mut untyped = Vec::new();
        append(&mut untyped, row(), &stored, Revision(7), Head::Untyped);
        assert!(untyped.starts_with(br#"{"metadata":{"resourceVersion":"7","name":"a"},"#));
    }

    #[test]
    fn empty_metadata_and_foreign_layouts_still_read() {
        for stored in [
            r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{}}"#,
            r#"{ "metadata": {}, "kind": "ConfigMap", "apiVersion": "v1" }"#,
        ] {
            let mut out = Vec::new();
            append(&mut out, row(), stored.as_bytes(), Revision(3), Head::Typed);
            let read: Value = serde_json::from_slice(&out).unwrap();
            assert_eq!(read["metadata"]["resourceVersion"], "3", "{stored}");
        }
    }
}
