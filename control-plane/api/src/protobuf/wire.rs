//! What stands on the wire: tags, numbers and lengths; and the fields of a schema by their numbers.

use std::collections::BTreeMap;

use crate::schema::{Field, Schema, Shape};

pub(super) const CUT_SHORT: &str = "it is cut short";

/// The fields of a message by their numbers.
#[derive(Debug)]
pub(crate) struct Wire(Vec<(u8, Entry)>);

/// What a number stands for.
#[derive(Debug)]
pub(super) enum Entry {
    /// A field.
    Field(&'static str, &'static Field),
    /// A message whose fields JSON shows in the parent.
    Inline(Wire),
}

impl Wire {
    /// The table of a schema, made at first use.
    pub(super) fn of(schema: &'static Schema) -> &'static Self {
        schema.wire.get_or_init(|| match &schema.shape {
            Shape::Struct(fields) => {
                let fields = fields.iter().map(|(name, field)| (*name, field));
                Wire::at(0, fields.collect())
            }
            _ => Wire(Vec::new()),
        })
    }

    /// The table of the fields that agree in the numbers before `level`.
    fn at(level: usize, fields: Vec<(&'static str, &'static Field)>) -> Self {
        let number = |field: &Field, level: usize| field.number.get(level).copied().unwrap_or(0);
        let mut groups: BTreeMap<u8, Vec<(&'static str, &'static Field)>> = BTreeMap::new();
        for (name, field) in fields {
            groups
                .entry(number(field, level))
                .or_default()
                .push((name, field));
        }
        groups.remove(&0);
        let entries = groups.into_iter().map(|(own, group)| {
            let entry = match group.as_slice() {
                [(name, field)] if number(field, level + 1) == 0 => Entry::Field(name, field),
                _ => Entry::Inline(Wire::at(level + 1, group)),
            };
            (own, entry)
        });
        Wire(entries.collect())
    }

    pub(super) fn get(&self, number: u32) -> Option<&Entry> {
        let number = u8::try_from(number).ok()?;
        let at = self.0.binary_search_by_key(&number, |(n, _)| *n).ok()?;
        self.0.get(at).map(|(_, entry)| entry)
    }
}

/// A field's value on the wire.
pub(super) enum Datum<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Eight bytes: a double.
    Double(f64),
    /// Four bytes, which no field of ours is.
    Fixed,
}

impl<'a> Datum<'a> {
    pub(super) fn bytes(&self) -> Result<&'a [u8], &'static str> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Number(_) | Self::Double(_) | Self::Fixed => Err("bytes are due"),
        }
    }

    pub(super) fn text(&self) -> Result<&'a str, &'static str> {
        std::str::from_utf8(self.bytes()?).map_err(|_| "it is not UTF-8")
    }

    pub(super) fn integer(&self) -> Result<i64, &'static str> {
        match self {
            Self::Number(number) => Ok(number.cast_signed()),
            Self::Bytes(_) | Self::Double(_) | Self::Fixed => Err("a number is due"),
        }
    }
}

/// Takes the fields off a message one by one. After a fault there are no more.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Datum<'a>), &'static str>;

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
    fn field(&mut self) -> Result<(u32, Datum<'a>), &'static str> {
        let tag = varint(&mut self.0).ok_or(CUT_SHORT)?;
        let number = u32::try_from(tag >> 3).map_err(|_| "a field has an impossible number")?;
        let value = match tag & 7 {
            0 => Datum::Number(varint(&mut self.0).ok_or(CUT_SHORT)?),
            1 => {
                let (bits, rest) = self.0.split_first_chunk().ok_or(CUT_SHORT)?;
                self.0 = rest;
                Datum::Double(f64::from_le_bytes(*bits))
            }
            2 => {
                let len = varint(&mut self.0).ok_or(CUT_SHORT)?;
                let len = usize::try_from(len).map_err(|_| CUT_SHORT)?;
                Datum::Bytes(self.take(len)?)
            }
            5 => self.take(4).map(|_| Datum::Fixed)?,
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
pub(super) fn varint(bytes: &mut &[u8]) -> Option<u64> {
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

/// The same the other way.
pub(super) fn put_varint(mut number: u64, out: &mut Vec<u8>) {
    while number > 0x7f {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}
