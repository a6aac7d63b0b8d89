//! The continue token of a paged list: at which revision, and after which key.

use api::status::Status;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use storage::Revision;

/// Where the next page begins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Cursor {
    /// `None`: the newest revision, for those who go on after their first revision was forgotten.
    pub(crate) revision: Option<Revision>,
    /// First key, without the prefix of the list.
    pub(crate) start: String,
}

impl Cursor {
    pub(crate) fn encode(&self) -> String {
        let revision = self
            .revision
            .map_or(Value::from(-1), |revision| Value::from(revision.0));
        URL_SAFE_NO_PAD
            .encode(json!({"v": "meta.k8s.io/v1", "rv": revision, "start": self.start}).to_string())
    }

    pub(crate) fn decode(token: &str) -> Result<Self, Status> {
        let refuse = |why: &str| {
            Status::bad_request(format!(
                "invalid continue token: continue key is not valid: {why}"
            ))
        };
        let bytes = URL_SAFE_NO_PAD
            .decode(token.trim_end_matches('='))
            .or_else(|error| match error {
                // Bits that stand for nothing at the end are not worth a refusal of their own.
                base64::DecodeError::InvalidLastSymbol(..) => lenient(token),
                error => Err(refuse(&error.to_string())),
            })?;
        let value: Value = serde_json::from_slice(&bytes).map_err(|error| match bytes.first() {
            Some(byte) if !b"{[\"-0123456789tfn \t\r\n".contains(byte) => refuse(&format!(
                "invalid character '{}' looking for beginning of value",
                char::from(*byte)
            )),
            _ => refuse(&error.to_string()),
        })?;
        if api::value::text(&value, &["v"]) != "meta.k8s.io/v1" {
            return Err(refuse("server does not recognize this encoded version"));
        }
        let start = api::value::text(&value, &["start"]).to_owned();
        if start.is_empty() || start.starts_with('/') {
            return Err(refuse("encoded start key is empty or begins with a slash"));
        }
        let revision = match api::value::at(&value, &["rv"]) {
            Value::Number(number) if number.as_i64() == Some(-1) => None,
            Value::Number(number) => {
                Some(Revision(number.as_u64().filter(|n| *n > 0).ok_or_else(
                    || refuse("incorrect encoded start resourceVersion"),
                )?))
            }
            _ => return Err(refuse("incorrect encoded start resourceVersion")),
        };
        Ok(Cursor { revision, start })
    }
}

fn lenient(token: &str) -> Result<Vec<u8>, Status> {
    use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
    let config = GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let engine = GeneralPurpose::new(&base64::alphabet::URL_SAFE, config);
    engine.decode(token).map_err(|error| {
        Status::bad_request(format!(
            "invalid continue token: continue key is not valid: {error}"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_as_they_went() {
        for revision in [None, Some(Revision(7))] {
            let cursor = Cursor {
                revision,
                start: "default/a\u{0}".into(),
            };
            assert_eq!(Cursor::decode(&cursor.encode()), Ok(cursor));
        }
    }

    #[test]
    fn nonsense_is_refused_with_the_observed_words() {
        let refusal = Cursor::decode("zzz").unwrap_err();
        assert_eq!(refusal.code, 400);
        assert_eq!(
            refusal.message,
            "invalid continue token: continue key is not valid: invalid character 'Ï' looking for beginning of value"
        );
        for token in [
            "",
            "e30",
            "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MCwic3RhcnQiOiJhIn0",
            "%%%",
        ] {
            assert_eq!(Cursor::decode(token).unwrap_err().code, 400, "{token}");
        }
    }
}
