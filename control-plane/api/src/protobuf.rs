//! Request bodies in protobuf (`application/vnd.kubernetes.protobuf`), which kubectl and typed clients send for the
//! kinds built into Kubernetes. They become the JSON that the same object would have been sent as.
//!
//! A body is four bytes of magic and a `runtime.Unknown`, which names the kind and carries the object. The messages
//! stand in `protobuf/messages.txt`, one per line: its name, the kinds that it is the body of, and its fields as
//! `number name type`. A type is a message's name or one of `s` string, `b` bool, `i` integer, `y` bytes (base64 in
//! JSON), `t` Time, `u` MicroTime, `q` Quantity, `p` IntOrString, `r` JSON as it stands; `[]` before it makes a list,
//! `{}` a map with strings for keys. A name of `=` stands for fields that JSON shows in the parent.
//!
//! Go encodes every field that is no pointer, also when it holds nothing, and JSON leaves those out again. After the
//! type, `*` marks a pointer, which is kept whatever it holds, and `!` a field that JSON shows in any case.
//!
//! Fields that the table does not know are passed over, as Kubernetes does with what a newer client sends. No message
//! contains itself, so the depth of a body is bounded by the table.

use std::collections::HashMap;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

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

/// Reads a body into the JSON of the object, `apiVersion` and `kind` included.
///
/// # Errors
/// Where the body is malformed or of a kind without a protobuf form.
pub fn decode(body: &[u8]) -> Result<Value, Error> {
    let unknown = Envelope::read(body.strip_prefix(MAGIC).ok_or(Error::Magic)?)?;
    let message = kind(&unknown.api_version, &unknown.kind).ok_or_else(|| Error::Kind {
        api_version: unknown.api_version.clone(),
        kind: unknown.kind.clone(),
    })?;
    let mut object = Map::new();
    if !unknown.api_version.is_empty() {
        object.insert("apiVersion".to_owned(), unknown.api_version.into());
    }
    object.insert("kind".to_owned(), unknown.kind.into());
    message.read(unknown.raw, &mut object)?;
    Ok(Value::Object(object))
}

/// A `runtime.Unknown`.
#[derive(Default)]
struct Envelope<'a> {
    api_version: String,
    kind: String,
    raw: &'a [u8],
}

impl<'a> Envelope<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, Error> {
        let malformed = |what| Error::malformed("runtime.Unknown", what);
        let mut envelope = Self::default();
        for field in Fields(bytes) {
            let (number, value) = field.map_err(malformed)?;
            match number {
                1 => {
                    for field in Fields(value.bytes().map_err(malformed)?) {
                        let (number, value) = field.map_err(malformed)?;
                        match number {
                            1 => envelope.api_version = value.text().map_err(malformed)?,
                            2 => envelope.kind = value.text().map_err(malformed)?,
                            _ => {}
                        }
                    }
                }
                2 => envelope.raw = value.bytes().map_err(malformed)?,
                // Its encoding and type: nothing but plain objects is sent.
                3 if !value.bytes().map_err(malformed)?.is_empty() => {
                    return Err(malformed("its content is encoded"));
                }
                _ => {}
            }
        }
        Ok(envelope)
    }
}

impl Error {
    fn malformed(message: &str, what: impl Into<String>) -> Self {
        Self::Malformed {
            message: message.to_owned(),
            what: what.into(),
        }
    }
}

/// What a message looks like.
struct Message {
    name: &'static str,
    fields: HashMap<u32, Field>,
}

struct Field {
    /// Its name in JSON; `None` where its fields are shown in the parent.
    name: Option<&'static str>,
    kind: Type,
    many: Many,
    keep: Keep,
}

enum Type {
    Text,
    Flag,
    Integer,
    Bytes,
    Time,
    MicroTime,
    Quantity,
    IntOrString,
    Json,
    Message(&'static str),
}

#[derive(PartialEq, Eq)]
enum Many {
    One,
    List,
    Map,
}

/// When JSON shows a field.
#[derive(PartialEq, Eq)]
enum Keep {
    /// When it holds something.
    Full,
    /// Whenever it was sent.
    Sent,
}

struct Messages {
    by_name: HashMap<&'static str, Message>,
    /// The messages of the kinds, by `apiVersion/kind`.
    by_kind: HashMap<&'static str, &'static str>,
}

/// A test reads the whole table with `parse`, so a line that can't be parsed does not get this far.
static MESSAGES: LazyLock<Messages> = LazyLock::new(|| {
    let mut messages = Messages {
        by_name: HashMap::new(),
        by_kind: HashMap::new(),
    };
    for line in include_str!("protobuf/messages.txt").lines() {
        if let Some((message, kinds)) = parse(line) {
            messages
                .by_kind
                .extend(kinds.map(|kind| (kind, message.name)));
            messages.by_name.insert(message.name, message);
        }
    }
    messages
});

/// The message that is the body of a kind. Options of a request come under any group.
fn kind(api_version: &str, kind: &str) -> Option<&'static Message> {
    let whole = format!("{api_version}/{kind}");
    let any = format!("*/{kind}");
    let name = MESSAGES.by_kind.get(whole.as_str());
    let name = name.or_else(|| MESSAGES.by_kind.get(any.as_str()))?;
    MESSAGES.by_name.get(name)
}

/// A line of the table: a message and the kinds that it is the body of.
fn parse(line: &'static str) -> Option<(Message, impl Iterator<Item = &'static str>)> {
    let (head, fields) = line.split_once(": ")?;
    let mut head = head.split(' ');
    let name = head.next()?;
    let fields = fields.split("; ").map(|field| {
        let mut words = field.split(' ');
        let (number, name, kind) = (words.next()?, words.next()?, words.next()?);
        let (many, kind) = match (kind.strip_prefix("[]"), kind.strip_prefix("{}")) {
            (Some(item), _) => (Many::List, item),
            (_, Some(item)) => (Many::Map, item),
            (None, None) => (Many::One, kind),
        };
        let bare = kind.trim_end_matches(['*', '!']);
        let keep = if bare == kind { Keep::Full } else { Keep::Sent };
        let kind = match bare {
            "s" => Type::Text,
            "b" => Type::Flag,
            "i" => Type::Integer,
            "y" => Type::Bytes,
            "t" => Type::Time,
            "u" => Type::MicroTime,
            "q" => Type::Quantity,
            "p" => Type::IntOrString,
            "r" => Type::Json,
            message => Type::Message(message),
        };
        let name = (name != "=").then_some(name);
        let field = Field {
            name,
            kind,
            many,
            keep,
        };
        Some((number.parse().ok()?, field))
    });
    let fields = fields.collect::<Option<_>>()?;
    Some((Message { name, fields }, head))
}

impl Message {
    /// Reads a message's fields into an object.
    fn read(&self, bytes: &[u8], object: &mut Map<String, Value>) -> Result<(), Error> {
        let malformed = |what| Error::malformed(self.name, what);
        for read in Fields(bytes) {
            let (number, value) = read.map_err(malformed)?;
            let Some(field) = self.fields.get(&number) else {
                continue;
            };
            let Some(name) = field.name else {
                if let Type::Message(inner) = field.kind
                    && let Some(inner) = MESSAGES.by_name.get(inner)
                {
                    inner.read(value.bytes().map_err(malformed)?, object)?;
                }
                continue;
            };
            let wrong = |what: &str| malformed_field(self.name, name, what);
            match field.many {
                Many::One => {
                    let value = field.kind.read(&value, &wrong)?;
                    let shown = match field.keep {
                        Keep::Sent => !value.is_null(),
                        Keep::Full => !empty(&value, &field.kind),
                    };
                    if shown {
                        object.insert(name.to_owned(), value);
                    }
                }
                Many::List => {
                    let list = object
                        .entry(name)
                        .or_insert_with(|| Value::Array(Vec::new()));
                    if let Value::Array(list) = list {
                        field.kind.read_items(&value, list, &wrong)?;
                    }
                }
                Many::Map => {
                    let (key, value) = field.kind.read_pair(&value, &wrong)?;
                    let map = object
                        .entry(name)
                        .or_insert_with(|| Value::Object(Map::new()));
                    if let Value::Object(map) = map {
                        map.insert(key, value);
                    }
                }
            }
        }
        Ok(())
    }
}

fn malformed_field(message: &str, field: &str, what: &str) -> Error {
    Error::malformed(message, format!("{field}: {what}"))
}

/// Whether JSON leaves a value out that is no pointer.
fn empty(value: &Value, kind: &Type) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_i64() == Some(0),
        // A Quantity always says something.
        Value::String(text) => text.is_empty() && !matches!(kind, Type::Quantity),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

type Wrong<'a> = &'a dyn Fn(&str) -> Error;

impl Type {
    /// One value. A point in time that was never set is null.
    fn read(&self, value: &Wire<'_>, wrong: Wrong<'_>) -> Result<Value, Error> {
        let bytes = || value.bytes().map_err(wrong);
        Ok(match self {
            Self::Text => value.text().map_err(wrong)?.into(),
            Self::Flag => (value.integer().map_err(wrong)? != 0).into(),
            Self::Integer => value.integer().map_err(wrong)?.into(),
            Self::Bytes => STANDARD.encode(bytes()?).into(),
            Self::Time => time(bytes()?, false).map_err(wrong)?,
            Self::MicroTime => time(bytes()?, true).map_err(wrong)?,
            Self::Quantity => {
                let quantity = first(bytes()?).map_err(wrong)?.unwrap_or_default();
                let quantity = std::str::from_utf8(quantity).map_err(|_| wrong(NOT_TEXT))?;
                let quantity = if quantity.is_empty() { "0" } else { quantity };
                quantity.into()
            }
            Self::IntOrString => int_or_string(bytes()?).map_err(wrong)?,
            Self::Json => match first(bytes()?).map_err(wrong)?.unwrap_or_default() {
                [] => Value::Object(Map::new()),
                json => serde_json::from_slice(json).map_err(|error| wrong(&error.to_string()))?,
            },
            Self::Message(name) => {
                let mut object = Map::new();
                if let Some(message) = MESSAGES.by_name.get(name) {
                    message.read(bytes()?, &mut object)?;
                }
                Value::Object(object)
            }
        })
    }

    /// One item of a list, or several where numbers are packed.
    fn read_items(
        &self,
        value: &Wire<'_>,
        list: &mut Vec<Value>,
        wrong: Wrong<'_>,
    ) -> Result<(), Error> {
        if let (Self::Integer | Self::Flag, Wire::Bytes(packed)) = (self, value) {
            let mut rest = *packed;
            while !rest.is_empty() {
                let number = varint(&mut rest).ok_or_else(|| wrong(CUT_SHORT))?;
                list.push(self.read(&Wire::Number(number), wrong)?);
            }
        } else {
            list.push(self.read(value, wrong)?);
        }
        Ok(())
    }

    /// An entry of a map: a message of key (1) and value (2), either of which is left out when it holds nothing.
    fn read_pair(&self, value: &Wire<'_>, wrong: Wrong<'_>) -> Result<(String, Value), Error> {
        let mut key = String::new();
        let mut found = None;
        for field in Fields(value.bytes().map_err(wrong)?) {
            let (number, value) = field.map_err(wrong)?;
            match number {
                1 => key = value.text().map_err(wrong)?,
                2 => found = Some(self.read(&value, wrong)?),
                _ => {}
            }
        }
        match found {
            Some(value) => Ok((key, value)),
            None => Ok((key, self.read(&Wire::Bytes(&[]), wrong)?)),
        }
    }
}

/// The content of a message with one field of bytes.
fn first(bytes: &[u8]) -> Result<Option<&[u8]>, &'static str> {
    let mut content = None;
    for field in Fields(bytes) {
        if let (1, value) = field? {
            content = Some(value.bytes()?);
        }
    }
    Ok(content)
}

/// A Time or MicroTime: seconds (1) and nanoseconds (2) since 1970. One that was never set has no fields.
fn time(bytes: &[u8], micro: bool) -> Result<Value, &'static str> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let (mut seconds, mut nanoseconds) = (0, 0);
    for field in Fields(bytes) {
        match field? {
            (1, value) => seconds = value.integer()?,
            (2, value) => nanoseconds = value.integer()?,
            _ => {}
        }
    }
    let format: &[BorrowedFormatItem<'_>] = if micro {
        format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z")
    } else {
        format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z")
    };
    let nanosecond = u32::try_from(nanoseconds).map_err(|_| NO_TIME)?;
    let text = OffsetDateTime::from_unix_timestamp(seconds)
        .and_then(|time| time.replace_nanosecond(nanosecond))
        .map_err(|_| NO_TIME)?
        .format(format);
    Ok(text.map_err(|_| NO_TIME)?.into())
}

/// An IntOrString: which of the two it is (1), the number (2), the string (3).
fn int_or_string(bytes: &[u8]) -> Result<Value, &'static str> {
    let (mut is_text, mut number, mut text) = (false, 0, String::new());
    for field in Fields(bytes) {
        match field? {
            (1, value) => is_text = value.integer()? == 1,
            (2, value) => number = value.integer()?,
            (3, value) => text = value.text()?,
            _ => {}
        }
    }
    Ok(if is_text { text.into() } else { number.into() })
}

const CUT_SHORT: &str = "it is cut short";
const NOT_TEXT: &str = "it is not UTF-8";
const NO_TIME: &str = "it is no point in time";

/// A field's value on the wire.
enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Four or eight bytes, which no field of ours is.
    Fixed,
}

impl<'a> Wire<'a> {
    fn bytes(&self) -> Result<&'a [u8], &'static str> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Number(_) | Self::Fixed => Err("bytes are due"),
        }
    }

    fn text(&self) -> Result<String, &'static str> {
        let text = std::str::from_utf8(self.bytes()?);
        text.map(str::to_owned).map_err(|_| NOT_TEXT)
    }

    fn integer(&self) -> Result<i64, &'static str> {
        match self {
            Self::Number(number) => Ok(number.cast_signed()),
            Self::Bytes(_) | Self::Fixed => Err("a number is due"),
        }
    }
}

/// Takes the fields off a message one by one. After a fault there are no more.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Wire<'a>), &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Result<(u32, Wire<'a>), &'static str> {
        let tag = varint(&mut self.0).ok_or(CUT_SHORT)?;
        let number = u32::try_from(tag >> 3).map_err(|_| "a field has an impossible number")?;
        let value = match tag & 7 {
            0 => Wire::Number(varint(&mut self.0).ok_or(CUT_SHORT)?),
            1 => self.take(8).map(|_| Wire::Fixed)?,
            2 => {
                let len = varint(&mut self.0).ok_or(CUT_SHORT)?;
                let len = usize::try_from(len).map_err(|_| CUT_SHORT)?;
                Wire::Bytes(self.take(len)?)
            }
            5 => self.take(4).map(|_| Wire::Fixed)?,
            _ => return Err("a field is of an unknown wire type"),
        };
        Ok((number, value))
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], &'static str> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(CUT_SHORT)?;
        self.0 = rest;
        Ok(taken)
    }
}

/// A number in groups of seven bits, the least first.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests;
