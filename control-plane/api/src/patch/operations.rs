//! The operations of a JSON patch (RFC 6902), as Kubernetes carries them out. Where that is more than the RFC asks
//! for, clients lean on it:
//!
//! - `test` of a member that is absent holds where null is expected;
//! - a negative index counts from the end of a list, where `-1` of an `add` is behind the last item;
//! - an operation without `value` has null;
//! - what stands before the first `/` of a path is not looked at, and the empty path, the whole, is nowhere.

use std::fmt;

use serde_json::{Map, Value};

/// Why an operation was not carried out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Failure {
    /// A `test` found something else at this path.
    Test(String),
    /// Anything else.
    Other(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Test(path) => write!(f, "testing value {path} failed: test failed"),
            Failure::Other(why) => f.write_str(why),
        }
    }
}

type Done<T = ()> = Result<T, Failure>;

/// Carries out one operation. `room` is how many bytes copies may still make; `size` tells how many a value has, up
/// to a bound.
pub(super) fn carry_out(
    document: &mut Value,
    operation: &Map<String, Value>,
    room: &mut usize,
    size: impl Fn(&Value, usize) -> usize,
) -> Done {
    let text = |key: &str| operation.get(key).and_then(Value::as_str);
    let kind = text("op").unwrap_or("unknown");
    let place = |key: &str| {
        text(key).ok_or_else(|| other(format!("the {kind} operation has no {key}: missing value")))
    };
    let value = || operation.get("value").cloned().unwrap_or(Value::Null);
    match kind {
        "add" => insert(document, kind, place("path")?, value()),
        "remove" => take(document, kind, place("path")?).map(drop),
        "replace" => {
            let path = place("path")?;
            *slot(document, kind, path)?.ok_or_else(|| missing(kind, path))? = value();
            Ok(())
        }
        "move" => {
            let moved = take(document, kind, place("from")?)?;
            insert(document, kind, place("path")?, moved)
        }
        "copy" => {
            let from = place("from")?;
            let copied = slot(document, kind, from)?.ok_or_else(|| missing(kind, from))?;
            *room = room.saturating_sub(size(copied, *room));
            if *room == 0 {
                return Err(other("the copies are too large".to_owned()));
            }
            let copied = copied.clone();
            insert(document, kind, place("path")?, copied)
        }
        "test" => {
            let path = place("path")?;
            let holds = match slot(document, kind, path)? {
                Some(found) => *found == value(),
                None => value().is_null(),
            };
            holds
                .then_some(())
                .ok_or_else(|| Failure::Test(path.to_owned()))
        }
        _ => Err(other(format!("Unexpected kind: {kind}"))),
    }
}

/// The container of what a path names, and the last key or index on the way.
fn container<'a>(document: &'a mut Value, kind: &str, path: &str) -> Done<(&'a mut Value, String)> {
    let mut steps: Vec<String> = path.split('/').skip(1).map(unescaped).collect();
    let last = steps.pop().ok_or_else(|| missing(kind, path))?;
    let mut here = document;
    for step in steps {
        let next = match here {
            Value::Object(members) => members.get_mut(&step),
            Value::Array(items) => {
                let at = index(&step, items.len()).map_err(|_| missing(kind, path))?;
                items.get_mut(at)
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
        };
        here = next.ok_or_else(|| missing(kind, path))?;
    }
    match here {
        Value::Object(_) | Value::Array(_) => Ok((here, last)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            Err(missing(kind, path))
        }
    }
}

/// What stands at a path. `None`: its object has no such member.
fn slot<'a>(document: &'a mut Value, kind: &str, path: &str) -> Done<Option<&'a mut Value>> {
    let (container, key) = container(document, kind, path)?;
    match container {
        Value::Array(items) => {
            let at = index(&key, items.len())?;
            Ok(items.get_mut(at))
        }
        members => Ok(members.get_mut(&key)),
    }
}

/// Puts a value in: a member in the place of the one of its name, an item before the one at its index.
fn insert(document: &mut Value, kind: &str, path: &str, value: Value) -> Done {
    let (container, key) = container(document, kind, path)?;
    match container {
        Value::Array(items) if key == "-" => items.push(value),
        Value::Array(items) => {
            let at = index(&key, items.len() + 1)?;
            items.insert(at, value);
        }
        Value::Object(members) => {
            members.insert(key, value);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            return Err(missing(kind, path));
        }
    }
    Ok(())
}

/// Takes out what stands at a path.
fn take(document: &mut Value, kind: &str, path: &str) -> Done<Value> {
    let (container, key) = container(document, kind, path)?;
    match container {
        Value::Array(items) => {
            let at = index(&key, items.len())?;
            Ok(items.remove(at))
        }
        members => members
            .as_object_mut()
            .and_then(|members| members.remove(&key))
            .ok_or_else(|| {
                other(format!(
                    "error in {kind} for path: '{path}': Unable to remove nonexistent key: {key}: missing value"
                ))
            }),
    }
}

/// An index into a list with places for `len` items.
fn index(text: &str, len: usize) -> Done<usize> {
    let refused = |why| other(format!("{why}: '{text}'"));
    let number: i64 = text
        .parse()
        .map_err(|_| refused("value was not a proper array index"))?;
    let len = i64::try_from(len).unwrap_or(i64::MAX);
    let at = if number < 0 { number + len } else { number };
    usize::try_from(at)
        .ok()
        .filter(|_| at < len)
        .ok_or_else(|| refused("Unable to access invalid index"))
}

/// A reference token of a JSON pointer as the name that it stands for (RFC 6901, section 4).
fn unescaped(token: &str) -> String {
    token.replace("~1", "/").replace("~0", "~")
}

fn missing(kind: &str, path: &str) -> Failure {
    other(format!(
        "{kind} operation does not apply: doc is missing path: \"{path}\": missing value"
    ))
}

fn other(why: String) -> Failure {
    Failure::Other(why)
}
