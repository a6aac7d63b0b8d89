//! Words of an expression.

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Word {
    Text(String),
    Number(i64),
    Float(f64),
    Name(String),
    Sign(&'static str),
}

/// The longer before those that they begin with.
const SIGNS: [&str; 30] = [
    "==", "!=", "<=", ">=", "&&", "||", "**", "..", "<", ">", "!", "(", ")", "[", "]", "{", "}",
    ",", "+", "-", "*", "/", "%", "^", "?", ":", "|", "#", "=", ";",
];

/// Splits an expression into words.
pub(super) fn words(text: &str) -> Result<Vec<Word>, String> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        if matches!(first, '\'' | '"' | '`') {
            let (text, after) = string(rest, first)?;
            words.push(Word::Text(text));
            rest = after;
        } else if first.is_ascii_digit()
            || (first == '.' && rest.as_bytes().get(1).is_some_and(u8::is_ascii_digit))
        {
            let (word, after) = number(rest)?;
            words.push(word);
            rest = after;
        } else if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            words.push(Word::Sign(sign));
            rest = rest.get(sign.len()..).unwrap_or_default();
        } else {
            let end = rest.find(|next: char| !next.is_alphanumeric() && next != '_');
            let (name, after) = rest.split_at(end.unwrap_or(rest.len()));
            if name.is_empty() {
                return Err(format!("unexpected {first:?}"));
            }
            words.push(Word::Name(name.to_owned()));
            rest = after;
        }
        rest = rest.trim_start();
    }
    Ok(words)
}

/// A number at the beginning of a text: `42`, `0x2A`, `1_000`, `0.5`, `.5`. Two points are no part of it.
fn number(text: &str) -> Result<(Word, &str), String> {
    let end = |text: &str| {
        let end = text.find(|next: char| !next.is_ascii_alphanumeric() && next != '_');
        end.unwrap_or(text.len())
    };
    let mut length = end(text);
    let rest = text.get(length..).unwrap_or_default();
    let fraction = rest.strip_prefix('.');
    if let Some(fraction) =
        fraction.filter(|rest| rest.starts_with(|next: char| next.is_ascii_digit()))
    {
        length += 1 + end(fraction);
    }
    let (written, after) = text.split_at(length);
    let digits = written.replace('_', "");
    let based = [("0x", 16), ("0o", 8), ("0b", 2)]
        .into_iter()
        .find_map(|(mark, base)| Some(i64::from_str_radix(digits.strip_prefix(mark)?, base)));
    let word = match based {
        Some(number) => number.ok().map(Word::Number),
        None => digits
            .parse()
            .ok()
            .map(Word::Number)
            .or_else(|| digits.parse().ok().map(Word::Float)),
    };
    let word = word.ok_or_else(|| format!("{written} is no number"))?;
    Ok((word, after))
}

fn string(text: &str, quote: char) -> Result<(String, &str), String> {
    let mut found = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((index, character)) = chars.next() {
        match character {
            end if end == quote => {
                return Ok((
                    found,
                    text.get(index + end.len_utf8()..).unwrap_or_default(),
                ));
            }
            '\\' if quote != '`' => found.extend(chars.next().map(|(_, escaped)| escaped)),
            other => found.push(other),
        }
    }
    Err("a quote is never closed".to_owned())
}
