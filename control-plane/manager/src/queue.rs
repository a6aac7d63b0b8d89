//! Which key is next: each stands in the queue once, runs once at a time, and waits longer the oftener it failed.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use client::Backoff;
use reconcile::Key;
use tokio::time::Instant;

/// The longest wait of a key that keeps failing.
const RETRY_WAIT_MAX: Duration = Duration::from_secs(30);

/// Keys to be decided about, the one that waits longest first.
#[derive(Default)]
pub(crate) struct Queue {
    ready: VecDeque<Key>,
    waiting: BTreeSet<(Instant, Key)>,
    known: HashMap<Key, State>,
}

struct State {
    place: Place,
    backoff: Backoff,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Place {
    Ready,
    Running,
    /// Running, and touched since.
    RunningAgain,
    Waiting(Instant),
}

impl Queue {
    /// A change touches the key: it is next as soon as it does not run.
    pub(crate) fn push(&mut self, key: Key) {
        let Some(state) = self.known.get_mut(&key) else {
            let state = State {
                place: Place::Ready,
                backoff: Backoff::new(RETRY_WAIT_MAX),
            };
            self.known.insert(key.clone(), state);
            self.ready.push_back(key);
            return;
        };
        match state.place {
            Place::Ready | Place::RunningAgain => {}
            Place::Running => state.place = Place::RunningAgain,
            Place::Waiting(due) => {
                state.place = Place::Ready;
                self.waiting.remove(&(due, key.clone()));
                self.ready.push_back(key);
            }
        }
    }

    /// Takes the next key; it runs until [`Queue::succeeded`] or [`Queue::failed`].
    pub(crate) fn pop(&mut self) -> Option<Key> {
        let key = self.ready.pop_front()?;
        if let Some(state) = self.known.get_mut(&key) {
            state.place = Place::Running;
        }
        Some(key)
    }

    /// The key is as it should be, unless it was touched since.
    pub(crate) fn succeeded(&mut self, key: &Key) {
        let Some(state) = self.known.get_mut(key) else {
            return;
        };
        if state.place == Place::RunningAgain {
            state.place = Place::Ready;
            state.backoff.reset();
            self.ready.push_back(key.clone());
        } else {
            self.known.remove(key);
        }
    }

    /// The key is to be tried again; returns after how long.
    pub(crate) fn failed(&mut self, key: &Key, now: Instant) -> Duration {
        let Some(state) = self.known.get_mut(key) else {
            return Duration::ZERO;
        };
        let delay = match state.place {
            Place::RunningAgain => Duration::ZERO,
            Place::Ready | Place::Running | Place::Waiting(_) => state.backoff.next_delay(),
        };
        if delay.is_zero() {
            state.place = Place::Ready;
            self.ready.push_back(key.clone());
        } else {
            let due = now + delay;
            state.place = Place::Waiting(due);
            self.waiting.insert((due, key.clone()));
        }
        delay
    }

    /// When the next waiting key is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.waiting.first().map(|(due, _)| *due)
    }

    /// Makes ready what is due.
    pub(crate) fn wake(&mut self, now: Instant) {
        while let Some((due, _)) = self.waiting.first()
            && *due <= now
            && let Some((_, key)) = self.waiting.pop_first()
        {
            if let Some(state) = self.known.get_mut(&key) {
                state.place = Place::Ready;
            }
            self.ready.push_back(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::Namespace(name.into())
    }

    #[test]
    fn each_key_once_in_order() {
        let mut queue = Queue::default();
        for name in ["a", "b", "a", "c", "b"] {
            queue.push(key(name));
        }
        let order: Vec<Key> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(order, [key("a"), key("b"), key("c")]);
        order.iter().for_each(|key| queue.succeeded(key));
        assert!(queue.known.is_empty());
    }

    #[test]
    fn a_key_does_not_run_twice_at_once() {
        let mut queue = Queue::default();
        queue.push(key("a"));
        assert_eq!(queue.pop(), Some(key("a")));
        queue.push(key("a"));
        queue.push(key("a"));
        assert_eq!(queue.pop(), None);
        queue.succeeded(&key("a"));
        assert_eq!(queue.pop(), Some(key("a")));
        queue.succeeded(&key("a"));
        assert_eq!(queue.pop(), None);
    }

    #[test]
    fn failures_wait_and_a_change_ends_the_wait() {
        let mut queue = Queue::default();
        let start = Instant::now();
        queue.push(key("a"));
        let mut now = start;
        let mut waits = Vec::new();
        for _ in 0..20 {
            assert_eq!(queue.pop(), Some(key("a")));
            waits.push(queue.failed(&key("a"), now));
            if let Some(due) = queue.next_due() {
                queue.wake(due - Duration::from_nanos(1));
                assert_eq!(queue.pop(), None, "too early");
                queue.wake(due);
                now = due;
            }
        }
        assert_eq!(waits[0], Duration::ZERO);
        assert!(waits.iter().all(|wait| *wait <= RETRY_WAIT_MAX));
        assert!(waits[19] >= RETRY_WAIT_MAX / 2, "{waits:?}");

        queue.pop();
        queue.failed(&key("a"), now);
        assert!(queue.next_due().is_some());
        queue.push(key("a"));
        assert_eq!((queue.next_due(), queue.pop()), (None, Some(key("a"))));

        queue.push(key("a"));
        assert_eq!(
            queue.failed(&key("a"), now),
            Duration::ZERO,
            "touched while it ran"
        );
    }
}
