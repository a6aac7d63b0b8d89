//! The shapes of objects: which fields there are, of which types, and how lists and maps are merged. Read from the
//! checked-in definitions once, into a form that is quick to walk.

mod read;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{LazyLock, OnceLock};

use serde_json::{Map, Value};

use crate::protobuf::Wire;
use crate::table::Resource;

/// By the full name of the package and the definition's own.
type Schemas = BTreeMap<&'static str, BTreeMap<&'static str, Schema>>;

/// The structure of the API's objects, after Kubernetes; see `schema/NOTICE.md`.
static SCHEMAS: LazyLock<Schemas> =
    LazyLock::new(|| read::definitions(include_str!("../schema/definitions.txt")));

/// Our own data files are valid JSON objects, which a test asserts; anything else reads as empty.
pub(crate) fn read(json: &str) -> Map<String, Value> {
    serde_json::from_str(json).unwrap_or_default()
}

/// The schema of a definition, by its full name.
pub fn find(definition: &str) -> Option<&'static Schema> {
    let (package, name) = definition.rsplit_once('.')?;
    SCHEMAS.get(package)?.get(name)
}

/// The schema of the object that `apiVersion` and `kind` name.
pub fn of_kind(api_version: &str, kind: &str) -> Option<&'static Schema> {
    /// By apiVersion, empty for what every version knows, and by kind.
    static KINDS: LazyLock<BTreeMap<&str, BTreeMap<&str, &Schema>>> = LazyLock::new(|| {
        let mut kinds: BTreeMap<&str, BTreeMap<&str, &Schema>> = BTreeMap::new();
        for schema in all() {
            let api_version = match schema.role {
                Role::Kind => schema.package.api_version,
                Role::Metadata => "meta.k8s.io/v1",
                Role::Everywhere => "",
                Role::Part => continue,
            };
            let group = kinds.entry(api_version).or_default();
            group.insert(schema.name, schema);
        }
        kinds
    });
    let find = |api_version| KINDS.get(api_version)?.get(kind).copied();
    find(api_version).or_else(|| find(""))
}

/// All definitions.
pub(crate) fn all() -> impl Iterator<Item = &'static Schema> {
    SCHEMAS.values().flat_map(BTreeMap::values)
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
    /// Where it is defined.
    pub package: Package,
    /// What its values look like.
    pub shape: Shape,
    /// `x-kubernetes-map-type: atomic`: server-side apply owns its values as a whole.
    pub atomic: bool,
    /// Whether it is a body of its own.
    pub role: Role,
    /// Its fields by their numbers, once protobuf was read.
    pub(crate) wire: OnceLock<Wire>,
    /// [`Schema::written`].
    pub(crate) written: OnceLock<Vec<(&'static str, Value)>>,
}

/// Where definitions stand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Package {
    /// The full name, for instance `io.k8s.api.apps.v1`.
    pub name: &'static str,
    /// `apiVersion` of the kinds in it, for instance `apps/v1`.
    pub api_version: &'static str,
}

/// Whether a definition is a body of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// A part of others.
    Part,
    /// An object with apiVersion and kind.
    Kind,
    /// An object that stands for others by their metadata.
    Metadata,
    /// An object that every group version knows.
    Everywhere,
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
    package: &'static str,
    name: &'static str,
    target: OnceLock<Option<&'static Schema>>,
}

impl Reference {
    fn new(package: &'static str, name: &'static str) -> Self {
        Reference {
            package,
            name,
            target: OnceLock::new(),
        }
    }

    /// Full name of the definition.
    pub fn name(&self) -> String {
        format!("{}.{}", self.package, self.name)
    }

    /// The last part of its name.
    pub fn short_name(&self) -> &'static str {
        self.name
    }

    /// The definition.
    pub fn schema(&self) -> Option<&'static Schema> {
        *self
            .target
            .get_or_init(|| SCHEMAS.get(self.package)?.get(self.name))
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the target: definitions may refer to each other in circles.
        f.write_str(&self.name())
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
    /// `x-kubernetes-patch-strategy` is `replace`.
    pub(crate) replace: bool,
    /// Whether the schema says how the list is merged even though it is the way of lists anyway.
    pub(crate) stated: bool,
    /// The number of the protobuf field. Where JSON shows a message's fields in its parent, the message's comes first.
    pub(crate) number: [u8; 3],
    /// When JSON shows what protobuf holds.
    pub(crate) keep: Keep,
}

/// When JSON shows a field that protobuf holds: Go sends every field that is no pointer, also when it holds nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Keep {
    /// When it holds something.
    Full,
    /// Whenever it was sent.
    Sent,
    /// Whenever it was sent; it must not be missing either.
    Always,
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
    /// The fields that Go writes also where they hold nothing ([`Field::is_written`]), with what it writes.
    pub(crate) fn written(&self) -> &[(&'static str, Value)] {
        self.written.get_or_init(|| match &self.shape {
            Shape::Struct(fields) => fields
                .iter()
                .filter(|(name, _)| !(self.name == "ObjectMeta" && **name == "creationTimestamp"))
                .filter_map(|(name, field)| Some((*name, field.nothing()?)))
                .collect(),
            _ => Vec::new(),
        })
    }

    /// Its full name.
    pub fn full_name(&self) -> String {
        format!("{}.{}", self.package.name, self.name)
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
    /// Whether Go writes the field also where it holds nothing: it is required, or a struct, time or quantity that is no
    /// pointer.
    pub fn is_written(&self) -> bool {
        match self.keep {
            Keep::Sent => false,
            Keep::Always => true,
            Keep::Full => matches!(
                self.shape.resolve().1,
                Shape::Struct(_) | Shape::Time { .. } | Shape::Quantity
            ),
        }
    }

    /// What Go writes then. Not of lists and maps: a null there says no more than that they are absent.
    fn nothing(&self) -> Option<Value> {
        let nothing = match self.shape.resolve().1 {
            Shape::Text { bytes: false } => "".into(),
            Shape::Integer { .. } | Shape::Number | Shape::IntOrString => 0.into(),
            Shape::Flag => false.into(),
            Shape::Quantity => "0".into(),
            Shape::Struct(_) => Value::Object(serde_json::Map::new()),
            Shape::Time { .. } => Value::Null,
            _ => return None,
        };
        self.is_written().then_some(nothing)
    }

    /// A field that is neither merged nor required.
    fn plain(shape: Shape) -> Self {
        Field {
            shape,
            merge: false,
            retain_keys: false,
            merge_key: None,
            list: ListType::Atomic,
            atomic: false,
            required: false,
            default: None,
            replace: false,
            stated: false,
            number: [0; 3],
            keep: Keep::Full,
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
        let text = include_str!("../schema/definitions.txt");
        let lines = text
            .lines()
            .filter(|l| !l.is_empty() && !l.starts_with("package "));
        assert_eq!(all().count(), lines.count(), "a line is not understood");
        all().for_each(|s| walk(&s.shape));
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
