//! The journal as text: a line for each change, its checksum (CRC-32C, in hexadecimal) in front of its JSON.
//!
//! A process that ends while it writes leaves a last line that is not whole. Nobody was told of that change, so it did
//! not happen. A line that is damaged anywhere else is told of; those around it hold.

use crate::{Leases, Record};

/// How much longer than what it says a journal may be, in lines, before it is written anew.
const SLACK: usize = 1_000;

/// What a journal says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Read {
    /// Who has which address.
    pub leases: Leases,
    /// How many octets of it are whole lines; what follows is to be cut off before anything is written behind it.
    pub whole: usize,
    /// Numbers of lines that are damaged, the first being 1.
    pub damaged: Vec<usize>,
    /// Damaged, or much longer than need be: to be written anew.
    pub stale: bool,
}

/// A change as a line.
#[must_use]
pub fn line(record: &Record) -> String {
    // A record is made of strings and addresses: nothing in it can fail to be written.
    let json = serde_json::to_string(record).unwrap_or_default();
    format!("{:08x} {json}\n", crc32c::crc32c(json.as_bytes()))
}

/// The shortest journal of a state.
#[must_use]
pub fn text(leases: &Leases) -> String {
    leases.records().iter().map(line).collect()
}

/// Reads a journal.
#[must_use]
pub fn read(bytes: &[u8]) -> Read {
    let mut read = Read::default();
    let mut lines = 0;
    for (number, text) in (1..).zip(bytes.split_inclusive(|byte| *byte == b'\n')) {
        let Some(text) = text.strip_suffix(b"\n") else {
            break; // the torn tail
        };
        read.whole += text.len() + 1;
        lines = number;
        match record(text) {
            Some(record) => read.leases.apply(&record),
            None => read.damaged.push(number),
        }
    }
    read.stale = !read.damaged.is_empty() || lines > read.leases.len() + SLACK;
    read
}

fn record(line: &[u8]) -> Option<Record> {
    let text = std::str::from_utf8(line).ok()?;
    let (sum, json) = text.split_once(' ')?;
    let whole = u32::from_str_radix(sum, 16).ok()? == crc32c::crc32c(json.as_bytes());
    whole.then(|| serde_json::from_str(json).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Attachment, Lease};

    fn taken(n: u8) -> Record {
        let who = Attachment {
            container: format!("c{n}"),
            ifname: "eth0".to_owned(),
        };
        let lease = Lease {
            addresses: vec![[10, 0, 0, n].into()],
            pod: "default/web".to_owned(),
        };
        Record::Take(who, lease)
    }

    fn state(records: &[Record]) -> Leases {
        let mut leases = Leases::default();
        records.iter().for_each(|record| leases.apply(record));
        leases
    }

    #[test]
    fn a_torn_tail_did_not_happen() {
        let records = [taken(1), taken(2), taken(3)];
        let text: String = records.iter().map(line).collect();
        for len in 0..=text.len() {
            let read = read(&text.as_bytes()[..len]);
            let whole = text[..len].matches('\n').count();
            assert_eq!(read.leases, state(&records[..whole]), "cut at {len}");
            assert_eq!(text[..read.whole].matches('\n').count(), whole);
            assert_eq!((read.damaged, read.stale), (vec![], false));
        }
    }

    #[test]
    fn damage_is_told_of_and_the_rest_holds() {
        let text: String = [taken(1), taken(2), taken(3)].iter().map(line).collect();
        let second = text.find('\n').unwrap() + 1;
        for at in second..text[second..].find('\n').unwrap() + second {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            let read = read(&bytes);
            assert_eq!(read.damaged, [2], "at {at}");
            assert_eq!(read.leases, state(&[taken(1), taken(3)]));
            assert!(read.stale);
        }
        let read = read(b"nonsense\n\xff\xfe\n\n");
        assert_eq!(read.damaged, [1, 2, 3]);
    }

    #[test]
    fn a_journal_written_anew_says_the_same() {
        let mut records: Vec<Record> = (1..=200).map(taken).collect();
        for n in 20..190 {
            if let Record::Take(who, _) = taken(n) {
                records.push(Record::Free(who));
            }
        }
        let leases = state(&records);
        let long: String = records
            .iter()
            .cycle()
            .take(records.len() * 4)
            .map(line)
            .collect();
        let read_long = read(long.as_bytes());
        assert!(read_long.stale);
        assert_eq!(read_long.leases, leases);
        let short = text(&leases);
        let read_short = read(short.as_bytes());
        assert_eq!(read_short.leases, leases);
        assert!(!read_short.stale && short.len() < long.len() / 10);
    }
}
