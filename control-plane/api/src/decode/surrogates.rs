//! Escapes of half a surrogate pair in JSON. They stand for no character: Go's decoder reads U+FFFD in their place, where
//! others refuse the document.

/// The document with `\ufffd` in the place of each half that stands alone; `None` where there is none.
pub(super) fn replaced(document: &[u8]) -> Option<Vec<u8>> {
    let mut out: Option<Vec<u8>> = None;
    let mut at = 0;
    while at < document.len() {
        if document[at] != b'\\' {
            at += 1;
            continue;
        }
        let Some(code) = escape(document, at) else {
            // Of another kind: two bytes, of which the second may be a backslash.
            at += 2;
            continue;
        };
        let low = |at: usize| matches!(escape(document, at), Some(0xdc00..=0xdfff));
        match code {
            0xd800..=0xdbff if low(at + 6) => at += 12,
            0xd800..=0xdfff => {
                out.get_or_insert_with(|| document.to_vec())[at..at + 6]
                    .copy_from_slice(b"\\ufffd");
                at += 6;
            }
            _ => at += 6,
        }
    }
    out
}

/// The code unit of an escape `\uXXXX` at that place.
fn escape(document: &[u8], at: usize) -> Option<u32> {
    let digits = document.get(at..at + 6)?.strip_prefix(b"\\u")?;
    digits.iter().try_fold(0, |code, byte| {
        Some(code * 16 + char::from(*byte).to_digit(16)?)
    })
}

#[cfg(test)]
mod tests {
    use super::replaced;

    #[test]
    fn halves_that_stand_alone() {
        for (text, expected) in [
            (r#"{"a":"\ud800"}"#, Some(r#"{"a":"\ufffd"}"#)),
            (
                r#"["\uDC00x","\ud800\ud800\udc00"]"#,
                Some(r#"["\ufffdx","\ufffd\ud800\udc00"]"#),
            ),
            (r#"["\ud83d\ude00","\\ud800","\u0041"]"#, None),
            (r#"["\ud8"#, None),
            ("\\", None),
            ("", None),
        ] {
            let found = replaced(text.as_bytes());
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{text}");
        }
    }
}
