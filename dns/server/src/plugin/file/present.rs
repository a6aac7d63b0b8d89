//! Records as text that master files take again (RFC 1035 section 5, RFC 3597 section 5).

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{
    BinDecodable as _, BinDecoder, BinEncodable as _, BinEncoder,
};
use time::OffsetDateTime;
use time::macros::format_description;

use super::types::{self, Field};

/// A line of a master file.
#[must_use]
pub fn record(record: &Record) -> String {
    let kind = record.record_type();
    format!(
        "{} {} {} {} {}",
        record.name,
        record.ttl,
        types::class_text(record.dns_class),
        types::kind_text(kind),
        data(kind, &record.data)
    )
}

fn data(kind: RecordType, data: &RData) -> String {
    let layout = match kind {
        RecordType::TXT => Some(&[Field::Texts][..]),
        kind => types::fields(kind),
    };
    if layout.is_none() && !matches!(data, RData::Unknown { .. } | RData::NULL(_)) {
        return data.to_string();
    }
    let Some(octets) = octets(data) else {
        return data.to_string();
    };
    let written = layout.and_then(|layout| {
        let mut rest = Rest { octets: &octets };
        let fields = layout.iter().map(|field| rest.field(*field));
        let fields: Vec<String> = fields.collect::<Option<_>>()?;
        rest.octets.is_empty().then_some(fields)
    });
    match written {
        Some(fields) => {
            let fields: Vec<String> = fields.into_iter().filter(|f| !f.is_empty()).collect();
            fields.join(" ")
        }
        None => format!("\\# {} {}", octets.len(), hexadecimal(&octets))
            .trim_end()
            .to_owned(),
    }
}

/// The data with names in full.
fn octets(data: &RData) -> Option<Vec<u8>> {
    let mut octets = Vec::new();
    data.emit(&mut BinEncoder::new(&mut octets)).ok()?;
    Some(octets)
}

/// What is not written yet.
struct Rest<'a> {
    octets: &'a [u8],
}

impl<'a> Rest<'a> {
    /// A field as text; nothing where it is written in a way of its own, or the data is not what its type has.
    fn field(&mut self, field: Field) -> Option<String> {
        Some(match field {
            Field::Name => self.name()?,
            Field::U8 | Field::Algorithm | Field::Scheme => self.number(1)?.to_string(),
            Field::U16 | Field::Certificate => self.number(2)?.to_string(),
            Field::U32 | Field::Seconds => self.number(4)?.to_string(),
            Field::Date => date(self.number(4)?)?,
            Field::Kind => types::kind_text(RecordType::from(u16::try_from(self.number(2)?).ok()?)),
            Field::Text => quoted(self.counted()?),
            Field::TextIfAny if self.octets.is_empty() => String::new(),
            Field::TextIfAny => quoted(self.counted()?),
            Field::Texts => {
                let mut texts = Vec::new();
                while !self.octets.is_empty() {
                    texts.push(quoted(self.counted()?));
                }
                texts.join(" ")
            }
            Field::Plain => quoted(self.all()),
            Field::Hexadecimal => hexadecimal(self.all()),
            Field::Nsap => format!("0x{}", hexadecimal(self.all())),
            Field::Base64 | Field::Base64IfAny => STANDARD.encode(self.all()),
            Field::Salt => match self.counted()? {
                [] => "-".to_owned(),
                salt => hexadecimal(salt),
            },
            Field::Hash => base32(self.counted()?),
            Field::Bitmap => bitmap(self.all())?,
            Field::V4 => {
                let octets: [u8; 4] = self.take(4)?.try_into().ok()?;
                std::net::Ipv4Addr::from(octets).to_string()
            }
            Field::Hyphens(count) => {
                let octets = self.take(count)?.iter();
                let octets: Vec<String> = octets.map(|octet| format!("{octet:02x}")).collect();
                octets.join("-")
            }
            Field::Locator => {
                let groups = self.take(8)?.chunks(2).map(hexadecimal);
                groups.collect::<Vec<_>>().join(":")
            }
            Field::Names
            | Field::Location
            | Field::Prefixes
            | Field::Gateway
            | Field::Relay
            | Field::Host => return None,
            Field::Parameters => {
                let mut parameters = Vec::new();
                while !self.octets.is_empty() {
                    parameters.push(self.parameter()?);
                }
                parameters.join(" ")
            }
        })
    }

    /// A parameter of a service (RFC 9460 section 2.1).
    fn parameter(&mut self) -> Option<String> {
        let key = u16::try_from(self.number(2)?).ok()?;
        let length = usize::try_from(self.number(2)?).ok()?;
        let mut value = Rest {
            octets: self.take(length)?,
        };
        let name = types::parameter_text(key);
        let mut items = Vec::new();
        match key {
            0 | 1 | 3 | 4 | 6 | 9 => {
                while !value.octets.is_empty() {
                    items.push(value.item(key)?);
                }
            }
            2 | 8 if value.octets.is_empty() => return Some(name),
            5 => items.push(STANDARD.encode(value.all())),
            _ => items.push(quoted(value.all())),
        }
        Some(format!("{name}={}", items.join(",")))
    }

    /// One of a parameter's values.
    fn item(&mut self, key: u16) -> Option<String> {
        Some(match key {
            0 => types::parameter_text(u16::try_from(self.number(2)?).ok()?),
            1 => {
                let id = self.counted()?;
                let plain = |octet: &u8| octet.is_ascii_graphic() && !b",\\\"".contains(octet);
                (!id.is_empty() && id.iter().all(plain)).then_some(())?;
                String::from_utf8_lossy(id).into_owned()
            }
            4 => self.field(Field::V4)?,
            6 => {
                let octets: [u8; 16] = self.take(16)?.try_into().ok()?;
                std::net::Ipv6Addr::from(octets).to_string()
            }
            _ => self.number(2)?.to_string(),
        })
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.octets.split_at_checked(count)?;
        self.octets = rest;
        Some(taken)
    }

    fn all(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.octets)
    }

    fn counted(&mut self) -> Option<&'a [u8]> {
        let count = self.number(1)?;
        self.take(usize::try_from(count).ok()?)
    }

    fn number(&mut self, count: usize) -> Option<u32> {
        let octets = self.take(count)?.iter();
        Some(octets.fold(0, |number, octet| number << 8 | u32::from(*octet)))
    }

    fn name(&mut self) -> Option<String> {
        let mut decoder = BinDecoder::new(self.octets);
        let name = Name::read(&mut decoder).ok()?;
        self.octets = self.octets.get(decoder.index()..)?;
        Some(name.to_string())
    }
}

fn date(seconds: u32) -> Option<String> {
    let format = format_description!("[year][month][day][hour][minute][second]");
    let date = OffsetDateTime::from_unix_timestamp(seconds.into()).ok()?;
    date.format(format).ok()
}

fn quoted(octets: &[u8]) -> String {
    let mut text = String::from("\"");
    for octet in octets {
        match octet {
            b'"' | b'\\' => text.extend(['\\', char::from(*octet)]),
            b' '..=b'~' => text.push(char::from(*octet)),
            octet => {
                let _ = write!(text, "\\{octet:03}");
            }
        }
    }
    text.push('"');
    text
}

fn hexadecimal(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// Base 32 with the extended hexadecimal alphabet, without padding (RFC 5155 section 3.3).
pub(super) fn base32(octets: &[u8]) -> String {
    const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHIJKLMNOPQRSTUV";
    let bits = octets
        .iter()
        .flat_map(|octet| (0..8).rev().map(move |bit| octet >> bit & 1));
    let bits: Vec<u8> = bits.collect();
    let digits = bits.chunks(5).map(|five| {
        let value = five.iter().fold(0, |value, bit| value << 1 | bit) << (5 - five.len());
        char::from(DIGITS[usize::from(value & 31)])
    });
    digits.collect()
}

/// RFC 4034 section 4.1.2.
fn bitmap(mut octets: &[u8]) -> Option<String> {
    let mut kinds = Vec::new();
    while let [window, length, rest @ ..] = octets {
        let (bits, rest) = rest.split_at_checked(usize::from(*length))?;
        for (at, octet) in (0u16..).zip(bits) {
            let set = (0..8u16).filter(|bit| octet & (0x80 >> bit) != 0);
            let kind = |bit| u16::from(*window) << 8 | at << 3 | bit;
            kinds.extend(set.map(|bit| types::kind_text(RecordType::from(kind(bit)))));
        }
        octets = rest;
    }
    octets.is_empty().then(|| kinds.join(" "))
}
