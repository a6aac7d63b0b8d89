//! What the programs would do with a packet, without doing it: this build's packet programs, brought into the kernel a
//! second time, over the live tables that programs only read and over copies of those that they write. A run changes no
//! flow, no affinity and no counter of anybody's.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use abi::{
    Affinity, AffinityKey, Counter, CounterValue, Flow4, Flow6, FlowState4, FlowState6, Quota,
};
use aya::maps::{Map, MapData};
use zerocopy::IntoBytes as _;

use crate::object::{self, Programs};
use crate::pins::{self, Pins};
use crate::table::Hash;
use crate::{Error, Flow, TestRun, View, spec, sys};

/// The tables that programs write, of which a trial has its own.
const WRITTEN: [&str; 18] = [
    abi::affinity::NAME,
    abi::flows::NAME4,
    abi::flows::NAME6,
    abi::openings::NAME4,
    abi::openings::NAME6,
    abi::policy::FLOWS4,
    abi::policy::FLOWS6,
    abi::passed::NAME,
    abi::passed::ANSWERS,
    abi::fragments::NAME,
    abi::reverse_sockets::NAME,
    abi::dns::SCRATCH,
    abi::limits::NAME,
    abi::quotas::NAME,
    abi::next_hops::NAME,
    abi::counters::NAME,
    // Nobody watches a trial.
    abi::events::SWITCHES,
    abi::events::LOST,
];

/// Those of them whose length is part of the layout, and more than is needed here.
const LONG: [&str; 5] = [
    abi::policy::FLOWS4,
    abi::policy::FLOWS6,
    abi::fragments::NAME,
    abi::limits::NAME,
    abi::quotas::NAME,
];

/// Entries of the tables of its own, at most.
const ENTRIES: u32 = 1024;

/// Programs that were loaded for a trial; gone when dropped.
#[derive(Debug)]
pub struct Trial {
    programs: Programs,
    pins: Pins,
    flows4: Hash<Flow4, FlowState4>,
    flows6: Hash<Flow6, FlowState6>,
    affinity: Hash<AffinityKey, Affinity>,
    quotas: Hash<u32, Quota>,
    counters: OwnedFd,
    cpus: usize,
}

impl Trial {
    /// Over the tables that are pinned below `bpffs_root`.
    ///
    /// # Errors
    ///
    /// [`Error::NotLoaded`] if nothing is pinned there; others if the kernel refuses.
    pub fn over(bpffs_root: &Path) -> Result<Trial, Error> {
        let pins = Pins::new(bpffs_root);
        let shared = |name: &str| !WRITTEN.contains(&name);
        let (programs, object) =
            object::load_apart(&pins, shared, |name| LONG.contains(&name), ENTRIES)?;
        let table = |name: &'static str| {
            let data = object.map(name).and_then(data);
            let data = data.ok_or(Error::NoTable { table: name })?;
            let fd = data.fd().as_fd().try_clone_to_owned();
            fd.map_err(|source| Error::System {
                action: "copy the descriptor of a table",
                source,
            })
        };
        let cpus = aya::util::nr_cpus().map_err(|(path, error)| {
            Error::path("read the number of CPUs from", path.as_ref())(error)
        })?;
        Ok(Trial {
            flows4: Hash::of(table(abi::flows::NAME4)?, spec::FLOWS4)?,
            flows6: Hash::of(table(abi::flows::NAME6)?, spec::FLOWS6)?,
            affinity: Hash::of(table(abi::affinity::NAME)?, spec::AFFINITY)?,
            quotas: Hash::of(table(abi::quotas::NAME)?, spec::QUOTAS)?,
            counters: table(abi::counters::NAME)?,
            programs,
            pins,
            cpus,
        })
    }

    /// Copies what the live tables know of a conversation that a packet of this tuple begins: its flow, where the client was
    /// sent before, and the bounds of the service.
    ///
    /// # Errors
    ///
    /// [`Error::Table`] if the kernel refuses.
    pub fn copy_from(
        &self,
        live: &View,
        tuples: &[Flow],
        client: &AffinityKey,
    ) -> Result<(), Error> {
        for tuple in tuples {
            match tuple {
                Flow::V4(key, _) => {
                    if let Some(state) = live.flows4.get(key)? {
                        self.flows4
                            .insert(&[*key], &[state])
                            .map_err(|(_, error)| error)?;
                    }
                }
                Flow::V6(key, _) => {
                    if let Some(state) = live.flows6.get(key)? {
                        self.flows6
                            .insert(&[*key], &[state])
                            .map_err(|(_, error)| error)?;
                    }
                }
            }
        }
        if let Some(affinity) = live.affinity.get(client)? {
            self.affinity
                .insert(&[*client], &[affinity])
                .map_err(|(_, error)| error)?;
        }
        if let Some(quota) = live.quotas.get(&client.service)? {
            let mut quotas = vec![(client.service, quota)];
            for group in quota.groups {
                quotas.extend(live.quotas.get(&group)?.map(|bound| (group, bound)));
            }
            let (keys, quotas): (Vec<u32>, Vec<Quota>) = quotas.into_iter().unzip();
            self.quotas
                .insert(&keys, &quotas)
                .map_err(|(_, error)| error)?;
        }
        Ok(())
    }

    /// Runs a packet program; says also what was counted, and whether the attached program is the same, where one is.
    /// `context` is as for [`View::test_run`].
    ///
    /// # Errors
    ///
    /// [`Error::NoProgram`] for a name that is not a packet program's, [`Error::Path`] if the kernel refuses.
    pub fn run(
        &self,
        program: &'static str,
        packet: &[u8],
        context: &[u8],
    ) -> Result<(TestRun, Vec<Counter>), Error> {
        let before = self.counted()?;
        let fd = self
            .programs
            .get(program)
            .ok_or(Error::NoProgram { program })?;
        let ran = sys::test_run(fd.as_fd(), packet, context, 1)
            .map_err(|error| Error::path("run the program", &self.pins.program(program))(error))?;
        let after = self.counted()?;
        let moved = Counter::ALL.iter().zip(before.iter().zip(&after));
        let moved = moved.filter(|(_, (before, after))| before != after);
        Ok((
            TestRun::from(ran),
            moved.map(|(counter, _)| *counter).collect(),
        ))
    }

    /// Whether the pinned program of a name is of the same instructions as this build's.
    ///
    /// # Errors
    ///
    /// [`Error::Path`] if the kernel refuses.
    pub fn is_attached_one(&self, program: &'static str) -> Result<bool, Error> {
        let path = self.pins.program(program);
        let (Some(pinned), Some(ours)) = (pins::open(&path)?, self.programs.get(program)) else {
            return Ok(false);
        };
        let tag = |fd| sys::program_info(fd).map(|info| info.tag);
        let tags = tag(pinned.as_fd()).and_then(|pinned| Ok((pinned, tag(ours.as_fd())?)));
        let (pinned, ours) = tags.map_err(Error::path("look at the program", &path))?;
        Ok(pinned == ours)
    }

    fn counted(&self) -> Result<Vec<u64>, Error> {
        let mut shares = vec![CounterValue::default(); self.cpus];
        Counter::ALL
            .iter()
            .map(|&counter| {
                let key = (counter as u32).to_ne_bytes();
                sys::lookup(self.counters.as_fd(), &key, shares.as_mut_bytes())
                    .map_err(|source| spec::COUNTERS.failed("read", counter.label(), source))?;
                Ok(shares.iter().map(|share| share.packets).sum())
            })
            .collect()
    }
}

fn data(map: &Map) -> Option<&MapData> {
    match map {
        Map::HashMap(data) | Map::LruHashMap(data) | Map::PerCpuArray(data) => Some(data),
        _ => None,
    }
}
