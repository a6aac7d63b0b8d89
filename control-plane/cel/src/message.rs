//! Messages: objects that an expression makes by naming their type (`Object.spec{replicas: 3}`), and values as JSON.
//! Which fields there are is not known here; `Object.spec` is the type of what stands in the field `spec` of an
//! `Object`, whatever else it holds.

use std::sync::Arc;

use base64::Engine as _;
use serde_json::{Map, Value as Json};

use crate::value::Value;

/// The type of a whole object.
pub const OBJECT: &str = "Object";
/// The type of one step of an RFC 6902 patch.
pub const JSON_PATCH: &str = "JSONPatch";
/// The fields of such a step.
const STEP: [&str; 4] = ["op", "path", "from", "value"];

/// A message.
#[derive(Clone, Debug)]
pub struct Message<'a> {
    /// The name of its type.
    pub of: Arc<str>,
    /// Its fields, in the order written.
    pub fields: Vec<(Arc<str>, Value<'a>)>,
}

/// Whether messages of the type can be made.
pub(crate) fn is_type(name: &str) -> bool {
    name == JSON_PATCH || name == OBJECT || name.starts_with("Object.")
}

/// Whether messages of the type have the field.
pub(crate) fn has_field(of: &str, field: &str) -> bool {
    of != JSON_PATCH || STEP.contains(&field)
}

impl<'a> Message<'a> {
    pub(crate) fn get(&self, field: &str) -> Option<&Value<'a>> {
        let found = self.fields.iter().find(|(name, _)| **name == *field);
        found.map(|(_, value)| value)
    }
}

impl Value<'_> {
    /// The value as JSON.
    ///
    /// # Errors
    /// A message within whose type is not that of its place, and what JSON has no form for.
    pub fn to_json(&self) -> Result<Json, String> {
        self.json("")
    }

    /// `place`: the type that a message has to have here; empty where nothing is known.
    fn json(&self, place: &str) -> Result<Json, String> {
        Ok(match self {
            Value::Null => Json::Null,
            Value::Bool(flag) => (*flag).into(),
            Value::Int(number) => (*number).into(),
            Value::Uint(number) => (*number).into(),
            Value::Double(number) => (*number).into(),
            Value::Bytes(bytes) => base64::engine::general_purpose::STANDARD
                .encode(bytes)
                .into(),
            Value::Text(_)
            | Value::String(_)
            | Value::Timestamp(_)
            | Value::Duration(_)
            | Value::Url(_)
            | Value::Quantity(_)
            | Value::Ip(_)
            | Value::Cidr(..)
            | Value::Failed(_)
            | Value::Semver(_) => self.shown().into(),
            Value::JsonList(items, _) => Json::Array(items.to_vec()),
            Value::JsonMap(fields, _) => Json::Object((*fields).clone()),
            Value::List(items) => {
                let items: Result<Vec<Json>, String> =
                    items.iter().map(|item| item.json(place)).collect();
                items?.into()
            }
            Value::Map(entries) => {
                let mut fields = Map::new();
                for (key, value) in entries.iter() {
                    let key = key
                        .as_text()
                        .ok_or("the keys of an object must be strings")?;
                    fields.insert(key.to_owned(), value.json("")?);
                }
                fields.into()
            }
            Value::Message(message) => {
                if !place.is_empty() && *message.of != *place {
                    return Err(format!(
                        "unexpected type name {:?}, expected {place:?}, which matches field name path from root Object type",
                        message.of
                    ));
                }
                let mut fields = Map::new();
                for (name, value) in &message.fields {
                    let below = if *message.of == *JSON_PATCH {
                        String::new()
                    } else {
                        format!("{}.{name}", message.of)
                    };
                    fields.insert(name.to_string(), value.json(&below)?);
                }
                fields.into()
            }
            Value::Optional(Some(value)) => value.json(place)?,
            Value::Optional(None) => Json::Null,
            Value::Type(_) | Value::Format(_) | Value::Asking(_) | Value::Decision(_) => {
                return Err(format!(
                    "a value of type {} is no part of an object",
                    self.type_name()
                ));
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Program;
    use crate::types::{Decl, Type};
    use crate::value::dynamic;

    fn made(source: &str, wanted: &Type) -> Result<Json, String> {
        let program = Program::compile(source, &[("object", Decl::any(), false)], wanted)?;
        let object = json!({"spec": {"replicas": 2, "names": ["a"]}});
        let (value, _) = program.evaluate(vec![("object", dynamic(&object))], 1_000_000);
        value.map_err(|why| why.0)?.to_json()
    }

    #[test]
    fn messages_become_objects() {
        let object = Type::Message(OBJECT.into());
        let steps = Type::list(Type::Message(JSON_PATCH.into()));
        #[rustfmt::skip]
        let cases = [
            ("Object{}", &object, json!({})),
            ("Object{spec: Object.spec{replicas: object.spec.replicas + 1, ?paused: object.?spec.paused}}", &object, json!({"spec": {"replicas": 3}})),
            ("Object{metadata: Object.metadata{labels: {'a/b': 'c'}}, items: [Object.items{n: 1.5}]}", &object, json!({"metadata": {"labels": {"a/b": "c"}}, "items": [{"n": 1.5}]})),
            ("Object{spec: object.spec}", &object, json!({"spec": {"replicas": 2, "names": ["a"]}})),
            ("true ? Object{} : Object{a: Object.a{}}", &object, json!({})),
            ("[JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('a~/b'), value: Object.spec{x: [1u]}}]", &steps,
             json!([{"op": "add", "path": "/metadata/labels/a~0~1b", "value": {"x": [1]}}])),
            ("object.spec.names.map(n, JSONPatch{op: 'remove', path: n})", &steps, json!([{"op": "remove", "path": "a"}])),
            ("string(Object.spec{replicas: 3}.replicas)", &Type::String, json!("3")),
            ("has(Object{a: 1}.a) && !has(Object{a: 1}.b)", &Type::Bool, json!(true)),
        ];
        for (source, wanted, expected) in cases {
            assert_eq!(made(source, wanted), Ok(expected), "{source}");
        }
        let wrong = made("Object{spec: Object.other{}}", &object).unwrap_err();
        assert_eq!(
            wrong,
            "unexpected type name \"Object.other\", expected \"Object.spec\", which matches field name path from root Object type"
        );
        for (source, wanted, why) in [
            (
                "JSONPatch{op: 'add'}",
                &steps,
                "must evaluate to list(JSONPatch)",
            ),
            ("Object.spec{}", &object, "must evaluate to Object"),
            ("{'a': 1}", &object, "must evaluate to Object"),
            ("[JSONPatch{other: 1}]", &steps, "undefined field 'other'"),
            ("Other{}", &object, "undeclared reference to 'Other'"),
            ("Object{a: 1, a: 2}.?b{}", &object, "mismatched input"),
        ] {
            let met = made(source, wanted).unwrap_err();
            assert!(met.contains(why), "{source}: {met}");
        }
    }
}
