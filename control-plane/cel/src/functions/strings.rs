//! Texts.

use crate::cost;
use crate::eval::{Evaluation, Failure, LIMIT, Outcome};
use crate::pattern::Pattern;
use crate::value::Value;

/// The longest text that an expression makes, in bytes.
const TEXT_MAX: usize = 4 << 20;

pub(super) fn call<'a>(
    evaluation: &mut Evaluation<'a>,
    name: &str,
    member: bool,
    values: &[Value<'a>],
) -> Result<Option<Value<'a>>, Failure> {
    if name == "join" && member {
        return join(evaluation, values).map(Some);
    }
    let Some(text) = values.first().and_then(Value::as_text) else {
        return Ok(None);
    };
    if !member && !matches!(name, "matches" | "strings.quote" | "jsonpatch.escapeKey") {
        return Ok(None);
    }
    let second = values.get(1).and_then(Value::as_text);
    let through = cost::hundredths(text.len() as u64, cost::TEXT);
    let int = |at: usize| match values.get(at) {
        Some(Value::Int(n)) => Some(*n),
        _ => None,
    };
    Ok(Some(match (name, second, values.len()) {
        ("contains", Some(part), 2) => {
            evaluation.spend(
                through
                    .saturating_mul(cost::hundredths(part.len() as u64, cost::TEXT))
                    .max(1),
            )?;
            Value::Bool(text.contains(part))
        }
        ("startsWith", Some(part), 2) => {
            evaluation.spend(cost::hundredths(part.len() as u64, cost::TEXT))?;
            Value::Bool(text.starts_with(part))
        }
        ("endsWith", Some(part), 2) => {
            evaluation.spend(cost::hundredths(part.len() as u64, cost::TEXT))?;
            Value::Bool(text.ends_with(part))
        }
        ("matches", Some(pattern), 2) => {
            Value::Bool(regex(evaluation, text, pattern)?.matches(text))
        }
        ("find", Some(pattern), 2) => {
            let pattern = regex(evaluation, text, pattern)?;
            let found = pattern.regex().and_then(|regex| regex.find(text));
            Value::text(found.map_or("", |found| found.as_str()))
        }
        ("findAll", Some(pattern), 2 | 3) => {
            let pattern = regex(evaluation, text, pattern)?;
            let most = int(2).map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
            let all = pattern.regex().map(|regex| {
                regex
                    .find_iter(text)
                    .take(most)
                    .map(|m| Value::text(m.as_str()))
                    .collect()
            });
            Value::list(all.unwrap_or_default())
        }
        ("charAt", None, 2) => {
            evaluation.spend(1)?;
            let at = int(1).and_then(|n| usize::try_from(n).ok());
            let at = at.filter(|at| *at <= text.chars().count());
            let at = at.ok_or_else(|| {
                Failure::new(format!("index out of range: {}", int(1).unwrap_or(0)))
            })?;
            Value::text(text.chars().nth(at).map(String::from).unwrap_or_default())
        }
        ("indexOf" | "lastIndexOf", Some(part), 2 | 3) => {
            evaluation.spend(
                through.saturating_mul(cost::hundredths(part.len() as u64, cost::TEXT).max(1)),
            )?;
            index_of(name, text, part, int(2))?
        }
        ("lowerAscii", None, 1) => made(evaluation, through, text.to_ascii_lowercase())?,
        ("upperAscii", None, 1) => made(evaluation, through, text.to_ascii_uppercase())?,
        ("trim", None, 1) => made(evaluation, through, text.trim().to_owned())?,
        ("substring", None, 2 | 3) => {
            let count = text.chars().count();
            let to = int(2).unwrap_or_else(|| i64::try_from(count).unwrap_or(i64::MAX));
            let bounds = |n: i64| usize::try_from(n).ok().filter(|n| *n <= count);
            let (Some(from), Some(end)) = (int(1).and_then(bounds), bounds(to)) else {
                return Err(Failure::new(format!(
                    "index out of range: {}",
                    int(1).unwrap_or(to)
                )));
            };
            if from > end {
                return Err(Failure::new(format!(
                    "invalid substring range. start: {from}, end: {end}"
                )));
            }
            made(
                evaluation,
                through,
                text.chars().skip(from).take(end - from).collect(),
            )?
        }
        ("replace", Some(from), 3 | 4) => {
            let Some(to) = values[2].as_text() else {
                return Ok(None);
            };
            let most = match int(3) {
                Some(n) if n >= 0 => usize::try_from(n).unwrap_or(usize::MAX),
                _ => usize::MAX,
            };
            // Bounded before it is made.
            let times = if from.is_empty() {
                text.chars().count() + 1
            } else {
                text.matches(from).count()
            }
            .min(most);
            if text.len().saturating_add(times.saturating_mul(to.len())) > TEXT_MAX {
                return Err(Failure::new(LIMIT));
            }
            made(evaluation, through, text.replacen(from, to, times))?
        }
        ("split", Some(separator), 2 | 3) => {
            evaluation.spend(through)?;
            let limit = int(2).unwrap_or(-1);
            let parts: Vec<Value<'a>> = match usize::try_from(limit) {
                Ok(0) => Vec::new(),
                Ok(limit) if separator.is_empty() => {
                    let mut rest = text.chars();
                    let mut parts: Vec<Value<'a>> = rest
                        .by_ref()
                        .take(limit - 1)
                        .map(|c| Value::text(c.to_string()))
                        .collect();
                    parts.push(Value::text(rest.as_str()));
                    parts
                }
                Ok(limit) => text.splitn(limit, separator).map(Value::text).collect(),
                Err(_) if separator.is_empty() => {
                    text.chars().map(|c| Value::text(c.to_string())).collect()
                }
                Err(_) => text.split(separator).map(Value::text).collect(),
            };
            Value::list(parts)
        }
        ("strings.quote", None, 1) => {
            let quoted = serde_json::Value::from(text).to_string();
            made(evaluation, through, quoted)?
        }
        // As RFC 6901 escapes a name in a pointer.
        ("jsonpatch.escapeKey", None, 1) => {
            let escaped = text.replace('~', "~0").replace('/', "~1");
            made(evaluation, through, escaped)?
        }
        ("format", None, 2) => {
            let Some(args) = values[1].items() else {
                return Ok(None);
            };
            evaluation.spend(through)?;
            let formatted = format(text, &args)?;
            made(
                evaluation,
                cost::hundredths(formatted.len() as u64, cost::TEXT),
                formatted,
            )?
        }
        _ => return Ok(None),
    }))
}

fn made<'a>(evaluation: &mut Evaluation<'a>, cost: u64, text: String) -> Outcome<'a> {
    evaluation.spend(cost)?;
    Ok(Value::String(text.into()))
}

fn regex(
    evaluation: &mut Evaluation<'_>,
    text: &str,
    pattern: &str,
) -> Result<std::sync::Arc<Pattern>, Failure> {
    let states = cost::hundredths(pattern.len() as u64, cost::REGEX);
    let through = cost::hundredths(text.len() as u64 + 1, cost::TEXT);
    evaluation.spend(states.saturating_mul(through))?;
    Pattern::new(pattern).map_err(Failure::new)
}

fn index_of<'a>(name: &str, text: &str, part: &str, from: Option<i64>) -> Outcome<'a> {
    let chars = |bytes: usize| i64::try_from(text[..bytes].chars().count()).unwrap_or(i64::MAX);
    let byte = |index: i64| -> Result<usize, Failure> {
        let out = || Failure::new(format!("index out of range: {index}"));
        let index = usize::try_from(index).map_err(|_| out())?;
        if index == text.chars().count() {
            return Ok(text.len());
        }
        text.char_indices()
            .nth(index)
            .map(|(at, _)| at)
            .ok_or_else(out)
    };
    let found = match (name, from) {
        ("indexOf", None) => text.find(part),
        ("indexOf", Some(from)) => {
            let from = byte(from)?;
            text[from..].find(part).map(|at| at + from)
        }
        (_, None) => text.rfind(part),
        (_, Some(last)) => {
            let last = byte(last)?;
            let end = last.saturating_add(part.len()).min(text.len());
            let end = (end..=text.len())
                .find(|end| text.is_char_boundary(*end))
                .unwrap_or(text.len());
            text[..end].rfind(part)
        }
    };
    Ok(Value::Int(found.map_or(-1, chars)))
}

fn join<'a>(evaluation: &mut Evaluation<'a>, values: &[Value<'a>]) -> Outcome<'a> {
    let (Some(items), separator) = (
        values.first().and_then(Value::items),
        values.get(1).and_then(Value::as_text).unwrap_or(""),
    ) else {
        return super::no_overload();
    };
    let mut out = String::new();
    for (index, item) in items.iter().enumerate() {
        let Some(text) = item.as_text() else {
            return super::no_overload();
        };
        if out.len() + text.len() + separator.len() > TEXT_MAX {
            return Err(Failure::new(LIMIT));
        }
        if index > 0 {
            out.push_str(separator);
        }
        out.push_str(text);
    }
    let cost = cost::hundredths(out.len() as u64, cost::TEXT).max(1);
    made(evaluation, cost, out)
}

/// `%s %d %f %e %b %o %x %X`, with a precision before `f` and `e`.
fn format(text: &str, args: &[Value<'_>]) -> Result<String, Failure> {
    let mut out = String::new();
    let mut args = args.iter();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        if chars.peek() == Some(&'%') {
            chars.next();
            out.push('%');
            continue;
        }
        let mut precision: usize = 6;
        if chars.peek() == Some(&'.') {
            chars.next();
            let mut digits = String::new();
            while let Some(digit) = chars.peek().filter(|c| c.is_ascii_digit()) {
                digits.push(*digit);
                chars.next();
            }
            precision = digits
                .parse()
                .ok()
                .filter(|p| *p <= 100)
                .ok_or_else(|| Failure::new("could not parse formatting clause: precision"))?;
        }
        let verb = chars
            .next()
            .ok_or_else(|| Failure::new("unexpected end of format string"))?;
        let arg = args
            .next()
            .ok_or_else(|| Failure::new("index out of range in format string"))?;
        let shown = verb_of(verb, precision, arg).ok_or_else(|| {
            Failure::new(format!("could not parse formatting clause: unrecognized formatting clause \"{verb}\" for type {}", arg.type_name()))
        })?;
        if out.len() + shown.len() > TEXT_MAX {
            return Err(Failure::new(LIMIT));
        }
        out.push_str(&shown);
    }
    Ok(out)
}

fn verb_of(verb: char, precision: usize, arg: &Value<'_>) -> Option<String> {
    #[expect(
        clippy::cast_precision_loss,
        reason = "shown as a floating number by wish"
    )]
    let float = match arg {
        Value::Double(n) => Some(*n),
        Value::Int(n) => Some(*n as f64),
        Value::Uint(n) => Some(*n as f64),
        _ => None,
    };
    let signed = |n: i64, digits: &dyn Fn(u64) -> String| {
        let sign = if n < 0 { "-" } else { "" };
        format!("{sign}{}", digits(n.unsigned_abs()))
    };
    let whole = |digits: &dyn Fn(u64) -> String| match arg {
        Value::Int(n) => Some(signed(*n, digits)),
        Value::Uint(n) => Some(digits(*n)),
        Value::Bool(flag) => Some(digits(u64::from(*flag))),
        _ => None,
    };
    let octets = |upper: bool| {
        let bytes: &[u8] = match arg {
            Value::Bytes(bytes) => bytes,
            other => other.as_text()?.as_bytes(),
        };
        Some(
            bytes
                .iter()
                .map(|b| {
                    if upper {
                        format!("{b:02X}")
                    } else {
                        format!("{b:02x}")
                    }
                })
                .collect(),
        )
    };
    match verb {
        's' => Some(arg.shown()),
        'd' => match arg {
            Value::Int(_) | Value::Uint(_) | Value::Double(_) => Some(arg.shown()),
            _ => None,
        },
        'f' => float.map(|n| format!("{n:.precision$}")),
        'e' => float.map(|n| {
            let text = format!("{n:.precision$e}");
            let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
            let exponent: i32 = exponent.parse().unwrap_or(0);
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.abs())
        }),
        'b' => whole(&|n| format!("{n:b}")),
        'o' => whole(&|n| format!("{n:o}")),
        'x' => whole(&|n| format!("{n:x}")).or_else(|| octets(false)),
        'X' => whole(&|n| format!("{n:X}")).or_else(|| octets(true)),
        _ => None,
    }
}
