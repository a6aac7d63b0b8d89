//! Who has which address.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::Range;

/// One interface of one container: what CNI calls an attachment.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
    /// The runtime's name for the container.
    #[serde(rename = "containerID")]
    pub container: String,
    /// The interface's name inside.
    pub ifname: String,
}

/// What an attachment has.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Lease {
    /// Its addresses, one of each family at most.
    pub addresses: Vec<IpAddr>,
    /// For people: `namespace/name` of the pod; empty where the runtime said nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pod: String,
}

/// A change: a line of the journal.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Record {
    /// The attachment has these addresses from now on.
    Take(Attachment, Lease),
    /// It has none any more.
    Free(Attachment),
}

/// Why there is no address.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    /// Every address is taken.
    #[error("no address is free in {ranges}: all {size} are taken")]
    Exhausted {
        /// The ranges, in words.
        ranges: String,
        /// How many addresses they have.
        size: u128,
    },
    /// An address that was asked for is somebody's.
    #[error("{addr} is taken by container {} ({})", holder.container, holder.ifname)]
    Taken {
        /// The address.
        addr: IpAddr,
        /// Who has it.
        holder: Attachment,
    },
    /// An address that was asked for is in no range of this node, or another of its family was asked for, too.
    #[error("{addr} cannot be given: {why}")]
    NotOurs {
        /// The address.
        addr: IpAddr,
        /// Why, in words.
        why: String,
    },
    /// The attachment has addresses.
    #[error("container {} has addresses for {} already", .0.container, .0.ifname)]
    Held(Attachment),
}

/// Who has which address.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Leases {
    by_attachment: BTreeMap<Attachment, Lease>,
    by_address: BTreeMap<IpAddr, Attachment>,
    /// The address of each family that was given last: the next one follows it, so that an address rests as long as
    /// it can before somebody else has it.
    last: [Option<IpAddr>; 2],
}

impl Leases {
    /// Chooses addresses: one from each set of ranges, the one asked for if one of its ranges holds it. Changes
    /// nothing: [`apply`](Leases::apply) the record once it is on disk.
    ///
    /// # Errors
    ///
    /// [`Refused`].
    pub fn take(
        &self,
        who: &Attachment,
        pod: &str,
        sets: &[Vec<Range>],
        wanted: &[IpAddr],
    ) -> Result<Record, Refused> {
        if self.by_attachment.contains_key(who) {
            return Err(Refused::Held(who.clone()));
        }
        let mut wanted: Vec<IpAddr> = wanted.to_vec();
        let mut addresses: Vec<IpAddr> = Vec::new();
        for set in sets {
            let asked = wanted
                .iter()
                .position(|addr| set.iter().any(|range| range.contains(*addr)));
            let addr = match asked.map(|at| wanted.remove(at)) {
                Some(addr) => match self.by_address.get(&addr) {
                    Some(holder) => {
                        let holder = holder.clone();
                        return Err(Refused::Taken { addr, holder });
                    }
                    None => addr,
                },
                None => self.next(set, &addresses)?,
            };
            addresses.push(addr);
        }
        if let Some(addr) = wanted.first() {
            let ranges = words(sets.iter().flatten());
            let why = if ranges.is_empty() {
                "this node has no range".to_owned()
            } else {
                format!("one address of each of {ranges} is what a pod may have")
            };
            return Err(Refused::NotOurs { addr: *addr, why });
        }
        let pod = pod.to_owned();
        Ok(Record::Take(who.clone(), Lease { addresses, pod }))
    }

    fn next(&self, set: &[Range], chosen: &[IpAddr]) -> Result<IpAddr, Refused> {
        let taken = |from| self.by_address.range(from..).map(|(addr, _)| *addr);
        let last = |range: &Range| self.last[usize::from(range.is_ipv6())];
        // The range of the last address first, then on from there.
        let at = set
            .iter()
            .position(|range| last(range).is_some_and(|addr| range.contains(addr)));
        let (before, from) = set.split_at(at.unwrap_or_default());
        let mut order = from.iter().chain(before);
        let found = order.find_map(|range| range.free(last(range), taken));
        found
            .filter(|addr| !chosen.contains(addr))
            .ok_or_else(|| Refused::Exhausted {
                ranges: words(set.iter()),
                size: set
                    .iter()
                    .fold(0, |sum, range| range.size().saturating_add(sum)),
            })
    }

    /// Carries a change out.
    pub fn apply(&mut self, record: &Record) {
        match record {
            Record::Take(who, lease) => {
                self.free(who);
                for addr in &lease.addresses {
                    self.by_address.insert(*addr, who.clone());
                    self.last[usize::from(addr.is_ipv6())] = Some(*addr);
                }
                self.by_attachment.insert(who.clone(), lease.clone());
            }
            Record::Free(who) => self.free(who),
        }
    }

    fn free(&mut self, who: &Attachment) {
        if let Some(lease) = self.by_attachment.remove(who) {
            for addr in &lease.addresses {
                if self.by_address.get(addr) == Some(who) {
                    self.by_address.remove(addr);
                }
            }
        }
    }

    /// What an attachment has.
    #[must_use]
    pub fn get(&self, who: &Attachment) -> Option<&Lease> {
        self.by_attachment.get(who)
    }

    /// Everybody, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Attachment, &Lease)> {
        self.by_attachment.iter()
    }

    /// How many attachments have addresses.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_attachment.len()
    }

    /// Nobody has any.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_attachment.is_empty()
    }

    /// Records that lead to the same state from nothing, the last address given included.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        let held = |(who, lease): (&Attachment, &Lease)| Record::Take(who.clone(), lease.clone());
        let mut records = Vec::new();
        // Whose address was given last comes last; where nobody has it any more, somebody had it.
        let last: Vec<IpAddr> = self.last.into_iter().flatten().collect();
        let is_last = |lease: &Lease| lease.addresses.iter().any(|addr| last.contains(addr));
        let (late, early): (Vec<_>, Vec<_>) = self.iter().partition(|(_, lease)| is_last(lease));
        records.extend(early.into_iter().map(held));
        records.extend(late.into_iter().map(held));
        let nobody = Attachment {
            container: String::new(),
            ifname: String::new(),
        };
        let gone: Vec<IpAddr> = last
            .into_iter()
            .filter(|addr| !self.by_address.contains_key(addr))
            .collect();
        if !gone.is_empty() {
            let lease = Lease {
                addresses: gone,
                pod: String::new(),
            };
            records.push(Record::Take(nobody.clone(), lease));
            records.push(Record::Free(nobody));
        }
        records
    }
}

fn words<'a>(ranges: impl Iterator<Item = &'a Range>) -> String {
    let words: Vec<String> = ranges.map(ToString::to_string).collect();
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn who(container: &str) -> Attachment {
        Attachment {
            container: container.to_owned(),
            ifname: "eth0".to_owned(),
        }
    }

    fn sets(texts: &[&str]) -> Vec<Vec<Range>> {
        let range = |text: &&str| vec![Range::whole(text.parse().unwrap())];
        texts.iter().map(range).collect()
    }

    fn take(leases: &mut Leases, name: &str, sets: &[Vec<Range>], wanted: &[&str]) -> String {
        let wanted: Vec<IpAddr> = wanted.iter().map(|text| text.parse().unwrap()).collect();
        match leases.take(&who(name), "", sets, &wanted) {
            Ok(record) => {
                leases.apply(&record);
                let addresses = &leases.get(&who(name)).unwrap().addresses;
                let words: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                words.join(" ")
            }
            Err(refused) => refused.to_string(),
        }
    }

    #[test]
    fn addresses_follow_each_other_and_rest() {
        let mut leases = Leases::default();
        let sets = sets(&["10.0.0.0/29", "fd00::/64"]);
        for n in 1..=6 {
            let expected = format!("10.0.0.{n} fd00::{n}");
            assert_eq!(take(&mut leases, &n.to_string(), &sets, &[]), expected);
        }
        assert_eq!(
            take(&mut leases, "7", &sets, &[]),
            "no address is free in 10.0.0.0/29: all 6 are taken"
        );
        leases.apply(&Record::Free(who("5")));
        leases.apply(&Record::Free(who("2")));
        // Behind the last one and round.
        assert_eq!(take(&mut leases, "7", &sets, &[]), "10.0.0.2 fd00::7");
        assert_eq!(take(&mut leases, "8", &sets, &[]), "10.0.0.5 fd00::8");
        assert_eq!(
            take(&mut leases, "8", &sets, &[]),
            "container 8 has addresses for eth0 already"
        );
        leases.apply(&Record::Free(who("nobody")));
        assert_eq!(leases.len(), 6);
    }

    #[test]
    fn one_that_was_asked_for_is_given_or_refused() {
        let mut leases = Leases::default();
        let sets = sets(&["10.0.0.0/24", "fd00::/64"]);
        let cases: [(&str, &[&str], &str); 6] = [
            ("a", &["10.0.0.9"], "10.0.0.9 fd00::1"),
            ("b", &["fd00::99", "10.0.0.77"], "10.0.0.77 fd00::99"),
            (
                "c",
                &["10.0.0.9"],
                "10.0.0.9 is taken by container a (eth0)",
            ),
            (
                "c",
                &["10.0.1.9"],
                "10.0.1.9 cannot be given: one address of each of 10.0.0.0/24, fd00::/64 is what a pod may have",
            ),
            (
                "c",
                &["10.0.0.5", "10.0.0.6"],
                "10.0.0.6 cannot be given: one address of each of 10.0.0.0/24, fd00::/64 is what a pod may have",
            ),
            ("c", &[], "10.0.0.78 fd00::9a"),
        ];
        for (name, wanted, expected) in cases {
            assert_eq!(
                take(&mut leases, name, &sets, wanted),
                expected,
                "{wanted:?}"
            );
        }
    }

    #[test]
    fn a_set_of_several_ranges_is_used_up() {
        let mut leases = Leases::default();
        let range = |text: &str| Range::whole(text.parse().unwrap());
        let sets = [vec![range("10.0.0.0/31"), range("10.0.9.0/31")]];
        let given: Vec<String> = (0..5)
            .map(|n| take(&mut leases, &n.to_string(), &sets, &[]))
            .collect();
        assert_eq!(
            given,
            [
                "10.0.0.0",
                "10.0.0.1",
                "10.0.9.0",
                "10.0.9.1",
                "no address is free in 10.0.0.0/31, 10.0.9.0/31: all 4 are taken"
            ]
        );
    }

    proptest! {
        /// Whatever happened: nobody has another's address, what is free can be given, and the records lead back.
        #[test]
        fn nobody_has_anothers_address(steps in proptest::collection::vec((0..12_u8, any::<bool>()), 0..120)) {
            let sets = sets(&["10.0.0.0/29"]);
            let mut leases = Leases::default();
            for (n, takes) in steps {
                let name = n.to_string();
                let held = leases.get(&who(&name)).is_some();
                let full = leases.len() == 6;
                if takes {
                    let record = leases.take(&who(&name), "", &sets, &[]);
                    prop_assert_eq!(record.is_ok(), !held && !full);
                    if let Ok(record) = record {
                        leases.apply(&record);
                    }
                } else {
                    leases.apply(&Record::Free(who(&name)));
                }
                let mut all: Vec<IpAddr> = leases.iter().flat_map(|(_, lease)| lease.addresses.clone()).collect();
                let count = all.len();
                all.sort();
                all.dedup();
                prop_assert_eq!(all.len(), count);
                let mut again = Leases::default();
                leases.records().iter().for_each(|record| again.apply(record));
                prop_assert_eq!(&again, &leases);
            }
        }
    }
}
