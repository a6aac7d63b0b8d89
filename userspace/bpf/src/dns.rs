//! The table of DNS names, for the one process that holds the cluster's zone; the agent that loads the programs may be
//! another one, or end and come back.

use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use abi::{Counter, CounterValue, DnsAnswer, DnsControl, DnsName};

use crate::pins::{Lock, Pins};
use crate::table::{Array, Hash, open_pinned};
use crate::{Error, View, spec, sys};

/// The names that the programs answer for, owned by this process. What it wrote outlives it until its leases end.
#[derive(Debug)]
pub struct DnsTable {
    pins: Pins,
    names: Hash<DnsName, DnsAnswer>,
    control: Array<DnsControl>,
    /// As it was written last.
    state: DnsControl,
    /// The kernel's identifier of the names' table.
    id: u32,
    view: View,
    /// Is in a table of the kernel's, until the process ends.
    _alive: UdpSocket,
    _lock: Lock,
}

impl DnsTable {
    /// Takes the table that is pinned below `bpffs_root`. Nothing is answered before [`DnsTable::set_control`].
    ///
    /// # Errors
    ///
    /// [`Error::NotLoaded`] if no agent has loaded the programs, [`Error::Owned`] while another process has the table.
    pub fn open(bpffs_root: &Path) -> Result<Self, Error> {
        let pins = Pins::new(bpffs_root);
        let names = Hash::open(&pins, spec::DNS_NAMES, false)?;
        let lock = Lock::acquire_maps(&pins)?;
        let id = id(&pins)?;
        let control = Array::open(&pins, spec::DNS_CONTROL, false)?;
        let before = control.entries()?.pop().map(|(_, control)| control);
        let mut table = DnsTable {
            names,
            control,
            state: DnsControl::default(),
            id,
            _alive: alive(&pins)?,
            view: View::open(bpffs_root)?,
            pins,
            _lock: lock,
        };
        // A process that was killed between two steps left an odd generation.
        let generation = before.map_or(0, |control| control.generation);
        table.state.generation = generation.wrapping_add(generation & 1);
        table.set_control(&DnsControl::default())?;
        Ok(table)
    }

    /// Whether the pinned table is still this one: an agent may have been uninstalled, and another have come.
    #[must_use]
    pub fn is_current(&self) -> bool {
        id(&self.pins).is_ok_and(|id| id == self.id)
    }

    /// Every name that is answered.
    ///
    /// # Errors
    ///
    /// [`Error::Table`] if the kernel refuses.
    pub fn entries(&self) -> Result<Vec<(DnsName, DnsAnswer)>, Error> {
        self.names.entries(usize::MAX)
    }

    /// Forgets names, then writes others or other answers; gives the positions in `put` of those that found no room.
    /// The programs answer nothing meanwhile.
    ///
    /// # Errors
    ///
    /// [`Error::Table`] if the kernel refuses; it is not known then which names are in.
    pub fn write(
        &mut self,
        remove: &[DnsName],
        put: &[(DnsName, DnsAnswer)],
    ) -> Result<Vec<usize>, Error> {
        if remove.is_empty() && put.is_empty() {
            return Ok(Vec::new());
        }
        self.turn_generation()?;
        let removed = self.names.remove(remove).map_err(|(_, error)| error);
        let left_out = removed.and_then(|()| self.put(put));
        self.turn_generation()?;
        left_out
    }

    fn put(&self, put: &[(DnsName, DnsAnswer)]) -> Result<Vec<usize>, Error> {
        let (names, answers): (Vec<_>, Vec<_>) = put.iter().copied().unzip();
        let mut left_out = Vec::new();
        let mut done = 0;
        while done < put.len() {
            match self.names.insert(&names[done..], &answers[done..]) {
                Ok(()) => break,
                Err((at, Error::Full { .. })) => {
                    left_out.push(done + at);
                    // What the name said before may be no longer true.
                    let stale = self.names.remove(&names[done + at..=done + at]);
                    stale.map_err(|(_, error)| error)?;
                    done += at + 1;
                }
                Err((_, error)) => return Err(error),
            }
        }
        Ok(left_out)
    }

    /// Says what the programs go by; the generation is this table's own. Addresses change while both leases are over.
    ///
    /// # Errors
    ///
    /// [`Error::Full`] never: the table has one element.
    pub fn set_control(&mut self, control: &DnsControl) -> Result<(), Error> {
        let addresses = |control: &DnsControl| {
            let local = (control.local4, control.local6, control.local_port);
            (
                control.service4,
                control.service6,
                control.service_port,
                local,
            )
        };
        if addresses(control) != addresses(&self.state) {
            let mut closed = self.state;
            closed.answers_until_secs = 0;
            closed.local_until_secs = closed.local_until_secs.min(1);
            self.control.set(0, &closed)?;
        }
        let generation = self.state.generation;
        self.state = DnsControl {
            generation,
            ..*control
        };
        self.control.set(0, &self.state)
    }

    /// What the programs go by.
    #[must_use]
    pub fn control(&self) -> DnsControl {
        self.state
    }

    /// Queries that the programs answered, since they were first loaded.
    ///
    /// # Errors
    ///
    /// [`Error::Table`] if the kernel refuses.
    pub fn answered(&self) -> Result<u64, Error> {
        let counters = self.view.counters()?.into_iter();
        let answers = counters.filter_map(|(counter, CounterValue { packets, .. })| {
            matches!(counter, Counter::TcDnsAnswer | Counter::XdpDnsAnswer).then_some(packets)
        });
        Ok(answers.sum())
    }

    fn turn_generation(&mut self) -> Result<(), Error> {
        self.state.generation = self.state.generation.wrapping_add(1);
        self.control.set(0, &self.state)
    }
}

/// Puts a socket into the table that tells the programs of this process's end. It is connected to itself, so that nobody
/// else can fill it.
fn alive(pins: &Pins) -> Result<UdpSocket, Error> {
    let (fd, _) = open_pinned(pins, &spec::DNS_ALIVE, false)?;
    let put = || {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.connect(socket.local_addr()?)?;
        let value = socket.as_raw_fd().to_ne_bytes();
        sys::update(fd.as_fd(), &0_u32.to_ne_bytes(), &value)?;
        Ok(socket)
    };
    put().map_err(|source| spec::DNS_ALIVE.failed("write", "this process's socket", source))
}

/// The kernel's identifier of the pinned table of names.
fn id(pins: &Pins) -> Result<u32, Error> {
    let (fd, _) = open_pinned(pins, &spec::DNS_NAMES, true)?;
    let info = sys::map_info(fd.as_fd());
    let info = info.map_err(|source| spec::DNS_NAMES.failed("look at", "the shape", source))?;
    Ok(info.id)
}
