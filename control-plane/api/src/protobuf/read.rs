//! From protobuf to JSON.
//!
//! Go encodes every field that is no pointer, also when it holds nothing, and JSON leaves those out again:
//! [`Keep`] says which.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use super::wire::{CUT_SHORT, Datum, Entry, Fields, Wire, varint};
use super::{Error, MAGIC};
use crate::decode::DEPTH_MAX;
use crate::schema::{self, Field, Keep, Schema, Shape};

const NO_TIME: &str = "it is no point in time";
const TOO_DEEP: &str = "it is nested too deeply";

/// A whole body, `depth` messages deep in others. `read_as`: see [`super::decode_as`].
pub(super) fn body(
    body: &[u8],
    depth: usize,
    read_as: fn(&str, &str) -> Option<String>,
) -> Result<Value, Error> {
    let unknown = Envelope::read(body.strip_prefix(MAGIC).ok_or(Error::Magic)?)?;
    let as_of = read_as(&unknown.api_version, &unknown.kind);
    let as_of = as_of.as_deref().unwrap_or(&unknown.api_version);
    let schema = schema::of_kind(as_of, &unknown.kind).ok_or_else(|| Error::Kind {
        api_version: unknown.api_version.clone(),
        kind: unknown.kind.clone(),
    })?;
    let mut object = Map::new();
    if !unknown.api_version.is_empty() {
        object.insert("apiVersion".to_owned(), unknown.api_version.into());
    }
    object.insert("kind".to_owned(), unknown.kind.into());
    fields(schema, Wire::of(schema), unknown.raw, &mut object, depth)?;
    Ok(Value::Object(object))
}

/// A `runtime.Unknown`.
#[derive(Default)]
struct Envelope<'a> {
    api_version: String,
    kind: String,
    raw: &'a [u8],
}

impl<'a> Envelope<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, Error> {
        let malformed = |what| Error::malformed("runtime.Unknown", what);
        let mut envelope = Self::default();
        for field in Fields(bytes) {
            let (number, value) = field.map_err(malformed)?;
            match number {
                1 => {
                    for field in Fields(value.bytes().map_err(malformed)?) {
                        let (number, value) = field.map_err(malformed)?;
                        let text = || value.text().map(str::to_owned).map_err(malformed);
                        match number {
                            1 => envelope.api_version = text()?,
                            2 => envelope.kind = text()?,
                            _ => {}
                        }
                    }
                }
                2 => envelope.raw = value.bytes().map_err(malformed)?,
                // Its encoding and type: nothing but plain objects is sent.
                3 if !value.bytes().map_err(malformed)?.is_empty() => {
                    return Err(malformed("its content is encoded"));
                }
                _ => {}
            }
        }
        Ok(envelope)
    }
}

/// Reads a message's fields into an object.
fn fields(
    schema: &'static Schema,
    wire: &'static Wire,
    bytes: &[u8],
    object: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), Error> {
    let malformed = |what| Error::malformed(schema.name, what);
    if depth > DEPTH_MAX {
        return Err(malformed(TOO_DEEP));
    }
    for read in Fields(bytes) {
        let (number, value) = read.map_err(malformed)?;
        match wire.get(number) {
            None => {}
            Some(Entry::Inline(inner)) => {
                let bytes = value.bytes().map_err(malformed)?;
                fields(schema, inner, bytes, object, depth + 1)?;
            }
            Some(Entry::Field(name, field)) => {
                let reader = Reader {
                    message: schema.name,
                    field: name,
                    depth: depth + 1,
                };
                reader.add(field, &value, object)?;
            }
        }
    }
    Ok(())
}

/// Reads what is in one field.
#[derive(Clone, Copy)]
struct Reader<'a> {
    message: &'a str,
    field: &'a str,
    depth: usize,
}

impl Reader<'_> {
    fn wrong(&self, what: &str) -> Error {
        Error::malformed(self.message, format!("{}: {what}", self.field))
    }

    fn add(
        &self,
        field: &'static Field,
        value: &Datum<'_>,
        object: &mut Map<String, Value>,
    ) -> Result<(), Error> {
        match &field.shape {
            Shape::List(items) => {
                let list = object
                    .entry(self.field)
                    .or_insert_with(|| Value::Array(Vec::new()));
                if let Value::Array(list) = list {
                    self.items(items, value, list)?;
                }
            }
            Shape::Map(values) => {
                let (key, value) = self.pair(values, value)?;
                let map = object
                    .entry(self.field)
                    .or_insert_with(|| Value::Object(Map::new()));
                if let Value::Object(map) = map {
                    map.insert(key, value);
                }
            }
            shape => {
                let value = self.value(shape, value)?;
                let shown = match field.keep {
                    Keep::Sent | Keep::Always => !value.is_null(),
                    Keep::Full => !empty(&value, shape),
                };
                if shown {
                    object.insert(self.field.to_owned(), value);
                }
            }
        }
        Ok(())
    }

    /// One item of a list, or several where numbers are packed.
    fn items(
        &self,
        shape: &'static Shape,
        value: &Datum<'_>,
        list: &mut Vec<Value>,
    ) -> Result<(), Error> {
        if let (Shape::Integer { .. } | Shape::Flag, Datum::Bytes(packed)) = (shape, value) {
            let mut rest = *packed;
            while !rest.is_empty() {
                let number = varint(&mut rest).ok_or_else(|| self.wrong(CUT_SHORT))?;
                list.push(self.value(shape, &Datum::Number(number))?);
            }
        } else {
            list.push(self.value(shape, value)?);
        }
        Ok(())
    }

    /// An entry of a map: a message of key (1) and value (2), either of which is left out when it holds nothing.
    fn pair(&self, shape: &'static Shape, value: &Datum<'_>) -> Result<(String, Value), Error> {
        let (mut key, mut found) = ("", None);
        for field in Fields(self.bytes(value)?) {
            let (number, value) = field.map_err(|what| self.wrong(what))?;
            match number {
                1 => key = value.text().map_err(|what| self.wrong(what))?,
                2 => found = Some(self.value(shape, &value)?),
                _ => {}
            }
        }
        let value = match (found, shape) {
            (Some(value), _) => value,
            (None, Shape::Integer { .. } | Shape::Flag) => self.value(shape, &Datum::Number(0))?,
            (None, _) => self.value(shape, &Datum::Bytes(&[]))?,
        };
        Ok((key.to_owned(), value))
    }

    fn bytes<'b>(&self, value: &Datum<'b>) -> Result<&'b [u8], Error> {
        value.bytes().map_err(|what| self.wrong(what))
    }

    /// One value. A point in time that was never set is null.
    fn value(&self, shape: &'static Shape, value: &Datum<'_>) -> Result<Value, Error> {
        let wrong = |what: &str| self.wrong(what);
        let (target, shape) = shape.resolve();
        Ok(match shape {
            Shape::Text { bytes: false } => value.text().map_err(wrong)?.into(),
            Shape::Text { bytes: true } => STANDARD.encode(self.bytes(value)?).into(),
            Shape::Flag => (value.integer().map_err(wrong)? != 0).into(),
            Shape::Integer { .. } => value.integer().map_err(wrong)?.into(),
            Shape::Number => match value {
                Datum::Double(number) => double(*number),
                _ => return Err(wrong("a double is due")),
            },
            Shape::Time { micro } => time(self.bytes(value)?, *micro).map_err(wrong)?,
            Shape::Quantity => {
                let quantity = first(self.bytes(value)?)
                    .map_err(wrong)?
                    .unwrap_or_default();
                let quantity =
                    std::str::from_utf8(quantity).map_err(|_| wrong("it is not UTF-8"))?;
                let quantity = if quantity.is_empty() { "0" } else { quantity };
                quantity.into()
            }
            Shape::IntOrString => int_or_string(self.bytes(value)?).map_err(wrong)?,
            Shape::Any => match first(self.bytes(value)?)
                .map_err(wrong)?
                .unwrap_or_default()
            {
                [] => Value::Object(Map::new()),
                raw if raw.starts_with(MAGIC) => {
                    if self.depth > DEPTH_MAX {
                        return Err(wrong(TOO_DEEP));
                    }
                    body(raw, self.depth + 1, |_, _| None)?
                }
                raw => self.json(raw)?,
            },
            Shape::Free => self.free(target.map_or("", |t| t.name), self.bytes(value)?)?,
            Shape::Struct(_) | Shape::Ref(_) => {
                let mut object = Map::new();
                if let Some(schema) = target {
                    let bytes = self.bytes(value)?;
                    fields(schema, Wire::of(schema), bytes, &mut object, self.depth)?;
                }
                Value::Object(object)
            }
            // As a value of a map: a message with the list in its first field.
            Shape::List(items) => {
                let mut list = Vec::new();
                for field in Fields(self.bytes(value)?) {
                    if let (1, value) = field.map_err(wrong)? {
                        self.items(items, &value, &mut list)?;
                    }
                }
                Value::Array(list)
            }
            Shape::Map(values) => {
                let (key, value) = self.pair(values, value)?;
                Value::Object(Map::from_iter([(key, value)]))
            }
        })
    }

    fn json(&self, raw: &[u8]) -> Result<Value, Error> {
        serde_json::from_slice(raw).map_err(|error| self.wrong(&error.to_string()))
    }

    /// What a schema of a CustomResourceDefinition may be in place of a schema.
    fn free(&self, name: &str, bytes: &[u8]) -> Result<Value, Error> {
        if name == "JSON" {
            let raw = first(bytes).map_err(|what| self.wrong(what))?;
            return match raw.unwrap_or_default() {
                [] => Ok(Value::Null),
                raw => self.json(raw),
            };
        }
        let (mut schema, mut list, mut allows) = (None, Vec::new(), false);
        for field in Fields(bytes) {
            let (number, value) = field.map_err(|what| self.wrong(what))?;
            match (name, number) {
                ("JSONSchemaPropsOrBool", 1) => {
                    allows = value.integer().map_err(|what| self.wrong(what))? != 0;
                }
                ("JSONSchemaPropsOrBool", 2)
                | ("JSONSchemaPropsOrArray" | "JSONSchemaPropsOrStringArray", 1) => {
                    schema = Some(self.props(&value)?);
                }
                ("JSONSchemaPropsOrArray", 2) => list.push(self.props(&value)?),
                ("JSONSchemaPropsOrStringArray", 2) => {
                    let text = value.text().map_err(|what| self.wrong(what))?;
                    list.push(text.into());
                }
                _ => {}
            }
        }
        Ok(match (schema, name) {
            (Some(schema), _) => schema,
            (None, "JSONSchemaPropsOrBool") => allows.into(),
            (None, _) => list.into(),
        })
    }

    fn props(&self, value: &Datum<'_>) -> Result<Value, Error> {
        let mut object = Map::new();
        if let Some(schema) = schema::find(super::write::PROPS) {
            let bytes = self.bytes(value)?;
            fields(schema, Wire::of(schema), bytes, &mut object, self.depth)?;
        }
        Ok(Value::Object(object))
    }
}

/// Whether JSON leaves a value out that is no pointer.
fn empty(value: &Value, shape: &Shape) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        // A Quantity always says something.
        Value::String(text) => text.is_empty() && !matches!(shape.resolve().1, Shape::Quantity),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

/// A double as Go writes it into JSON: without a fraction where it has none.
fn double(number: f64) -> Value {
    let whole = number as i64;
    if whole as f64 == number && whole.unsigned_abs() < 1 << 53 {
        whole.into()
    } else {
        number.into()
    }
}

/// The content of a message with one field of bytes.
fn first(bytes: &[u8]) -> Result<Option<&[u8]>, &'static str> {
    let mut content = None;
    for field in Fields(bytes) {
        if let (1, value) = field? {
            content = Some(value.bytes()?);
        }
    }
    Ok(content)
}

/// A Time or MicroTime: seconds (1) and nanoseconds (2) since 1970. One that was never set has no fields.
fn time(bytes: &[u8], micro: bool) -> Result<Value, &'static str> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let (mut seconds, mut nanoseconds) = (0, 0);
    for field in Fields(bytes) {
        match field? {
            (1, value) => seconds = value.integer()?,
            (2, value) => nanoseconds = value.integer()?,
            _ => {}
        }
    }
    let format: &[BorrowedFormatItem<'_>] = if micro {
        format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z")
    } else {
        format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z")
    };
    let nanosecond = u32::try_from(nanoseconds).map_err(|_| NO_TIME)?;
    let text = OffsetDateTime::from_unix_timestamp(seconds)
        .and_then(|time| time.replace_nanosecond(nanosecond))
        .map_err(|_| NO_TIME)?
        .format(format);
    Ok(text.map_err(|_| NO_TIME)?.into())
}

/// An IntOrString: which of the two it is (1), the number (2), the string (3).
fn int_or_string(bytes: &[u8]) -> Result<Value, &'static str> {
    let (mut is_text, mut number, mut text) = (false, 0, "");
    for field in Fields(bytes) {
        match field? {
            (1, value) => is_text = value.integer()? == 1,
            (2, value) => number = value.integer()?,
            (3, value) => text = value.text()?,
            _ => {}
        }
    }
    Ok(if is_text { text.into() } else { number.into() })
}
