//! What a start takes for a moment, and nobody holds once it is done: lists of everything, decoded. The allocator keeps
//! such memory for who asks next, and a process that is idle then never asks.
#![allow(
    unsafe_code,
    reason = "the allocator's own interface is C, and its crate has no safe names for this"
)]

use std::ffi::{c_int, c_long};

unsafe extern "C" {
    /// mimalloc: frees what is cached, for the other threads too with `force`.
    fn mi_collect(force: bool);
    /// mimalloc: sets an option.
    fn mi_option_set(option: c_int, value: c_long);
}

/// `mi_option_purge_delay`: milliseconds for which memory stays that nobody holds.
const PURGE_DELAY: c_int = 15;

/// Gives memory that nobody holds back to the kernel, which takes some milliseconds.
pub(crate) fn release() {
    // SAFETY: the allocator of this process may be asked at any time and by any thread.
    unsafe { mi_collect(true) };
}

/// Has memory given back as soon as nobody holds it: for a process that takes little, and seldom in a hurry.
pub(crate) fn release_at_once() {
    // SAFETY: as above; the option is a number among the allocator's own.
    unsafe { mi_option_set(PURGE_DELAY, 0) };
}

#[cfg(test)]
mod tests {
    use super::*;

    unsafe extern "C" {
        fn mi_option_get(option: c_int) -> c_long;
    }

    /// The number is that of the option still: no other one is a second by default.
    #[test]
    fn the_option_is_the_one_meant() {
        // SAFETY: as for setting it.
        assert_eq!(unsafe { mi_option_get(PURGE_DELAY) }, 1000);
        release_at_once();
        // SAFETY: as for setting it.
        assert_eq!(unsafe { mi_option_get(PURGE_DELAY) }, 0);
    }
}
