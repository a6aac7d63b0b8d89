//! A zone of records in memory, and the answer to a question (RFC 1034, 4.3.2; RFC 4592 for wildcards).

use std::collections::BTreeMap;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::Name;
use hickory_proto::rr::RData;
use hickory_proto::rr::Record;
use hickory_proto::rr::RecordType;
use hickory_proto::rr::rdata::CNAME;

use super::nsec3::{Chain, Hashed};
use crate::names;

/// Aliases followed within a zone.
const ALIASES_MAX: usize = 8;

const DNAME: u16 = 39;
const NSEC3PARAM: u16 = 51;

/// A name in DNSSEC's order (RFC 4034, 6.1): labels from the root, each ended by a zero octet. What lies below a
/// name begins with its key.
type Key = Vec<u8>;

#[derive(Debug, Default)]
struct Node {
    /// Records by type, and the signatures of each type beside them.
    sets: BTreeMap<u16, Vec<Record>>,
    signatures: BTreeMap<u16, Vec<Record>>,
}

/// A zone.
#[derive(Debug)]
pub struct Zone {
    /// Its apex.
    pub origin: Name,
    nodes: BTreeMap<Key, Node>,
    /// Apart from the names that it hashes: nobody has its owners' names (RFC 5155, 7.2.8).
    hashed: Hashed,
    chain: Option<Chain>,
    soa: Record,
    /// The serial of its SOA.
    pub serial: u32,
}

/// What a zone says to a question.
#[derive(Debug, Default)]
pub struct Found {
    /// The code.
    pub code: Option<ResponseCode>,
    /// True unless it is a referral.
    pub authoritative: bool,
    /// Answer section.
    pub answers: Vec<Record>,
    /// Authority section.
    pub authorities: Vec<Record>,
    /// Additional section.
    pub additionals: Vec<Record>,
    /// An alias that leads out of the zone: to be resolved by others.
    pub outside: Option<Name>,
}

fn key(name: &Name) -> Key {
    let labels: Vec<&[u8]> = name.iter().collect();
    let mut key = Vec::with_capacity(name.len() + 1);
    for label in labels.iter().rev() {
        for octet in label.iter().map(u8::to_ascii_lowercase) {
            match octet {
                // Zero ends labels: octets that would sort with it are escaped in order.
                0 => key.extend([1, 1]),
                1 => key.extend([1, 2]),
                octet => key.push(octet),
            }
        }
        key.push(0);
    }
    key
}

fn covered(record: &Record) -> Option<u16> {
    match &record.data {
        RData::Unknown { code, rdata } if *code == RecordType::RRSIG => {
            let head: [u8; 2] = rdata.anything.get(..2)?.try_into().ok()?;
            Some(u16::from_be_bytes(head))
        }
        _ => None,
    }
}

impl Zone {
    /// A zone of these records.
    ///
    /// # Errors
    ///
    /// When there is not exactly one SOA, at the apex, a name has an alias and other data, or names are hashed too often.
    pub fn new(origin: &Name, records: Vec<Record>) -> Result<Self, String> {
        let mut nodes: BTreeMap<Key, Node> = BTreeMap::new();
        let mut soa: Option<Record> = None;
        let mut hashed = Hashed::default();
        for record in records {
            if !origin.zone_of(&record.name) {
                // As BIND and CoreDNS do: passed over, since generated files often hold some.
                continue;
            }
            if let RData::SOA(_) = record.data {
                if record.name != *origin {
                    return Err(format!("an SOA at {}, which is not the apex", record.name));
                }
                if soa.is_some() {
                    return Err("more than one SOA".to_owned());
                }
                soa = Some(record.clone());
            }
            let covered = covered(&record);
            let Some(record) = hashed.take(record, covered) else {
                continue;
            };
            let node = nodes.entry(key(&record.name)).or_default();
            let set = match covered {
                Some(kind) => node.signatures.entry(kind).or_default(),
                None => node.sets.entry(record.record_type().into()).or_default(),
            };
            if !set.iter().any(|other| other.data == record.data) {
                set.push(record);
            }
        }
        let soa = soa.ok_or_else(|| format!("no SOA at {origin}"))?;
        let serial = match &soa.data {
            RData::SOA(soa) => soa.serial,
            _ => 0,
        };
        for node in nodes.values() {
            let cname = node.sets.get(&u16::from(RecordType::CNAME));
            let beside = node
                .sets
                .keys()
                .filter(|kind| !matches!(**kind, 5 | 46 | 47))
                .count();
            if let Some([record, ..]) = cname.map(Vec::as_slice)
                && (beside > 0 || cname.is_some_and(|set| set.len() > 1))
            {
                return Err(format!("{} has an alias and other data", record.name));
            }
        }
        let apex = nodes.get(&key(origin));
        let parameters = apex.and_then(|node| node.sets.get(&NSEC3PARAM));
        let chain = match parameters {
            Some(parameters) => hashed.chain(origin, parameters)?,
            None => None,
        };
        if let Some(gap) = hashed.gap(chain.as_ref()) {
            tracing::warn!(zone = %origin, %gap, "not all that the zone does not have can be proved");
        }
        Ok(Self {
            origin: origin.clone(),
            nodes,
            hashed,
            chain,
            soa,
            serial,
        })
    }

    /// The SOA.
    #[must_use]
    pub fn soa(&self) -> &Record {
        &self.soa
    }

    /// All records, the SOA first.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        let mut records = vec![self.soa.clone()];
        for node in self.nodes.values() {
            let sets = node
                .sets
                .iter()
                .filter(|(kind, _)| **kind != u16::from(RecordType::SOA));
            records.extend(sets.flat_map(|(_, set)| set.iter().cloned()));
            records.extend(node.signatures.values().flatten().cloned());
        }
        records.extend(self.hashed.records().cloned());
        records
    }

    /// What the zone says to a question. With `dnssec`, signatures and proofs that it holds go along.
    #[must_use]
    pub fn find(&self, name: &Name, kind: RecordType, dnssec: bool) -> Found {
        let mut found = Found {
            authoritative: true,
            ..Found::default()
        };
        let mut current = name.clone();
        for _ in 0..ALIASES_MAX {
            match self.step(&current, kind, dnssec, &mut found) {
                Some(target) if self.origin.zone_of(&target) => current = target,
                Some(target) => {
                    found.outside = Some(target);
                    break;
                }
                None => break,
            }
        }
        found.code.get_or_insert(ResponseCode::NoError);
        if found.authoritative
            && !found.answers.is_empty()
            && found.authorities.is_empty()
            && name != &self.origin
        {
            self.push(&self.origin, RecordType::NS, dnssec, &mut found.authorities);
        }
        self.additionals(dnssec, &mut found);
        found
    }

    /// Answers for one name of a chain of aliases, and gives the next.
    fn step(&self, name: &Name, kind: RecordType, dnssec: bool, found: &mut Found) -> Option<Name> {
        if let Some(cut) = self.cut(name, kind) {
            self.refer(&cut, dnssec, found);
            return None;
        }
        if let Some(target) = self.dname(name, kind, dnssec, found) {
            return target;
        }
        let at = key(name);
        if let Some(node) = self.nodes.get(&at) {
            return self.answer(name, name, node, kind, dnssec, found);
        }
        if self.is_above_others(&at) {
            self.deny(ResponseCode::NoError, name, name, dnssec, found);
            return None;
        }
        let wildcard = self.encloser(name).prepend_label("*").ok();
        let Some(wildcard) = wildcard.filter(|wildcard| self.exists(&key(wildcard))) else {
            self.deny(ResponseCode::NXDomain, name, name, dnssec, found);
            return None;
        };
        if dnssec {
            // Proof that the name itself does not exist.
            match &self.chain {
                Some(chain) => chain.no_closer(name, &wildcard, &mut found.authorities),
                None => self.cover(name, &mut found.authorities),
            }
        }
        match self.nodes.get(&key(&wildcard)) {
            Some(node) => self.answer(name, &wildcard, node, kind, dnssec, found),
            // It is there for what is below it, without records to give (RFC 4592, 2.2.2 and 3.3).
            None => {
                self.deny(ResponseCode::NoError, name, &wildcard, dnssec, found);
                None
            }
        }
    }

    /// The records of a node for a name: its own, or that of the wildcard which stands for it. `owner` is the node's.
    fn answer(
        &self,
        name: &Name,
        owner: &Name,
        node: &Node,
        kind: RecordType,
        dnssec: bool,
        found: &mut Found,
    ) -> Option<Name> {
        let copy = |set: &[Record]| -> Vec<Record> {
            set.iter()
                .cloned()
                .map(|mut record| {
                    record.name = name.clone();
                    record
                })
                .collect()
        };
        let with_signatures = |number: u16, found: &mut Vec<Record>| {
            let set = node
                .sets
                .get(&number)
                .map(Vec::as_slice)
                .unwrap_or_default();
            found.extend(copy(set));
            if dnssec {
                found.extend(copy(
                    node.signatures
                        .get(&number)
                        .map(Vec::as_slice)
                        .unwrap_or_default(),
                ));
            }
        };
        let cname = u16::from(RecordType::CNAME);
        match kind {
            RecordType::ANY => {
                for number in node.sets.keys() {
                    with_signatures(*number, &mut found.answers);
                }
                return None;
            }
            RecordType::RRSIG => {
                found.answers.extend(copy(
                    &node
                        .signatures
                        .values()
                        .flatten()
                        .cloned()
                        .collect::<Vec<_>>(),
                ));
                if found.answers.is_empty() {
                    self.deny(ResponseCode::NoError, name, owner, dnssec, found);
                }
                return None;
            }
            _ => {}
        }
        if node.sets.contains_key(&u16::from(kind)) {
            with_signatures(u16::from(kind), &mut found.answers);
            return None;
        }
        if let Some(
            [
                Record {
                    data: RData::CNAME(target),
                    ..
                },
                ..,
            ],
        ) = node.sets.get(&cname).map(Vec::as_slice)
        {
            let again = found
                .answers
                .iter()
                .any(|record| record.name == *name && record.record_type() == RecordType::CNAME);
            if again {
                return None;
            }
            with_signatures(cname, &mut found.answers);
            return Some(target.0.clone());
        }
        self.deny(ResponseCode::NoError, name, owner, dnssec, found);
        None
    }

    /// The highest zone cut on the way to a name. A question for DS at a cut is the parent's to answer.
    fn cut(&self, name: &Name, kind: RecordType) -> Option<Name> {
        let apex = names::labels(&self.origin);
        (apex + 1..=names::labels(name))
            .map(|labels| name.trim_to(labels))
            .filter(|ancestor| !(kind == RecordType::DS && ancestor == name))
            .find(|ancestor| {
                let node = self.nodes.get(&key(ancestor));
                node.is_some_and(|node| node.sets.contains_key(&u16::from(RecordType::NS)))
            })
    }

    fn refer(&self, cut: &Name, dnssec: bool, found: &mut Found) {
        found.authoritative = !found.answers.is_empty();
        // The parent has no signature over the child's name servers; over DS it has.
        self.push(cut, RecordType::NS, false, &mut found.authorities);
        if dnssec {
            let before = found.authorities.len();
            self.push(cut, RecordType::DS, true, &mut found.authorities);
            if found.authorities.len() == before {
                match &self.chain {
                    Some(chain) => chain.no_data(cut, &mut found.authorities),
                    None => self.push(cut, RecordType::NSEC, true, &mut found.authorities),
                }
            }
        }
    }

    /// A DNAME above the name makes an alias out of it (RFC 6672). The outer option says that there is one.
    fn dname(
        &self,
        name: &Name,
        kind: RecordType,
        dnssec: bool,
        found: &mut Found,
    ) -> Option<Option<Name>> {
        let apex = names::labels(&self.origin);
        let owner = (apex..names::labels(name))
            .map(|labels| name.trim_to(labels))
            .find(|ancestor| {
                let node = self.nodes.get(&key(ancestor));
                node.is_some_and(|node| node.sets.contains_key(&DNAME))
            })?;
        self.push(&owner, RecordType::from(DNAME), dnssec, &mut found.answers);
        let record = found
            .answers
            .iter()
            .rev()
            .find(|record| u16::from(record.record_type()) == DNAME)?;
        let RData::Unknown { rdata, .. } = &record.data else {
            return Some(None);
        };
        let mut decoder = hickory_proto::serialize::binary::BinDecoder::new(&rdata.anything);
        let target =
            <Name as hickory_proto::serialize::binary::BinDecodable<'_>>::read(&mut decoder)
                .ok()?;
        let kept = names::labels(name).saturating_sub(names::labels(&owner));
        let labels: Vec<&[u8]> = name.iter().take(kept).chain(target.iter()).collect();
        let Ok(mut alias) = Name::from_labels(labels) else {
            found.code = Some(ResponseCode::YXDomain);
            return Some(None);
        };
        alias.set_fqdn(true);
        let ttl = record.ttl;
        found.answers.push(Record::from_rdata(
            name.clone(),
            ttl,
            RData::CNAME(CNAME(alias.clone())),
        ));
        // What asked for the alias itself has it.
        Some(Some(alias).filter(|_| kind != RecordType::CNAME))
    }

    /// Says that there is no such name, or that its node, which is `name` or the wildcard that stands for `asked`, has no
    /// such records.
    fn deny(&self, code: ResponseCode, asked: &Name, name: &Name, dnssec: bool, found: &mut Found) {
        found.code = Some(code);
        let minimum = match &self.soa.data {
            RData::SOA(soa) => soa.minimum,
            _ => 0,
        };
        let mut soa = self.soa.clone();
        soa.ttl = soa.ttl.min(minimum);
        let ttl = soa.ttl;
        found.authorities.push(soa);
        if !dnssec {
            return;
        }
        if let Some(node) = self.nodes.get(&key(&self.origin)) {
            let signatures = node.signatures.get(&u16::from(RecordType::SOA));
            // A signature has the TTL of what it signs (RFC 4034 section 3).
            let signatures = signatures.into_iter().flatten().cloned();
            found.authorities.extend(signatures.map(|mut signature| {
                signature.ttl = ttl;
                signature
            }));
        }
        if let Some(chain) = &self.chain {
            let section = &mut found.authorities;
            return match code {
                ResponseCode::NXDomain => chain.no_name(name, section),
                _ if asked != name => chain.no_wildcard_data(name, section),
                _ => chain.no_data(name, section),
            };
        }
        self.cover(name, &mut found.authorities);
        if code == ResponseCode::NXDomain
            && let Ok(wildcard) = self.encloser(name).prepend_label("*")
        {
            self.cover(&wildcard, &mut found.authorities);
        }
    }

    /// The NSEC record at or before a name, with its signature.
    fn cover(&self, name: &Name, section: &mut Vec<Record>) {
        let nsec = u16::from(RecordType::NSEC);
        let before = self.nodes.range(..=key(name)).rev();
        let Some((_, node)) = before
            .take(100_000)
            .find(|(_, node)| node.sets.contains_key(&nsec))
        else {
            return;
        };
        for record in [&node.sets, &node.signatures]
            .into_iter()
            .filter_map(|sets| sets.get(&nsec))
            .flatten()
        {
            if !section.contains(record) {
                section.push(record.clone());
            }
        }
    }

    /// The longest existing name above one that does not exist.
    fn encloser(&self, name: &Name) -> Name {
        let apex = names::labels(&self.origin);
        (apex..names::labels(name))
            .rev()
            .map(|labels| name.trim_to(labels))
            .find(|ancestor| self.exists(&key(ancestor)))
            .unwrap_or_else(|| self.origin.clone())
    }

    /// Whether there is such a name, with records or above others that have some (RFC 4592, 2.2.3).
    fn exists(&self, at: &Key) -> bool {
        self.nodes.contains_key(at) || self.is_above_others(at)
    }

    fn is_above_others(&self, at: &Key) -> bool {
        let mut below = self
            .nodes
            .range::<Key, _>((std::ops::Bound::Excluded(at), std::ops::Bound::Unbounded));
        below.next().is_some_and(|(next, _)| next.starts_with(at))
    }

    fn push(&self, name: &Name, kind: RecordType, dnssec: bool, section: &mut Vec<Record>) {
        let Some(node) = self.nodes.get(&key(name)) else {
            return;
        };
        section.extend(
            node.sets
                .get(&u16::from(kind))
                .into_iter()
                .flatten()
                .cloned(),
        );
        if dnssec {
            section.extend(
                node.signatures
                    .get(&u16::from(kind))
                    .into_iter()
                    .flatten()
                    .cloned(),
            );
        }
    }

    /// Addresses of the hosts that the other sections name, as far as the zone has them.
    fn additionals(&self, dnssec: bool, found: &mut Found) {
        let mut hosts: Vec<Name> = Vec::new();
        for record in found.answers.iter().chain(&found.authorities) {
            let host = match &record.data {
                RData::NS(host) => &host.0,
                RData::MX(mx) => &mx.exchange,
                RData::SRV(srv) => &srv.target,
                _ => continue,
            };
            if self.origin.zone_of(host) && !hosts.contains(host) {
                hosts.push(host.clone());
            }
        }
        for host in hosts {
            self.push(&host, RecordType::A, dnssec, &mut found.additionals);
            self.push(&host, RecordType::AAAA, dnssec, &mut found.additionals);
        }
    }
}
