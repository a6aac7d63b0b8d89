//! The words of a record's data, read one after the other.

use std::net::Ipv4Addr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hickory_proto::rr::Name;
use hickory_proto::rr::RecordType;
use time::PrimitiveDateTime;
use time::macros::format_description;

use super::master::Word;
use super::master::ttl;
use super::rdata;
use super::special;
use super::types;
use super::types::Field;

/// The words of a record's data that are not read yet.
pub(super) struct Fields<'a> {
    pub(super) words: std::slice::Iter<'a, Word>,
    origin: &'a Name,
}

impl<'a> Fields<'a> {
    pub(super) fn new(words: &'a [Word], origin: &'a Name) -> Self {
        Self {
            words: words.iter(),
            origin,
        }
    }

    /// The octets of data of this layout.
    pub(super) fn octets(&mut self, layout: &[Field]) -> Result<Vec<u8>, String> {
        let mut octets = Vec::new();
        for field in layout {
            self.field(*field, &mut octets)?;
        }
        Ok(octets)
    }

    fn field(&mut self, field: Field, octets: &mut Vec<u8>) -> Result<(), String> {
        match field {
            Field::Name => octets.extend(crate::names::wire(&self.name()?)),
            Field::Names => {
                while !self.words.as_slice().is_empty() {
                    octets.extend(crate::names::wire(&self.name()?));
                }
            }
            Field::U8 => octets.push(self.number()?),
            Field::U16 => octets.extend(self.number::<u16>()?.to_be_bytes()),
            Field::U32 => octets.extend(self.number::<u32>()?.to_be_bytes()),
            Field::Seconds => octets.extend(self.time()?.to_be_bytes()),
            Field::Date => octets.extend(self.date()?.to_be_bytes()),
            Field::Algorithm => octets.push(self.named(types::algorithm)?),
            Field::Certificate => octets.extend(self.named(types::certificate)?.to_be_bytes()),
            Field::Kind => octets.extend(u16::from(self.kind()?).to_be_bytes()),
            Field::Scheme => {
                let notify = |text: &str| text.eq_ignore_ascii_case("NOTIFY").then_some(1u8);
                octets.push(self.named(notify)?);
            }
            Field::Text => counted(&text(&self.word()?.text)?, octets)?,
            Field::TextIfAny => {
                if let Some(word) = self.words.next() {
                    counted(&text(&word.text)?, octets)?;
                }
            }
            Field::Texts => {
                let first = self.word()?;
                for word in std::iter::once(first).chain(self.words.by_ref()) {
                    for text in texts_of(&word.text)? {
                        counted(&text, octets)?;
                    }
                }
            }
            Field::Plain => octets.extend(unescape(&self.word()?.text)?),
            Field::Hexadecimal => octets.extend(from_hexadecimal(&self.rest())?),
            Field::Nsap => {
                let digits = self.rest().replace('.', "").to_ascii_lowercase();
                let digits = digits.strip_prefix("0x").ok_or("no 0x before the digits")?;
                octets.extend(from_hexadecimal(digits)?);
            }
            Field::Base64 => {
                if self.words.as_slice().is_empty() {
                    return Err("a field is missing".to_owned());
                }
                octets.extend(self.rest_base64()?);
            }
            Field::Base64IfAny => octets.extend(self.rest_base64()?),
            Field::Salt => {
                let salt = &self.word()?.text;
                let salt = match salt.as_str() {
                    "-" => Vec::new(),
                    salt => from_hexadecimal(salt)?,
                };
                counted(&salt, octets)?;
            }
            Field::Hash => counted(&base32(&self.word()?.text)?, octets)?,
            Field::Bitmap => octets.extend(self.rest_bitmap()?),
            Field::V4 => octets.extend(self.number::<Ipv4Addr>()?.octets()),
            Field::Hyphens(count) => octets.extend(hyphens(&self.word()?.text, count)?),
            Field::Locator => octets.extend(locator(&self.word()?.text)?),
            Field::Location => octets.extend(special::location(self)?),
            Field::Prefixes => octets.extend(special::prefixes(self)?),
            Field::Gateway => octets.extend(special::gateway(self)?),
            Field::Relay => octets.extend(special::relay(self)?),
            Field::Host => octets.extend(special::host(self)?),
            Field::Parameters => octets.extend(special::parameters(self)?),
        }
        Ok(())
    }

    pub(super) fn word(&mut self) -> Result<&'a Word, String> {
        self.words
            .next()
            .ok_or_else(|| "a field is missing".to_owned())
    }

    pub(super) fn name(&mut self) -> Result<Name, String> {
        let origin = self.origin;
        rdata::name(self.word()?, origin)
    }

    pub(super) fn number<N: std::str::FromStr>(&mut self) -> Result<N, String> {
        let word = self.word()?;
        word.text
            .parse()
            .map_err(|_| format!("{:?} is not a number that fits", word.text))
    }

    /// A time in seconds, with units or without.
    pub(super) fn time(&mut self) -> Result<u32, String> {
        let word = self.word()?;
        ttl(&word.text).ok_or_else(|| format!("{:?} is not a time", word.text))
    }

    pub(super) fn seconds(&mut self) -> Result<i32, String> {
        i32::try_from(self.time()?).map_err(|_| "the time is longer than 68 years".to_owned())
    }

    fn kind(&mut self) -> Result<RecordType, String> {
        let word = self.word()?;
        types::kind(&word.text).ok_or_else(|| format!("unknown type {}", word.text))
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

    /// A number, or what has one.
    fn named<N: std::str::FromStr>(
        &mut self,
        number: impl Fn(&str) -> Option<N>,
    ) -> Result<N, String> {
        let text = &self.word()?.text;
        let found = text.parse().ok().or_else(|| number(text));
        found.ok_or_else(|| format!("{text:?} is neither a number that fits nor a known name"))
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
            let found =
                types::kind(&word.text).ok_or_else(|| format!("unknown type {}", word.text))?;
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

    pub(super) fn end(&mut self) -> Result<(), String> {
        match self.words.next() {
            None => Ok(()),
            Some(word) => Err(format!("unexpected {:?} at the end", word.text)),
        }
    }
}

/// Octets from two digits each.
pub(super) fn from_hexadecimal(text: &str) -> Result<Vec<u8>, String> {
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

/// Appends octets with their length before them, which is an octet.
pub(super) fn counted(value: &[u8], octets: &mut Vec<u8>) -> Result<(), String> {
    octets.push(u8::try_from(value.len()).map_err(|_| "a field is longer than 255 octets")?);
    octets.extend(value);
    Ok(())
}

fn hyphens(text: &str, count: usize) -> Result<Vec<u8>, String> {
    let groups = text.split('-').map(|group| match group.len() {
        2 => from_hexadecimal(group),
        _ => Err(format!("{text:?} has groups of other than two digits")),
    });
    let octets = groups.collect::<Result<Vec<_>, _>>()?.concat();
    match octets.len() == count {
        true => Ok(octets),
        false => Err(format!("{text:?} has {} octets, not {count}", octets.len())),
    }
}

fn locator(text: &str) -> Result<Vec<u8>, String> {
    let wrong = || format!("{text:?} is not four groups of hexadecimal digits");
    let group = |group: &str| match group.len() {
        1..=4 => u16::from_str_radix(group, 16).ok(),
        _ => None,
    };
    let groups: Option<Vec<u16>> = text.split(':').map(group).collect();
    let groups = groups
        .filter(|groups| groups.len() == 4)
        .ok_or_else(wrong)?;
    Ok(groups.into_iter().flat_map(u16::to_be_bytes).collect())
}

/// A character string: at most 255 octets.
pub(super) fn text(text: &str) -> Result<Vec<u8>, String> {
    let octets = unescape(text)?;
    match octets.len() {
        0..=255 => Ok(octets),
        _ => Err("a text is longer than 255 octets".to_owned()),
    }
}

/// As many character strings as a text needs: keys of DKIM are often written in one piece.
pub(super) fn texts_of(text: &str) -> Result<Vec<Vec<u8>>, String> {
    let octets = unescape(text)?;
    if octets.is_empty() {
        return Ok(vec![octets]);
    }
    Ok(octets.chunks(255).map(<[u8]>::to_vec).collect())
}

/// The octets of a text: `\X` is X, `\DDD` the octet of that number.
pub(super) fn unescape(text: &str) -> Result<Vec<u8>, String> {
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
    Ok(octets)
}
