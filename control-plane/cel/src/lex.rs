//! Source into tokens.

use std::sync::Arc;

use crate::ast::Literal;

/// A token and where it begins.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Token {
    pub(crate) kind: TokenKind,
    pub(crate) at: usize,
}

#[derive(Clone, PartialEq, Debug)]
pub(crate) enum TokenKind {
    Ident(Arc<str>),
    Literal(Literal),
    Symbol(&'static str),
    End,
}

/// What is wrong, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// For people.
    pub message: String,
    /// Byte in the source.
    pub at: usize,
}

impl Fault {
    pub(crate) fn new(at: usize, message: impl Into<String>) -> Self {
        Fault {
            message: message.into(),
            at,
        }
    }
}

const SYMBOLS: [&str; 25] = [
    "&&", "||", "==", "!=", "<=", ">=", "[?", "{?", ".?", "<", ">", "+", "-", "*", "/", "%", "!",
    "?", ":", ".", ",", "(", ")", "[", "]",
];

pub(crate) fn tokens(source: &str) -> Result<Vec<Token>, Fault> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(c) = source[at..].chars().next() {
        let rest = &source[at..];
        if c.is_whitespace() {
            at += c.len_utf8();
            continue;
        }
        if rest.starts_with("//") {
            at += rest.find('\n').unwrap_or(rest.len());
            continue;
        }
        let (kind, length) = token(rest, at, c)?;
        found.push(Token { kind, at });
        at += length;
    }
    found.push(Token {
        kind: TokenKind::End,
        at: source.len(),
    });
    Ok(found)
}

fn token(rest: &str, at: usize, c: char) -> Result<(TokenKind, usize), Fault> {
    if let Some((literal, length)) = string(rest, at)? {
        return Ok((TokenKind::Literal(literal), length));
    }
    if c.is_ascii_digit() || (c == '.' && rest[1..].starts_with(|c: char| c.is_ascii_digit())) {
        return number(rest, at);
    }
    if c.is_ascii_alphabetic() || c == '_' {
        let length = rest
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(rest.len());
        let kind = match &rest[..length] {
            "true" => TokenKind::Literal(Literal::Bool(true)),
            "false" => TokenKind::Literal(Literal::Bool(false)),
            "null" => TokenKind::Literal(Literal::Null),
            "in" => TokenKind::Symbol("in"),
            word => TokenKind::Ident(word.into()),
        };
        return Ok((kind, length));
    }
    if c == '`' {
        let length = rest[1..].find('`').map(|end| end + 2);
        let length =
            length.ok_or_else(|| Fault::new(at, "Syntax error: unterminated identifier"))?;
        return Ok((TokenKind::Ident(rest[1..length - 1].into()), length));
    }
    for symbol in SYMBOLS.iter().chain(&["{", "}"]) {
        if rest.starts_with(symbol) {
            // `a[?b:c` is a condition in an index nowhere; the optional bracket wins.
            return Ok((TokenKind::Symbol(symbol), symbol.len()));
        }
    }
    Err(Fault::new(
        at,
        format!("Syntax error: token recognition error at: '{c}'"),
    ))
}

fn number(rest: &str, at: usize) -> Result<(TokenKind, usize), Fault> {
    let invalid =
        |what: &str, text: &str| Fault::new(at, format!("invalid {what} literal: {text}"));
    if let Some(hex) = rest.strip_prefix("0x").or_else(|| rest.strip_prefix("0X")) {
        let length = hex
            .find(|c: char| !c.is_ascii_hexdigit())
            .unwrap_or(hex.len());
        let digits = &hex[..length];
        if hex[length..].starts_with(['u', 'U']) {
            let value = u64::from_str_radix(digits, 16).map_err(|_| invalid("uint", digits))?;
            return Ok((TokenKind::Literal(Literal::Uint(value)), length + 3));
        }
        let value = i64::from_str_radix(digits, 16).map_err(|_| invalid("int", digits))?;
        return Ok((TokenKind::Literal(Literal::Int(value)), length + 2));
    }
    let bytes = rest.as_bytes();
    let digits = |mut i: usize| {
        while bytes.get(i).is_some_and(u8::is_ascii_digit) {
            i += 1;
        }
        i
    };
    let mut end = digits(0);
    let mut double = false;
    if bytes.get(end) == Some(&b'.') && bytes.get(end + 1).is_some_and(u8::is_ascii_digit) {
        double = true;
        end = digits(end + 1);
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        if bytes.get(end + 1 + sign).is_some_and(u8::is_ascii_digit) {
            double = true;
            end = digits(end + 1 + sign);
        }
    }
    let text = &rest[..end];
    if double {
        let value: f64 = text.parse().map_err(|_| invalid("double", text))?;
        if value.is_infinite() {
            return Err(invalid("double", text));
        }
        return Ok((TokenKind::Literal(Literal::Double(value)), end));
    }
    if matches!(bytes.get(end), Some(b'u' | b'U')) {
        let value = text.parse().map_err(|_| invalid("uint", text))?;
        return Ok((TokenKind::Literal(Literal::Uint(value)), end + 1));
    }
    // The least of all is written with a minus before digits that alone do not fit; the parser puts them together.
    let value: u64 = text.parse().map_err(|_| invalid("int", text))?;
    match i64::try_from(value) {
        Ok(value) => Ok((TokenKind::Literal(Literal::Int(value)), end)),
        Err(_) if value == 1 << 63 => Ok((TokenKind::Literal(Literal::Int(i64::MIN)), end)),
        Err(_) => Err(invalid("int", text)),
    }
}

/// A text or bytes, if one begins here.
fn string(rest: &str, at: usize) -> Result<Option<(Literal, usize)>, Fault> {
    let prefix = rest
        .find(|c: char| !matches!(c, 'r' | 'R' | 'b' | 'B'))
        .unwrap_or(rest.len());
    if prefix > 2 || !rest[prefix..].starts_with(['"', '\'']) {
        return Ok(None);
    }
    let flags = rest[..prefix].to_ascii_lowercase();
    let (raw, bytes) = (flags.contains('r'), flags.contains('b'));
    let body = &rest[prefix..];
    let quote = &body[..1];
    let triple = quote.repeat(3);
    let delimiter = if body.starts_with(&triple) {
        triple.as_str()
    } else {
        quote
    };
    let inner = &body[delimiter.len()..];
    let mut end = 0;
    loop {
        let tail = &inner[end..];
        if tail.starts_with(delimiter) {
            break;
        }
        match tail.chars().next() {
            Some('\\') if !raw => end += 1 + tail[1..].chars().next().map_or(0, char::len_utf8),
            Some('\n' | '\r') if delimiter.len() == 1 => {
                return Err(Fault::new(
                    at,
                    format!(
                        "Syntax error: token recognition error at: '{quote}{}'",
                        &inner[..end]
                    ),
                ));
            }
            Some(c) => end += c.len_utf8(),
            None => {
                return Err(Fault::new(
                    at,
                    format!("Syntax error: token recognition error at: '{quote}{inner}'"),
                ));
            }
        }
        if end > inner.len() {
            return Err(Fault::new(at, "Syntax error: unterminated string"));
        }
    }
    let length = prefix + delimiter.len() * 2 + end;
    let content = unescape(&inner[..end], raw, bytes).map_err(|why| Fault::new(at, why))?;
    let literal = if bytes {
        Literal::Bytes(content.into())
    } else {
        let text =
            String::from_utf8(content).map_err(|_| Fault::new(at, "invalid string literal"))?;
        Literal::String(text.into())
    };
    Ok(Some((literal, length)))
}

fn unescape(text: &str, raw: bool, bytes: bool) -> Result<Vec<u8>, String> {
    if raw || !text.contains('\\') {
        return Ok(text.as_bytes().to_vec());
    }
    let mut out = Vec::with_capacity(text.len());
    let mut chars = text.chars();
    let bad = || "unable to unescape string".to_owned();
    let push = |code: u32, octet: bool, out: &mut Vec<u8>| -> Result<(), String> {
        if bytes && octet {
            out.push(u8::try_from(code).map_err(|_| bad())?);
        } else {
            let c = char::from_u32(code).ok_or_else(bad)?;
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
        Ok(())
    };
    while let Some(c) = chars.next() {
        if c != '\\' {
            push(c.into(), false, &mut out)?;
            continue;
        }
        let escaped = chars.next().ok_or_else(bad)?;
        let digits = |chars: &mut std::str::Chars<'_>, count: usize, radix: u32, first: &str| {
            let mut text = first.to_owned();
            text.extend(chars.take(count));
            u32::from_str_radix(&text, radix).map_err(|_| bad())
        };
        let (code, octet) = match escaped {
            'a' => (7, false),
            'b' => (8, false),
            'f' => (12, false),
            'n' => (10, false),
            'r' => (13, false),
            't' => (9, false),
            'v' => (11, false),
            '\\' | '\'' | '"' | '`' | '?' => (escaped.into(), false),
            'x' | 'X' => (digits(&mut chars.by_ref().clone(), 2, 16, "")?, true),
            'u' => (digits(&mut chars.by_ref().clone(), 4, 16, "")?, false),
            'U' => (digits(&mut chars.by_ref().clone(), 8, 16, "")?, false),
            '0'..='3' => (
                digits(&mut chars.by_ref().clone(), 2, 8, &escaped.to_string())?,
                true,
            ),
            _ => return Err(bad()),
        };
        let skipped = match escaped {
            'x' | 'X' | '0'..='3' => 2,
            'u' => 4,
            'U' => 8,
            _ => 0,
        };
        for _ in 0..skipped {
            chars.next();
        }
        push(code, octet, &mut out)?;
    }
    Ok(out)
}
