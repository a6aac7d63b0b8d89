//! Label and field selectors: the grammar of query parameters, and whether an object matches.

use serde_json::Value;

use crate::field::{FieldError, quoted};
use crate::names;
use crate::status::Status;
use crate::table::Resource;
use crate::value::{entries, list, text};

/// Which objects are meant, by their labels. Every requirement must hold; without any, all objects match.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Requirement {
    key: String,
    operator: Operator,
    values: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Operator {
    In,
    NotIn,
    Equals,
    NotEquals,
    Exists,
    Absent,
    Above,
    Below,
}

impl LabelSelector {
    /// Reads a query parameter, for instance `app in (web, api), tier!=cache, !legacy`.
    ///
    /// # Errors
    /// 400 that says what was found and what was expected.
    pub fn parse(query: &str) -> Result<Self, Status> {
        let mut parser = Parser {
            tokens: tokens(query),
            next: 0,
        };
        parser
            .selector()
            .map_err(|why| Status::bad_request(format!("unable to parse requirement: {why}")))
    }

    /// From `matchLabels` and `matchExpressions` of an object. `None` where an expression makes no sense: such a
    /// selector selects nothing.
    pub fn from_object(selector: &Value) -> Option<Self> {
        let mut requirements = from_labels(selector.get("matchLabels").unwrap_or(&Value::Null));
        for expression in list(selector, &["matchExpressions"]) {
            let values: Vec<String> = list(expression, &["values"])
                .iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect();
            let operator = match text(expression, &["operator"]) {
                "In" if !values.is_empty() => Operator::In,
                "NotIn" if !values.is_empty() => Operator::NotIn,
                "Exists" if values.is_empty() => Operator::Exists,
                "DoesNotExist" if values.is_empty() => Operator::Absent,
                _ => return None,
            };
            requirements.push(Requirement {
                key: text(expression, &["key"]).to_owned(),
                operator,
                values,
            });
        }
        Some(LabelSelector { requirements })
    }

    /// Whether it matches everything.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether a set of labels (an object, or null) matches.
    pub fn matches(&self, labels: &Value) -> bool {
        self.requirements
            .iter()
            .all(|r| r.holds(labels.get(&r.key).and_then(Value::as_str)))
    }

    /// Whether an object matches by its `metadata.labels`.
    pub fn matches_object(&self, object: &Value) -> bool {
        self.is_empty() || self.matches(crate::value::at(object, &["metadata", "labels"]))
    }
}

fn from_labels(labels: &Value) -> Vec<Requirement> {
    entries(labels, &[])
        .map(|(key, value)| Requirement {
            key: key.clone(),
            operator: Operator::Equals,
            values: vec![value.as_str().unwrap_or("").to_owned()],
        })
        .collect()
}

impl Requirement {
    fn holds(&self, label: Option<&str>) -> bool {
        let among = |label: &str| self.values.iter().any(|v| v == label);
        let ordered = |wanted: std::cmp::Ordering| {
            let bound = self.values.first().and_then(|v| v.parse::<i64>().ok());
            let number = label.and_then(|l| l.parse::<i64>().ok());
            matches!((number, bound), (Some(number), Some(bound)) if number.cmp(&bound) == wanted)
        };
        match self.operator {
            Operator::In | Operator::Equals => label.is_some_and(among),
            Operator::NotIn | Operator::NotEquals => !label.is_some_and(among),
            Operator::Exists => label.is_some(),
            Operator::Absent => label.is_none(),
            Operator::Above => ordered(std::cmp::Ordering::Greater),
            Operator::Below => ordered(std::cmp::Ordering::Less),
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Token {
    Word(String),
    Mark(&'static str),
    End,
}

impl Token {
    fn shown(&self) -> &str {
        match self {
            Token::Word(word) => word,
            Token::Mark(mark) => mark,
            Token::End => "",
        }
    }
}

const MARKS: &[&str] = &["==", "!=", "=", "!", "(", ")", ",", ">", "<"];

fn tokens(query: &str) -> Vec<Token> {
    let mut found = Vec::new();
    let mut rest = query.trim_start();
    while !rest.is_empty() {
        if let Some(mark) = MARKS.iter().find(|m| rest.starts_with(**m)) {
            found.push(Token::Mark(mark));
            rest = &rest[mark.len()..];
        } else {
            let end = rest
                .find(|c: char| c.is_ascii_whitespace() || "=!(),><".contains(c))
                .unwrap_or(rest.len());
            found.push(Token::Word(rest[..end].to_owned()));
            rest = &rest[end..];
        }
        rest = rest.trim_start();
    }
    found.push(Token::End);
    found
}

struct Parser {
    tokens: Vec<Token>,
    next: usize,
}

impl Parser {
    fn peek(&self) -> &Token {
        self.tokens.get(self.next).unwrap_or(&Token::End)
    }

    fn take(&mut self) -> Token {
        let token = self.peek().clone();
        self.next += 1;
        token
    }

    fn selector(&mut self) -> Result<LabelSelector, String> {
        let mut requirements = Vec::new();
        loop {
            match self.peek() {
                Token::Word(_) | Token::Mark("!") => requirements.push(self.requirement()?),
                Token::End => return Ok(LabelSelector { requirements }),
                other @ Token::Mark(_) => {
                    return Err(format!(
                        "found '{}', expected: !, identifier, or 'end of string'",
                        other.shown()
                    ));
                }
            }
            match self.take() {
                Token::End => return Ok(LabelSelector { requirements }),
                Token::Mark(",") => {
                    if !matches!(self.peek(), Token::Word(_) | Token::Mark("!")) {
                        return Err(format!(
                            "found '{}', expected: identifier after ','",
                            self.peek().shown()
                        ));
                    }
                }
                other => {
                    return Err(format!(
                        "found '{}', expected: ',' or 'end of string'",
                        other.shown()
                    ));
                }
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let absent = *self.peek() == Token::Mark("!");
        if absent {
            self.take();
        }
        let key = match self.take() {
            Token::Word(word) => word,
            other => return Err(format!("found '{}', expected: identifier", other.shown())),
        };
        check_key(&key)?;
        let bare = matches!(self.peek(), Token::End | Token::Mark(","));
        if absent || bare {
            let operator = if absent {
                Operator::Absent
            } else {
                Operator::Exists
            };
            return Ok(Requirement {
                key,
                operator,
                values: Vec::new(),
            });
        }
        let operator = match self.take() {
            Token::Word(word) if word == "in" => Operator::In,
            Token::Word(word) if word == "notin" => Operator::NotIn,
            Token::Mark("=" | "==") => Operator::Equals,
            Token::Mark("!=") => Operator::NotEquals,
            Token::Mark(">") => Operator::Above,
            Token::Mark("<") => Operator::Below,
            Token::Word(word) if word == "gt" => Operator::Above,
            Token::Word(word) if word == "lt" => Operator::Below,
            other => {
                return Err(format!(
                    "found '{}', expected: in, notin, =, ==, !=, gt, lt",
                    other.shown()
                ));
            }
        };
        let values = match operator {
            Operator::In | Operator::NotIn => self.set()?,
            _ => vec![self.single()?],
        };
        for value in &values {
            check_value(&key, operator, value)?;
        }
        Ok(Requirement {
            key,
            operator,
            values,
        })
    }

    fn single(&mut self) -> Result<String, String> {
        match self.peek().clone() {
            Token::Word(word) => {
                self.take();
                Ok(word)
            }
            // `a=` and `a=,b=c` mean the empty value.
            Token::End | Token::Mark(",") => Ok(String::new()),
            other @ Token::Mark(_) => {
                Err(format!("found '{}', expected: identifier", other.shown()))
            }
        }
    }

    fn set(&mut self) -> Result<Vec<String>, String> {
        match self.take() {
            Token::Mark("(") => {}
            other => return Err(format!("found '{}' expected: '('", other.shown())),
        }
        let mut values = Vec::new();
        let mut word = String::new();
        loop {
            match self.take() {
                Token::Word(next) if word.is_empty() => word = next,
                Token::Mark(",") => values.push(std::mem::take(&mut word)),
                Token::Mark(")") => {
                    values.push(word);
                    return Ok(values);
                }
                other => {
                    return Err(format!(
                        "found '{}', expected: ',', ')' or identifier",
                        other.shown()
                    ));
                }
            }
        }
    }
}

fn check_key(key: &str) -> Result<(), String> {
    match names::qualified_name(key).as_slice() {
        [] => Ok(()),
        wrong => Err(FieldError::invalid_text("key", key, wrong.join("; ")).to_string()),
    }
}

fn check_value(key: &str, operator: Operator, value: &str) -> Result<(), String> {
    if matches!(operator, Operator::Above | Operator::Below) {
        return match value.parse::<i64>() {
            Ok(_) => Ok(()),
            Err(_) => Err(FieldError::invalid_text(
                "values[0]",
                value,
                "for 'Gt', 'Lt' operators, the value must be an integer",
            )
            .to_string()),
        };
    }
    match names::label_value(value).as_slice() {
        [] => Ok(()),
        wrong => {
            Err(
                FieldError::invalid_text(format!("values[0][{key}]"), value, wrong.join("; "))
                    .to_string(),
            )
        }
    }
}

/// Which objects are meant, by their fields. Every requirement must hold.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct FieldSelector {
    requirements: Vec<(String, bool, String)>,
}

impl FieldSelector {
    /// Reads a query parameter, for instance `metadata.name=web,status.phase!=Failed`. `\` escapes `,`, `=` and
    /// itself in values.
    ///
    /// # Errors
    /// 400 that names the term or label that `resource` doesn't support.
    pub fn parse(resource: &Resource, query: &str) -> Result<Self, Status> {
        let mut requirements = Vec::new();
        for term in terms(query) {
            if term.is_empty() {
                continue;
            }
            let (label, equal, value) = split_term(&term).ok_or_else(|| {
                Status::bad_request(format!(
                    "invalid selector: '{query}'; can't understand '{term}'"
                ))
            })?;
            if !resource.selectable(label) {
                return Err(Status::bad_request(format!(
                    "field label not supported: {label}"
                )));
            }
            let value = unescape(value).ok_or_else(|| {
                Status::bad_request(format!(
                    "invalid field selector: invalid value: {}",
                    quoted(value)
                ))
            })?;
            requirements.push((label.to_owned(), equal, value));
        }
        Ok(FieldSelector { requirements })
    }

    /// Whether it matches everything.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether an object of `resource` matches.
    pub fn matches(&self, resource: &Resource, object: &Value) -> bool {
        self.requirements.iter().all(|(label, equal, value)| {
            (resource.field(object, label).as_deref() == Some(value)) == *equal
        })
    }

    /// The one value that `label` must have, if there is one: so that a list or watch of one object need not look
    /// at the others.
    pub fn exact(&self, label: &str) -> Option<&str> {
        self.requirements
            .iter()
            .find(|(l, equal, _)| l == label && *equal)
            .map(|(_, _, value)| value.as_str())
    }
}

/// Whether a query parameter is a selector of fields, whichever they are.
pub fn is_of_fields(query: &str) -> bool {
    let fits = |term: &String| {
        term.is_empty() || split_term(term).is_some_and(|(_, _, value)| unescape(value).is_some())
    };
    terms(query).iter().all(fits)
}

fn terms(query: &str) -> Vec<String> {
    let mut found = vec![String::new()];
    let mut escaped = false;
    for c in query.chars() {
        if c == ',' && !escaped {
            found.push(String::new());
            continue;
        }
        escaped = c == '\\' && !escaped;
        if let Some(last) = found.last_mut() {
            last.push(c);
        }
    }
    found
}

fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    let at = term.find(['=', '!'])?;
    let (label, rest) = term.split_at(at);
    [("!=", false), ("==", true), ("=", true)]
        .into_iter()
        .find_map(|(mark, equal)| rest.strip_prefix(mark).map(|value| (label, equal, value)))
}

fn unescape(value: &str) -> Option<String> {
    let mut plain = String::new();
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => plain.push(c),
                _ => return None,
            },
            ',' | '=' => return None,
            c => plain.push(c),
        }
    }
    Some(plain)
}

/// A LabelSelector object as the query parameter `labelSelector` has it, in order of keys.
pub(crate) fn selector_text(selector: &Value) -> String {
    let mut parts: Vec<(&str, String)> = entries(selector, &["matchLabels"])
        .map(|(key, value)| {
            let value = value.as_str().unwrap_or_default();
            (key.as_str(), format!("{key}={value}"))
        })
        .collect();
    for one in list(selector, &["matchExpressions"]) {
        let key = text(one, &["key"]);
        let mut values: Vec<&str> = list(one, &["values"])
            .iter()
            .filter_map(Value::as_str)
            .collect();
        values.sort_unstable();
        let values = values.join(",");
        let part = match text(one, &["operator"]) {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        };
        parts.push((key, part));
    }
    parts.sort();
    let parts: Vec<String> = parts.into_iter().map(|(_, part)| part).collect();
    parts.join(",")
}
