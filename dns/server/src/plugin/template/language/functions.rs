//! The functions of templates, and what values are in them.

use super::Value;

pub(super) const FUNCTIONS: [&str; 17] = [
    "and", "eq", "ge", "gt", "index", "le", "len", "lt", "ne", "not", "or", "parseInt", "print",
    "printf", "println", "slice", "urlquery",
];

pub(super) fn truth(value: &Value) -> bool {
    match value {
        Value::Text(text) => !text.is_empty(),
        Value::Number(number) => *number != 0,
        Value::Bool(truth) => *truth,
        Value::List(list) => !list.is_empty(),
        Value::Map(map) => !map.is_empty(),
        Value::Struct(_) => true,
    }
}

pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Text(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(truth) => truth.to_string(),
        Value::List(list) => format!("[{}]", list.iter().map(text).collect::<Vec<_>>().join(" ")),
        Value::Map(map) => {
            let pairs: Vec<String> = map
                .iter()
                .map(|(key, value)| format!("{key}:{}", text(value)))
                .collect();
            format!("map[{}]", pairs.join(" "))
        }
        Value::Struct(fields) => {
            let fields: Vec<String> = fields.values().map(text).collect();
            format!("{{{}}}", fields.join(" "))
        }
    }
}

fn number(value: &Value) -> Result<i64, String> {
    match value {
        Value::Number(number) => Ok(*number),
        other => text(other)
            .parse()
            .map_err(|_| format!("{:?} is not a number", text(other))),
    }
}

pub(super) fn call(name: &str, args: &[Value]) -> Result<Value, String> {
    let compare = |accept: fn(std::cmp::Ordering) -> bool| match args {
        [Value::Number(a), Value::Number(b)] => Ok(Value::Bool(accept(a.cmp(b)))),
        [a, b] => Ok(Value::Bool(accept(text(a).cmp(&text(b))))),
        _ => Err(format!("{name} compares two values")),
    };
    match (name, args) {
        ("and", [first, ..]) => {
            let last = args.last().unwrap_or(first);
            Ok(args
                .iter()
                .find(|value| !truth(value))
                .unwrap_or(last)
                .clone())
        }
        ("or", [first, ..]) => {
            let last = args.last().unwrap_or(first);
            Ok(args
                .iter()
                .find(|value| truth(value))
                .unwrap_or(last)
                .clone())
        }
        ("not", [value]) => Ok(Value::Bool(!truth(value))),
        ("eq", [first, others @ ..]) if !others.is_empty() => Ok(Value::Bool(
            others.iter().any(|other| text(other) == text(first)),
        )),
        ("ne", [a, b]) => Ok(Value::Bool(text(a) != text(b))),
        ("lt", _) => compare(std::cmp::Ordering::is_lt),
        ("le", _) => compare(std::cmp::Ordering::is_le),
        ("gt", _) => compare(std::cmp::Ordering::is_gt),
        ("ge", _) => compare(std::cmp::Ordering::is_ge),
        ("len", [Value::List(list)]) => {
            Ok(Value::Number(i64::try_from(list.len()).unwrap_or(i64::MAX)))
        }
        ("len", [Value::Map(map)]) => {
            Ok(Value::Number(i64::try_from(map.len()).unwrap_or(i64::MAX)))
        }
        ("len", [value]) => Ok(Value::Number(
            i64::try_from(text(value).len()).unwrap_or(i64::MAX),
        )),
        ("index", [first, keys @ ..]) => keys.iter().try_fold(first.clone(), index),
        ("slice", [first, ends @ ..]) if ends.len() <= 2 => slice(first, ends),
        ("parseInt", [value, base, ..]) => {
            let base = u32::try_from(number(base)?)
                .ok()
                .filter(|base| (2..=36).contains(base));
            let base = base.ok_or("parseInt: the base is not from 2 to 36")?;
            let found = i64::from_str_radix(&text(value), base);
            found
                .map(Value::Number)
                .map_err(|error| format!("parseInt {:?}: {error}", text(value)))
        }
        ("print", args) => Ok(Value::Text(printed(args))),
        ("println", args) => {
            let texts: Vec<String> = args.iter().map(text).collect();
            Ok(Value::Text(texts.join(" ") + "\n"))
        }
        ("urlquery", args) => Ok(Value::Text(escaped(&printed(args)))),
        ("printf", [format, args @ ..]) => printf(&text(format), args).map(Value::Text),
        _ => Err(format!(
            "{name} does not take these {} arguments",
            args.len()
        )),
    }
}

/// As Go's Sprint: a space between two of which neither is a text. (Sprintln has one everywhere.)
fn printed(values: &[Value]) -> String {
    let mut out = String::new();
    let mut before = None;
    for value in values {
        let is_text = matches!(value, Value::Text(_));
        if before == Some(false) && !is_text {
            out.push(' ');
        }
        out.push_str(&text(value));
        before = Some(is_text);
    }
    out
}

/// An element of a list, or of a map: as Go, a key that is missing is empty.
fn index(of: Value, key: &Value) -> Result<Value, String> {
    match of {
        Value::List(list) => {
            let at = usize::try_from(number(key)?).unwrap_or(usize::MAX);
            list.get(at)
                .cloned()
                .ok_or_else(|| format!("there is no element {at} of {}", list.len()))
        }
        Value::Map(map) => {
            let found = map.get(&text(key)).cloned();
            Ok(found.unwrap_or(Value::Text(String::new())))
        }
        _ => Err("index of what is neither list nor map".to_owned()),
    }
}

/// A part of a list or, by octets, of a text.
fn slice(of: &Value, ends: &[Value]) -> Result<Value, String> {
    let length = match of {
        Value::List(list) => list.len(),
        Value::Text(text) => text.len(),
        _ => return Err("slice of what is neither list nor text".to_owned()),
    };
    let end = |at: usize, missing: usize| match ends.get(at) {
        None => Ok(missing),
        Some(value) => Ok::<_, String>(usize::try_from(number(value)?).unwrap_or(usize::MAX)),
    };
    let (from, to) = (end(0, 0)?, end(1, length)?);
    let outside = || format!("there is no part {from}:{to} of {length}");
    match of {
        Value::List(list) => list.get(from..to).map(|part| Value::List(part.to_vec())),
        Value::Text(text) => text.get(from..to).map(|part| Value::Text(part.to_owned())),
        _ => None,
    }
    .ok_or_else(outside)
}

/// As the query of a URL has it.
fn escaped(text: &str) -> String {
    let octet = |octet: u8| match octet {
        b' ' => "+".to_owned(),
        octet if octet.is_ascii_alphanumeric() || b"-_.~".contains(&octet) => {
            char::from(octet).to_string()
        }
        octet => format!("%{octet:02X}"),
    };
    text.bytes().map(octet).collect()
}

/// Go's verbs `%s %v %d %x %X %o %b %q %c %%` with a width, `-` and `0`.
fn printf(format: &str, args: &[Value]) -> Result<String, String> {
    let mut out = String::new();
    let mut args = args.iter();
    let mut chars = format.chars().peekable();
    while let Some(character) = chars.next() {
        if character != '%' {
            out.push(character);
            continue;
        }
        let (mut left, mut zero, mut width) = (false, false, 0usize);
        while let Some(flag) = chars.next_if(|next| matches!(next, '-' | '0' | '+' | ' ')) {
            left |= flag == '-';
            zero |= flag == '0';
        }
        while let Some(digit) = chars.peek().and_then(|next| next.to_digit(10)) {
            chars.next();
            width = (width * 10 + digit as usize).min(255);
        }
        let verb = chars.next().ok_or("printf: a verb is missing after %")?;
        if verb == '%' {
            out.push('%');
            continue;
        }
        let value = args.next().ok_or("printf: fewer values than verbs")?;
        let shown = match verb {
            's' | 'v' => text(value),
            'q' => format!("{:?}", text(value)),
            'd' => number(value)?.to_string(),
            'x' => match value {
                Value::Text(text) => text.bytes().map(|octet| format!("{octet:02x}")).collect(),
                other => format!("{:x}", number(other)?),
            },
            'X' => format!("{:X}", number(value)?),
            'o' => format!("{:o}", number(value)?),
            'b' => format!("{:b}", number(value)?),
            'c' => u32::try_from(number(value)?)
                .ok()
                .and_then(char::from_u32)
                .map(String::from)
                .unwrap_or_default(),
            other => return Err(format!("printf: unknown verb %{other}")),
        };
        let missing = width.saturating_sub(shown.chars().count());
        let fill = |with: &str| with.repeat(missing);
        match (left, zero) {
            (true, _) => out.push_str(&(shown + &fill(" "))),
            (false, true) => out.push_str(&(fill("0") + &shown)),
            (false, false) => out.push_str(&(fill(" ") + &shown)),
        }
    }
    Ok(out)
}
