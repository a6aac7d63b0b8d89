//! Choosing a backend: one of the frontend's ring, or the one that the client had before.

use abi::{Affinity, AffinityKey, Backend, BackendId, Frontend};

use crate::Shared;

/// Why there is no backend.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// The service has no endpoint.
    NoEndpoint,
    /// The ring led nowhere: the tables are not whole.
    NoBackend,
}

/// Chooses a backend of `frontend`. `random` picks the slot; session affinity, keyed by `client`, goes before.
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
    let slot = slot(frontend.ring_offset, frontend.ring_len, random);
    match tables.slot(slot) {
        Some(id) => member(tables, id, frontend),
        None => Err(Refused::NoBackend),
    }
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
