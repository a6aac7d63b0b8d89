//! What functions do, once their arguments have values.

mod kubernetes;
mod lists;
mod numbers;
mod strings;
mod times;

use crate::authorizer;
use crate::cost;
use crate::eval::{Evaluation, Failure, Outcome};
use crate::value::{Value, compare, equal};

/// The arguments did not have the types that any overload takes.
pub(crate) fn no_overload<'a>() -> Outcome<'a> {
    Err(Failure::new("no such overload"))
}

/// Calls a function; with `member` the first value is the target.
pub(crate) fn call<'a>(
    evaluation: &mut Evaluation<'a>,
    name: &str,
    member: bool,
    values: Vec<Value<'a>>,
) -> Outcome<'a> {
    match (name, values.as_slice()) {
        ("_==_" | "_!=_" | "_<_" | "_<=_" | "_>_" | "_>=_", [a, b]) => {
            evaluation.spend(cost::hundredths(a.size().min(b.size()), cost::TEXT).max(1))?;
            return relation(name, a, b);
        }
        ("@in", [a, b]) => {
            evaluation.spend(b.size().max(1))?;
            return contained(a, b);
        }
        ("!_", [Value::Bool(flag)]) => {
            evaluation.spend(1)?;
            return Ok(Value::Bool(!flag));
        }
        _ => {}
    }
    if let Some(found) = authorizer::call(evaluation, name, &values)? {
        return Ok(found);
    }
    if let Some(found) = numbers::call(evaluation, name, &values)? {
        return Ok(found);
    }
    if let Some(found) = strings::call(evaluation, name, member, &values)? {
        return Ok(found);
    }
    if let Some(found) = lists::call(evaluation, name, member, &values)? {
        return Ok(found);
    }
    if let Some(found) = kubernetes::call(evaluation, name, member, &values)? {
        return Ok(found);
    }
    if let Some(found) = optional(name, &values)? {
        evaluation.spend(1)?;
        return Ok(found);
    }
    if let Some(found) = times::call(evaluation, name, &values)? {
        return Ok(found);
    }
    no_overload()
}

fn relation<'a>(name: &str, a: &Value<'a>, b: &Value<'a>) -> Outcome<'a> {
    use std::cmp::Ordering::{Equal, Greater, Less};
    match name {
        "_==_" => return Ok(Value::Bool(equal(a, b))),
        "_!=_" => return Ok(Value::Bool(!equal(a, b))),
        _ => {}
    }
    let order = match compare(a, b) {
        Some(order) => order,
        None if matches!((a, b), (Value::Double(_), _) | (_, Value::Double(_))) => {
            return Ok(Value::Bool(false));
        }
        None => return no_overload(),
    };
    Ok(Value::Bool(match name {
        "_<_" => order == Less,
        "_<=_" => order != Greater,
        "_>_" => order == Greater,
        _ => matches!(order, Greater | Equal),
    }))
}

fn contained<'a>(a: &Value<'a>, b: &Value<'a>) -> Outcome<'a> {
    match b {
        Value::JsonList(..) | Value::List(_) => {
            let items = b.items().unwrap_or_default();
            Ok(Value::Bool(items.iter().any(|item| equal(item, a))))
        }
        Value::JsonMap(..) | Value::Map(_) => Ok(Value::Bool(b.get(a).is_some())),
        _ => no_overload(),
    }
}

fn optional<'a>(name: &str, values: &[Value<'a>]) -> Result<Option<Value<'a>>, Failure> {
    Ok(Some(match (name, values) {
        ("optional.none", []) => Value::Optional(None),
        ("optional.of", [value]) => Value::some(value.clone()),
        ("optional.ofNonZeroValue", [value]) => {
            let zero = match value {
                Value::Null
                | Value::Bool(false)
                | Value::Int(0)
                | Value::Uint(0)
                | Value::Duration(0) => true,
                Value::Double(n) => *n == 0.0,
                Value::Text(_) | Value::String(_) | Value::Bytes(_) => value.size() == 0,
                Value::JsonList(..) | Value::List(_) | Value::JsonMap(..) | Value::Map(_) => {
                    value.size() == 0
                }
                _ => false,
            };
            if zero {
                Value::Optional(None)
            } else {
                Value::some(value.clone())
            }
        }
        ("hasValue", [Value::Optional(inner)]) => Value::Bool(inner.is_some()),
        ("value", [Value::Optional(inner)]) => match inner {
            Some(inner) => (**inner).clone(),
            None => return Err(Failure::new("optional.none() dereference")),
        },
        ("orValue", [Value::Optional(inner), other]) => match inner {
            Some(inner) => (**inner).clone(),
            None => other.clone(),
        },
        ("or", [Value::Optional(inner), other @ Value::Optional(_)]) => match inner {
            Some(_) => values[0].clone(),
            None => other.clone(),
        },
        _ => return Ok(None),
    }))
}
