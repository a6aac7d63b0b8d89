//! Internet checksums (RFC 1071) and their incremental update (RFC 1624, equation 3: `HC' = ~(~HC + ~m + m')`).
//!
//! Sums are of 16- or 32-bit words as they lie in memory: one's complement addition does not care about byte
//! order (RFC 1071 section 2B), so nothing is ever swapped.

/// Folds a sum to sixteen bits, carries added back in.
#[inline(always)]
#[must_use]
pub const fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff); // at most 33 bits
    let sum = (sum >> 16) + (sum & 0xffff); // at most 18 bits
    let sum = (sum >> 16) + (sum & 0xffff); // at most 17 bits
    let sum = (sum >> 16) + (sum & 0xffff);
    sum as u16
}

/// What a checksum changes by when words that sum up to `old` become words that sum up to `new`. Each sum may
/// consist of up to 2^16 words.
#[inline(always)]
#[must_use]
pub const fn difference(old: u64, new: u64) -> u64 {
    // One's complement of the folded sum equals the sum of the words' complements.
    new + (!fold(old)) as u64
}

/// The difference as the kernel's `bpf_l3_csum_replace` and `bpf_l4_csum_replace` take it: 32 bits.
#[inline(always)]
#[must_use]
pub const fn kernel_difference(difference: u64) -> u64 {
    fold(difference) as u64
}

/// A checksum field after the words that it covers changed by `difference`.
#[inline(always)]
#[must_use]
pub const fn updated(check: u16, difference: u64) -> u16 {
    !fold((!check) as u64 + difference)
}

/// As [`updated`], for UDP (RFC 768): zero says that there is no checksum and stays zero, and a checksum that
/// comes out as zero is written as all ones.
#[inline(always)]
#[must_use]
pub const fn updated_udp(check: u16, difference: u64) -> u16 {
    if check == 0 {
        return 0;
    }
    match updated(check, difference) {
        0 => 0xffff,
        check => check,
    }
}

/// The checksum of words that sum up to `sum`.
#[inline(always)]
#[must_use]
pub const fn finished(sum: u64) -> u16 {
    !fold(sum)
}

/// Sum of the words of a header.
#[inline(always)]
#[must_use]
pub fn sum<const N: usize>(words: &[u32; N]) -> u64 {
    let mut sum = 0;
    let mut i = 0;
    while i < N {
        sum += u64::from(words[i]);
        i += 1;
    }
    sum
}
