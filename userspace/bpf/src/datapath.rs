//! The agent's hold on the kernel: open, attach, apply.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::atomic::{Ordering, fence};

use abi::balancing::Mode;
use abi::{
    Balancing, Endpoint, Frontend, Host, HostRouting, Member, MemberKey, NodeConfig, RingSlot,
    SpreadWord,
};
use plan::{FrontendKey, Step, Store};

use crate::grow::Aside;
use crate::inherit::{self, Change, Heir, Inherited};
use crate::link::{Attacher, Device, Direction};
use crate::object::{self, Programs};
use crate::pins::{self, Lock, Pins};
use crate::{
    ApplyError, Capacities, DeviceReport, Error, Probe, View, XdpMode, netlink, probe, sys,
};

/// What [`Datapath::open`] needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Directory on a bpffs where everything is pinned; made if need be.
    pub bpffs_root: PathBuf,
    /// Cgroup whose processes are balanced when they connect; `None` leaves balancing to TC and XDP.
    pub cgroup_root: Option<PathBuf>,
    /// Sizes of the tables. Tables that are pinned already may be larger; smaller ones grow.
    pub capacities: Capacities,
    /// Use TCX where the kernel has it; false for tc filters in any case, beside software that only knows those.
    pub tcx: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            bpffs_root: PathBuf::from("/sys/fs/bpf/fairlead"),
            cgroup_root: None,
            capacities: Capacities::default(),
            tcx: true,
        }
    }
}

/// The programs and tables in the kernel, owned by this process. What it made outlives it: dropping it leaves
/// traffic flowing. For reading it is a [`View`].
#[derive(Debug)]
pub struct Datapath {
    view: View,
    programs: Programs,
    settings: Settings,
    inherited: Inherited,
    _lock: Lock,
}

impl Deref for Datapath {
    type Target = View;

    fn deref(&self) -> &View {
        &self.view
    }
}

impl Datapath {
    /// Looks whether this host has what [`Datapath::open`] and attaching to `devices` need, as far as that can be seen
    /// without changing anything.
    ///
    /// # Errors
    ///
    /// Each names what is missing.
    pub fn check(settings: &Settings, devices: &[String]) -> Result<(), Error> {
        probe::require_kernel()?;
        probe::require_capabilities()?;
        if let Some(path) = &settings.cgroup_root {
            pins::open_cgroup(path)?;
        }
        devices
            .iter()
            .try_for_each(|device| Device::by_name(device).map(drop))
    }

    /// Takes over what is pinned below the root, or starts there: tables that exist are kept, those of an earlier layout
    /// taken over, programs are loaded anew and replace those in every link that exists, and the socket programs are
    /// attached.
    ///
    /// # Errors
    ///
    /// Each names what is missing or in the way. What an earlier process left goes on working.
    pub fn open(settings: &Settings) -> Result<Datapath, Error> {
        Self::open_over(settings, inherit::CHANGES)
    }

    /// As [`Datapath::open`], where the layouts before this one differ from it in `changes`.
    ///
    /// # Errors
    ///
    /// Those of [`Datapath::open`].
    pub fn open_over(settings: &Settings, changes: &[Change]) -> Result<Datapath, Error> {
        // Before anything is made, and before the verifier has worked for nothing.
        Self::check(settings, &[])?;
        let pins = Pins::new(&settings.bpffs_root);
        pins.create()?;
        let lock = Lock::acquire(&pins)?;
        let settings = Settings {
            tcx: settings.tcx && Probe::read().tcx,
            ..settings.clone()
        };
        let heir = Heir::find(&pins, changes)?;
        let aside = Aside::set(&pins, &settings.capacities)?;
        let programs = load(&pins, &settings, &aside)?;
        heir.convert()?;
        heir.take_links()?;
        let view = attach_all(pins, &settings, &programs)?;
        aside.finish()?;
        let inherited = heir.finish()?;
        Ok(Datapath {
            view,
            programs,
            settings,
            inherited,
            _lock: lock,
        })
    }

    /// Sizes that the tables were made for. One that is pinned may be larger, see [`View::fill`].
    #[must_use]
    pub fn capacities(&self) -> &Capacities {
        &self.settings.capacities
    }

    /// Swaps tables that are smaller than that for larger ones, and every program for one that uses them. Packets and
    /// connections go on meanwhile, by the old ones and then by the new.
    ///
    /// # Errors
    ///
    /// Those of [`Datapath::open`]; what was attached goes on working then, by the tables that were.
    pub fn grow(&mut self, capacities: &Capacities) -> Result<(), Error> {
        let settings = Settings {
            capacities: *capacities,
            ..self.settings.clone()
        };
        let pins = self.view.pins.clone();
        let aside = Aside::set(&pins, &settings.capacities)?;
        let programs = load(&pins, &settings, &aside)?;
        match attach_all(pins, &settings, &programs) {
            Ok(view) => {
                self.view = view;
                self.programs = programs;
                self.settings = settings;
                aside.finish()
            }
            Err(error) => {
                // Some links may have turned. Nothing was written meanwhile, so that both sides hold the same.
                aside.put_back();
                let pins = self.view.pins.clone();
                attach_all(pins, &self.settings, &self.programs)?;
                Err(error)
            }
        }
    }

    /// What was found of other layouts, and is taken over.
    #[must_use]
    pub fn inherited(&self) -> &Inherited {
        &self.inherited
    }

    /// What is pinned below `bpffs_root`, for another process than the agent's.
    ///
    /// # Errors
    ///
    /// Those of [`View::open`].
    pub fn inspect(bpffs_root: &Path) -> Result<View, Error> {
        View::open(bpffs_root)
    }

    /// Versions of the layouts that something is pinned of below `bpffs_root`, this build's or not.
    ///
    /// # Errors
    ///
    /// [`Error::Path`] if the directory cannot be listed.
    pub fn layouts(bpffs_root: &Path) -> Result<BTreeSet<u32>, Error> {
        let every = Pins::every_layout(bpffs_root)?;
        Ok(every.iter().filter_map(Pins::layout).collect())
    }

    /// Detaches and removes everything below `bpffs_root`, what other versions left included.
    ///
    /// # Errors
    ///
    /// [`Error::Owned`] while an agent runs there.
    pub fn uninstall(bpffs_root: &Path) -> Result<(), Error> {
        let pins = Pins::new(bpffs_root);
        if !pins.root().exists() {
            return Ok(());
        }
        let _lock = Lock::acquire(&pins)?;
        remove_all(pins.root())
    }

    /// Attaches to a device of the node: XDP as asked, and both directions of TC. What is attached already is
    /// replaced in place. The device is looked up in this thread's network namespace. One that nothing of ours was
    /// attached to is left so where this fails.
    ///
    /// # Errors
    ///
    /// [`Error::NoDevice`], [`Error::ForeignXdp`], [`Error::Attach`].
    pub fn attach_device(&mut self, name: &str, mode: XdpMode) -> Result<DeviceReport, Error> {
        let device = Device::by_name(name)?;
        let before = self.attached()?;
        let ifindex = device.ifindex;
        let attached = self.attach_all_to(device, mode);
        if attached.is_err() && !before.contains(&ifindex) {
            self.detach(ifindex)?;
        }
        attached
    }

    fn attach_all_to(&mut self, device: Device, mode: XdpMode) -> Result<DeviceReport, Error> {
        let attacher = self.attacher();
        // TC first: it answers what XDP leaves to it.
        attacher.classifier(&device, "device_ingress", Direction::Ingress)?;
        attacher.classifier(&device, "device_egress", Direction::Egress)?;
        let facts = netlink::link(device.ifindex).map_err(|source| Error::System {
            action: "ask the kernel about a device",
            source,
        })?;
        let transmit = if facts.hardware {
            abi::devices::flags::XDP_TRANSMIT
        } else {
            0
        };
        let without_xdp = abi::Device {
            flags: transmit | abi::devices::flags::TC_RUNS,
        };
        let with_xdp = abi::Device {
            flags: without_xdp.flags | abi::devices::flags::XDP_RUNS,
        };
        // TC is told before XDP begins and after it ended: it must never take what XDP translated for a packet
        // that a client sent so.
        if mode != XdpMode::Off {
            self.set_device(device.ifindex, with_xdp)?;
        }
        let attached = self.attacher().xdp(&device, mode);
        let runs = match &attached {
            Ok((mode, _)) => *mode != XdpMode::Off,
            // What hung there before may still.
            Err(_) => self.attacher().has_xdp(device.ifindex)?,
        };
        if !runs {
            self.set_device(device.ifindex, without_xdp)?;
        }
        let (xdp, native_refused) = attached?;
        Ok(DeviceReport {
            device: device.name,
            ifindex: device.ifindex,
            tcx: self.settings.tcx,
            xdp,
            native_refused,
        })
    }

    /// Attaches to the host's side of a pod's link, given by its index in this thread's network namespace.
    ///
    /// # Errors
    ///
    /// [`Error::NoDevice`], [`Error::Attach`].
    pub fn attach_pod(&mut self, ifindex: u32) -> Result<DeviceReport, Error> {
        let device = Device::by_index(ifindex)?;
        let attacher = self.attacher();
        attacher.classifier(&device, "pod_egress", Direction::Egress)?;
        attacher.classifier(&device, "pod_ingress", Direction::Ingress)?;
        Ok(DeviceReport {
            device: device.name,
            ifindex,
            tcx: self.settings.tcx,
            xdp: XdpMode::Off,
            native_refused: None,
        })
    }

    /// Detaches from the device with this index; it may be gone already.
    ///
    /// # Errors
    ///
    /// [`Error::Path`] if a pin cannot be removed.
    pub fn detach(&mut self, ifindex: u32) -> Result<(), Error> {
        self.attacher().detach(ifindex)?;
        let removed = self.view.devices.remove(&[ifindex]);
        removed.map_err(|(_, error)| error)?;
        let removed = self.view.limits.remove(&[ifindex]);
        removed.map_err(|(_, error)| error)
    }

    /// Tells the programs what a device can do. [`attach_device`](Datapath::attach_device) lets XDP send from
    /// hardware only; whoever knows better of a virtual device says so after attaching.
    ///
    /// # Errors
    ///
    /// [`Error::Full`], [`Error::Table`].
    pub fn set_device(&mut self, ifindex: u32, device: abi::Device) -> Result<(), Error> {
        let written = self.view.devices.insert(&[ifindex], &[device]);
        written.map_err(|(_, error)| error)
    }

    /// Indexes of the devices of this thread's network namespace to which something of ours is attached, those
    /// of an earlier process included.
    ///
    /// # Errors
    ///
    /// [`Error::Path`] if the pins cannot be listed.
    pub fn attached(&self) -> Result<BTreeSet<u32>, Error> {
        let here = crate::link::netns()?;
        let pins = self.attacher().device_pins()?;
        Ok(pins
            .into_iter()
            .filter(|pin| pin.netns == here)
            .map(|pin| pin.ifindex)
            .collect())
    }

    /// Detaches everything and removes every pin: the kernel forgets that Fairlead was there.
    ///
    /// # Errors
    ///
    /// [`Error::Path`] if a pin cannot be removed.
    pub fn detach_all(self) -> Result<(), Error> {
        remove_all(self.view.pins.root())
    }

    /// Tells the programs about this node.
    ///
    /// # Errors
    ///
    /// [`Error::Table`] if the kernel refuses.
    pub fn set_node(&mut self, node: &NodeConfig) -> Result<(), Error> {
        self.view.set_node(node)
    }

    /// Tells the programs which network namespace is the host's, by its cookie.
    ///
    /// # Errors
    ///
    /// [`Error::Table`] if the kernel refuses.
    pub fn set_host(&mut self, netns_cookie: u64) -> Result<(), Error> {
        self.view.set_host(&Host { netns_cookie })
    }

    /// Says where a pod is, so that packets may go straight to it; `None` forgets it.
    ///
    /// # Errors
    ///
    /// [`Error::Full`] where there is no room for another one, [`Error::Table`].
    pub fn set_endpoint(&mut self, addr: IpAddr, endpoint: Option<Endpoint>) -> Result<(), Error> {
        let done = match (addr, endpoint) {
            (IpAddr::V4(addr), Some(to)) => self.view.endpoints4.insert(&[addr.octets()], &[to]),
            (IpAddr::V6(addr), Some(to)) => self.view.endpoints6.insert(&[addr.octets()], &[to]),
            (IpAddr::V4(addr), None) => self.view.endpoints4.remove(&[addr.octets()]),
            (IpAddr::V6(addr), None) => self.view.endpoints6.remove(&[addr.octets()]),
        };
        done.map_err(|(_, error)| error)
    }

    /// Lets packets go straight to pods for a while, or leaves them to the stack.
    ///
    /// # Errors
    ///
    /// [`Error::Table`] if the kernel refuses.
    pub fn set_host_routing(&mut self, lease: &HostRouting) -> Result<(), Error> {
        self.view.set_host_routing(lease)
    }

    /// Says which addresses are the cluster's own, in the place of those that were. Gives how many entries changed.
    ///
    /// # Errors
    ///
    /// [`Error::Full`] where there is no room for another one, [`Error::Table`]; some entries are written then.
    pub fn set_members(&mut self, wanted: &BTreeMap<MemberKey, Member>) -> Result<usize, Error> {
        let held = self.view.members()?;
        let gone: Vec<MemberKey> = held
            .keys()
            .filter(|key| !wanted.contains_key(key))
            .copied()
            .collect();
        let new = wanted
            .iter()
            .filter(|(key, member)| held.get(key) != Some(member));
        let (keys, members): (Vec<MemberKey>, Vec<Member>) = new.unzip();
        let removed = self.view.members.remove(&gone);
        removed.map_err(|(_, error)| error)?;
        let written = self.view.members.insert(&keys, &members);
        written.map_err(|(_, error)| error)?;
        Ok(gone.len() + keys.len())
    }

    /// Notes how external traffic gets to backends of other nodes, for people who look.
    ///
    /// # Errors
    ///
    /// [`Error::Table`] if the kernel refuses.
    pub fn set_balancing(&mut self, mode: Mode) -> Result<(), Error> {
        self.view.set_balancing(&Balancing { mode: mode as u32 })
    }

    /// The tables of policies, to write.
    ///
    /// # Errors
    ///
    /// [`Error::NotLoaded`] if they are gone.
    pub fn policy_table(&self) -> Result<crate::PolicyTable, Error> {
        crate::PolicyTable::open(&self.view.pins)
    }

    /// Whether nothing but ours treats what leaves a device through TCX. Where the kernel has no TCX there are only tc
    /// filters, of which rtnetlink tells. Not of a link with a limit: what goes straight to a pod is not counted there.
    #[must_use]
    pub fn egress_is_ours(&self, ifindex: u32) -> bool {
        let limited = matches!(self.view.limits.get(&ifindex), Ok(Some(_)));
        let alone = !self.settings.tcx
            || sys::query_tcx(ifindex, sys::attach::TCX_EGRESS).is_ok_and(|links| links.len() <= 1);
        alone && !limited
    }

    /// Whether no program but ours sees what arrives at a device, so far as TCX tells. In this thread's network
    /// namespace.
    #[must_use]
    pub fn ingress_is_ours(&self, ifindex: u32) -> bool {
        !self.settings.tcx
            || sys::query_tcx(ifindex, sys::attach::TCX_INGRESS).is_ok_and(|links| links.len() <= 1)
    }

    /// Whether our programs hang on TCX, which needs no queueing discipline: one that is there is somebody else's.
    #[must_use]
    pub fn uses_tcx(&self) -> bool {
        self.settings.tcx
    }

    fn attacher(&self) -> Attacher<'_> {
        Attacher {
            pins: &self.view.pins,
            programs: &self.programs,
            tcx: self.settings.tcx,
        }
    }

    /// Carries out one step that is not a frontend's.
    fn write_array(&self, step: &Step) -> Result<(), Error> {
        match step {
            Step::PutBackend(id, backend) => {
                if self.view.backends.get(*id).service != backend.service {
                    self.view.loads.clear(*id)?;
                }
                self.view.backends.set(*id, backend)
            }
            Step::PutSpread { offset, words } => {
                words.iter().zip(*offset..).try_for_each(|(words, at)| {
                    self.view.spreads.set(at, &SpreadWord { words: *words })
                })
            }
            Step::ClearSpread { offset, len } => (*offset..offset.saturating_add(*len))
                .try_for_each(|at| self.view.spreads.clear(at)),
            Step::RemoveBackend(id) => self.view.backends.clear(*id),
            Step::PutRing { offset, backends } => {
                backends.iter().zip(*offset..).try_for_each(|(id, slot)| {
                    let value = RingSlot {
                        backend: *id,
                        _reserved: 0,
                    };
                    self.view.rings.set(slot, &value)
                })
            }
            Step::ClearRing { offset, len } => (*offset..offset.saturating_add(*len))
                .try_for_each(|slot| self.view.rings.clear(slot)),
            Step::PutFrontend(..)
            | Step::RemoveFrontend(_)
            | Step::PutSource(_)
            | Step::RemoveSource(_) => Ok(()),
        }
    }
}

impl Store for Datapath {
    type Error = ApplyError;

    fn apply(&mut self, steps: &[Step]) -> Result<(), ApplyError> {
        let mut done = 0;
        while let Some(step) = steps.get(done) {
            let rest = &steps[done..];
            let (len, result) = match step {
                Step::PutFrontend(FrontendKey::V4(_), _) => {
                    let (keys, values) = run(rest, put4);
                    (keys.len(), self.view.frontends4.insert(&keys, &values))
                }
                Step::PutFrontend(FrontendKey::V6(_), _) => {
                    let (keys, values) = run(rest, put6);
                    (keys.len(), self.view.frontends6.insert(&keys, &values))
                }
                Step::RemoveFrontend(FrontendKey::V4(_)) => {
                    let (keys, _) = run(rest, remove4);
                    (keys.len(), self.view.frontends4.remove(&keys))
                }
                Step::RemoveFrontend(FrontendKey::V6(_)) => {
                    let (keys, _) = run(rest, remove6);
                    (keys.len(), self.view.frontends6.remove(&keys))
                }
                Step::PutSource(_) => {
                    let (keys, values) = run(rest, put_source);
                    (keys.len(), self.view.sources.insert(&keys, &values))
                }
                Step::RemoveSource(_) => {
                    let (keys, _) = run(rest, remove_source);
                    (keys.len(), self.view.sources.remove(&keys))
                }
                Step::PutBackend(..)
                | Step::PutRing { .. }
                | Step::PutSpread { .. }
                | Step::ClearSpread { .. }
                | Step::ClearRing { .. }
                | Step::RemoveBackend(_) => {
                    let result = self.write_array(step).map_err(|error| (0, error));
                    // What was written must be visible before a frontend leads there.
                    fence(Ordering::Release);
                    (1, result)
                }
            };
            result.map_err(|(at, source)| ApplyError {
                index: done + at,
                source,
            })?;
            done += len;
        }
        Ok(())
    }
}

/// Loads the programs against tables of the wanted sizes, which get what those hold that were set aside.
fn load(pins: &Pins, settings: &Settings, aside: &Aside) -> Result<Programs, Error> {
    let load = || {
        let programs = object::load(pins, &settings.capacities)?;
        // Twice: what comes while the first copy is made, which may take long, is less than that.
        aside.copy()?;
        aside.copy()?;
        Ok(programs)
    };
    load().inspect_err(|_| aside.put_back())
}

/// Turns every link to these programs, and hooks the sockets.
fn attach_all(pins: Pins, settings: &Settings, programs: &Programs) -> Result<View, Error> {
    object::pin(&pins, programs)?;
    let view = View::open_pins(pins, false)?;
    let attacher = Attacher {
        pins: &view.pins,
        programs,
        tcx: settings.tcx,
    };
    attacher.refresh()?;
    match &settings.cgroup_root {
        Some(path) => attacher.cgroup(path)?,
        None => attacher.no_cgroup()?,
    }
    Ok(view)
}

/// The leading steps of one kind, as columns.
fn run<K, V>(steps: &[Step], pick: impl Fn(&Step) -> Option<(K, V)>) -> (Vec<K>, Vec<V>) {
    steps.iter().map_while(pick).unzip()
}

fn put4(step: &Step) -> Option<(abi::FrontendKey4, Frontend)> {
    match step {
        Step::PutFrontend(FrontendKey::V4(key), value) => Some((*key, *value)),
        _ => None,
    }
}

fn put6(step: &Step) -> Option<(abi::FrontendKey6, Frontend)> {
    match step {
        Step::PutFrontend(FrontendKey::V6(key), value) => Some((*key, *value)),
        _ => None,
    }
}

fn remove4(step: &Step) -> Option<(abi::FrontendKey4, ())> {
    match step {
        Step::RemoveFrontend(FrontendKey::V4(key)) => Some((*key, ())),
        _ => None,
    }
}

fn remove6(step: &Step) -> Option<(abi::FrontendKey6, ())> {
    match step {
        Step::RemoveFrontend(FrontendKey::V6(key)) => Some((*key, ())),
        _ => None,
    }
}

fn put_source(step: &Step) -> Option<(abi::SourceKey, abi::Source)> {
    match step {
        Step::PutSource(key) => Some((*key, abi::Source::default())),
        _ => None,
    }
}

fn remove_source(step: &Step) -> Option<(abi::SourceKey, ())> {
    match step {
        Step::RemoveSource(key) => Some((*key, ())),
        _ => None,
    }
}

/// Detaches and unpins everything below a root that this process owns.
fn remove_all(root: &Path) -> Result<(), Error> {
    for pins in Pins::every_layout(root)? {
        let attacher = Attacher {
            pins: &pins,
            programs: &Programs::new(),
            tcx: false,
        };
        for pin in attacher.device_pins()? {
            attacher.remove(&pin)?;
        }
        for pin in attacher.cgroup_pins()? {
            crate::link::remove_link(&pins.link(&pin.to_string()))?;
        }
        attacher.no_cgroup()?;
        pins.remove()?;
    }
    Ok(())
}

/// The agent hands its datapath from thread to thread.
const _: fn() = || {
    fn shared<T: Send + Sync>() {}
    shared::<Datapath>();
};
