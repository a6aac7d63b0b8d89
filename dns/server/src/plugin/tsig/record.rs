//! The TSIG record of a query, read where it lies.

use hickory_proto::rr::Name;
use hickory_proto::serialize::binary::BinDecodable as _;
use hickory_proto::serialize::binary::BinDecoder;

use super::CLASS_AND_TTL;
use super::TSIG;
use super::length;
use super::octets_of;
use crate::names;

/// The TSIG record of a message, with where it begins.
pub(super) struct Signed<'m> {
    start: usize,
    /// The key's name.
    pub(super) owner: Name,
    /// In lower case and wire form.
    pub(super) algorithm: Vec<u8>,
    pub(super) time: u64,
    pub(super) fudge: u16,
    pub(super) mac: &'m [u8],
    original_id: u16,
    pub(super) error: u16,
    pub(super) other: &'m [u8],
}

impl<'m> Signed<'m> {
    /// The record at the end of a message, nothing if there is none, an error if the message is malformed.
    pub(super) fn read(raw: &'m [u8]) -> Result<Option<Self>, ()> {
        let number = |at: usize| Some(u16::from_be_bytes([*raw.get(at)?, *raw.get(at + 1)?]));
        let count = |at| number(at).map(usize::from).ok_or(());
        let records = count(6)? + count(8)? + count(10)?;
        let mut at = 12;
        for _ in 0..count(4)? {
            at = skip_name(raw, at).ok_or(())? + 4;
        }
        for index in 1..=records {
            let start = at;
            let fixed = skip_name(raw, at).ok_or(())?;
            let kind = number(fixed).ok_or(())?;
            let data = fixed + 10;
            at = data + usize::from(number(fixed + 8).ok_or(())?);
            if kind != TSIG {
                continue;
            }
            // It must be the last (RFC 8945, 5.1).
            if index != records || at != raw.len() || count(10)? == 0 {
                return Err(());
            }
            let owner = name(raw, start).ok_or(())?;
            let algorithm = plain_name(raw, data).ok_or(())?;
            let rest = data + algorithm.len();
            let time = raw.get(rest..rest + 6).ok_or(())?;
            let time = time
                .iter()
                .fold(0u64, |time, octet| time << 8 | u64::from(*octet));
            let fudge = number(rest + 6).ok_or(())?;
            let mac_end = rest + 10 + usize::from(number(rest + 8).ok_or(())?);
            let other_end = mac_end + 6 + usize::from(number(mac_end + 4).ok_or(())?);
            if other_end != at {
                return Err(());
            }
            return Ok(Some(Self {
                start,
                owner,
                algorithm,
                time,
                fudge,
                mac: raw.get(rest + 10..mac_end).ok_or(())?,
                original_id: number(mac_end).ok_or(())?,
                error: number(mac_end + 2).ok_or(())?,
                other: raw.get(mac_end + 6..other_end).ok_or(())?,
            }));
        }
        Ok(None)
    }

    /// The message as it was before it was signed, then the record's own fields (RFC 8945, 4.3).
    pub(super) fn digest_input(&self, raw: &[u8]) -> Vec<u8> {
        let mut data = raw.get(..self.start).unwrap_or_default().to_vec();
        if let Some(id) = data.get_mut(..2) {
            id.copy_from_slice(&self.original_id.to_be_bytes());
        }
        if let Some(count) = data.get_mut(10..12) {
            let counted: [u8; 2] = [count[0], count[1]];
            let fewer = u16::from_be_bytes(counted).saturating_sub(1);
            count.copy_from_slice(&fewer.to_be_bytes());
        }
        data.extend(names::wire(&self.owner));
        data.extend(CLASS_AND_TTL);
        data.extend_from_slice(&self.algorithm);
        data.extend(octets_of(self.time));
        data.extend(self.fudge.to_be_bytes());
        data.extend(self.error.to_be_bytes());
        data.extend(length(self.other).to_be_bytes());
        data.extend_from_slice(self.other);
        data
    }
}

/// Where a name ends. A pointer ends it.
fn skip_name(raw: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let length = *raw.get(at)?;
        match length {
            0 => return Some(at + 1),
            0xc0.. => return Some(at + 2),
            1..=63 => at += usize::from(length) + 1,
            _ => return None,
        }
    }
}

/// A name. Pointers may lead to the rest of it: the owner of a record is written as in any other (RFC 1035 section
/// 4.1.4), and only the name of the algorithm must be whole (RFC 8945 section 4.2).
fn name(raw: &[u8], at: usize) -> Option<Name> {
    let mut decoder = BinDecoder::new(raw).clone(u16::try_from(at).ok()?);
    let mut name = Name::read(&mut decoder).ok()?;
    name.set_fqdn(true);
    Some(name)
}

/// A name without pointers, in lower case.
fn plain_name(raw: &[u8], at: usize) -> Option<Vec<u8>> {
    let end = skip_name(raw, at)?;
    let octets = raw.get(at..end)?;
    (octets.last() == Some(&0)).then(|| octets.to_ascii_lowercase())
}
