//! YAML into a value: the first document of a stream, as Kubernetes' decoder takes it.

use serde_json::Value;
use serde_saphyr::Error;
use serde_saphyr::options::DuplicateKeyPolicy;

use super::{DEPTH_MAX, types};

/// The value of the first document, in which a key that comes twice counts the last time; and which key that is, in
/// Kubernetes' words.
///
/// # Errors
/// Where the text stops being YAML, or why it is not taken.
pub(super) fn read(bytes: &[u8]) -> Result<(Value, Option<String>), String> {
    let text = std::str::from_utf8(bytes).map_err(|why| why.to_string())?;
    let text = first_document(text);
    let (value, twice) = match serde_saphyr::from_str::<Value>(text) {
        Ok(value) => (value, None),
        Err(error) => {
            let twice = twice(&error).ok_or_else(|| fault(&error))?;
            let lenient = serde_saphyr::options! { duplicate_keys: DuplicateKeyPolicy::LastWins };
            let value = serde_saphyr::from_str_with_options(text, lenient);
            (value.map_err(|error| fault(&error))?, Some(twice))
        }
    };
    if types::depth(&value) > DEPTH_MAX {
        return Err("nested too deeply".to_owned());
    }
    Ok((value, twice))
}

/// What stands before the second document of a stream. No line within a document begins with its marker, not even one
/// of a text (YAML 1.2.2, section 9.1.2).
fn first_document(text: &str) -> &str {
    let (mut at, mut begun) = (0, false);
    for line in text.split_inclusive('\n') {
        let bare = line.trim_end();
        let rest = bare.strip_prefix("---");
        let marks = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t']));
        if begun && (marks || bare == "...") {
            return &text[..at];
        }
        // What comes before the first document: nothing, comments and directives.
        begun |= marks || !(bare.is_empty() || bare.starts_with(['#', '%']));
        at += line.len();
    }
    text
}

/// The error itself, without what the library adds to show it.
fn cause(mut error: &Error) -> &Error {
    while let Error::AliasError { error: inner, .. } | Error::WithSnippet { error: inner, .. } =
        error
    {
        error = inner;
    }
    error
}

fn twice(error: &Error) -> Option<String> {
    match cause(error) {
        Error::DuplicateMappingKey { key, location } => {
            let key = crate::field::quoted(key.as_deref().unwrap_or_default());
            let line = location.line();
            Some(format!(
                "yaml: unmarshal errors:\n  line {line}: key {key} already set in map"
            ))
        }
        _ => None,
    }
}

/// Why a document is no YAML, or none that is taken.
fn fault(error: &Error) -> String {
    let cause = cause(error);
    let why = match cause {
        Error::Budget { .. } => {
            "it nests too deeply, or has too many nodes once its aliases are followed".to_owned()
        }
        _ => {
            let said = cause.to_string();
            let first = said.lines().next().unwrap_or_default();
            let first = first.split(" at line ").next().unwrap_or_default();
            first.trim_start_matches("error: ").to_owned()
        }
    };
    match error.location() {
        Some(at) => format!("line {}: {why}", at.line()),
        None => why,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_first_document_counts() {
        let cases = [
            ("a: 1\n", json!({"a": 1})),
            ("a: 1\n---\na: 2\n", json!({"a": 1})),
            ("---\na: 1\n--- \na: 2\n", json!({"a": 1})),
            ("# x\n\n%YAML 1.2\n---\na: 1\n...\nb\n", json!({"a": 1})),
            (
                "a: |\n  ---\n  x\nb: ---x\n",
                json!({"a": "---\nx\n", "b": "---x"}),
            ),
            ("a: |\n  x\n---\nb: 1\n", json!({"a": "x\n"})),
            ("a: 1\n---\n[ :", json!({"a": 1})),
            ("---\n---\na: 1\n", json!(null)),
            ("", json!(null)),
        ];
        for (text, expected) in cases {
            assert_eq!(read(text.as_bytes()), Ok((expected, None)), "{text}");
        }
    }

    #[test]
    fn a_key_that_comes_twice_is_told() {
        let (value, twice) = read(b"metadata:\n  name: x\n  name: z\n").unwrap();
        assert_eq!(value, json!({"metadata": {"name": "z"}}));
        let words = "yaml: unmarshal errors:\n  line 3: key \"name\" already set in map";
        assert_eq!(twice.as_deref(), Some(words));
    }
}
