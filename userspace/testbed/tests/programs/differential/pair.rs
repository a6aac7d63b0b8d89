//! The same tables twice: in the kernel, and in memory.

use std::collections::BTreeMap;

use abi::quotas::GROUP;
use abi::{Counter, Flow4, Flow6, FlowState4, FlowState6};
use anyhow::Result;
use bpf::{Datapath, Flow};
use packet::{Family as _, Link, V4, V6, parse};
use plan::{Store as _, Tables};
use simulator::{Memory, Program, Ran, Start, Verdict};
use zerocopy::FromZeros as _;

use super::worlds::{self, PLACES, RING};
use crate::host_pods::{HOST_POD, InCgroup, seen_at};
use crate::kernel::{FLOWS, Kernel, LOOPBACK, NEXT, REDIRECT, SHOT, VETH, XDP_DROP, XDP_PASS};
use crate::policy::arrived;

/// Ports that translated sources may have.
const PORTS: u32 = 4;
/// Where within the range of random numbers that lead to one port first, those that lead to different ones next are.
const WITHIN: [f64; 4] = [0.02, 0.3, 0.55, 0.8];

pub(super) struct Pair {
    // Before what it hangs on goes.
    kernel: Kernel,
    twin: Twin,
    _inside: InCgroup,
}

/// What is compared with the kernel.
pub(super) struct Twin {
    memory: Memory,
    tables: Tables,
    generation: u32,
    counted: BTreeMap<Counter, u64>,
    before: BTreeMap<Counter, u64>,
}

/// Both, while packets are run in the namespace.
pub(super) struct Inside<'a> {
    kernel: &'a Kernel,
    twin: &'a mut Twin,
}

impl Pair {
    pub(super) fn new() -> Result<Pair> {
        let kernel = Kernel::new()?;
        let inside = InCgroup::held(&kernel)?;
        let start = Start {
            node: kernel.datapath.node()?,
            places: abi::openings::capacity(FLOWS) as usize - 1,
            ..Start::default()
        };
        let before = counters(&kernel)?;
        let twin = Twin {
            memory: Memory::new(start, 0),
            tables: Tables::default(),
            generation: 0,
            counted: BTreeMap::new(),
            before,
        };
        Ok(Pair {
            kernel,
            twin,
            _inside: inside,
        })
    }

    /// Other services and policies in the place of those that are there.
    pub(super) fn tables(&mut self, random: &mut fastrand::Rng) -> Result<()> {
        let Pair { kernel, twin, .. } = self;
        let steps = worlds::services(&twin.tables, random);
        kernel.datapath.apply(&steps)?;
        twin.tables
            .apply(&steps)
            .unwrap_or_else(|never| match never {});
        // As the kernel has it: elements that are all zero are none.
        twin.tables.rings.retain(|_, backend| *backend != 0);
        twin.memory.start_mut().tables = twin.tables.clone();

        twin.generation += 1;
        let steps = worlds::policies(twin.generation, random);
        kernel.datapath.policy_table()?.apply(&steps)?;
        for step in &steps {
            twin.memory.start_mut().policies.apply(step);
        }

        let (inside, masquerade) = worlds::inside(random);
        bpf::Masquerading::open(&kernel.root())?.set(&inside, masquerade)?;
        twin.memory.start_mut().inside = inside;
        twin.memory.start_mut().masquerade = masquerade;
        let members = worlds::members(random);
        kernel.datapath.set_members(&members)?;
        twin.memory.start_mut().members = members;

        bpf::keep_quotas(&kernel.root(), &worlds::quotas(random))?;
        let bounds = Datapath::inspect(&kernel.root())?.quotas()?;
        twin.memory.set_quotas(bounds.into_iter().collect());

        let runs_xdp = random.bool();
        let flags = if runs_xdp {
            abi::devices::flags::XDP_RUNS
        } else {
            0
        };
        kernel
            .datapath
            .set_device(LOOPBACK, abi::Device { flags })?;
        let devices = runs_xdp.then_some(LOOPBACK);
        twin.memory.start_mut().xdp_devices = devices.into_iter().collect();
        Ok(())
    }

    /// Runs packets in the node's namespace.
    pub(super) fn inside(
        &mut self,
        work: impl FnOnce(&mut Inside<'_>) -> Result<()> + Send,
    ) -> Result<()> {
        let Pair { kernel, twin, .. } = self;
        let kernel = &*kernel;
        kernel.netns().run(|| work(&mut Inside { kernel, twin }))
    }

    pub(super) fn assert_counters(&mut self, seed: u64) -> Result<()> {
        let twin = &mut self.twin;
        let now = counters(&self.kernel)?;
        let moved = now
            .iter()
            .map(|(counter, value)| (*counter, value - twin.before[counter]));
        let moved: BTreeMap<Counter, u64> = moved.filter(|(_, value)| *value != 0).collect();
        assert_eq!(
            moved, twin.counted,
            "counters of the history of seed {seed}"
        );
        twin.before = now;
        twin.counted.clear();
        Ok(())
    }

    /// Groups have as many flows in both.
    pub(super) fn assert_quotas(&mut self, seed: u64) -> Result<()> {
        let mut groups = Datapath::inspect(&self.kernel.root())?.quotas()?;
        groups.retain(|(group, _)| group & GROUP != 0);
        for (group, quota) in groups {
            let flows = self.twin.memory.flows_of(group);
            assert_eq!(flows, quota.flows, "group {group:x} after seed {seed}");
        }
        Ok(())
    }

    pub(super) fn assert_flows(&mut self, seed: u64) -> Result<()> {
        let mut kernel = Vec::new();
        self.kernel.datapath.walk_flows(|flows| {
            kernel.extend(flows.map(timeless));
            true
        })?;
        let memory = &mut self.twin.memory;
        for flow in &kernel {
            let native = find(memory, flow).map(timeless);
            assert_eq!(native, Some(*flow), "the histories up to seed {seed}");
        }
        let natively = memory.flows4().len() + memory.flows6().len();
        assert_eq!(natively, kernel.len(), "the histories up to seed {seed}");
        Ok(())
    }
}

impl Inside<'_> {
    /// Runs a program on a frame, twice, and compares.
    pub(super) fn packet(
        &mut self,
        what: &str,
        name: &str,
        program: Program,
        frame: &[u8],
        seen: &mut BTreeMap<&str, u64>,
    ) -> Result<()> {
        let context = match program {
            Program::PodEgress(from) | Program::DeviceEgress(from) => arrived(from),
            Program::CgroupIngress | Program::CgroupEgress => seen_at(VETH),
            _ => Vec::new(),
        };
        let datapath = &self.kernel.datapath;
        // The kernel's test run takes no frame that is shorter than its headers.
        let Ok(ran) = datapath.test_run(name, frame, &context, 1) else {
            return Ok(());
        };
        let at_cgroup = matches!(program, Program::CgroupIngress | Program::CgroupEgress);
        // Its programs see no link header, and the test run gives none back.
        let from = if at_cgroup { 14 } else { 0 };
        let ifindex = if at_cgroup { HOST_POD } else { LOOPBACK };
        let verdict = match (program, ran.verdict) {
            _ if at_cgroup && ran.verdict <= 1 => match ran.verdict {
                0 => Verdict::Dropped,
                _ => Verdict::Next,
            },
            (Program::Xdp, XDP_PASS) | (_, NEXT) => Verdict::Next,
            (Program::Xdp, XDP_DROP) | (_, SHOT) => Verdict::Dropped,
            (_, REDIRECT) => Verdict::Sent,
            (_, other) => panic!("verdict {other} of {name}"),
        };
        let tuple = tuple(frame);
        let flow = match &tuple {
            Some(tuple) => datapath.flow(tuple)?.map(timeless),
            None => None,
        };
        let twin = &mut *self.twin;
        twin.memory.start_mut().now_secs = bpf::now_secs();
        let mut tried = None;
        for chances in chances() {
            let mut memory = twin.memory.copy();
            memory.set_chances(chances);
            let native = memory.run(program, frame, ifindex);
            let known = tuple.as_ref().and_then(|tuple| find(&mut memory, tuple));
            if native.verdict == verdict
                && native.frame.get(from..) == ran.packet.get(from..)
                && known.map(timeless) == flow
            {
                for counter in &native.counted {
                    *twin.counted.entry(*counter).or_default() += 1;
                    *seen.entry(counter.label()).or_default() += 1;
                }
                twin.memory = memory;
                return Ok(());
            }
            tried.get_or_insert((native, known));
        }
        let said = |Ran { verdict, frame, .. }: &Ran| format!("{verdict:?} {frame:02x?}");
        let native = tried.map(|(native, known)| {
            format!("{} {:?}, flow {known:?}", said(&native), native.counted)
        });
        panic!(
            "{what}, {name}: {frame:02x?}\n kernel: {verdict:?} {:02x?}, flow {flow:?}\n native: {}",
            ran.packet,
            native.unwrap_or_default()
        );
    }
}

/// Chance is the kernel's own: of all that could have happened, what did happen must be one.
fn chances() -> impl Iterator<Item = [u32; 2]> {
    let at = |part: f64, of: u32| (part / f64::from(of) * f64::from(u32::MAX)) as u32;
    let ports =
        (0..PORTS).flat_map(move |port| WITHIN.map(|within| at(f64::from(port) + within, PORTS)));
    ports.flat_map(move |port| {
        // Every slot of every ring, and every place of a table.
        let all = RING * 2 * PLACES;
        let chosen = (0..all).map(move |slot| [at(f64::from(slot) + 0.5, all), port]);
        [[port, 0]].into_iter().chain(chosen)
    })
}

fn counters(kernel: &Kernel) -> Result<BTreeMap<Counter, u64>> {
    let counters = kernel.datapath.counters()?.into_iter();
    Ok(counters
        .map(|(counter, value)| (counter, value.packets))
        .collect())
}

/// Without the time, which two runs do not share.
fn timeless(flow: Flow) -> Flow {
    let last_seen_secs = 0;
    match flow {
        Flow::V4(key, state) => Flow::V4(
            key,
            FlowState4 {
                last_seen_secs,
                ..state
            },
        ),
        Flow::V6(key, state) => Flow::V6(
            key,
            FlowState6 {
                last_seen_secs,
                ..state
            },
        ),
    }
}

fn find(memory: &mut Memory, like: &Flow) -> Option<Flow> {
    match like {
        Flow::V4(key, _) => memory.flows4().get(key).map(|state| Flow::V4(*key, *state)),
        Flow::V6(key, _) => memory.flows6().get(key).map(|state| Flow::V6(*key, *state)),
    }
}

/// The tuple that a frame has by itself.
fn tuple(frame: &[u8]) -> Option<Flow> {
    match parse::link(frame) {
        Link::V4(l3) => {
            let tuple: Flow4 = V4::headers(frame, l3).tuple;
            Some(Flow::V4(tuple, FlowState4::new_zeroed()))
        }
        Link::V6(l3) => {
            let tuple: Flow6 = V6::headers(frame, l3).tuple;
            Some(Flow::V6(tuple, FlowState6::new_zeroed()))
        }
        Link::Other => None,
    }
}
