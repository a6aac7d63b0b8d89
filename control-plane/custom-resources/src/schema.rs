//! A structural schema in the form that is walked: types apart from value validations, no descriptions.

use std::sync::Arc;

use api::value::{at, flag, list, text};
use cel::pattern::Pattern;
use serde_json::{Map, Value};

use crate::formats::Format;
use crate::rules::Rule;

/// The type of a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Type {
    /// `array`.
    Array,
    /// `boolean`.
    Boolean,
    /// `integer`.
    Integer,
    /// `number`.
    Number,
    /// `object`.
    Object,
    /// `string`.
    String,
}

impl Type {
    /// By its name in OpenAPI.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "array" => Type::Array,
            "boolean" => Type::Boolean,
            "integer" => Type::Integer,
            "number" => Type::Number,
            "object" => Type::Object,
            "string" => Type::String,
            _ => return None,
        })
    }

    /// Its name in OpenAPI.
    pub fn name(self) -> &'static str {
        match self {
            Type::Array => "array",
            Type::Boolean => "boolean",
            Type::Integer => "integer",
            Type::Number => "number",
            Type::Object => "object",
            Type::String => "string",
        }
    }
}

/// How a list is merged, and which items are the same.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub enum ListType {
    /// As one value.
    #[default]
    Atomic,
    /// Items are told apart by their value.
    Set,
    /// Items are told apart by the values of these fields.
    Map(Box<[Box<str>]>),
}

/// One node of a schema.
#[derive(Clone, Default, Debug)]
pub struct Schema {
    /// `None` for int-or-string and for what preserves anything.
    pub kind: Option<Type>,
    /// Whether null is a value.
    pub nullable: bool,
    /// `x-kubernetes-int-or-string`.
    pub int_or_string: bool,
    /// `x-kubernetes-preserve-unknown-fields`.
    pub preserve: bool,
    /// `x-kubernetes-embedded-resource`.
    pub embedded: bool,
    /// `additionalProperties: true`.
    pub additional_any: bool,
    /// `x-kubernetes-map-type: atomic`.
    pub atomic_map: bool,
    /// Sorted by name.
    pub properties: Box<[(Box<str>, Schema)]>,
    /// Of values whose keys are no properties.
    pub additional: Option<Box<Schema>>,
    /// Of items.
    pub items: Option<Box<Schema>>,
    /// What an absent field becomes.
    pub default: Option<Box<Value>>,
    /// `x-kubernetes-list-type` and `-list-map-keys`.
    pub list: ListType,
    /// What values must be like beyond their type.
    pub checks: Option<Box<Checks>>,
    /// `x-kubernetes-validations`.
    pub rules: Option<Box<[Rule]>>,
    /// Whether there are rules at this node or below, so that a walk can be spared.
    pub has_rules: bool,
}

/// Value validations. Those under allOf, anyOf, oneOf and not are schemas themselves.
#[derive(Clone, Default, Debug)]
pub struct Checks {
    /// Of texts.
    pub format: Option<Format>,
    /// What a text must match somewhere.
    pub pattern: Option<Arc<Pattern>>,
    /// The least, and whether it is itself excluded.
    pub minimum: Option<(f64, bool)>,
    /// The greatest, and whether it is itself excluded.
    pub maximum: Option<(f64, bool)>,
    /// What numbers are multiples of.
    pub multiple_of: Option<f64>,
    /// In characters.
    pub min_length: Option<u64>,
    /// In characters.
    pub max_length: Option<u64>,
    /// Of lists.
    pub min_items: Option<u64>,
    /// Of lists.
    pub max_items: Option<u64>,
    /// Of objects.
    pub min_properties: Option<u64>,
    /// Of objects.
    pub max_properties: Option<u64>,
    /// No two items alike.
    pub unique_items: bool,
    /// The values there are.
    pub values: Option<Box<[Value]>>,
    /// Fields that must be there.
    pub required: Box<[Box<str>]>,
    /// All must hold.
    pub all_of: Box<[Schema]>,
    /// One at least must hold.
    pub any_of: Box<[Schema]>,
    /// Exactly one must hold.
    pub one_of: Box<[Schema]>,
    /// Must not hold.
    pub not: Option<Box<Schema>>,
}

impl Schema {
    /// Reads a schema that [`crate::structural`] found nothing wrong with; of others what can be read.
    pub fn parse(body: &Value) -> Self {
        let kind = Type::parse(text(body, &["type"]));
        let mut properties: Vec<(Box<str>, Schema)> = api::value::entries(body, &["properties"])
            .map(|(name, body)| (name.as_str().into(), Schema::parse(body)))
            .collect();
        properties.sort_by(|a, b| a.0.cmp(&b.0));
        let rules: Vec<Rule> = list(body, &["x-kubernetes-validations"])
            .iter()
            .map(Rule::parse)
            .collect();
        let mut schema = Schema {
            kind,
            nullable: flag(body, &["nullable"]),
            int_or_string: flag(body, &["x-kubernetes-int-or-string"]),
            preserve: flag(body, &["x-kubernetes-preserve-unknown-fields"]),
            embedded: flag(body, &["x-kubernetes-embedded-resource"]),
            additional_any: at(body, &["additionalProperties"]) == &Value::Bool(true),
            atomic_map: text(body, &["x-kubernetes-map-type"]) == "atomic",
            properties: properties.into(),
            additional: body
                .get("additionalProperties")
                .filter(|b| b.is_object())
                .map(|b| Box::new(Schema::parse(b))),
            items: body
                .get("items")
                .filter(|b| b.is_object())
                .map(|b| Box::new(Schema::parse(b))),
            default: body
                .get("default")
                .filter(|d| !d.is_null())
                .cloned()
                .map(Box::new),
            list: match text(body, &["x-kubernetes-list-type"]) {
                "set" => ListType::Set,
                "map" => ListType::Map(texts(body, "x-kubernetes-list-map-keys")),
                _ => ListType::Atomic,
            },
            checks: Checks::parse(body),
            has_rules: !rules.is_empty(),
            rules: (!rules.is_empty()).then(|| rules.into()),
        };
        let below = schema.children().any(|child| child.has_rules);
        schema.has_rules |= below;
        schema
    }

    /// The schema of a property.
    pub fn property(&self, name: &str) -> Option<&Schema> {
        self.properties
            .binary_search_by(|(known, _)| (**known).cmp(name))
            .ok()
            .map(|at| &self.properties[at].1)
    }

    /// Properties, values and items; value validations apart.
    pub fn children(&self) -> impl Iterator<Item = &Schema> {
        let properties = self.properties.iter().map(|(_, schema)| schema);
        properties
            .chain(self.additional.as_deref())
            .chain(self.items.as_deref())
    }

    /// The types of its values, as refusals name them.
    pub fn type_name(&self) -> &'static str {
        match self.kind {
            Some(kind) => kind.name(),
            None if self.int_or_string => "integer,string",
            None => "",
        }
    }
}

impl Checks {
    fn parse(body: &Value) -> Option<Box<Self>> {
        let count = |key: &str| at(body, &[key]).as_u64();
        let bound = |key: &str, exclusive: &str| {
            at(body, &[key])
                .as_f64()
                .map(|bound| (bound, flag(body, &[exclusive])))
        };
        let schemas =
            |key: &str| -> Box<[Schema]> { list(body, &[key]).iter().map(Schema::parse).collect() };
        const KEYS: [&str; 18] = [
            "format",
            "pattern",
            "minimum",
            "maximum",
            "multipleOf",
            "minLength",
            "maxLength",
            "minItems",
            "maxItems",
            "minProperties",
            "maxProperties",
            "uniqueItems",
            "enum",
            "required",
            "allOf",
            "anyOf",
            "oneOf",
            "not",
        ];
        if !body
            .as_object()
            .is_some_and(|map: &Map<_, _>| KEYS.iter().any(|key| map.contains_key(*key)))
        {
            return None;
        }
        Some(Box::new(Checks {
            format: Format::parse(text(body, &["format"])),
            pattern: at(body, &["pattern"])
                .as_str()
                .filter(|p| !p.is_empty())
                .and_then(|p| Pattern::new(p).ok()),
            minimum: bound("minimum", "exclusiveMinimum"),
            maximum: bound("maximum", "exclusiveMaximum"),
            multiple_of: at(body, &["multipleOf"]).as_f64(),
            min_length: count("minLength"),
            max_length: count("maxLength"),
            min_items: count("minItems"),
            max_items: count("maxItems"),
            min_properties: count("minProperties"),
            max_properties: count("maxProperties"),
            unique_items: flag(body, &["uniqueItems"]),
            values: body
                .get("enum")
                .and_then(Value::as_array)
                .filter(|values| !values.is_empty())
                .map(|values| values.clone().into()),
            required: texts(body, "required"),
            all_of: schemas("allOf"),
            any_of: schemas("anyOf"),
            one_of: schemas("oneOf"),
            not: body
                .get("not")
                .filter(|b| b.is_object())
                .map(|b| Box::new(Schema::parse(b))),
        }))
    }
}

fn texts(body: &Value, key: &str) -> Box<[Box<str>]> {
    list(body, &[key])
        .iter()
        .filter_map(Value::as_str)
        .map(Box::from)
        .collect()
}
