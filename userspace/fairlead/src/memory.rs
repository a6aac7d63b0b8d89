//! What a start takes for a moment, and nobody holds once it is done: lists of everything, decoded. The allocator keeps
//! such memory for who asks next, and a process that is idle then never asks.
#![allow(
    unsafe_code,
    reason = "the allocator's own interface is C, and its crate has no safe name for this"
)]

unsafe extern "C" {
    /// mimalloc: frees what is cached, for the other threads too with `force`.
    fn mi_collect(force: bool);
}

/// Gives memory that nobody holds back to the kernel, which takes some milliseconds.
pub(crate) fn release() {
    // SAFETY: the allocator of this process may be asked at any time and by any thread.
    unsafe { mi_collect(true) };
}
