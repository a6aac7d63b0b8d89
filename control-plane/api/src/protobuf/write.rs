//! From JSON to protobuf. Values of another type than their field's are left out; a stored object has none.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::wire::put_varint;
use crate::duration::parse_time;
use crate::schema::{self, Field, Schema, Shape};

/// The schema of schemas.
pub(super) const PROPS: &str =
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const LENGTH: u64 = 2;

/// A `runtime.Unknown` around what `raw` writes.
pub(super) fn envelope(
    api_version: &str,
    kind: &str,
    out: &mut Vec<u8>,
    raw: impl FnOnce(&mut Vec<u8>),
) {
    message(1, out, |out| {
        bytes(1, api_version.as_bytes(), out);
        bytes(2, kind.as_bytes(), out);
    });
    message(2, out, raw);
    // Its encoding and type: Go writes both.
    bytes(3, &[], out);
    bytes(4, &[], out);
}

/// The fields of an object.
pub(super) fn object(schema: &'static Schema, object: &Value, out: &mut Vec<u8>) {
    if let Value::Object(map) = object {
        fields(schema, map, out);
    }
}

/// The fields of an object.
pub(super) fn fields(schema: &'static Schema, map: &Map<String, Value>, out: &mut Vec<u8>) {
    let mut inlined: Vec<(&Field, &Value)> = Vec::new();
    for (name, content) in map {
        let Some(known) = schema.field(name) else {
            continue;
        };
        match known.number {
            [0, ..] => {}
            [number, 0, _] => field(number, &known.shape, content, out),
            _ => inlined.push((known, content)),
        }
    }
    if !inlined.is_empty() {
        inlined.sort_by_key(|(known, _)| known.number);
        inline(0, &inlined, out);
    }
}

/// The messages whose fields JSON shows in the parent. `fields` are sorted by number, and agree in those before `level`.
fn inline(level: usize, fields: &[(&Field, &Value)], out: &mut Vec<u8>) {
    let number = |field: &Field, level: usize| field.number.get(level).copied().unwrap_or(0);
    for group in fields.chunk_by(|a, b| number(a.0, level) == number(b.0, level)) {
        let Some((first, content)) = group.first() else {
            continue;
        };
        let own = number(first, level);
        if number(first, level + 1) == 0 {
            field(own, &first.shape, content, out);
        } else {
            message(own, out, |out| inline(level + 1, group, out));
        }
    }
}

/// A field with all that is in it.
fn field(number: u8, shape: &Shape, value: &Value, out: &mut Vec<u8>) {
    match (shape, value) {
        (Shape::List(items), Value::Array(list)) => {
            list.iter().for_each(|item| one(number, items, item, out));
        }
        (Shape::Map(values), Value::Object(map)) => {
            for (key, value) in map {
                message(number, out, |out| {
                    bytes(1, key.as_bytes(), out);
                    one(2, values, value, out);
                });
            }
        }
        (shape, value) => one(number, shape, value, out),
    }
}

/// A field with one value.
fn one(number: u8, shape: &Shape, value: &Value, out: &mut Vec<u8>) {
    let (target, shape) = shape.resolve();
    match (shape, value) {
        (_, Value::Null) if !matches!(shape, Shape::Free) => {}
        (Shape::Text { bytes: false }, Value::String(text)) => bytes(number, text.as_bytes(), out),
        (Shape::Text { bytes: true }, Value::String(text)) => {
            let plain: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
            if let Ok(content) = STANDARD.decode(plain) {
                bytes(number, &content, out);
            }
        }
        (Shape::Flag, Value::Bool(flag)) => varint(number, u64::from(*flag), out),
        (Shape::Integer { .. }, Value::Number(content)) => {
            if let Some(content) = content.as_i64() {
                varint(number, content.cast_unsigned(), out);
            }
        }
        (Shape::Number, Value::Number(content)) => {
            if let Some(content) = content.as_f64() {
                tag(number, FIXED64, out);
                out.extend_from_slice(&content.to_le_bytes());
            }
        }
        (Shape::Time { .. }, Value::String(text)) => {
            if let Some(time) = parse_time(text) {
                message(number, out, |out| {
                    varint(1, time.unix_timestamp().cast_unsigned(), out);
                    varint(2, u64::from(time.nanosecond()), out);
                });
            }
        }
        (Shape::Quantity, Value::String(text)) => {
            message(number, out, |out| bytes(1, text.as_bytes(), out));
        }
        (Shape::Quantity, Value::Number(text)) => {
            message(number, out, |out| {
                bytes(1, text.to_string().as_bytes(), out);
            });
        }
        (Shape::IntOrString, Value::Number(content)) => {
            let content = content.as_i64().unwrap_or(0);
            message(number, out, |out| {
                varint(1, 0, out);
                varint(2, content.cast_unsigned(), out);
                bytes(3, &[], out);
            });
        }
        (Shape::IntOrString, Value::String(text)) => message(number, out, |out| {
            varint(1, 1, out);
            varint(2, 0, out);
            bytes(3, text.as_bytes(), out);
        }),
        (Shape::Any, raw) => message(number, out, |out| json(1, raw, out)),
        (Shape::Free, content) => {
            let name = target.map_or("", |t| t.name);
            message(number, out, |out| free(name, content, out));
        }
        (Shape::Struct(_), Value::Object(map)) => {
            if let Some(schema) = target {
                message(number, out, |out| fields(schema, map, out));
            }
        }
        // As a value of a map: a message with the list in its first field.
        (Shape::List(_), list) => message(number, out, |out| field(1, shape, list, out)),
        _ => {}
    }
}

/// What a schema of a CustomResourceDefinition may be in place of a schema.
fn free(name: &str, content: &Value, out: &mut Vec<u8>) {
    let props = |number, content: &Value, out: &mut Vec<u8>| {
        if let Some(schema) = schema::find(PROPS) {
            message(number, out, |out| object(schema, content, out));
        }
    };
    match (name, content) {
        ("JSONSchemaPropsOrBool", Value::Bool(allows)) => varint(1, u64::from(*allows), out),
        ("JSONSchemaPropsOrBool", Value::Object(_)) => {
            varint(1, 1, out);
            props(2, content, out);
        }
        ("JSONSchemaPropsOrArray" | "JSONSchemaPropsOrStringArray", Value::Object(_)) => {
            props(1, content, out);
        }
        ("JSONSchemaPropsOrArray", Value::Array(list)) => {
            list.iter().for_each(|item| props(2, item, out));
        }
        ("JSONSchemaPropsOrStringArray", Value::Array(list)) => {
            let texts = list.iter().filter_map(Value::as_str);
            texts.for_each(|text| bytes(2, text.as_bytes(), out));
        }
        ("JSON", content) => json(1, content, out),
        _ => {}
    }
}

fn json(number: u8, content: &Value, out: &mut Vec<u8>) {
    bytes(number, content.to_string().as_bytes(), out);
}

/// A field that holds what `inside` writes, with its length before it.
pub(super) fn message(number: u8, out: &mut Vec<u8>, inside: impl FnOnce(&mut Vec<u8>)) {
    tag(number, LENGTH, out);
    // Most messages are shorter than 128 bytes; the others are moved on by what their length takes.
    let start = out.len();
    out.push(0);
    inside(out);
    let len = out.len() - start - 1;
    if len < 0x80 {
        out[start] = len as u8;
        return;
    }
    let mut prefix = Vec::with_capacity(10);
    put_varint(len as u64, &mut prefix);
    out.splice(start..=start, prefix);
}

pub(super) fn bytes(number: u8, content: &[u8], out: &mut Vec<u8>) {
    tag(number, LENGTH, out);
    put_varint(content.len() as u64, out);
    out.extend_from_slice(content);
}

fn varint(number: u8, content: u64, out: &mut Vec<u8>) {
    tag(number, VARINT, out);
    put_varint(content, out);
}

fn tag(number: u8, kind: u64, out: &mut Vec<u8>) {
    put_varint(u64::from(number) << 3 | kind, out);
}
