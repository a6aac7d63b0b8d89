//! Domain names as they are on the wire (RFC 1035 section 3.1), in lower case: what maps are keyed by.

use std::fmt;
use std::sync::Arc;

/// Octets of a name at most, the root's included (RFC 1035 section 2.3.4).
pub const NAME_MAX: usize = 255;

/// Octets of a label at most.
pub(crate) const LABEL_MAX: usize = 63;

/// A whole name, uncompressed, in lower case, the root's empty label included. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<[u8]>);

/// Why a text is no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Two dots in a row, or a dot at the beginning.
    #[error("{0:?} has an empty label")]
    Empty(String),
    /// A label of more than 63 octets, or a name of more than 255.
    #[error("{0:?} is too long for a domain name (RFC 1035: 63 octets a label, 255 in all)")]
    Long(String),
}

impl Name {
    /// The root.
    #[must_use]
    pub fn root() -> Self {
        Name(Arc::from([0].as_slice()))
    }

    /// Reads dotted text; the last dot may be left out. Nothing is escaped.
    ///
    /// # Errors
    /// When a label is empty, or a label or the whole is too long.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let trimmed = text.strip_suffix('.').unwrap_or(text);
        let mut wire = Vec::with_capacity(trimmed.len() + 2);
        if !trimmed.is_empty() {
            for label in trimmed.split('.') {
                if label.is_empty() {
                    return Err(NameError::Empty(text.to_owned()));
                }
                if !push_label(&mut wire, label) {
                    return Err(NameError::Long(text.to_owned()));
                }
            }
        } else if text.len() > 1 {
            return Err(NameError::Empty(text.to_owned()));
        }
        wire.push(0);
        if wire.len() > NAME_MAX {
            return Err(NameError::Long(text.to_owned()));
        }
        Ok(Name(wire.into()))
    }

    /// From wire form; `None` when the octets are no whole uncompressed name.
    #[must_use]
    pub fn from_wire(wire: &[u8]) -> Option<Self> {
        let mut at = 0;
        loop {
            let length = usize::from(*wire.get(at)?);
            if length > LABEL_MAX {
                return None;
            }
            at += 1 + length;
            if length == 0 {
                break;
            }
        }
        if at != wire.len() || at > NAME_MAX {
            return None;
        }
        Some(Name(wire.to_ascii_lowercase().into()))
    }

    /// The octets.
    #[must_use]
    pub fn wire(&self) -> &[u8] {
        &self.0
    }

    /// How many labels, the root's not counted.
    #[must_use]
    pub fn label_count(&self) -> usize {
        labels(&self.0).count()
    }

    /// Whether `self` is `zone` or lies below it.
    #[must_use]
    pub fn within(&self, zone: &Name) -> bool {
        let Some(above) = self.label_count().checked_sub(zone.label_count()) else {
            return false;
        };
        let skip: usize = labels(&self.0).take(above).map(|l| l.len() + 1).sum();
        self.0[skip..] == zone.0[..]
    }

    /// Whether addresses are looked up here: below `in-addr.arpa` (`Some(4)`) or `ip6.arpa` (`Some(6)`).
    #[must_use]
    pub fn reverse_family(&self) -> Option<u8> {
        let ends = |tail: &[u8]| self.0.ends_with(tail);
        if ends(b"\x07in-addr\x04arpa\x00") {
            Some(4)
        } else if ends(b"\x03ip6\x04arpa\x00") {
            Some(6)
        } else {
            None
        }
    }
}

/// The labels of a name, without their lengths; stops at the root or at the first thing that is no label.
pub fn labels(wire: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = wire;
    std::iter::from_fn(move || {
        let (&length, after) = rest.split_first()?;
        let length = usize::from(length);
        if length == 0 || length > LABEL_MAX || after.len() < length {
            return None;
        }
        let (label, after) = after.split_at(length);
        rest = after;
        Some(label)
    })
}

/// Appends a label with its length, in lower case. Gives `false`, and appends nothing, when it is empty or too
/// long.
pub(crate) fn push_label(wire: &mut Vec<u8>, label: &str) -> bool {
    match u8::try_from(label.len()) {
        Ok(length) if length > 0 && label.len() <= LABEL_MAX => {
            wire.push(length);
            wire.extend(label.bytes().map(|b| b.to_ascii_lowercase()));
            true
        }
        _ => false,
    }
}

impl fmt::Display for Name {
    /// Dotted, with the last dot; octets that are no letters, digits or common signs as `\DDD` (RFC 1035
    /// section 5.1).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut any = false;
        for label in labels(&self.0) {
            any = true;
            for octet in label {
                match octet {
                    b'.' | b'\\' | b'"' | b'(' | b')' | b';' | b'@' | b'$' => {
                        write!(f, "\\{}", char::from(*octet))?;
                    }
                    0x21..=0x7e => write!(f, "{}", char::from(*octet))?,
                    _ => write!(f, "\\{octet:03}")?,
                }
            }
            f.write_str(".")?;
        }
        if any { Ok(()) } else { f.write_str(".") }
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written() {
        let long = "a".repeat(64);
        let whole = format!("{}.", ["a".repeat(61).as_str(); 5].join("."));
        let cases = [
            (".", Some(".")),
            ("", Some(".")),
            ("Cluster.LOCAL", Some("cluster.local.")),
            ("cluster.local.", Some("cluster.local.")),
            ("a..b", None),
            (".a", None),
            ("..", None),
            (long.as_str(), None),
            (whole.as_str(), None),
        ];
        for (text, want) in cases {
            let read = Name::parse(text).ok().map(|name| name.to_string());
            assert_eq!(read.as_deref(), want, "{text}");
        }
    }

    #[test]
    fn a_name_lies_within_its_zones_at_whole_labels() {
        let name = |text| Name::parse(text).unwrap();
        let cases = [
            ("a.cluster.local", "cluster.local", true),
            ("cluster.local", "cluster.local", true),
            ("xcluster.local", "cluster.local", false),
            ("local", "cluster.local", false),
            ("a", ".", true),
        ];
        for (below, zone, want) in cases {
            assert_eq!(name(below).within(&name(zone)), want, "{below} {zone}");
        }
    }

    #[test]
    fn wire_form_is_checked() {
        assert!(Name::from_wire(b"\x01A\x00").is_some_and(|n| n.wire() == b"\x01a\x00"));
        for bad in [
            &b""[..],
            b"\x01a",
            b"\x01a\x00\x00",
            b"\xc0\x0c",
            b"\x05a\x00",
        ] {
            assert!(Name::from_wire(bad).is_none(), "{bad:?}");
        }
    }
}
