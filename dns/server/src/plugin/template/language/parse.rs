//! Templates, read.

use super::Value;
use super::functions::FUNCTIONS;

/// Actions inside actions.
const DEPTH_MAX: usize = 32;

#[derive(Clone, Debug)]
pub(super) enum Node {
    Text(String),
    Show(Pipe),
    /// `$name := pipe`, or `=` for one that is there.
    Set {
        name: String,
        new: bool,
        pipe: Pipe,
    },
    If(Condition, Vec<Node>, Vec<Node>),
    With(Condition, Vec<Node>, Vec<Node>),
    Range(Condition, Vec<Node>, Vec<Node>),
    Break,
    Continue,
}

/// What a block is about, and the variables that it is kept in: at most one, for `range` two.
#[derive(Clone, Debug)]
pub(super) struct Condition {
    pub(super) names: Vec<String>,
    pub(super) pipe: Pipe,
}

pub(super) type Pipe = Vec<Command>;
pub(super) type Command = Vec<Operand>;

#[derive(Clone, Debug)]
pub(super) enum Operand {
    /// Fields from the dot, or from the root where it begins with `$`.
    Field {
        root: bool,
        path: Vec<String>,
    },
    /// A variable, and fields of it.
    Variable(String, Vec<String>),
    Function(String),
    Value(Value),
    /// What stands in parentheses, and fields of it.
    Pipe(Pipe, Vec<String>),
}

type Block = fn(Condition, Vec<Node>, Vec<Node>) -> Node;

/// How a list of nodes ended.
enum End {
    Input,
    End,
    Else,
    /// `else if`, `else with`.
    ElseBlock(Block, Condition),
}

/// Reads a template.
pub(super) fn parse(text: &str) -> Result<Vec<Node>, String> {
    let mut parser = Parser {
        rest: text,
        variables: Vec::new(),
        loops: 0,
    };
    match parser.nodes(0)? {
        (nodes, End::Input) => Ok(nodes),
        _ => Err("{{end}} or {{else}} without {{if}}, {{with}} or {{range}}".to_owned()),
    }
}

struct Parser<'a> {
    rest: &'a str,
    /// The variables that are known here, with their `$`.
    variables: Vec<String>,
    /// Ranges that this place is in.
    loops: usize,
}

impl<'a> Parser<'a> {
    fn nodes(&mut self, depth: usize) -> Result<(Vec<Node>, End), String> {
        if depth > DEPTH_MAX {
            return Err(format!("more than {DEPTH_MAX} actions inside each other"));
        }
        let mut list = Vec::new();
        loop {
            let Some(action) = self.text(&mut list)? else {
                return Ok((list, End::Input));
            };
            let (word, operand) = action
                .split_once(char::is_whitespace)
                .unwrap_or((action, ""));
            match word {
                "end" => return Ok((list, End::End)),
                "else" => {
                    let operand = operand.trim();
                    let (block, condition): (Block, _) = match operand.split_once(' ') {
                        Some(("if", condition)) => (Node::If as Block, condition),
                        Some(("with", condition)) => (Node::With as Block, condition),
                        _ => return Ok((list, End::Else)),
                    };
                    let condition = self.condition(condition, 1)?;
                    return Ok((list, End::ElseBlock(block, condition)));
                }
                "if" => list.push(self.block(Node::If, operand, 1, depth)?),
                "with" => list.push(self.block(Node::With, operand, 1, depth)?),
                "range" => {
                    self.loops += 1;
                    list.push(self.block(Node::Range, operand, 2, depth)?);
                    self.loops -= 1;
                }
                "break" if self.loops > 0 => list.push(Node::Break),
                "continue" if self.loops > 0 => list.push(Node::Continue),
                _ if action.starts_with("/*") => {}
                _ => list.push(self.action(action)?),
            }
        }
    }

    /// Text up to the next action, and the action; nothing at the end.
    fn text(&mut self, list: &mut Vec<Node>) -> Result<Option<&'a str>, String> {
        let rest: &'a str = self.rest;
        let Some((before, after)) = rest.split_once("{{") else {
            list.push(Node::Text(rest.to_owned()));
            self.rest = "";
            return Ok(None);
        };
        let (action, after) = after.split_once("}}").ok_or("{{ is never closed")?;
        let (trims_before, action) = match action.strip_prefix("- ") {
            Some(action) => (true, action),
            None => (false, action),
        };
        let (trims_after, action) = match action.strip_suffix(" -") {
            Some(action) => (true, action),
            None => (false, action),
        };
        let text = if trims_before {
            before.trim_end()
        } else {
            before
        };
        list.push(Node::Text(text.to_owned()));
        self.rest = if trims_after {
            after.trim_start()
        } else {
            after
        };
        Ok(Some(action.trim()))
    }

    fn block(
        &mut self,
        make: Block,
        condition: &str,
        names_max: usize,
        depth: usize,
    ) -> Result<Node, String> {
        let known = self.variables.len();
        let condition = self.condition(condition, names_max)?;
        let node = self.branches(make, condition, depth)?;
        self.variables.truncate(known);
        Ok(node)
    }

    fn branches(
        &mut self,
        make: Block,
        condition: Condition,
        depth: usize,
    ) -> Result<Node, String> {
        let missing = || "{{if}}, {{with}} or {{range}} without {{end}}".to_owned();
        // Variables of a branch end with it; those of the condition hold in both.
        let known = self.variables.len();
        let (then, end) = self.nodes(depth + 1)?;
        // What `else if` declared is known in what follows it.
        let declared = match &end {
            End::ElseBlock(_, condition) => condition.names.clone(),
            End::Input | End::End | End::Else => Vec::new(),
        };
        self.variables.truncate(known);
        self.variables.extend(declared);
        let otherwise = match end {
            End::End => Vec::new(),
            End::Input => return Err(missing()),
            End::Else => match self.nodes(depth + 1)? {
                (otherwise, End::End) => otherwise,
                _ => return Err(missing()),
            },
            End::ElseBlock(block, condition) => vec![self.branches(block, condition, depth + 1)?],
        };
        self.variables.truncate(known);
        Ok(make(condition, then, otherwise))
    }

    /// `[$name [, $name] :=] pipe`; the names are known from here on.
    fn condition(&mut self, text: &str, names_max: usize) -> Result<Condition, String> {
        let words = words(text)?;
        let at = words.iter().position(|word| word == ":=");
        let (before, after) = match at {
            Some(at) => (words.get(..at), words.get(at + 1..)),
            None => (None, Some(words.as_slice())),
        };
        let names: Vec<String> = before
            .into_iter()
            .flatten()
            .filter(|word| *word != ",")
            .cloned()
            .collect();
        let pipe = self.whole_pipe(after.unwrap_or_default())?;
        if names.len() > names_max || !names.iter().all(|name| is_variable(name)) {
            return Err(format!("{} is not what := can set", names.join(", ")));
        }
        self.variables.extend(names.iter().cloned());
        Ok(Condition { names, pipe })
    }

    /// A variable is set, or a value shown.
    fn action(&mut self, text: &str) -> Result<Node, String> {
        let words = words(text)?;
        match words.as_slice() {
            [name, sign, rest @ ..] if is_variable(name) && (sign == ":=" || sign == "=") => {
                let pipe = self.whole_pipe(rest)?;
                let new = sign == ":=";
                if new {
                    self.variables.push(name.clone());
                } else if !self.variables.contains(name) {
                    return Err(format!("there is no variable {name}"));
                }
                Ok(Node::Set {
                    name: name.clone(),
                    new,
                    pipe,
                })
            }
            words => Ok(Node::Show(self.whole_pipe(words)?)),
        }
    }

    fn whole_pipe(&self, words: &[String]) -> Result<Pipe, String> {
        let mut rest = words;
        let found = self.pipe(&mut rest, 0)?;
        match rest.first() {
            None => Ok(found),
            Some(word) => Err(format!("unexpected {word:?}")),
        }
    }

    fn pipe(&self, words: &mut &[String], depth: usize) -> Result<Pipe, String> {
        if depth > DEPTH_MAX {
            return Err(format!(
                "more than {DEPTH_MAX} parentheses inside each other"
            ));
        }
        let mut commands = Vec::new();
        let mut command = Vec::new();
        while let Some((word, rest)) = words.split_first() {
            match word.as_str() {
                word if word.starts_with(')') => break,
                "|" => {
                    *words = rest;
                    commands.push(std::mem::take(&mut command));
                }
                "(" => {
                    *words = rest;
                    let inner = self.pipe(words, depth + 1)?;
                    let close = words.split_first();
                    let (fields, rest) = close
                        .and_then(|(close, rest)| Some((close.strip_prefix(')')?, rest)))
                        .ok_or("a parenthesis is never closed")?;
                    *words = rest;
                    command.push(Operand::Pipe(inner, path(fields)));
                }
                word => {
                    *words = rest;
                    command.push(self.operand(word)?);
                }
            }
        }
        commands.push(command);
        if commands.iter().any(Vec::is_empty) {
            return Err("an empty action".to_owned());
        }
        Ok(commands)
    }

    fn operand(&self, word: &str) -> Result<Operand, String> {
        Ok(match word.as_bytes() {
            [b'"', ..] => Operand::Value(Value::Text(word.get(1..).unwrap_or_default().to_owned())),
            [b'.', ..] => Operand::Field {
                root: false,
                path: path(word),
            },
            [b'$'] | [b'$', b'.', ..] => Operand::Field {
                root: true,
                path: path(word.get(1..).unwrap_or_default()),
            },
            [b'$', ..] => {
                let mut parts = path(word).into_iter();
                let name: String = parts.next().unwrap_or_default();
                if !self.variables.contains(&name) {
                    return Err(format!("there is no variable {name}"));
                }
                Operand::Variable(name, parts.collect())
            }
            _ => match word {
                "true" | "false" => Operand::Value(Value::Bool(word == "true")),
                number if number.parse::<i64>().is_ok() => {
                    Operand::Value(Value::Number(number.parse().unwrap_or_default()))
                }
                function if FUNCTIONS.contains(&function) => Operand::Function(function.to_owned()),
                other => {
                    return Err(format!(
                        "unknown function {other}; known are {}",
                        FUNCTIONS.join(", ")
                    ));
                }
            },
        })
    }
}

/// The fields of `.Field.Field`.
fn path(text: &str) -> Vec<String> {
    let parts = text.split('.').filter(|part| !part.is_empty());
    parts.map(str::to_owned).collect()
}

fn is_variable(word: &str) -> bool {
    let name = word.strip_prefix('$').unwrap_or_default();
    !name.is_empty()
        && name
            .chars()
            .all(|next| next.is_alphanumeric() || next == '_')
}

/// Splits an action into words; strings keep their opening quote, and a closing parenthesis the fields that follow it.
fn words(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(&character) = chars.peek() {
        match character {
            character if character.is_whitespace() => {
                chars.next();
            }
            '|' | '(' | ',' => {
                chars.next();
                words.push(character.to_string());
            }
            ')' => {
                chars.next();
                let mut word = String::from(')');
                if chars.peek() == Some(&'.') {
                    let of_fields =
                        |next: &char| next.is_alphanumeric() || matches!(next, '.' | '_');
                    word.extend(std::iter::from_fn(|| chars.next_if(of_fields)));
                }
                words.push(word);
            }
            '"' | '`' => {
                chars.next();
                let mut word = String::from('"');
                loop {
                    match chars.next() {
                        None => return Err("a quote is never closed".to_owned()),
                        Some(end) if end == character => break,
                        Some('\\') if character == '"' => match chars.next() {
                            Some('n') => word.push('\n'),
                            Some('t') => word.push('\t'),
                            Some(escaped) => word.push(escaped),
                            None => return Err("a quote is never closed".to_owned()),
                        },
                        Some(other) => word.push(other),
                    }
                }
                words.push(word);
            }
            _ => {
                let mut word = String::new();
                let ends = |next: &char| matches!(next, '|' | '(' | ')' | ',');
                // `$x:=1` needs no space.
                let variable = character == '$';
                let assigns = |next: &char| variable && matches!(next, ':' | '=');
                while let Some(next) =
                    chars.next_if(|next| !next.is_whitespace() && !ends(next) && !assigns(next))
                {
                    word.push(next);
                }
                words.push(word);
                if variable && chars.next_if_eq(&':').is_some() {
                    chars.next_if_eq(&'=').ok_or("a colon without =")?;
                    words.push(":=".to_owned());
                } else if variable && chars.next_if_eq(&'=').is_some() {
                    words.push("=".to_owned());
                }
            }
        }
    }
    Ok(words)
}
