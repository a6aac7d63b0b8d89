//! Words of an expression.

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Word {
    Text(String),
    Number(i64),
    Name(String),
    Sign(&'static str),
}

const SIGNS: [&str; 17] = [
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "!", "(", ")", "[", "]", ",", "+", "?", ":",
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
        } else if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            words.push(Word::Sign(sign));
            rest = rest.get(sign.len()..).unwrap_or_default();
        } else {
            let end = rest
                .find(|next: char| {
                    !next.is_alphanumeric() && !matches!(next, '_' | '-' | '.' | '/')
                })
                .unwrap_or(rest.len());
            if end == 0 {
                return Err(format!("unexpected {first:?}"));
            }
            let (word, after) = rest.split_at(end);
            words.push(match word.parse() {
                Ok(number) => Word::Number(number),
                Err(_) => Word::Name(word.to_owned()),
            });
            rest = after;
        }
        rest = rest.trim_start();
    }
    Ok(words)
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
