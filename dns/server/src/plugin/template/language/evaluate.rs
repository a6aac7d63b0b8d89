//! Templates, filled in.

use super::Value;
use super::functions::call;
use super::functions::text;
use super::functions::truth;
use super::parse::Command;
use super::parse::Node;
use super::parse::Operand;

/// Octets of what a template makes: no record is longer.
const OCTETS_MAX: usize = 1 << 17;
/// Nodes that are looked at: bounds ranges inside ranges.
const STEPS_MAX: usize = 100_000;

/// What a place in a template sees.
struct Scope<'a> {
    root: &'a Value,
    variables: Vec<(String, Value)>,
    steps: usize,
}

/// Whether what follows is looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    On,
    Break,
    Continue,
}

pub(super) fn render(nodes: &[Node], data: &Value) -> Result<String, String> {
    let mut out = String::new();
    let mut scope = Scope {
        root: data,
        variables: Vec::new(),
        steps: 0,
    };
    scope.show(nodes, data, &mut out)?;
    Ok(out)
}

impl Scope<'_> {
    /// Shows nodes; the variables that they make end with them.
    fn show(&mut self, nodes: &[Node], dot: &Value, out: &mut String) -> Result<Flow, String> {
        let known = self.variables.len();
        let mut flow = Flow::On;
        for node in nodes {
            flow = self.node(node, dot, out)?;
            if out.len() > OCTETS_MAX {
                return Err("the text becomes too long".to_owned());
            }
            if flow != Flow::On {
                break;
            }
        }
        self.variables.truncate(known);
        Ok(flow)
    }

    fn node(&mut self, node: &Node, dot: &Value, out: &mut String) -> Result<Flow, String> {
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return Err("the template does too much".to_owned());
        }
        match node {
            Node::Text(text) => out.push_str(text),
            Node::Show(pipe) => out.push_str(&text(&self.evaluate(pipe, dot)?)),
            Node::Set { name, new, pipe } => {
                let value = self.evaluate(pipe, dot)?;
                let mut known = self.variables.iter();
                let place = known.rposition(|(known, _)| !new && known == name);
                match place.and_then(|at| self.variables.get_mut(at)) {
                    Some((_, place)) => *place = value,
                    None => self.variables.push((name.clone(), value)),
                }
            }
            Node::If(condition, then, otherwise) => {
                let value = self.evaluate(&condition.pipe, dot)?;
                let chosen = if truth(&value) { then } else { otherwise };
                return self.within(&condition.names, [value], |scope| {
                    scope.show(chosen, dot, out)
                });
            }
            Node::With(condition, then, otherwise) => {
                let value = self.evaluate(&condition.pipe, dot)?;
                let (chosen, inner) = match truth(&value) {
                    true => (then, value.clone()),
                    false => (otherwise, dot.clone()),
                };
                return self.within(&condition.names, [value], |scope| {
                    scope.show(chosen, &inner, out)
                });
            }
            Node::Range(condition, body, otherwise) => {
                let items = pairs(self.evaluate(&condition.pipe, dot)?)?;
                if items.is_empty() {
                    return self.show(otherwise, dot, out);
                }
                for (key, item) in items {
                    let inner = item.clone();
                    // One variable is the element; the first of two is its key.
                    let values = match condition.names.len() {
                        2 => vec![key, item],
                        _ => vec![item],
                    };
                    let flow = self.within(&condition.names, values, |scope| {
                        scope.show(body, &inner, out)
                    })?;
                    if flow == Flow::Break {
                        break;
                    }
                }
            }
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::On)
    }

    /// Does something with variables that end with it.
    fn within<T>(
        &mut self,
        names: &[String],
        values: impl IntoIterator<Item = Value>,
        work: impl FnOnce(&mut Self) -> T,
    ) -> T {
        let known = self.variables.len();
        self.variables.extend(names.iter().cloned().zip(values));
        let done = work(self);
        self.variables.truncate(known);
        done
    }

    fn evaluate(&self, pipe: &[Command], dot: &Value) -> Result<Value, String> {
        let mut last: Option<Value> = None;
        for command in pipe {
            let (first, rest) = command.split_first().ok_or("an empty action")?;
            let mut args = Vec::with_capacity(rest.len() + 1);
            for operand in rest {
                args.push(self.value(operand, dot)?);
            }
            args.extend(last.take());
            last = Some(match first {
                Operand::Function(name) => call(name, &args)?,
                other => {
                    let found = self.value(other, dot)?;
                    match (found, args.as_slice()) {
                        // `.Meta "key"`, a method in Go.
                        (Value::Map(map), [key]) => map
                            .get(&text(key))
                            .cloned()
                            .unwrap_or(Value::Text(String::new())),
                        (found, []) => found,
                        _ => return Err("arguments to what is no function".to_owned()),
                    }
                }
            });
        }
        last.ok_or_else(|| "an empty action".to_owned())
    }

    fn value(&self, operand: &Operand, dot: &Value) -> Result<Value, String> {
        match operand {
            Operand::Value(value) => Ok(value.clone()),
            Operand::Pipe(pipe, path) => field(&self.evaluate(pipe, dot)?, path),
            Operand::Function(name) => call(name, &[]),
            Operand::Field { root, path } => field(if *root { self.root } else { dot }, path),
            Operand::Variable(name, path) => {
                let mut known = self.variables.iter().rev();
                let found = known.find(|(known, _)| known == name);
                let (_, value) = found.ok_or_else(|| format!("there is no variable {name}"))?;
                field(value, path)
            }
        }
    }
}

fn field(of: &Value, path: &[String]) -> Result<Value, String> {
    let empty = Value::Text(String::new());
    let mut found = of;
    for part in path {
        found = match found {
            Value::Map(map) => map.get(part).unwrap_or(&empty),
            Value::Struct(fields) => {
                let value = fields.get(part);
                value.ok_or_else(|| format!("there is no .{part}"))?
            }
            _ => return Err(format!("{part} of what has no fields")),
        };
    }
    Ok(found.clone())
}

/// What a range goes over, with its keys; a number is as many turns.
fn pairs(value: Value) -> Result<Vec<(Value, Value)>, String> {
    let number = |at: usize| Value::Number(i64::try_from(at).unwrap_or(i64::MAX));
    match value {
        Value::List(items) => {
            let numbered = items.into_iter().enumerate();
            Ok(numbered.map(|(at, item)| (number(at), item)).collect())
        }
        Value::Map(map) => {
            let pairs = map.into_iter();
            Ok(pairs.map(|(key, item)| (Value::Text(key), item)).collect())
        }
        Value::Number(turns) => {
            let turns = usize::try_from(turns).unwrap_or(0).min(STEPS_MAX);
            Ok((0..turns).map(|at| (number(at), number(at))).collect())
        }
        Value::Text(_) | Value::Bool(_) | Value::Struct(_) => {
            Err("range over what is no list".to_owned())
        }
    }
}
