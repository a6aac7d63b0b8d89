//! What hangs where: attachments are pinned under a name that says what they are, so that any process can find
//! them and a restarted agent can put new programs into them without a packet noticing.

mod device;
mod filter;
mod mode;
mod pin;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use crate::object::{Hook, PROGRAMS, Programs};
use crate::pins::{self, Pins};
use crate::sys::{self, Target};
use crate::{Error, netlink};

pub(crate) use device::{Device, netns};
pub use mode::{DeviceReport, XdpMode};
pub(crate) use pin::{CGROUP_PROGRAMS, CgroupPin, DevicePin, Direction, Way};

/// Attaches and replaces; everything it makes is pinned.
pub(crate) struct Attacher<'a> {
    pub(crate) pins: &'a Pins,
    pub(crate) programs: &'a Programs,
    /// Use TCX rather than tc filters.
    pub(crate) tcx: bool,
}

impl Attacher<'_> {
    /// Attaches the socket programs to a cgroup: new programs take the place of old ones in links that are
    /// there, and a link to another cgroup gives way to one to this.
    pub(crate) fn cgroup(&self, path: &Path) -> Result<(), Error> {
        let (cgroup, id) = pins::open_cgroup(path)?;
        for &(program, hook) in PROGRAMS {
            let Hook::Cgroup(attach_type) = hook else {
                continue;
            };
            let pin = self.pins.link(program);
            let refused = |source| Error::Attach {
                program,
                to: format!("cgroup {}", path.display()),
                source,
            };
            let fd = self.program(program)?;
            let former = pins::open(&pin)?;
            if let Some(link) = &former
                && sys::link_info(link.as_fd()).map_err(refused)?.target == Target::Cgroup(id)
            {
                sys::link_update(link.as_fd(), fd).map_err(refused)?;
                continue;
            }
            let link = sys::link_cgroup(fd, cgroup.as_fd(), attach_type).map_err(refused)?;
            pins::replace(link.as_fd(), &pin)?;
            if let Some(link) = former {
                detach_now(link.as_fd());
            }
        }
        Ok(())
    }

    /// Detaches the socket programs.
    pub(crate) fn no_cgroup(&self) -> Result<(), Error> {
        PROGRAMS
            .iter()
            .filter(|(_, hook)| matches!(hook, Hook::Cgroup(_)))
            .try_for_each(|(program, _)| remove_link(&self.pins.link(program)))
    }

    /// Puts today's programs into every attachment to a device or to a pod's cgroup that an earlier process left, and
    /// forgets those that are gone.
    pub(crate) fn refresh(&self) -> Result<(), Error> {
        for pin in self.cgroup_pins()? {
            let path = self.pins.link(&pin.to_string());
            let Some(link) = pins::open(&path)? else {
                continue;
            };
            let info = sys::link_info(link.as_fd());
            match info.map_err(Error::path("look at the link", &path))?.target {
                Target::Cgroup(id) if id == pin.cgroup => {
                    self.put(&link, pin.program, "a pod's cgroup")?;
                }
                _ => pins::unpin(&path)?,
            }
        }
        let here = netns()?;
        for pin in self.device_pins()? {
            let path = self.pins.link(&pin.to_string());
            let Some(fd) = pins::open(&path)? else {
                continue;
            };
            let old = |source| Error::path("look at the link", &path)(source);
            if let Way::Clsact(direction) = pin.way {
                let info = sys::program_info(fd.as_fd()).map_err(old)?;
                let device = Device::by_index(pin.ifindex);
                match (program_named(&info.name), device) {
                    _ if pin.netns != here => {}
                    (Some(program), Ok(device)) => self.filter(&device, program, direction)?,
                    _ => pins::unpin(&path)?,
                }
                continue;
            }
            let info = sys::link_info(fd.as_fd()).map_err(old)?;
            if info.target != Target::Device(pin.ifindex) {
                pins::unpin(&path)?;
                continue;
            }
            let former = sys::program_by_id(info.program_id)
                .and_then(|fd| sys::program_info(fd.as_fd()))
                .map_err(old)?;
            if let Some(program) = program_named(&former.name) {
                self.put(&fd, program, &pin.device)?;
            }
        }
        Ok(())
    }

    /// Attaches a classifier to one direction of a device.
    pub(crate) fn classifier(
        &self,
        device: &Device,
        program: &'static str,
        direction: Direction,
    ) -> Result<(), Error> {
        let (way, other) = (Way::Tcx(direction), Way::Clsact(direction));
        if !self.tcx {
            self.filter(device, program, direction)?;
            return self.drop_pin(device, way);
        }
        if let Some(link) = self.pinned(device, way)? {
            self.put(&link, program, &device.name)?;
        } else {
            let attach_type = match direction {
                Direction::Ingress => sys::attach::TCX_INGRESS,
                Direction::Egress => sys::attach::TCX_EGRESS,
            };
            let link = sys::link_device(self.program(program)?, device.ifindex, attach_type, 0)
                .map_err(|source| attach_error(program, &device.name, source))?;
            self.keep(device, way, link.as_fd())?;
        }
        self.drop_pin(device, other)
    }

    /// Attaches XDP as asked; says how that went.
    pub(crate) fn xdp(
        &self,
        device: &Device,
        mode: XdpMode,
    ) -> Result<(XdpMode, Option<String>), Error> {
        const PROGRAM: &str = "device_xdp";
        let ways = match mode {
            XdpMode::Auto => &[Way::XdpNative, Way::XdpGeneric][..],
            XdpMode::Native => &[Way::XdpNative],
            XdpMode::Generic => &[Way::XdpGeneric],
            XdpMode::Off => &[],
        };
        for way in [Way::XdpNative, Way::XdpGeneric] {
            if !ways.contains(&way) {
                self.drop_pin(device, way)?;
            }
        }
        for &way in ways {
            if let Some(link) = self.pinned(device, way)? {
                self.put(&link, PROGRAM, &device.name)?;
                return Ok((mode_of(way), None));
            }
        }
        let mut native_refused = None;
        for &way in ways {
            let flags = if way == Way::XdpNative {
                sys::XDP_NATIVE
            } else {
                sys::XDP_GENERIC
            };
            let fd = self.program(PROGRAM)?;
            match sys::link_device(fd, device.ifindex, sys::attach::XDP, flags) {
                Ok(link) => {
                    self.keep(device, way, link.as_fd())?;
                    return Ok((mode_of(way), native_refused));
                }
                Err(error) if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EEXIST)) => {
                    return Err(foreign_xdp(device, error));
                }
                Err(error) if mode == XdpMode::Auto && way == Way::XdpNative => {
                    native_refused = Some(error.to_string());
                }
                Err(error) => return Err(attach_error(PROGRAM, &device.name, error)),
            }
        }
        Ok((XdpMode::Off, None))
    }

    /// Detaches everything of ours from the device with this index, which may be gone already.
    pub(crate) fn detach(&self, ifindex: u32) -> Result<(), Error> {
        let here = netns()?;
        for pin in self.device_pins()? {
            if (pin.netns, pin.ifindex) == (here, ifindex) {
                self.remove(&pin)?;
            }
        }
        Ok(())
    }

    /// Whether XDP of ours is pinned to the device with this index.
    pub(crate) fn has_xdp(&self, ifindex: u32) -> Result<bool, Error> {
        let here = netns()?;
        let xdp = |pin: &DevicePin| matches!(pin.way, Way::XdpNative | Way::XdpGeneric);
        let pins = self.device_pins()?;
        Ok(pins
            .iter()
            .any(|pin| (pin.netns, pin.ifindex) == (here, ifindex) && xdp(pin)))
    }

    /// Every pinned attachment to a device.
    pub(crate) fn device_pins(&self) -> Result<Vec<DevicePin>, Error> {
        Ok(self
            .pins
            .links()?
            .iter()
            .filter_map(|name| DevicePin::parse(name))
            .collect())
    }

    /// Every pinned attachment to the cgroup of a pod.
    pub(crate) fn cgroup_pins(&self) -> Result<Vec<CgroupPin>, Error> {
        let names = self.pins.links()?;
        Ok(names
            .iter()
            .filter_map(|name| CgroupPin::parse(name))
            .collect())
    }

    /// Removes an attachment.
    pub(crate) fn remove(&self, pin: &DevicePin) -> Result<(), Error> {
        let path = self.pins.link(&pin.to_string());
        let Way::Clsact(direction) = pin.way else {
            return remove_link(&path);
        };
        if pin.netns == netns()?
            && let Ok(device) = Device::by_index(pin.ifindex)
        {
            filter::remove(&device, direction);
        }
        pins::unpin(&path)
    }

    /// The live link that is pinned for a device and a way, if there is one.
    fn pinned(&self, device: &Device, way: Way) -> Result<Option<OwnedFd>, Error> {
        let wanted = device.pin(way);
        for pin in self.device_pins()? {
            if (pin.way, pin.netns, pin.ifindex) != (way, wanted.netns, wanted.ifindex) {
                continue;
            }
            let path = self.pins.link(&pin.to_string());
            let Some(link) = pins::open(&path)? else {
                continue;
            };
            let info = sys::link_info(link.as_fd())
                .map_err(|error| Error::path("look at the link", &path)(error))?;
            if info.target != Target::Device(device.ifindex) {
                pins::unpin(&path)?;
                continue;
            }
            if pin != wanted {
                // The device was renamed.
                let renamed = self.pins.link(&wanted.to_string());
                std::fs::rename(&path, &renamed).map_err(Error::path("pin", &renamed))?;
            }
            return Ok(Some(link));
        }
        Ok(None)
    }

    fn keep(&self, device: &Device, way: Way, fd: BorrowedFd<'_>) -> Result<(), Error> {
        pins::replace(fd, &self.pins.link(&device.pin(way).to_string()))
    }

    fn drop_pin(&self, device: &Device, way: Way) -> Result<(), Error> {
        let key = device.pin(way);
        for pin in self.device_pins()? {
            if (pin.way, pin.netns, pin.ifindex) == (key.way, key.netns, key.ifindex) {
                self.remove(&pin)?;
            }
        }
        Ok(())
    }

    fn put(&self, link: &OwnedFd, program: &'static str, device: &str) -> Result<(), Error> {
        sys::link_update(link.as_fd(), self.program(program)?)
            .map_err(|source| attach_error(program, device, source))
    }

    fn program(&self, name: &'static str) -> Result<BorrowedFd<'_>, Error> {
        self.programs
            .get(name)
            .map(AsFd::as_fd)
            .ok_or(Error::NoProgram { program: name })
    }

    fn filter(
        &self,
        device: &Device,
        program: &'static str,
        direction: Direction,
    ) -> Result<(), Error> {
        filter::put(device, program, &self.pins.program(program), direction)?;
        // What can be pinned, to be found again, is the program.
        self.keep(device, Way::Clsact(direction), self.program(program)?)
    }
}

/// Detaches a pinned link and removes the pin.
pub(crate) fn remove_link(path: &Path) -> Result<(), Error> {
    if let Some(link) = pins::open(path)? {
        detach_now(link.as_fd());
    }
    pins::unpin(path)
}

/// Detaches a link that is about to be closed. What it hung on may be gone, and it with that.
fn detach_now(link: BorrowedFd<'_>) {
    let _ = sys::link_detach(link);
}

fn attach_error(program: &'static str, device: &str, source: std::io::Error) -> Error {
    match source.raw_os_error() {
        Some(libc::ENODEV) => Error::NoDevice {
            device: device.to_owned(),
        },
        _ => Error::Attach {
            program,
            to: device.to_owned(),
            source,
        },
    }
}

/// Says whose XDP program is in the way.
fn foreign_xdp(device: &Device, busy: std::io::Error) -> Error {
    match netlink::link(device.ifindex).map(|facts| facts.xdp) {
        Ok(Some((attached, id))) => {
            let name = sys::program_by_id(id)
                .and_then(|fd| sys::program_info(fd.as_fd()))
                .map(|info| info.name)
                .unwrap_or_default();
            let (mode, word) = attached.words();
            let of = |link: &sys::LinkInfo| {
                link.program_id == id && link.target == Target::Device(device.ifindex)
            };
            let remedy = match sys::links().find(of) {
                Some(link) => format!("bpftool link detach id {}", link.id),
                None => format!("ip link set dev {} {word} off", device.name),
            };
            Error::ForeignXdp {
                device: device.name.clone(),
                program: format!("id {id}, name {name:?}"),
                mode,
                remedy,
            }
        }
        _ => attach_error("device_xdp", &device.name, busy),
    }
}

fn mode_of(way: Way) -> XdpMode {
    match way {
        Way::XdpNative => XdpMode::Native,
        Way::XdpGeneric => XdpMode::Generic,
        Way::Tcx(_) | Way::Clsact(_) => XdpMode::Off,
    }
}

/// Our program of that name.
fn program_named(name: &str) -> Option<&'static str> {
    PROGRAMS
        .iter()
        .map(|(program, _)| *program)
        .find(|program| *program == name)
}
