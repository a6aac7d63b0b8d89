//! Crashes: a disk in memory that stops at any of its operations and then shows what a machine that lost power might
//! find, with the engine running on it.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use storage::{Error, Range, Revision, Storage, Write};

use crate::disk::{Disk, DiskFile};
use crate::{Embedded, OpenError, Options};

/// A directory whose writes and names reach the disk when they are synced, and perhaps before.
#[derive(Clone, Default)]
struct Simulated(Arc<Mutex<Machine>>);

#[derive(Default)]
struct Machine {
    files: Vec<SimulatedFile>,
    /// Names as the process sees them.
    names: BTreeMap<String, usize>,
    /// Names as they were at the last sync, and what was done to them since.
    durable_names: BTreeMap<String, usize>,
    unsynced: Vec<Naming>,
    /// Operations so far, and the one at which something happens.
    operations: u64,
    fault: Option<(u64, Fault)>,
    crashed: bool,
    random: fastrand::Rng,
}

#[derive(Clone, Default)]
struct SimulatedFile {
    durable: Vec<u8>,
    /// Everything, durable or not.
    written: Vec<u8>,
}

#[derive(Clone)]
enum Naming {
    Set(String, usize),
    Rename(String, String),
    Remove(String),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    /// Nothing works from here on.
    Crash,
    /// This operation fails, and no other.
    Once(io::ErrorKind),
    /// This one and all later ones that write.
    FromThenOn(io::ErrorKind),
}

impl Naming {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Set(name, file) => {
                names.insert(name.clone(), *file);
            }
            Self::Rename(from, to) => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
            Self::Remove(name) => {
                names.remove(name);
            }
        }
    }
}

impl Simulated {
    fn with(seed: u64, fault: Option<(u64, Fault)>) -> Self {
        let machine = Machine {
            fault,
            random: fastrand::Rng::with_seed(seed),
            ..Machine::default()
        };
        Self(Arc::new(Mutex::new(machine)))
    }

    fn lock(&self) -> MutexGuard<'_, Machine> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// The disk as a new process finds it. After a loss of power, of what was not synced there is anything between
    /// nothing and all, and the names are as they were at some moment since their last sync.
    fn reopened(&self, power_lost: bool) -> Self {
        let mut machine = self.lock();
        let mut next = Machine {
            random: machine.random.fork(),
            ..Machine::default()
        };
        let mut names = machine.names.clone();
        if power_lost {
            names = machine.durable_names.clone();
            let most = machine.unsynced.len();
            let reached = machine.random.usize(..=most);
            for naming in &machine.unsynced[..reached] {
                naming.apply(&mut names);
            }
        }
        for (name, file) in names {
            let file = machine.files[file].clone();
            let mut found = file.written;
            if power_lost && found.len() > file.durable.len() {
                let durable = file.durable.len();
                let kept = machine.random.usize(durable..=found.len());
                found.truncate(kept);
                // The length may reach the disk before the bytes do.
                if kept > durable && machine.random.bool() {
                    let hole = machine.random.usize(durable..kept);
                    let end = machine.random.usize(hole..=kept);
                    found[hole..end].fill(0);
                }
            }
            next.names.insert(name.clone(), next.files.len());
            next.durable_names.insert(name, next.files.len());
            next.files.push(SimulatedFile {
                durable: found.clone(),
                written: found,
            });
        }
        Self(Arc::new(Mutex::new(next)))
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        let machine = self.lock();
        machine.files[machine.names[name]].written.clone()
    }

    fn set_bytes(&self, name: &str, bytes: Vec<u8>) {
        let mut machine = self.lock();
        let file = machine.names[name];
        machine.files[file] = SimulatedFile {
            durable: bytes.clone(),
            written: bytes,
        };
    }
}

impl Machine {
    /// Counts an operation; `Err` where it fails.
    fn operation(&mut self) -> io::Result<()> {
        let this = self.operations;
        self.operations += 1;
        if self.crashed {
            return Err(io::Error::other("crashed"));
        }
        match self.fault {
            Some((at, Fault::Crash)) if this >= at => {
                self.crashed = true;
                Err(io::Error::other("crashed"))
            }
            Some((at, Fault::Once(kind))) if this == at => Err(kind.into()),
            Some((at, Fault::FromThenOn(kind))) if this >= at => Err(kind.into()),
            _ => Ok(()),
        }
    }

    fn file(&self, name: &str) -> io::Result<usize> {
        let file = self.names.get(name).copied();
        file.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn name(&mut self, naming: Naming) {
        naming.apply(&mut self.names);
        self.unsynced.push(naming);
    }
}

impl Disk for Simulated {
    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from("/simulated").join(name)
    }
    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.lock().names.keys().cloned().collect())
    }
    fn len(&self, name: &str) -> io::Result<u64> {
        let machine = self.lock();
        Ok(machine.files[machine.file(name)?].written.len() as u64)
    }
    fn read(&self, name: &str) -> io::Result<Box<dyn io::Read>> {
        let machine = self.lock();
        let bytes = machine.files[machine.file(name)?].written.clone();
        Ok(Box::new(io::Cursor::new(bytes)))
    }
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut machine = self.lock();
        machine.operation()?;
        let file = machine.files.len();
        machine.files.push(SimulatedFile::default());
        machine.name(Naming::Set(name.to_owned(), file));
        Ok(Box::new(Handle(self.clone(), file)))
    }
    fn append(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = self.lock().file(name)?;
        Ok(Box::new(Handle(self.clone(), file)))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut machine = self.lock();
        machine.operation()?;
        machine.file(from)?;
        machine.name(Naming::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        let mut machine = self.lock();
        machine.operation()?;
        machine.file(name)?;
        machine.name(Naming::Remove(name.to_owned()));
        Ok(())
    }
    fn sync_names(&self) -> io::Result<()> {
        let mut machine = self.lock();
        machine.operation()?;
        machine.durable_names = machine.names.clone();
        machine.unsynced.clear();
        Ok(())
    }
}

struct Handle(Simulated, usize);

impl DiskFile for Handle {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut machine = self.0.lock();
        let done = machine.operation();
        // A write that fails may have got some way.
        let len = match done {
            Ok(()) => bytes.len(),
            Err(_) if machine.crashed && machine.operations > machine.fault_at() + 1 => 0,
            Err(_) => machine.random.usize(..=bytes.len()),
        };
        machine.files[self.1].written.extend(&bytes[..len]);
        done
    }
    fn sync(&mut self) -> io::Result<()> {
        let mut machine = self.0.lock();
        machine.operation()?;
        let file = &mut machine.files[self.1];
        file.durable = file.written.clone();
        Ok(())
    }
    fn truncate(&mut self, len: u64) -> io::Result<()> {
        let mut machine = self.0.lock();
        machine.operation()?;
        let file = &mut machine.files[self.1];
        file.written.truncate(len as usize);
        file.durable = file.written.clone();
        Ok(())
    }
}

impl Machine {
    fn fault_at(&self) -> u64 {
        self.fault.map_or(u64::MAX - 1, |(at, _)| at)
    }
}

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
        // Five operations make the store.
        for at in 5..120 {
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
                } else {
                    // Only what is done beside the log may fail without anyone being told.
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

/// A store with five writes in one log, and where each ends.
fn five_writes() -> (Simulated, Vec<usize>) {
    let disk = Simulated::default();
    let store = Embedded::open_on(Arc::new(disk.clone()), Options::default()).unwrap();
    let log = "log-00000000000000000000";
    let mut ends = vec![disk.bytes(log).len()];
    for i in 0..5 {
        let write = Write::Create {
            key: format!("/k/{i}"),
            value: Bytes::from(vec![i; 20]),
        };
        block_on(store.write(vec![write])).unwrap();
        ends.push(disk.bytes(log).len());
    }
    (disk, ends)
}

const LOG: &str = "log-00000000000000000000";

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
    let names = disk.names().unwrap();
    assert!(
        names.iter().any(|name| name.starts_with("snapshot-")),
        "{names:?}"
    );
    for name in &names {
        let without = disk.reopened(false);
        without.remove(name).unwrap();
        without.sync_names().unwrap();
        let error = open(&without).expect_err("a file is gone");
        assert!(
            matches!(error, OpenError::Missing { .. }),
            "{name}: {error}"
        );

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
    let store = open(&disk).unwrap();
    drop(run_history(&store, 5, vec![Contents::new()]));
    drop(store);
    let names = disk.names().unwrap();
    let name = names
        .iter()
        .find(|name| name.starts_with("snapshot-"))
        .unwrap();
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
