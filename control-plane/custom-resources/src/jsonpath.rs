//! The JSONPath of printed columns: fields, indices, slices, wildcards, unions, recursive descent and comparing
//! filters, as kubectl's dialect has them.

use std::cmp::Ordering;

use serde_json::Value;

/// The most nodes that one evaluation visits: `..` visits every node of an object for each node before it.
const VISITS_MAX: usize = 20_000;
/// The most steps in a path.
const STEPS_MAX: usize = 64;

/// A parsed path.
#[derive(Clone, PartialEq, Debug)]
pub struct JsonPath(Vec<Step>);

#[derive(Clone, PartialEq, Debug)]
enum Step {
    Field(String),
    Wildcard,
    Recursive,
    Indices(Vec<Slice>),
    Fields(Vec<String>),
    Filter(Box<Filter>),
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Slice {
    One(i64),
    Range(Option<i64>, Option<i64>, i64),
}

#[derive(Clone, PartialEq, Debug)]
struct Filter {
    left: Side,
    operator: &'static str,
    right: Option<Side>,
}

#[derive(Clone, PartialEq, Debug)]
enum Side {
    Path(JsonPath),
    Literal(Value),
}

impl JsonPath {
    /// Reads a path such as `.spec.containers[*].name`, without braces.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parser = Parser { text, at: 0 };
        let path = parser.path(0)?;
        if parser.at < text.len() {
            return Err(format!(
                "unrecognized character in action: {}",
                parser.rest()
            ));
        }
        Ok(path)
    }

    /// What stands at the path; nothing where it leads nowhere.
    pub fn find<'a>(&self, root: &'a Value) -> Vec<&'a Value> {
        let mut visits = VISITS_MAX;
        self.within(root, &mut visits)
    }

    fn within<'a>(&self, root: &'a Value, visits: &mut usize) -> Vec<&'a Value> {
        let mut here = vec![root];
        for step in &self.0 {
            let mut next = Vec::new();
            for value in here {
                step.follow(value, &mut next, visits);
                if *visits == 0 {
                    return Vec::new();
                }
            }
            here = next;
        }
        here
    }
}

impl Step {
    fn follow<'a>(&self, value: &'a Value, next: &mut Vec<&'a Value>, visits: &mut usize) {
        *visits = visits.saturating_sub(1);
        match (self, value) {
            (Step::Field(name), Value::Object(map)) => next.extend(map.get(name)),
            (Step::Fields(names), Value::Object(map)) => {
                next.extend(names.iter().filter_map(|name| map.get(name)));
            }
            (Step::Wildcard, Value::Object(map)) => next.extend(map.values()),
            (Step::Wildcard, Value::Array(items)) => next.extend(items),
            (Step::Indices(slices), Value::Array(items)) => {
                slices.iter().for_each(|slice| slice.pick(items, next));
            }
            (Step::Recursive, _) => {
                let mut todo = vec![value];
                while let Some(value) = todo.pop() {
                    if *visits == 0 {
                        return;
                    }
                    *visits -= 1;
                    next.push(value);
                    match value {
                        Value::Object(map) => todo.extend(map.values().rev()),
                        Value::Array(items) => todo.extend(items.iter().rev()),
                        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
                    }
                }
            }
            (Step::Filter(filter), Value::Array(items)) => {
                for item in items {
                    if filter.takes(item, visits) {
                        next.push(item);
                    }
                }
            }
            _ => {}
        }
    }
}

impl Slice {
    fn pick<'a>(self, items: &'a [Value], next: &mut Vec<&'a Value>) {
        let count = i64::try_from(items.len()).unwrap_or(i64::MAX);
        let absolute = |at: i64| if at < 0 { at.saturating_add(count) } else { at };
        let item = |at: i64| usize::try_from(at).ok().and_then(|at| items.get(at));
        match self {
            Slice::One(at) => next.extend(item(absolute(at))),
            Slice::Range(from, to, step) => {
                let to = to.map_or(count, absolute).min(count);
                let mut at = from.map_or(0, absolute).max(0);
                while at < to {
                    next.extend(item(at));
                    at = at.saturating_add(step);
                }
            }
        }
    }
}

impl Filter {
    fn takes(&self, item: &Value, visits: &mut usize) -> bool {
        let mut side = |side: &Side| -> Option<Value> {
            match side {
                Side::Literal(value) => Some(value.clone()),
                Side::Path(path) => path.within(item, visits).first().map(|v| (*v).clone()),
            }
        };
        let Some(left) = side(&self.left) else {
            return false;
        };
        let Some(right) = &self.right else {
            return true;
        };
        let Some(right) = side(right) else {
            return false;
        };
        let order = match (&left, &right) {
            (Value::Number(a), Value::Number(b)) => a.as_f64().partial_cmp(&b.as_f64()),
            (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
            (a, b) if a == b => Some(Ordering::Equal),
            _ => None,
        };
        match self.operator {
            "==" => order == Some(Ordering::Equal),
            "!=" => order != Some(Ordering::Equal),
            "<" => order == Some(Ordering::Less),
            "<=" => matches!(order, Some(Ordering::Less | Ordering::Equal)),
            ">" => order == Some(Ordering::Greater),
            _ => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn take(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn spaces(&mut self) {
        while self.take(" ") {}
    }

    /// Steps until something that begins none.
    fn path(&mut self, depth: usize) -> Result<JsonPath, String> {
        let mut steps = Vec::new();
        loop {
            if steps.len() > STEPS_MAX || depth > 4 {
                return Err("the path is too long".into());
            }
            if self.take("..") {
                steps.push(Step::Recursive);
                if let Some(name) = self.name() {
                    steps.push(if name == "*" {
                        Step::Wildcard
                    } else {
                        Step::Field(name)
                    });
                }
            } else if self.take(".") {
                match self.name() {
                    Some(name) if name == "*" => steps.push(Step::Wildcard),
                    Some(name) => steps.push(Step::Field(name)),
                    None => {}
                }
            } else if self.take("[") {
                steps.push(self.bracket(depth)?);
            } else {
                return Ok(JsonPath(steps));
            }
        }
    }

    /// The name of a field; a backslash takes the meaning from the character after it.
    fn name(&mut self) -> Option<String> {
        let mut name = String::new();
        let mut chars = self.rest().char_indices();
        let mut end = self.rest().len();
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => name.extend(chars.next().map(|(_, c)| c)),
                '.' | '[' | ']' | ')' | ' ' | '=' | '!' | '<' | '>' | '@' => {
                    end = at;
                    break;
                }
                c => name.push(c),
            }
        }
        self.at += end;
        (!name.is_empty()).then_some(name)
    }

    fn bracket(&mut self, depth: usize) -> Result<Step, String> {
        if self.take("?(") {
            return self.filter(depth);
        }
        let rest = self.rest();
        let mut quoted = None;
        let end = rest
            .char_indices()
            .find(|(_, c)| match (quoted, c) {
                (None, '\'' | '"') => {
                    quoted = Some(*c);
                    false
                }
                (Some(open), c) if open == *c => {
                    quoted = None;
                    false
                }
                (None, ']') => true,
                _ => false,
            })
            .map(|(at, _)| at)
            .ok_or("unterminated array")?;
        let inner = rest[..end].trim();
        self.at += end + 1;
        if inner == "*" {
            return Ok(Step::Wildcard);
        }
        if inner.starts_with(['\'', '"']) {
            let names = inner
                .split(',')
                .map(|part| part.trim().trim_matches(['\'', '"']).replace("\\", ""))
                .collect();
            return Ok(Step::Fields(names));
        }
        let slices: Result<Vec<Slice>, String> =
            inner.split(',').map(|part| slice(part.trim())).collect();
        Ok(Step::Indices(slices?))
    }

    fn filter(&mut self, depth: usize) -> Result<Step, String> {
        self.spaces();
        let left = self.side(depth)?;
        self.spaces();
        let operator = ["==", "!=", "<=", ">=", "<", ">"]
            .into_iter()
            .find(|operator| self.take(operator));
        let right = match operator {
            Some(_) => {
                self.spaces();
                Some(self.side(depth)?)
            }
            None => None,
        };
        self.spaces();
        if !self.take(")]") {
            return Err("unterminated filter".into());
        }
        Ok(Step::Filter(Box::new(Filter {
            left,
            operator: operator.unwrap_or(""),
            right,
        })))
    }

    fn side(&mut self, depth: usize) -> Result<Side, String> {
        if self.take("@") {
            return Ok(Side::Path(self.path(depth + 1)?));
        }
        for quote in ['"', '\''] {
            if self.rest().starts_with(quote) {
                let inner = &self.rest()[1..];
                let end = inner.find(quote).ok_or("unterminated quoted string")?;
                let text = inner[..end].to_owned();
                self.at += end + 2;
                return Ok(Side::Literal(text.into()));
            }
        }
        let end = self
            .rest()
            .find([')', ' ', '=', '<', '>', '!'])
            .unwrap_or(self.rest().len());
        let word = &self.rest()[..end];
        self.at += end;
        serde_json::from_str(word)
            .map(Side::Literal)
            .map_err(|_| format!("unrecognized word in filter: {word}"))
    }
}

fn slice(text: &str) -> Result<Slice, String> {
    let number = |part: &str| -> Result<Option<i64>, String> {
        if part.is_empty() {
            return Ok(None);
        }
        part.parse()
            .map(Some)
            .map_err(|_| format!("invalid array index {text}"))
    };
    let parts: Vec<&str> = text.split(':').collect();
    match parts.as_slice() {
        [one] => Ok(Slice::One(number(one)?.ok_or("invalid array index")?)),
        [from, to] => Ok(Slice::Range(number(from)?, number(to)?, 1)),
        [from, to, step] => {
            let step = number(step)?.unwrap_or(1);
            if step < 1 {
                return Err("step must be > 0".into());
            }
            Ok(Slice::Range(number(from)?, number(to)?, step))
        }
        _ => Err(format!("invalid array index {text}")),
    }
}
