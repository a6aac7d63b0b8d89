//! What a process that makes a pod's link needs of a datapath that another process owns: the programs that are
//! pinned, on a link that the owner has not seen yet.
//!
//! No lock is taken. Whoever makes a link attaches before the link leads anywhere, and an agent attaches to links
//! that do: it finds what is pinned here, and puts its own programs there.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use abi::{Device, Endpoint, Limit, Namespace};

use crate::link::{self, Attacher, DevicePin, Direction, Way};
use crate::object::Programs;
use crate::pins::{self, Pins};
use crate::table::{Hash, open_pinned};
use crate::{Error, Probe, spec, sys};

/// The programs of pods' links, pinned by the agent.
#[derive(Debug)]
pub struct PodLinks {
    pins: Pins,
    programs: Programs,
    tcx: bool,
    devices: Hash<u32, Device>,
    endpoints4: Hash<[u8; 4], Endpoint>,
    endpoints6: Hash<[u8; 16], Endpoint>,
    limits: Hash<u32, Limit>,
    namespaces: Hash<u64, Namespace>,
    limiting: OwnedFd,
}

const INGRESS: &str = "pod_ingress";
const EGRESS: &str = "pod_egress";

impl PodLinks {
    /// Opens what is pinned below `bpffs_root`.
    ///
    /// # Errors
    ///
    /// [`Error::NotLoaded`] if nothing is pinned there; others if the kernel refuses.
    pub fn open(bpffs_root: &Path) -> Result<PodLinks, Error> {
        let pins = Pins::new(bpffs_root);
        let mut programs = Programs::new();
        for name in [INGRESS, EGRESS] {
            let program = pins::open(&pins.program(name))?;
            let program = program.ok_or_else(|| Error::NotLoaded {
                path: bpffs_root.to_owned(),
            })?;
            programs.insert(name, program);
        }
        Ok(PodLinks {
            devices: Hash::open(&pins, spec::DEVICES, false)?,
            endpoints4: Hash::open(&pins, spec::ENDPOINTS4, false)?,
            endpoints6: Hash::open(&pins, spec::ENDPOINTS6, false)?,
            limits: Hash::open(&pins, spec::LIMITS, false)?,
            namespaces: Hash::open(&pins, spec::NAMESPACES, false)?,
            limiting: open_pinned(&pins, &spec::LIMITING, false)?.0,
            tcx: Probe::has_tcx(),
            pins,
            programs,
        })
    }

    /// Attaches to the host's side of a link, given by its index in this thread's network namespace.
    ///
    /// # Errors
    ///
    /// [`Error::NoDevice`], [`Error::Attach`].
    pub fn attach(&self, ifindex: u32) -> Result<(), Error> {
        let device = link::Device::by_index(ifindex)?;
        let attacher = self.attacher();
        attacher.classifier(&device, EGRESS, Direction::Egress)?;
        attacher.classifier(&device, INGRESS, Direction::Ingress)
    }

    /// Says which addresses the pod behind a link has, and how it is reached: from then on it may send from no others.
    ///
    /// # Errors
    ///
    /// [`Error::Full`] where there is no room for another one, [`Error::Table`].
    pub fn admit(&self, addresses: &[IpAddr], endpoint: &Endpoint) -> Result<(), Error> {
        for addr in addresses {
            let put = match addr {
                IpAddr::V4(addr) => self.endpoints4.insert(&[addr.octets()], &[*endpoint]),
                IpAddr::V6(addr) => self.endpoints6.insert(&[addr.octets()], &[*endpoint]),
            };
            put.map_err(|(_, error)| error)?;
        }
        let device = Device {
            flags: abi::devices::flags::SOURCE_CHECKED,
        };
        let put = self.devices.insert(&[endpoint.ifindex], &[device]);
        put.map_err(|(_, error)| error)
    }

    /// Says whose the network namespace of a cookie is: session affinity takes its sockets' calls and its packets for
    /// those of one client then. Of the addresses of a family the first counts.
    ///
    /// # Errors
    ///
    /// [`Error::Full`] where there is no room for another one, [`Error::Table`].
    pub fn name_namespace(&self, cookie: u64, addresses: &[IpAddr]) -> Result<(), Error> {
        let mut pod = Namespace::default();
        for addr in addresses.iter().rev() {
            match addr {
                IpAddr::V4(addr) => pod.addr4[..4].copy_from_slice(&addr.octets()),
                IpAddr::V6(addr) => pod.addr6 = addr.octets(),
            }
        }
        let put = self.namespaces.insert(&[cookie], &[pod]);
        put.map_err(|(_, error)| error)
    }

    /// Forgets the network namespaces of those who had one of these addresses.
    fn forget_namespaces(&self, addresses: &[IpAddr]) -> Result<(), Error> {
        for (cookie, pod) in self.namespaces.entries(usize::MAX)? {
            let [a, b, c, d, ..] = pod.addr4;
            let had = [IpAddr::from([a, b, c, d]), IpAddr::from(pod.addr6)];
            if had.iter().any(|addr| addresses.contains(addr)) {
                let removed = self.namespaces.remove(&[cookie]);
                removed.map_err(|(_, error)| error)?;
            }
        }
        Ok(())
    }

    /// Says how much the pod behind a link may send and get.
    ///
    /// # Errors
    ///
    /// [`Error::Full`] where there is no room for another one, [`Error::Table`].
    pub fn limit(&self, ifindex: u32, limit: &Limit) -> Result<(), Error> {
        let put = self.limits.insert(&[ifindex], &[*limit]);
        put.map_err(|(_, error)| error)?;
        sys::update(
            self.limiting.as_fd(),
            &0_u32.to_ne_bytes(),
            &1_u32.to_ne_bytes(),
        )
        .map_err(|source| spec::LIMITING.failed("write", "that there are limits", source))
    }

    /// Whether our programs hang on a link.
    ///
    /// # Errors
    ///
    /// [`Error::Path`] if the pins cannot be read.
    pub fn is_attached(&self, ifindex: u32) -> Result<bool, Error> {
        let here = link::netns()?;
        let mut found = BTreeSet::new();
        for pin in self.attacher().device_pins()? {
            if (pin.netns, pin.ifindex) != (here, ifindex) {
                continue;
            }
            match pin.way {
                Way::Tcx(direction) => {
                    let Some(link) = pins::open(&self.pins.link(&pin.to_string()))? else {
                        continue;
                    };
                    let target = sys::link_info(link.as_fd()).map(|info| info.target);
                    if matches!(target, Ok(sys::Target::Device(at)) if at == ifindex) {
                        found.insert(direction == Direction::Ingress);
                    }
                }
                Way::Clsact(direction) => {
                    found.insert(direction == Direction::Ingress);
                }
                Way::XdpNative | Way::XdpGeneric => {}
            }
        }
        Ok(found.len() == 2)
    }

    /// Forgets a link of this thread's network namespace by its name, whether it is still there or not, and the
    /// addresses that the pod behind it had: nobody else may have them yet. What a process left that was killed while
    /// it attached goes as well.
    ///
    /// # Errors
    ///
    /// [`Error::Path`], [`Error::Table`].
    pub fn forget(&self, device: &str, addresses: &[IpAddr]) -> Result<(), Error> {
        let here = link::netns()?;
        let ours = |pin: &DevicePin| pin.netns == here && pin.device == device;
        for name in self.pins.unfinished()? {
            let finished = name.strip_suffix(pins::NEW).and_then(DevicePin::parse);
            if finished.is_some_and(|pin| ours(&pin)) {
                pins::unpin(&self.pins.link(&name))?;
            }
        }
        let attacher = self.attacher();
        for pin in attacher.device_pins()?.into_iter().filter(ours) {
            attacher.remove(&pin)?;
            let removed = self.devices.remove(&[pin.ifindex]);
            removed.map_err(|(_, error)| error)?;
            let removed = self.limits.remove(&[pin.ifindex]);
            removed.map_err(|(_, error)| error)?;
        }
        self.forget_namespaces(addresses)?;
        for addr in addresses {
            let removed = match addr {
                IpAddr::V4(addr) => self.endpoints4.remove(&[addr.octets()]),
                IpAddr::V6(addr) => self.endpoints6.remove(&[addr.octets()]),
            };
            removed.map_err(|(_, error)| error)?;
        }
        Ok(())
    }

    fn attacher(&self) -> Attacher<'_> {
        Attacher {
            pins: &self.pins,
            programs: &self.programs,
            tcx: self.tcx,
        }
    }
}
