//! The formats of texts that are checked. Others are taken as documentation.

use std::net::Ipv6Addr;

use api::duration::parse_time;

/// A format that is checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// `bsonobjectid`: 24 hexadecimal digits.
    BsonObjectId,
    /// `byte`: base64.
    Byte,
    /// `cidr`.
    Cidr,
    /// `creditcard`.
    CreditCard,
    /// `date`.
    Date,
    /// `date-time`, or `datetime`.
    DateTime,
    /// `duration`.
    Duration,
    /// `email`.
    Email,
    /// `hexcolor`.
    HexColor,
    /// `hostname`.
    Hostname,
    /// `ipv4`.
    Ipv4,
    /// `ipv6`.
    Ipv6,
    /// `isbn`, of either length.
    Isbn,
    /// `isbn10`.
    Isbn10,
    /// `isbn13`.
    Isbn13,
    /// `mac`.
    Mac,
    /// `rgbcolor`.
    RgbColor,
    /// `ssn`.
    Ssn,
    /// `uri`.
    Uri,
    /// `uuid`.
    Uuid,
    /// `uuid3`.
    Uuid3,
    /// `uuid4`.
    Uuid4,
    /// `uuid5`.
    Uuid5,
    /// `k8s-short-name`: a DNS label.
    ShortName,
    /// `k8s-long-name`: a DNS subdomain.
    LongName,
}

const NAMES: &[(&str, Format)] = &[
    ("bsonobjectid", Format::BsonObjectId),
    ("byte", Format::Byte),
    ("cidr", Format::Cidr),
    ("creditcard", Format::CreditCard),
    ("date", Format::Date),
    ("date-time", Format::DateTime),
    ("datetime", Format::DateTime),
    ("duration", Format::Duration),
    ("email", Format::Email),
    ("hexcolor", Format::HexColor),
    ("hostname", Format::Hostname),
    ("ipv4", Format::Ipv4),
    ("ipv6", Format::Ipv6),
    ("isbn", Format::Isbn),
    ("isbn10", Format::Isbn10),
    ("isbn13", Format::Isbn13),
    ("mac", Format::Mac),
    ("rgbcolor", Format::RgbColor),
    ("ssn", Format::Ssn),
    ("uri", Format::Uri),
    ("uuid", Format::Uuid),
    ("uuid3", Format::Uuid3),
    ("uuid4", Format::Uuid4),
    ("uuid5", Format::Uuid5),
    ("k8s-short-name", Format::ShortName),
    ("k8s-long-name", Format::LongName),
];

impl Format {
    /// By its name in a schema; `None` for what is not checked.
    pub fn parse(name: &str) -> Option<Self> {
        NAMES
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, format)| *format)
    }

    /// Whether a format of that name is checked, however it is written: dashes do not count.
    pub fn is_known(name: &str) -> bool {
        let plain = |name: &str| name.replace('-', "");
        NAMES.iter().any(|(known, _)| plain(known) == plain(name))
    }

    /// Its name in a schema.
    pub fn name(self) -> &'static str {
        NAMES
            .iter()
            .find(|(_, format)| *format == self)
            .map_or("", |(name, _)| name)
    }

    /// Whether a text is of the format.
    pub fn takes(self, text: &str) -> bool {
        match self {
            Format::BsonObjectId => text.len() == 24 && text.bytes().all(|b| b.is_ascii_hexdigit()),
            Format::Byte => base64(text),
            Format::Cidr => api::net::parse_cidr(text).is_some(),
            Format::CreditCard => credit_card(text),
            Format::Date => date(text),
            Format::DateTime => parse_time(text).is_some(),
            Format::Duration => cel::duration::parse(text).is_some(),
            Format::Email => email(text),
            Format::HexColor => {
                let digits = text.strip_prefix('#').unwrap_or(text);
                matches!(digits.len(), 3 | 6) && digits.bytes().all(|b| b.is_ascii_hexdigit())
            }
            Format::Hostname => hostname(text),
            Format::Ipv4 => api::net::parse_ip(text).is_some_and(|ip| ip.is_ipv4()),
            Format::Ipv6 => text.parse::<Ipv6Addr>().is_ok(),
            Format::Isbn => isbn10(text) || isbn13(text),
            Format::Isbn10 => isbn10(text),
            Format::Isbn13 => isbn13(text),
            Format::Mac => mac(text),
            Format::RgbColor => rgb(text),
            Format::Ssn => {
                let parts: Vec<&str> = text.split(['-', ' ']).collect();
                parts.iter().map(|p| p.len()).eq([3, 2, 4])
                    && parts.iter().all(|p| p.bytes().all(|b| b.is_ascii_digit()))
            }
            Format::Uri => cel::url::is_absolute(text),
            Format::Uuid => uuid(text, None),
            Format::Uuid3 => uuid(text, Some('3')),
            Format::Uuid4 => uuid(text, Some('4')),
            Format::Uuid5 => uuid(text, Some('5')),
            Format::ShortName => api::names::is_label(text),
            Format::LongName => api::names::is_subdomain(text),
        }
    }
}

fn base64(text: &str) -> bool {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD
        .decode(text)
        .is_ok()
}

/// Digits, with spaces and dashes between, that end in their Luhn check digit.
fn credit_card(text: &str) -> bool {
    let digits: Vec<u32> = text
        .chars()
        .filter(|c| !matches!(c, ' ' | '-'))
        .map_while(|c| c.to_digit(10))
        .collect();
    let plain = text.chars().filter(|c| !matches!(c, ' ' | '-')).count();
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(i, d)| match i % 2 {
            1 if d * 2 > 9 => d * 2 - 9,
            1 => d * 2,
            _ => *d,
        })
        .sum();
    digits.len() == plain && (13..=19).contains(&plain) && sum.is_multiple_of(10)
}

fn date(text: &str) -> bool {
    text.len() == 10 && parse_time(&format!("{text}T00:00:00Z")).is_some()
}

fn email(text: &str) -> bool {
    let address = text
        .split_once('<')
        .and_then(|(_, rest)| rest.strip_suffix('>'))
        .unwrap_or(text);
    let Some((local, domain)) = address.rsplit_once('@') else {
        return false;
    };
    let atom = |c: char| c.is_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c);
    let dots = |part: &str| part.split('.').all(|piece| !piece.is_empty());
    let literal = domain.starts_with('[') && domain.ends_with(']');
    !local.is_empty()
        && dots(local)
        && local.chars().all(atom)
        && (literal || (dots(domain) && domain.chars().all(atom)))
}

/// RFC 1123 hostnames, and names in other letters than Latin.
fn hostname(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    !name.is_empty()
        && name.len() <= 253
        && name.split('.').all(|label| {
            !label.is_empty()
                && label.chars().count() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_') || !c.is_ascii())
        })
}

fn isbn10(text: &str) -> bool {
    let plain: Vec<char> = text.chars().filter(|c| !matches!(c, ' ' | '-')).collect();
    let value = |(i, c): (usize, &char)| match c {
        'X' | 'x' if i == 9 => Some(10),
        c => c.to_digit(10),
    };
    let digits: Option<Vec<u32>> = plain.iter().enumerate().map(value).collect();
    digits.is_some_and(|digits| {
        digits.len() == 10
            && (1..)
                .zip(digits)
                .map(|(i, d): (u32, u32)| i * d)
                .sum::<u32>()
                % 11
                == 0
    })
}

fn isbn13(text: &str) -> bool {
    let plain: Vec<char> = text.chars().filter(|c| !matches!(c, ' ' | '-')).collect();
    let digits: Option<Vec<u32>> = plain.iter().map(|c| c.to_digit(10)).collect();
    digits.is_some_and(|digits| {
        digits.len() == 13
            && digits
                .iter()
                .enumerate()
                .map(|(i, d)| if i % 2 == 0 { *d } else { d * 3 })
                .sum::<u32>()
                % 10
                == 0
    })
}

fn mac(text: &str) -> bool {
    let hex = |part: &str, digits: usize| {
        part.len() == digits && part.bytes().all(|b| b.is_ascii_hexdigit())
    };
    let groups = |separator: char, digits: usize, counts: &[usize]| {
        let parts: Vec<&str> = text.split(separator).collect();
        counts.contains(&parts.len()) && parts.iter().all(|part| hex(part, digits))
    };
    groups(':', 2, &[6, 8, 20]) || groups('-', 2, &[6, 8, 20]) || groups('.', 4, &[3, 4, 10])
}

fn rgb(text: &str) -> bool {
    let Some(inner) = text
        .strip_prefix("rgb(")
        .and_then(|rest| rest.strip_suffix(')'))
    else {
        return false;
    };
    let parts: Vec<&str> = inner.split(',').map(str::trim).collect();
    parts.len() == 3 && parts.iter().all(|part| part.parse::<u8>().is_ok())
}

fn uuid(text: &str, version: Option<char>) -> bool {
    let plain: Vec<char> = text.chars().filter(|c| *c != '-').collect();
    let dashes = [8, 13, 18, 23];
    let shape = match text.len() {
        32 => !text.contains('-'),
        36 => text
            .char_indices()
            .all(|(i, c)| (c == '-') == dashes.contains(&i)),
        _ => false,
    };
    shape
        && plain.iter().all(char::is_ascii_hexdigit)
        && version.is_none_or(|version| {
            plain[12] == version
                && (version == '3'
                    || matches!(plain[16].to_ascii_lowercase(), '8' | '9' | 'a' | 'b'))
        })
}
