//! Expressions over requests.
//!
//! ```text
//! choice  = or [ "?" choice ":" choice ]
//! or      = and { ("||" | "or") and }
//! and     = not { ("&&" | "and") not }
//! not     = { "!" | "not" } compare
//! compare = sum [ ("==" | "!=" | "<" | "<=" | ">" | ">=") sum
//!               | ["not"] ("in" | "matches" | "contains" | "startsWith" | "endsWith") sum ]
//! sum     = value { "+" value }
//! value   = STRING | NUMBER | "true" | "false" | FUNCTION "(" [list] ")" | "[" [list] "]" | "(" choice ")"
//! list    = choice { "," choice }
//! ```
//!
//! Functions: see [`FUNCTIONS`]. A part of what the library for Go that CoreDNS uses has.

use std::net::IpAddr;

use ipnet::IpNet;
use regex::Regex;

use super::words::Word;
use super::words::words;
use crate::message::Request;
use crate::names;

const DEPTH_MAX: usize = 64;
/// Words of an expression: what is read word by word is evaluated one inside the other.
const WORDS_MAX: usize = 1000;

#[derive(Clone, Debug, PartialEq)]
enum Value {
    Text(String),
    Number(i64),
    Bool(bool),
    List(Vec<Value>),
}

#[derive(Clone, Debug)]
enum Node {
    Value(Value),
    List(Vec<Node>),
    Call(String, Vec<Node>),
    Not(Box<Node>),
    Binary(&'static str, Box<Node>, Box<Node>),
    Matches(Box<Node>, Regex),
    Choice(Box<[Node; 3]>),
}

/// An expression, read.
#[derive(Clone, Debug)]
pub(super) struct Expression(Node);

/// Functions and how many arguments each takes.
const FUNCTIONS: [(&str, usize); 19] = [
    ("bufsize", 0),
    ("class", 0),
    ("client_ip", 0),
    ("do", 0),
    ("id", 0),
    ("incidr", 2),
    ("len", 1),
    ("lower", 1),
    ("metadata", 1),
    ("name", 0),
    ("opcode", 0),
    ("port", 0),
    ("proto", 0),
    ("server_ip", 0),
    ("server_port", 0),
    ("size", 0),
    ("trim", 1),
    ("type", 0),
    ("upper", 1),
];

impl Expression {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let words = words(text)?;
        if words.len() > WORDS_MAX {
            return Err(format!("more than {WORDS_MAX} words"));
        }
        let mut parser = Parser {
            words: &words,
            depth: 0,
        };
        let node = parser.choice()?;
        match parser.words.first() {
            None => Ok(Self(node)),
            Some(word) => Err(format!("unexpected {word:?}")),
        }
    }

    pub(super) fn holds(&self, request: &Request) -> Result<bool, String> {
        match evaluate(&self.0, request)? {
            Value::Bool(truth) => Ok(truth),
            other => Err(format!("{other:?} is neither true nor false")),
        }
    }
}

struct Parser<'a> {
    words: &'a [Word],
    depth: usize,
}

impl Parser<'_> {
    fn take(&mut self, signs: &[&str]) -> bool {
        let found = match self.words.first() {
            Some(Word::Sign(sign)) => signs.contains(sign),
            Some(Word::Name(name)) => signs.contains(&name.as_str()),
            _ => false,
        };
        if found {
            self.words = self.words.get(1..).unwrap_or_default();
        }
        found
    }

    fn choice(&mut self) -> Result<Node, String> {
        let asked = self.or()?;
        if !self.take(&["?"]) {
            return Ok(asked);
        }
        let then = self.choice()?;
        if !self.take(&[":"]) {
            return Err(": is missing behind ?".to_owned());
        }
        Ok(Node::Choice(Box::new([asked, then, self.choice()?])))
    }

    fn or(&mut self) -> Result<Node, String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(format!(
                "more than {DEPTH_MAX} parentheses inside each other"
            ));
        }
        let mut left = self.and()?;
        while self.take(&["||", "or"]) {
            left = Node::Binary("||", Box::new(left), Box::new(self.and()?));
        }
        self.depth -= 1;
        Ok(left)
    }

    fn and(&mut self) -> Result<Node, String> {
        let mut left = self.not()?;
        while self.take(&["&&", "and"]) {
            left = Node::Binary("&&", Box::new(left), Box::new(self.not()?));
        }
        Ok(left)
    }

    fn not(&mut self) -> Result<Node, String> {
        let mut negated = false;
        while self.take(&["!", "not"]) {
            negated = !negated;
        }
        let node = self.compare()?;
        Ok(if negated {
            Node::Not(Box::new(node))
        } else {
            node
        })
    }

    fn compare(&mut self) -> Result<Node, String> {
        let left = self.sum()?;
        for sign in ["==", "!=", "<=", ">=", "<", ">"] {
            if self.take(&[sign]) {
                return Ok(Node::Binary(sign, Box::new(left), Box::new(self.sum()?)));
            }
        }
        let negated = self.take(&["not"]);
        for sign in ["in", "contains", "startsWith", "endsWith", "matches"] {
            if self.take(&[sign]) {
                let found = match sign {
                    "matches" => self.matches(left)?,
                    sign => Node::Binary(sign, Box::new(left), Box::new(self.sum()?)),
                };
                return Ok(match negated {
                    true => Node::Not(Box::new(found)),
                    false => found,
                });
            }
        }
        match negated {
            true => Err("not without in or another operator".to_owned()),
            false => Ok(left),
        }
    }

    fn matches(&mut self, left: Node) -> Result<Node, String> {
        let Node::Value(Value::Text(pattern)) = self.value()? else {
            return Err("matches needs a string".to_owned());
        };
        let regex = Regex::new(&pattern).map_err(|error| error.to_string())?;
        Ok(Node::Matches(Box::new(left), regex))
    }

    fn sum(&mut self) -> Result<Node, String> {
        let mut left = self.value()?;
        while self.take(&["+"]) {
            left = Node::Binary("+", Box::new(left), Box::new(self.value()?));
        }
        Ok(left)
    }

    fn list(&mut self, end: &str) -> Result<Vec<Node>, String> {
        let mut list = Vec::new();
        while !self.take(&[end]) {
            if !list.is_empty() && !self.take(&[","]) {
                return Err(format!("{end} is missing"));
            }
            list.push(self.choice()?);
        }
        Ok(list)
    }

    fn value(&mut self) -> Result<Node, String> {
        let (word, rest) = self
            .words
            .split_first()
            .ok_or("the expression ends too early")?;
        let word = word.clone();
        self.words = rest;
        match word {
            Word::Text(text) => Ok(Node::Value(Value::Text(text))),
            Word::Number(number) => Ok(Node::Value(Value::Number(number))),
            Word::Sign("(") => {
                let inner = self.choice()?;
                if self.take(&[")"]) {
                    Ok(inner)
                } else {
                    Err(") is missing".to_owned())
                }
            }
            Word::Sign("[") => Ok(Node::List(self.list("]")?)),
            Word::Sign(sign) => Err(format!("unexpected {sign}")),
            Word::Name(name) if name == "true" || name == "false" => {
                Ok(Node::Value(Value::Bool(name == "true")))
            }
            Word::Name(name) => {
                let known = FUNCTIONS.iter().find(|(known, _)| *known == name);
                let (_, count) = known.ok_or_else(|| {
                    let known: Vec<&str> = FUNCTIONS.iter().map(|(name, _)| *name).collect();
                    format!("unknown function {name}; known are {}", known.join(", "))
                })?;
                if !self.take(&["("]) {
                    return Err(format!("{name} lacks its parentheses"));
                }
                let args = self.list(")")?;
                if args.len() != *count {
                    return Err(format!(
                        "{name} takes {count} arguments, not {}",
                        args.len()
                    ));
                }
                Ok(Node::Call(name, args))
            }
        }
    }
}

fn evaluate(node: &Node, request: &Request) -> Result<Value, String> {
    let truth = |node: &Node| match evaluate(node, request)? {
        Value::Bool(truth) => Ok(truth),
        other => Err(format!("{other:?} is neither true nor false")),
    };
    match node {
        Node::Value(value) => Ok(value.clone()),
        Node::List(list) => Ok(Value::List(
            list.iter()
                .map(|node| evaluate(node, request))
                .collect::<Result<_, _>>()?,
        )),
        Node::Not(inner) => Ok(Value::Bool(!truth(inner)?)),
        Node::Matches(inner, regex) => match evaluate(inner, request)? {
            Value::Text(text) => Ok(Value::Bool(regex.is_match(&text))),
            other => Err(format!("{other:?} is no text to match")),
        },
        Node::Binary("||", a, b) => Ok(Value::Bool(truth(a)? || truth(b)?)),
        Node::Binary("&&", a, b) => Ok(Value::Bool(truth(a)? && truth(b)?)),
        Node::Choice(parts) => {
            let [asked, then, otherwise] = &**parts;
            let chosen = if truth(asked)? { then } else { otherwise };
            evaluate(chosen, request)
        }
        Node::Binary("+", a, b) => match (evaluate(a, request)?, evaluate(b, request)?) {
            (Value::Text(a), Value::Text(b)) => Ok(Value::Text(a + &b)),
            (Value::Number(a), Value::Number(b)) => Ok(Value::Number(a.saturating_add(b))),
            (a, b) => Err(format!("+ does not take {a:?} and {b:?}")),
        },
        Node::Binary(sign, a, b) => {
            compare(sign, &evaluate(a, request)?, &evaluate(b, request)?).map(Value::Bool)
        }
        Node::Call(name, args) => {
            let args: Vec<Value> = args
                .iter()
                .map(|arg| evaluate(arg, request))
                .collect::<Result<_, _>>()?;
            call(name, &args, request)
        }
    }
}

fn compare(sign: &str, a: &Value, b: &Value) -> Result<bool, String> {
    let order = || match (a, b) {
        (Value::Number(a), Value::Number(b)) => Ok(a.cmp(b)),
        (Value::Text(a), Value::Text(b)) => Ok(a.cmp(b)),
        _ => Err(format!("{a:?} and {b:?} cannot be compared by {sign}")),
    };
    match (sign, a, b) {
        ("==", a, b) => Ok(a == b),
        ("!=", a, b) => Ok(a != b),
        ("<", ..) => Ok(order()?.is_lt()),
        ("<=", ..) => Ok(order()?.is_le()),
        (">", ..) => Ok(order()?.is_gt()),
        (">=", ..) => Ok(order()?.is_ge()),
        ("in", a, Value::List(list)) => Ok(list.contains(a)),
        ("contains", Value::List(list), b) => Ok(list.contains(b)),
        ("contains", Value::Text(a), Value::Text(b)) => Ok(a.contains(b.as_str())),
        ("startsWith", Value::Text(a), Value::Text(b)) => Ok(a.starts_with(b.as_str())),
        ("endsWith", Value::Text(a), Value::Text(b)) => Ok(a.ends_with(b.as_str())),
        _ => Err(format!("{sign} does not take {a:?} and {b:?}")),
    }
}

fn call(name: &str, args: &[Value], request: &Request) -> Result<Value, String> {
    let text = |text: String| Ok(Value::Text(text));
    let number = |number: i64| Ok(Value::Number(number));
    let edns = request.message.edns.as_ref();
    match (name, args) {
        ("bufsize", []) => number(edns.map_or(512, |edns| i64::from(edns.max_payload()))),
        ("class", []) => text(request.class().to_string()),
        ("client_ip", []) => text(request.client.ip().to_canonical().to_string()),
        ("do", []) => Ok(Value::Bool(request.dnssec_ok())),
        ("id", []) => number(i64::from(request.message.metadata.id)),
        ("name", []) => text(names::text(&request.name().to_lowercase())),
        ("opcode", []) => number(i64::from(u8::from(request.message.metadata.op_code))),
        ("port", []) => text(request.client.port().to_string()),
        ("proto", []) => text(request.transport.proto().to_owned()),
        ("server_ip", []) => text(request.local.ip().to_canonical().to_string()),
        ("server_port", []) => text(request.local.port().to_string()),
        ("size", []) => number(i64::try_from(request.raw.len()).unwrap_or(i64::MAX)),
        ("type", []) => text(request.kind().to_string()),
        ("len", [Value::Text(text)]) => number(i64::try_from(text.len()).unwrap_or(i64::MAX)),
        ("len", [Value::List(list)]) => number(i64::try_from(list.len()).unwrap_or(i64::MAX)),
        ("lower", [Value::Text(given)]) => text(given.to_lowercase()),
        ("upper", [Value::Text(given)]) => text(given.to_uppercase()),
        ("trim", [Value::Text(given)]) => text(given.trim().to_owned()),
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
            Ok(Value::Bool(prefix.contains(&address)))
        }
        _ => Err(format!("{name} does not take {args:?}")),
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
        ];
        for (text, expected) in table {
            let held = Expression::parse(text).and_then(|expression| expression.holds(&request()));
            let error = held.expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
        for part in ["(", "!", "1+", "do() || ", "do() ? 1 : "] {
            assert!(Expression::parse(&part.repeat(100_000)).is_err(), "{part}");
        }
    }
}
