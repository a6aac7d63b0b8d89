//! Data of records that is written in a way of its own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::fields::{Fields, counted, from_hexadecimal, unescape};
use super::types;

/// Where something is (RFC 1876 section 3): degrees, minutes and seconds twice, an altitude, and how exact they are.
pub(super) fn location(fields: &mut Fields<'_>) -> Result<Vec<u8>, String> {
    let latitude = angle(fields, 90, ["N", "S"])?;
    let longitude = angle(fields, 180, ["E", "W"])?;
    let altitude = metres(&fields.word()?.text)?;
    let altitude = altitude.checked_add(10_000_000);
    let altitude = altitude.and_then(|centimetres| u32::try_from(centimetres).ok());
    let altitude = altitude.ok_or("the altitude is beyond what LOC can say")?;
    // Size, horizontal and vertical precision, in centimetres.
    let mut exact = [100, 1_000_000, 1_000];
    for value in &mut exact {
        if let Some(word) = fields.words.next() {
            *value = metres(&word.text)?;
        }
    }
    let mut octets = vec![0];
    for value in exact {
        octets.push(power(value)?);
    }
    for value in [latitude, longitude, altitude] {
        octets.extend(value.to_be_bytes());
    }
    Ok(octets)
}

/// Thousandths of a second of arc, from 2^31.
fn angle(fields: &mut Fields<'_>, most: u32, sides: [&str; 2]) -> Result<u32, String> {
    let units = [(most, 3_600_000u32), (59, 60_000), (59, 1000)];
    let mut sum = 0u32;
    let mut units = units.iter();
    let side = loop {
        let text = &fields.word()?.text;
        if let Some(side) = sides.iter().position(|s| s.eq_ignore_ascii_case(text)) {
            break side;
        }
        let wrong = || format!("{text:?} is not an angle");
        let (most, unit) = units.next().ok_or_else(wrong)?;
        let (whole, part) = match *unit {
            1000 => text.split_once('.').unwrap_or((text, "")),
            _ => (text.as_str(), ""),
        };
        let whole: u32 = whole.parse().ok().filter(|n| n <= most).ok_or_else(wrong)?;
        let part = fraction(part, 3).ok_or_else(wrong)?;
        sum += whole * unit + u32::try_from(part).unwrap_or(0);
    };
    if sum > most * 3_600_000 {
        return Err(format!("an angle beyond {most} degrees"));
    }
    Ok(match side {
        0 => (1 << 31) + sum,
        _ => (1 << 31) - sum,
    })
}

/// Digits after a point, as a number of so many digits.
fn fraction(text: &str, digits: usize) -> Option<i64> {
    if text.len() > digits || !text.bytes().all(|octet| octet.is_ascii_digit()) {
        return None;
    }
    format!("{text:0<digits$}").parse().ok()
}

/// Centimetres of a length in metres.
fn metres(text: &str) -> Result<i64, String> {
    let wrong = || format!("{text:?} is not a length in metres");
    let number = text.strip_suffix(['m', 'M']).unwrap_or(text);
    let (sign, number) = match number.strip_prefix('-') {
        Some(number) => (-1, number),
        None => (1, number),
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let whole: u32 = whole.parse().map_err(|_| wrong())?;
    let part = fraction(part, 2).ok_or_else(wrong)?;
    Ok(sign * (i64::from(whole) * 100 + part))
}

/// A length as one digit and a power of ten, four bits each.
fn power(centimetres: i64) -> Result<u8, String> {
    let (mut digit, mut power) = (centimetres, 0u8);
    while digit > 9 {
        digit /= 10;
        power += 1;
    }
    let digit = u8::try_from(digit).ok().filter(|_| power <= 9);
    let digit = digit.ok_or("a length that LOC cannot say")?;
    Ok(digit << 4 | power)
}

/// Networks and what is not of them (RFC 3123 section 5).
pub(super) fn prefixes(fields: &mut Fields<'_>) -> Result<Vec<u8>, String> {
    let mut octets = Vec::new();
    for word in fields.words.by_ref() {
        let wrong = || format!("{:?} is not FAMILY:ADDRESS/PREFIX", word.text);
        let (not, item) = match word.text.strip_prefix('!') {
            Some(item) => (0x80, item),
            None => (0, word.text.as_str()),
        };
        let (family, network) = item.split_once(':').ok_or_else(wrong)?;
        let network: ipnet::IpNet = network.parse().map_err(|_| wrong())?;
        let (number, mut address) = match network.addr() {
            IpAddr::V4(address) => (1u16, address.octets().to_vec()),
            IpAddr::V6(address) => (2, address.octets().to_vec()),
        };
        if family.parse() != Ok(number) {
            return Err(wrong());
        }
        while address.last() == Some(&0) {
            address.pop();
        }
        octets.extend(number.to_be_bytes());
        octets.push(network.prefix_len());
        octets.push(not | u8::try_from(address.len()).unwrap_or(0));
        octets.extend(address);
    }
    Ok(octets)
}

/// Kind, algorithm, and the gateway itself (RFC 4025 section 3).
pub(super) fn gateway(fields: &mut Fields<'_>) -> Result<Vec<u8>, String> {
    let (kind, algorithm): (u8, u8) = (fields.number()?, fields.number()?);
    let mut octets = vec![kind, algorithm];
    octets.extend(place(kind, fields)?);
    Ok(octets)
}

/// Whether it need not be discovered, kind, and the relay itself (RFC 8777 section 4).
pub(super) fn relay(fields: &mut Fields<'_>) -> Result<Vec<u8>, String> {
    let (known, kind): (u8, u8) = (fields.number()?, fields.number()?);
    if known > 1 || kind > 127 {
        return Err("the discovery bit is 0 or 1, the kind below 128".to_owned());
    }
    let mut octets = vec![known << 7 | kind];
    octets.extend(place(kind, fields)?);
    Ok(octets)
}

/// Where a gateway is: nowhere, at an address, or at a name.
fn place(kind: u8, fields: &mut Fields<'_>) -> Result<Vec<u8>, String> {
    match kind {
        0 if fields.word()?.text == "." => Ok(Vec::new()),
        1 => Ok(fields.number::<Ipv4Addr>()?.octets().to_vec()),
        2 => Ok(fields.number::<Ipv6Addr>()?.octets().to_vec()),
        3 => Ok(crate::names::wire(&fields.name()?)),
        0 => Err("the gateway of kind 0 is a dot".to_owned()),
        kind => Err(format!("unknown kind {kind} of gateway")),
    }
}

/// A host's identity (RFC 8005 section 5) but for the names of its rendezvous servers.
pub(super) fn host(fields: &mut Fields<'_>) -> Result<Vec<u8>, String> {
    let algorithm: u8 = fields.number()?;
    let tag = from_hexadecimal(&fields.word()?.text)?;
    let key = STANDARD.decode(&fields.word()?.text);
    let key = key.map_err(|error| error.to_string())?;
    let long = |_| "a field is too long".to_owned();
    let mut octets = vec![u8::try_from(tag.len()).map_err(long)?, algorithm];
    octets.extend(u16::try_from(key.len()).map_err(long)?.to_be_bytes());
    octets.extend(tag);
    octets.extend(key);
    Ok(octets)
}

/// The parameters of a service (RFC 9460 section 2.1), ordered by number.
pub(super) fn parameters(fields: &mut Fields<'_>) -> Result<Vec<u8>, String> {
    let mut found: Vec<(u16, Vec<u8>)> = Vec::new();
    for word in fields.words.by_ref() {
        let (name, value) = match word.text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word.text.as_str(), None),
        };
        let number = types::parameter(&name.to_ascii_lowercase())
            .ok_or_else(|| format!("unknown parameter {name}"))?;
        if found.iter().any(|(known, _)| *known == number) {
            return Err(format!("{name} stands twice"));
        }
        let value = value.map(|value| {
            let within = value.strip_prefix('"');
            within
                .and_then(|value| value.strip_suffix('"'))
                .unwrap_or(value)
        });
        let octets = parameter(number, value).map_err(|what| format!("{name}: {what}"))?;
        found.push((number, octets));
    }
    found.sort();
    let mut octets = Vec::new();
    for (number, value) in found {
        let length = u16::try_from(value.len()).map_err(|_| "a parameter is too long")?;
        octets.extend(number.to_be_bytes());
        octets.extend(length.to_be_bytes());
        octets.extend(value);
    }
    Ok(octets)
}

fn parameter(number: u16, value: Option<&str>) -> Result<Vec<u8>, String> {
    // no-default-alpn and ohttp only stand there.
    if matches!(number, 2 | 8) {
        return match value {
            None => Ok(Vec::new()),
            Some(_) => Err("it has no value".to_owned()),
        };
    }
    let Some(value) = value else {
        return match number {
            0..10 => Err("it lacks its value".to_owned()),
            _ => Ok(Vec::new()),
        };
    };
    let value = unescape(value)?;
    if matches!(number, 7 | 10..) {
        return Ok(value);
    }
    let mut octets = Vec::new();
    if number == 1 {
        for id in items(&value) {
            if id.is_empty() {
                return Err("an empty protocol".to_owned());
            }
            counted(&id, &mut octets)?;
        }
        return Ok(octets);
    }
    let value = String::from_utf8(value).map_err(|error| error.to_string())?;
    let wrong = |item: &str| format!("{item:?} does not fit");
    match number {
        0 => {
            let keys = value
                .split(',')
                .map(|item| types::parameter(item).ok_or(item));
            let mut keys = keys.collect::<Result<Vec<u16>, _>>().map_err(wrong)?;
            keys.sort_unstable();
            octets.extend(keys.into_iter().flat_map(u16::to_be_bytes));
        }
        3 => octets.extend(
            value
                .parse::<u16>()
                .map_err(|_| wrong(&value))?
                .to_be_bytes(),
        ),
        4 => {
            for item in value.split(',') {
                octets.extend(item.parse::<Ipv4Addr>().map_err(|_| wrong(item))?.octets());
            }
        }
        5 => octets = STANDARD.decode(&value).map_err(|error| error.to_string())?,
        6 => {
            for item in value.split(',') {
                octets.extend(item.parse::<Ipv6Addr>().map_err(|_| wrong(item))?.octets());
            }
        }
        // tls-supported-groups
        _ => {
            for item in value.split(',') {
                octets.extend(item.parse::<u16>().map_err(|_| wrong(item))?.to_be_bytes());
            }
        }
    }
    Ok(octets)
}

/// What commas part; a backslash keeps one, or a backslash (RFC 9460 appendix A.1).
fn items(value: &[u8]) -> Vec<Vec<u8>> {
    let mut items = vec![Vec::new()];
    let mut octets = value.iter().copied();
    while let Some(octet) = octets.next() {
        let octet = match octet {
            b',' => {
                items.push(Vec::new());
                continue;
            }
            b'\\' => octets.next().unwrap_or(b'\\'),
            octet => octet,
        };
        if let Some(item) = items.last_mut() {
            item.push(octet);
        }
    }
    items
}
