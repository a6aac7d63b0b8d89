//! Whether a schema is structural (KEP 1693): every field has one type, stated outside of value validations, and
//! nothing is used whose cost or meaning is unclear.

use std::fmt;

use api::field::FieldError;
use api::value::{at, entries, flag, list, text};
use serde_json::{Map, Value};

use crate::extensions;

/// The deepest nesting of a schema.
pub const DEPTH_MAX: usize = 100;

/// Where in a schema.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// For instance `spec.validation.openAPIV3Schema`.
    Root(&'a str),
    /// A keyword.
    Child(&'a Place<'a>, &'a str),
    /// A keyword whose value has names, and one of them.
    Key(&'a Place<'a>, &'a str, &'a str),
    /// A keyword whose value is a list, and one of its items.
    Index(&'a Place<'a>, &'a str, usize),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Root(path) => f.write_str(path),
            Place::Child(parent, word) => write!(f, "{parent}.{word}"),
            Place::Key(parent, word, key) => write!(f, "{parent}.{word}[{key}]"),
            Place::Index(parent, word, index) => write!(f, "{parent}.{word}[{index}]"),
        }
    }
}

impl Place<'_> {
    pub(crate) fn field(&self, word: &str) -> String {
        Place::Child(self, word).to_string()
    }
}

/// Where a schema stands in another, which decides what it may say.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// Everything that keeps the schema from being structural.
pub fn check(body: &Value, place: Place<'_>) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    node(body, place, Level::Root, 0, &mut wrong);
    completeness(body, body, place, 0, &mut wrong);
    wrong.sort_by_cached_key(ToString::to_string);
    wrong
}

fn node(body: &Value, place: Place<'_>, level: Level, depth: usize, wrong: &mut Vec<FieldError>) {
    if depth > DEPTH_MAX {
        wrong.push(FieldError::invalid_text(
            place.to_string(),
            "",
            "the schema is nested too deeply",
        ));
        return;
    }
    let kind = text(body, &["type"]);
    keywords(body, place, wrong);
    extensions::check(body, place, wrong);
    if kind == "array" && !body.get("items").is_some_and(Value::is_object) {
        wrong.push(FieldError::required(
            place.field("items"),
            "must be specified",
        ));
    }
    if let Some(items) = body.get("items").filter(|items| items.is_object()) {
        node(
            items,
            Place::Child(&place, "items"),
            Level::Item,
            depth + 1,
            wrong,
        );
    }
    for (name, property) in entries(body, &["properties"]) {
        node(
            property,
            Place::Key(&place, "properties", name),
            Level::Field,
            depth + 1,
            wrong,
        );
    }
    let additional = body.get("additionalProperties").filter(|a| !a.is_null());
    if let Some(additional) = additional {
        if level == Level::Root {
            wrong.push(FieldError::forbidden(
                place.field("additionalProperties"),
                "must not be used at the root",
            ));
        }
        if additional.is_object() {
            node(
                additional,
                Place::Child(&place, "additionalProperties"),
                Level::Field,
                depth + 1,
                wrong,
            );
        }
        let has_properties = entries(body, &["properties"]).next().is_some();
        if has_properties && *additional != Value::Bool(true) {
            wrong.push(FieldError::forbidden(
                place.field("additionalProperties"),
                "additionalProperties and properties are mutual exclusive",
            ));
        }
    }
    junctors(body, place, int_or_string_at(body), depth, wrong);
    types(body, place, level, wrong);
    if flag(body, &["x-kubernetes-embedded-resource"]) && additional.is_some() {
        wrong.push(FieldError::forbidden(
            place.field("additionalProperties"),
            "must not be used if x-kubernetes-embedded-resource is set",
        ));
    }
    metadata(body, place, level, wrong);
}

/// What has a type, and which.
fn types(body: &Value, place: Place<'_>, level: Level, wrong: &mut Vec<FieldError>) {
    let kind = text(body, &["type"]);
    let embedded = flag(body, &["x-kubernetes-embedded-resource"]);
    let free = flag(body, &["x-kubernetes-int-or-string"])
        || flag(body, &["x-kubernetes-preserve-unknown-fields"]);
    let field = || place.field("type");
    if embedded && kind != "object" {
        let why = "must be object if x-kubernetes-embedded-resource is true";
        wrong.push(if kind.is_empty() {
            FieldError::required(field(), why)
        } else {
            FieldError::invalid_text(field(), kind, why)
        });
    } else if kind.is_empty() && !free {
        let why = match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        };
        wrong.push(FieldError::required(field(), why));
    }
    if level == Level::Root && !kind.is_empty() && kind != "object" {
        wrong.push(FieldError::invalid_text(
            field(),
            kind,
            "must be object at the root",
        ));
    }
}

/// `apiVersion`, `kind` and `metadata` mean the same in every object.
fn metadata(body: &Value, place: Place<'_>, level: Level, wrong: &mut Vec<FieldError>) {
    let embedded = flag(body, &["x-kubernetes-embedded-resource"]);
    if level == Level::Root || embedded {
        for name in ["kind", "apiVersion"] {
            let kind = text(body, &["properties", name, "type"]);
            if body["properties"].get(name).is_some() && kind != "string" {
                let field = Place::Key(&place, "properties", name).field("type");
                wrong.push(FieldError::invalid_text(field, kind, "must be string"));
            }
        }
        if let Some(metadata) = body["properties"].get("metadata") {
            let here = Place::Key(&place, "properties", "metadata");
            let kind = text(metadata, &["type"]);
            if kind != "object" {
                wrong.push(FieldError::invalid_text(
                    here.field("type"),
                    kind,
                    "must be object",
                ));
            }
            let plain = metadata.as_object().is_some_and(|map| {
                map.keys()
                    .all(|key| matches!(key.as_str(), "type" | "description" | "properties"))
            });
            let known = entries(metadata, &["properties"])
                .all(|(key, _)| matches!(key.as_str(), "name" | "generateName"));
            if level == Level::Root && !(plain && known) {
                wrong.push(FieldError::forbidden(
                    here.to_string(),
                    "must not specify anything other than name and generateName, but metadata is implicitly specified",
                ));
            }
        }
    }
    let empty = entries(body, &["properties"]).next().is_none();
    if embedded && !flag(body, &["x-kubernetes-preserve-unknown-fields"]) && empty {
        wrong.push(FieldError::required(
            place.field("properties"),
            "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields",
        ));
    }
}

/// Where `anyOf: [{type: integer}, {type: string}]` stands, which int-or-string may say although types belong
/// elsewhere.
#[derive(Clone, Copy, PartialEq, Eq)]
enum IntOrString {
    Nowhere,
    AnyOf,
    FirstAllOf,
}

fn int_or_string_at(body: &Value) -> IntOrString {
    let both = |any: &Value| {
        let is = |i: usize, kind: &str| {
            any.get(i)
                .and_then(Value::as_object)
                .is_some_and(|map: &Map<_, _>| {
                    map.len() == 1 && map.get("type").and_then(Value::as_str) == Some(kind)
                })
        };
        any.as_array().is_some_and(|list| list.len() == 2) && is(0, "integer") && is(1, "string")
    };
    if !flag(body, &["x-kubernetes-int-or-string"]) {
        IntOrString::Nowhere
    } else if both(at(body, &["anyOf"])) {
        IntOrString::AnyOf
    } else if list(body, &["allOf"])
        .first()
        .is_some_and(|first| both(at(first, &["anyOf"])))
    {
        IntOrString::FirstAllOf
    } else {
        IntOrString::Nowhere
    }
}

fn junctors(
    body: &Value,
    place: Place<'_>,
    spared: IntOrString,
    depth: usize,
    wrong: &mut Vec<FieldError>,
) {
    for word in ["anyOf", "allOf", "oneOf"] {
        for (index, below) in list(body, &[word]).iter().enumerate() {
            if word == "anyOf" && spared == IntOrString::AnyOf {
                continue;
            }
            let below_spared = if word == "allOf" && index == 0 && spared == IntOrString::FirstAllOf
            {
                IntOrString::AnyOf
            } else {
                IntOrString::Nowhere
            };
            nested(
                below,
                Place::Index(&place, word, index),
                below_spared,
                depth + 1,
                wrong,
            );
        }
    }
    if let Some(not) = body.get("not").filter(|not| !not.is_null()) {
        nested(
            not,
            Place::Child(&place, "not"),
            IntOrString::Nowhere,
            depth + 1,
            wrong,
        );
    }
}

/// A schema under allOf, anyOf, oneOf or not: it only says what values are like.
fn nested(
    body: &Value,
    place: Place<'_>,
    spared: IntOrString,
    depth: usize,
    wrong: &mut Vec<FieldError>,
) {
    if depth > DEPTH_MAX {
        wrong.push(FieldError::invalid_text(
            place.to_string(),
            "",
            "the schema is nested too deeply",
        ));
        return;
    }
    keywords(body, place, wrong);
    junctors(body, place, spared, depth, wrong);
    if let Some(items) = body.get("items").filter(|items| items.is_object()) {
        nested(
            items,
            Place::Child(&place, "items"),
            IntOrString::Nowhere,
            depth + 1,
            wrong,
        );
    }
    for (name, property) in entries(body, &["properties"]) {
        nested(
            property,
            Place::Key(&place, "properties", name),
            IntOrString::Nowhere,
            depth + 1,
            wrong,
        );
    }
    const FORBIDDEN: [(&str, &str); 12] = [
        ("type", "must be empty to be structural"),
        ("additionalProperties", "must be undefined to be structural"),
        ("default", "must be undefined to be structural"),
        ("title", "must be empty to be structural"),
        ("description", "must be empty to be structural"),
        ("nullable", "must be false to be structural"),
        (
            "x-kubernetes-preserve-unknown-fields",
            "must be false to be structural",
        ),
        (
            "x-kubernetes-embedded-resource",
            "must be false to be structural",
        ),
        (
            "x-kubernetes-int-or-string",
            "must be false to be structural",
        ),
        (
            "x-kubernetes-list-map-keys",
            "must be empty to be structural",
        ),
        (
            "x-kubernetes-list-type",
            "must be undefined to be structural",
        ),
        (
            "x-kubernetes-map-type",
            "must be undefined to be structural",
        ),
    ];
    for (word, why) in FORBIDDEN {
        let said = body
            .get(word)
            .is_some_and(|value| !matches!(value, Value::Null | Value::Bool(false)) && value != "");
        if said {
            wrong.push(FieldError::forbidden(place.field(word), why));
        }
    }
    if !list(body, &["x-kubernetes-validations"]).is_empty() {
        wrong.push(FieldError::forbidden(
            place.field("x-kubernetes-validations"),
            "must be empty to be structural",
        ));
    }
    if body["properties"].get("metadata").is_some() {
        let field = Place::Key(&place, "properties", "metadata").to_string();
        wrong.push(FieldError::forbidden(
            field,
            "must not be specified in a nested context",
        ));
    }
}

/// Every field that a value validation names must be specified outside of it.
fn completeness(
    structure: &Value,
    body: &Value,
    place: Place<'_>,
    depth: usize,
    wrong: &mut Vec<FieldError>,
) {
    if depth > DEPTH_MAX {
        return;
    }
    combined_covered(structure, body, place, depth, wrong);
    if let Some(items) = body.get("items").filter(|items| items.is_object()) {
        completeness(
            items,
            items,
            Place::Child(&place, "items"),
            depth + 1,
            wrong,
        );
    }
    for (name, property) in entries(body, &["properties"]) {
        completeness(
            property,
            property,
            Place::Key(&place, "properties", name),
            depth + 1,
            wrong,
        );
    }
    if let Some(additional) = body.get("additionalProperties").filter(|a| a.is_object()) {
        completeness(
            additional,
            additional,
            Place::Child(&place, "additionalProperties"),
            depth + 1,
            wrong,
        );
    }
}

fn covered(
    structure: &Value,
    body: &Value,
    place: Place<'_>,
    depth: usize,
    wrong: &mut Vec<FieldError>,
) {
    if depth > DEPTH_MAX {
        return;
    }
    if let Some(items) = body.get("items").filter(|items| items.is_object()) {
        let here = Place::Child(&place, "items");
        match structure.get("items") {
            Some(below) => covered(below, items, here, depth + 1, wrong),
            None => wrong.push(absent(structure_place(place), "items", &here)),
        }
    }
    for (name, property) in entries(body, &["properties"]) {
        let here = Place::Key(&place, "properties", name);
        let below = structure["properties"].get(name).or_else(|| {
            structure
                .get("additionalProperties")
                .filter(|a| a.is_object())
        });
        match below {
            Some(below) => covered(below, property, here, depth + 1, wrong),
            None => wrong.push(absent(
                structure_place(place),
                &format!("properties[{name}]"),
                &here,
            )),
        }
    }
    combined_covered(structure, body, place, depth, wrong);
}

/// What `anyOf`, `allOf`, `oneOf` and `not` of a body name must be in the structure as well.
fn combined_covered(
    structure: &Value,
    body: &Value,
    place: Place<'_>,
    depth: usize,
    wrong: &mut Vec<FieldError>,
) {
    let mut below =
        |value: &Value, place: Place<'_>| covered(structure, value, place, depth + 1, wrong);
    for word in ["anyOf", "allOf", "oneOf"] {
        for (index, value) in list(body, &[word]).iter().enumerate() {
            below(value, Place::Index(&place, word, index));
        }
    }
    if let Some(not) = body.get("not").filter(|not| not.is_object()) {
        below(not, Place::Child(&place, "not"));
    }
}

fn absent(structure: String, what: &str, because: &Place<'_>) -> FieldError {
    FieldError::required(
        format!("{structure}.{what}"),
        format!("because it is defined in {because}"),
    )
}

/// The place of the structure that a value validation speaks of: the same path without junctors.
fn structure_place(place: Place<'_>) -> String {
    match place {
        Place::Root(path) => path.to_owned(),
        Place::Child(parent, "not") => structure_place(*parent),
        Place::Index(parent, "anyOf" | "allOf" | "oneOf", _) => structure_place(*parent),
        Place::Child(parent, word) => format!("{}.{word}", structure_place(*parent)),
        Place::Key(parent, word, key) => format!("{}.{word}[{key}]", structure_place(*parent)),
        Place::Index(parent, word, index) => {
            format!("{}.{word}[{index}]", structure_place(*parent))
        }
    }
}

/// Keywords of JSON schema that OpenAPI or Kubernetes leaves out, and values that they may not have.
fn keywords(body: &Value, place: Place<'_>, wrong: &mut Vec<FieldError>) {
    for word in [
        "id",
        "additionalItems",
        "patternProperties",
        "definitions",
        "dependencies",
        "$ref",
    ] {
        if body
            .get(word)
            .is_some_and(|value| !api::value::is_empty(value) || value == &Value::Bool(false))
        {
            wrong.push(FieldError::forbidden(
                place.field(word),
                format!("{word} is not supported"),
            ));
        }
    }
    let kind = text(body, &["type"]);
    if kind == "null" {
        wrong.push(FieldError::forbidden(
            place.field("type"),
            "type cannot be set to null, use nullable as an alternative",
        ));
    } else if !kind.is_empty() && crate::schema::Type::parse(kind).is_none() {
        let known = ["array", "boolean", "integer", "number", "object", "string"];
        wrong.push(FieldError::not_supported(place.field("type"), kind, &known));
    }
    if at(body, &["items"]).is_array() {
        wrong.push(FieldError::forbidden(
            place.field("items"),
            "items must be a schema object and not an array",
        ));
    }
    if flag(body, &["uniqueItems"]) {
        wrong.push(FieldError::forbidden(
            place.field("uniqueItems"),
            "uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
        ));
    }
    let pattern = text(body, &["pattern"]);
    if !pattern.is_empty()
        && let Err(why) = cel::pattern::Pattern::new(pattern)
    {
        wrong.push(FieldError::invalid_text(
            place.field("pattern"),
            pattern,
            format!("must be a valid regular expression, but isn't: {why}"),
        ));
    }
}
