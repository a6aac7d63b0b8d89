//! Expressions over requests, evaluated.

use std::cmp::Ordering;

use regex::Regex;

use super::functions;
use super::parser::parse;
use crate::message::Request;

/// Elements of a list that a range makes.
const RANGE_MAX: i64 = 100_000;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Text(String),
    Number(i64),
    Float(f64),
    Bool(bool),
    List(Vec<Value>),
}

#[derive(Clone, Debug)]
pub(super) enum Node {
    Value(Value),
    List(Vec<Node>),
    Call(String, Vec<Node>),
    /// A function that asks a predicate of each element.
    Each(String, Box<[Node; 2]>),
    /// The element that a predicate is asked of.
    Element,
    /// A value that has a name in the other one.
    Let(Box<[Node; 2]>),
    /// A value with a name, counted outwards.
    Named(usize),
    Not(Box<Node>),
    Minus(Box<Node>),
    Binary(&'static str, Box<[Node; 2]>),
    Matches(Box<Node>, Regex),
    Choice(Box<[Node; 3]>),
    Index(Box<[Node; 2]>),
    /// From the first to before the second, where they are given.
    Slice(Box<Node>, Box<[Option<Node>; 2]>),
}

/// An expression, read.
#[derive(Clone, Debug)]
pub(super) struct Expression(Node);

impl Expression {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        parse(text).map(Self)
    }

    pub(super) fn holds(&self, request: &Request) -> Result<bool, String> {
        let scope = Scope {
            request,
            element: None,
            named: None,
        };
        truth(&self.0, scope)
    }
}

/// What an expression is about.
#[derive(Clone, Copy)]
struct Scope<'a> {
    request: &'a Request,
    element: Option<&'a Value>,
    named: Option<&'a Named<'a>>,
}

/// A value with a name, and those around it.
struct Named<'a> {
    value: Value,
    outer: Option<&'a Named<'a>>,
}

fn truth(node: &Node, scope: Scope<'_>) -> Result<bool, String> {
    match evaluate(node, scope)? {
        Value::Bool(truth) => Ok(truth),
        other => Err(format!("{other:?} is neither true nor false")),
    }
}

fn evaluate(node: &Node, scope: Scope<'_>) -> Result<Value, String> {
    match node {
        Node::Value(value) => Ok(value.clone()),
        Node::List(list) => all(list, scope).map(Value::List),
        Node::Element => scope
            .element
            .cloned()
            .ok_or("# outside a predicate".to_owned()),
        Node::Let(parts) => {
            let [value, user] = &**parts;
            let named = Named {
                value: evaluate(value, scope)?,
                outer: scope.named,
            };
            let within = Scope {
                named: Some(&named),
                ..scope
            };
            evaluate(user, within)
        }
        Node::Named(outwards) => {
            let mut around = std::iter::successors(scope.named, |named| named.outer);
            let found = around.nth(*outwards).map(|named| named.value.clone());
            found.ok_or("a name without a value".to_owned())
        }
        Node::Not(inner) => Ok(Value::Bool(!truth(inner, scope)?)),
        Node::Minus(inner) => match evaluate(inner, scope)? {
            Value::Number(number) => Ok(Value::Number(number.wrapping_neg())),
            Value::Float(number) => Ok(Value::Float(-number)),
            other => Err(format!("- does not take {other:?}")),
        },
        Node::Matches(inner, regex) => match evaluate(inner, scope)? {
            Value::Text(text) => Ok(Value::Bool(regex.is_match(&text))),
            other => Err(format!("{other:?} is no text to match")),
        },
        Node::Choice(parts) => {
            let [asked, then, otherwise] = &**parts;
            let chosen = if truth(asked, scope)? {
                then
            } else {
                otherwise
            };
            evaluate(chosen, scope)
        }
        Node::Binary(..) => chain(node, scope),
        Node::Index(parts) => {
            let [list, index] = &**parts;
            let (list, index) = (list_of(list, scope)?, number_of(index, scope)?);
            let found = position(index, list.len()).and_then(|at| list.get(at).cloned());
            found.ok_or_else(|| format!("there is no element {index} of {}", list.len()))
        }
        Node::Slice(whole, ends) => {
            let whole = evaluate(whole, scope)?;
            let length = match &whole {
                Value::Text(text) => text.len(),
                Value::List(list) => list.len(),
                other => return Err(format!("{other:?} is neither list nor text")),
            };
            let [from, to] = &**ends;
            let end = |end: &Option<Node>, missing: usize| match end {
                Some(end) => {
                    let index = number_of(end, scope)?;
                    let missing = if index < 0 { 0 } else { length };
                    Ok(position(index, length).unwrap_or(missing))
                }
                None => Ok::<_, String>(missing),
            };
            let (from, to) = (end(from, 0)?, end(to, length)?);
            Ok(match whole {
                Value::Text(text) => Value::Text(text.get(from..to).unwrap_or_default().to_owned()),
                Value::List(list) => Value::List(list.get(from..to).unwrap_or_default().to_vec()),
                other => other,
            })
        }
        Node::Call(name, args) => functions::call(name, &all(args, scope)?, scope.request),
        Node::Each(name, parts) => {
            let [list, predicate] = &**parts;
            each(name, list_of(list, scope)?, predicate, scope)
        }
    }
}

fn all(nodes: &[Node], scope: Scope<'_>) -> Result<Vec<Value>, String> {
    nodes.iter().map(|node| evaluate(node, scope)).collect()
}

fn list_of(node: &Node, scope: Scope<'_>) -> Result<Vec<Value>, String> {
    match evaluate(node, scope)? {
        Value::List(list) => Ok(list),
        other => Err(format!("{other:?} is no list")),
    }
}

fn number_of(node: &Node, scope: Scope<'_>) -> Result<i64, String> {
    match evaluate(node, scope)? {
        Value::Number(number) => Ok(number),
        other => Err(format!("{other:?} is no whole number")),
    }
}

/// Where an index points in a list: from its end, if it is negative.
fn position(index: i64, length: usize) -> Option<usize> {
    let length = i64::try_from(length).ok()?;
    let at = if index < 0 { index + length } else { index };
    usize::try_from(at).ok().filter(|_| at <= length)
}

fn each(name: &str, list: Vec<Value>, predicate: &Node, scope: Scope<'_>) -> Result<Value, String> {
    let within = |element| Scope {
        element: Some(element),
        ..scope
    };
    if name == "map" {
        let mapped = list
            .iter()
            .map(|element| evaluate(predicate, within(element)));
        return mapped.collect::<Result<_, _>>().map(Value::List);
    }
    let mut fitting = Vec::new();
    let total = list.len();
    for element in &list {
        let fits = truth(predicate, within(element))?;
        match name {
            "any" if fits => return Ok(Value::Bool(true)),
            "all" if !fits => return Ok(Value::Bool(false)),
            _ if fits => fitting.push(element.clone()),
            _ => {}
        }
    }
    match name {
        "all" => Ok(Value::Bool(fitting.len() == total)),
        "any" => Ok(Value::Bool(false)),
        "none" => Ok(Value::Bool(fitting.is_empty())),
        "one" => Ok(Value::Bool(fitting.len() == 1)),
        "count" => Ok(functions::count(fitting.len())),
        _ => Ok(Value::List(fitting)),
    }
}

/// What operators make of one operand after the other: however many there are, they are no deeper than one.
fn chain(mut node: &Node, scope: Scope<'_>) -> Result<Value, String> {
    let mut links = Vec::new();
    while let Node::Binary(sign, sides) = node {
        let [left, right] = &**sides;
        links.push((*sign, right));
        node = left;
    }
    let first = evaluate(node, scope)?;
    let mut links = links.into_iter().rev();
    links.try_fold(first, |left, (sign, right)| {
        binary(sign, left, right, scope)
    })
}

fn binary(sign: &str, left: Value, right: &Node, scope: Scope<'_>) -> Result<Value, String> {
    match (sign, left, right) {
        ("||" | "&&", Value::Bool(left), _) if left == (sign == "||") => Ok(Value::Bool(left)),
        ("||" | "&&", Value::Bool(_), _) => truth(right, scope).map(Value::Bool),
        ("||" | "&&", other, _) => Err(format!("{other:?} is neither true nor false")),
        // Without making a list of what lies between.
        ("in", left, Node::Binary("..", ends)) => {
            let [from, to] = &**ends;
            let ends = number_of(from, scope)?..=number_of(to, scope)?;
            let within = matches!(left, Value::Number(one) if ends.contains(&one));
            Ok(Value::Bool(within))
        }
        ("..", Value::Number(from), _) => range(from, number_of(right, scope)?),
        ("+" | "-" | "*" | "/" | "%" | "**", left, _) => {
            arithmetic(sign, left, evaluate(right, scope)?)
        }
        (_, left, _) => compare(sign, &left, &evaluate(right, scope)?).map(Value::Bool),
    }
}

fn range(from: i64, to: i64) -> Result<Value, String> {
    if to.saturating_sub(from) >= RANGE_MAX {
        return Err(format!("{from}..{to} has more than {RANGE_MAX} elements"));
    }
    Ok(Value::List((from..=to).map(Value::Number).collect()))
}

/// Calculates.
pub(super) fn arithmetic(sign: &str, a: Value, b: Value) -> Result<Value, String> {
    match (sign, &a, &b) {
        ("+", Value::Text(a), Value::Text(b)) => Ok(Value::Text(format!("{a}{b}"))),
        ("+", Value::Number(a), Value::Number(b)) => Ok(Value::Number(a.wrapping_add(*b))),
        ("-", Value::Number(a), Value::Number(b)) => Ok(Value::Number(a.wrapping_sub(*b))),
        ("*", Value::Number(a), Value::Number(b)) => Ok(Value::Number(a.wrapping_mul(*b))),
        ("%", Value::Number(_), Value::Number(0)) => Err("nothing is divided by 0".to_owned()),
        ("%", Value::Number(a), Value::Number(b)) => Ok(Value::Number(a.wrapping_rem(*b))),
        _ => {
            let wrong = || format!("{sign} does not take {a:?} and {b:?}");
            let (a, b) = float(&a).zip(float(&b)).ok_or_else(wrong)?;
            Ok(Value::Float(match sign {
                "+" => a + b,
                "-" => a - b,
                "*" => a * b,
                "/" => a / b,
                "**" => a.powf(b),
                _ => return Err(wrong()),
            }))
        }
    }
}

/// A number of either kind.
pub(super) fn float(value: &Value) -> Option<f64> {
    match value {
        #[expect(clippy::cast_precision_loss, reason = "as the language has it")]
        Value::Number(number) => Some(*number as f64),
        Value::Float(number) => Some(*number),
        Value::Text(_) | Value::Bool(_) | Value::List(_) => None,
    }
}

/// Which of two is greater, if they can be compared.
pub(super) fn order(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => Some(a.cmp(b)),
        (Value::Text(a), Value::Text(b)) => Some(a.cmp(b)),
        _ => float(a)?.partial_cmp(&float(b)?),
    }
}

fn compare(sign: &str, a: &Value, b: &Value) -> Result<bool, String> {
    let ordered =
        || order(a, b).ok_or_else(|| format!("{a:?} and {b:?} cannot be compared by {sign}"));
    let equal = |a: &Value, b: &Value| a == b || order(a, b) == Some(Ordering::Equal);
    match (sign, a, b) {
        ("==", a, b) => Ok(equal(a, b)),
        ("!=", a, b) => Ok(!equal(a, b)),
        ("<", ..) => Ok(ordered()?.is_lt()),
        ("<=", ..) => Ok(ordered()?.is_le()),
        (">", ..) => Ok(ordered()?.is_gt()),
        (">=", ..) => Ok(ordered()?.is_ge()),
        ("in", a, Value::List(list)) => Ok(list.iter().any(|one| equal(one, a))),
        ("contains", Value::List(list), b) => Ok(list.contains(b)),
        ("contains", Value::Text(a), Value::Text(b)) => Ok(a.contains(b.as_str())),
        ("startsWith", Value::Text(a), Value::Text(b)) => Ok(a.starts_with(b.as_str())),
        ("endsWith", Value::Text(a), Value::Text(b)) => Ok(a.ends_with(b.as_str())),
        _ => Err(format!("{sign} does not take {a:?} and {b:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Transport;
    use hickory_proto::op::Message;
    use hickory_proto::op::Query;
    use hickory_proto::rr::Name;
    use hickory_proto::rr::RecordType;

    fn request() -> Request {
        let mut message = Message::query();
        message.metadata.id = 2;
        message.add_query(Query::query(
            Name::from_ascii("A.example.org.").unwrap(),
            RecordType::A,
        ));
        let client = "10.1.2.3:4000".parse().unwrap();
        let local = "[::1]:53".parse().unwrap();
        Request::new(message, bytes::Bytes::new(), client, local, Transport::Tcp)
    }

    #[test]
    fn held() {
        let table = [
            ("incidr(client_ip(), '10.0.0.0/8')", true),
            ("incidr(client_ip(), '192.168.0.0/16')", false),
            ("type() == 'A' && proto() == \"tcp\"", true),
            (
                "type() in ['AAAA', 'MX'] || name() == 'a.example.org.'",
                true,
            ),
            ("type() not in ['AAAA', 'MX']", true),
            ("not (type() == 'A')", false),
            ("!!do()", false),
            ("name() matches '^a[.]ex' and bufsize() >= 512", true),
            ("name() endsWith '.org.' and name() startsWith 'b'", false),
            ("metadata('nothing') == ''", true),
            ("server_port() == '53' && class() != 'CH'", true),
            ("name() not contains 'com' && type() not matches '^M'", true),
            ("(proto() == 'tcp' ? len(name()) : 0) == 14", true),
            ("upper('a' + lower('B')) == 'AB' and 1 + 1 == 2", true),
            ("type() not startsWith 'A'", false),
            ("id() % 2 == 0", true),
            ("id() * 2 > 5", false),
            ("size() - 10 < 100", true),
            ("int(port()) in 1024..65535", true),
            ("int(port()) not in 1024..2048", true),
            ("any(['10.0.0.0/8'], {incidr(client_ip(), #)})", true),
            ("none(['10.0.0.0/8'], incidr(client_ip(), #))", false),
            (
                "all(1..3, # > 0) && one(1..3, # == 2) && count(1..9, # % 2 == 0) == 4",
                true,
            ),
            ("map(filter(1..9, {# > 7}), # * 2) == [16, 18]", true),
            (
                "1 + 2 * 3 ** 2 == 19 && 2 ^ 3 ^ 0 == 2 && 7 / 2 == 3.5",
                true,
            ),
            ("-2 ** 2 == -4 && 10 - 2 - 3 == 5 && -7 % 3 == -1", true),
            (
                "split(name(), '.')[0] == 'a' && split(name(), '.')[-2] == 'org'",
                true,
            ),
            ("[1, 2, 3][1:] == [2, 3] && [1, 2, 3][:-1] == 1..2", true),
            (
                "name()[0:1] == 'a' && name()[-4:] == 'org.' && name()[:99] == name() && name()[3:2] == ''",
                true,
            ),
            (
                "name() | trimSuffix('.') | upper() == 'A.EXAMPLE.ORG'",
                true,
            ),
            ("'a' + 'b' | len() - 1 == 1 && (2 | max(3)) == 3", true),
            ("hasPrefix(name(), 'a.') && hasSuffix(name(), 'org.')", true),
            (
                "indexOf(name(), 'example') == 2 && replace('aba', 'a', 'c') == 'cbc'",
                true,
            ),
            (
                "join(['a', 'b'], '.') == 'a.b' && repeat('ab', 2) == 'abab'",
                true,
            ),
            (
                "max(1, 2.5) == 2.5 && min(3, 2) == 2 && abs(-3) == 3 && sum(1..4) == 10",
                true,
            ),
            (
                "first(1..3) == 1 && last(1..3) == 3 && string(5) + 'x' == '5x'",
                true,
            ),
            (
                "0x10 == 16 && 1_000 == 1000 && .5 < 1 && true != !true",
                true,
            ),
            (
                "let labels = split(name(), '.'); len(labels) == 4 && labels[0] == 'a'",
                true,
            ),
            (
                "let a = 2; let b = a + 1; any([1, 6], # == a * (let c = b; c)) && b == 3",
                true,
            ),
            (
                "floor(1.7) == 1 && ceil(1.2) == 2 && round(2.5) == 3 && float('1.5') == 1.5",
                true,
            ),
        ];
        for (text, expected) in table {
            let held = Expression::parse(text).and_then(|expression| expression.holds(&request()));
            assert_eq!(held, Ok(expected), "{text}");
        }
    }

    #[test]
    fn refused() {
        let table = [
            ("", "ends too early"),
            ("type() ==", "ends too early"),
            ("shout()", "unknown function shout"),
            ("type(", "ends too early"),
            ("type('A')", "takes 0 arguments"),
            ("'a", "never closed"),
            ("(do()", ") is missing"),
            ("do() do()", "unexpected"),
            ("name() matches '('", "regex parse error"),
            ("name()", "neither true nor false"),
            ("incidr('x', '10.0.0.0/8')", "not an address"),
            ("bufsize() < 'a'", "cannot be compared"),
            ("type() not", "not without in"),
            ("do() ? do()", ": is missing"),
            ("1 + 'a' == 'a'", "+ does not take"),
            ("id() % 0 == 0", "divided by 0"),
            ("# == 1", "# outside a predicate"),
            ("any([1], {# == 1)", "} is missing"),
            ("1..1000000 == []", "more than 100000 elements"),
            ("[1][3] == 1", "there is no element 3"),
            ("int('x') == 1", "no number"),
            ("first([]) == 1", "empty"),
            ("name() | 1", "a function"),
            ("let a = 1; let a = 2; a == 2", "a has a meaning already"),
            ("let len = 1; len == 1", "len has a meaning already"),
            ("(let a = 1; a == 1) && a == 1", "unknown function a"),
            ("let a = 1", "; is missing"),
            ("let 1 = 1; true", "lacks a name"),
        ];
        for (text, expected) in table {
            let held = Expression::parse(text).and_then(|expression| expression.holds(&request()));
            let error = held.expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
        // As long and as deep as may be.
        let long = format!("{}1 == 499", "1+".repeat(498));
        let deep = format!("{}true{}", "any([1], ".repeat(60), ")".repeat(60));
        let signs = format!("{}1 < 2", "-".repeat(60));
        for text in [long, deep, signs] {
            let held = Expression::parse(&text).and_then(|expression| expression.holds(&request()));
            assert_eq!(held, Ok(true), "{text}");
        }
        for part in [
            "(",
            "!",
            "-",
            "1+",
            "1**",
            "do() || ",
            "do() ? 1 : ",
            "any([1], ",
            "let a = ",
        ] {
            assert!(Expression::parse(&part.repeat(100_000)).is_err(), "{part}");
        }
    }
}
