//! A disk in memory that stops at any of its operations and then shows what a machine that lost power might find.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::disk::{Disk, DiskFile};

/// A directory whose writes and names reach the disk when they are synced, and perhaps before.
#[derive(Clone, Default)]
pub(super) struct Simulated(Arc<Mutex<Machine>>);

#[derive(Default)]
pub(super) struct Machine {
    files: Vec<SimulatedFile>,
    /// Names as the process sees them.
    names: BTreeMap<String, usize>,
    /// Names as they were at the last sync, and what was done to them since.
    durable_names: BTreeMap<String, usize>,
    unsynced: Vec<Naming>,
    /// Operations so far, and the one at which something happens.
    pub(super) operations: u64,
    pub(super) fault: Option<(u64, Fault)>,
    pub(super) crashed: bool,
    pub(super) random: fastrand::Rng,
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
pub(super) enum Fault {
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
    pub(super) fn with(seed: u64, fault: Option<(u64, Fault)>) -> Self {
        let machine = Machine {
            fault,
            random: fastrand::Rng::with_seed(seed),
            ..Machine::default()
        };
        Self(Arc::new(Mutex::new(machine)))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Machine> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// The disk as a new process finds it. After a loss of power, of what was not synced there is anything between
    /// nothing and all, of the bytes as of the names.
    pub(super) fn reopened(&self, power_lost: bool) -> Self {
        let mut machine = self.lock();
        let mut next = Machine {
            random: machine.random.fork(),
            ..Machine::default()
        };
        let mut names = machine.names.clone();
        if power_lost {
            names = machine.durable_names.clone();
            // Up to some moment all of them, or each of them or not: no file system promises an order.
            let (most, in_order) = (machine.unsynced.len(), machine.random.bool());
            let reached = machine.random.usize(..=most);
            for i in 0..most {
                let kept = if in_order {
                    i < reached
                } else {
                    machine.random.bool()
                };
                if kept {
                    machine.unsynced[i].apply(&mut names);
                }
            }
        }
        for (name, file) in names {
            let file = machine.files[file].clone();
            let mut found = file.written;
            let pairs = found.iter().zip(&file.durable);
            let same = pairs.take_while(|(a, b)| a == b).count();
            if power_lost && found.len() > same {
                // Up to some place what was written, from there on what was before.
                let kept = machine.random.usize(same..=found.len());
                found.truncate(kept);
                found.extend(file.durable.iter().skip(kept));
                // The length may reach the disk before the bytes do, and later bytes before earlier ones.
                if kept > same && machine.random.bool() {
                    let hole = machine.random.usize(same..kept);
                    let end = machine.random.usize(hole..=kept);
                    let before = file.durable.iter().copied().chain(std::iter::repeat(0));
                    let holes = found[hole..end].iter_mut();
                    holes
                        .zip(before.skip(hole))
                        .for_each(|(byte, old)| *byte = old);
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

    pub(super) fn bytes(&self, name: &str) -> Vec<u8> {
        let machine = self.lock();
        machine.files[machine.names[name]].written.clone()
    }

    pub(super) fn set_bytes(&self, name: &str, bytes: Vec<u8>) {
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
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
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
    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut machine = self.0.lock();
        let done = machine.operation();
        // A write that fails may have got some way.
        let len = match done {
            Ok(()) => bytes.len(),
            Err(_) if machine.crashed && machine.operations > machine.fault_at() + 1 => 0,
            Err(_) => machine.random.usize(..=bytes.len()),
        };
        let written = &mut machine.files[self.1].written;
        let offset = offset as usize;
        assert!(offset <= written.len(), "no gap is left");
        let over = (offset + len).min(written.len());
        written.splice(offset..over, bytes[..len].iter().copied());
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
