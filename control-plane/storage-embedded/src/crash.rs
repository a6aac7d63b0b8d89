//! Crashes: the engine on a disk that stops at any operation, fails at any, or comes back damaged.

mod simulated;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use storage::{Error, Range, Revision, Storage, Write};

use crate::disk::Disk;
use crate::format::{FRAME_HEAD_LEN, Frame, HEADER_LEN};
use crate::log::Log;
use crate::{Embedded, OpenError, Options, recover};

use simulated::{Fault, Simulated};

/// Small enough that every run takes snapshots.
fn options() -> Options {
    Options {
        log_bytes: 600,
        ..Options::default()
    }
}

fn open(disk: &Simulated) -> Result<Embedded, OpenError> {
    Embedded::open_on(Arc::new(disk.clone()), options())
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.expect("a runtime starts").block_on(work)
}

type Contents = BTreeMap<String, (Bytes, Revision)>;

async fn contents(store: &Embedded) -> Contents {
    let page = store.list(Range::default()).await.unwrap();
    let entries = page.entries.into_iter();
    entries
        .map(|entry| (entry.key.to_string(), (entry.value, entry.modified)))
        .collect()
}

/// The states that a history goes through, by revision.
struct Acknowledged {
    states: Vec<Contents>,
    /// What the write that was answered with an error would have made.
    uncertain: Option<Contents>,
}

/// Writes batches over a few keys until a write fails or all is done.
fn run_history(store: &Embedded, seed: u64, states: Vec<Contents>) -> Acknowledged {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut done = Acknowledged {
        states,
        uncertain: None,
    };
    block_on(async {
        for step in 0..40 {
            let mut next = done.states.last().unwrap().clone();
            let revision = Revision(done.states.len() as u64);
            let mut writes = Vec::new();
            for key in 0..random.u32(1..4) {
                let key = format!("/k/{}/{key}", random.u32(..4));
                let value = Bytes::from(vec![step; random.usize(..60)]);
                writes.push(match next.get(&key).cloned() {
                    None => {
                        next.insert(key.clone(), (value.clone(), revision));
                        Write::Create { key, value }
                    }
                    Some((_, expected)) if random.u8(..3) == 0 => {
                        next.remove(&key);
                        Write::Delete { key, expected }
                    }
                    Some((_, expected)) => {
                        next.insert(key.clone(), (value.clone(), revision));
                        Write::Update {
                            key,
                            value,
                            expected,
                        }
                    }
                });
            }
            match store.write(writes).await {
                Ok(got) => {
                    assert_eq!(got, revision);
                    done.states.push(next);
                }
                Err(Error::Unavailable { .. }) => {
                    assert_eq!(contents(store).await, *done.states.last().unwrap());
                    assert_eq!(store.revision().0, revision.0 - 1, "reads go on");
                    done.uncertain = Some(next);
                    break;
                }
                Err(other) => panic!("{other}"),
            }
        }
    });
    done
}

/// Opens what is left, and says what is there: everything acknowledged, and of the last write all or nothing.
fn check(disk: &Simulated, done: &Acknowledged) -> (Embedded, Vec<Contents>) {
    let store = open(disk).unwrap_or_else(|error| panic!("{error}"));
    let found = block_on(contents(&store));
    let mut states = done.states.clone();
    let acknowledged = states.len() as u64 - 1;
    if store.revision().0 == acknowledged {
        assert_eq!(found, states[acknowledged as usize]);
    } else {
        assert_eq!(
            store.revision().0,
            acknowledged + 1,
            "no revision is lost or made up"
        );
        assert_eq!(Some(&found), done.uncertain.as_ref());
        states.push(found);
    }
    // Whatever history is retained is right.
    block_on(async {
        for (revision, state) in states.iter().enumerate() {
            let range = Range {
                at: Some(Revision(revision as u64)),
                ..Range::default()
            };
            match store.list(range).await {
                Ok(page) => {
                    let there: Vec<&str> = page.entries.iter().map(|entry| &*entry.key).collect();
                    assert!(there.iter().copied().eq(state.keys()), "at {revision}");
                }
                Err(Error::Compacted { .. }) => {}
                Err(other) => panic!("{other}"),
            }
        }
    });
    (store, states)
}

#[test]
fn crash_at_every_operation() {
    // How many operations there are differs a little from run to run: snapshots are taken beside the writes.
    let whole = Simulated::with(1, None);
    let store = open(&whole).unwrap();
    let done = run_history(&store, 1, vec![Contents::new()]);
    drop(store);
    assert!(done.uncertain.is_none());
    let operations = whole.operations();
    assert!(
        operations > 120,
        "{operations} operations, snapshots among them"
    );

    let mut crashes = 0;
    for at in 0..operations {
        for (seed, power_lost) in [(1, false), (1, true), (2, true), (3, true)] {
            let disk = Simulated::with(seed, Some((at, Fault::Crash)));
            let mut done = Acknowledged {
                states: vec![Contents::new()],
                uncertain: None,
            };
            // A crash while the store is being made leaves nothing to lose.
            if let Ok(store) = open(&disk) {
                done = run_history(&store, seed, done.states);
                drop(store);
            }
            crashes += u64::from(disk.lock().crashed);
            // What is left is used, crashes again on the way, and is used once more.
            let found = disk.reopened(power_lost);
            let (store, states) = check(&found, &done);
            {
                let mut machine = found.lock();
                let again = machine.operations + machine.random.u64(1..60);
                machine.fault = Some((again, Fault::Crash));
            }
            let done = run_history(&store, seed + 100, states);
            drop(store);
            drop(check(&found.reopened(power_lost), &done));
        }
    }
    assert!(
        crashes > operations * 3,
        "{crashes} crashes at {operations} operations"
    );
}

#[test]
fn a_failed_write_makes_the_store_read_only() {
    for kind in [io::ErrorKind::StorageFull, io::ErrorKind::Other] {
        // Eight operations make the store.
        for at in 8..120 {
            for fault in [Fault::Once(kind), Fault::FromThenOn(kind)] {
                let disk = Simulated::with(at, Some((at, fault)));
                let store = open(&disk).unwrap();
                let done = run_history(&store, at, vec![Contents::new()]);
                if done.uncertain.is_some() {
                    let again = block_on(store.write(vec![Write::Create {
                        key: "/new".to_owned(),
                        value: Bytes::new(),
                    }]));
                    let Err(Error::Unavailable { doing, .. }) = again else {
                        panic!("still read-only and not {again:?}");
                    };
                    assert!(doing.contains("/simulated/log-0"), "{doing}");
                    assert!(doing.contains("restart"), "{doing}");
                    let full = kind == io::ErrorKind::StorageFull;
                    assert_eq!(doing.contains("free space"), full, "{doing}");
                    assert!(store.refuses_writes().is_some(), "checks of health know");
                } else {
                    // Only what is done beside the log may fail without anyone being told.
                    assert!(store.refuses_writes().is_none());
                    assert_eq!(done.states.len(), 41);
                }
                drop(store);
                for power_lost in [false, true] {
                    drop(check(&disk.reopened(power_lost), &done));
                }
            }
        }
    }
}

/// A store that crashed after five writes in one log, and where each ends.
fn five_writes() -> (Simulated, Vec<usize>) {
    let disk = Simulated::default();
    let store = Embedded::open_on(Arc::new(disk.clone()), Options::default()).unwrap();
    for i in 0..5 {
        let write = Write::Create {
            key: format!("/k/{i}"),
            value: Bytes::from(vec![i; 20]),
        };
        block_on(store.write(vec![write])).unwrap();
    }
    drop(store);
    let bytes = disk.bytes(LOG);
    let mut ends = vec![HEADER_LEN];
    while let [a, b, c, d, ..] = bytes[ends[ends.len() - 1]..]
        && [a, b, c, d] != [0; 4]
    {
        let len = u32::from_le_bytes([a, b, c, d]) as usize;
        ends.push(ends[ends.len() - 1] + FRAME_HEAD_LEN + len);
    }
    assert_eq!(ends.len(), 6);
    assert!(bytes.len() > ends[5] + 1000, "there is room behind");
    disk.set_bytes(LOG, bytes[..ends[5]].to_vec());
    disk.set_bytes(recover::BEGUN, Vec::new());
    (disk, ends)
}

const LOG: &str = "log-00000000000000000000";

#[test]
fn a_frame_that_finds_no_room_brings_some_in_the_same_sync() {
    let disk = Simulated::default();
    let mut log = Log::prepare(&disk, Revision(0)).unwrap();
    log.begin(&disk).unwrap();
    let mut frame = Frame::new();
    let mut seen = Vec::new();
    for revision in 1..=5 {
        frame.clear();
        frame.write(
            Revision(revision),
            [("/a", Some(&[1; 100][..]))].into_iter(),
        );
        let before = disk.operations();
        log.append(&mut frame, 300).unwrap();
        let found = disk.reopened(true).bytes(LOG).len() as u64;
        assert_eq!(found, log.len + log.room(), "it is on the disk");
        seen.push((disk.operations() - before, log.room() == 300));
    }
    // One more write where room is made, and never another sync.
    let (makes, takes) = ((3, true), (2, false));
    assert_eq!(seen, [makes, takes, takes, makes, takes]);
    let mut revisions = Vec::new();
    drop(log);
    Log::replay(&disk, LOG, Some(0), |record| {
        revisions.push(record);
        Ok(())
    })
    .unwrap();
    assert_eq!(revisions.len(), 5);
}

#[test]
fn a_torn_tail_is_cut_off() {
    let (disk, ends) = five_writes();
    let whole = disk.bytes(LOG);
    let (four, five) = (ends[4], ends[5]);
    let mut tails: Vec<(u64, Vec<u8>)> = Vec::new();
    for len in four..=five {
        let revision = if len == five { 5 } else { 4 };
        tails.push((revision, whole[..len].to_vec()));
        // The length reached the disk and the bytes did not.
        let mut zeroed = whole[..len].to_vec();
        zeroed.resize(five + 10, 0);
        tails.push((revision, zeroed));
    }
    for bit in four * 8..five * 8 {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        tails.push((4, flipped));
    }
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..200 {
        let mut garbage = whole.clone();
        garbage.extend((0..random.usize(1..100)).map(|_| random.u8(..)));
        tails.push((5, garbage));
    }
    let with_room = tails.clone().into_iter().map(|(revision, mut bytes)| {
        bytes.resize(bytes.len() + 50, 0);
        (revision, bytes)
    });
    tails.extend(with_room.collect::<Vec<_>>());
    for (revision, bytes) in tails {
        let disk = disk.reopened(false);
        disk.set_bytes(LOG, bytes);
        let store = open(&disk).unwrap();
        assert_eq!(store.revision(), Revision(revision));
        // What is written next stands where the tail was, and is found.
        let key = "/next".to_owned();
        let value = Bytes::new();
        block_on(store.write(vec![Write::Create { key, value }])).unwrap();
        drop(store);
        let store = open(&disk.reopened(true)).unwrap();
        assert_eq!(store.revision(), Revision(revision + 1));
    }
}

#[test]
fn damage_before_the_end_is_an_error() {
    let (disk, ends) = five_writes();
    let whole = disk.bytes(LOG);
    for bit in 0..ends[4] * 8 {
        let disk = disk.reopened(false);
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        flipped.resize(whole.len() + bit % 3 * 50, 0);
        disk.set_bytes(LOG, flipped);
        let error = open(&disk).expect_err("acknowledged writes are not passed over");
        let byte = bit / 8;
        match error {
            OpenError::Foreign { .. } => assert!(byte < 8),
            OpenError::Corrupt {
                offset, ref remedy, ..
            } => {
                let frame = ends.iter().rev().find(|end| **end <= byte);
                assert_eq!(offset, frame.map_or(0, |frame| *frame as u64), "{error}");
                assert_eq!(remedy.contains("truncate"), offset > 0, "{error}");
                assert!(error.to_string().contains(LOG), "{error}");
            }
            other => panic!("{other}"),
        }
    }
}

#[test]
fn what_is_missing_is_an_error() {
    // Stop after a snapshot's log has been begun, so that there are several files.
    let disk = Simulated::default();
    let store = open(&disk).unwrap();
    let done = run_history(&store, 5, vec![Contents::new()]);
    drop(store);
    // What a snapshot supersedes may still have been there at the end; whoever opens the store removes it.
    drop(open(&disk).unwrap());
    let names = disk.names().unwrap();
    assert!(
        names.iter().any(|name| name.starts_with("snapshot-")),
        "{names:?}"
    );
    let mut snapshots: Vec<_> = names
        .iter()
        .filter(|n| n.starts_with("snapshot-"))
        .collect();
    snapshots.sort_unstable();
    let newest = snapshots.last().expect("one at least").as_str();
    for name in names.iter().filter(|name| *name != "begun") {
        let without = disk.reopened(false);
        without.remove(name).unwrap();
        without.sync_names().unwrap();
        // With one snapshot, what came before it is history alone. With none missing, the one before the newest and the
        // logs since lead to the same.
        let first = newest.replace("snapshot", "log");
        let history = snapshots.len() == 1 && name.starts_with("log-") && *name < first;
        if name == newest || history {
            drop(check(&without, &done));
        } else {
            let opened = open(&without);
            let error = opened.expect_err(&format!("{name} of {names:?} is gone"));
            assert!(
                matches!(error, OpenError::Missing { .. }),
                "{name}: {error}"
            );
        }

        let damaged = disk.reopened(false);
        let mut bytes = damaged.bytes(name);
        bytes[20] ^= 1;
        damaged.set_bytes(name, bytes);
        let error = open(&damaged).expect_err("a header is damaged");
        assert!(
            matches!(error, OpenError::Corrupt { .. }),
            "{name}: {error}"
        );
        assert!(error.to_string().contains(name.as_str()), "{error}");
    }
    drop(check(&disk, &done));
}

#[test]
fn every_flipped_bit_of_a_snapshot_is_noticed() {
    let disk = Simulated::default();
    let mut states = vec![Contents::new()];
    // Snapshots are taken beside the writers: how many writes it takes until there are two is the scheduler's matter.
    let snapshots = loop {
        let store = open(&disk).unwrap();
        states = run_history(&store, 5, states).states;
        drop(store);
        let mut names = disk.names().unwrap();
        names.retain(|name| name.starts_with("snapshot-"));
        if names.len() >= 2 {
            break names;
        }
    };
    assert_eq!(snapshots.len(), 2, "{snapshots:?}");
    // The one that is read; the newest is in reserve.
    let name = snapshots.iter().min().unwrap();
    let whole = disk.bytes(name);
    for byte in 0..whole.len() {
        let damaged = disk.reopened(false);
        let mut bytes = whole.clone();
        bytes[byte] ^= 1 << (byte % 8);
        damaged.set_bytes(name, bytes);
        assert!(open(&damaged).is_err(), "byte {byte}");
        let cut = disk.reopened(false);
        cut.set_bytes(name, whole[..byte].to_vec());
        assert!(open(&cut).is_err(), "cut at {byte}");
    }
}

#[test]
fn revisions_never_rewind() {
    let disk = Simulated::default();
    let mut last = Revision(0);
    for round in 0..10 {
        let store = open(&disk).unwrap();
        assert_eq!(store.revision(), last);
        for i in 0..7 {
            let key = format!("/{round}/{i}");
            let value = Bytes::from_static(b"v");
            let created = block_on(store.write(vec![Write::Create {
                key: key.clone(),
                value,
            }]));
            let expected = created.unwrap();
            let deleted = block_on(store.write(vec![Write::Delete { key, expected }]));
            let deleted = deleted.unwrap();
            assert_eq!(deleted.0, last.0 + 2);
            last = deleted;
            block_on(store.compact(last)).unwrap();
        }
        drop(store);
        let store = open(&disk).unwrap();
        assert_eq!(store.revision(), last, "after {round} rounds");
        let before = Range {
            at: Some(Revision(last.0 - 1)),
            ..Range::default()
        };
        let refused = block_on(store.list(before));
        assert!(
            matches!(refused, Err(Error::Compacted { .. })),
            "also after a restart"
        );
    }
}
