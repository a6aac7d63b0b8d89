//! What policies let pass a moment ago. Written and read by the programs, each CPU for itself; of no use to anybody else.
//!
//! What is remembered was found under a generation, and is of no use under another one: a change of policies is
//! followed by the next packet.

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Table of conversations that passed at a link: array of one copy for each CPU, a hash of the key fields to
/// [`PolicyPassed`]; the last one that passed has the place.
pub const NAME: &str = "POLICY_PASSED";
/// Number of elements: a power of two.
pub const CAPACITY: u32 = 1024;

/// Table of what sets were asked and let pass: array of one copy for each CPU, a hash of the key fields to
/// [`PolicyAnswer`]; the last one has the place.
pub const ANSWERS: &str = "POLICY_ANSWERS";
/// Number of elements: a power of two.
pub const ANSWERS_CAPACITY: u32 = 512;

/// A conversation is looked up again after that long at most, in milliseconds of 2^20 nanoseconds: that keeps it from being
/// the least recently used one.
pub const LASTS_MS: u32 = 16;

/// A conversation that passed at a link; all of it is key. All zeros: none. Addresses are in words as they lie in memory,
/// zeros behind IPv4's.
#[repr(C)]
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct PolicyPassed {
    /// Whose packets leave at the link.
    pub pod: [u32; 4],
    /// The other end.
    pub remote: [u32; 4],
    /// Their ports.
    pub ports: u32,
    /// IP protocol number, with [`V6`] for IPv6.
    pub what: u32,
    /// Index of the host's side of the pod's link.
    pub link: u32,
    /// The generation of policies.
    pub generation: u32,
    /// When it passed: `CLOCK_MONOTONIC` in units of [`LASTS_MS`], wrapping.
    pub moment: u32,
}

/// The bit of [`PolicyPassed::what`] that IPv6 has.
pub const V6: u32 = 1 << 31;

/// What a set was asked about and lets pass; all of it is key. All zeros: none.
#[repr(C, align(4))]
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct PolicyAnswer {
    /// The other end's address, in words as they lie in memory, zeros behind IPv4's.
    pub remote: [u32; 4],
    /// The set.
    pub set: u32,
    /// The profile of identities of which the set says nothing.
    pub usual: u32,
    /// IP protocol number.
    pub proto: u8,
    /// Family of the address, see [`crate::family`].
    pub family: u8,
    /// The server's port.
    pub port: U16,
    /// The generation of policies.
    pub generation: u32,
}

/// The place of a conversation at a link; packets in both directions have the same one.
#[inline(always)]
#[must_use]
pub fn place([one, other]: &[[u32; 4]; 2], ports: u32, link: u32) -> u32 {
    let ports = ports ^ ports.rotate_left(16);
    let mixed = folded(one).wrapping_add(folded(other)) ^ ports;
    let mixed = mixed.wrapping_mul(0x9e37_79b1) ^ link;
    mixed.wrapping_mul(0x85eb_ca6b) >> (32 - CAPACITY.trailing_zeros())
}

impl PolicyAnswer {
    /// Its place.
    #[inline(always)]
    #[must_use]
    pub fn place(&self) -> u32 {
        let what = u32::from(self.port.get()) << 8 | u32::from(self.proto);
        let mixed =
            (folded(&self.remote) ^ what.rotate_left(8)).wrapping_mul(0x9e37_79b1) ^ self.set;
        mixed.wrapping_mul(0x85eb_ca6b) >> (32 - ANSWERS_CAPACITY.trailing_zeros())
    }
}

#[inline(always)]
fn folded([a, b, c, d]: &[u32; 4]) -> u32 {
    a ^ b.rotate_left(8) ^ c.rotate_left(16) ^ d.rotate_left(24)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(last: u32) -> [u32; 4] {
        [u32::from_be(0x0af4_0100 | last), 0, 0, 0]
    }

    #[test]
    fn conversations_spread_over_all_places() {
        let mut used = [0_u32; CAPACITY as usize];
        for link in 0..8 {
            for port in 0..1024_u32 {
                let ports = u32::from_be(0x1f90 << 16 | (32_768 + port));
                let at = place(&[pod(2), pod(3 + link)], ports, 7 + link);
                let back = place(&[pod(3 + link), pod(2)], ports.rotate_left(16), 7 + link);
                assert_eq!(at, back);
                used[at as usize] += 1;
            }
        }
        let most = used.iter().max().copied().unwrap_or_default();
        assert!(used.iter().all(|&count| count > 0) && most < 32, "{used:?}");
    }

    #[test]
    fn questions_spread_over_all_places() {
        let mut used = [0_u32; ANSWERS_CAPACITY as usize];
        for set in 16..32 {
            for last in 0..256 {
                let answer = PolicyAnswer {
                    remote: pod(last),
                    set,
                    proto: crate::protocol::TCP,
                    port: 80.into(),
                    ..PolicyAnswer::default()
                };
                used[answer.place() as usize] += 1;
            }
        }
        let most = used.iter().max().copied().unwrap_or_default();
        assert!(used.iter().all(|&count| count > 0) && most < 40, "{used:?}");
    }
}
