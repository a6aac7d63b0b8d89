//! What the kernel holds, in words: programs, links, tables.

use std::os::fd::AsFd;
use std::path::PathBuf;

use serde::Serialize;

use crate::link::{CgroupPin, DevicePin, Way};
use crate::object::{Hook, PROGRAMS};
use crate::pins::{self, Pins};
use crate::sys::{self, Target};
use crate::view::Fill;
use crate::{Error, Probe};

/// What the kernel holds for one root of pins.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The root of the pins.
    pub bpffs_root: PathBuf,
    /// Version of the tables' layout.
    pub layout: u32,
    /// The running agent, if there is one.
    pub agent_pid: Option<u32>,
    /// What the kernel can do.
    pub kernel: Probe,
    /// How external traffic gets to backends of other nodes: `snat`, `dsr` or `hybrid`.
    pub load_balancing: &'static str,
    /// Which way packets for pods of this node take.
    pub host_routing: HostRoutingStatus,
    /// Who answers DNS queries of this node's pods.
    pub dns: DnsStatus,
    /// What pods' packets that leave the cluster have as their source.
    pub masquerade: MasqueradeStatus,
    /// Loaded programs.
    pub programs: Vec<ProgramStatus>,
    /// What they are attached to.
    pub links: Vec<LinkStatus>,
    /// How full the tables are.
    pub tables: Vec<Fill>,
}

/// Which way packets for pods of this node take, by family.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HostRoutingStatus {
    /// IPv4.
    pub ipv4: RoutingMode,
    /// IPv6.
    pub ipv6: RoutingMode,
}

/// A way, and the reason for it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct RoutingMode {
    /// `bpf`: straight to the pod. `kernel`: through the host's stack.
    pub mode: &'static str,
    /// Why, in words.
    pub reason: &'static str,
}

/// Reads what the agent was told.
pub(crate) fn balancing(told: &abi::Balancing) -> &'static str {
    use abi::balancing::Mode;
    let known = Mode::ALL.iter().find(|mode| **mode as u32 == told.mode);
    known.map_or("unknown", |mode| mode.label())
}

/// Reads a lease.
pub(crate) fn host_routing(lease: &abi::HostRouting) -> HostRoutingStatus {
    use abi::host_routing::Reason;
    let now_secs = crate::now_secs();
    let mode = |until_secs: u32, reason: u32| {
        let (mode, reason) = if until_secs > now_secs {
            ("bpf", Reason::None.label())
        } else if until_secs != 0 {
            ("kernel", "no agent follows the host's routes and firewall")
        } else {
            let known = Reason::ALL.iter().find(|known| **known as u32 == reason);
            ("kernel", known.map_or("unknown", |reason| reason.label()))
        };
        RoutingMode { mode, reason }
    };
    HostRoutingStatus {
        ipv4: mode(lease.until_secs4, lease.reason4),
        ipv6: mode(lease.until_secs6, lease.reason6),
    }
}

/// Who answers DNS queries of this node's pods.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DnsStatus {
    /// `bpf`: the programs answer for names of Services. `server`: nobody does before the server.
    pub answers: RoutingMode,
    /// `local`: queries go to this node's own instance. `service`: to any endpoint of the DNS Service.
    pub queries: RoutingMode,
    /// Names that found no room in the table and are answered by the server.
    pub names_left_out: u16,
}

/// Reads what the holder of the DNS zone says.
pub(crate) fn dns(control: &abi::DnsControl) -> DnsStatus {
    use abi::dns::Reason;
    let now_secs = crate::now_secs();
    let mode = |until_secs: u32, reason: u8, [with, without]: [&'static str; 2]| {
        let (mode, reason) = if until_secs > now_secs {
            (with, Reason::None.label())
        } else if until_secs > 1 {
            (without, "the DNS server of this node ended or hangs")
        } else {
            let known = Reason::ALL.iter().find(|known| **known as u8 == reason);
            (without, known.map_or("unknown", |reason| reason.label()))
        };
        RoutingMode { mode, reason }
    };
    DnsStatus {
        answers: mode(
            control.answers_until_secs,
            control.answers_reason,
            ["bpf", "server"],
        ),
        queries: mode(
            control.local_until_secs,
            control.local_reason,
            ["local", "service"],
        ),
        names_left_out: control.left_out,
    }
}

/// What pods' packets that leave the cluster have as their source, by family.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MasqueradeStatus {
    /// IPv4.
    pub ipv4: RoutingMode,
    /// IPv6.
    pub ipv6: RoutingMode,
}

/// Reads whether sources are translated.
pub(crate) fn masquerade(control: &abi::Masquerade, node: &abi::NodeConfig) -> MasqueradeStatus {
    use abi::masquerade::families;
    let mode = |family: u32, has_address: bool| {
        let on = control.families & family != 0;
        let (mode, reason) = match (on, has_address) {
            (false, _) => ("pod", "nothing translates the pods' addresses"),
            (true, true) => (
                "node",
                "this node's address, where a device of --devices sends",
            ),
            (true, false) => (
                "none",
                "this node has no address of the family: they are dropped",
            ),
        };
        RoutingMode { mode, reason }
    };
    MasqueradeStatus {
        ipv4: mode(families::V4, node.addr4 != [0; 4]),
        ipv6: mode(families::V6, node.addr6 != [0; 16]),
    }
}

/// A loaded program.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProgramStatus {
    /// Its name.
    pub name: String,
    /// The kernel's identifier.
    pub id: u32,
    /// Digest of its instructions.
    pub tag: String,
    /// Instructions that the verifier walked through.
    pub verified_instructions: u32,
    /// Size of the machine code in bytes; zero when interpreted.
    pub jited_bytes: u32,
    /// How often it ran, while `kernel.bpf_stats_enabled` was set.
    pub run_count: u64,
    /// For how long altogether, in nanoseconds.
    pub run_time_ns: u64,
}

/// An attached program.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LinkStatus {
    /// The kernel's identifier of the link; `None` for a tc filter, which has none.
    pub id: Option<u32>,
    /// How it is attached: `cgroup`, `pod_cgroup`, `tcx_ingress`, `tcx_egress`, `clsact_ingress`, `clsact_egress`,
    /// `xdp_native` or `xdp_generic`.
    pub hook: &'static str,
    /// Name of the program.
    pub program: String,
    /// Identifier of the program.
    pub program_id: u32,
    /// What it hangs on.
    pub on: Place,
}

/// What a program hangs on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// A cgroup.
    Cgroup {
        /// Its identifier, the inode number of its directory.
        id: u64,
        /// Its directory, where it can be found.
        path: Option<PathBuf>,
    },
    /// A device.
    Device {
        /// Its name when it was attached.
        name: String,
        /// Its index.
        ifindex: u32,
        /// Inode number of its network namespace.
        netns: u64,
    },
    /// What it hung on is gone.
    Gone {
        /// What that was.
        was: String,
    },
}

pub(crate) fn programs(pins: &Pins) -> Result<Vec<ProgramStatus>, Error> {
    let mut list = Vec::new();
    for (name, _) in PROGRAMS {
        let path = pins.program(name);
        let Some(fd) = pins::open(&path)? else {
            continue;
        };
        let info = sys::program_info(fd.as_fd())
            .map_err(|error| Error::path("look at the program", &path)(error))?;
        list.push(ProgramStatus {
            name: (*name).to_owned(),
            id: info.id,
            tag: info.tag.iter().map(|byte| format!("{byte:02x}")).collect(),
            verified_instructions: info.verified_instructions,
            jited_bytes: info.jited_bytes,
            run_count: info.run_count,
            run_time_ns: info.run_time_ns,
        });
    }
    Ok(list)
}

pub(crate) fn links(pins: &Pins) -> Result<Vec<LinkStatus>, Error> {
    let mut list = Vec::new();
    let mut cgroup: Option<(u64, Option<PathBuf>)> = None;
    for name in pins.links()? {
        let path = pins.link(&name);
        let Some(fd) = pins::open(&path)? else {
            continue;
        };
        let failed = |error| Error::path("look at the link", &path)(error);
        let pin = DevicePin::parse(&name);
        if let Some(pin) = &pin
            && matches!(pin.way, Way::Clsact(_))
        {
            let info = sys::program_info(fd.as_fd()).map_err(failed)?;
            list.push(LinkStatus {
                id: None,
                hook: pin.way.label(),
                program: info.name,
                program_id: info.id,
                on: device(pin),
            });
            continue;
        }
        let info = sys::link_info(fd.as_fd()).map_err(failed)?;
        let program = sys::program_by_id(info.program_id)
            .and_then(|fd| sys::program_info(fd.as_fd()))
            .map(|info| info.name)
            .unwrap_or_default();
        let of_pod = CgroupPin::parse(&name).map(|pin| pin.cgroup);
        let (hook, on) = match (pin, info.target) {
            (None, Target::Cgroup(id)) if of_pod == Some(id) => {
                let path = cgroup_directory(id);
                (CgroupPin::LABEL, Place::Cgroup { id, path })
            }
            (None, _) if of_pod.is_some() => (
                CgroupPin::LABEL,
                Place::Gone {
                    was: "cgroup".to_owned(),
                },
            ),
            (Some(pin), Target::Device(ifindex)) if ifindex == pin.ifindex => {
                (pin.way.label(), device(&pin))
            }
            (Some(pin), _) => (
                pin.way.label(),
                Place::Gone {
                    was: pin.device.clone(),
                },
            ),
            (None, Target::Cgroup(id)) if id != 0 => {
                // The nine hooks hang on one cgroup: look for its directory once.
                let path = match &cgroup {
                    Some((known, path)) if *known == id => path.clone(),
                    _ => cgroup_directory(id),
                };
                cgroup = Some((id, path.clone()));
                ("cgroup", Place::Cgroup { id, path })
            }
            (None, _) if is_cgroup_program(&name) => (
                "cgroup",
                Place::Gone {
                    was: "cgroup".to_owned(),
                },
            ),
            // Not a pin of ours.
            (None, _) => continue,
        };
        list.push(LinkStatus {
            id: Some(info.id),
            hook,
            program,
            program_id: info.program_id,
            on,
        });
    }
    Ok(list)
}

fn device(pin: &DevicePin) -> Place {
    Place::Device {
        name: pin.device.clone(),
        ifindex: pin.ifindex,
        netns: pin.netns,
    }
}

fn is_cgroup_program(name: &str) -> bool {
    PROGRAMS
        .iter()
        .any(|(program, hook)| *program == name && matches!(hook, Hook::Cgroup(_)))
}

/// Looks for a cgroup in every mounted unified hierarchy.
fn cgroup_directory(id: u64) -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounts
        .lines()
        .filter(|line| line.contains(" - cgroup2 "))
        .filter_map(|line| line.split(' ').nth(4))
        .find_map(|mount| pins::cgroup_path(mount.as_ref(), id))
}
