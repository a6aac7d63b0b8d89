//! Free ranges of the rings table.

use std::collections::{BTreeMap, BTreeSet};

/// Gives out ranges of a space of slots and takes them back: best fit, neighbours merged.
#[derive(Clone, Debug)]
pub(crate) struct Ranges {
    /// Offset to length of every free range; no two touch.
    by_offset: BTreeMap<u32, u32>,
    /// The same as (length, offset).
    by_len: BTreeSet<(u32, u32)>,
}

impl Ranges {
    /// All of `capacity` slots free.
    pub(crate) fn new(capacity: u32) -> Self {
        let mut ranges = Ranges {
            by_offset: BTreeMap::new(),
            by_len: BTreeSet::new(),
        };
        ranges.insert(0, capacity);
        ranges
    }

    /// Takes the lowest of the smallest ranges that hold `len` slots; `None` when no range does.
    pub(crate) fn take(&mut self, len: u32) -> Option<u32> {
        let &(free, offset) = self.by_len.range((len, 0)..).next()?;
        self.remove(offset, free);
        self.insert(offset + len, free - len);
        Some(offset)
    }

    /// Whether a range holds `len` slots.
    pub(crate) fn fits(&self, len: u32) -> bool {
        self.by_len.range((len, 0)..).next().is_some()
    }

    /// Takes exactly `len` slots from `offset` on; false, and nothing taken, when one of them is not free.
    pub(crate) fn take_at(&mut self, offset: u32, len: u32) -> bool {
        let Some((&start, &free)) = self.by_offset.range(..=offset).next_back() else {
            return false;
        };
        let (end, free_end) = (u64::from(offset) + u64::from(len), u64::from(start + free));
        if end > free_end {
            return false;
        }
        self.remove(start, free);
        self.insert(start, offset - start);
        self.insert(offset + len, start + free - offset - len);
        true
    }

    /// Gives back what was taken.
    pub(crate) fn give_back(&mut self, offset: u32, len: u32) {
        let (mut start, mut end) = (offset, offset + len);
        if let Some((&before, &before_len)) = self.by_offset.range(..offset).next_back()
            && before + before_len == offset
        {
            self.remove(before, before_len);
            start = before;
        }
        if let Some(&after_len) = self.by_offset.get(&end) {
            self.remove(end, after_len);
            end += after_len;
        }
        self.insert(start, end - start);
    }

    fn insert(&mut self, offset: u32, len: u32) {
        if len > 0 {
            self.by_offset.insert(offset, len);
            self.by_len.insert((len, offset));
        }
    }

    fn remove(&mut self, offset: u32, len: u32) {
        self.by_offset.remove(&offset);
        self.by_len.remove(&(len, offset));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ranges_never_overlap_and_all_come_back(
            turns in prop::collection::vec((any::<bool>(), 1..9u32, 0..64u32), 1..60)
        ) {
            let mut ranges = Ranges::new(64);
            let mut taken: Vec<(u32, u32)> = Vec::new();
            for (take, len, at) in turns {
                if take {
                    let got = if at % 3 == 0 {
                        ranges.take_at(at, len).then_some(at)
                    } else {
                        ranges.take(len)
                    };
                    if let Some(offset) = got {
                        prop_assert!(offset + len <= 64);
                        prop_assert!(taken.iter().all(|(o, l)| o + l <= offset || offset + len <= *o));
                        taken.push((offset, len));
                    }
                } else if !taken.is_empty() {
                    let (offset, len) = taken.swap_remove(at as usize % taken.len());
                    ranges.give_back(offset, len);
                }
                let free: u32 = ranges.by_offset.values().sum();
                prop_assert_eq!(free + taken.iter().map(|t| t.1).sum::<u32>(), 64);
                prop_assert_eq!(ranges.by_offset.len(), ranges.by_len.len());
            }
            for (offset, len) in taken {
                ranges.give_back(offset, len);
            }
            prop_assert_eq!(ranges.by_offset, BTreeMap::from([(0, 64)]));
        }
    }
}
