//! Choosing a backend: one of the frontend's ring, or the one that the client had before.

use abi::frontends::flags::{LEAST, SPREAD};
use abi::spreads::{NARROW_MAX, NARROW_PLACES, WIDE_PLACES};
use abi::{Affinity, AffinityKey, Backend, BackendId, Frontend};

use crate::{Address, Flow, Shared};

/// Why there is no backend.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)] // as wide as an identifier, in whose place it stands: the verifier takes no register that is half written
pub enum Refused {
    /// The service has no endpoint.
    NoEndpoint,
    /// The ring led nowhere: the tables are not whole.
    NoBackend,
}

/// Chooses a backend of `frontend`. `random` picks the slot, or the place in the frontend's table, and a hash of what
/// is to stay together may stand for it; session affinity, keyed by `client`, goes before.
///
/// # Errors
///
/// [`Refused`] says why there is none.
#[inline(always)]
pub fn choose<'a, T: Shared>(
    tables: &'a T,
    frontend: &Frontend,
    client: impl FnOnce() -> AffinityKey,
    random: u32,
    now_secs: u32,
) -> Result<(BackendId, &'a Backend), Refused> {
    if frontend.ring_len == 0 {
        return Err(Refused::NoEndpoint);
    }
    if frontend.affinity_secs == 0 {
        return pick(tables, frontend, random);
    }
    let key = client();
    let before = match tables.affinity(&key) {
        Some(affinity) if holds(&affinity, frontend.affinity_secs, now_secs) => {
            member(tables, affinity.backend, frontend).ok()
        }
        Some(_) | None => None,
    };
    let chosen = match before {
        Some(chosen) => chosen,
        None => pick(tables, frontend, random)?,
    };
    tables.keep_affinity(
        &key,
        &Affinity {
            backend: chosen.0,
            last_used_secs: now_secs,
        },
    );
    Ok(chosen)
}

/// The first backend behind the slot that `random` picks for which `fits` holds: of the few that are looked at, the last
/// one where none does.
///
/// # Errors
///
/// As [`choose`].
#[inline(always)]
pub fn other<'a, T: Shared>(
    tables: &'a T,
    frontend: &Frontend,
    random: u32,
    fits: impl Fn(&Backend) -> bool,
) -> Result<(BackendId, &'a Backend), Refused> {
    const TRIES: u32 = 4;
    let len = frontend.ring_len;
    if len == 0 {
        return Err(Refused::NoEndpoint);
    }
    let mut at = slot(0, len, random);
    let mut tries = 0;
    loop {
        tries += 1;
        at = if at + 1 < len { at + 1 } else { 0 };
        let slot = frontend.ring_offset.wrapping_add(at);
        let found = match tables.slot(slot) {
            Some(id) => member(tables, id, frontend),
            None => Err(Refused::NoBackend),
        };
        match found {
            Ok((_, backend)) if tries < TRIES && !fits(backend) => {}
            found => return found,
        }
    }
}

/// The slot that `random` picks out of a ring: uniform over the ring, and the same for the same number.
#[inline(always)]
#[must_use]
pub const fn slot(ring_offset: u32, ring_len: u32, random: u32) -> u32 {
    ring_offset.wrapping_add(((random as u64 * ring_len as u64) >> 32) as u32)
}

/// Whether an affinity still binds: its timeout counts from the last connection (kube-proxy's `timeoutSeconds`).
#[inline(always)]
#[must_use]
pub const fn holds(affinity: &Affinity, affinity_secs: u32, now_secs: u32) -> bool {
    now_secs.saturating_sub(affinity.last_used_secs) < affinity_secs
}

#[inline(always)]
fn pick<'a, T: Shared>(
    tables: &'a T,
    frontend: &Frontend,
    random: u32,
) -> Result<(BackendId, &'a Backend), Refused> {
    let found = at(tables, frontend, random);
    if frontend.flags & LEAST == 0 {
        return found;
    }
    // The power of two choices: the less used of two is nearly as good as the least used of all. The bits that the
    // first choice hardly depended on pick the second.
    let (first, second) = (found?, at(tables, frontend, scramble(random))?);
    let less = |one: BackendId, other: BackendId| {
        (tables.connections(one) as i64) < (tables.connections(other) as i64)
    };
    Ok(if less(second.0, first.0) {
        second
    } else {
        first
    })
}

/// The backend that a number picks.
#[inline(always)]
fn at<'a, T: Shared>(
    tables: &'a T,
    frontend: &Frontend,
    random: u32,
) -> Result<(BackendId, &'a Backend), Refused> {
    let slot = if frontend.flags & SPREAD == 0 {
        slot(frontend.ring_offset, frontend.ring_len, random)
    } else {
        place(tables, frontend, random).ok_or(Refused::NoBackend)?
    };
    match tables.slot(slot) {
        Some(id) => member(tables, id, frontend),
        None => Err(Refused::NoBackend),
    }
}

/// The slot that a number picks through the frontend's table (see [`abi::spreads`]); `None` where that is not whole.
#[inline(always)]
fn place<T: Shared>(tables: &T, frontend: &Frontend, random: u32) -> Option<u32> {
    let len = frontend.ring_len;
    let table = tables.slot(frontend.ring_offset.wrapping_add(len))?;
    let places = tables.spread(table)?.words[0];
    let index = slot(0, places, random);
    let narrow = len <= NARROW_MAX;
    let (element, of_element) = if narrow {
        (index / NARROW_PLACES, index % NARROW_PLACES)
    } else {
        (index / WIDE_PLACES, index % WIDE_PLACES)
    };
    let [low, high] = tables
        .spread(table.wrapping_add(1).wrapping_add(element))?
        .words;
    let half = if of_element & (if narrow { 4 } else { 2 }) == 0 {
        low
    } else {
        high
    };
    let place = if narrow {
        half >> ((of_element & 3) * 8) & 0xff
    } else {
        half >> ((of_element & 1) * 16) & 0xffff
    };
    let place = place.wrapping_sub(1);
    (place < len).then(|| frontend.ring_offset.wrapping_add(place))
}

/// A hash of a packet's tuple, the same on every node and in every process.
#[inline(always)]
#[must_use]
pub fn hash<F: Flow>(tuple: &F) -> u32 {
    let mut hash = scramble(tuple.ports() ^ u32::from(tuple.proto()).rotate_left(24));
    let (from, to) = (tuple.saddr().words(), tuple.daddr().words());
    let mut word = 0;
    while word < F::Address::WORDS {
        hash = scramble(hash ^ from[word]).wrapping_add(to[word].rotate_left(16));
        word += 1;
    }
    scramble(hash)
}

/// Mixes a word so that each bit of it changes about half of the result's: two rounds of multiplication by odd numbers
/// and shifts, without loss.
#[inline(always)]
#[must_use]
pub const fn scramble(mut word: u32) -> u32 {
    word ^= word >> 16;
    word = word.wrapping_mul(0x7feb_352d);
    word ^= word >> 15;
    word = word.wrapping_mul(0x846c_a68b);
    word ^ word >> 16
}

/// The backend of that number, if it belongs to the frontend's service.
#[inline(always)]
fn member<'a, T: Shared>(
    tables: &'a T,
    id: BackendId,
    frontend: &Frontend,
) -> Result<(BackendId, &'a Backend), Refused> {
    match tables.backend(id) {
        Some(backend) if backend.service == frontend.service => Ok((id, backend)),
        Some(_) | None => Err(Refused::NoBackend),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Model;

    proptest! {
        #[test]
        fn a_slot_lies_in_its_ring(offset in 0u32..1_000_000, len in 1u32..1_000_000, random in any::<u32>()) {
            let slot = slot(offset, len, random);
            prop_assert!((offset..offset + len).contains(&slot));
        }

        #[test]
        fn every_slot_is_as_likely_as_any_other(len in 1u32..64) {
            let mut count = vec![0u32; len as usize];
            for step in 0..len * 1000 {
                let random = (u64::from(step) << 32) / u64::from(len * 1000);
                count[slot(0, len, random as u32) as usize] += 1;
            }
            prop_assert!(count.iter().all(|count| (999..=1001).contains(count)), "{:?}", count);
        }
    }

    /// A service of `count` backends behind a table that gives each backend as many places as `shares` says.
    fn model(count: u32, shares: &[u8], flags: u32) -> (Model, Frontend) {
        let mut model = Model::default();
        for id in 1..=count {
            let backend = Backend {
                service: 1,
                ..Backend::default()
            };
            model.backends.insert(id, backend);
            model.slots.insert(9 + id, id);
        }
        let places = shares.iter().enumerate();
        let places = places.flat_map(|(at, share)| vec![at as u8 + 1; (*share).into()]);
        let mut places: Vec<u8> = places.collect();
        model.slots.insert(10 + count, 7);
        let header = [places.len() as u32, count];
        model.spreads.insert(7, abi::SpreadWord { words: header });
        places.resize(places.len().next_multiple_of(8), 0);
        for (at, eight) in places.chunks(8).enumerate() {
            let word = |bytes: &[u8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            let words = [word(&eight[..4]), word(&eight[4..])];
            let element = abi::SpreadWord { words };
            model.spreads.insert(8 + at as u32, element);
        }
        let frontend = Frontend {
            service: 1,
            ring_offset: 10,
            ring_len: count,
            affinity_secs: 0,
            flags,
        };
        (model, frontend)
    }

    fn client() -> AffinityKey {
        unreachable!("there is no affinity")
    }

    #[test]
    fn a_table_gives_each_backend_its_places() {
        let shares = [3, 0, 10, 7];
        let (model, frontend) = model(4, &shares, SPREAD);
        let mut count = [0u32; 4];
        for step in 0..2000_u64 {
            let random = ((step << 32) / 2000) as u32;
            let (id, _) = choose(&model, &frontend, client, random, 0).expect("a backend");
            count[id as usize - 1] += 1;
        }
        for (count, share) in count.iter().zip(shares) {
            assert!(
                count.abs_diff(u32::from(share) * 100) <= 1,
                "{count} of {share}"
            );
        }
    }

    #[test]
    fn a_table_that_is_not_whole_leads_nowhere() {
        let (whole, frontend) = model(4, &[1, 1, 1, 1], SPREAD);
        for break_it in [
            |model: &mut Model| model.slots.retain(|at, _| *at != 14),
            |model: &mut Model| model.spreads.retain(|at, _| *at != 7),
            |model: &mut Model| model.spreads.retain(|at, _| *at != 8),
            |model: &mut Model| model.spreads.values_mut().for_each(|e| e.words = [8, 0]),
            |model: &mut Model| model.slots.clear(),
        ] {
            let (mut broken, _) = model(4, &[1, 1, 1, 1], SPREAD);
            break_it(&mut broken);
            let found = choose(&broken, &frontend, client, u32::MAX, 0);
            assert_eq!(found.err(), Some(Refused::NoBackend));
        }
        assert!(choose(&whole, &frontend, client, u32::MAX, 0).is_ok());
    }

    #[test]
    fn the_less_used_of_two_gets_the_connection() {
        let (mut model, frontend) = model(10, &[], LEAST);
        model.connections.insert(3, u64::MAX);
        let mut state = 1;
        let mut most_apart = 0;
        for _ in 0..10_000 {
            state = scramble(state + 1);
            let (id, _) = choose(&model, &frontend, client, state, 0).expect("a backend");
            let count = model.connections.entry(id).or_default();
            *count = count.wrapping_add(1);
            let counts = (1..=10).map(|id| model.connections.get(&id).map_or(0, |n| *n as i64));
            let (least, most) = (counts.clone().min(), counts.max());
            most_apart = most_apart.max(most.unwrap() - least.unwrap());
        }
        // Random choice would be about a hundred apart by then.
        assert!(most_apart <= 10, "{most_apart}");
    }

    #[test]
    fn hashes_of_neighbouring_tuples_spread_and_are_the_same_everywhere() {
        let tuple = |sport: u16, host: u8| {
            let (from, to) = ([10, 0, 0, host], [10, 96, 0, 1]);
            abi::Flow4::new(from, to, sport.into(), 80.into(), 6)
        };
        let mut count = [0u32; 16];
        for sport in 30_000..32_000 {
            for host in 1..5 {
                count[slot(0, 16, hash(&tuple(sport, host))) as usize] += 1;
            }
        }
        assert!(
            count.iter().all(|count| (420..580).contains(count)),
            "{count:?}"
        );
        assert_eq!(hash(&tuple(1, 1)), hash(&tuple(1, 1)));
        let six = |last| {
            let mut from = [0; 16];
            from[15] = last;
            abi::Flow6::new(from, [0xfd; 16], 1.into(), 80.into(), 6)
        };
        assert_ne!(hash(&six(1)), hash(&six(2)));
    }

    #[test]
    fn an_affinity_ends_when_its_time_is_over() {
        let affinity = Affinity {
            backend: 1,
            last_used_secs: 100,
        };
        for (now, held) in [(100, true), (109, true), (110, false), (99, true)] {
            assert_eq!(holds(&affinity, 10, now), held, "at {now}");
        }
    }
}
