//! Values that are lent for as long as a decision takes, while the table that they are of goes on changing.

use std::cell::{Cell, OnceCell};

/// As many entries as one packet looks at, and more.
const SLOTS: usize = 64;

/// Copies of entries.
#[derive(Debug)]
pub(crate) struct Slots<T> {
    values: Box<[OnceCell<T>]>,
    used: Cell<usize>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Slots {
            values: (0..SLOTS).map(|_| OnceCell::new()).collect(),
            used: Cell::new(0),
        }
    }
}

impl<T> Slots<T> {
    /// Lends a value; `None` where all are lent already.
    pub(crate) fn lend(&self, value: T) -> Option<&T> {
        let at = self.used.get();
        self.used.set(at + 1);
        Some(self.values.get(at)?.get_or_init(|| value))
    }

    /// Takes back what was lent.
    pub(crate) fn clear(&mut self) {
        let used = self.used.replace(0).min(SLOTS);
        for value in &mut self.values[..used] {
            value.take();
        }
    }
}
