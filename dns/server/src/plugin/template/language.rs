//! The language of templates: a part of Go's text/template.
//!
//! ```text
//! template = { TEXT | "{{" action "}}" }            "{{-" and "-}}" trim the white space beside them
//! action   = pipe | "if" pipe | "else" ["if" pipe] | "range" pipe | "end" | "/*" ... "*/"
//! pipe     = command { "|" command }                the value becomes the next command's last argument
//! command  = FUNCTION { operand } | operand [operand]
//! operand  = "." | ".Field{.Field}" | "$" | STRING | NUMBER | "(" pipe ")"
//! ```
//!
//! Functions: `and eq ge gt index le len lt ne not or parseInt print printf`. Variables, `with`, `define` and
//! methods are left out.

use std::collections::BTreeMap;

/// Actions inside actions.
const DEPTH_MAX: usize = 32;
/// Octets of what a template makes: no record is longer.
const OCTETS_MAX: usize = 1 << 17;

/// A value in a template.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Text(String),
    Number(i64),
    Bool(bool),
    List(Vec<Value>),
    Map(BTreeMap<String, Value>),
}

#[derive(Clone, Debug)]
enum Node {
    Text(String),
    Show(Pipe),
    If(Pipe, Vec<Node>, Vec<Node>),
    Range(Pipe, Vec<Node>, Vec<Node>),
}

type Pipe = Vec<Command>;
type Command = Vec<Operand>;

#[derive(Clone, Debug)]
enum Operand {
    /// Fields from the dot, or from the root where it begins with `$`.
    Field {
        root: bool,
        path: Vec<String>,
    },
    Function(String),
    Value(Value),
    Pipe(Pipe),
}

/// A template, read.
#[derive(Clone, Debug)]
pub(super) struct Template(Vec<Node>);

/// How a list of nodes ended.
enum End {
    Input,
    End,
    Else,
    ElseIf(Pipe),
}

impl Template {
    /// Reads a template.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut rest = text;
        match nodes(&mut rest, 0)? {
            (nodes, End::Input) => Ok(Self(nodes)),
            _ => Err("{{end}} or {{else}} without {{if}} or {{range}}".to_owned()),
        }
    }

    /// Fills it in.
    pub(super) fn render(&self, data: &Value) -> Result<String, String> {
        let mut out = String::new();
        show(&self.0, data, data, &mut out)?;
        Ok(out)
    }
}

fn nodes(rest: &mut &str, depth: usize) -> Result<(Vec<Node>, End), String> {
    if depth > DEPTH_MAX {
        return Err(format!("more than {DEPTH_MAX} actions inside each other"));
    }
    let mut list = Vec::new();
    loop {
        let Some((before, after)) = rest.split_once("{{") else {
            list.push(Node::Text((*rest).to_owned()));
            *rest = "";
            return Ok((list, End::Input));
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
        list.push(Node::Text(
            if trims_before {
                before.trim_end()
            } else {
                before
            }
            .to_owned(),
        ));
        *rest = if trims_after {
            after.trim_start()
        } else {
            after
        };
        let action = action.trim();
        let (word, operand) = action
            .split_once(char::is_whitespace)
            .unwrap_or((action, ""));
        match word {
            "end" => return Ok((list, End::End)),
            "else" => {
                return match operand.trim().strip_prefix("if ") {
                    Some(condition) => Ok((list, End::ElseIf(whole_pipe(condition)?))),
                    None => Ok((list, End::Else)),
                };
            }
            "if" => list.push(branch(Node::If, whole_pipe(operand)?, rest, depth)?),
            "range" => list.push(branch(Node::Range, whole_pipe(operand)?, rest, depth)?),
            _ if action.starts_with("/*") => {}
            _ => list.push(Node::Show(whole_pipe(action)?)),
        }
    }
}

fn branch(
    make: fn(Pipe, Vec<Node>, Vec<Node>) -> Node,
    condition: Pipe,
    rest: &mut &str,
    depth: usize,
) -> Result<Node, String> {
    let missing = || "{{if}} or {{range}} without {{end}}".to_owned();
    let (then, end) = nodes(rest, depth + 1)?;
    let otherwise = match end {
        End::End => Vec::new(),
        End::Input => return Err(missing()),
        End::Else => match nodes(rest, depth + 1)? {
            (otherwise, End::End) => otherwise,
            _ => return Err(missing()),
        },
        End::ElseIf(condition) => vec![branch(Node::If, condition, rest, depth + 1)?],
    };
    Ok(make(condition, then, otherwise))
}

fn whole_pipe(text: &str) -> Result<Pipe, String> {
    let words = words(text)?;
    let mut rest = words.as_slice();
    let found = pipe(&mut rest, 0)?;
    match rest.first() {
        None => Ok(found),
        Some(word) => Err(format!("unexpected {word:?}")),
    }
}

/// Splits an action into words; strings keep their opening quote.
fn words(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(&character) = chars.peek() {
        match character {
            character if character.is_whitespace() => {
                chars.next();
            }
            '|' | '(' | ')' => {
                chars.next();
                words.push(character.to_string());
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
                while let Some(next) =
                    chars.next_if(|next| !next.is_whitespace() && !matches!(next, '|' | '(' | ')'))
                {
                    word.push(next);
                }
                words.push(word);
            }
        }
    }
    Ok(words)
}

fn pipe(words: &mut &[String], depth: usize) -> Result<Pipe, String> {
    if depth > DEPTH_MAX {
        return Err(format!(
            "more than {DEPTH_MAX} parentheses inside each other"
        ));
    }
    let mut commands = Vec::new();
    let mut command = Vec::new();
    while let Some((word, rest)) = words.split_first() {
        match word.as_str() {
            ")" => break,
            "|" => {
                *words = rest;
                commands.push(std::mem::take(&mut command));
            }
            "(" => {
                *words = rest;
                command.push(Operand::Pipe(pipe(words, depth + 1)?));
                match words.split_first() {
                    Some((close, rest)) if close == ")" => *words = rest,
                    _ => return Err("a parenthesis is never closed".to_owned()),
                }
            }
            word => {
                *words = rest;
                command.push(operand(word)?);
            }
        }
    }
    commands.push(command);
    if commands.iter().any(Vec::is_empty) {
        return Err("an empty action".to_owned());
    }
    Ok(commands)
}

fn operand(word: &str) -> Result<Operand, String> {
    let path = |text: &str| {
        text.split('.')
            .filter(|part| !part.is_empty())
            .map(str::to_owned)
            .collect()
    };
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
        [b'$', ..] => return Err(format!("variables such as {word} are not known here")),
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

const FUNCTIONS: [&str; 14] = [
    "and", "eq", "ge", "gt", "index", "le", "len", "lt", "ne", "not", "or", "parseInt", "print",
    "printf",
];

fn show(nodes: &[Node], root: &Value, dot: &Value, out: &mut String) -> Result<(), String> {
    for node in nodes {
        match node {
            Node::Text(text) => out.push_str(text),
            Node::Show(pipe) => out.push_str(&text(&evaluate(pipe, root, dot)?)),
            Node::If(condition, then, otherwise) => {
                let chosen = if truth(&evaluate(condition, root, dot)?) {
                    then
                } else {
                    otherwise
                };
                show(chosen, root, dot, out)?;
            }
            Node::Range(over, body, otherwise) => {
                let items = match evaluate(over, root, dot)? {
                    Value::List(items) => items,
                    Value::Map(map) => map.into_values().collect(),
                    _ => return Err("range over what is no list".to_owned()),
                };
                if items.is_empty() {
                    show(otherwise, root, dot, out)?;
                }
                for item in &items {
                    show(body, root, item, out)?;
                }
            }
        }
        if out.len() > OCTETS_MAX {
            return Err("the text becomes too long".to_owned());
        }
    }
    Ok(())
}

fn evaluate(pipe: &[Command], root: &Value, dot: &Value) -> Result<Value, String> {
    let mut last: Option<Value> = None;
    for command in pipe {
        let (first, rest) = command.split_first().ok_or("an empty action")?;
        let mut args = Vec::with_capacity(rest.len() + 1);
        for operand in rest {
            args.push(value(operand, root, dot)?);
        }
        args.extend(last.take());
        last = Some(match first {
            Operand::Function(name) => call(name, &args)?,
            other => {
                let found = value(other, root, dot)?;
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

fn value(operand: &Operand, root: &Value, dot: &Value) -> Result<Value, String> {
    match operand {
        Operand::Value(value) => Ok(value.clone()),
        Operand::Pipe(pipe) => evaluate(pipe, root, dot),
        Operand::Function(name) => call(name, &[]),
        Operand::Field {
            root: from_root,
            path,
        } => {
            let mut found = if *from_root { root } else { dot };
            for part in path {
                let Value::Map(map) = found else {
                    return Err(format!("{part} of what has no fields"));
                };
                match map.get(part) {
                    Some(value) => found = value,
                    // As Go: a missing key of a map is empty.
                    None if path.len() > 1 => return Ok(Value::Text(String::new())),
                    None => return Err(format!("there is no .{part}")),
                }
            }
            Ok(found.clone())
        }
    }
}

fn truth(value: &Value) -> bool {
    match value {
        Value::Text(text) => !text.is_empty(),
        Value::Number(number) => *number != 0,
        Value::Bool(truth) => *truth,
        Value::List(list) => !list.is_empty(),
        Value::Map(map) => !map.is_empty(),
    }
}

fn text(value: &Value) -> String {
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

fn call(name: &str, args: &[Value]) -> Result<Value, String> {
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
        ("index", [Value::List(list), at]) => {
            let at = usize::try_from(number(at)?).unwrap_or(usize::MAX);
            list.get(at)
                .cloned()
                .ok_or_else(|| format!("there is no element {at} of {}", list.len()))
        }
        ("index", [Value::Map(map), key]) => Ok(map
            .get(&text(key))
            .cloned()
            .unwrap_or(Value::Text(String::new()))),
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
        ("print", args) => Ok(Value::Text(args.iter().map(text).collect())),
        ("printf", [format, args @ ..]) => printf(&text(format), args).map(Value::Text),
        _ => Err(format!(
            "{name} does not take these {} arguments",
            args.len()
        )),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn data() -> Value {
        let text = |text: &str| Value::Text(text.to_owned());
        Value::Map(
            [
                ("Name".to_owned(), text("ip-10-0-0-1.example.")),
                (
                    "Match".to_owned(),
                    Value::List(vec![text("all"), text("10"), text("255")]),
                ),
                (
                    "Group".to_owned(),
                    Value::Map([("a".to_owned(), text("10"))].into()),
                ),
            ]
            .into(),
        )
    }

    #[test]
    fn rendered() {
        let table = [
            (
                "{{ .Name }} 60 IN A {{ .Group.a }}.0.0.1",
                "ip-10-0-0-1.example. 60 IN A 10.0.0.1",
            ),
            ("{{ index .Match 1 }}", "10"),
            ("{{ index .Match 2 | printf \"%5s|\" }}", "  255|"),
            ("{{ printf \"%02x\" (parseInt .Group.a 10 64) }}", "0a"),
            (
                "{{ if eq .Group.a \"10\" \"11\" }}yes{{ else }}no{{ end }}",
                "yes",
            ),
            (
                "{{ if .Group.b }}yes{{ else if len .Match }}list{{ end }}",
                "list",
            ),
            (
                "{{ range .Match }}[{{ . }}{{ $.Group.a }}]{{ end }}",
                "[all10][1010][25510]",
            ),
            ("a {{- .Group.a -}} b", "a10b"),
            ("a {{- /* note */ -}} b", "ab"),
            ("{{ not (and true false) }} {{ or \"\" \"x\" }}", "true x"),
            ("{{ gt (parseInt \"7f\" 16 8) 100 }}", "true"),
        ];
        for (template, expected) in table {
            let rendered = Template::parse(template).and_then(|template| template.render(&data()));
            assert_eq!(rendered.as_deref(), Ok(expected), "{template}");
        }
    }

    #[test]
    fn refused() {
        let table = [
            ("{{ .Name", "{{ is never closed"),
            (
                "{{ end }}",
                "{{end}} or {{else}} without {{if}} or {{range}}",
            ),
            ("{{ if .Name }}", "{{if}} or {{range}} without {{end}}"),
            ("{{ shout .Name }}", "unknown function shout"),
            ("{{ .Nobody }}", "there is no .Nobody"),
            ("{{ index .Match 9 }}", "there is no element 9 of 3"),
            ("{{ ( .Name }}", "a parenthesis is never closed"),
            ("{{ }}", "an empty action"),
            ("{{ printf \"%s\" }}", "fewer values than verbs"),
        ];
        for (template, expected) in table {
            let rendered = Template::parse(template).and_then(|template| template.render(&data()));
            let error = rendered.expect_err(template);
            assert!(error.contains(expected), "{template}: {error}");
        }
        let deep = "{{ if true }}".repeat(1000);
        assert!(Template::parse(&deep).is_err());
    }
}
