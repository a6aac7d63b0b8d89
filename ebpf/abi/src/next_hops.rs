//! What the host's routing table said a moment ago of the way of pods' packets off this node. Written and read by the
//! programs, each CPU for itself; of no use to anybody else.
//!
//! What is remembered holds for [`LASTS_MS`] after it was asked for: a route that changes is followed that late by
//! packets that go past the stack, where the stack would follow at once. Link addresses are not remembered but looked up
//! with each packet.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Table of next hops: array of one copy for each CPU, a hash of the key fields to [`NextHop`]; the last one asked for
/// has the place.
pub const NAME: &str = "NEXT_HOPS";
/// Number of elements: a power of two.
pub const CAPACITY: u32 = 256;

/// How long an answer of the routing table is used, in milliseconds of 2^20 nanoseconds.
pub const LASTS_MS: u32 = 100;

/// An answer of the routing table. All zeros: none. Addresses are in words as they lie in memory, zeros behind IPv4's.
#[repr(C)]
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct NextHop {
    /// Key: the pod's address, known to be that of the link; zeros where what is known is that packets from `daddr` come
    /// by the device where they are answered.
    pub saddr: [u32; 4],
    /// Key: where its packets go, known to be no pod of this node that is reached straight.
    pub daddr: [u32; 4],
    /// Key: index of the host's side of the pod's link, or of the device, with [`V6`] for IPv6.
    pub from: u32,
    /// Index of the device where they leave.
    pub ifindex: u32,
    /// The address that they are sent to on its link.
    pub next: [u32; 4],
    /// Address family of `next`, in the kernel's numbers.
    pub next_family: u16,
    /// The longest packet that the route takes, in octets from the network header on.
    pub mtu: u16,
    /// When the routing table was asked: `CLOCK_MONOTONIC_COARSE`, in milliseconds of 2^20 nanoseconds, wrapping.
    pub asked_ms: u32,
}

/// The bit of [`NextHop::from`] that IPv6 has.
pub const V6: u32 = 1 << 31;

/// The place of a key.
#[inline(always)]
#[must_use]
pub fn place(saddr: &[u32; 4], daddr: &[u32; 4], from: u32) -> u32 {
    let [a, b, c, d] = *daddr;
    let [.., last] = *saddr;
    let mixed = (a ^ b.rotate_left(8) ^ c.rotate_left(16) ^ d.rotate_left(24))
        .wrapping_add(last ^ saddr[0].rotate_left(16))
        ^ from;
    mixed.wrapping_mul(0x9e37_79b1) >> (32 - CAPACITY.trailing_zeros())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_spread_over_all_places() {
        let mut used = [0_u32; CAPACITY as usize];
        for pod in 1..=8_u8 {
            for client in 0..=255_u8 {
                let saddr = [u32::from_ne_bytes([10, 244, 1, pod]), 0, 0, 0];
                let daddr = [u32::from_ne_bytes([192, 0, 2, client]), 0, 0, 0];
                used[place(&saddr, &daddr, u32::from(pod) + 2) as usize] += 1;
            }
        }
        let most = used.iter().max().copied().unwrap_or_default();
        assert!(used.iter().all(|&count| count > 0) && most < 32, "{used:?}");
    }
}
