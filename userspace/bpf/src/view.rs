//! The tables as the kernel holds them, for whoever wants to look: the agent itself, or `fairlead status` in
//! another process.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use abi::{
    Affinity, AffinityKey, Backend, BackendId, Balancing, Counter, CounterValue, Device, DnsAnswer,
    DnsControl, DnsName, Endpoint, Flow4, Flow6, FlowState4, FlowState6, FragmentKey,
    FragmentPorts, Frontend, FrontendKey4, FrontendKey6, Host, HostRouting, Limit, Load, Member,
    MemberKey, Namespace, NodeConfig, Quota, ReverseSocket, ReverseSocketKey, RingSlot, ServiceId,
    Source, SourceKey, SpreadWord,
};
use plan::{FrontendKey, Tables};
use serde::Serialize;
use zerocopy::{FromZeros, IntoBytes};

use crate::masquerade::Masquerading;
use crate::pins::{self, Pins};
use crate::pod_cgroups::PodCgroups;
use crate::policy::Policies;
use crate::status::{self, Status};
use crate::table::{Array, Hash, open_pinned};
use crate::{Error, Foreign, Place, Probe, foreign, spec, sys};

/// How full a table is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Fill {
    /// Name of the table.
    pub table: &'static str,
    /// Entries in use.
    pub used: u32,
    /// Entries that it can hold.
    pub capacity: u32,
    /// The command line option that raises the capacity; empty where it is part of the layout.
    pub flag: &'static str,
}

impl Fill {
    /// Whether it is time for a table that forgets by itself to have more room: the kernel begins to forget before there is
    /// none, and forgets what lives as well.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        self.used > self.capacity / 2
    }
}

/// One direction of a flow, as the kernel holds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flow {
    /// IPv4.
    V4(Flow4, FlowState4),
    /// IPv6.
    V6(Flow6, FlowState6),
}

/// Everything that the kernel holds for one root of pins.
#[derive(Debug)]
pub struct View {
    pub(crate) pins: Pins,
    pub(crate) frontends4: Hash<FrontendKey4, Frontend>,
    pub(crate) frontends6: Hash<FrontendKey6, Frontend>,
    pub(crate) rings: Array<RingSlot>,
    pub(crate) spreads: Array<SpreadWord>,
    pub(crate) loads: Array<Load>,
    pub(crate) backends: Array<Backend>,
    pub(crate) affinity: Hash<AffinityKey, Affinity>,
    pub(crate) flows4: Hash<Flow4, FlowState4>,
    pub(crate) flows6: Hash<Flow6, FlowState6>,
    fragments: Hash<FragmentKey, FragmentPorts>,
    pub(crate) reverse_sockets: Hash<ReverseSocketKey, ReverseSocket>,
    pub(crate) devices: Hash<u32, Device>,
    pub(crate) endpoints4: Hash<[u8; 4], Endpoint>,
    pub(crate) endpoints6: Hash<[u8; 16], Endpoint>,
    pub(crate) sources: Hash<SourceKey, Source>,
    pub(crate) members: Hash<MemberKey, Member>,
    pub(crate) quotas: Hash<u32, Quota>,
    balancing: OwnedFd,
    host: OwnedFd,
    host_routing: OwnedFd,
    dns_names: Hash<DnsName, DnsAnswer>,
    dns_control: Array<DnsControl>,
    pub(crate) policies: Policies,
    pod_cgroups: PodCgroups,
    pub(crate) limits: Hash<u32, Limit>,
    namespaces: Hash<u64, Namespace>,
    masquerading: Masquerading,
    config: OwnedFd,
    counters: OwnedFd,
    cpus: usize,
}

impl View {
    /// Opens what is pinned below `bpffs_root`, to read only.
    ///
    /// # Errors
    ///
    /// [`Error::NotLoaded`] if nothing is pinned there; others if the kernel refuses.
    pub fn open(bpffs_root: &Path) -> Result<View, Error> {
        View::open_pins(Pins::new(bpffs_root), true)
    }

    pub(crate) fn open_pins(pins: Pins, read_only: bool) -> Result<View, Error> {
        let cpus = aya::util::nr_cpus().map_err(|(path, error)| {
            Error::path("read the number of CPUs from", path.as_ref())(error)
        })?;
        Ok(View {
            frontends4: Hash::open(&pins, spec::FRONTENDS4, read_only)?,
            frontends6: Hash::open(&pins, spec::FRONTENDS6, read_only)?,
            rings: Array::open(&pins, spec::RINGS, read_only)?,
            spreads: Array::open(&pins, spec::SPREADS, read_only)?,
            loads: Array::open(&pins, spec::LOADS, read_only)?,
            backends: Array::open(&pins, spec::BACKENDS, read_only)?,
            affinity: Hash::open(&pins, spec::AFFINITY, true)?,
            flows4: Hash::open(&pins, spec::FLOWS4, true)?,
            flows6: Hash::open(&pins, spec::FLOWS6, true)?,
            fragments: Hash::open(&pins, spec::FRAGMENTS, true)?,
            reverse_sockets: Hash::open(&pins, spec::REVERSE_SOCKETS, true)?,
            devices: Hash::open(&pins, spec::DEVICES, read_only)?,
            endpoints4: Hash::open(&pins, spec::ENDPOINTS4, read_only)?,
            endpoints6: Hash::open(&pins, spec::ENDPOINTS6, read_only)?,
            sources: Hash::open(&pins, spec::SOURCES, read_only)?,
            members: Hash::open(&pins, spec::MEMBERS, read_only)?,
            quotas: Hash::open(&pins, spec::QUOTAS, true)?,
            balancing: open_pinned(&pins, &spec::BALANCING, read_only)?.0,
            host: open_pinned(&pins, &spec::HOST, read_only)?.0,
            host_routing: open_pinned(&pins, &spec::HOST_ROUTING, read_only)?.0,
            dns_names: Hash::open(&pins, spec::DNS_NAMES, true)?,
            dns_control: Array::open(&pins, spec::DNS_CONTROL, true)?,
            policies: Policies::open(&pins, read_only)?,
            pod_cgroups: PodCgroups::open(&pins, read_only)?,
            limits: Hash::open(&pins, spec::LIMITS, read_only)?,
            namespaces: Hash::open(&pins, spec::NAMESPACES, true)?,
            masquerading: Masquerading::open_pins(&pins, read_only)?,
            config: open_pinned(&pins, &spec::CONFIG, read_only)?.0,
            counters: open_pinned(&pins, &spec::COUNTERS, true)?.0,
            cpus,
            pins,
        })
    }

    /// Reads back frontends, rings and backends.
    ///
    /// # Errors
    ///
    /// [`Error::Table`] if the kernel refuses.
    pub fn observe(&self) -> Result<Tables, Error> {
        let mut frontends = BTreeMap::new();
        for (key, value) in self.frontends4.entries(usize::MAX)? {
            frontends.insert(FrontendKey::V4(key), value);
        }
        for (key, value) in self.frontends6.entries(usize::MAX)? {
            frontends.insert(FrontendKey::V6(key), value);
        }
        Ok(Tables {
            frontends,
            rings: self
                .rings
                .entries()?
                .into_iter()
                .map(|(slot, value)| (slot, value.backend))
                .collect(),
            spreads: self
                .spreads
                .entries()?
                .into_iter()
                .map(|(element, value)| (element, value.words))
                .collect(),
            backends: self.backends.entries()?.into_iter().collect(),
            sources: self.source_keys()?,
        })
    }

    /// How many connections this node's sockets have to a backend, where its service is balanced by that.
    #[must_use]
    pub fn connections(&self, backend: BackendId) -> u64 {
        let counted = self.loads.get(backend).connections as i64;
        counted.max(0) as u64
    }

    fn source_keys(&self) -> Result<BTreeSet<SourceKey>, Error> {
        let keys = self.sources.entries(usize::MAX)?;
        Ok(keys.into_iter().map(|(key, _)| key).collect())
    }

    /// Every counter, summed over the CPUs.
    ///
    /// # Errors
    ///
    /// [`Error::Table`] if the kernel refuses.
    pub fn counters(&self) -> Result<Vec<(Counter, CounterValue)>, Error> {
        let mut shares = vec![CounterValue::default(); self.cpus];
        Counter::ALL
            .iter()
            .map(|&counter| {
                let key = (counter as u32).to_ne_bytes();
                sys::lookup(self.counters.as_fd(), &key, shares.as_mut_bytes())
                    .map_err(|source| spec::COUNTERS.failed("read", counter.label(), source))?;
                let sum = shares
                    .iter()
                    .fold(CounterValue::default(), |sum, share| CounterValue {
                        packets: sum.packets.wrapping_add(share.packets),
                        bytes: sum.bytes.wrapping_add(share.bytes),
                    });
                Ok((counter, sum))
            })
            .collect()
    }

    /// Where a client was sent before.
    ///
    /// # Errors
    ///
    /// [`Error::Table`] if the kernel refuses.
    pub fn affinity(&self, key: &AffinityKey) -> Result<Option<Affinity>, Error> {
        self.affinity.get(key)
    }

    /// What the programs know of this node.
    ///
    /// # Errors
    ///
    /// [`Error::Table`] if the kernel refuses.
    pub fn node(&self) -> Result<NodeConfig, Error> {
        let mut node = NodeConfig::new_zeroed();
        sys::lookup(
            self.config.as_fd(),
            &0_u32.to_ne_bytes(),
            node.as_mut_bytes(),
        )
        .map_err(|source| spec::CONFIG.failed("read", "this node", source))?;
        Ok(node)
    }

    /// Pods that packets may go straight to, by address.
    ///
    /// # Errors
    ///
    /// [`Error::Table`] if the kernel refuses.
    pub fn endpoints(&self) -> Result<BTreeMap<IpAddr, Endpoint>, Error> {
        let four = self.endpoints4.entries(usize::MAX)?.into_iter();
        let six = self.endpoints6.entries(usize::MAX)?.into_iter();
        Ok(four
            .map(|(addr, endpoint)| (IpAddr::from(addr), endpoint))
            .chain(six.map(|(addr, endpoint)| (IpAddr::from(addr), endpoint)))
            .collect())
    }

    /// Until when packets go straight to pods, and why not.
    ///
    /// # Errors
    ///
    /// [`Error::Table`] if the kernel refuses.
    pub fn host_routing(&self) -> Result<HostRouting, Error> {
        let mut lease = HostRouting::new_zeroed();
        let fd = self.host_routing.as_fd();
        sys::lookup(fd, &0_u32.to_ne_bytes(), lease.as_mut_bytes())
            .map_err(|source| spec::HOST_ROUTING.failed("read", "the lease", source))?;
        Ok(lease)
    }

    /// What is masqueraded.
    #[must_use]
    pub fn masquerading(&self) -> &Masquerading {
        &self.masquerading
    }

    /// What the holder of the DNS zone says of names that are answered here and of its own instance.
    #[must_use]
    pub fn dns(&self) -> DnsControl {
        self.dns_control.get(0)
    }

    /// Names that are answered here.
    ///
    /// # Errors
    ///
    /// [`Error::Table`] if the kernel refuses.
    pub fn dns_names(&self) -> Result<Vec<(DnsName, DnsAnswer)>, Error> {
        self.dns_names.entries(usize::MAX)
    }

    pub(crate) fn set_host_routing(&self, lease: &HostRouting) -> Result<(), Error> {
        let fd = self.host_routing.as_fd();
        sys::update(fd, &0_u32.to_ne_bytes(), lease.as_bytes())
            .map_err(|source| spec::HOST_ROUTING.failed("write", "the lease", source))
    }

    /// The cluster's own addresses.
    ///
    /// # Errors
    ///
    /// [`Error::Table`] if the kernel refuses.
    pub fn members(&self) -> Result<BTreeMap<MemberKey, Member>, Error> {
        Ok(self.members.entries(usize::MAX)?.into_iter().collect())
    }

    /// Bounds on flows, and which of them hold for a service.
    ///
    /// # Errors
    ///
    /// [`Error::Table`] if the kernel refuses.
    pub fn quotas(&self) -> Result<Vec<(u32, Quota)>, Error> {
        self.quotas.entries(usize::MAX)
    }

    /// The bounds on the flows of a service: its own, and that of all in its namespace; `None` where there is none.
    ///
    /// # Errors
    ///
    /// [`Error::Table`] if the kernel refuses.
    pub fn bounds(&self, service: ServiceId) -> Result<[Option<Quota>; 2], Error> {
        let groups = self.quotas.get(&service)?.map_or([0; 2], |it| it.groups);
        let bound = |group: u32| match group {
            0 => Ok(None),
            group => self.quotas.get(&group),
        };
        let [own, namespace] = groups;
        Ok([bound(own)?, bound(namespace)?])
    }

    /// How external traffic gets to backends of other nodes, as the agent was told.
    ///
    /// # Errors
    ///
    /// [`Error::Table`] if the kernel refuses.
    pub fn balancing(&self) -> Result<Balancing, Error> {
        let mut balancing = Balancing::new_zeroed();
        let fd = self.balancing.as_fd();
        sys::lookup(fd, &0_u32.to_ne_bytes(), balancing.as_mut_bytes())
            .map_err(|source| spec::BALANCING.failed("read", "the mode", source))?;
        Ok(balancing)
    }

    pub(crate) fn set_balancing(&self, balancing: &Balancing) -> Result<(), Error> {
        let fd = self.balancing.as_fd();
        sys::update(fd, &0_u32.to_ne_bytes(), balancing.as_bytes())
            .map_err(|source| spec::BALANCING.failed("write", "the mode", source))
    }

    pub(crate) fn set_host(&self, host: &Host) -> Result<(), Error> {
        sys::update(self.host.as_fd(), &0_u32.to_ne_bytes(), host.as_bytes())
            .map_err(|source| spec::HOST.failed("write", "the host", source))
    }

    pub(crate) fn set_node(&self, node: &NodeConfig) -> Result<(), Error> {
        sys::update(self.config.as_fd(), &0_u32.to_ne_bytes(), node.as_bytes())
            .map_err(|source| spec::CONFIG.failed("write", "this node", source))
    }

    /// The entry of the flow tables with the tuple of `like`.
    ///
    /// # Errors
    ///
    /// [`Error::Table`] if the kernel refuses.
    pub fn flow(&self, like: &Flow) -> Result<Option<Flow>, Error> {
        Ok(match like {
            Flow::V4(key, _) => self.flows4.get(key)?.map(|state| Flow::V4(*key, state)),
            Flow::V6(key, _) => self.flows6.get(key)?.map(|state| Flow::V6(*key, state)),
        })
    }

    /// Shows every entry of the flow tables, some thousands at a time, in no particular order; ends where `visit` returns
    /// false. However many entries there are, no more of them are in memory.
    ///
    /// # Errors
    ///
    /// [`Error::Table`] if the kernel refuses.
    pub fn walk_flows(
        &self,
        mut visit: impl FnMut(&mut dyn Iterator<Item = Flow>) -> bool,
    ) -> Result<(), Error> {
        let mut goes_on = true;
        self.flows4.walk(|keys, states| {
            let flows = keys.iter().zip(states);
            goes_on = visit(&mut flows.map(|(key, state)| Flow::V4(*key, *state)));
            goes_on
        })?;
        if goes_on {
            self.flows6.walk(|keys, states| {
                let flows = keys.iter().zip(states);
                visit(&mut flows.map(|(key, state)| Flow::V6(*key, *state)))
            })?;
        }
        Ok(())
    }

    /// What the kernel holds of policies.
    ///
    /// # Errors
    ///
    /// [`Error::Table`] if the kernel refuses.
    pub fn policies(&self) -> Result<plan::policy::PolicyTables, Error> {
        self.policies.tables()
    }

    /// The pod that has the network namespace of a cookie, where that is known.
    ///
    /// # Errors
    ///
    /// [`Error::Table`] if the kernel refuses.
    pub fn namespace(&self, cookie: u64) -> Result<Option<Namespace>, Error> {
        self.namespaces.get(&cookie)
    }

    /// The pods that use the node's network and have policies, by the numbers that stand for the indexes of their links.
    ///
    /// # Errors
    ///
    /// [`Error::Table`] if the kernel refuses.
    pub fn policy_pods(&self) -> Result<BTreeMap<u32, abi::PolicyPod>, Error> {
        self.pod_cgroups.pods()
    }

    /// How full each table is. Costs a walk through the hashes: for people and for metrics, not for a hot path.
    ///
    /// # Errors
    ///
    /// [`Error::Table`] if the kernel refuses.
    pub fn fill(&self) -> Result<Vec<Fill>, Error> {
        fn fill(spec: &spec::Spec, used: u32, capacity: u32) -> Fill {
            Fill {
                table: spec.name,
                used,
                capacity,
                flag: spec.flag,
            }
        }
        macro_rules! hash {
            ($spec:ident, $table:ident) => {
                fill(&spec::$spec, self.$table.count()?, self.$table.capacity())
            };
        }
        let mut fills = vec![
            hash!(FRONTENDS4, frontends4),
            hash!(FRONTENDS6, frontends6),
            fill(&spec::RINGS, self.rings.used()?, self.rings.capacity()),
            fill(
                &spec::BACKENDS,
                self.backends.used()?,
                self.backends.capacity(),
            ),
            fill(
                &spec::SPREADS,
                self.spreads.used()?,
                self.spreads.capacity(),
            ),
            hash!(AFFINITY, affinity),
            hash!(FLOWS4, flows4),
            hash!(FLOWS6, flows6),
            hash!(FRAGMENTS, fragments),
            hash!(REVERSE_SOCKETS, reverse_sockets),
            hash!(DEVICES, devices),
            hash!(ENDPOINTS4, endpoints4),
            hash!(ENDPOINTS6, endpoints6),
            hash!(DNS_NAMES, dns_names),
            hash!(SOURCES, sources),
            hash!(LIMITS, limits),
            hash!(NAMESPACES, namespaces),
            fill(
                &spec::INSIDE,
                self.masquerading.inside.count()?,
                self.masquerading.inside.capacity(),
            ),
            hash!(MEMBERS, members),
            hash!(QUOTAS, quotas),
        ];
        fills.extend(self.policies.fill()?);
        Ok(fills)
    }

    /// Programs, links and tables.
    ///
    /// # Errors
    ///
    /// Those of the kernel, naming what could not be read.
    pub fn status(&self) -> Result<Status, Error> {
        Ok(Status {
            bpffs_root: self.pins.root().to_owned(),
            layout: abi::LAYOUT_VERSION,
            agent_pid: pins::owner(&self.pins),
            kernel: Probe::read(),
            load_balancing: status::balancing(&self.balancing()?),
            host_routing: status::host_routing(&self.host_routing()?),
            dns: status::dns(&self.dns()),
            masquerade: status::masquerade(&self.masquerading.control()?, &self.node()?),
            programs: status::programs(&self.pins)?,
            links: status::links(&self.pins)?,
            tables: self.fill()?,
        })
    }

    /// Programs of others where ours hang, at devices and pods' links of this thread's network namespace and at the
    /// cgroup.
    ///
    /// # Errors
    ///
    /// Those of [`status`](View::status).
    pub fn foreign(&self) -> Result<Vec<Foreign>, Error> {
        let links = status::links(&self.pins)?;
        let here = crate::link::netns()?;
        let ours: BTreeSet<u32> = links.iter().map(|link| link.program_id).collect();
        let mut devices = BTreeSet::new();
        let mut cgroups = BTreeSet::new();
        for link in &links {
            match &link.on {
                Place::Device {
                    name,
                    ifindex,
                    netns,
                } if *netns == here => {
                    devices.insert((name.as_str(), *ifindex));
                }
                Place::Cgroup {
                    path: Some(path), ..
                } if link.hook == "cgroup" => {
                    cgroups.insert(path.as_path());
                }
                Place::Device { .. } | Place::Cgroup { .. } | Place::Gone { .. } => {}
            }
        }
        let mut found = Vec::new();
        for (name, ifindex) in devices {
            found.extend(foreign::at_device(name, ifindex, &ours));
        }
        for path in cgroups {
            found.extend(foreign::at_cgroup(path, &ours)?);
        }
        Ok(found)
    }

    /// Runs a packet program on a packet, on the live tables. `context` is a `struct __sk_buff` or `struct
    /// xdp_md`, or empty. The socket programs cannot be run like this.
    ///
    /// # Errors
    ///
    /// [`Error::NoProgram`] for a name that is not ours, [`Error::Path`] if the kernel refuses.
    pub fn test_run(
        &self,
        program: &str,
        packet: &[u8],
        context: &[u8],
        repeat: u32,
    ) -> Result<TestRun, Error> {
        let path = self.pins.program(program);
        let failed = |error| Error::path("run the program", &path)(error);
        let fd = sys::get(&path, false).map_err(failed)?;
        let ran = sys::test_run(fd.as_fd(), packet, context, repeat).map_err(failed)?;
        Ok(TestRun::from(ran))
    }
}

/// What a program did with a packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TestRun {
    /// What the program returned: a `TC_ACT_*` or an `XDP_*`.
    pub verdict: u32,
    /// The packet afterwards. Where a context was given, what an XDP program left before the packet stands before it.
    pub packet: Vec<u8>,
    /// The context afterwards; empty where none was given. The first word of a `struct xdp_md` is how many octets stand
    /// before the packet.
    pub context: Vec<u8>,
    /// Mean duration of a run in nanoseconds.
    pub duration_ns: u32,
}

impl From<sys::Ran> for TestRun {
    fn from(ran: sys::Ran) -> Self {
        TestRun {
            verdict: ran.verdict,
            packet: ran.packet,
            context: ran.context,
            duration_ns: ran.duration_ns,
        }
    }
}
