//! The shapes of objects: which fields there are, of which types, and how lists and maps are merged. Read from the
//! checked-in definitions once, into a form that is quick to walk.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{LazyLock, OnceLock};

use serde_json::{Map, Value};

use crate::table::Resource;
use crate::value::{at, text};

/// Structure of the API's objects in OpenAPI v3 form, after Kubernetes 1.36; see `schema/NOTICE.md`.
pub(crate) static DEFINITIONS: LazyLock<Map<String, Value>> =
    LazyLock::new(|| read(include_str!("../schema/definitions.json")));

static SCHEMAS: LazyLock<BTreeMap<&'static str, Schema>> = LazyLock::new(|| {
    DEFINITIONS
        .iter()
        .map(|(name, body)| (name.as_str(), Schema::compile(name, body)))
        .collect()
});

/// Our own data files are valid JSON objects, which a test asserts; anything else reads as empty.
pub(crate) fn read(json: &str) -> Map<String, Value> {
    serde_json::from_str(json).unwrap_or_default()
}

/// The schema of a definition, by its full name.
pub fn find(definition: &str) -> Option<&'static Schema> {
    SCHEMAS.get(definition)
}

/// The schema of a resource's objects.
pub fn of(resource: &Resource) -> Option<&'static Schema> {
    find(resource.definition)
}

/// One definition.
#[derive(Debug)]
pub struct Schema {
    /// The last part of its name, for instance `ServicePort`.
    pub name: &'static str,
    /// The part before it, for instance `v1`.
    pub version: &'static str,
    /// What its values look like.
    pub shape: Shape,
}

/// What values look like.
#[derive(Clone, Debug)]
pub enum Shape {
    /// An object with known fields.
    Struct(BTreeMap<&'static str, Field>),
    /// A reference to another definition.
    Ref(Reference),
    /// An object with any keys.
    Map(Box<Shape>),
    /// A list.
    List(Box<Shape>),
    /// Text. Of the format `byte`: base64.
    Text {
        /// Whether it is base64.
        bytes: bool,
    },
    /// A whole number of 32 or 64 bits.
    Integer {
        /// 32 or 64.
        bits: u8,
    },
    /// Any number.
    Number,
    /// True or false.
    Flag,
    /// A number or a text: ports.
    IntOrString,
    /// A quantity of a resource.
    Quantity,
    /// RFC 3339; `micro` with microseconds.
    Time {
        /// Whether fractions of a second are kept.
        micro: bool,
    },
    /// Any JSON object.
    Any,
}

/// The name of a definition, looked up once.
#[derive(Clone)]
pub struct Reference {
    name: &'static str,
    target: OnceLock<Option<&'static Schema>>,
}

impl Reference {
    /// Full name of the definition.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The definition.
    pub fn schema(&self) -> Option<&'static Schema> {
        *self.target.get_or_init(|| find(self.name))
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the target: definitions may refer to each other in circles.
        f.write_str(self.name)
    }
}

/// A field of an object.
#[derive(Clone, Debug)]
pub struct Field {
    /// What its values look like.
    pub shape: Shape,
    /// `x-kubernetes-patch-strategy` holds `merge`.
    pub merge: bool,
    /// `x-kubernetes-patch-merge-key`: the field of the items that tells them apart.
    pub merge_key: Option<&'static str>,
}

impl Schema {
    fn compile(name: &'static str, body: &'static Value) -> Self {
        let mut parts = name.rsplit('.');
        Schema {
            name: parts.next().unwrap_or(name),
            version: parts.next().unwrap_or(""),
            shape: Shape::compile(name, body),
        }
    }

    /// The field of that name, where the definition is of an object with known fields.
    pub fn field(&self, name: &str) -> Option<&Field> {
        match &self.shape {
            Shape::Struct(fields) => fields.get(name),
            _ => None,
        }
    }
}

impl Shape {
    fn compile(name: &str, body: &'static Value) -> Self {
        if let Some(target) = at(body, &["$ref"]).as_str() {
            let name = target.rsplit('/').next().unwrap_or(target);
            return Shape::Ref(Reference {
                name,
                target: OnceLock::new(),
            });
        }
        match name.rsplit('.').next() {
            Some("Quantity") => return Shape::Quantity,
            Some("IntOrString") => return Shape::IntOrString,
            Some("Time") => return Shape::Time { micro: false },
            Some("MicroTime") => return Shape::Time { micro: true },
            _ => {}
        }
        match (text(body, &["type"]), text(body, &["format"])) {
            ("object", _) => {
                if let Some(properties) = at(body, &["properties"]).as_object() {
                    let fields = properties
                        .iter()
                        .map(|(key, body)| (key.as_str(), Field::compile(body)))
                        .collect();
                    return Shape::Struct(fields);
                }
                match body.get("additionalProperties") {
                    Some(items) => Shape::Map(Box::new(Shape::compile("", items))),
                    None => Shape::Any,
                }
            }
            ("array", _) => Shape::List(Box::new(Shape::compile("", at(body, &["items"])))),
            ("string", format) => Shape::Text {
                bytes: format == "byte",
            },
            ("integer", format) => Shape::Integer {
                bits: if format == "int32" { 32 } else { 64 },
            },
            ("number", _) => Shape::Number,
            ("boolean", _) => Shape::Flag,
            _ => Shape::Any,
        }
    }

    /// What a reference stands for; anything else stands for itself. With the name of the definition.
    pub fn resolve(&self) -> (Option<&'static Schema>, &Shape) {
        match self {
            Shape::Ref(reference) => match reference.schema() {
                Some(schema) => (Some(schema), &schema.shape),
                None => (None, self),
            },
            shape => (None, shape),
        }
    }
}

impl Field {
    fn compile(body: &'static Value) -> Self {
        let strategy = text(body, &["x-kubernetes-patch-strategy"]);
        Field {
            shape: Shape::compile("", body),
            merge: strategy.split(',').any(|s| s == "merge"),
            merge_key: at(body, &["x-kubernetes-patch-merge-key"]).as_str(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::RESOURCES;

    #[test]
    fn every_row_has_a_schema_and_every_reference_a_target() {
        for row in RESOURCES {
            assert!(
                of(row).is_some_and(|s| s.name == row.kind),
                "{}",
                row.definition
            );
        }
        fn walk(shape: &Shape) {
            match shape {
                Shape::Ref(reference) => assert!(reference.schema().is_some(), "{reference:?}"),
                Shape::Map(inner) | Shape::List(inner) => walk(inner),
                Shape::Struct(fields) => fields.values().for_each(|f| walk(&f.shape)),
                Shape::Text { .. }
                | Shape::Integer { .. }
                | Shape::Number
                | Shape::Flag
                | Shape::IntOrString
                | Shape::Quantity
                | Shape::Time { .. }
                | Shape::Any => {}
            }
        }
        assert!(SCHEMAS.len() > 200);
        SCHEMAS.values().for_each(|s| walk(&s.shape));
    }

    #[test]
    fn ports_of_services_are_merged_by_port() {
        let ports = find("io.k8s.api.core.v1.ServiceSpec")
            .unwrap()
            .field("ports")
            .unwrap();
        assert_eq!((ports.merge, ports.merge_key), (true, Some("port")));
    }
}
