//! Expressions, read.
//!
//! ```text
//! choice  = "let" NAME "=" choice ";" choice | pipe [ "?" choice ":" choice ]
//! pipe    = or { "|" FUNCTION "(" [list] ")" [what an "or" may go on with] }
//! or      = and { ("||" | "or") and }
//! and     = not { ("&&" | "and") not }
//! not     = { "!" | "not" } compare
//! compare = range { ("==" | "!=" | "<" | "<=" | ">" | ">=") range
//!                 | ["not"] ("in" | "matches" | "contains" | "startsWith" | "endsWith") range }
//! range   = sum [ ".." sum ]
//! sum     = product { ("+" | "-") product }
//! product = power { ("*" | "/" | "%") power }
//! power   = ("-" | "+" | "!" | "not") power | part [ ("**" | "^") power ]
//! part    = value { "[" choice "]" | "[" [choice] ":" [choice] "]" }
//! value   = STRING | NUMBER | "true" | "false" | "#" | NAME | FUNCTION "(" [list] ")" | "[" [list] "]" | "(" choice ")"
//!         | PREDICATED "(" choice "," ( "{" choice "}" | choice ) ")"
//! list    = choice { "," choice }
//! ```
//!
//! Functions: see [`functions`]. A part of what the library for Go that CoreDNS uses has: what makes sense of questions,
//! which are texts and numbers.

use regex::Regex;

use super::expression::{Node, Value};
use super::functions;
use super::words::{Word, words};

const DEPTH_MAX: usize = 64;
/// Words of an expression: what is read word by word is evaluated one inside the other.
const WORDS_MAX: usize = 1000;

/// Reads an expression.
pub(super) fn parse(text: &str) -> Result<Node, String> {
    let words = words(text)?;
    if words.len() > WORDS_MAX {
        return Err(format!("more than {WORDS_MAX} words"));
    }
    let mut parser = Parser {
        words: &words,
        depth: 0,
        known: None,
        named: Vec::new(),
    };
    let node = parser.choice()?;
    match parser.words.first() {
        None => Ok(node),
        Some(word) => Err(format!("unexpected {word:?}")),
    }
}

struct Parser<'a> {
    words: &'a [Word],
    depth: usize,
    /// A value that was read already, which stands before the words.
    known: Option<Node>,
    /// Names of values around what is read, the innermost last.
    named: Vec<&'a str>,
}

fn binary(sign: &'static str, a: Node, b: Node) -> Node {
    Node::Binary(sign, Box::new([a, b]))
}

impl<'a> Parser<'a> {
    /// Takes the next word, if it is one of these.
    fn taken(&mut self, signs: &[&'static str]) -> Option<&'static str> {
        let sign = match self.words.first()? {
            Word::Sign(sign) => signs.iter().find(|one| *one == sign),
            Word::Name(name) => signs.iter().find(|one| *one == name),
            Word::Text(_) | Word::Number(_) | Word::Float(_) => None,
        };
        if sign.is_some() {
            self.words = self.words.get(1..).unwrap_or_default();
        }
        sign.copied()
    }

    fn take(&mut self, sign: &'static str) -> bool {
        self.taken(&[sign]).is_some()
    }

    fn expect(&mut self, sign: &'static str) -> Result<(), String> {
        match self.take(sign) {
            true => Ok(()),
            false => Err(format!("{sign} is missing")),
        }
    }

    /// Reads what stands inside something else.
    fn deeper(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<Node, String>,
    ) -> Result<Node, String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(format!(
                "more than {DEPTH_MAX} parentheses or signs inside each other"
            ));
        }
        let node = read(self)?;
        self.depth -= 1;
        Ok(node)
    }

    fn choice(&mut self) -> Result<Node, String> {
        self.deeper(|parser| {
            if parser.take("let") {
                return parser.named();
            }
            let asked = parser.pipe()?;
            if !parser.take("?") {
                return Ok(asked);
            }
            let then = parser.choice()?;
            if !parser.take(":") {
                return Err(": is missing behind ?".to_owned());
            }
            Ok(Node::Choice(Box::new([asked, then, parser.choice()?])))
        })
    }

    /// A value with a name, and what it is used in.
    fn named(&mut self) -> Result<Node, String> {
        let Some((Word::Name(name), rest)) = self.words.split_first() else {
            return Err("let lacks a name behind it".to_owned());
        };
        if self.named.contains(&&**name) || functions::arguments(name).is_some() {
            return Err(format!("{name} has a meaning already"));
        }
        self.words = rest;
        self.expect("=")?;
        let value = self.choice()?;
        self.expect(";")?;
        self.named.push(name);
        let user = self.choice()?;
        self.named.pop();
        Ok(Node::Let(Box::new([value, user])))
    }

    /// What stands before the bar is the first argument of what stands behind it.
    fn pipe(&mut self) -> Result<Node, String> {
        let mut left = self.or()?;
        while self.take("|") {
            let Some((Word::Name(name), rest)) = self.words.split_first() else {
                return Err("| lacks a function behind it".to_owned());
            };
            self.words = rest;
            self.known = Some(self.call(name, Some(left))?);
            left = self.or()?;
        }
        Ok(left)
    }

    fn or(&mut self) -> Result<Node, String> {
        let mut left = self.and()?;
        while self.taken(&["||", "or"]).is_some() {
            left = binary("||", left, self.and()?);
        }
        Ok(left)
    }

    fn and(&mut self) -> Result<Node, String> {
        let mut left = self.not()?;
        while self.taken(&["&&", "and"]).is_some() {
            left = binary("&&", left, self.not()?);
        }
        Ok(left)
    }

    fn not(&mut self) -> Result<Node, String> {
        let mut negated = false;
        while self.known.is_none() && self.taken(&["!", "not"]).is_some() {
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
        let mut left = self.range()?;
        loop {
            if let Some(sign) = self.taken(&["==", "!=", "<=", ">=", "<", ">"]) {
                left = binary(sign, left, self.range()?);
                continue;
            }
            let negated = self.take("not");
            let word = self.taken(&["in", "contains", "startsWith", "endsWith", "matches"]);
            left = match word {
                Some("matches") => self.matches(left)?,
                Some(sign) => binary(sign, left, self.range()?),
                None if negated => return Err("not without in or another operator".to_owned()),
                None => return Ok(left),
            };
            if negated {
                left = Node::Not(Box::new(left));
            }
        }
    }

    fn matches(&mut self, left: Node) -> Result<Node, String> {
        let Node::Value(Value::Text(pattern)) = self.value()? else {
            return Err("matches needs a string".to_owned());
        };
        let regex = Regex::new(&pattern).map_err(|error| error.to_string())?;
        Ok(Node::Matches(Box::new(left), regex))
    }

    fn range(&mut self) -> Result<Node, String> {
        let from = self.sum()?;
        match self.take("..") {
            true => Ok(binary("..", from, self.sum()?)),
            false => Ok(from),
        }
    }

    fn sum(&mut self) -> Result<Node, String> {
        let mut left = self.product()?;
        while let Some(sign) = self.taken(&["+", "-"]) {
            left = binary(sign, left, self.product()?);
        }
        Ok(left)
    }

    fn product(&mut self) -> Result<Node, String> {
        let mut left = self.power()?;
        while let Some(sign) = self.taken(&["*", "/", "%"]) {
            left = binary(sign, left, self.power()?);
        }
        Ok(left)
    }

    fn power(&mut self) -> Result<Node, String> {
        if self.known.is_none()
            && let Some(sign) = self.taken(&["-", "+", "!", "not"])
        {
            let inner = self.deeper(Self::power)?;
            return Ok(match sign {
                "-" => Node::Minus(Box::new(inner)),
                "+" => inner,
                _ => Node::Not(Box::new(inner)),
            });
        }
        let base = self.part()?;
        match self.taken(&["**", "^"]) {
            Some(_) => Ok(binary("**", base, self.deeper(Self::power)?)),
            None => Ok(base),
        }
    }

    fn part(&mut self) -> Result<Node, String> {
        let mut whole = self.value()?;
        while self.take("[") {
            let from = match self.take(":") {
                true => None,
                false => {
                    let index = self.choice()?;
                    if self.take("]") {
                        whole = Node::Index(Box::new([whole, index]));
                        continue;
                    }
                    self.expect(":")?;
                    Some(index)
                }
            };
            let to = match self.take("]") {
                true => None,
                false => {
                    let to = self.choice()?;
                    self.expect("]")?;
                    Some(to)
                }
            };
            whole = Node::Slice(Box::new(whole), Box::new([from, to]));
        }
        Ok(whole)
    }

    fn list(&mut self, end: &'static str) -> Result<Vec<Node>, String> {
        let mut list = Vec::new();
        while !self.take(end) {
            if !list.is_empty() && !self.take(",") {
                return Err(format!("{end} is missing"));
            }
            list.push(self.choice()?);
        }
        Ok(list)
    }

    fn value(&mut self) -> Result<Node, String> {
        if let Some(known) = self.known.take() {
            return Ok(known);
        }
        let (word, rest) = self
            .words
            .split_first()
            .ok_or("the expression ends too early")?;
        self.words = rest;
        match word {
            Word::Text(text) => Ok(Node::Value(Value::Text(text.clone()))),
            Word::Number(number) => Ok(Node::Value(Value::Number(*number))),
            Word::Float(number) => Ok(Node::Value(Value::Float(*number))),
            Word::Sign("#") => Ok(Node::Element),
            Word::Sign("(") => {
                let inner = self.choice()?;
                self.expect(")")?;
                Ok(inner)
            }
            Word::Sign("[") => Ok(Node::List(self.list("]")?)),
            Word::Sign(sign) => Err(format!("unexpected {sign}")),
            Word::Name(name) if name == "true" || name == "false" => {
                Ok(Node::Value(Value::Bool(name == "true")))
            }
            Word::Name(name) => match self.named.iter().rev().position(|one| one == name) {
                Some(outwards) => Ok(Node::Named(outwards)),
                None => self.call(name, None),
            },
        }
    }

    /// What follows the name of a function, whose first argument may be known.
    fn call(&mut self, name: &str, first: Option<Node>) -> Result<Node, String> {
        let counts = functions::arguments(name).ok_or_else(|| {
            let known = functions::known().join(", ");
            format!("unknown function {name}; known are {known}")
        })?;
        if !self.take("(") {
            return Err(format!("{name} lacks its parentheses"));
        }
        if functions::PREDICATED.contains(&name) {
            let list = match first {
                Some(list) => list,
                None => {
                    let list = self.choice()?;
                    self.expect(",")?;
                    list
                }
            };
            let braces = self.take("{");
            let predicate = self.choice()?;
            if braces {
                self.expect("}")?;
            }
            self.expect(")")?;
            return Ok(Node::Each(name.to_owned(), Box::new([list, predicate])));
        }
        let mut args: Vec<Node> = first.into_iter().collect();
        args.extend(self.list(")")?);
        if !counts.contains(&args.len()) {
            let (least, most) = (counts.start(), counts.end());
            let wanted = match least == most {
                true => least.to_string(),
                false => format!("{least} to {most}"),
            };
            return Err(format!(
                "{name} takes {wanted} arguments, not {}",
                args.len()
            ));
        }
        Ok(Node::Call(name.to_owned(), args))
    }
}
