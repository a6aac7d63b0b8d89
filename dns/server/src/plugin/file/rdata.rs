//! The data of records in master files. Types of DNSSEC become their octets: this server passes them through and
//! computes nothing with them.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
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
use time::PrimitiveDateTime;
use time::macros::format_description;

use super::master::Word;
use super::master::ttl;

/// A type by name, or by number as `TYPE65280` (RFC 3597).
pub(crate) fn kind(text: &str) -> Option<RecordType> {
    let upper = text.to_ascii_uppercase();
    if let Some(number) = upper.strip_prefix("TYPE") {
        return number.parse::<u16>().ok().map(RecordType::from);
    }
    match upper.as_str() {
        "DNAME" => Some(RecordType::from(39)),
        "ANY" | "AXFR" | "IXFR" | "OPT" | "TSIG" | "*" => None,
        name => name.parse().ok(),
    }
}

/// A name, relative to the origin without a dot at its end; `@` is the origin.
pub(super) fn name(word: &Word, origin: &Name) -> Result<Name, String> {
    if word.text == "@" {
        return Ok(origin.clone());
    }
    let wrong = |error: &dyn std::fmt::Display| format!("{:?} is not a name: {error}", word.text);
    let (labels, absolute) = labels(&word.text).map_err(|error| wrong(&error))?;
    let mut name =
        Name::from_labels(labels.iter().map(Vec::as_slice)).map_err(|error| wrong(&error))?;
    if !absolute {
        name = name.append_domain(origin).map_err(|error| wrong(&error))?;
    }
    name.set_fqdn(true);
    Ok(name)
}

/// The labels of a name as master files write it, and whether a dot ends it. A backslash before three digits gives
/// any octet, before another character that character (RFC 1035 section 5.1).
fn labels(text: &str) -> Result<(Vec<Vec<u8>>, bool), &'static str> {
    if text == "." {
        return Ok((Vec::new(), true));
    }
    let mut labels = vec![Vec::new()];
    let mut octets = text.bytes();
    while let Some(octet) = octets.next() {
        let octet = match octet {
            b'.' => {
                if labels.last().is_some_and(Vec::is_empty) {
                    return Err("an empty label");
                }
                labels.push(Vec::new());
                continue;
            }
            b'\\' => match octets.next().ok_or("a backslash at its end")? {
                first @ b'0'..=b'9' => {
                    let mut number = u16::from(first - b'0');
                    for _ in 0..2 {
                        let digit = octets.next().filter(u8::is_ascii_digit);
                        let digit = digit.ok_or("a backslash before fewer than three digits")?;
                        number = number * 10 + u16::from(digit - b'0');
                    }
                    u8::try_from(number).map_err(|_| "an octet above 255")?
                }
                other => other,
            },
            other => other,
        };
        if let Some(label) = labels.last_mut() {
            label.push(octet);
        }
    }
    let absolute = labels.last().is_some_and(Vec::is_empty);
    if absolute {
        labels.pop();
    }
    if labels.is_empty() {
        return Err("nothing");
    }
    Ok((labels, absolute))
}

pub(super) fn parse(kind: RecordType, words: &[Word], origin: &Name) -> Result<RData, String> {
    // RFC 3597, 5: any type may be written in octets.
    if let [mark, length, hex @ ..] = words
        && mark.text == "\\#"
    {
        let octets = hexadecimal(hex)?;
        if length.text.parse() != Ok(octets.len()) {
            return Err(format!("{} octets, not {}", octets.len(), length.text));
        }
        return wire(kind, octets);
    }
    let mut fields = Fields {
        words: words.iter(),
        origin,
    };
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
                texts.push(text(&word.text)?);
            }
            if texts.is_empty() {
                return Err("no text".to_owned());
            }
            RData::TXT(TXT::from_bytes(texts.iter().map(Vec::as_slice).collect()))
        }
        kind => match octets(kind, &mut fields)? {
            Some(octets) => {
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
    let mut line = String::new();
    for word in words {
        let quote = if word.quoted { "\"" } else { "" };
        let _ = write!(line, "{quote}{}{quote} ", word.text);
    }
    RData::try_from_str(kind, line.trim_end()).map_err(|error| error.to_string())
}

/// The wire form of types that are passed through; nothing for others.
fn octets(kind: RecordType, fields: &mut Fields<'_>) -> Result<Option<Vec<u8>>, String> {
    let mut octets = Vec::new();
    match u16::from(kind) {
        // DNAME
        39 => octets.extend(crate::names::wire(&fields.name()?)),
        // DS, CDS
        43 | 59 => {
            octets.extend(fields.number::<u16>()?.to_be_bytes());
            octets.push(fields.number()?);
            octets.push(fields.number()?);
            octets.extend(fields.rest_hexadecimal()?);
        }
        // DNSKEY, CDNSKEY
        48 | 60 => {
            octets.extend(fields.number::<u16>()?.to_be_bytes());
            octets.push(fields.number()?);
            octets.push(fields.number()?);
            octets.extend(fields.rest_base64()?);
        }
        // RRSIG
        46 => {
            let covered = fields.kind()?;
            octets.extend(u16::from(covered).to_be_bytes());
            octets.push(fields.number()?);
            octets.push(fields.number()?);
            octets.extend(fields.time()?.to_be_bytes());
            octets.extend(fields.date()?.to_be_bytes());
            octets.extend(fields.date()?.to_be_bytes());
            octets.extend(fields.number::<u16>()?.to_be_bytes());
            octets.extend(crate::names::wire(&fields.name()?));
            octets.extend(fields.rest_base64()?);
        }
        // NSEC
        47 => {
            octets.extend(crate::names::wire(&fields.name()?));
            octets.extend(fields.rest_bitmap()?);
        }
        // NSEC3, NSEC3PARAM
        50 | 51 => {
            octets.push(fields.number()?);
            octets.push(fields.number()?);
            octets.extend(fields.number::<u16>()?.to_be_bytes());
            let salt = &fields.word()?.text;
            let salt = if salt == "-" {
                Vec::new()
            } else {
                from_hexadecimal(salt)?
            };
            octets.push(u8::try_from(salt.len()).map_err(|_| "the salt is too long")?);
            octets.extend(salt);
            if u16::from(kind) == 50 {
                let hash = base32(&fields.word()?.text)?;
                octets.push(u8::try_from(hash.len()).map_err(|_| "the hash is too long")?);
                octets.extend(hash);
                octets.extend(fields.rest_bitmap()?);
            }
        }
        _ => return Ok(None),
    }
    Ok(Some(octets))
}

/// Octets as data of a type. The types with names in them are read, so that they are compared and compressed.
fn wire(kind: RecordType, octets: Vec<u8>) -> Result<RData, String> {
    use hickory_proto::serialize::binary::BinDecoder;
    let opaque = matches!(u16::from(kind), 39 | 43 | 46..=48 | 50 | 51 | 59 | 60 | 256..);
    if octets.is_empty() {
        return Err("no data".to_owned());
    }
    if opaque {
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

struct Fields<'a> {
    words: std::slice::Iter<'a, Word>,
    origin: &'a Name,
}

impl Fields<'_> {
    fn word(&mut self) -> Result<&Word, String> {
        self.words
            .next()
            .ok_or_else(|| "a field is missing".to_owned())
    }

    fn name(&mut self) -> Result<Name, String> {
        let origin = self.origin;
        name(self.word()?, origin)
    }

    fn number<N: std::str::FromStr>(&mut self) -> Result<N, String> {
        let word = self.word()?;
        word.text
            .parse()
            .map_err(|_| format!("{:?} is not a number that fits", word.text))
    }

    /// A time in seconds, with units or without.
    fn time(&mut self) -> Result<u32, String> {
        let word = self.word()?;
        ttl(&word.text).ok_or_else(|| format!("{:?} is not a time", word.text))
    }

    fn seconds(&mut self) -> Result<i32, String> {
        i32::try_from(self.time()?).map_err(|_| "the time is longer than 68 years".to_owned())
    }

    fn kind(&mut self) -> Result<RecordType, String> {
        let word = self.word()?;
        kind(&word.text).ok_or_else(|| format!("unknown type {}", word.text))
    }

    /// Seconds since 1970, or YYYYMMDDHHmmSS (RFC 4034, 3.2).
    fn date(&mut self) -> Result<u32, String> {
        let word = self.word()?;
        if word.text.len() != 14 {
            return word
                .text
                .parse()
                .map_err(|_| format!("{:?} is not a date", word.text));
        }
        let format = format_description!("[year][month][day][hour][minute][second]");
        let date = PrimitiveDateTime::parse(&word.text, format)
            .map_err(|error| format!("{:?}: {error}", word.text))?;
        // Serial arithmetic: the low 32 bits.
        Ok((date.assume_utc().unix_timestamp() & 0xffff_ffff) as u32)
    }

    fn rest(&mut self) -> String {
        self.words.by_ref().map(|word| word.text.as_str()).collect()
    }

    fn rest_hexadecimal(&mut self) -> Result<Vec<u8>, String> {
        from_hexadecimal(&self.rest())
    }

    fn rest_base64(&mut self) -> Result<Vec<u8>, String> {
        STANDARD
            .decode(self.rest())
            .map_err(|error| error.to_string())
    }

    /// Types as windows of bits (RFC 4034, 4.1.2).
    fn rest_bitmap(&mut self) -> Result<Vec<u8>, String> {
        let mut numbers = Vec::new();
        for word in self.words.by_ref() {
            let found = kind(&word.text).ok_or_else(|| format!("unknown type {}", word.text))?;
            numbers.push(u16::from(found));
        }
        numbers.sort_unstable();
        let mut octets = Vec::new();
        for window in numbers.chunk_by(|a, b| a >> 8 == b >> 8) {
            let (Some(first), Some(last)) = (window.first(), window.last()) else {
                continue;
            };
            let length = usize::from((last & 0xff) / 8 + 1);
            let mut bits = vec![0u8; length];
            for number in window {
                if let Some(octet) = bits.get_mut(usize::from((number & 0xff) / 8)) {
                    *octet |= 0x80 >> (number & 7);
                }
            }
            octets.push((first >> 8) as u8);
            octets.push(length as u8);
            octets.extend(bits);
        }
        Ok(octets)
    }

    fn end(&mut self) -> Result<(), String> {
        match self.words.next() {
            None => Ok(()),
            Some(word) => Err(format!("unexpected {:?} at the end", word.text)),
        }
    }
}

fn hexadecimal(words: &[Word]) -> Result<Vec<u8>, String> {
    let text: String = words.iter().map(|word| word.text.as_str()).collect();
    from_hexadecimal(&text)
}

fn from_hexadecimal(text: &str) -> Result<Vec<u8>, String> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|digit| digit.to_digit(16).map(|digit| digit as u8))
        .collect();
    let digits = digits.ok_or_else(|| format!("{text:?} is not hexadecimal"))?;
    if digits.len() % 2 != 0 {
        return Err(format!("{text:?} has half an octet"));
    }
    Ok(digits
        .chunks_exact(2)
        .map(|pair| pair.iter().fold(0, |octet, digit| octet << 4 | digit))
        .collect())
}

/// Base 32 with the extended hexadecimal alphabet, without padding (RFC 5155, 3.3).
fn base32(text: &str) -> Result<Vec<u8>, String> {
    let (mut octets, mut bits, mut held) = (Vec::new(), 0u32, 0u32);
    for character in text.chars() {
        let digit = character
            .to_digit(32)
            .ok_or_else(|| format!("{text:?} is not base 32"))?;
        held = held << 5 | digit;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            octets.push((held >> bits & 0xff) as u8);
            held &= (1 << bits) - 1;
        }
    }
    Ok(octets)
}

/// A character string: `\X` is X, `\DDD` the octet of that number.
fn text(text: &str) -> Result<Vec<u8>, String> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(octet) = rest.next() {
        if octet != b'\\' {
            octets.push(octet);
            continue;
        }
        let first = rest.next().ok_or("a backslash at the end")?;
        if !first.is_ascii_digit() {
            octets.push(first);
            continue;
        }
        let digits = [Some(first), rest.next(), rest.next()];
        let number = digits.iter().try_fold(0u16, |number, digit| {
            let digit = digit.filter(u8::is_ascii_digit)?;
            Some(number * 10 + u16::from(digit - b'0'))
        });
        let number = number.and_then(|number| u8::try_from(number).ok());
        octets.push(number.ok_or("\\DDD is not a number up to 255")?);
    }
    if octets.len() > 255 {
        return Err("a text is longer than 255 octets".to_owned());
    }
    Ok(octets)
}
