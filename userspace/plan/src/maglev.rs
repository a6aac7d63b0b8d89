//! Maglev's tables (Eisenbud et al., NSDI 2016, section 3.4), with weights: every backend has an order of its own over
//! the places of the table, and the backends take turns, each taking the first place of its order that is free. A
//! backend of half the weight takes every second turn.
//!
//! An order depends on the backend's address alone, not on its port: the ports of a service share one table, and so do
//! services in front of the same pods.

use std::net::IpAddr;
use std::sync::Arc;

use abi::spreads::{NARROW_MAX, NARROW_PLACES, WIDE_MAX, WIDE_PLACES};
use model::{Backend, Choice};

/// A table as [`abi::spreads`] lays it out: its first element holds the number of places and how many backends the
/// ring has.
pub(crate) type Words = Arc<[[u32; 2]]>;

/// How many backends there are at most, with the number of places, a prime: at least a hundred for each backend, so
/// that none gets more than a percent beyond its share, as far as that takes no more than a quarter of a megabyte. The
/// steps are wide because a table of another length has nothing in common with the one before: within a step, a backend
/// that comes or goes moves little else.
const PLACES: [(usize, u32); 7] = [
    (4, 401),
    (16, 1_601),
    (64, 6_421),
    (255, 25_601),
    (1_024, 102_407),
    (13_107, 131_071),
    (WIDE_MAX as usize, 655_357),
];

/// The table that a choice among `backends` needs: none where a plain ring gives each backend its share.
pub(crate) fn spread(backends: &[Backend], choice: Choice) -> Option<Words> {
    let weights = weights(backends);
    let equal = weights.windows(2).all(|pair| pair[0] == pair[1]);
    if backends.len() < 2 || backends.len() > WIDE_MAX as usize || equal && choice != Choice::Maglev
    {
        return None;
    }
    let addrs: Vec<IpAddr> = backends.iter().map(|backend| backend.addr).collect();
    Some(words(&places(&addrs, &weights), backends.len() as u32))
}

/// How many elements a table has.
pub(crate) fn elements(places: u32, over: u32) -> u32 {
    let of_element = if over <= NARROW_MAX {
        NARROW_PLACES
    } else {
        WIDE_PLACES
    };
    places.div_ceil(of_element).saturating_add(1)
}

/// Where all are zero, all are equal: somebody has to answer.
fn weights(backends: &[Backend]) -> Vec<u32> {
    let none = backends.iter().all(|backend| backend.weight == 0);
    let weight = |backend: &Backend| if none { 1 } else { backend.weight.into() };
    backends.iter().map(weight).collect()
}

/// By place, which backend has it.
fn places(addrs: &[IpAddr], weights: &[u32]) -> Vec<u16> {
    let fits = PLACES.iter().find(|(most, _)| addrs.len() <= *most);
    let (_, len) = *fits.unwrap_or(&PLACES[PLACES.len() - 1]);
    struct Taker {
        at: u32,
        skip: u32,
        credit: u32,
    }
    let mut same = 0;
    let mut takers: Vec<Taker> = Vec::with_capacity(addrs.len());
    for (i, addr) in addrs.iter().enumerate() {
        // One address with several ports: each has its own order.
        same = if i > 0 && addrs[i - 1] == *addr {
            same + 1
        } else {
            0
        };
        takers.push(Taker {
            at: (hash(*addr, same, 0x6f66_6673) % u64::from(len)) as u32,
            skip: (hash(*addr, same, 0x736b_6970) % u64::from(len - 1)) as u32 + 1,
            credit: 0,
        });
    }
    let heaviest = weights.iter().copied().max().unwrap_or(1).max(1);
    const FREE: u16 = u16::MAX;
    let mut places = vec![FREE; len as usize];
    let mut left = len;
    while left > 0 {
        for (i, taker) in takers.iter_mut().enumerate() {
            taker.credit += weights[i];
            if taker.credit < heaviest {
                continue;
            }
            taker.credit -= heaviest;
            // The length is prime, so every order visits every place.
            while places[taker.at as usize] != FREE {
                taker.at = step(taker.at, taker.skip, len);
            }
            places[taker.at as usize] = i as u16;
            taker.at = step(taker.at, taker.skip, len);
            left -= 1;
            if left == 0 {
                break;
            }
        }
    }
    places
}

fn step(at: u32, skip: u32, len: u32) -> u32 {
    let next = at + skip;
    if next < len { next } else { next - len }
}

fn words(places: &[u16], over: u32) -> Words {
    let len = places.len() as u32;
    let (of_element, bits) = if over <= NARROW_MAX {
        (NARROW_PLACES, 8)
    } else {
        (WIDE_PLACES, 16)
    };
    let element = |places: &[u16]| {
        let mut all: u64 = 0;
        for (i, place) in places.iter().enumerate() {
            all |= (u64::from(*place) + 1) << (i * bits);
        }
        [all as u32, (all >> 32) as u32]
    };
    let header = std::iter::once([len, over]);
    header
        .chain(places.chunks(of_element as usize).map(element))
        .collect()
}

/// FNV-1a over the address, then mixed so that addresses side by side lie far apart.
fn hash(addr: IpAddr, same: u32, seed: u32) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut add = |byte: &u8| hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    match addr {
        IpAddr::V4(addr) => addr.octets().iter().for_each(&mut add),
        IpAddr::V6(addr) => addr.octets().iter().for_each(&mut add),
    }
    same.to_be_bytes().iter().for_each(&mut add);
    seed.to_be_bytes().iter().for_each(&mut add);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ hash >> 33
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backends(hosts: std::ops::Range<u32>) -> Vec<Backend> {
        let backend = |host: u32| Backend {
            addr: IpAddr::from(0x0af4_0000_u32.wrapping_add(host).to_be_bytes()),
            port: 80,
            local: false,
            on_node: false,
            weight: 1,
        };
        hosts.map(backend).collect()
    }

    fn table(backends: &[Backend]) -> Vec<u16> {
        let addrs: Vec<IpAddr> = backends.iter().map(|backend| backend.addr).collect();
        places(&addrs, &weights(backends))
    }

    fn shares(places: &[u16], backends: usize) -> Vec<usize> {
        let mut shares = vec![0; backends];
        for place in places {
            shares[usize::from(*place)] += 1;
        }
        shares
    }

    #[test]
    fn every_backend_gets_its_share() {
        for count in [2, 3, 10, 100, 300, 700] {
            let backends = backends(0..count);
            let places = table(&backends);
            let shares = shares(&places, backends.len());
            let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
            // The last turn may end after any of them.
            assert!(most - least <= 1, "{count}: {least} to {most}");
        }
    }

    #[test]
    fn weights_are_kept() {
        let mut backends = backends(0..4);
        for (backend, weight) in backends.iter_mut().zip([0, 1, 2, 5]) {
            backend.weight = weight;
        }
        let places = table(&backends);
        let shares = shares(&places, 4);
        assert_eq!(shares[0], 0);
        for (share, weight) in shares.iter().zip([0.0, 1.0, 2.0, 5.0]) {
            let of_all = *share as f64 / places.len() as f64;
            assert!((of_all - weight / 8.0).abs() < 0.01, "{shares:?}");
        }
        backends.iter_mut().for_each(|backend| backend.weight = 0);
        assert_eq!(
            table(&backends),
            table(&self::backends(0..4)),
            "somebody has to"
        );
    }

    /// A hash keeps its backend where that stays: of the places whose backend stays, few move.
    #[test]
    fn one_backend_that_leaves_or_comes_disturbs_few_others() {
        for count in [3, 10, 50, 200] {
            let all = backends(0..count);
            for gone in [0, count as usize / 2, count as usize - 1] {
                let mut rest = all.clone();
                rest.remove(gone);
                let (before, after) = (table(&all), table(&rest));
                assert_eq!(before.len(), after.len());
                let moved = before.iter().zip(&after).filter(|(before, after)| {
                    let before = usize::from(**before);
                    before != gone && all[before] != rest[usize::from(**after)]
                });
                let moved = moved.count() as f64 / before.len() as f64;
                assert!(moved < 0.03, "{count} backends, {gone} leaves: {moved}");
            }
        }
    }

    #[test]
    fn ten_backends_take_less_than_two_thousand_bytes() {
        let spread = spread(&backends(0..10), Choice::Maglev).unwrap();
        let bytes = (spread.len() + 10 + 1) * 8;
        assert_eq!(spread[0], [1_601, 10]);
        assert!(bytes < 2_000, "{bytes}");
    }

    #[test]
    fn lengths_are_prime_and_leave_a_hundred_places_to_each() {
        for (most, places) in PLACES {
            let divisors = (2..).take_while(|d| d * d <= places);
            assert!(divisors.into_iter().all(|d| places % d != 0), "{places}");
            if most <= 1_024 {
                assert!(places as usize >= most * 100);
            }
        }
    }

    #[test]
    fn there_is_a_table_only_where_it_is_needed() {
        let ten = backends(0..10);
        let mut weighted = ten.clone();
        weighted[3].weight = 2;
        for (backends, choice, has) in [
            (&ten, Choice::Random, false),
            (&ten, Choice::LeastConnection, false),
            (&ten, Choice::Maglev, true),
            (&weighted, Choice::Random, true),
            (&weighted, Choice::LeastConnection, true),
        ] {
            assert_eq!(spread(backends, choice).is_some(), has, "{choice:?}");
        }
        assert!(spread(&weighted[..1], Choice::Maglev).is_none());
    }

    #[test]
    fn places_are_found_where_they_were_put() {
        for count in [2_u32, 255, 256, 1000] {
            let backends = backends(0..count);
            let places = table(&backends);
            let words = words(&places, count);
            assert_eq!(words.len() as u32, elements(places.len() as u32, count));
            let bytes: Vec<u8> = words[1..]
                .iter()
                .flatten()
                .flat_map(|w| w.to_le_bytes())
                .collect();
            for (i, place) in places.iter().enumerate() {
                let found = if count <= NARROW_MAX {
                    u16::from(bytes[i])
                } else {
                    u16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]])
                };
                assert_eq!(found, place + 1);
            }
            assert!(words.iter().all(|words| *words != [0, 0]));
        }
    }
}
