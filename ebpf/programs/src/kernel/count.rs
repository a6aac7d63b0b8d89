//! Counting.

use abi::Counter;

use super::maps::COUNTERS;

/// Counts a packet (or, with no bytes, a call of a socket hook).
#[inline(always)]
pub(crate) fn count(counter: Counter, bytes: u32) {
    if let Some(value) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: the map has one element for each CPU; nothing else on this CPU holds a reference to it, and
        // the kernel keeps it alive while the program runs.
        let value = unsafe { &mut *value };
        value.packets += 1;
        value.bytes += u64::from(bytes);
    }
}
