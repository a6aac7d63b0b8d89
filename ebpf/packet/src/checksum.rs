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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn in_full(words: &[u32]) -> u16 {
        let mut sum = 0u32;
        for word in words {
            for half in [word >> 16, word & 0xffff] {
                sum += half;
                sum = (sum & 0xffff) + (sum >> 16);
            }
        }
        !(sum as u16)
    }

    /// Zero has two forms in one's complement.
    fn same(a: u16, b: u16) -> bool {
        a == b || (a == 0 && b == 0xffff) || (a == 0xffff && b == 0)
    }

    proptest! {
        #[test]
        fn an_update_is_what_computing_it_again_gives(
            words in proptest::collection::vec(any::<u32>(), 2..40),
            replaced in any::<[u32; 2]>(),
        ) {
            let check = in_full(&words);
            let mut new = words.clone();
            new[..2].copy_from_slice(&replaced);
            let change = difference(sum(&[words[0], words[1]]), sum(&replaced));
            prop_assert!(same(updated(check, change), in_full(&new)));
            prop_assert!(same(updated(check, kernel_difference(change)), in_full(&new)));
        }

        #[test]
        fn a_fold_keeps_the_sum(value in any::<u64>()) {
            prop_assert_eq!(u64::from(fold(value)) % 0xffff, value % 0xffff);
        }

        #[test]
        fn udp_never_gains_or_loses_its_checksum(check in any::<u16>(), change in any::<u32>()) {
            prop_assert_eq!(updated_udp(check, change.into()) == 0, check == 0);
        }
    }
}
