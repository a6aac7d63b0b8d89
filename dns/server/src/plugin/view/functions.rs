//! Functions of expressions.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;

use super::expression::{Value, arithmetic, float, order};
use crate::message::Request;
use crate::names;

/// Functions that ask a predicate of each element of a list.
pub(super) const PREDICATED: [&str; 7] = ["all", "any", "count", "filter", "map", "none", "one"];

/// Functions and how many arguments each takes, from and to.
const FUNCTIONS: [(&str, usize, usize); 40] = [
    ("abs", 1, 1),
    ("bufsize", 0, 0),
    ("ceil", 1, 1),
    ("class", 0, 0),
    ("client_ip", 0, 0),
    ("do", 0, 0),
    ("first", 1, 1),
    ("float", 1, 1),
    ("floor", 1, 1),
    ("hasPrefix", 2, 2),
    ("hasSuffix", 2, 2),
    ("id", 0, 0),
    ("incidr", 2, 2),
    ("indexOf", 2, 2),
    ("int", 1, 1),
    ("join", 1, 2),
    ("last", 1, 1),
    ("len", 1, 1),
    ("lower", 1, 1),
    ("max", 2, 2),
    ("metadata", 1, 1),
    ("min", 2, 2),
    ("name", 0, 0),
    ("opcode", 0, 0),
    ("port", 0, 0),
    ("proto", 0, 0),
    ("repeat", 2, 2),
    ("replace", 3, 3),
    ("round", 1, 1),
    ("server_ip", 0, 0),
    ("server_port", 0, 0),
    ("size", 0, 0),
    ("split", 2, 3),
    ("string", 1, 1),
    ("sum", 1, 1),
    ("trim", 1, 2),
    ("trimPrefix", 2, 2),
    ("trimSuffix", 2, 2),
    ("type", 0, 0),
    ("upper", 1, 1),
];

/// Octets of a text that is made by repeating another.
const TEXT_MAX: usize = 1 << 16;

/// How many arguments a function takes, if there is one of the name.
pub(super) fn arguments(name: &str) -> Option<RangeInclusive<usize>> {
    if PREDICATED.contains(&name) {
        return Some(2..=2);
    }
    let (_, least, most) = FUNCTIONS.iter().find(|(known, ..)| *known == name)?;
    Some(*least..=*most)
}

/// The names of all functions.
pub(super) fn known() -> Vec<&'static str> {
    let mut known = PREDICATED.to_vec();
    known.extend(FUNCTIONS.iter().map(|(name, ..)| name));
    known.sort_unstable();
    known
}

/// A number of things.
pub(super) fn count(number: usize) -> Value {
    Value::Number(i64::try_from(number).unwrap_or(i64::MAX))
}

fn of_text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn shown(value: &Value) -> String {
    match value {
        Value::Text(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Bool(truth) => truth.to_string(),
        Value::List(list) => {
            let list: Vec<String> = list.iter().map(shown).collect();
            format!("[{}]", list.join(" "))
        }
    }
}

fn end(element: Option<&Value>) -> Result<Value, String> {
    element.cloned().ok_or("the list is empty".to_owned())
}

/// Calls a function that is no predicate's.
pub(super) fn call(name: &str, args: &[Value], request: &Request) -> Result<Value, String> {
    let text = |text: String| Ok(Value::Text(text));
    let number = |number: i64| Ok(Value::Number(number));
    let truth = |truth: bool| Ok(Value::Bool(truth));
    let edns = request.message.edns.as_ref();
    match (name, args) {
        ("bufsize", []) => number(edns.map_or(512, |edns| i64::from(edns.max_payload()))),
        ("class", []) => text(request.class().to_string()),
        ("client_ip", []) => text(request.client.ip().to_canonical().to_string()),
        ("do", []) => truth(request.dnssec_ok()),
        ("id", []) => number(i64::from(request.message.metadata.id)),
        ("name", []) => text(names::text(&request.name().to_lowercase())),
        ("opcode", []) => number(i64::from(u8::from(request.message.metadata.op_code))),
        ("port", []) => text(request.client.port().to_string()),
        ("proto", []) => text(request.transport.proto().to_owned()),
        ("server_ip", []) => text(request.local.ip().to_canonical().to_string()),
        ("server_port", []) => text(request.local.port().to_string()),
        ("size", []) => number(i64::try_from(request.raw.len()).unwrap_or(i64::MAX)),
        ("type", []) => text(request.kind().to_string()),
        ("len", [Value::Text(text)]) => Ok(count(text.chars().count())),
        ("len", [Value::List(list)]) => Ok(count(list.len())),
        ("lower", [Value::Text(given)]) => text(given.to_lowercase()),
        ("upper", [Value::Text(given)]) => text(given.to_uppercase()),
        ("trim", [Value::Text(given)]) => text(given.trim().to_owned()),
        ("trim", [Value::Text(given), Value::Text(chars)]) => {
            text(given.trim_matches(|one| chars.contains(one)).to_owned())
        }
        ("trimPrefix", [Value::Text(given), Value::Text(prefix)]) => text(
            given
                .strip_prefix(prefix.as_str())
                .unwrap_or(given)
                .to_owned(),
        ),
        ("trimSuffix", [Value::Text(given), Value::Text(suffix)]) => text(
            given
                .strip_suffix(suffix.as_str())
                .unwrap_or(given)
                .to_owned(),
        ),
        ("hasPrefix", [Value::Text(given), Value::Text(prefix)]) => {
            truth(given.starts_with(prefix.as_str()))
        }
        ("hasSuffix", [Value::Text(given), Value::Text(suffix)]) => {
            truth(given.ends_with(suffix.as_str()))
        }
        ("indexOf", [Value::Text(given), Value::Text(part)]) => {
            Ok(given.find(part.as_str()).map_or(Value::Number(-1), count))
        }
        ("replace", [Value::Text(given), Value::Text(old), Value::Text(new)]) => {
            text(given.replace(old.as_str(), new))
        }
        ("repeat", [Value::Text(given), Value::Number(times)]) => {
            let times = usize::try_from(*times).ok();
            let times = times.filter(|times| given.len().saturating_mul(*times) <= TEXT_MAX);
            let times = times.ok_or("repeat makes too long a text")?;
            text(given.repeat(times))
        }
        ("split", [Value::Text(given), Value::Text(by)]) => {
            Ok(Value::List(given.split(by.as_str()).map(of_text).collect()))
        }
        ("split", [Value::Text(given), Value::Text(by), Value::Number(most)]) => {
            let most = usize::try_from(*most).unwrap_or(usize::MAX);
            Ok(Value::List(
                given.splitn(most, by.as_str()).map(of_text).collect(),
            ))
        }
        ("join", [Value::List(list), rest @ ..]) => {
            let by = rest
                .first()
                .map_or("", |by| if let Value::Text(by) = by { by } else { "" });
            let parts: Vec<String> = list.iter().map(shown).collect();
            text(parts.join(by))
        }
        ("first", [Value::List(list)]) => end(list.first()),
        ("last", [Value::List(list)]) => end(list.last()),
        ("sum", [Value::List(list)]) => {
            let zero = Value::Number(0);
            list.iter()
                .try_fold(zero, |sum, one| arithmetic("+", sum, one.clone()))
        }
        ("max" | "min", [a, b]) => {
            let order = order(a, b).ok_or_else(|| format!("{name} does not take {args:?}"))?;
            let second = order.is_lt() == (name == "max");
            Ok(if second { b.clone() } else { a.clone() })
        }
        ("abs", [Value::Number(given)]) => number(given.wrapping_abs()),
        ("abs", [Value::Float(given)]) => Ok(Value::Float(given.abs())),
        ("ceil" | "floor" | "round", [given]) => {
            let given = float(given).ok_or_else(|| format!("{given:?} is no number"))?;
            Ok(Value::Float(match name {
                "ceil" => given.ceil(),
                "floor" => given.floor(),
                _ => given.round(),
            }))
        }
        ("int", [Value::Number(given)]) => number(*given),
        #[expect(clippy::cast_possible_truncation, reason = "as the language has it")]
        ("int", [Value::Float(given)]) => number(*given as i64),
        ("int", [Value::Text(given)]) => {
            let read = given
                .parse()
                .map_err(|_| format!("{given:?} is no number"))?;
            number(read)
        }
        ("float", [Value::Text(given)]) => {
            let read = given
                .parse()
                .map_err(|_| format!("{given:?} is no number"))?;
            Ok(Value::Float(read))
        }
        ("float", [given]) => {
            let read = float(given).ok_or_else(|| format!("{given:?} is no number"))?;
            Ok(Value::Float(read))
        }
        ("string", [given]) => text(shown(given)),
        ("metadata", [Value::Text(key)]) => text(
            request
                .metadata
                .get(key.as_str())
                .cloned()
                .unwrap_or_default(),
        ),
        ("incidr", [Value::Text(address), Value::Text(prefix)]) => {
            let address: IpAddr = address
                .parse()
                .map_err(|_| format!("{address:?} is not an address"))?;
            let prefix: IpNet = prefix
                .parse()
                .map_err(|_| format!("{prefix:?} is not a prefix"))?;
            truth(prefix.contains(&address))
        }
        _ => Err(format!("{name} does not take {args:?}")),
    }
}
