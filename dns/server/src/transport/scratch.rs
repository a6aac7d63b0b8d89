//! Room of each thread for what is gone before anybody waits: an answer before its length is known, octets as they are
//! read.

use std::cell::RefCell;

/// The longest message of a stream.
const MESSAGE_MAX: usize = u16::MAX as usize;

thread_local! {
    static ROOM: RefCell<Vec<u8>> = RefCell::new(vec![0; MESSAGE_MAX]);
}

/// Does something with the room, which holds whatever was last put there. One at a time: what is done must not come
/// here again.
pub(super) fn with<T>(work: impl FnOnce(&mut [u8]) -> T) -> T {
    ROOM.with_borrow_mut(|room| work(room))
}
