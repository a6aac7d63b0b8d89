//! The shapes of objects: which fields there are, of which types, and how lists and maps are merged. Read from the
//! checked-in definitions once, into a form that is quick to walk.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{LazyLock, OnceLock};

use serde_json::{Map, Value};

use crate::table::Resource;
use crate::value::{at, list, text};

/// Structure of the API's objects in OpenAPI v3 form, after Kubernetes; see `schema/NOTICE.md`.
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
    /// `x-kubernetes-map-type: atomic`: server-side apply owns its values as a whole.
    pub atomic: bool,
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
    /// Any JSON value, null apart.
    Free,
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
    /// `x-kubernetes-patch-strategy` holds `retainKeys`.
    pub retain_keys: bool,
    /// `x-kubernetes-patch-merge-key`: the field of the items that tells them apart.
    pub merge_key: Option<&'static str>,
    /// How server-side apply merges it, where it is a list.
    pub list: ListType,
    /// `x-kubernetes-map-type: atomic`: server-side apply owns it as a whole, where it is an object.
    pub atomic: bool,
    /// Whether the object that holds it must have it.
    pub required: bool,
    /// Its value where it is left out and the schema says so.
    pub default: Option<&'static Value>,
}

/// `x-kubernetes-list-type`: how server-side apply merges a list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ListType {
    /// As a whole.
    Atomic,
    /// Item by item; an item is its own key.
    Set,
    /// Item by item, told apart by the values of these fields.
    Map(Vec<&'static str>),
}

impl Schema {
    fn compile(name: &'static str, body: &'static Value) -> Self {
        let mut parts = name.rsplit('.');
        Schema {
            name: parts.next().unwrap_or(name),
            version: parts.next().unwrap_or(""),
            shape: Shape::compile(name, body),
            atomic: text(body, &["x-kubernetes-map-type"]) == "atomic",
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
                    let required = list(body, &["required"]);
                    let fields = properties
                        .iter()
                        .map(|(key, body)| {
                            let required = required.iter().any(|name| name == key);
                            (key.as_str(), Field::compile(body, required))
                        })
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
            _ => Shape::Free,
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
    fn compile(body: &'static Value, required: bool) -> Self {
        let strategy = text(body, &["x-kubernetes-patch-strategy"]);
        let holds = |wanted| strategy.split(',').any(|s| s == wanted);
        let keys = list(body, &["x-kubernetes-list-map-keys"]);
        Field {
            shape: Shape::compile("", body),
            merge: holds("merge"),
            retain_keys: holds("retainKeys"),
            merge_key: at(body, &["x-kubernetes-patch-merge-key"]).as_str(),
            list: match text(body, &["x-kubernetes-list-type"]) {
                "map" => ListType::Map(keys.iter().filter_map(Value::as_str).collect()),
                "set" => ListType::Set,
                _ => ListType::Atomic,
            },
            atomic: text(body, &["x-kubernetes-map-type"]) == "atomic",
            required,
            default: body.get("default"),
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
                | Shape::Any
                | Shape::Free => {}
            }
        }
        assert!(SCHEMAS.len() > 580);
        SCHEMAS.values().for_each(|s| walk(&s.shape));
    }

    #[test]
    fn ports_of_services_are_merged_by_port() {
        let ports = find("io.k8s.api.core.v1.ServiceSpec")
            .unwrap()
            .field("ports")
            .unwrap();
        assert_eq!((ports.merge, ports.merge_key), (true, Some("port")));
        assert_eq!(ports.list, ListType::Map(vec!["port", "protocol"]));
        let protocol = find("io.k8s.api.core.v1.ServicePort").unwrap();
        let protocol = protocol.field("protocol").unwrap();
        assert_eq!(protocol.default, Some(&Value::from("TCP")));
        assert!(find("io.k8s.api.core.v1.ObjectReference").unwrap().atomic);
        let spec = find("io.k8s.api.apps.v1.DeploymentSpec").unwrap();
        assert!(spec.field("strategy").unwrap().retain_keys);
        assert!(spec.field("selector").unwrap().required);
    }

    #[test]
    fn what_a_schema_leaves_open_takes_any_value() {
        let default =
            find("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON").unwrap();
        assert!(matches!(default.shape, Shape::Free));
    }
}
