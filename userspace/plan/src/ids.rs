//! Identifiers that are given out anew as late as possible.

use std::collections::{BTreeSet, VecDeque};

/// Gives out numbers from one to a limit: first those never used, then the one that was free the longest, so
/// that what elsewhere still names a number (a flow, an affinity) has the most time to forget it.
#[derive(Clone, Debug)]
pub(crate) struct Ids {
    fresh: u32,
    limit: u32,
    free: VecDeque<u32>,
}

impl Ids {
    /// Numbers below `capacity`, without those `used`. Numbers up to `last_named` count as used before.
    pub(crate) fn new(capacity: u32, used: &BTreeSet<u32>, last_named: u32) -> Self {
        let last = used.last().copied().unwrap_or(0).max(last_named);
        let fresh = (last + 1).clamp(1, capacity.max(1));
        Ids {
            fresh,
            limit: capacity,
            free: (1..fresh).filter(|id| !used.contains(id)).collect(),
        }
    }

    /// How many can be taken.
    pub(crate) fn available(&self) -> usize {
        self.limit.saturating_sub(self.fresh) as usize + self.free.len()
    }

    /// A number nobody has.
    pub(crate) fn take(&mut self) -> Option<u32> {
        if self.fresh < self.limit {
            self.fresh += 1;
            return Some(self.fresh - 1);
        }
        self.free.pop_front()
    }

    /// Gives a number back.
    pub(crate) fn give_back(&mut self, id: u32) {
        self.free.push_back(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_free_number_comes_last() {
        let mut ids = Ids::new(6, &BTreeSet::from([2]), 3);
        assert_eq!(ids.available(), 4);
        assert_eq!([ids.take(), ids.take()], [Some(4), Some(5)]);
        ids.give_back(5);
        let rest: Vec<_> = std::iter::from_fn(|| ids.take()).collect();
        assert_eq!(rest, [1, 3, 5]);
    }

    #[test]
    fn zero_is_never_given_out() {
        let mut none = Ids::new(1, &BTreeSet::new(), 0);
        assert_eq!((none.available(), none.take()), (0, None));
        assert_eq!(Ids::new(0, &BTreeSet::new(), 9).take(), None);
    }
}
