//! Values while an expression is evaluated. What comes from an object is looked at where it stands, not copied.

use std::cmp::Ordering;
use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Map as JsonMap, Value as Json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::authorizer::{Asking, Decision};
use crate::formats::NamedFormat;
use crate::message::Message;
use crate::quantity::Quantity;
use crate::semver::Semver;
use crate::types::{Decl, DeclKind, ListKind};
use crate::url::Url;

/// A value.
#[derive(Clone, Debug)]
pub enum Value<'a> {
    /// `null`.
    Null,
    /// Truth.
    Bool(bool),
    /// Signed.
    Int(i64),
    /// Unsigned.
    Uint(u64),
    /// Floating.
    Double(f64),
    /// Text of the object or the source.
    Text(&'a str),
    /// Text that was made.
    String(Arc<str>),
    /// Octets.
    Bytes(Arc<[u8]>),
    /// A list of the object.
    JsonList(&'a [Json], &'a Decl),
    /// A list that was made.
    List(Arc<Vec<Value<'a>>>),
    /// An object or map of the object.
    JsonMap(&'a JsonMap<String, Json>, &'a Decl),
    /// A map that was made.
    Map(Arc<Vec<(Value<'a>, Value<'a>)>>),
    /// A moment.
    Timestamp(OffsetDateTime),
    /// Nanoseconds.
    Duration(i64),
    /// A type, by name.
    Type(&'static str),
    /// A value or none.
    Optional(Option<Arc<Value<'a>>>),
    /// `kubernetes.URL`.
    Url(Arc<Url>),
    /// `kubernetes.Quantity`.
    Quantity(Quantity),
    /// `net.IP`.
    Ip(IpAddr),
    /// `net.CIDR`.
    Cidr(IpAddr, u8),
    /// Why a member of a map has no value: whoever selects it fails for that reason.
    Failed(Arc<str>),
    /// `kubernetes.Semver`.
    Semver(Arc<Semver>),
    /// `kubernetes.NamedFormat`.
    Format(NamedFormat),
    /// An object that was made by naming its type.
    Message(Arc<Message<'a>>),
    /// `authorizer`, and questions made of it.
    Asking(Arc<Asking<'a>>),
    /// The answer to such a question.
    Decision(Arc<Decision>),
}

static ANY: Decl = Decl {
    kind: DeclKind::Dyn,
    max: u64::MAX,
};

/// What stands in an object, by what its schema says.
pub fn wrap<'a>(json: &'a Json, decl: &'a Decl) -> Value<'a> {
    match (json, &decl.kind) {
        (Json::Null, _) => Value::Null,
        (Json::Bool(flag), _) => Value::Bool(*flag),
        (Json::Number(n), DeclKind::Double) => Value::Double(n.as_f64().unwrap_or(0.0)),
        (Json::Number(n), kind) => match (n.as_i64(), n.as_f64()) {
            (Some(n), _) => Value::Int(n),
            #[expect(
                clippy::cast_possible_truncation,
                reason = "a whole number that was written as 1.0"
            )]
            (None, Some(f)) if matches!(kind, DeclKind::Int) && f.abs() < 9.0e18 => {
                Value::Int(f as i64)
            }
            (None, f) => Value::Double(f.unwrap_or(0.0)),
        },
        (Json::String(text), DeclKind::Timestamp) => {
            timestamp(text).map_or(Value::Text(text), Value::Timestamp)
        }
        (Json::String(text), DeclKind::Duration) => {
            crate::duration::parse(text).map_or(Value::Text(text), Value::Duration)
        }
        (Json::String(text), DeclKind::Bytes) => {
            use base64::Engine as _;
            let bytes = base64::engine::general_purpose::STANDARD.decode(text);
            bytes.map_or(Value::Text(text), |bytes| Value::Bytes(bytes.into()))
        }
        (Json::String(text), _) => Value::Text(text),
        (Json::Array(items), _) => Value::JsonList(items, decl),
        (Json::Object(map), _) => Value::JsonMap(map, decl),
    }
}

/// What stands in an object that no schema describes.
pub fn dynamic(json: &Json) -> Value<'_> {
    wrap(json, &ANY)
}

/// RFC 3339, or a date alone.
pub(crate) fn timestamp(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339)
        .or_else(|_| OffsetDateTime::parse(&format!("{text}T00:00:00Z"), &Rfc3339))
        .ok()
}

pub(crate) fn items_decl(decl: &Decl) -> &Decl {
    match &decl.kind {
        DeclKind::List { items, .. } => items,
        _ => &ANY,
    }
}

impl<'a> Value<'a> {
    /// A text that was made.
    pub(crate) fn text(text: impl AsRef<str>) -> Self {
        Value::String(text.as_ref().into())
    }

    /// A list that was made.
    pub(crate) fn list(items: Vec<Value<'a>>) -> Self {
        Value::List(Arc::new(items))
    }

    pub(crate) fn some(value: Value<'a>) -> Self {
        Value::Optional(Some(Arc::new(value)))
    }

    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The name of its type.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::Null => "null_type",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Uint(_) => "uint",
            Value::Double(_) => "double",
            Value::Text(_) | Value::String(_) => "string",
            Value::Bytes(_) => "bytes",
            Value::JsonList(..) | Value::List(_) => "list",
            Value::JsonMap(_, decl) if matches!(decl.kind, DeclKind::Object { .. }) => "object",
            Value::JsonMap(..) | Value::Map(_) => "map",
            Value::Timestamp(_) => "google.protobuf.Timestamp",
            Value::Duration(_) => "google.protobuf.Duration",
            Value::Type(_) => "type",
            Value::Optional(_) => "optional_type",
            Value::Url(_) => crate::types::URL,
            Value::Quantity(_) => crate::types::QUANTITY,
            Value::Ip(_) => crate::types::IP,
            Value::Cidr(..) => crate::types::CIDR,
            Value::Failed(_) => "error",
            Value::Semver(_) => crate::types::SEMVER,
            Value::Format(_) => crate::types::FORMAT,
            Value::Message(_) => "object",
            Value::Asking(asking) => asking.type_name(),
            Value::Decision(_) => "kubernetes.authorization.Decision",
        }
    }

    /// Bytes of a text, items of a list, entries of a map; one of anything else. What going through it costs.
    pub(crate) fn size(&self) -> u64 {
        let size = match self {
            Value::Text(text) => text.len(),
            Value::String(text) => text.len(),
            Value::Bytes(bytes) => bytes.len(),
            Value::JsonList(items, _) => items.len(),
            Value::List(items) => items.len(),
            Value::JsonMap(map, _) => map.len(),
            Value::Map(entries) => entries.len(),
            _ => 1,
        };
        size as u64
    }

    /// The items of a list.
    pub(crate) fn items(&self) -> Option<Vec<Value<'a>>> {
        match self {
            Value::JsonList(items, decl) => {
                let below = items_decl(decl);
                Some(items.iter().map(|item| wrap(item, below)).collect())
            }
            Value::List(items) => Some(items.to_vec()),
            _ => None,
        }
    }

    /// The entries of a map, keys as expressions see them.
    pub(crate) fn entries(&self) -> Option<Vec<(Value<'a>, Value<'a>)>> {
        match self {
            Value::JsonMap(map, decl) => Some(
                map.iter()
                    .filter_map(|(key, value)| {
                        let (key, below): (Value<'a>, &'a Decl) = match &decl.kind {
                            DeclKind::Map(values) => (Value::Text(key), values),
                            DeclKind::Object { fields, .. } => {
                                let field = fields.iter().find(|field| *field.name == **key)?;
                                (Value::Text(&field.escaped), &field.decl)
                            }
                            _ => (Value::Text(key), &ANY),
                        };
                        Some((key, wrap(value, below)))
                    })
                    .collect(),
            ),
            Value::Map(entries) => Some(entries.to_vec()),
            _ => None,
        }
    }

    /// The value of a field or key.
    pub(crate) fn get(&self, key: &Value<'a>) -> Option<Value<'a>> {
        match self {
            Value::JsonMap(map, decl) => {
                let key = key.as_text()?;
                match &decl.kind {
                    DeclKind::Object { .. } => {
                        let field = decl.field(key)?;
                        map.get(&*field.name).map(|value| wrap(value, &field.decl))
                    }
                    DeclKind::Map(values) => map.get(key).map(|value| wrap(value, values)),
                    _ => map.get(key).map(|value| wrap(value, &ANY)),
                }
            }
            Value::Map(entries) => entries
                .iter()
                .find(|(known, _)| equal(known, key))
                .map(|(_, value)| value.clone()),
            _ => None,
        }
    }

    /// As JSON would show it, for refusals and conversions.
    pub(crate) fn shown(&self) -> String {
        match self {
            Value::Null => "null".into(),
            Value::Bool(flag) => flag.to_string(),
            Value::Int(n) => n.to_string(),
            Value::Uint(n) => n.to_string(),
            Value::Double(n) => n.to_string(),
            Value::Text(text) => (*text).to_owned(),
            Value::String(text) => text.to_string(),
            Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Value::Timestamp(time) => time.format(&Rfc3339).unwrap_or_default(),
            Value::Duration(nanos) => crate::duration::seconds(*nanos),
            Value::Type(name) => (*name).to_owned(),
            Value::Url(url) => url.text.clone(),
            Value::Quantity(quantity) => quantity.to_string(),
            Value::Ip(ip) => ip.to_string(),
            Value::Cidr(ip, bits) => format!("{ip}/{bits}"),
            Value::Failed(why) => why.to_string(),
            Value::Semver(semver) => semver.text.clone(),
            Value::Format(format) => format.name().to_owned(),
            Value::Asking(_) | Value::Decision(_) => self.type_name().to_owned(),
            Value::Message(message) => {
                let shown: Vec<String> = message
                    .fields
                    .iter()
                    .map(|(name, value)| format!("{name}: {}", value.shown()))
                    .collect();
                format!("{}{{{}}}", message.of, shown.join(", "))
            }
            Value::JsonList(..) | Value::List(_) => {
                let items = self.items().unwrap_or_default();
                let shown: Vec<String> = items.iter().map(Value::shown).collect();
                format!("[{}]", shown.join(", "))
            }
            Value::JsonMap(..) | Value::Map(_) => {
                let entries = self.entries().unwrap_or_default();
                let shown: Vec<String> = entries
                    .iter()
                    .map(|(k, v)| format!("{}: {}", k.shown(), v.shown()))
                    .collect();
                format!("{{{}}}", shown.join(", "))
            }
            Value::Optional(value) => match value {
                Some(value) => format!("optional({})", value.shown()),
                None => "optional.none()".into(),
            },
        }
    }
}

/// Whether two values are the same. Numbers are compared as numbers, whatever their types.
pub fn equal(a: &Value<'_>, b: &Value<'_>) -> bool {
    use Value::{
        Bool, Bytes, Cidr, Duration, Ip, JsonList, JsonMap, List, Map, Null, Optional, Semver,
        Timestamp, Type, Url,
    };
    if let (Some(a), Some(b)) = (a.as_text(), b.as_text()) {
        return a == b;
    }
    match (a, b) {
        (Null, Null) => true,
        (Bool(a), Bool(b)) => a == b,
        (Bytes(a), Bytes(b)) => a == b,
        (Timestamp(a), Timestamp(b)) => a == b,
        (Duration(a), Duration(b)) => a == b,
        (Type(a), Type(b)) => a == b,
        (Ip(a), Ip(b)) => a == b,
        (Cidr(a, n), Cidr(b, m)) => (a, n) == (b, m),
        (Url(a), Url(b)) => a.text == b.text,
        (Semver(a), Semver(b)) => a.compare(b) == Ordering::Equal,
        (Value::Quantity(a), Value::Quantity(b)) => a == b,
        (Value::Format(a), Value::Format(b)) => a == b,
        (Value::Message(a), Value::Message(b)) => {
            a.of == b.of
                && a.fields.len() == b.fields.len()
                && a.fields
                    .iter()
                    .all(|(name, value)| b.get(name).is_some_and(|other| equal(value, other)))
        }
        (Optional(a), Optional(b)) => match (a, b) {
            (Some(a), Some(b)) => equal(a, b),
            (None, None) => true,
            _ => false,
        },
        (JsonList(a, _), JsonList(b, _)) if std::ptr::eq(*a, *b) => true,
        (JsonList(..) | List(_), JsonList(..) | List(_)) => lists_equal(a, b),
        (JsonMap(a, _), JsonMap(b, _)) if std::ptr::eq(*a, *b) => true,
        (JsonMap(..) | Map(_), JsonMap(..) | Map(_)) => {
            let (Some(left), Some(right)) = (a.entries(), b.entries()) else {
                return false;
            };
            left.len() == right.len()
                && left
                    .iter()
                    .all(|(key, value)| b.get(key).is_some_and(|other| equal(value, &other)))
        }
        _ => compare(a, b) == Some(Ordering::Equal),
    }
}

fn lists_equal(a: &Value<'_>, b: &Value<'_>) -> bool {
    let (Some(left), Some(right)) = (a.items(), b.items()) else {
        return false;
    };
    if left.len() != right.len() {
        return false;
    }
    let unordered = match (a, b) {
        (Value::JsonList(_, decl), _) | (_, Value::JsonList(_, decl)) => {
            matches!(
                &decl.kind,
                DeclKind::List {
                    list: ListKind::Set | ListKind::Map(_),
                    ..
                }
            )
        }
        _ => false,
    };
    if unordered {
        left.iter()
            .all(|item| right.iter().any(|other| equal(item, other)))
    } else {
        left.iter().zip(&right).all(|(a, b)| equal(a, b))
    }
}

/// The order of two values that have one.
pub fn compare(a: &Value<'_>, b: &Value<'_>) -> Option<Ordering> {
    use Value::{Bool, Bytes, Double, Duration, Int, Timestamp, Uint};
    if let (Some(a), Some(b)) = (a.as_text(), b.as_text()) {
        return Some(a.cmp(b));
    }
    #[expect(
        clippy::cast_precision_loss,
        reason = "numbers of two types meet in the wider one"
    )]
    match (a, b) {
        (Bool(a), Bool(b)) => Some(a.cmp(b)),
        (Int(a), Int(b)) => Some(a.cmp(b)),
        (Uint(a), Uint(b)) => Some(a.cmp(b)),
        (Int(a), Uint(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
        (Uint(a), Int(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
        (Double(a), Double(b)) => a.partial_cmp(b),
        (Double(a), Int(b)) => a.partial_cmp(&(*b as f64)),
        (Int(a), Double(b)) => (*a as f64).partial_cmp(b),
        (Double(a), Uint(b)) => a.partial_cmp(&(*b as f64)),
        (Uint(a), Double(b)) => (*a as f64).partial_cmp(b),
        (Bytes(a), Bytes(b)) => Some(a.cmp(b)),
        (Timestamp(a), Timestamp(b)) => Some(a.cmp(b)),
        (Duration(a), Duration(b)) => Some(a.cmp(b)),
        _ => None,
    }
}
