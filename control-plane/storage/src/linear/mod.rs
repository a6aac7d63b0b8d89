//! Whether what clients of a store saw can be explained by one order of all that they did, in which each operation has
//! its effect at one moment between its call and its answer (Herlihy and Wing's linearizability).
//!
//! In general that is a search. Here the store says itself in which order it changed: the log, a watch from the
//! beginning. An acknowledged write stands in it at its revision; everything else must have happened between two of
//! its revisions. Every operation is given the earliest place that its answer allows, in order of its answers: if those
//! do not fit, none do.

pub mod drive;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::Change;

/// What a client did. Values are unique, so that a change in the log tells whose it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Call {
    /// A write of one key: the value, or a deletion, and the revision that was expected (zero: none).
    Write {
        /// Of the object.
        key: String,
        /// `None` deletes.
        value: Option<Bytes>,
        /// Zero creates.
        expected: u64,
    },
    /// A read of one key.
    Get {
        /// Of the object.
        key: String,
    },
    /// A read of every key.
    List,
}

/// What came of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The write was carried out at this revision.
    Written(u64),
    /// The write was refused, or the key was read: this is what stood there, with the revision that it had.
    Stood(Option<(Bytes, u64)>),
    /// The write was refused because something stood there.
    Exists,
    /// All keys at a revision.
    All(u64, BTreeMap<String, (Bytes, u64)>),
    /// No answer, or one that leaves it open. A write may have been carried out, or may be yet.
    Unknown,
}

/// One operation; `called` and `answered` are moments of one clock, which no two share.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Operation {
    /// Before it was begun.
    pub called: u64,
    /// After its answer came.
    pub answered: u64,
    /// What.
    pub call: Call,
    /// And then.
    pub outcome: Outcome,
}

/// What stands at every revision, by key.
struct Timeline {
    /// By key and revision: what stands there from then on.
    keys: BTreeMap<String, BTreeMap<u64, Option<(Bytes, u64)>>>,
    newest: u64,
}

impl Timeline {
    fn new(log: &[Change]) -> Self {
        let mut keys: BTreeMap<String, BTreeMap<_, _>> = BTreeMap::new();
        for change in log {
            let stands = match change {
                Change::Put { entry, .. } => Some((entry.value.clone(), entry.modified.0)),
                Change::Delete { .. } => None,
            };
            let key = change.key().to_string();
            keys.entry(key)
                .or_default()
                .insert(change.revision().0, stands);
        }
        let newest = log.last().map_or(0, |change| change.revision().0);
        Self { keys, newest }
    }

    fn at(&self, key: &str, revision: u64) -> Option<&(Bytes, u64)> {
        let (_, stands) = self.keys.get(key)?.range(..=revision).next_back()?;
        stands.as_ref()
    }

    /// The first revision, from one on, at which what stands at the key is as wanted.
    fn first(
        &self,
        key: &str,
        from: u64,
        wanted: impl Fn(Option<&(Bytes, u64)>) -> bool,
    ) -> Option<u64> {
        if wanted(self.at(key, from)) {
            return Some(from);
        }
        let mut later = self.keys.get(key)?.range(from + 1..);
        later
            .find(|(_, stands)| wanted(stands.as_ref()))
            .map(|(revision, _)| *revision)
    }
}

/// Whether the log explains the operations. The store was empty when both began, at revision `base`.
///
/// # Errors
/// Says which operation can't be explained.
pub fn check(base: u64, operations: &[Operation], log: &[Change]) -> Result<(), String> {
    check_log(base, log)?;
    check_origins(operations, log)?;
    let timeline = Timeline::new(log);
    // Whoever answered earlier has his place first.
    let mut answered: Vec<&Operation> = operations.iter().collect();
    answered.sort_by_key(|operation| operation.answered);
    // By moment of answer: the latest place among all operations that were answered by then.
    let mut reached: BTreeMap<u64, u64> = BTreeMap::new();
    // No write that was called after this moment stands before these places.
    let mut latest = base;
    for operation in answered {
        if operation.outcome == Outcome::Unknown {
            continue;
        }
        let before = reached.range(..operation.called).next_back();
        let from = before.map_or(base, |(_, place)| *place);
        let place = place(operation, from, &timeline).ok_or_else(|| {
            format!("{operation:?} has no place at or after revision {from}, which was seen before it was called")
        })?;
        latest = latest.max(place);
        reached.insert(operation.answered, latest);
    }
    // A write whose answer was lost took effect after its call all the same.
    for operation in operations {
        if let (
            Outcome::Unknown,
            Call::Write {
                key,
                value: Some(value),
                ..
            },
        ) = (&operation.outcome, &operation.call)
            && let Some(at) = written_at(log, key, value)
            && let Some((_, place)) = reached.range(..operation.called).next_back()
            && at <= *place
        {
            return Err(format!(
                "{operation:?} stands at revision {at}, and {place} was seen before it was called"
            ));
        }
    }
    Ok(())
}

/// The earliest revision, from one on, behind which the operation can have happened.
fn place(operation: &Operation, from: u64, timeline: &Timeline) -> Option<u64> {
    match (&operation.call, &operation.outcome) {
        (Call::Write { .. }, Outcome::Written(at)) => (*at > from).then_some(*at),
        (Call::Write { key, .. }, Outcome::Exists) => {
            timeline.first(key, from, |stands| stands.is_some())
        }
        (Call::Write { key, .. } | Call::Get { key }, Outcome::Stood(stood)) => {
            timeline.first(key, from, |stands| stands == stood.as_ref())
        }
        (Call::List, Outcome::All(at, all)) => {
            let keys = timeline.keys.keys();
            let same = keys
                .filter_map(|key| Some((key.clone(), timeline.at(key, *at)?.clone())))
                .eq(all
                    .iter()
                    .map(|(key, stands)| (key.clone(), stands.clone())));
            (same && *at >= from && *at <= timeline.newest.max(from)).then_some(*at)
        }
        (_, Outcome::Unknown) => Some(from),
        _ => None,
    }
}

/// A log tells of growing revisions, and each change of what the one before it left.
fn check_log(base: u64, log: &[Change]) -> Result<(), String> {
    let mut newest = base;
    let mut stands = BTreeMap::new();
    let mut keys = BTreeSet::new();
    for change in log {
        let (revision, key) = (change.revision().0, change.key().to_string());
        if revision > newest {
            keys.clear();
        }
        if revision < newest || !keys.insert(key.clone()) {
            return Err(format!(
                "after revision {newest} the log tells of {change:?}"
            ));
        }
        newest = revision;
        let (previous, now) = match change {
            Change::Put { entry, previous } => (previous.as_ref(), Some(entry.clone())),
            Change::Delete { previous, .. } => (Some(previous), None),
        };
        if stands.get(&key) != previous {
            let stood = stands.get(&key);
            return Err(format!("{stood:?} stood where the log tells of {change:?}"));
        }
        match now {
            Some(entry) => stands.insert(key, entry),
            None => stands.remove(&key),
        };
    }
    Ok(())
}

/// Every change is one that somebody asked for, once, and every acknowledged write is among them.
fn check_origins(operations: &[Operation], log: &[Change]) -> Result<(), String> {
    let mut puts = BTreeMap::new();
    let mut deletions = BTreeMap::new();
    for change in log {
        let key = change.key().to_string();
        match change {
            Change::Put { entry, .. } => {
                if let Some(other) = puts.insert((key, entry.value.clone()), entry.modified.0) {
                    return Err(format!("{change:?} was written at {other} already"));
                }
            }
            Change::Delete { revision, .. } => {
                deletions.insert((key, revision.0), ());
            }
        }
    }
    let mut asked = BTreeSet::new();
    for operation in operations {
        let Call::Write { key, value, .. } = &operation.call else {
            continue;
        };
        let found = match (value, &operation.outcome) {
            (Some(value), outcome) => {
                let written = (key.clone(), value.clone());
                let at = puts.get(&written);
                asked.insert(written);
                match outcome {
                    Outcome::Written(revision) => at == Some(revision),
                    Outcome::Unknown => true,
                    Outcome::Stood(_) | Outcome::Exists | Outcome::All(..) => at.is_none(),
                }
            }
            (None, Outcome::Written(revision)) => deletions.contains_key(&(key.clone(), *revision)),
            (None, _) => true,
        };
        if !found {
            return Err(format!("the log does not agree with {operation:?}"));
        }
    }
    match puts.keys().find(|written| !asked.contains(*written)) {
        Some(written) => Err(format!("nobody wrote {written:?}")),
        None => Ok(()),
    }
}

fn written_at(log: &[Change], key: &str, value: &Bytes) -> Option<u64> {
    log.iter().find_map(|change| match change {
        Change::Put { entry, .. } if &*entry.key == key && entry.value == *value => {
            Some(entry.modified.0)
        }
        Change::Put { .. } | Change::Delete { .. } => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Entry, Revision};

    fn entry(value: &'static str, created: u64, modified: u64) -> Entry {
        Entry {
            key: "/a".into(),
            value: value.into(),
            created: Revision(created),
            modified: Revision(modified),
        }
    }

    /// `/a` is "1" at 1, "2" at 2, gone at 3, "4" at 4.
    fn log() -> Vec<Change> {
        vec![
            Change::Put {
                entry: entry("1", 1, 1),
                previous: None,
            },
            Change::Put {
                entry: entry("2", 1, 2),
                previous: Some(entry("1", 1, 1)),
            },
            Change::Delete {
                revision: Revision(3),
                previous: entry("2", 1, 2),
            },
            Change::Put {
                entry: entry("4", 4, 4),
                previous: None,
            },
        ]
    }

    fn operation(called: u64, answered: u64, call: Call, outcome: Outcome) -> Operation {
        Operation {
            called,
            answered,
            call,
            outcome,
        }
    }

    fn write(
        called: u64,
        answered: u64,
        value: &'static str,
        expected: u64,
        outcome: Outcome,
    ) -> Operation {
        let value = (!value.is_empty()).then(|| Bytes::from(value));
        let key = "/a".to_owned();
        operation(
            called,
            answered,
            Call::Write {
                key,
                value,
                expected,
            },
            outcome,
        )
    }

    fn get(called: u64, answered: u64, stood: Option<(&'static str, u64)>) -> Operation {
        let stood = stood.map(|(value, at)| (Bytes::from(value), at));
        operation(
            called,
            answered,
            Call::Get { key: "/a".into() },
            Outcome::Stood(stood),
        )
    }

    fn writes() -> Vec<Operation> {
        vec![
            write(10, 20, "1", 0, Outcome::Written(1)),
            write(30, 40, "2", 1, Outcome::Written(2)),
            write(50, 60, "", 2, Outcome::Written(3)),
            write(70, 80, "4", 0, Outcome::Written(4)),
        ]
    }

    #[test]
    fn what_can_be_explained_is() {
        for more in [
            vec![
                get(1, 2, None),
                get(21, 22, Some(("1", 1))),
                get(81, 82, Some(("4", 4))),
            ],
            // While a write is under way both are right, in one order.
            vec![get(31, 32, Some(("1", 1))), get(33, 34, Some(("2", 2)))],
            vec![get(51, 79, None), get(11, 90, Some(("2", 2)))],
            vec![write(35, 36, "x", 1, Outcome::Stood(Some(("2".into(), 2))))],
            vec![
                write(71, 72, "x", 0, Outcome::Exists),
                write(5, 6, "y", 1, Outcome::Stood(None)),
            ],
            vec![write(45, 46, "x", 2, Outcome::Unknown)],
            vec![operation(
                61,
                62,
                Call::List,
                Outcome::All(3, BTreeMap::new()),
            )],
        ] {
            let operations = [writes(), more].concat();
            assert_eq!(check(0, &operations, &log()), Ok(()), "{operations:?}");
        }
    }

    #[test]
    fn what_cannot_be_explained_is_told() {
        for more in [
            // Stale, from the future, and back in time.
            vec![get(41, 42, Some(("1", 1)))],
            vec![get(61, 62, Some(("2", 2)))],
            vec![get(31, 32, Some(("2", 2))), get(33, 34, Some(("1", 1)))],
            vec![get(81, 82, Some(("9", 9)))],
            // Refused although nothing stood against it; acknowledged and not there.
            vec![write(61, 62, "x", 0, Outcome::Exists)],
            vec![write(91, 92, "x", 0, Outcome::Written(5))],
            // Refused, and carried out all the same.
            vec![write(35, 36, "4", 1, Outcome::Stood(None))],
            vec![operation(
                61,
                62,
                Call::List,
                Outcome::All(2, BTreeMap::new()),
            )],
            vec![operation(
                81,
                82,
                Call::List,
                Outcome::All(2, BTreeMap::from([("/a".into(), ("2".into(), 2))])),
            )],
        ] {
            let operations = [writes(), more].concat();
            assert!(check(0, &operations, &log()).is_err(), "{operations:?}");
        }
        // A write of which nobody knows, one that took effect before it was called, one lost from the log.
        let mut unknown = writes();
        unknown[0] = write(65, 66, "1", 0, Outcome::Unknown);
        assert!(check(0, &unknown, &log()).is_err());
        assert!(check(0, &writes()[..3], &log()).is_err());
        assert!(check(0, &writes(), &log()[..3]).is_err());
        let mut twice = log();
        twice.push(twice[3].clone());
        assert!(check(0, &writes(), &twice).is_err());
    }
}
