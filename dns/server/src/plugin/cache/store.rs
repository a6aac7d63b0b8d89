//! Where kept answers lie: shards of a hash table, bounded in number and in octets.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use std::time::Instant;

use std::hash::BuildHasher as _;
use std::hash::RandomState;

use hickory_proto::op::Message;

const SHARDS: usize = 64;

/// Octets of all answers of a store, as they would be written, at most.
const OCTETS_MAX: usize = 64 << 20;

/// What an answer is kept under.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) name: Box<[u8]>,
    pub(super) kind: u16,
    pub(super) class: u16,
    pub(super) dnssec_ok: bool,
    pub(super) checking_disabled: bool,
}

/// A kept answer.
pub(super) struct Entry {
    pub(super) message: Message,
    stored: Instant,
    pub(super) lifetime: Duration,
    octets: usize,
    /// Being fetched again.
    pub(super) refreshing: AtomicBool,
    use_of: Mutex<Use>,
}

#[derive(Default)]
struct Use {
    /// Hits that followed one another closely, and the last of them.
    hits: u32,
    last: Option<Instant>,
    failed: Option<Instant>,
}

impl Entry {
    pub(super) fn new(mut message: Message, lifetime: Duration) -> Self {
        message.edns = None;
        message.signature = None;
        let octets = message
            .to_vec()
            .map_or(usize::from(u16::MAX), |octets| octets.len());
        Self {
            message,
            stored: Instant::now(),
            lifetime,
            octets: octets + 256,
            refreshing: AtomicBool::new(false),
            use_of: Mutex::default(),
        }
    }

    pub(super) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.stored)
    }

    pub(super) fn left(&self, now: Instant) -> Duration {
        self.lifetime.saturating_sub(self.age(now))
    }

    pub(super) fn fresh(&self, now: Instant) -> bool {
        self.age(now) < self.lifetime
    }

    pub(super) fn expired_for(&self, now: Instant) -> Duration {
        self.age(now).saturating_sub(self.lifetime)
    }

    /// Counts a hit; hits further apart than `within` begin again at one.
    pub(super) fn hit(&self, now: Instant, within: Duration) -> u32 {
        let mut used = self.use_of.lock().unwrap_or_else(PoisonError::into_inner);
        let close = used
            .last
            .is_some_and(|last| now.saturating_duration_since(last) < within);
        used.hits = if close {
            used.hits.saturating_add(1)
        } else {
            1
        };
        used.last = Some(now);
        used.hits
    }

    /// Remembers that a fresh answer could not be had.
    pub(super) fn failed(&self, now: Instant) {
        let mut used = self.use_of.lock().unwrap_or_else(PoisonError::into_inner);
        used.failed = Some(now);
    }

    /// True while it is too early to try again after a failure.
    pub(super) fn recheck_after(&self, now: Instant, wait: Duration) -> bool {
        let used = self.use_of.lock().unwrap_or_else(PoisonError::into_inner);
        used.failed
            .is_some_and(|failed| now.saturating_duration_since(failed) < wait)
    }
}

#[derive(Default)]
struct Shard {
    entries: HashMap<Key, Arc<Entry>>,
    octets: usize,
}

/// A store of one class of answers.
pub(super) struct Store {
    shards: Vec<Mutex<Shard>>,
    hasher: RandomState,
    /// Entries of a shard at most.
    capacity: usize,
}

impl Store {
    /// A store of at most this many entries, give or take the unevenness of shards.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            capacity: capacity.div_ceil(SHARDS).max(1),
        }
    }

    fn shard(&self, key: &Key) -> Option<&Mutex<Shard>> {
        let hash = self.hasher.hash_one(key);
        let index = usize::try_from(hash % SHARDS as u64).unwrap_or_default();
        self.shards.get(index)
    }

    pub(super) fn get(&self, key: &Key) -> Option<Arc<Entry>> {
        let shard = self.shard(key)?;
        let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        shard.entries.get(key).map(Arc::clone)
    }

    pub(super) fn remove(&self, key: &Key) {
        if let Some(shard) = self.shard(key) {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.take(key);
        }
    }

    /// Keeps an entry and gives the number of those that had to go for it, drawn by the hash's random order.
    pub(super) fn put(&self, key: Key, entry: Entry) -> u64 {
        let Some(shard) = self.shard(&key) else {
            return 0;
        };
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        shard.take(&key);
        let mut evicted = 0;
        while shard.entries.len() >= self.capacity
            || shard.octets + entry.octets > OCTETS_MAX / SHARDS
        {
            let Some(victim) = shard.entries.keys().next().cloned() else {
                break;
            };
            shard.take(&victim);
            evicted += 1;
        }
        shard.octets += entry.octets;
        shard.entries.insert(key, Arc::new(entry));
        evicted
    }

    pub(super) fn len(&self) -> usize {
        let count = |shard: &Mutex<Shard>| {
            shard
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .entries
                .len()
        };
        self.shards.iter().map(count).sum()
    }
}

impl Shard {
    fn take(&mut self, key: &Key) {
        if let Some(gone) = self.entries.remove(key) {
            self.octets = self.octets.saturating_sub(gone.octets);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u32) -> Key {
        Key {
            name: number.to_be_bytes().into(),
            kind: 1,
            class: 1,
            dnssec_ok: false,
            checking_disabled: false,
        }
    }

    #[test]
    fn entries_are_bounded() {
        let store = Store::new(640);
        let mut evicted = 0;
        for number in 0..10_000 {
            let entry = Entry::new(Message::query(), Duration::from_secs(1));
            evicted += store.put(key(number), entry);
        }
        assert!(store.len() <= 640, "{}", store.len());
        assert_eq!(evicted, 10_000 - store.len() as u64);
        assert!(store.get(&key(9_999)).is_some(), "the newest is kept");
    }
}
