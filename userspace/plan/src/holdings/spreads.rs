//! The tables behind rings ([`abi::spreads`]): each once, however many rings it serves.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::Retired;
use crate::maglev::{Words, elements};
use crate::planner::Epoch;
use crate::ranges::Ranges;
use crate::{Step, Tables};

/// Tables as the kernel holds them.
#[derive(Clone, Debug)]
pub(super) struct Spreads {
    space: Ranges,
    by_words: BTreeMap<Words, u32>,
    by_offset: BTreeMap<u32, Held>,
}

#[derive(Clone, Debug)]
struct Held {
    words: Words,
    /// How many rings name it.
    rings: usize,
    /// Since when none does.
    retired: Option<Epoch>,
}

impl Spreads {
    pub(super) fn new(capacity: u32) -> Self {
        let mut space = Ranges::new(capacity);
        // An element that names it must not be empty.
        space.take_at(0, 1);
        Spreads {
            space,
            by_words: BTreeMap::new(),
            by_offset: BTreeMap::new(),
        }
    }

    /// Registers what the kernel holds at `offset` for a ring of `ring_len`, unless it is known already. False when
    /// that is no table.
    pub(super) fn restore(&mut self, tables: &Tables, offset: u32, ring_len: u32) -> bool {
        if let Some(held) = self.by_offset.get(&offset) {
            return held.words[0][1] == ring_len;
        }
        let Some([places, over]) = tables.spreads.get(&offset).copied() else {
            return false;
        };
        let len = elements(places, over);
        if over != ring_len || places == 0 || !self.space.take_at(offset, len) {
            return false;
        }
        let held = (offset..offset + len).map(|at| tables.spreads.get(&at).copied());
        let words: Words = held.map(Option::unwrap_or_default).collect();
        self.by_words.entry(words.clone()).or_insert(offset);
        let held = Held {
            words,
            rings: 0,
            retired: None,
        };
        self.by_offset.insert(offset, held);
        true
    }

    /// Retires what the kernel holds for no ring.
    pub(super) fn retire_strays(
        &mut self,
        tables: &Tables,
        retired: &mut VecDeque<(Epoch, Retired)>,
    ) {
        let unused: Vec<u32> = {
            let held = self.by_offset.iter();
            held.filter(|(_, held)| held.rings == 0)
                .map(|(at, _)| *at)
                .collect()
        };
        for offset in unused {
            self.retire(offset, 0, retired);
        }
        let mut stray: Vec<(u32, Vec<[u32; 2]>)> = Vec::new();
        for (at, words) in &tables.spreads {
            if self.space.take_at(*at, 1) {
                match stray.last_mut() {
                    Some((offset, run)) if *offset + run.len() as u32 == *at => run.push(*words),
                    Some(_) | None => stray.push((*at, vec![*words])),
                }
            }
        }
        for (offset, words) in stray {
            let held = Held {
                words: words.into(),
                rings: 0,
                retired: None,
            };
            self.by_offset.insert(offset, held);
            self.retire(offset, 0, retired);
        }
    }

    /// What the table at `offset` holds.
    pub(super) fn words(&self, offset: u32) -> Option<&Words> {
        self.by_offset.get(&offset).map(|held| &held.words)
    }

    /// Whether the table is there or could be.
    pub(super) fn has_room_for(&self, words: &Words) -> bool {
        self.by_words.contains_key(words) || self.space.fits(words.len() as u32)
    }

    /// Notes that a ring names the table.
    pub(super) fn lead(&mut self, offset: u32) {
        if let Some(held) = self.by_offset.get_mut(&offset) {
            held.rings += 1;
            held.retired = None;
        }
    }

    /// The place of a table that a ring is to name, written if it is nowhere yet; `None` without room.
    pub(super) fn put(&mut self, words: &Words, steps: &mut Vec<Step>) -> Option<u32> {
        let offset = match self.by_words.get(words) {
            Some(offset) => *offset,
            None => {
                let offset = self.space.take(words.len() as u32)?;
                steps.push(Step::PutSpread {
                    offset,
                    words: Arc::clone(words),
                });
                self.by_words.insert(Arc::clone(words), offset);
                let held = Held {
                    words: Arc::clone(words),
                    rings: 0,
                    retired: None,
                };
                self.by_offset.insert(offset, held);
                offset
            }
        };
        self.lead(offset);
        Some(offset)
    }

    /// Notes that a ring names the table no longer.
    pub(super) fn leave(
        &mut self,
        offset: u32,
        epoch: Epoch,
        retired: &mut VecDeque<(Epoch, Retired)>,
    ) {
        if let Some(held) = self.by_offset.get_mut(&offset) {
            held.rings = held.rings.saturating_sub(1);
            if held.rings == 0 {
                self.retire(offset, epoch, retired);
            }
        }
    }

    /// Forgets a table that was retired in the epoch `of`, unless a ring names it again.
    pub(super) fn forget(&mut self, offset: u32, of: Epoch) -> Option<Step> {
        let held = self.by_offset.get(&offset)?;
        if held.retired != Some(of) {
            return None;
        }
        let words = self.by_offset.remove(&offset)?.words;
        if self.by_words.get(&words) == Some(&offset) {
            self.by_words.remove(&words);
        }
        let len = words.len() as u32;
        self.space.give_back(offset, len);
        Some(Step::ClearSpread { offset, len })
    }

    fn retire(&mut self, offset: u32, epoch: Epoch, retired: &mut VecDeque<(Epoch, Retired)>) {
        if let Some(held) = self.by_offset.get_mut(&offset) {
            held.retired = Some(epoch);
            retired.push_back((epoch, Retired::Spread { offset }));
        }
    }
}
