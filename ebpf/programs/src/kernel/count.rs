//! Counting.

use abi::Counter;

use super::maps::COUNTERS;

/// Counts a packet (or, with no bytes, a call of a socket hook).
#[inline(always)]
pub(crate) fn count(counter: Counter, bytes: u32) {
    count_number(counter as u32, bytes);
}

/// As [`count`], for a counter's number.
#[inline(always)]
pub(crate) fn count_number(counter: u32, bytes: u32) {
    if let Some(value) = COUNTERS.get_ptr_mut(counter) {
        // SAFETY: the pointer comes from the kernel, and its element, one for each CPU, stays mapped until the
        // program ends. No reference to it is made: a socket hook may be preempted by another here, at the price
        // of a lost count.
        unsafe {
            (*value).packets += 1;
            (*value).bytes += u64::from(bytes);
        }
    }
}
