//! `import`: the words of a snippet, or of the files that a pattern matches, in place of the line.

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use super::OCTETS_MAX;
use super::error::ConfigError;
use super::lex::Token;
use super::lex::lex;

/// Imports inside imports beyond this depth are a circle.
const DEPTH_MAX: u8 = 16;

/// A pattern names at most this many files.
const FILES_MAX: usize = 1024;

/// Snippets by name, as words.
pub(super) type Snippets = BTreeMap<String, Vec<Token>>;

/// The words that stand for the line `import ARGS`.
///
/// # Errors
///
/// When nothing is named, a file cannot be read, or imports form a circle.
pub(super) fn import(
    line: &Token,
    args: &[Token],
    snippets: &Snippets,
    folder: &Path,
) -> Result<Vec<Token>, ConfigError> {
    let Some((target, args)) = args.split_first() else {
        return Err(line.error(
            "import names nothing",
            "name a snippet, a file or a pattern of files",
        ));
    };
    let depth = line.depth.saturating_add(1);
    if depth > DEPTH_MAX {
        return Err(line.error(
            format!(
                "import {} is more than {DEPTH_MAX} imports deep",
                target.text
            ),
            "look for a file or snippet that imports itself",
        ));
    }
    if let Some(snippet) = snippets.get(&target.text) {
        return Ok(snippet
            .iter()
            .map(|token| Token {
                text: fill_args(&token.text, args),
                depth,
                ..token.clone()
            })
            .collect());
    }
    let pattern = folder.join(&target.text);
    let files = glob(&pattern);
    let is_pattern = target.text.contains(['*', '?', '[']);
    if files.is_empty() && !is_pattern {
        return Err(target.error(
            format!("import {}: no such file or snippet", target.text),
            "define the snippet above this line, or give the file's path from the folder of this one",
        ));
    }
    let mut tokens = Vec::new();
    for file in files {
        let text = std::fs::read(&file)
            .map_err(|error| error.to_string())
            .and_then(|octets| match octets.len() {
                0..=OCTETS_MAX => String::from_utf8(octets).map_err(|error| error.to_string()),
                _ => Err(format!("longer than {OCTETS_MAX} octets")),
            })
            .map_err(|error| {
                target.error(
                    format!("import {}: {error}", file.display()),
                    "make the file readable text, or take the line out",
                )
            })?;
        let name: Arc<str> = Arc::from(file.display().to_string());
        tokens.extend(lex(&name, &text, depth)?.into_iter().map(|token| Token {
            text: fill_args(&token.text, args),
            ..token
        }));
    }
    Ok(tokens)
}

/// `{args[N]}` and `{args.N}` become the N-th argument; one that was not given stays as it is.
fn fill_args(text: &str, args: &[Token]) -> String {
    if !text.contains("{args") {
        return text.to_owned();
    }
    let mut filled = text.to_owned();
    for (index, arg) in args.iter().enumerate() {
        filled = filled
            .replace(&format!("{{args[{index}]}}"), &arg.text)
            .replace(&format!("{{args.{index}}}"), &arg.text);
    }
    filled
}

/// The files that a pattern matches, in order. A pattern's folders may hold wildcards too; files whose names begin
/// with a dot match only patterns that begin with one.
fn glob(pattern: &Path) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::new()];
    for component in pattern.components() {
        let text = component.as_os_str().to_string_lossy();
        if !text.contains(['*', '?', '[']) {
            found.iter_mut().for_each(|path| path.push(component));
            continue;
        }
        let mut matches = Vec::new();
        for folder in &found {
            let shown = if folder.as_os_str().is_empty() {
                Path::new(".")
            } else {
                folder
            };
            let Ok(entries) = std::fs::read_dir(shown) else {
                continue;
            };
            for entry in entries.flatten() {
                let name = entry.file_name();
                let name = name.to_string_lossy();
                let hidden = name.starts_with('.') && !text.starts_with('.');
                if !hidden && matches_pattern(text.as_bytes(), name.as_bytes()) {
                    matches.push(folder.join(name.as_ref()));
                }
            }
        }
        matches.sort();
        matches.truncate(FILES_MAX);
        found = matches;
    }
    found.retain(|path| path.is_file());
    found
}

/// Shell patterns: `*`, `?`, `[a-z]` and `[^a-z]`. Iterative, so that no pattern costs more than pattern times name.
pub(crate) fn matches_pattern(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut position) = (0, 0);
    // Where to go on if what follows the last `*` does not match.
    let mut retry: Option<(usize, usize)> = None;
    while position < name.len() {
        let advanced = match pattern.get(at) {
            Some(b'*') => {
                retry = Some((at + 1, position));
                at += 1;
                continue;
            }
            Some(b'?') => Some(at + 1),
            Some(b'[') => class(pattern, at, name.get(position).copied().unwrap_or_default()),
            Some(literal) if name.get(position) == Some(literal) => Some(at + 1),
            _ => None,
        };
        match (advanced, retry) {
            (Some(next), _) => {
                at = next;
                position += 1;
            }
            (None, Some((after, from))) => {
                at = after;
                position = from + 1;
                retry = Some((after, from + 1));
            }
            (None, None) => return false,
        }
    }
    pattern
        .get(at..)
        .is_some_and(|rest| rest.iter().all(|octet| *octet == b'*'))
}

/// Where the pattern goes on after a class that holds the octet.
fn class(pattern: &[u8], open: usize, octet: u8) -> Option<usize> {
    let close = open
        + 1
        + pattern
            .get(open + 2..)?
            .iter()
            .position(|end| *end == b']')?
        + 1;
    let inner = pattern.get(open + 1..close)?;
    let (negated, inner) = match inner.split_first() {
        Some((b'^' | b'!', rest)) => (true, rest),
        _ => (false, inner),
    };
    let mut inside = false;
    let mut index = 0;
    while let Some(&low) = inner.get(index) {
        if let (Some(b'-'), Some(&high)) = (inner.get(index + 1), inner.get(index + 2)) {
            inside |= (low..=high).contains(&octet);
            index += 3;
        } else {
            inside |= low == octet;
            index += 1;
        }
    }
    (inside != negated).then_some(close + 1)
}

#[cfg(test)]
mod tests {
    use super::matches_pattern;

    #[test]
    fn patterns() {
        let table = [
            ("*.conf", "a.conf", true),
            ("*.conf", "a.conf.bak", false),
            ("*", "", true),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "aXbY", false),
            ("a?c", "abc", true),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("[^a-c]x", "dx", true),
            ("[", "[", false),
            ("", "a", false),
        ];
        for (pattern, name, expected) in table {
            assert_eq!(
                matches_pattern(pattern.as_bytes(), name.as_bytes()),
                expected,
                "{pattern} {name}"
            );
        }
    }
}
