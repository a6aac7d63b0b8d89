//! Sets of ports: what a rule is about, and what a pod's policies let pass.

use abi::policy::PORT_AT;
use abi::{PolicyPortKey, protocol};
use model::Protocol;
use model::policy::{Port, Ports};

/// Ports of all protocols: a line of four stretches, of TCP, UDP, SCTP and whatever else there is, which has no ports
/// that a policy could name.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PortSet {
    /// First and last, in order; none touches the next.
    spans: Vec<(u32, u32)>,
}

/// Places on each stretch.
const STRETCH: u32 = 1 << 16;
const LAST: u32 = 4 * STRETCH - 1;

fn stretch(protocol: Protocol) -> u32 {
    match protocol {
        Protocol::Tcp => 0,
        Protocol::Udp => STRETCH,
        Protocol::Sctp => 2 * STRETCH,
    }
}

impl PortSet {
    /// Everything.
    pub(crate) fn all() -> PortSet {
        PortSet {
            spans: vec![(0, LAST)],
        }
    }

    fn of(mut spans: Vec<(u32, u32)>) -> PortSet {
        spans.sort_unstable();
        let mut joined: Vec<(u32, u32)> = Vec::new();
        for (first, last) in spans {
            match joined.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = (*end).max(last),
                _ => joined.push((first, last)),
            }
        }
        PortSet { spans: joined }
    }

    /// What a rule's ports are by number.
    pub(crate) fn numbered(ports: &Ports) -> PortSet {
        let Ports::Some(ports) = ports else {
            return PortSet::all();
        };
        let spans = ports.iter().filter_map(|port| match port {
            Port::Range(protocol, first, last) if first <= last => {
                let base = stretch(*protocol);
                Some((base + u32::from(*first), base + u32::from(*last)))
            }
            Port::Range(..) | Port::Named(..) => None,
        });
        PortSet::of(spans.collect())
    }

    /// What a rule's ports are by name, at a pod with these.
    pub(crate) fn named(ports: &Ports, at: &[(std::sync::Arc<str>, Protocol, u16)]) -> PortSet {
        let Ports::Some(ports) = ports else {
            return PortSet::default();
        };
        let mut spans = Vec::new();
        for port in ports {
            if let Port::Named(protocol, name) = port {
                let here = at.iter().filter(|(of, spoken, _)| {
                    of == name && protocol.is_none_or(|asked| asked == *spoken)
                });
                spans.extend(here.map(|(_, spoken, number)| {
                    let place = stretch(*spoken) + u32::from(*number);
                    (place, place)
                }));
            }
        }
        PortSet::of(spans)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    pub(crate) fn union(&self, other: &PortSet) -> PortSet {
        if self.is_empty() {
            return other.clone();
        }
        PortSet::of(self.spans.iter().chain(&other.spans).copied().collect())
    }

    /// All of many; cheaper than one after another.
    pub(crate) fn union_of<'a>(sets: impl Iterator<Item = &'a PortSet>) -> PortSet {
        PortSet::of(sets.flat_map(|set| set.spans.iter().copied()).collect())
    }

    fn without(&self) -> PortSet {
        let mut spans = Vec::with_capacity(self.spans.len() + 1);
        let mut next = 0;
        for (first, last) in &self.spans {
            if *first > next {
                spans.push((next, first - 1));
            }
            next = last + 1;
        }
        if next <= LAST {
            spans.push((next, LAST));
        }
        PortSet { spans }
    }

    pub(crate) fn intersection(&self, other: &PortSet) -> PortSet {
        let mut spans = Vec::new();
        let (mut a, mut b) = (self.spans.iter().peekable(), other.spans.iter().peekable());
        while let (Some((a_first, a_last)), Some((b_first, b_last))) = (a.peek(), b.peek()) {
            let (first, last) = ((*a_first).max(*b_first), (*a_last).min(*b_last));
            if first <= last {
                spans.push((first, last));
            }
            if a_last <= b_last {
                a.next();
            } else {
                b.next();
            }
        }
        PortSet { spans }
    }

    pub(crate) fn minus(&self, other: &PortSet) -> PortSet {
        self.intersection(&other.without())
    }

    pub(crate) fn is_all(&self) -> bool {
        self.spans == [(0, LAST)]
    }

    /// The entries of the table of ports that hold these and no others.
    pub(crate) fn keys(&self, profile: u32) -> Vec<PolicyPortKey> {
        const PROTOCOLS: [u8; 4] = [protocol::TCP, protocol::UDP, protocol::SCTP, 0];
        let mut keys = Vec::new();
        for (proto, base) in PROTOCOLS.into_iter().zip((0..).step_by(STRETCH as usize)) {
            let stretch = PortSet {
                spans: vec![(base, base + STRETCH - 1)],
            };
            for (first, last) in self.intersection(&stretch).spans {
                prefixes(first - base, last - base, |port, bits| {
                    keys.push(PolicyPortKey {
                        prefix_len: PORT_AT + bits,
                        profile,
                        proto,
                        _pad: 0,
                        port: port.into(),
                    });
                });
            }
        }
        keys
    }

    #[cfg(test)]
    fn holds(&self, place: u32) -> bool {
        let mut spans = self.spans.iter();
        spans.any(|(first, last)| (*first..=*last).contains(&place))
    }
}

/// The prefixes that hold `first` to `last` of 65,536 places: at most thirty.
fn prefixes(first: u32, last: u32, mut each: impl FnMut(u16, u32)) {
    let mut next = first;
    while next <= last {
        // The longest stretch that begins here, is aligned and ends in time.
        let aligned = if next == 0 { 16 } else { next.trailing_zeros() };
        let fits = (last - next + 1).ilog2();
        let free = aligned.min(fits);
        each(next as u16, 16 - free);
        next += 1 << free;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set() -> impl Strategy<Value = PortSet> {
        let span =
            (0..LAST, 0..70_000_u32).prop_map(|(first, len)| (first, (first + len).min(LAST)));
        prop::collection::vec(span, 0..6).prop_map(PortSet::of)
    }

    proptest! {
        #[test]
        fn sets_are_sets(a in set(), b in set(), places in prop::collection::vec(0..=LAST, 1..50)) {
            let ends = a.spans.iter().chain(&b.spans);
            let ends: Vec<u32> = ends.flat_map(|(x, y)| [*x, *y, y.saturating_add(1).min(LAST)]).collect();
            let (union, both, less) = (a.union(&b), a.intersection(&b), a.minus(&b));
            for place in places.into_iter().chain(ends) {
                let (in_a, in_b) = (a.holds(place), b.holds(place));
                prop_assert_eq!(union.holds(place), in_a || in_b);
                prop_assert_eq!(both.holds(place), in_a && in_b);
                prop_assert_eq!(less.holds(place), in_a && !in_b);
            }
            prop_assert_eq!(&PortSet::of(union.spans.clone()), &union);
        }

        #[test]
        fn prefixes_hold_what_they_should(first in 0..STRETCH, len in 0..STRETCH) {
            let last = (first + len).min(STRETCH - 1);
            let mut next = first;
            let mut count = 0;
            prefixes(first, last, |port, bits| {
                assert_eq!(u32::from(port), next, "one after another");
                next += 1 << (16 - bits);
                count += 1;
            });
            prop_assert_eq!(next, last + 1);
            prop_assert!(count <= 30);
        }
    }

    #[test]
    fn everything_is_four_entries() {
        assert_eq!(PortSet::all().keys(7).len(), 4);
        assert!(PortSet::default().without().is_all());
        assert!(PortSet::default().keys(7).is_empty());
    }
}
