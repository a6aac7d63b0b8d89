//! JSON into a value, noting on the way, in the order of the document, what is there twice and what nobody knows.

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::surrogates;
use crate::schema::{Schema, Shape};

/// The value, and the findings in Kubernetes' words. With a schema, fields that it lacks are findings as well.
pub(super) fn json(
    bytes: &[u8],
    schema: Option<&'static Schema>,
) -> Result<(Value, Vec<String>), serde_json::Error> {
    read(bytes, schema, false)
}

/// The value, and what is there twice anywhere in it.
pub(super) fn free_json(bytes: &[u8]) -> Result<(Value, Vec<String>), serde_json::Error> {
    read(bytes, None, true)
}

fn read(
    bytes: &[u8],
    schema: Option<&'static Schema>,
    free: bool,
) -> Result<(Value, Vec<String>), serde_json::Error> {
    let read = once(bytes, schema, free);
    read.or_else(|why| match surrogates::replaced(bytes) {
        Some(replaced) => once(&replaced, schema, free),
        None => Err(why),
    })
}

fn once(
    bytes: &[u8],
    schema: Option<&'static Schema>,
    free: bool,
) -> Result<(Value, Vec<String>), serde_json::Error> {
    let findings = RefCell::new(Vec::new());
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let seed = Seed {
        shape: schema.map(|s| &s.shape),
        free,
        path: Path::Root,
        depth: 0,
        findings: &findings,
    };
    let value = seed.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok((value, findings.into_inner()))
}

/// Where in the document.
#[derive(Clone, Copy)]
pub(super) enum Path<'a> {
    Root,
    Key(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Key(Path::Root, key) => f.write_str(key),
            Path::Key(parent, key) => write!(f, "{parent}.{key}"),
            Path::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

#[derive(Clone, Copy)]
struct Seed<'a> {
    shape: Option<&'a Shape>,
    /// Whether duplicates count where no shape is known.
    free: bool,
    path: Path<'a>,
    depth: usize,
    findings: &'a RefCell<Vec<String>>,
}

/// The integer that a number of free form is.
fn whole(number: f64) -> Option<i64> {
    const BEYOND: f64 = (1_u64 << 63) as f64;
    (number.fract() == 0.0 && number.abs() < BEYOND).then_some(number as i64)
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(flag.into())
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(match whole(number) {
            // Go writes it without a fraction, and reads it as an integer the next time.
            Some(integer) if self.shape.is_none() => integer.into(),
            _ => number.into(),
        })
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        if self.depth >= super::DEPTH_MAX {
            return Err(A::Error::custom("exceeded max depth"));
        }
        let shape = match self.shape.map(|s| s.resolve().1) {
            Some(Shape::List(items)) => Some(&**items),
            _ => None,
        };
        let mut list = Vec::new();
        loop {
            let path = Path::Index(&self.path, list.len());
            let seed = Seed {
                shape,
                free: self.free,
                path,
                depth: self.depth + 1,
                findings: self.findings,
            };
            match items.next_element_seed(seed)? {
                Some(item) => list.push(item),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        if self.depth >= super::DEPTH_MAX {
            return Err(A::Error::custom("exceeded max depth"));
        }
        let shape = self.shape.map(|s| s.resolve().1);
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let path = Path::Key(&self.path, &key);
            let below = match shape {
                Some(Shape::Struct(fields)) => {
                    let field = fields.get(key.as_str());
                    if field.is_none() {
                        self.findings
                            .borrow_mut()
                            .push(format!("unknown field \"{path}\""));
                    }
                    field.map(|f| &f.shape)
                }
                Some(Shape::Map(values)) => Some(&**values),
                _ => None,
            };
            // What stands below an unknown field is not looked at, nor what stands in free JSON.
            if map.contains_key(&key)
                && (self.free
                    || (matches!(shape, Some(Shape::Struct(_) | Shape::Map(_))) && below.is_some()))
            {
                self.findings
                    .borrow_mut()
                    .push(format!("duplicate field \"{path}\""));
            }
            let seed = Seed {
                shape: below,
                free: self.free,
                path,
                depth: self.depth + 1,
                findings: self.findings,
            };
            let value = entries.next_value_seed(seed)?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}
