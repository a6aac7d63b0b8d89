//! Random clients of a store, and what they saw: histories to be checked.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;

use super::{Call, Operation, Outcome};
use crate::{Change, Error, Range, Revision, Storage, WatchEvent, Write};

/// How much is done.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// At a time.
    pub clients: u64,
    /// One after the other, by each client.
    pub operations: u64,
    /// So few that clients get into each other's way.
    pub keys: u64,
}

/// The longest that anything is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// A small generator (xorshift64*), so that a seed gives the same choices everywhere.
#[derive(Clone, Debug)]
pub struct Choices(u64);

impl Choices {
    /// Any seed will do.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % end.max(1)
    }
}

/// Chooses the next operation. `last` is what the client saw last of each key: most of what it expects is right, unless
/// somebody else was there. `unique` makes the value unlike any other.
pub fn choose(
    choices: &mut Choices,
    keys: u64,
    last: &BTreeMap<String, u64>,
    unique: &str,
) -> Call {
    let key = format!("/linear/{}", choices.below(keys));
    let known = last.get(&key).copied().unwrap_or(0);
    match choices.below(10) {
        0..=2 => Call::Get { key },
        3 => Call::List,
        4 if known > 0 => Call::Write {
            key,
            value: None,
            expected: known,
        },
        _ => Call::Write {
            key,
            value: Some(Bytes::from(unique.to_owned())),
            expected: known,
        },
    }
}

/// Carries one out.
pub async fn carry_out(store: &dyn Storage, call: &Call) -> Outcome {
    match call {
        Call::Get { key } => match store.get(key).await {
            Ok(found) => Outcome::Stood(found.map(|entry| (entry.value, entry.modified.0))),
            Err(_) => Outcome::Unknown,
        },
        Call::List => {
            let range = Range {
                prefix: "/linear/".to_owned(),
                ..Range::default()
            };
            let Ok(page) = store.list(range).await else {
                return Outcome::Unknown;
            };
            let all = page.entries.into_iter();
            let all = all.map(|entry| (entry.key.to_string(), (entry.value, entry.modified.0)));
            Outcome::All(page.revision.0, all.collect())
        }
        Call::Write {
            key,
            value,
            expected,
        } => {
            let (key, expected) = (key.clone(), Revision(*expected));
            let write = match value {
                Some(value) if expected.0 == 0 => Write::Create {
                    key,
                    value: value.clone(),
                },
                Some(value) => Write::Update {
                    key,
                    value: value.clone(),
                    expected,
                },
                None => Write::Delete { key, expected },
            };
            match store.write(vec![write]).await {
                Ok(revision) => Outcome::Written(revision.0),
                Err(Error::Exists { .. }) => Outcome::Exists,
                Err(Error::NotFound { .. }) => Outcome::Stood(None),
                Err(Error::Conflict { current }) => {
                    Outcome::Stood(Some((current.value, current.modified.0)))
                }
                Err(_) => Outcome::Unknown,
            }
        }
    }
}

/// What a client has seen of a key by an operation.
pub fn learn(last: &mut BTreeMap<String, u64>, call: &Call, outcome: &Outcome) {
    let (Call::Write { key, .. } | Call::Get { key }) = call else {
        return;
    };
    match outcome {
        Outcome::Written(revision) if matches!(call, Call::Write { value: Some(_), .. }) => {
            last.insert(key.clone(), *revision);
        }
        Outcome::Stood(Some((_, revision))) => {
            last.insert(key.clone(), *revision);
        }
        Outcome::Written(_) | Outcome::Stood(None) => {
            last.remove(key);
        }
        Outcome::Exists | Outcome::All(..) | Outcome::Unknown => {}
    }
}

/// Lets clients loose on a store. They wait a moment after a failure, so that a store that is away is not all that they
/// see.
pub async fn clients(store: &Arc<dyn Storage>, size: Size, seed: u64) -> Vec<Operation> {
    let clock = AtomicU64::new(0);
    let seen = Mutex::new(Vec::new());
    let client = async |number: u64| {
        let mut choices = Choices::new(seed.wrapping_mul(1000) + number);
        let mut last = BTreeMap::new();
        for i in 0..size.operations {
            let call = choose(
                &mut choices,
                size.keys,
                &last,
                &format!("{seed}-{number}-{i}"),
            );
            let called = clock.fetch_add(1, Ordering::SeqCst);
            let outcome = carry_out(&**store, &call).await;
            let answered = clock.fetch_add(1, Ordering::SeqCst);
            learn(&mut last, &call, &outcome);
            if outcome == Outcome::Unknown {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let operation = Operation {
                called,
                answered,
                call,
                outcome,
            };
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.push(operation);
        }
    };
    futures_util::future::join_all((0..size.clients).map(client)).await;
    seen.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Every change after `from`, up to the newest revision of now. Begins again where it was cut off, as a client does.
///
/// # Errors
/// A store that does not answer in a minute, history that is gone, a watch that goes back.
pub async fn log(store: &Arc<dyn Storage>, from: Revision) -> Result<Vec<Change>, String> {
    let until = patiently(|| store.newest()).await?;
    let mut choices = Choices::new(until.0);
    let (mut changes, mut last) = (Vec::new(), from);
    while last < until {
        let watch = patiently(|| store.watch("/linear/".to_owned(), Some(last)));
        let mut events = watch.await?;
        // Now and then a client loses its connection between two revisions.
        let mut left = 1 + choices.below(200);
        while last < until && left > 0 {
            let event = tokio::time::timeout(PATIENCE, events.next()).await;
            match event.map_err(|_| format!("no event after revision {}", last.0))? {
                Some(Ok(WatchEvent::Change(change))) => {
                    if change.revision() <= last {
                        return Err(format!("after revision {} came {change:?}", last.0));
                    }
                    last = change.revision();
                    changes.push(change);
                    left -= 1;
                }
                Some(Ok(WatchEvent::Progress(revision))) => last = last.max(revision),
                Some(Err(Error::Slow)) | None => break,
                Some(Err(error)) => return Err(error.to_string()),
            }
        }
    }
    Ok(changes)
}

async fn patiently<'a, T>(mut ask: impl FnMut() -> crate::Answer<'a, T>) -> Result<T, String> {
    let began = tokio::time::Instant::now();
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(Error::Unavailable { .. }) if began.elapsed() < PATIENCE => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// Follows the store while others work on it, beginning again where it is cut off, until the newest revision is `until`.
///
/// # Errors
/// As with [`log`].
pub async fn follow(
    store: &Arc<dyn Storage>,
    from: Revision,
    until: &AtomicU64,
) -> Result<Vec<Change>, String> {
    let mut changes: Vec<Change> = Vec::new();
    let mut last = from;
    loop {
        changes.extend(log(store, last).await?);
        last = changes.last().map_or(from, Change::revision).max(last);
        let end = until.load(Ordering::SeqCst);
        if end > 0 && patiently(|| store.newest()).await?.0 >= end {
            changes.extend(log(store, last).await?);
            return Ok(changes);
        }
        tokio::task::yield_now().await;
    }
}
