//! What a line of a watch begins with: what happened, and the resource version that the object has since.
//!
//! Servers write the type before the object, and metadata among the first of its members; our own writes the resource
//! version as the first of these. So little has to be read to know them.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

/// Read without what comes after the resource version, which is most of an object.
#[derive(Default)]
pub(crate) struct Head<'a> {
    /// `ADDED`, `MODIFIED` and so on.
    pub(crate) kind: &'a str,
    pub(crate) resource_version: &'a str,
}

impl<'a> Head<'a> {
    /// `None`: the line is no event, is not in the order in which servers write events, or has no resource version.
    /// What follows that is not looked at, and may be anything.
    pub(crate) fn read(line: &'a [u8]) -> Option<Self> {
        let mut head = Head::default();
        let mut deserializer = serde_json::Deserializer::from_slice(line);
        // An error is how reading ends early.
        let _ = deserializer.deserialize_map(Event(&mut head));
        (!head.resource_version.is_empty()).then_some(head)
    }
}

/// The line as a whole.
struct Event<'h, 'a>(&'h mut Head<'a>);

impl<'a> Visitor<'a> for Event<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut members: A) -> Result<(), A::Error> {
        while let Some(key) = members.next_key::<&str>()? {
            match key {
                "type" => self.0.kind = members.next_value()?,
                // The type comes first.
                "object" if !self.0.kind.is_empty() => {
                    return members.next_value_seed(Object {
                        head: self.0,
                        path: &["metadata", "resourceVersion"],
                    });
                }
                _ => return Err(A::Error::custom("not what an event begins with")),
            }
        }
        Ok(())
    }
}

/// An object in which the resource version is to be found.
struct Object<'h, 'a> {
    head: &'h mut Head<'a>,
    /// The keys that lead to it.
    path: &'static [&'static str],
}

impl<'a> DeserializeSeed<'a> for Object<'_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'a> Visitor<'a> for Object<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut members: A) -> Result<(), A::Error> {
        while let Some(key) = members.next_key::<&str>()? {
            match self.path {
                [last] if key == *last => {
                    self.head.resource_version = members.next_value()?;
                    return Err(A::Error::custom("enough was read"));
                }
                [first, path @ ..] if key == *first => {
                    let head = self.head;
                    return members.next_value_seed(Object { head, path });
                }
                _ => {
                    members.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_up_to_the_resource_version() {
        for (line, expected) in [
            (
                r#"{"type":"ADDED","object":{"kind":"X","metadata":{"a":[{}],"resourceVersion":"7","z":"#,
                Some(("ADDED", "7")),
            ),
            (
                r#" { "type" : "BOOKMARK", "object" : { "metadata" : { } } } "#,
                None,
            ),
            (
                r#"{"object":{"metadata":{"resourceVersion":"7"}},"type":"ADDED"}"#,
                None,
            ),
            (r#"{"type":"ADDED","object":{"kind":"X"}}"#, None),
            (
                r#"{"type":"ADDED","object":{"metadata":{"resourceVersion":7}}}"#,
                None,
            ),
            (
                r#"{"type":"ADDED","object":{"metadata":{"resourceVersion":"7"#,
                None,
            ),
            (
                r#"{"type":"ADDED","object":{"resourceVersion":"7","a":{"metadata":{"resourceVersion":"7"}}}}"#,
                None,
            ),
            (r#"{"type":"ADDED","object":null}"#, None),
            (r#"{"typ\u0065":"ADDED","object":{"metadata":{}}}"#, None),
            ("[]", None),
            ("", None),
        ] {
            let head = Head::read(line.as_bytes());
            let found = head.as_ref().map(|head| (head.kind, head.resource_version));
            assert_eq!(found, expected, "{line}");
        }
    }
}
