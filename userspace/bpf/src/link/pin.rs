//! Names of pinned attachments to devices.

use std::fmt;

use crate::sys;

/// The programs of pods' cgroups, with their attach types.
pub(crate) const CGROUP_PROGRAMS: [(&str, u32); 2] = [
    ("cgroup_ingress", sys::attach::CGROUP_INET_INGRESS),
    ("cgroup_egress", sys::attach::CGROUP_INET_EGRESS),
];

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

/// Name of the pin of an attachment to the cgroup of a pod.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct CgroupPin {
    pub(crate) program: &'static str,
    /// The cgroup's identifier.
    pub(crate) cgroup: u64,
}

impl fmt::Display for CgroupPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.program, self.cgroup)
    }
}

impl CgroupPin {
    /// The label of these attachments.
    pub(crate) const LABEL: &'static str = "pod_cgroup";

    pub(crate) fn parse(name: &str) -> Option<CgroupPin> {
        let (program, cgroup) = name.split_once('-')?;
        let mut ours = CGROUP_PROGRAMS.into_iter();
        Some(CgroupPin {
            program: ours.find(|(ours, _)| *ours == program)?.0,
            cgroup: cgroup.parse().ok()?,
        })
    }
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
                assert_eq!(CgroupPin::parse(&name), None);
            }
        }
        for (program, _) in CGROUP_PROGRAMS {
            let pin = CgroupPin {
                program,
                cgroup: 1 << 33,
            };
            assert_eq!(CgroupPin::parse(&pin.to_string()), Some(pin));
            assert_eq!(DevicePin::parse(&pin.to_string()), None);
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
            assert_eq!(CgroupPin::parse(name), None, "{name}");
        }
    }
}
