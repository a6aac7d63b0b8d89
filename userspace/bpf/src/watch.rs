//! Watching: a ring of events of one's own, among the few that there are.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use abi::events::{LEASE_SECS, WATCHERS};
use abi::{Event, Watchers};
use aya::maps::{Map, MapData, RingBuf};
use zerocopy::{FromBytes as _, IntoBytes as _};

use crate::pins::{Lock, Pins};
use crate::table::{Array, open_pinned};
use crate::{Error, spec, sys};

/// What is watched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Watched {
    /// A union of [`abi::events::kinds`].
    pub kinds: u32,
    /// One event of so many is told; one and zero tell all.
    pub one_in: u32,
}

/// How often a lease is renewed.
const RENEWAL: Duration = Duration::from_secs(1);

/// A ring of events. It is told until it is dropped, and lost events are counted meanwhile; a process that is killed or
/// stopped renews its lease no more.
pub struct Watch {
    ring: RingBuf<MapData>,
    switch: Arc<Switch>,
    renewing: Option<JoinHandle<()>>,
    lost: OwnedFd,
    lost_before: u64,
    cpus: usize,
    _lock: Lock,
}

/// Our element of the switches.
struct Switch {
    switches: Array<Watchers>,
    number: u32,
    kinds: u32,
    ended: AtomicBool,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch")
            .field("number", &self.switch.number)
            .finish_non_exhaustive()
    }
}

impl Watch {
    /// Begins, at the first ring that nobody has.
    ///
    /// # Errors
    ///
    /// [`Error::NotLoaded`] if nothing is pinned below `bpffs_root`, [`Error::Missing`] if what is pinned there has no
    /// rings, [`Error::Watched`] if every ring is taken; others if the kernel refuses.
    pub fn start(bpffs_root: &Path, watched: Watched) -> Result<Watch, Error> {
        let pins = Pins::new(bpffs_root);
        let switches = Array::open(&pins, spec::SWITCHES, false)?;
        let lost = open_pinned(&pins, &spec::EVENTS_LOST, true)?.0;
        let cpus = aya::util::nr_cpus().map_err(|(path, error)| {
            Error::path("read the number of CPUs from", path.as_ref())(error)
        })?;
        let (number, lock) = Lock::acquire_ring(&pins, WATCHERS)?.ok_or(Error::Watched)?;
        let ring = &spec::EVENTS[number];
        open_pinned(&pins, ring, true)?;
        let path = pins.map(ring.name);
        let refused = |error| Error::Ring {
            path: path.clone(),
            source: Box::new(error),
        };
        let data = MapData::from_pin(&path).map_err(refused)?;
        let mut ring = RingBuf::try_from(Map::RingBuf(data)).map_err(refused)?;
        // What somebody left who watched before.
        while ring.next().is_some() {}
        let switch = Arc::new(Switch {
            switches,
            number: number as u32,
            kinds: watched.kinds,
            ended: AtomicBool::new(false),
        });
        let mut watch = Watch {
            ring,
            switch: Arc::clone(&switch),
            renewing: None,
            lost,
            lost_before: 0,
            cpus,
            _lock: lock,
        };
        watch.lost_before = watch.lost_ever()?;
        let threshold = match watched.one_in {
            0 | 1 => 0,
            one_in => u32::MAX / one_in,
        };
        switch.set(1, [threshold, 0])?;
        switch.renew()?;
        // A thread of its own: who reads the ring may wait long for whoever reads what it writes.
        let renewing = thread::Builder::new().name("lease".to_owned());
        let renewing = renewing.spawn(move || {
            while !switch.ended.load(Ordering::Acquire) {
                if switch.renew().is_err() {
                    break;
                }
                thread::park_timeout(RENEWAL);
            }
        });
        watch.renewing = Some(renewing.map_err(|source| Error::System {
            action: "start a thread",
            source,
        })?);
        Ok(watch)
    }

    /// Waits until there may be an event, for so long at most; false once nobody reads any more what is written to
    /// `out`.
    ///
    /// # Errors
    ///
    /// [`Error::System`] if the kernel refuses.
    pub fn wait(&self, out: BorrowedFd<'_>, patience: Duration) -> Result<bool, Error> {
        let open = sys::wait_readable(self.ring.as_fd(), out, patience);
        open.map_err(|source| Error::System {
            action: "wait for events",
            source,
        })
    }

    /// Takes the next event, if there is one.
    pub fn take(&mut self) -> Option<Event> {
        let item = self.ring.next()?;
        Event::read_from_bytes(&item).ok()
    }

    /// How many events found no room since this was last asked.
    ///
    /// # Errors
    ///
    /// [`Error::Table`] if the kernel refuses.
    pub fn lost(&mut self) -> Result<u64, Error> {
        let ever = self.lost_ever()?;
        let before = std::mem::replace(&mut self.lost_before, ever);
        Ok(ever.wrapping_sub(before))
    }

    fn lost_ever(&self) -> Result<u64, Error> {
        let mut shares = vec![0_u64; self.cpus];
        let ring = self.switch.number.to_ne_bytes();
        sys::lookup(self.lost.as_fd(), &ring, shares.as_mut_bytes())
            .map_err(|source| spec::EVENTS_LOST.failed("read", "a ring", source))?;
        Ok(shares.iter().fold(0, |sum, share| sum.wrapping_add(*share)))
    }
}

impl Switch {
    /// Keeps the ring told for some seconds more.
    fn renew(&self) -> Result<(), Error> {
        self.set(0, [crate::now_secs() + LEASE_SECS, self.kinds])
    }

    /// Writes one of the two words.
    fn set(&self, word: usize, halves: [u32; 2]) -> Result<(), Error> {
        let bytes: [u8; 8] = zerocopy::transmute!(halves);
        self.words()?[word].store(u64::from_ne_bytes(bytes), Ordering::Release);
        Ok(())
    }

    fn words(&self) -> Result<&[AtomicU64], Error> {
        let words = self.switches.words(0)?;
        let at = self.number as usize * 2;
        words.get(at..at + 2).ok_or(Error::Watched)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.switch.ended.store(true, Ordering::Release);
        if let Some(renewing) = self.renewing.take() {
            renewing.thread().unpark();
            // It does not panic; and it must have ended before the ring is another's.
            let _ = renewing.join();
        }
        // Were this to fail, the lease would end all the same.
        let _ = self.switch.set(0, [0, 0]);
    }
}
