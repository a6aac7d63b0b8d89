//! Proofs of what a zone does not have by hashes of its names (RFC 5155).

use std::collections::BTreeMap;

use aws_lc_rs::digest;
use hickory_proto::rr::Name;
use hickory_proto::rr::RData;
use hickory_proto::rr::Record;
use hickory_proto::rr::RecordType;

use super::present::base32;
use crate::names;

/// The only algorithm that there is: SHA-1 (RFC 5155, 11).
const SHA1: u8 = 1;

/// Resolvers that validate take zones with more as unsigned or fail them, and each is work for whoever is asked for a
/// name that does not exist. RFC 9276 wants none.
const ITERATIONS_MAX: u16 = 150;

/// How names are hashed (RFC 5155, 4).
#[derive(Clone, Debug, PartialEq, Eq)]
struct Parameters {
    iterations: u16,
    salt: Vec<u8>,
}

/// One record of the chain, and what signs it.
#[derive(Debug, Default)]
struct Link {
    records: Vec<Record>,
    signatures: Vec<Record>,
}

/// The hashes of a zone's names, in order, each with the next one.
#[derive(Debug)]
pub(super) struct Chain {
    origin: Name,
    parameters: Parameters,
    /// By the first label of the owner, in lower case: the hash in base32hex, which sorts as the hash does.
    links: BTreeMap<String, Link>,
}

/// NSEC3 records and their signatures, before it is known which of them make up the chain.
#[derive(Debug, Default)]
pub(super) struct Hashed(Vec<Record>);

impl Hashed {
    /// Takes a record that is of the chain, or gives it back.
    pub(super) fn take(&mut self, record: Record, covered: Option<u16>) -> Option<Record> {
        let nsec3 = u16::from(RecordType::NSEC3);
        let kind = covered.unwrap_or_else(|| record.record_type().into());
        if kind != nsec3 {
            return Some(record);
        }
        if !self.0.contains(&record) {
            self.0.push(record);
        }
        None
    }

    /// The records, for who has the whole zone.
    pub(super) fn records(&self) -> impl Iterator<Item = &Record> {
        self.0.iter()
    }

    /// Why some of the names that are not there cannot be proved so by the chain of these, if there is a reason.
    pub(super) fn gap(&self, chain: Option<&Chain>) -> Option<String> {
        match chain {
            Some(chain) => chain.gap(),
            None if self.0.is_empty() => None,
            None => Some("no NSEC3PARAM record tells how names are hashed".to_owned()),
        }
    }

    /// The chain that `parameters`, the NSEC3PARAM records of the apex, say is whole; none where there are none.
    ///
    /// # Errors
    ///
    /// When hashing takes more rounds than anybody should be asked for.
    pub(super) fn chain(
        &self,
        origin: &Name,
        parameters: &[Record],
    ) -> Result<Option<Chain>, String> {
        let mut known = parameters.iter().filter_map(|record| {
            let (flags, parameters) = read(record)?;
            (flags == 0).then_some(parameters)
        });
        let Some(parameters) = known.next() else {
            return Ok(None);
        };
        if parameters.iterations > ITERATIONS_MAX {
            return Err(format!(
                "NSEC3 with {} iterations, where {ITERATIONS_MAX} is the most; sign the zone with none, as RFC 9276 says",
                parameters.iterations
            ));
        }
        let mut links: BTreeMap<String, Link> = BTreeMap::new();
        let mut signatures = Vec::new();
        for record in &self.0 {
            let Some(label) = label(record) else { continue };
            match record.record_type() {
                RecordType::NSEC3 if read(record).is_some_and(|(_, of)| of == parameters) => {
                    links.entry(label).or_default().records.push(record.clone());
                }
                RecordType::NSEC3 => {}
                _ => signatures.push((label, record)),
            }
        }
        for (label, record) in signatures {
            if let Some(link) = links.get_mut(&label) {
                link.signatures.push(record.clone());
            }
        }
        Ok(Some(Chain {
            origin: origin.clone(),
            parameters,
            links,
        }))
    }
}

/// The hash, as a label, that an NSEC3 record says is the next one.
fn next(record: &Record) -> Option<String> {
    let RData::Unknown { rdata, .. } = &record.data else {
        return None;
    };
    let (salt, rest) = rdata.anything.get(4..)?.split_first()?;
    let (length, rest) = rest.get(usize::from(*salt)..)?.split_first()?;
    let hash = rest.get(..usize::from(*length))?;
    Some(base32(hash).to_ascii_lowercase())
}

/// Flags and parameters of an NSEC3 or NSEC3PARAM record of a known algorithm: they begin alike (RFC 5155, 3.2 and 4.2).
fn read(record: &Record) -> Option<(u8, Parameters)> {
    let RData::Unknown { rdata, .. } = &record.data else {
        return None;
    };
    let [algorithm, flags, high, low, length, rest @ ..] = &rdata.anything[..] else {
        return None;
    };
    let salt = rest.get(..usize::from(*length))?.to_vec();
    let iterations = u16::from_be_bytes([*high, *low]);
    (*algorithm == SHA1).then_some((*flags, Parameters { iterations, salt }))
}

fn label(record: &Record) -> Option<String> {
    let label = record.name.iter().next()?.to_ascii_lowercase();
    String::from_utf8(label).ok()
}

impl Parameters {
    /// The hash of a name in base32hex (RFC 5155, 5).
    fn hash(&self, name: &Name) -> String {
        let mut octets = names::wire(name);
        for _ in 0..=self.iterations {
            octets.extend_from_slice(&self.salt);
            let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &octets);
            octets.clear();
            octets.extend_from_slice(hash.as_ref());
        }
        base32(&octets).to_ascii_lowercase()
    }
}

impl Chain {
    /// Why some of the names that are not there cannot be proved so, if it is the chain's fault.
    fn gap(&self) -> Option<String> {
        if !self.links.contains_key(&self.parameters.hash(&self.origin)) {
            return Some("the apex has no NSEC3 record".to_owned());
        }
        let hashes = self.links.keys();
        let mut links = self.links.iter().zip(hashes.clone().skip(1).chain(hashes));
        links.find_map(|((hash, link), following)| {
            let mut leads = link.records.iter().filter_map(next);
            let whole = leads.any(|next| next == *following);
            (!whole).then(|| {
                format!("the NSEC3 record of {hash} does not lead to the next one, {following}")
            })
        })
    }

    /// That there is no such name, and no wildcard that stands for it (7.2.2).
    pub(super) fn no_name(&self, name: &Name, section: &mut Vec<Record>) {
        let encloser = self.enclose(name, section);
        if let Ok(wildcard) = encloser.prepend_label("*") {
            self.cover(&wildcard, section);
        }
    }

    /// That a name has no such records (7.2.3). What only leads to unsigned delegations may have no hash of its own: then
    /// that it lies where the chain has been let out (7.2.4).
    pub(super) fn no_data(&self, name: &Name, section: &mut Vec<Record>) {
        if !self.matching(name, section) {
            self.enclose(name, section);
        }
    }

    /// That no name stood in the way of the wildcard that answers for it (7.2.6).
    pub(super) fn no_closer(&self, name: &Name, wildcard: &Name, section: &mut Vec<Record>) {
        let encloser = names::labels(&wildcard.base_name());
        self.cover(&name.trim_to(encloser + 1), section);
    }

    /// Beside [`Chain::no_closer`], that the wildcard has no such records (7.2.5).
    pub(super) fn no_wildcard_data(&self, wildcard: &Name, section: &mut Vec<Record>) {
        self.matching(&wildcard.base_name(), section);
        self.no_data(wildcard, section);
    }

    /// The proof of the closest encloser (7.2.1): that it is there, and that the name one label longer is not.
    fn enclose(&self, name: &Name, section: &mut Vec<Record>) -> Name {
        let apex = names::labels(&self.origin);
        let mut next = name.clone();
        for labels in (apex..names::labels(name)).rev() {
            let ancestor = name.trim_to(labels);
            if self.matching(&ancestor, section) {
                self.cover(&next, section);
                return ancestor;
            }
            next = ancestor;
        }
        self.origin.clone()
    }

    fn matching(&self, name: &Name, section: &mut Vec<Record>) -> bool {
        let link = self.links.get(&self.parameters.hash(name));
        link.inspect(|link| link.push(section)).is_some()
    }

    /// The record whose hashes lie around that of the name; the last one goes round to the first.
    fn cover(&self, name: &Name, section: &mut Vec<Record>) {
        let hash = self.parameters.hash(name);
        let before = self.links.range(..=hash).next_back();
        if let Some((_, link)) = before.or_else(|| self.links.last_key_value()) {
            link.push(section);
        }
    }
}

impl Link {
    fn push(&self, section: &mut Vec<Record>) {
        for record in self.records.iter().chain(&self.signatures) {
            if !section.contains(record) {
                section.push(record.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::file::zone::{Found, Zone};

    /// Names of RFC 5155's example zone that are hashed, with the hashes that its appendix A gives.
    const HASHED: &[(&str, &str)] = &[
        ("example.", "0p9mhaveqvm6t7vbl5lop2u3t2rp3tom"),
        ("ns1.example.", "2t7b4g4vsa5smi47k61mv5bv1a22bojr"),
        ("x.y.w.example.", "2vptu5timamqttgl4luu9kg21e0aor3s"),
        ("a.example.", "35mthgpgcu1qg68fab165klnsnk3dpvl"),
        ("x.w.example.", "b4um86eghhds6nea196smvmlo4ors995"),
        ("ai.example.", "gjeqe526plbf1g8mklp59enfd789njgi"),
        ("y.w.example.", "ji6neoaepv8b5o6k4ev33abha8ht9fgc"),
        ("w.example.", "k8udemvp1j2f7eg6jebps17vp3n8i58h"),
        ("ns2.example.", "q04jkcevqvmu85r014c7dkba38o0ji5r"),
        ("*.w.example.", "r53bq7cc2uvmubfu5ocmm6pers9tk9en"),
        ("xx.example.", "t644ebqk9bibcna874givr6joj62mlhv"),
    ];

    fn record(line: &str) -> Record {
        let origin = Name::from_ascii("example.").unwrap();
        crate::plugin::file::master::record(line, &origin).unwrap()
    }

    /// The example zone without its signatures.
    fn zone(iterations: u16) -> Result<Zone, String> {
        let mut lines: Vec<String> = [
            "example. 3600 SOA ns1.example. bugs.x.w.example. 1 3600 300 3600000 3600",
            "example. 3600 NS ns1.example.",
            "example. 3600 MX 1 xx.example.",
            "a.example. 3600 NS ns1.a.example.",
            "a.example. 3600 DS 58470 5 1 3079f1593ebad6dc121e202a8b766a6a4837206c",
            "ns1.a.example. 3600 A 192.0.2.5",
            "ai.example. 3600 A 192.0.2.9",
            "c.example. 3600 NS ns1.c.example.",
            "ns1.c.example. 3600 A 192.0.2.7",
            "ns1.example. 3600 A 192.0.2.1",
            "ns2.example. 3600 A 192.0.2.2",
            "*.w.example. 3600 MX 1 ai.example.",
            "x.w.example. 3600 MX 1 xx.example.",
            "x.y.w.example. 3600 MX 1 xx.example.",
            "xx.example. 3600 A 192.0.2.10",
        ]
        .map(str::to_owned)
        .to_vec();
        lines.push(format!(
            "example. 3600 NSEC3PARAM 1 0 {iterations} aabbccdd"
        ));
        for (at, (_, hash)) in HASHED.iter().enumerate() {
            let (_, next) = HASHED[(at + 1) % HASHED.len()];
            lines.push(format!(
                "{hash}.example. 3600 NSEC3 1 1 {iterations} aabbccdd {next} A RRSIG"
            ));
        }
        // Of another chain, that is being made or taken away.
        lines.push(format!(
            "{}.example. 3600 NSEC3 1 0 1 - {} A",
            HASHED[3].1, HASHED[0].1
        ));
        let records = lines.iter().map(|line| record(line)).collect();
        Zone::new(&Name::from_ascii("example.").unwrap(), records)
    }

    #[test]
    fn hashes_of_the_example() {
        let parameters = Parameters {
            iterations: 12,
            salt: vec![0xaa, 0xbb, 0xcc, 0xdd],
        };
        for (name, hash) in HASHED {
            let shouted = Name::from_ascii(name.to_ascii_uppercase()).unwrap();
            assert_eq!(parameters.hash(&shouted), *hash, "{name}");
        }
    }

    /// RFC 5155, appendix B.
    #[test]
    fn proofs_of_the_example() {
        let zone = zone(12).unwrap();
        let proofs = |found: &Found| {
            let nsec3 = found
                .authorities
                .iter()
                .filter(|r| r.record_type() == RecordType::NSEC3);
            let mut names: Vec<String> =
                nsec3.filter_map(label).map(|l| l[..4].to_owned()).collect();
            names.sort();
            names.join(" ")
        };
        for (name, kind, wanted) in [
            ("a.c.x.w.example.", RecordType::A, "0p9m 35mt b4um"),
            ("ns1.example.", RecordType::MX, "2t7b"),
            ("y.w.example.", RecordType::A, "ji6n"),
            ("mc.c.example.", RecordType::MX, "0p9m 35mt"),
            ("c.example.", RecordType::DS, "0p9m 35mt"),
            ("b.a.example.", RecordType::A, ""),
            ("a.z.w.example.", RecordType::MX, "q04j"),
            ("a.z.w.example.", RecordType::AAAA, "k8ud q04j r53b"),
            ("example.", RecordType::DS, "0p9m"),
            ("ai.example.", RecordType::A, ""),
        ] {
            let asked = Name::from_ascii(name).unwrap();
            assert_eq!(
                proofs(&zone.find(&asked, kind, true)),
                wanted,
                "{name} {kind}"
            );
            assert_eq!(proofs(&zone.find(&asked, kind, false)), "", "{name} {kind}");
        }
        let owner = Name::from_ascii(format!("{}.example.", HASHED[0].1)).unwrap();
        let found = zone.find(&owner, RecordType::NSEC3, true);
        assert_eq!(
            found.code,
            Some(hickory_proto::op::ResponseCode::NXDomain),
            "nobody has the name of a hash (7.2.8)"
        );
        let whole = zone.records();
        let hashed = whole
            .iter()
            .filter(|r| r.record_type() == RecordType::NSEC3);
        assert_eq!(
            hashed.count(),
            HASHED.len() + 1,
            "who has the zone has all of them"
        );
    }

    #[test]
    fn chains_that_are_not_whole() {
        let parameters = record("example. 3600 NSEC3PARAM 1 0 12 aabbccdd");
        let gap = |left_out: usize| {
            let mut hashed = Hashed::default();
            for (at, (_, hash)) in HASHED.iter().enumerate() {
                let (_, next) = HASHED[(at + 1) % HASHED.len()];
                let line = format!("{hash}.example. 3600 NSEC3 1 1 12 aabbccdd {next} A RRSIG");
                if at != left_out {
                    assert!(hashed.take(record(&line), None).is_none());
                }
            }
            let origin = Name::from_ascii("example.").unwrap();
            let chain = hashed.chain(&origin, std::slice::from_ref(&parameters));
            let without = hashed.gap(None).unwrap();
            assert!(without.contains("no NSEC3PARAM"), "{without}");
            hashed.gap(chain.unwrap().as_ref())
        };
        assert_eq!(gap(HASHED.len()), None, "all are there");
        assert!(gap(0).unwrap().contains("the apex"));
        for left_out in 1..HASHED.len() {
            let before = HASHED[left_out - 1].1;
            let gap = gap(left_out).unwrap();
            assert!(gap.contains(&format!("of {before} does not lead")), "{gap}");
        }
        assert_eq!(Hashed::default().gap(None), None, "not of such a zone");
    }

    #[test]
    fn names_that_are_hashed_too_often_are_not_served() {
        let error = zone(151).unwrap_err();
        assert!(
            error.contains("151 iterations") && error.contains("RFC 9276"),
            "{error}"
        );
    }
}
