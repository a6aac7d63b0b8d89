//! Event, in the core group and in `events.k8s.io`: one storage, two wordings.

use serde_json::Value;
use time::OffsetDateTime;

use crate::duration::age;
use crate::field::FieldError;
use crate::meta;
use crate::names;
use crate::table::{BASE, Column, Conversion, Field, NAME, Resource, column, wide};
use crate::value::{self, at, number, text};

/// Events of the core group; the stored form.
pub(crate) static CORE_EVENTS: Resource = Resource {
    kind: "Event",
    list_kind: "EventList",
    plural: "events",
    singular: "event",
    short_names: &["ev"],
    storage_prefix: "/registry/events",
    definition: "io.k8s.api.core.v1.Event",
    create_on_update: true,
    columns: COLUMNS,
    cells,
    fields: CORE_FIELDS,
    default: |object| zero_values(object, |core, _| core),
    validate: validate_core,
    validate_update: |new, _| validate_core(new),
    ..BASE
};

/// Events of the newer group.
pub(crate) static EVENTS: Resource = Resource {
    group: "events.k8s.io",
    kind: "Event",
    list_kind: "EventList",
    plural: "events",
    singular: "event",
    short_names: &["ev"],
    storage_prefix: "/registry/events",
    definition: "io.k8s.api.events.v1.Event",
    create_on_update: true,
    columns: COLUMNS,
    cells: |object, now| {
        let mut stored = object.clone();
        to_core(&mut stored);
        cells(&stored, now)
    },
    fields: NEW_FIELDS,
    default: |object| zero_values(object, |_, new| new),
    validate: validate_new,
    validate_update: |new, old| {
        let mut wrong = validate_new(new);
        for key in [
            "regarding",
            "related",
            "note",
            "reason",
            "action",
            "type",
            "reportingController",
            "reportingInstance",
            "eventTime",
        ] {
            let (before, after) = (at(old, &[key]), at(new, &[key]));
            if before != after && !(value::is_empty(before) && value::is_empty(after)) {
                wrong.push(FieldError::invalid(
                    stored_name(key),
                    after,
                    "field is immutable",
                ));
            }
        }
        wrong
    },
    conversion: Some(Conversion {
        to_stored: to_core,
        from_stored: from_core,
    }),
    ..BASE
};

const COLUMNS: &[Column] = &[
    column("Last Seen", "Time since it happened last."),
    column("Type", "Normal or Warning."),
    column("Reason", "Why, in one word."),
    column("Object", "What it is about."),
    wide("Subobject", "Which part of the object."),
    wide("Source", "Who reported it."),
    column("Message", "What happened."),
    wide("First Seen", "Time since it happened first."),
    wide("Count", "How often it happened."),
    Column {
        priority: 1,
        ..NAME
    },
];

/// The core group's word and the newer group's.
const RENAMED: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

macro_rules! text_fields {
    ($($label:literal => $path:expr),+ $(,)?) => {
        &[$(Field { label: $label, get: |object| text(object, $path).to_owned() }),+,
          Field { label: "source", get: |object| source(object).0 }]
    };
}

const CORE_FIELDS: &[Field] = text_fields! {
    "involvedObject.kind" => &["involvedObject", "kind"],
    "involvedObject.namespace" => &["involvedObject", "namespace"],
    "involvedObject.name" => &["involvedObject", "name"],
    "involvedObject.uid" => &["involvedObject", "uid"],
    "involvedObject.apiVersion" => &["involvedObject", "apiVersion"],
    "involvedObject.resourceVersion" => &["involvedObject", "resourceVersion"],
    "involvedObject.fieldPath" => &["involvedObject", "fieldPath"],
    "reason" => &["reason"],
    "reportingComponent" => &["reportingComponent"],
    "type" => &["type"],
};

const NEW_FIELDS: &[Field] = text_fields! {
    "regarding.kind" => &["regarding", "kind"],
    "regarding.namespace" => &["regarding", "namespace"],
    "regarding.name" => &["regarding", "name"],
    "regarding.uid" => &["regarding", "uid"],
    "regarding.apiVersion" => &["regarding", "apiVersion"],
    "regarding.resourceVersion" => &["regarding", "resourceVersion"],
    "regarding.fieldPath" => &["regarding", "fieldPath"],
    "reason" => &["reason"],
    "reportingController" => &["reportingController"],
    "type" => &["type"],
};

/// What is sent even where it holds nothing, by the name that `pick` takes of the core group's and the newer group's.
fn zero_values(object: &mut Value, pick: fn(&'static str, &'static str) -> &'static str) {
    let Some(map) = object.as_object_mut() else {
        return;
    };
    let empty = || Value::Object(serde_json::Map::new());
    for (core, new) in RENAMED {
        let zero = match *core {
            "involvedObject" | "source" => empty(),
            "firstTimestamp" | "lastTimestamp" => Value::Null,
            // The newer group leaves it out.
            "reportingComponent" if pick(core, new) == *core => "".into(),
            _ => continue,
        };
        map.entry(pick(core, new)).or_insert(zero);
    }
    map.entry("eventTime").or_insert(Value::Null);
    if pick("core", "new") == "core" {
        map.entry("reportingInstance").or_insert("".into());
    }
}

fn stored_name(key: &str) -> &str {
    RENAMED
        .iter()
        .find(|(_, new)| *new == key)
        .map_or(key, |(old, _)| old)
}

fn to_core(object: &mut Value) {
    for (core, new) in RENAMED {
        if let Some(moved) = value::remove(object, new) {
            value::set(object, core, moved);
        }
    }
    value::set(object, "apiVersion", "v1");
}

fn from_core(object: &mut Value) {
    for (core, new) in RENAMED {
        if let Some(moved) = value::remove(object, core) {
            value::set(object, new, moved);
        }
    }
    for key in ["reportingController", "reportingInstance"] {
        if text(object, &[key]).is_empty() {
            value::remove(object, key);
        }
    }
    value::set(object, "apiVersion", "events.k8s.io/v1");
}

/// Component and host.
fn source(object: &Value) -> (String, String) {
    let first = |paths: [&[&str]; 4]| {
        paths
            .into_iter()
            .map(|p| text(object, p))
            .find(|t| !t.is_empty())
            .unwrap_or("")
            .to_owned()
    };
    let component = first([
        &["source", "component"],
        &["deprecatedSource", "component"],
        &["reportingComponent"],
        &["reportingController"],
    ]);
    let host = first([
        &["source", "host"],
        &["deprecatedSource", "host"],
        &["reportingInstance"],
        &["reportingInstance"],
    ]);
    (component, host)
}

fn cells(object: &Value, now: OffsetDateTime) -> Vec<Value> {
    let since = |path: &[&str]| age(at(object, path), now);
    let first = match at(object, &["firstTimestamp"]) {
        Value::Null => since(&["eventTime"]),
        _ => since(&["firstTimestamp"]),
    };
    let mut last = match at(object, &["lastTimestamp"]) {
        Value::Null => first.clone(),
        _ => since(&["lastTimestamp"]),
    };
    let mut count = number(object, &["count"]).max(1);
    if at(object, &["series"]).is_object() {
        last = since(&["series", "lastObservedTime"]);
        count = number(object, &["series", "count"]);
    }
    let about = at(object, &["involvedObject"]);
    let kind = text(about, &["kind"]).to_lowercase();
    let target = match text(about, &["name"]) {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    let (component, host) = source(object);
    let source = if host.is_empty() {
        component
    } else {
        format!("{component}, {host}")
    };
    vec![
        last.into(),
        text(object, &["type"]).into(),
        text(object, &["reason"]).into(),
        target.into(),
        text(about, &["fieldPath"]).into(),
        source.into(),
        text(object, &["message"]).trim().into(),
        first.into(),
        count.into(),
        meta::name(object).into(),
    ]
}

/// An event about an object of a namespace lives there; about a cluster-wide one, in `default` or `kube-system`.
fn wrong_namespace(object: &Value, about: &str) -> Option<FieldError> {
    let (of_object, of_event) = (text(object, &[about, "namespace"]), meta::namespace(object));
    let fits = if of_object.is_empty() {
        matches!(of_event, "default" | "kube-system")
    } else {
        of_object == of_event
    };
    (!fits).then(|| {
        FieldError::invalid_text(
            "involvedObject.namespace",
            of_object,
            "does not match event.namespace",
        )
    })
}

fn validate_core(object: &Value) -> Vec<FieldError> {
    wrong_namespace(object, "involvedObject")
        .into_iter()
        .collect()
}

fn validate_new(object: &Value) -> Vec<FieldError> {
    let mut wrong: Vec<FieldError> = wrong_namespace(object, "regarding").into_iter().collect();
    // Events that were made by the core group carry no eventTime and are left alone.
    let legacy = at(object, &["eventTime"]).is_null()
        && !at(object, &["deprecatedFirstTimestamp"]).is_null();
    if legacy {
        return wrong;
    }
    if at(object, &["eventTime"]).is_null() {
        wrong.push(FieldError::required("eventTime", ""));
    }
    match text(object, &["type"]) {
        "Normal" | "Warning" => {}
        other => wrong.push(FieldError::invalid_text(
            "type",
            other,
            "has invalid value: \"\"".replace("\"\"", &crate::field::quoted(other)),
        )),
    }
    for (key, max) in [("reportingInstance", 128), ("action", 128), ("reason", 128)] {
        let given = text(object, &[key]);
        if given.is_empty() {
            wrong.push(FieldError::required(key, ""));
        } else if given.len() > max {
            wrong.push(FieldError::invalid_text(
                key,
                "",
                format!("can have at most {max} characters"),
            ));
        }
    }
    let controller = text(object, &["reportingController"]);
    if controller.is_empty() {
        wrong.push(FieldError::required("reportingController", ""));
    }
    for why in names::qualified_name(controller)
        .into_iter()
        .filter(|_| !controller.is_empty())
    {
        wrong.push(FieldError::invalid_text(
            "reportingController",
            controller,
            why,
        ));
    }
    if text(object, &["note"]).len() > 1024 {
        wrong.push(FieldError::invalid_text(
            "message",
            "",
            "can have at most 1024 characters",
        ));
    }
    wrong
}
