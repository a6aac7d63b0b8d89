//! Addresses to names: PTR records of ClusterIPs and of named endpoints, in both families.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::answer::{Absence, Asked, Outcome};
use crate::host::Dashed;
use crate::query::{Question, types};
use crate::reply::{Owner as At, Reply, Section};
use crate::snapshot::Owner;

/// What a name below `in-addr.arpa` or `ip6.arpa` spells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spelled {
    /// An address.
    Whole(IpAddr),
    /// The addresses from the first to the last.
    Part(IpAddr, IpAddr),
    /// None.
    Nothing,
}

impl Asked<'_> {
    pub(crate) fn reverse(&self, family: u8, reply: &mut Reply<'_>) -> Outcome {
        let addr = match spelled(self.question, family) {
            Spelled::Whole(addr) => addr,
            Spelled::Part(first, last) => {
                // Names may stand below, and denying this one would deny them (RFC 8020).
                return match self.snapshot.owners.range(first..=last).next() {
                    Some(_) => {
                        self.no_data(reply);
                        Outcome::Empty
                    }
                    None => self.nothing(Absence::Address, reply),
                };
            }
            Spelled::Nothing => return self.nothing(Absence::Address, reply),
        };
        let owners = self
            .snapshot
            .owners
            .get(&addr)
            .map_or(&[][..], |owners| owners);
        let names = self.names(addr, owners);
        if names.is_empty() {
            return self.nothing(Absence::Address, reply);
        }
        if matches!(self.question.qtype, types::PTR | types::ANY) {
            for name in names {
                let ttl = self.config.ttl;
                reply.record(Section::Answer, At::Question(0), types::PTR, ttl, &[&name]);
            }
        }
        self.written(reply)
    }

    /// The names that an address has: its Service's, or else those of the endpoints that have it.
    fn names(&self, addr: IpAddr, owners: &[Owner]) -> Vec<Vec<u8>> {
        let Some(zone) = self.config.primary() else {
            return Vec::new();
        };
        let full = |label: Option<&[u8]>, key: &[u8]| {
            let tail = [key, b"\x03svc", zone.wire()].concat();
            crate::srv::below(label.unwrap_or_default(), "", &tail)
        };
        let exposed = |key: &[u8]| {
            let namespace = crate::name::labels(key).nth(1);
            namespace.is_some_and(|label| self.snapshot.exposes(self.config, label))
        };
        let mut names = Vec::new();
        for owner in owners {
            match owner {
                Owner::Service(key) if exposed(key) => {
                    names.push(full(None, key));
                    // The first Service has it, as in CoreDNS.
                    break;
                }
                Owner::Host(key, hostname) if exposed(key) => {
                    let mut made = Dashed::default();
                    let label = match hostname {
                        Some(hostname) => hostname.as_bytes(),
                        None => made.write(addr),
                    };
                    names.push(full(Some(label), key));
                }
                Owner::Service(_) | Owner::Host(..) => {}
            }
        }
        names
    }
}

/// Reads a reverse name.
pub(crate) fn spelled(question: &Question, family: u8) -> Spelled {
    match family {
        4 => v4(question),
        _ => v6(question),
    }
}

fn v4(question: &Question) -> Spelled {
    let labels = question.labels().saturating_sub(2);
    if labels > 4 {
        return Spelled::Nothing;
    }
    let mut octets = [0; 4];
    for (at, octet) in octets.iter_mut().enumerate().take(labels) {
        let label = question.label(labels - 1 - at);
        let text = std::str::from_utf8(label).unwrap_or_default();
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        let canonical = digits && (text.len() == 1 || !text.starts_with('0'));
        match text.parse() {
            Ok(number) if canonical => *octet = number,
            _ => return Spelled::Nothing,
        }
    }
    let first = u32::from_be_bytes(octets);
    match labels {
        4 => Spelled::Whole(Ipv4Addr::from(first).into()),
        _ => {
            let rest = u32::MAX.checked_shr(8 * labels as u32).unwrap_or(0);
            Spelled::Part(
                Ipv4Addr::from(first).into(),
                Ipv4Addr::from(first | rest).into(),
            )
        }
    }
}

fn v6(question: &Question) -> Spelled {
    let labels = question.labels().saturating_sub(2);
    if labels > 32 {
        return Spelled::Nothing;
    }
    let mut first = 0_u128;
    for at in 0..labels {
        let [digit] = question.label(labels - 1 - at) else {
            return Spelled::Nothing;
        };
        let Some(nibble) = char::from(*digit).to_digit(16) else {
            return Spelled::Nothing;
        };
        first |= u128::from(nibble) << (124 - 4 * at);
    }
    match labels {
        32 => Spelled::Whole(Ipv6Addr::from(first).into()),
        _ => {
            let rest = u128::MAX.checked_shr(4 * labels as u32).unwrap_or(0);
            Spelled::Part(
                Ipv6Addr::from(first).into(),
                Ipv6Addr::from(first | rest).into(),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::Name;

    #[test]
    fn reverse_names_are_read() {
        let nibbles = "1.".repeat(32);
        let addr = |text: &str| text.parse::<IpAddr>().unwrap();
        let cases = [
            ("4.3.2.1.in-addr.arpa", Spelled::Whole(addr("1.2.3.4"))),
            (
                "2.1.in-addr.arpa",
                Spelled::Part(addr("1.2.0.0"), addr("1.2.255.255")),
            ),
            ("04.3.2.1.in-addr.arpa", Spelled::Nothing),
            ("256.3.2.1.in-addr.arpa", Spelled::Nothing),
            ("+4.3.2.1.in-addr.arpa", Spelled::Nothing),
            ("5.4.3.2.1.in-addr.arpa", Spelled::Nothing),
            ("x.in-addr.arpa", Spelled::Nothing),
            (
                &format!("{nibbles}ip6.arpa"),
                Spelled::Whole(addr("1111:1111:1111:1111:1111:1111:1111:1111")),
            ),
            (
                "d.f.ip6.arpa",
                Spelled::Part(
                    addr("fd00::"),
                    addr("fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
                ),
            ),
            ("g.ip6.arpa", Spelled::Nothing),
            ("10.ip6.arpa", Spelled::Nothing),
            (&format!("1.{nibbles}ip6.arpa"), Spelled::Nothing),
        ];
        for (text, want) in cases {
            let name = Name::parse(text).unwrap();
            let question = Question::new(name.wire(), types::PTR).unwrap();
            let family = name.reverse_family().unwrap();
            assert_eq!(spelled(&question, family), want, "{text}");
        }
    }
}
