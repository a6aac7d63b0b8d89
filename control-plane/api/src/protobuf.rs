//! Protobuf (`application/vnd.kubernetes.protobuf`), which kubectl and typed clients send and ask for, for the kinds
//! built into Kubernetes. Objects are JSON here; the field numbers stand in the schema.
//!
//! A body is four bytes of magic and a `runtime.Unknown`, which names the kind and carries the object. A watch is a
//! sequence of `meta.v1.WatchEvent`, each behind its length in four bytes and with a body in it.
//!
//! Fields that the schema does not know are passed over, as Kubernetes does with what a newer client sends.

mod read;
#[cfg(test)]
mod tests;
mod wire;
mod write;

use serde_json::{Map, Value};

use crate::schema;
use crate::value::text;

pub(crate) use wire::Wire;

/// The content type of such bodies.
pub const CONTENT_TYPE: &str = "application/vnd.kubernetes.protobuf";

const MAGIC: &[u8] = b"k8s\0";

/// Why a body could not be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    /// It does not begin as such a body does.
    #[error("the body is not Kubernetes protobuf: it does not begin with \"k8s\\0\"")]
    Magic,
    /// The object can't be read.
    #[error("the {message} in the protobuf body can't be read: {what}")]
    Malformed {
        /// The message that the fault is in.
        message: String,
        /// What is wrong.
        what: String,
    },
    /// The envelope names an object that there is no protobuf form of.
    #[error("there is no protobuf form of {kind} in {api_version}; send it as JSON")]
    Kind {
        /// As sent.
        api_version: String,
        /// As sent.
        kind: String,
    },
}

impl Error {
    fn malformed(message: &str, what: impl Into<String>) -> Self {
        Self::Malformed {
            message: message.to_owned(),
            what: what.into(),
        }
    }
}

/// Reads a body into the JSON of the object, `apiVersion` and `kind` included.
///
/// # Errors
/// Where the body is malformed or of a kind without a protobuf form.
pub fn decode(body: &[u8]) -> Result<Value, Error> {
    read::body(body, 0, |_, _| None)
}

/// As [`decode`], where `read_as` may tell, by version and kind, which version's fields an object of another has.
///
/// # Errors
/// As there.
pub fn decode_as(body: &[u8], read_as: fn(&str, &str) -> Option<String>) -> Result<Value, Error> {
    read::body(body, 0, read_as)
}

/// Whether objects of that kind can be written as protobuf.
pub fn has_kind(api_version: &str, kind: &str) -> bool {
    schema::of_kind(api_version, kind).is_some()
}

/// Writes an object as a body. `None` where its kind has no protobuf form. What the schema does not know is left out.
pub fn encode(object: &Value) -> Option<Vec<u8>> {
    let (api_version, kind) = (text(object, &["apiVersion"]), text(object, &["kind"]));
    let schema = schema::of_kind(api_version, kind)?;
    let mut out = MAGIC.to_vec();
    write::envelope(api_version, kind, &mut out, |out| {
        write::object(schema, object, out);
    });
    Some(out)
}

/// Writes a list as a body: its metadata, and the items one by one, so that they need not stand side by side as JSON.
/// `kind` is the list's. `None` where it has no protobuf form.
pub fn encode_list<'a>(
    api_version: &str,
    kind: &str,
    metadata: &Map<String, Value>,
    items: impl Iterator<Item = &'a Value>,
) -> Option<Vec<u8>> {
    let mut list = ListWriter::new(api_version, kind, metadata)?;
    items.for_each(|item| list.push(item));
    Some(list.finish())
}

/// Writes a list item by item.
#[derive(Debug)]
pub struct ListWriter {
    api_version: String,
    kind: String,
    item: &'static schema::Schema,
    raw: Vec<u8>,
}

impl ListWriter {
    /// A list of that kind without items. `None` where it has no protobuf form.
    pub fn new(api_version: &str, kind: &str, metadata: &Map<String, Value>) -> Option<Self> {
        let list = schema::of_kind(api_version, kind)?;
        let schema::Shape::List(items) = &list.field("items")?.shape else {
            return None;
        };
        let item = items.resolve().0?;
        let meta = list.field("metadata")?.shape.resolve().0?;
        let mut raw = Vec::new();
        write::message(1, &mut raw, |out| write::fields(meta, metadata, out));
        Some(ListWriter {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            item,
            raw,
        })
    }

    /// Adds an item.
    pub fn push(&mut self, item: &Value) {
        let schema = self.item;
        write::message(2, &mut self.raw, |out| write::object(schema, item, out));
    }

    /// The body.
    pub fn finish(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.raw.len() + 64);
        out.extend_from_slice(MAGIC);
        write::envelope(&self.api_version, &self.kind, &mut out, |out| {
            out.extend_from_slice(&self.raw);
        });
        out
    }
}

/// An event of a watch, behind its length: `kind` is `ADDED` and so on, `body` an object as [`encode`] writes it.
pub fn watch_frame(kind: &str, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + 32);
    out.extend_from_slice(&[0; 4]);
    write::bytes(1, kind.as_bytes(), &mut out);
    write::message(2, &mut out, |out| write::bytes(1, body, out));
    let len = u32::try_from(out.len() - 4).unwrap_or(u32::MAX);
    out[..4].copy_from_slice(&len.to_be_bytes());
    out
}
