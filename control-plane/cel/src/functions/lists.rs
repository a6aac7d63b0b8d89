//! Lists and sets.

use std::cmp::Ordering;

use crate::cost;
use crate::eval::{Evaluation, Failure, LIMIT};
use crate::value::{Value, compare, equal};

pub(super) fn call<'a>(
    evaluation: &mut Evaluation<'a>,
    name: &str,
    member: bool,
    values: &[Value<'a>],
) -> Result<Option<Value<'a>>, Failure> {
    if let ("sets.contains" | "sets.intersects" | "sets.equivalent", [a, b]) = (name, values) {
        let (Some(left), Some(right)) = (a.items(), b.items()) else {
            return Ok(None);
        };
        evaluation.spend(
            (left.len() as u64)
                .saturating_mul(right.len() as u64)
                .max(1),
        )?;
        let within = |some: &[Value<'a>], all: &[Value<'a>]| {
            some.iter()
                .all(|item| all.iter().any(|other| equal(item, other)))
        };
        return Ok(Some(Value::Bool(match name {
            "sets.contains" => within(&right, &left),
            "sets.intersects" => left
                .iter()
                .any(|item| right.iter().any(|other| equal(item, other))),
            _ => within(&left, &right) && within(&right, &left),
        })));
    }
    if let ("lists.range", [Value::Int(count)]) = (name, values) {
        let count = u64::try_from(*count).unwrap_or(0);
        evaluation.spend(count)?;
        return Ok(Some(Value::list(
            (0..)
                .map(Value::Int)
                .take(usize::try_from(count).unwrap_or(0))
                .collect(),
        )));
    }
    let Some(items) = values
        .first()
        .filter(|_| member)
        .and_then(|value| match value {
            Value::JsonList(..) | Value::List(_) => value.items(),
            _ => None,
        })
    else {
        return Ok(None);
    };
    let each: u64 = items
        .iter()
        .map(|item| match item {
            Value::Text(_) | Value::String(_) | Value::Bytes(_) => {
                cost::hundredths(item.size(), cost::TEXT).max(1)
            }
            _ => 1,
        })
        .sum();
    Ok(Some(match (name, &values[1..]) {
        ("isSorted", []) => {
            evaluation.spend(each)?;
            let mut sorted = true;
            for pair in items.windows(2) {
                sorted &= order(&pair[0], &pair[1])? != Ordering::Greater;
            }
            Value::Bool(sorted)
        }
        ("sum", []) => {
            evaluation.spend(each)?;
            let mut sum: Option<Value<'a>> = None;
            for item in items {
                sum = Some(match sum {
                    None => item,
                    Some(sum) => super::call(evaluation, "_+_", false, vec![sum, item])?,
                });
            }
            sum.unwrap_or(Value::Int(0))
        }
        ("min" | "max", []) => {
            evaluation.spend(each)?;
            let wanted = if name == "min" {
                Ordering::Less
            } else {
                Ordering::Greater
            };
            let mut best: Option<Value<'a>> = None;
            for item in items {
                let better = match &best {
                    None => true,
                    Some(best) => order(&item, best)? == wanted,
                };
                if better {
                    best = Some(item);
                }
            }
            best.ok_or_else(|| Failure::new(format!("{name} called on empty list")))?
        }
        ("indexOf", [wanted]) => {
            evaluation.spend(each)?;
            position(items.iter().position(|item| equal(item, wanted)))
        }
        ("lastIndexOf", [wanted]) => {
            evaluation.spend(each)?;
            position(items.iter().rposition(|item| equal(item, wanted)))
        }
        ("first", []) => items
            .into_iter()
            .next()
            .map_or(Value::Optional(None), Value::some),
        ("last", []) => items
            .into_iter()
            .next_back()
            .map_or(Value::Optional(None), Value::some),
        ("reverse", []) => {
            evaluation.spend(each)?;
            Value::list(items.into_iter().rev().collect())
        }
        ("distinct", []) => {
            evaluation.spend(each.saturating_mul(items.len() as u64))?;
            let mut seen: Vec<Value<'a>> = Vec::new();
            for item in items {
                if !seen.iter().any(|known| equal(known, &item)) {
                    seen.push(item);
                }
            }
            Value::list(seen)
        }
        ("sort", []) => {
            evaluation.spend(each.saturating_mul(2))?;
            for pair in items.windows(2) {
                order(&pair[0], &pair[1])?;
            }
            let mut items = items;
            items.sort_by(|a, b| compare(a, b).unwrap_or(Ordering::Equal));
            Value::list(items)
        }
        ("slice", [Value::Int(from), Value::Int(to)]) => {
            evaluation.spend(items.len() as u64)?;
            let bounds = |n: i64| usize::try_from(n).ok().filter(|n| *n <= items.len());
            match (bounds(*from), bounds(*to)) {
                (Some(from), Some(to)) if from <= to => Value::list(items[from..to].to_vec()),
                _ => {
                    return Err(Failure::new(format!(
                        "cannot slice({from}, {to}), list is length {}",
                        items.len()
                    )));
                }
            }
        }
        ("flatten", rest) => {
            let depth = match rest {
                [] => 1,
                [Value::Int(depth)] if (0..=64).contains(depth) => *depth,
                _ => return Err(Failure::new("flatten: level must be between 0 and 64")),
            };
            let mut out = Vec::new();
            flatten(evaluation, items, depth, &mut out)?;
            Value::list(out)
        }
        _ => return Ok(None),
    }))
}

fn order(a: &Value<'_>, b: &Value<'_>) -> Result<Ordering, Failure> {
    compare(a, b).ok_or_else(|| Failure::new("no such overload"))
}

fn position<'a>(found: Option<usize>) -> Value<'a> {
    Value::Int(found.and_then(|at| i64::try_from(at).ok()).unwrap_or(-1))
}

fn flatten<'a>(
    evaluation: &mut Evaluation<'a>,
    items: Vec<Value<'a>>,
    depth: i64,
    out: &mut Vec<Value<'a>>,
) -> Result<(), Failure> {
    for item in items {
        evaluation.spend(1)?;
        match item.items() {
            Some(inner) if depth > 0 => flatten(evaluation, inner, depth - 1, out)?,
            _ => out.push(item),
        }
        if out.len() > 1_000_000 {
            return Err(Failure::new(LIMIT));
        }
    }
    Ok(())
}
