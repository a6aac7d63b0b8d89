//! How the values of a schema merge: which objects and lists are owned as a whole, and what tells the items of the
//! others apart. Built-in kinds bring their definitions, custom resources the JSON of their schema.

use api::schema::{Field, ListType, Schema, Shape};
use serde_json::Value;

/// The type of a value. Cheap to copy.
#[derive(Clone, Copy, Debug)]
pub struct Type<'a>(Inner<'a>);

#[derive(Clone, Copy, Debug)]
enum Inner<'a> {
    /// Of a definition, at a field that may say more than the shape does.
    Built {
        shape: &'a Shape,
        field: Option<&'a Field>,
    },
    /// Of a CustomResourceDefinition.
    Custom { schema: &'a Value, whole: bool },
    /// Nothing is known: objects go field by field, lists as a whole.
    Open,
}

/// How a value is owned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Relation {
    /// As a whole, whatever it is.
    Leaf,
    /// An object, field by field.
    Fields,
    /// A list whose items are their own keys.
    Set,
    /// A list of objects that fields tell apart.
    Keyed,
}

/// What a schema says of a field of an object.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Below<'a> {
    pub(crate) of: Type<'a>,
    /// The schema names it, in contrast to a key of a map.
    pub(crate) named: bool,
    /// Kubernetes' own form of the object always has it, if only empty.
    pub(crate) always: bool,
}

const OPEN: Type<'static> = Type(Inner::Open);

impl<'a> Type<'a> {
    /// Objects of a built-in kind.
    pub fn built_in(schema: &'a Schema) -> Self {
        Type(Inner::Built {
            shape: &schema.shape,
            field: None,
        })
    }

    /// Custom resources, by the `openAPIV3Schema` of their version.
    pub fn custom(schema: &'a Value) -> Self {
        Type(Inner::Custom {
            schema,
            whole: true,
        })
    }

    /// Objects of which nothing is known.
    pub fn open() -> Self {
        OPEN
    }

    /// Whether Kubernetes has a struct for the value. There a field that is null is one that is absent.
    pub(crate) fn built(self) -> bool {
        matches!(self.0, Inner::Built { .. })
    }

    /// What stands at a field of this type: of a built-in kind, null and empty lists and maps are nothing, but where
    /// the field is `always` there its nothing is a value.
    pub(crate) fn standing(self, value: Option<&Value>, always: bool) -> Option<&Value> {
        static NULL: Value = Value::Null;
        let Inner::Built { shape, .. } = self.0 else {
            return value;
        };
        let nothing = match (value, shape.resolve().1) {
            (None | Some(Value::Null), _) => true,
            (Some(Value::Object(map)), Shape::Map(_)) => map.is_empty(),
            (Some(Value::Array(items)), Shape::List(_)) => items.is_empty(),
            _ => false,
        };
        if !nothing {
            value
        } else if always {
            Some(&NULL)
        } else {
            None
        }
    }

    /// How `value` of this type is owned.
    pub(crate) fn relation(self, value: &Value) -> Relation {
        let natural = if value.is_object() {
            Relation::Fields
        } else {
            Relation::Leaf
        };
        match self.0 {
            Inner::Built { shape, field, .. } => {
                let (schema, shape) = shape.resolve();
                match shape {
                    Shape::Struct(_) | Shape::Map(_) => {
                        let atomic =
                            schema.is_some_and(|s| s.atomic) || field.is_some_and(|f| f.atomic);
                        if atomic {
                            Relation::Leaf
                        } else {
                            Relation::Fields
                        }
                    }
                    Shape::List(_) => match field.map(|f| &f.list) {
                        Some(ListType::Set) => Relation::Set,
                        Some(ListType::Map(_)) => Relation::Keyed,
                        Some(ListType::Atomic) | None => Relation::Leaf,
                    },
                    Shape::Any | Shape::Free => natural,
                    Shape::Ref(_)
                    | Shape::Text { .. }
                    | Shape::Integer { .. }
                    | Shape::Number
                    | Shape::Flag
                    | Shape::IntOrString
                    | Shape::Quantity
                    | Shape::Time { .. } => Relation::Leaf,
                }
            }
            Inner::Custom { schema, .. } => {
                let says = |key: &str| schema.get(key).and_then(Value::as_str).unwrap_or("");
                match (says("type"), value) {
                    ("object", _) | ("", Value::Object(_)) => {
                        if says("x-kubernetes-map-type") == "atomic" {
                            Relation::Leaf
                        } else {
                            Relation::Fields
                        }
                    }
                    ("array", _) | ("", Value::Array(_)) => match says("x-kubernetes-list-type") {
                        "set" => Relation::Set,
                        "map" => Relation::Keyed,
                        _ => Relation::Leaf,
                    },
                    _ => Relation::Leaf,
                }
            }
            Inner::Open => natural,
        }
    }

    /// What stands below a name; `None`: an object of this type has no such field.
    pub(crate) fn field(self, name: &str) -> Option<Below<'a>> {
        let map_key = |of| Below {
            of,
            named: false,
            always: false,
        };
        match self.0 {
            Inner::Built { shape, .. } => match shape.resolve().1 {
                Shape::Struct(fields) => fields.get(name).map(|field| Below {
                    of: Type(Inner::Built {
                        shape: &field.shape,
                        field: Some(field),
                    }),
                    named: true,
                    always: field.is_written(),
                }),
                Shape::Map(items) => Some(map_key(Type(Inner::Built {
                    shape: items,
                    field: None,
                }))),
                _ => Some(map_key(OPEN)),
            },
            Inner::Custom { schema, whole } => custom_field(schema, whole, name),
            Inner::Open => Some(map_key(OPEN)),
        }
    }

    /// The type of the items of a list.
    pub(crate) fn items(self) -> Type<'a> {
        match self.0 {
            Inner::Built { shape, .. } => match shape.resolve().1 {
                Shape::List(items) => Type(Inner::Built {
                    shape: items,
                    field: None,
                }),
                _ => OPEN,
            },
            Inner::Custom { schema, .. } => schema.get("items").map_or(OPEN, |schema| {
                Type(Inner::Custom {
                    schema,
                    whole: false,
                })
            }),
            Inner::Open => OPEN,
        }
    }

    /// The names of the fields that tell the items of a list apart, with their defaults, in order of name.
    pub(crate) fn keys(self) -> Vec<(&'a str, Option<&'a Value>)> {
        let mut keys: Vec<(&'a str, Option<&'a Value>)> = match self.0 {
            Inner::Built { shape, field, .. } => {
                let (Shape::List(items), Some(ListType::Map(names))) =
                    (shape.resolve().1, field.map(|f| &f.list))
                else {
                    return Vec::new();
                };
                let items = items.resolve().1;
                let default = |name: &str| match items {
                    Shape::Struct(fields) => fields.get(name).and_then(|f| f.default),
                    _ => None,
                };
                names.iter().map(|name| (*name, default(name))).collect()
            }
            Inner::Custom { schema, .. } => {
                api::value::list(schema, &["x-kubernetes-list-map-keys"])
                    .iter()
                    .filter_map(Value::as_str)
                    .map(|name| {
                        let items = api::value::at(schema, &["items", "properties", name]);
                        (name, items.get("default"))
                    })
                    .collect()
            }
            Inner::Open => Vec::new(),
        };
        keys.sort_unstable_by_key(|(name, _)| *name);
        keys
    }

    /// What is wrong with a value of this type that is no list and no object, in Kubernetes' words.
    pub(crate) fn mismatch(self, value: &Value) -> Option<String> {
        let wanted = match self.0 {
            Inner::Built { shape, .. } => match shape.resolve().1 {
                Shape::Struct(_) | Shape::Map(_) => Wanted::Map,
                Shape::List(_) => Wanted::List,
                Shape::Text { .. } => Wanted::Text,
                Shape::Integer { .. } | Shape::Number => Wanted::Number,
                Shape::Flag => Wanted::Flag,
                Shape::IntOrString | Shape::Quantity | Shape::Time { .. } => Wanted::Scalar,
                Shape::Any | Shape::Free | Shape::Ref(_) => return None,
            },
            Inner::Custom { schema, .. } => match schema.get("type").and_then(Value::as_str) {
                Some("object") => Wanted::Map,
                Some("array") => Wanted::List,
                Some("string") => Wanted::Text,
                Some("integer" | "number") => Wanted::Number,
                Some("boolean") => Wanted::Flag,
                _ => return None,
            },
            Inner::Open => return None,
        };
        wanted.mismatch(value)
    }
}

/// The kinds of value that messages speak of.
enum Wanted {
    Map,
    List,
    Text,
    Number,
    Flag,
    Scalar,
}

impl Wanted {
    fn mismatch(&self, value: &Value) -> Option<String> {
        let plain = || match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let fits = match (self, value) {
            (_, Value::Null) => true,
            (Wanted::Map, other) => other.is_object(),
            (Wanted::List, other) => other.is_array(),
            (Wanted::Text, other) => other.is_string(),
            (Wanted::Number, other) => other.is_number(),
            (Wanted::Flag, other) => other.is_boolean(),
            (Wanted::Scalar, other) => !other.is_object() && !other.is_array(),
        };
        (!fits).then(|| match self {
            Wanted::Map => format!("expected map, got &{{{}}}", plain()),
            Wanted::List => format!("expected list, got &{{{}}}", plain()),
            Wanted::Text => {
                format!("expected string, got &value.valueUnstructured{{Value:{value}}}")
            }
            Wanted::Number => {
                let go = match value {
                    Value::String(_) => "string",
                    Value::Bool(_) => "bool",
                    Value::Array(_) => "[]interface {}",
                    Value::Null | Value::Number(_) | Value::Object(_) => "map[string]interface {}",
                };
                format!("expected numeric (int or float), got {go}")
            }
            Wanted::Flag => format!("expected boolean, got &{{{}}}", plain()),
            Wanted::Scalar => format!("expected any scalar, got &{{{}}}", plain()),
        })
    }
}

fn custom_field<'a>(schema: &'a Value, whole: bool, name: &str) -> Option<Below<'a>> {
    let embedded =
        whole || schema.get("x-kubernetes-embedded-resource") == Some(&Value::Bool(true));
    if embedded && let Some(of) = header(name) {
        return Some(Below {
            of,
            named: true,
            always: false,
        });
    }
    let below = |schema, named| Below {
        of: Type(Inner::Custom {
            schema,
            whole: false,
        }),
        named,
        always: false,
    };
    if let Some(schema) = schema.get("properties").and_then(|p| p.get(name)) {
        return Some(below(schema, true));
    }
    if let Some(schema) = schema.get("additionalProperties").filter(|s| s.is_object()) {
        return Some(below(schema, false));
    }
    let open = schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true))
        || schema.get("additionalProperties").is_some()
        || schema.get("type").is_none();
    open.then_some(Below {
        of: OPEN,
        named: false,
        always: false,
    })
}

/// What every object has, whatever its schema says.
fn header(name: &str) -> Option<Type<'static>> {
    static TEXT: Shape = Shape::Text { bytes: false };
    let built = |shape: &'static Shape| Type(Inner::Built { shape, field: None });
    match name {
        "apiVersion" | "kind" => Some(built(&TEXT)),
        "metadata" => {
            let meta = api::schema::find("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")?;
            Some(built(&meta.shape))
        }
        _ => None,
    }
}
