//! What validation rules may know of the values that a schema describes: their types, and how large they can be when
//! the schema does not say.

use std::sync::Arc;

use cel::types::{Decl, DeclKind, FieldDecl, ListKind, escape};

use crate::formats::Format;
use crate::schema::{ListType, Schema, Type};

/// The most bytes of a request.
const REQUEST_MAX: u64 = 3 << 20;

/// The most bytes of a moment or a span of time as JSON.
const LONG: u64 = 32;
/// The bytes of a date as JSON.
const DATE: u64 = 12;
/// The fewest bytes of a moment as JSON, as Kubernetes counts them.
const MOMENT_LEAST: u64 = 21;
/// The fewest bytes of a span of time as JSON: `"0"`.
const SPAN_LEAST: u64 = 3;

/// The declaration of an object's schema; it has `apiVersion`, `kind` and the names in `metadata` as well.
pub(crate) fn root(fields: Vec<FieldDecl>) -> Arc<Decl> {
    object(fields, true)
}

/// The declaration of a node, given those below it.
pub(crate) fn node(schema: &Schema, below: Below) -> Arc<Decl> {
    let unsized_kind = |kind| Arc::new(Decl { kind, max: 0 });
    let checks = schema.checks.as_deref();
    match (schema.kind, below) {
        (None, _) if schema.int_or_string => Arc::new(Decl {
            kind: DeclKind::IntOrString,
            max: checks
                .and_then(|checks| checks.max_length)
                .map_or(REQUEST_MAX - 2, |stated| stated.saturating_mul(4)),
        }),
        (None, _) => Decl::any(),
        (Some(Type::Boolean), _) => unsized_kind(DeclKind::Bool),
        (Some(Type::Integer), _) => unsized_kind(DeclKind::Int),
        (Some(Type::Number), _) => unsized_kind(DeclKind::Double),
        (Some(Type::String), _) => string(schema),
        (Some(Type::Array), Below::Items(items)) => {
            let max = checks
                .and_then(|checks| checks.max_items)
                .unwrap_or_else(|| (REQUEST_MAX - 2) / (below_size(schema.items.as_deref()) + 1));
            let list = match &schema.list {
                ListType::Atomic => ListKind::Atomic,
                ListType::Set => ListKind::Set,
                ListType::Map(keys) => ListKind::Map(keys.clone()),
            };
            Arc::new(Decl {
                kind: DeclKind::List { items, list },
                max,
            })
        }
        (Some(Type::Object), Below::Values(values)) => {
            let max = checks
                .and_then(|checks| checks.max_properties)
                .unwrap_or_else(|| {
                    (REQUEST_MAX - 2) / (below_size(schema.additional.as_deref()) + 6)
                });
            Arc::new(Decl {
                kind: DeclKind::Map(values),
                max,
            })
        }
        (Some(Type::Object), Below::Fields(fields)) => object(fields, schema.embedded),
        (Some(Type::Object | Type::Array), _) => object(Vec::new(), schema.embedded),
    }
}

/// What stands below a node.
pub(crate) enum Below {
    /// Nothing.
    Nothing,
    /// Of a list.
    Items(Arc<Decl>),
    /// Of a map.
    Values(Arc<Decl>),
    /// Of an object.
    Fields(Vec<FieldDecl>),
}

/// A field, unless expressions cannot write its name.
pub(crate) fn field(name: &str, decl: Arc<Decl>) -> Option<FieldDecl> {
    Some(FieldDecl {
        escaped: escape(name)?.into(),
        name: name.into(),
        decl,
    })
}

fn object(mut fields: Vec<FieldDecl>, resource: bool) -> Arc<Decl> {
    if resource {
        let text = || {
            Arc::new(Decl {
                kind: DeclKind::String,
                max: REQUEST_MAX - 2,
            })
        };
        let names = ["generateName", "name"].map(|name| field(name, text()));
        let metadata = Arc::new(Decl {
            kind: DeclKind::Object {
                name: "object".into(),
                fields: names.into_iter().flatten().collect(),
            },
            max: 0,
        });
        fields.retain(|field| !matches!(&*field.name, "apiVersion" | "kind" | "metadata"));
        fields.extend(field("apiVersion", text()));
        fields.extend(field("kind", text()));
        fields.extend(field("metadata", metadata));
    }
    fields.sort_by(|a, b| a.escaped.cmp(&b.escaped));
    Arc::new(Decl {
        kind: DeclKind::Object {
            name: "object".into(),
            fields: fields.into(),
        },
        max: 0,
    })
}

fn string(schema: &Schema) -> Arc<Decl> {
    let checks = schema.checks.as_deref();
    let format = checks.and_then(|checks| checks.format);
    let stated = checks.and_then(|checks| checks.max_length);
    let (kind, fixed) = match format {
        Some(Format::Byte) => (DeclKind::Bytes, None),
        Some(Format::Duration) => (DeclKind::Duration, Some(LONG)),
        Some(Format::Date) => (DeclKind::Timestamp, Some(DATE)),
        Some(Format::DateTime) => (DeclKind::Timestamp, Some(LONG)),
        _ => (DeclKind::String, None),
    };
    let listed = checks
        .and_then(|checks| checks.values.as_deref())
        .map(|values| {
            let longest = values
                .iter()
                .filter_map(|value| value.as_str())
                .map(str::len)
                .max();
            longest.unwrap_or(0) as u64
        });
    let bytes = matches!(kind, DeclKind::Bytes);
    let max = fixed
        .or_else(|| {
            stated.map(|stated| {
                if bytes {
                    stated
                } else {
                    stated.saturating_mul(4)
                }
            })
        })
        .or(listed)
        .unwrap_or(REQUEST_MAX - 2);
    Arc::new(Decl { kind, max })
}

fn below_size(schema: Option<&Schema>) -> u64 {
    schema.map_or(1, least_size)
}

/// The fewest bytes that a value of the schema takes as JSON.
pub(crate) fn least_size(schema: &Schema) -> u64 {
    let checks = schema.checks.as_deref();
    match schema.kind {
        None => 1,
        Some(Type::Boolean) => 4,
        Some(Type::Integer | Type::Number) => 1,
        Some(Type::String) => match checks.and_then(|checks| checks.format) {
            Some(Format::Duration) => SPAN_LEAST,
            Some(Format::Date) => DATE,
            Some(Format::DateTime) => MOMENT_LEAST,
            _ => 2,
        },
        Some(Type::Array) => 2,
        Some(Type::Object) => {
            let required = checks.map_or(&[][..], |checks| &checks.required);
            let fields = schema
                .properties
                .iter()
                .filter(|(name, below)| required.contains(name) && below.default.is_none())
                .map(|(name, below)| name.len() as u64 + 4 + least_size(below));
            2 + fields.sum::<u64>()
        }
    }
}

/// How often a node can be there in one request, if nothing else says so.
pub(crate) fn most_often(schema: &Schema) -> u64 {
    REQUEST_MAX / (least_size(schema) + 1)
}
