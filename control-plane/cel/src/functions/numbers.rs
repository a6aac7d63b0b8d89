//! Arithmetic and conversions.

use crate::cost;
use crate::eval::{Evaluation, Failure, Outcome};
use crate::literals::moment;
use crate::value::Value;

pub(super) fn call<'a>(
    evaluation: &mut Evaluation<'a>,
    name: &str,
    values: &[Value<'a>],
) -> Result<Option<Value<'a>>, Failure> {
    let found = match (name, values) {
        ("_+_" | "_-_" | "_*_" | "_/_" | "_%_", [a, b]) => arithmetic(evaluation, name, a, b)?,
        ("-_", [Value::Int(n)]) => n.checked_neg().map(Value::Int).ok_or_else(overflow)?,
        ("-_", [Value::Double(n)]) => Value::Double(-n),
        ("-_", [Value::Duration(n)]) => {
            n.checked_neg().map(Value::Duration).ok_or_else(overflow)?
        }
        ("size", [value]) => size(value)?,
        ("type", [value]) => Value::Type(value.type_name()),
        ("dyn", [value]) => value.clone(),
        (
            "int" | "uint" | "double" | "bool" | "string" | "bytes" | "timestamp" | "duration",
            [value],
        ) => {
            evaluation.spend(cost::hundredths(value.size(), cost::TEXT))?;
            convert(name, value)?
        }
        _ => return Ok(None),
    };
    evaluation.spend(1)?;
    Ok(Some(found))
}

fn overflow() -> Failure {
    Failure::new("integer overflow")
}

fn size<'a>(value: &Value<'a>) -> Outcome<'a> {
    let size = match value {
        Value::Text(text) => text.chars().count() as u64,
        Value::String(text) => text.chars().count() as u64,
        Value::Bytes(_)
        | Value::JsonList(..)
        | Value::List(_)
        | Value::JsonMap(..)
        | Value::Map(_) => value.size(),
        _ => return super::no_overload(),
    };
    Ok(Value::Int(i64::try_from(size).unwrap_or(i64::MAX)))
}

fn arithmetic<'a>(
    evaluation: &mut Evaluation<'a>,
    name: &str,
    a: &Value<'a>,
    b: &Value<'a>,
) -> Outcome<'a> {
    use Value::{Bytes, Double, Duration, Int, JsonList, List, Timestamp, Uint};
    if name == "_+_"
        && let (Some(left), Some(right)) = (a.as_text(), b.as_text())
    {
        evaluation.spend(cost::hundredths(
            (left.len() + right.len()) as u64,
            cost::TEXT,
        ))?;
        return Ok(Value::text(format!("{left}{right}")));
    }
    let value = match (a, b) {
        (Int(a), Int(b)) => Int(match name {
            "_+_" => a.checked_add(*b).ok_or_else(overflow)?,
            "_-_" => a.checked_sub(*b).ok_or_else(overflow)?,
            "_*_" => a.checked_mul(*b).ok_or_else(overflow)?,
            "_/_" if *b == 0 => return Err(Failure::new("division by zero")),
            "_/_" => a.checked_div(*b).ok_or_else(overflow)?,
            _ if *b == 0 => return Err(Failure::new("modulus by zero")),
            _ => a.checked_rem(*b).ok_or_else(overflow)?,
        }),
        (Uint(a), Uint(b)) => {
            let overflow = || Failure::new("unsigned integer overflow");
            Uint(match name {
                "_+_" => a.checked_add(*b).ok_or_else(overflow)?,
                "_-_" => a.checked_sub(*b).ok_or_else(overflow)?,
                "_*_" => a.checked_mul(*b).ok_or_else(overflow)?,
                "_/_" => a
                    .checked_div(*b)
                    .ok_or_else(|| Failure::new("division by zero"))?,
                _ => a
                    .checked_rem(*b)
                    .ok_or_else(|| Failure::new("modulus by zero"))?,
            })
        }
        (Double(a), Double(b)) => Double(match name {
            "_+_" => a + b,
            "_-_" => a - b,
            "_*_" => a * b,
            "_/_" => a / b,
            _ => return super::no_overload(),
        }),
        (Duration(a), Duration(b)) => Duration(match name {
            "_+_" => a.checked_add(*b).ok_or_else(overflow)?,
            "_-_" => a.checked_sub(*b).ok_or_else(overflow)?,
            _ => return super::no_overload(),
        }),
        (Timestamp(at), Duration(by)) | (Duration(by), Timestamp(at)) => {
            let by = time::Duration::nanoseconds(*by);
            let moved = match name {
                "_+_" => at.checked_add(by),
                "_-_" if matches!(a, Timestamp(_)) => at.checked_sub(by),
                _ => return super::no_overload(),
            };
            Timestamp(moved.ok_or_else(|| Failure::new("timestamp overflow"))?)
        }
        (Timestamp(a), Timestamp(b)) if name == "_-_" => {
            let span = (*a - *b).whole_nanoseconds();
            Duration(i64::try_from(span).map_err(|_| Failure::new("duration overflow"))?)
        }
        (Bytes(a), Bytes(b)) if name == "_+_" => {
            evaluation.spend(cost::hundredths((a.len() + b.len()) as u64, cost::TEXT))?;
            Bytes([&**a, &**b].concat().into())
        }
        (JsonList(..) | List(_), JsonList(..) | List(_)) if name == "_+_" => {
            let mut items = a.items().unwrap_or_default();
            let more = b.items().unwrap_or_default();
            evaluation.spend(cost::hundredths(
                (items.len() + more.len()) as u64,
                cost::TEXT,
            ))?;
            items.extend(more);
            Value::list(items)
        }
        _ => return super::no_overload(),
    };
    Ok(value)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "ranges are looked at before"
)]
fn convert<'a>(name: &str, value: &Value<'a>) -> Outcome<'a> {
    use Value::{Bool, Bytes, Double, Duration, Int, Timestamp, Uint};
    let range = || Failure::new("integer overflow");
    let text = value.as_text();
    let bad = |what: &str| Failure::new(format!("type conversion error from 'string' to '{what}'"));
    Ok(match (name, value) {
        ("int", Int(_)) | ("uint", Uint(_)) | ("double", Double(_)) | ("bool", Bool(_)) => {
            value.clone()
        }
        ("bytes", Bytes(_)) | ("timestamp", Timestamp(_)) | ("duration", Duration(_)) => {
            value.clone()
        }
        ("int", Uint(n)) => Int(i64::try_from(*n).map_err(|_| range())?),
        ("int", Double(n)) if n.abs() < 9.223_372_036_854_775e18 => Int(*n as i64),
        ("int", Double(_)) => return Err(range()),
        ("int", Timestamp(at)) => Int(at.unix_timestamp()),
        ("int", Duration(nanos)) => Int(*nanos),
        ("uint", Int(n)) => Uint(u64::try_from(*n).map_err(|_| range())?),
        ("uint", Double(n)) if (0.0..1.844_674_407_370_955e19).contains(n) => Uint(*n as u64),
        ("uint", Double(_)) => return Err(range()),
        ("double", Int(n)) => Double(*n as f64),
        ("double", Uint(n)) => Double(*n as f64),
        ("timestamp", Int(n)) => Timestamp(
            time::OffsetDateTime::from_unix_timestamp(*n)
                .map_err(|_| Failure::new("timestamp overflow"))?,
        ),
        ("duration", Int(n)) => Duration(*n),
        ("string", Bytes(bytes)) => {
            let text = std::str::from_utf8(bytes)
                .map_err(|_| Failure::new("invalid UTF-8 in bytes, cannot convert to string"))?;
            Value::text(text)
        }
        (
            "string",
            Value::Optional(_)
            | Value::JsonList(..)
            | Value::List(_)
            | Value::JsonMap(..)
            | Value::Map(_)
            | Value::Null,
        ) => {
            return super::no_overload();
        }
        ("string", other) => match other {
            Value::Text(_) | Value::String(_) => other.clone(),
            other => Value::text(other.shown()),
        },
        (_, _) => {
            let Some(text) = text else {
                return super::no_overload();
            };
            match name {
                "int" => Int(text.parse().map_err(|_| bad("int"))?),
                "uint" => Uint(text.parse().map_err(|_| bad("uint"))?),
                "double" => Double(text.parse().map_err(|_| bad("double"))?),
                "bool" => match text {
                    "1" | "t" | "T" | "true" | "TRUE" | "True" => Bool(true),
                    "0" | "f" | "F" | "false" | "FALSE" | "False" => Bool(false),
                    _ => return Err(bad("bool")),
                },
                "bytes" => Bytes(text.as_bytes().into()),
                "timestamp" => Timestamp(moment(text).ok_or_else(|| bad("timestamp"))?),
                _ => Duration(crate::duration::parse(text).ok_or_else(|| bad("duration"))?),
            }
        }
    })
}
