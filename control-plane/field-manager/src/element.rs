//! Elements of a path, in the form that `fieldsV1` gives them.

use serde_json::{Map, Value};

/// The element of a field or of a key of a map.
pub(crate) fn field(name: &str) -> Box<str> {
    let mut out = String::with_capacity(name.len() + 2);
    out.push_str("f:");
    out.push_str(name);
    out.into_boxed_str()
}

/// The element of an item of a set.
pub(crate) fn value(item: &Value) -> Box<str> {
    format!("v:{item}").into_boxed_str()
}

/// The element of an item that some of its fields tell apart; the fields in order of name.
pub(crate) fn key(fields: &[(&str, &Value)]) -> Box<str> {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(48);
    out.push_str("k:{");
    for (i, (name, value)) in fields.iter().enumerate() {
        // Writing to a String can't fail.
        let comma = if i == 0 { "" } else { "," };
        let _ = write!(out, "{comma}{}:{value}", Text(name));
    }
    out.push('}');
    out.into_boxed_str()
}

/// A text as JSON, without the copy that a `Value` of it would cost.
struct Text<'a>(&'a str);

impl std::fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let plain = self
            .0
            .bytes()
            .all(|b| (b' '..0x7f).contains(&b) && b != b'"' && b != b'\\');
        if plain {
            write!(f, "\"{}\"", self.0)
        } else {
            write!(f, "{}", Value::from(self.0))
        }
    }
}

/// An element as a client wrote it, in the one form that is compared here. `None`: of a kind that is not known.
pub(crate) fn canonical(element: &str) -> Result<Option<Box<str>>, String> {
    let wrong = |why: &dyn std::fmt::Display| format!("path element {element:?}: {why}");
    let (kind, rest) = element
        .split_once(':')
        .ok_or_else(|| wrong(&"missing a colon"))?;
    Ok(match kind {
        "f" => Some(element.into()),
        "i" => {
            let index: u32 = rest.parse().map_err(|e| wrong(&e))?;
            Some(format!("i:{index}").into_boxed_str())
        }
        "v" => {
            let item: Value = serde_json::from_str(rest).map_err(|e| wrong(&e))?;
            Some(value(&item))
        }
        "k" => {
            let fields: Map<String, Value> = serde_json::from_str(rest).map_err(|e| wrong(&e))?;
            let fields: Vec<(&str, &Value)> = fields.iter().map(|(k, v)| (k.as_str(), v)).collect();
            Some(key(&fields))
        }
        _ => None,
    })
}

/// An element as people read it in a path.
pub(crate) fn shown(element: &str) -> String {
    let (kind, rest) = element.split_once(':').unwrap_or(("f", element));
    match kind {
        "i" => format!("[{rest}]"),
        "v" => format!("[={rest}]"),
        "k" => {
            let fields: Map<String, Value> = serde_json::from_str(rest).unwrap_or_default();
            let fields: Vec<String> = fields.iter().map(|(k, v)| format!("{k}={v}")).collect();
            format!("[{}]", fields.join(","))
        }
        _ => format!(".{rest}"),
    }
}
