//! What hangs where: attachments are pinned under a name that says what they are, so that any process can find
//! them and a restarted agent can put new programs into them without a packet noticing.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::str::FromStr;

use aya::programs::tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle};
use aya::programs::{SchedClassifier, TcAttachType};
use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice};
use serde::Serialize;

use crate::object::{Hook, PROGRAMS, Programs};
use crate::pins::{self, Pins};
use crate::sys::{self, Target};
use crate::{Error, netlink};

/// Priority and handle of our tc filters: fixed, so that a restarted agent replaces its own.
const FILTER_PRIORITY: u16 = 0xfa1;
const FILTER_HANDLE: TcHandle = TcHandle::new(0, 1);

/// How XDP is to be attached, or is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// In the driver where it can, else generic.
    #[default]
    Auto,
    /// In the driver, before the kernel allocates anything for a packet.
    Native,
    /// In the kernel's receive path: works on every device, costs more.
    Generic,
    /// Not at all: TC does the work.
    Off,
}

impl fmt::Display for XdpMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            XdpMode::Auto => "auto",
            XdpMode::Native => "native",
            XdpMode::Generic => "generic",
            XdpMode::Off => "off",
        })
    }
}

impl FromStr for XdpMode {
    type Err = String;

    fn from_str(text: &str) -> Result<XdpMode, String> {
        match text {
            "auto" => Ok(XdpMode::Auto),
            "native" => Ok(XdpMode::Native),
            "generic" => Ok(XdpMode::Generic),
            "off" => Ok(XdpMode::Off),
            other => Err(format!(
                "no XDP mode {other:?}: there are auto, native, generic and off"
            )),
        }
    }
}

/// What was attached to a device.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct DeviceReport {
    /// Name of the device.
    pub device: String,
    /// Its index.
    pub ifindex: u32,
    /// Whether classifiers hang on TCX; otherwise they are tc filters.
    pub tcx: bool,
    /// How XDP is attached: native, generic, or off.
    pub xdp: XdpMode,
    /// Why XDP is not native, where the device or its driver refused that.
    pub native_refused: Option<String>,
}

/// A direction of TC, seen from the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Direction {
    Ingress,
    Egress,
}

/// A way to attach to a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    Tcx(Direction),
    Clsact(Direction),
    XdpNative,
    XdpGeneric,
}

impl Way {
    const ALL: &'static [(Way, &'static str)] = &[
        (Way::Tcx(Direction::Ingress), "tcx_ingress"),
        (Way::Tcx(Direction::Egress), "tcx_egress"),
        (Way::Clsact(Direction::Ingress), "clsact_ingress"),
        (Way::Clsact(Direction::Egress), "clsact_egress"),
        (Way::XdpNative, "xdp_native"),
        (Way::XdpGeneric, "xdp_generic"),
    ];

    pub(crate) fn label(self) -> &'static str {
        Way::ALL
            .iter()
            .find(|(way, _)| *way == self)
            .map_or("", |(_, label)| label)
    }
}

/// Name of the pin of an attachment to a device. The network namespace is part of it because an index names a
/// device only there; the device's own name is for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct DevicePin {
    pub(crate) way: Way,
    /// Inode number of the network namespace.
    pub(crate) netns: u64,
    pub(crate) ifindex: u32,
    pub(crate) device: String,
}

impl fmt::Display for DevicePin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}-", self.way.label(), self.netns, self.ifindex)?;
        // bpffs keeps names with dots for itself; a tilde marks a pin in the making.
        for c in self.device.chars() {
            match c {
                '.' => f.write_str("%2e")?,
                '~' => f.write_str("%7e")?,
                '%' => f.write_str("%25")?,
                c => write!(f, "{c}")?,
            }
        }
        Ok(())
    }
}

impl DevicePin {
    pub(crate) fn parse(name: &str) -> Option<DevicePin> {
        let mut parts = name.splitn(4, '-');
        let label = parts.next()?;
        Some(DevicePin {
            way: Way::ALL.iter().find(|(_, text)| *text == label)?.0,
            netns: parts.next()?.parse().ok()?,
            ifindex: parts.next()?.parse().ok()?,
            device: parts
                .next()?
                .replace("%2e", ".")
                .replace("%7e", "~")
                .replace("%25", "%"),
        })
    }
}

/// A device of this thread's network namespace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Device {
    pub(crate) name: String,
    pub(crate) ifindex: u32,
    netns: u64,
}

impl Device {
    pub(crate) fn by_name(name: &str) -> Result<Device, Error> {
        let missing = || Error::NoDevice {
            device: name.to_owned(),
        };
        let ifindex = netdevice::name_to_index(query_socket()?, name).map_err(|_| missing())?;
        Ok(Device {
            name: name.to_owned(),
            ifindex,
            netns: netns()?,
        })
    }

    pub(crate) fn by_index(ifindex: u32) -> Result<Device, Error> {
        let name =
            netdevice::index_to_name(query_socket()?, ifindex).map_err(|_| Error::NoDevice {
                device: format!("with index {ifindex}"),
            })?;
        Ok(Device {
            name,
            ifindex,
            netns: netns()?,
        })
    }

    fn pin(&self, way: Way) -> DevicePin {
        DevicePin {
            way,
            netns: self.netns,
            ifindex: self.ifindex,
            device: self.name.clone(),
        }
    }
}

fn query_socket() -> Result<OwnedFd, Error> {
    rustix::net::socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(|error| Error::System {
        action: "open a socket to ask for devices",
        source: error.into(),
    })
}

/// Inode number of this thread's network namespace.
pub(crate) fn netns() -> Result<u64, Error> {
    let path = Path::new("/proc/thread-self/ns/net");
    rustix::fs::stat(path)
        .map(|stat| stat.st_ino)
        .map_err(|error| Error::path("look at", path)(error.into()))
}

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

    /// Puts today's programs into every attachment to a device that an earlier process left, and forgets
    /// devices that are gone.
    pub(crate) fn refresh(&self) -> Result<(), Error> {
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

    /// Every pinned attachment to a device.
    pub(crate) fn device_pins(&self) -> Result<Vec<DevicePin>, Error> {
        Ok(self
            .pins
            .links()?
            .iter()
            .filter_map(|name| DevicePin::parse(name))
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
            let filter = filter_link(&device, direction)
                .map_err(|error| filter_error("its program", &device.name, error))?;
            // A filter that somebody removed before us is as gone as we want it.
            let _ = aya::programs::links::Link::detach(filter);
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

    /// Attaches a classifier as a tc filter, for kernels before TCX. The filter outlives us by itself; what is
    /// pinned is its program, so that it can be found.
    fn filter(
        &self,
        device: &Device,
        program: &'static str,
        direction: Direction,
    ) -> Result<(), Error> {
        let failed = |error: aya::programs::ProgramError| {
            filter_error(program, &device.name, Box::new(error))
        };
        match tc::qdisc_add_clsact(&device.name) {
            Ok(()) => {}
            Err(tc::TcError::NetlinkError(error)) if error.raw_os_error() == Some(libc::EEXIST) => {
            }
            Err(error) => return Err(filter_error(program, &device.name, Box::new(error))),
        }
        let mut classifier =
            SchedClassifier::from_pin(self.pins.program(program)).map_err(failed)?;
        let old = filter_link(device, direction)
            .map_err(|error| filter_error(program, &device.name, error))?;
        // Replaces our own filter; where there is none yet the kernel refuses, and one is made.
        let id = classifier.attach_to_link(old).or_else(|_| {
            let options = NlOptions {
                priority: FILTER_PRIORITY,
                handle: FILTER_HANDLE,
                ..NlOptions::default()
            };
            classifier.attach_with_options(
                &device.name,
                attach_type(direction),
                TcAttachOptions::Netlink(options),
            )
        });
        let link = id.and_then(|id| classifier.take_link(id)).map_err(failed)?;
        // aya would detach on drop; this filter has to outlive the process.
        std::mem::forget(link);
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

fn attach_type(direction: Direction) -> TcAttachType {
    match direction {
        Direction::Ingress => TcAttachType::Ingress,
        Direction::Egress => TcAttachType::Egress,
    }
}

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Our filter on a device, whether it is there or not.
fn filter_link(device: &Device, direction: Direction) -> Result<SchedClassifierLink, Cause> {
    Ok(SchedClassifierLink::attached(
        &device.name,
        attach_type(direction),
        FILTER_PRIORITY,
        FILTER_HANDLE,
        None,
    )?)
}

fn filter_error(program: &'static str, device: &str, source: Cause) -> Error {
    Error::AttachFilter {
        program,
        to: device.to_owned(),
        source,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pin_names_are_read_back() {
        for (way, _) in Way::ALL {
            for device in ["eth0", "eth0.100", "a-b%2e~x", "%25"] {
                let pin = DevicePin {
                    way: *way,
                    netns: 4_026_531_840,
                    ifindex: 12,
                    device: device.to_owned(),
                };
                let name = pin.to_string();
                assert!(!name.contains(['.', '~', '/']), "{name}");
                assert_eq!(DevicePin::parse(&name), Some(pin));
            }
        }
    }

    #[test]
    fn other_names_are_no_device_pins() {
        for name in [
            "connect4",
            "tcx_ingress",
            "tcx_ingress-x-1-eth0",
            "xdp-1-1-eth0",
            "",
        ] {
            assert_eq!(DevicePin::parse(name), None, "{name}");
        }
    }

    #[test]
    fn program_names_fit_the_kernel() {
        for (name, _) in PROGRAMS {
            assert!(name.len() < 16, "{name} would be cut short by the kernel");
        }
    }
}
