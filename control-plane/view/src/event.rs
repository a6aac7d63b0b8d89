//! What a watch says, and what a list that starts anew makes of things no longer mentioned.

use std::collections::BTreeSet;

/// One turn of a list and watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<T> {
    /// A list begins, first or again: until [`Event::Synced`] every object that exists is applied once.
    Restarted,
    /// The object is so now.
    Applied(T),
    /// The object is gone.
    Deleted {
        /// Empty for objects of the whole cluster.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// The list is complete: what it did not mention is gone. Changes follow.
    Synced,
}

/// Follows lists: which of the objects known before has the running list not mentioned yet?
#[derive(Debug)]
pub struct Listing<K> {
    unmentioned: BTreeSet<K>,
    complete_once: bool,
}

impl<K> Default for Listing<K> {
    fn default() -> Self {
        Listing {
            unmentioned: BTreeSet::new(),
            complete_once: false,
        }
    }
}

impl<K: Ord> Listing<K> {
    /// A list begins while `known` exist.
    pub fn restart(&mut self, known: impl Iterator<Item = K>) {
        self.unmentioned = known.collect();
    }

    /// The list, or a change, speaks of `key`.
    pub fn mention(&mut self, key: &K) {
        self.unmentioned.remove(key);
    }

    /// The list is complete; gives what it left out.
    pub fn finish(&mut self) -> BTreeSet<K> {
        self.complete_once = true;
        std::mem::take(&mut self.unmentioned)
    }

    /// Whether a list was ever complete.
    #[must_use]
    pub fn complete_once(&self) -> bool {
        self.complete_once
    }
}
