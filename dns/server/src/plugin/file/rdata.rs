//! The data of records in master files. Types of DNSSEC become their octets: this server passes them through and
//! computes nothing with them.

use std::fmt::Write as _;

use hickory_proto::rr::Name;
use hickory_proto::rr::RData;
use hickory_proto::rr::RecordType;
use hickory_proto::rr::rdata::CNAME;
use hickory_proto::rr::rdata::MX;
use hickory_proto::rr::rdata::NS;
use hickory_proto::rr::rdata::NULL;
use hickory_proto::rr::rdata::PTR;
use hickory_proto::rr::rdata::SOA;
use hickory_proto::rr::rdata::SRV;
use hickory_proto::rr::rdata::TXT;

use super::fields::Fields;
use super::fields::from_hexadecimal;
use super::fields::texts_of;
use super::master::Word;
use super::types;
use crate::names;

/// A name, relative to the origin without a dot at its end; `@` is the origin.
pub(super) fn name(word: &Word, origin: &Name) -> Result<Name, String> {
    if word.text == "@" {
        return Ok(origin.clone());
    }
    let wrong = |error: &dyn std::fmt::Display| format!("{:?} is not a name: {error}", word.text);
    let (labels, absolute) = names::labels_of(&word.text).map_err(|error| wrong(&error))?;
    let mut name =
        Name::from_labels(labels.iter().map(Vec::as_slice)).map_err(|error| wrong(&error))?;
    if !absolute {
        name = name.append_domain(origin).map_err(|error| wrong(&error))?;
    }
    name.set_fqdn(true);
    Ok(name)
}

pub(super) fn parse(kind: RecordType, words: &[Word], origin: &Name) -> Result<RData, String> {
    // RFC 3597, 5: any type may be written in octets.
    if let [mark, length, hex @ ..] = words
        && mark.text == "\\#"
    {
        let hex: String = hex.iter().map(|word| word.text.as_str()).collect();
        let octets = from_hexadecimal(&hex)?;
        if length.text.parse() != Ok(octets.len()) {
            return Err(format!("{} octets, not {}", octets.len(), length.text));
        }
        return wire(kind, octets);
    }
    let mut fields = Fields::new(words, origin);
    let data = match kind {
        RecordType::NS => RData::NS(NS(fields.name()?)),
        RecordType::CNAME => RData::CNAME(CNAME(fields.name()?)),
        RecordType::PTR => RData::PTR(PTR(fields.name()?)),
        RecordType::MX => RData::MX(MX::new(fields.number()?, fields.name()?)),
        RecordType::SRV => RData::SRV(SRV::new(
            fields.number()?,
            fields.number()?,
            fields.number()?,
            fields.name()?,
        )),
        RecordType::SOA => RData::SOA(SOA::new(
            fields.name()?,
            fields.name()?,
            fields.number()?,
            fields.seconds()?,
            fields.seconds()?,
            fields.seconds()?,
            fields.time()?,
        )),
        RecordType::TXT => {
            let mut texts = Vec::new();
            for word in fields.words.by_ref() {
                texts.extend(texts_of(&word.text)?);
            }
            if texts.is_empty() {
                return Err("no text".to_owned());
            }
            RData::TXT(TXT::from_bytes(texts.iter().map(Vec::as_slice).collect()))
        }
        kind => match types::fields(kind) {
            Some(layout) => {
                let octets = fields.octets(layout)?;
                fields.end()?;
                return wire(kind, octets);
            }
            None => return other(kind, words),
        },
    };
    fields.end()?;
    Ok(data)
}

/// Types that hickory-proto reads from text.
fn other(kind: RecordType, words: &[Word]) -> Result<RData, String> {
    if matches!(kind, RecordType::Unknown(_)) {
        return Err(
            "its data has no words here: write \\# LENGTH HEXADECIMAL (RFC 3597)".to_owned(),
        );
    }
    let mut line = String::new();
    for word in words {
        let quote = if word.quoted { "\"" } else { "" };
        let _ = write!(line, "{quote}{}{quote} ", word.text);
    }
    RData::try_from_str(kind, line.trim_end()).map_err(|error| error.to_string())
}

/// Octets as data of a type. The types with names in them are read, so that they are compared and compressed.
fn wire(kind: RecordType, octets: Vec<u8>) -> Result<RData, String> {
    use hickory_proto::serialize::binary::BinDecoder;
    if octets.is_empty() {
        return Err("no data".to_owned());
    }
    if types::opaque(kind) {
        return Ok(RData::Unknown {
            code: kind,
            rdata: NULL::with(octets),
        });
    }
    // A whole record round the data, for the decoder reads records.
    let mut record = vec![0];
    record.extend(u16::from(kind).to_be_bytes());
    record.extend([0, 1, 0, 0, 0, 0]);
    let length = u16::try_from(octets.len()).map_err(|_| "more than 65535 octets")?;
    record.extend(length.to_be_bytes());
    record.extend(octets);
    let mut decoder = BinDecoder::new(&record);
    <hickory_proto::rr::Record as hickory_proto::serialize::binary::BinDecodable<'_>>::read(
        &mut decoder,
    )
    .map(|record| record.data)
    .map_err(|error| error.to_string())
}
