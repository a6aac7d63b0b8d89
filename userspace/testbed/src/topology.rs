//! A node with pods and an outside client, out of namespaces.
//!
//! ```text
//!            outside                      node                            pods
//!   uplink 172.31.0.2  fd31::2 ══ uplink 172.31.0.1  fd31::1
//!          172.31.0.3  fd31::3           pod0 169.254.1.1 fe80::1 ── eth0 10.244.0.10 fd10:244::10
//!                                        pod1 169.254.1.1 fe80::1 ── eth0 10.244.0.11 fd10:244::11
//! ```
//!
//! Pods have a host route each and a link-local gateway, so no pod shares a link with another; outside,
//! `.3` stands for a backend on another machine. Outside packets carry whole checksums, as on a wire.

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result};

use crate::bpffs::{self, Bpffs};
use crate::cgroup::{self, Cgroup};
use crate::netns::{self, Netns};
use crate::process::Place;

/// Name of the device that stands for the node's network card, on both ends of its wire.
pub const UPLINK: &str = "uplink";
/// The node's IPv4 address.
pub const NODE4: Ipv4Addr = Ipv4Addr::new(172, 31, 0, 1);
/// The node's IPv6 address.
pub const NODE6: Ipv6Addr = Ipv6Addr::new(0xfd31, 0, 0, 0, 0, 0, 0, 1);
/// The outside client's IPv4 address.
pub const CLIENT4: Ipv4Addr = Ipv4Addr::new(172, 31, 0, 2);
/// The outside client's IPv6 address.
pub const CLIENT6: Ipv6Addr = Ipv6Addr::new(0xfd31, 0, 0, 0, 0, 0, 0, 2);
/// An outside backend's IPv4 address.
pub const REMOTE4: Ipv4Addr = Ipv4Addr::new(172, 31, 0, 3);
/// An outside backend's IPv6 address.
pub const REMOTE6: Ipv6Addr = Ipv6Addr::new(0xfd31, 0, 0, 0, 0, 0, 0, 3);
/// Routed to the node from outside: the default service ranges of Kubernetes, and the pods.
pub const ROUTED: [&str; 4] = [
    "10.96.0.0/12",
    "fd10:96::/112",
    "10.244.0.0/24",
    "fd10:244::/64",
];

/// Where nodes keep files: on a disk, because a store that syncs to memory measures nothing, and where only root
/// writes, because root unmounts and removes there by name.
const FOLDERS: &str = "/var/lib";

/// What every name of ours starts with, before the process id.
const PREFIX: &str = "fl-";

/// A node of its own: namespaces, cgroup, BPF file system and a folder; all of it gone when dropped.
#[derive(Debug)]
pub struct Node {
    id: String,
    pods: Cell<u8>,
    // Processes go first, then what they stood on.
    cgroup: Cgroup,
    outside: Outside,
    netns: Netns,
    bpffs: Bpffs,
    folder: PathBuf,
}

/// The namespace at the other end of the node's uplink.
#[derive(Debug)]
pub struct Outside {
    netns: Netns,
}

/// A pod's namespace, linked to its node; gone when dropped.
#[derive(Debug)]
pub struct Pod {
    name: String,
    netns: Netns,
    cgroup: PathBuf,
    device: String,
    address4: Ipv4Addr,
    address6: Ipv6Addr,
}

impl Node {
    /// Makes a node with its outside client, and sweeps what killed processes left behind.
    ///
    /// # Errors
    ///
    /// Without root, iproute2, ethtool or cgroup2; the message says which.
    pub fn create() -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        sweep();
        let id = format!(
            "{PREFIX}{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let folder = Path::new(FOLDERS).join(&id);
        let cgroup = Cgroup::create(&id)?;
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
        let bpffs = Bpffs::create(&folder.join("bpf"))?;
        let netns = Netns::create(&format!("{id}-node"))?;
        netns.sysctl(HOST)?;
        netns.sysctl(ROUTER)?;
        let outside = Outside {
            netns: Netns::create(&format!("{id}-outside"))?,
        };
        outside.netns.sysctl(HOST)?;
        netns.ip(&format!(
            "link add {UPLINK} type veth peer name {UPLINK} netns {}\n\
             addr add {NODE4}/24 dev {UPLINK}\n\
             addr add {NODE6}/64 dev {UPLINK} nodad\n\
             link set {UPLINK} up\n",
            outside.netns.name()
        ))?;
        outside.netns.ip(&format!(
            "addr add {CLIENT4}/24 dev {UPLINK}\n\
             addr add {REMOTE4}/24 dev {UPLINK}\n\
             addr add {CLIENT6}/64 dev {UPLINK} nodad\n\
             addr add {REMOTE6}/64 dev {UPLINK} nodad preferred_lft 0\n\
             link set {UPLINK} up\n"
        ))?;
        let routes: Vec<String> = ROUTED
            .iter()
            .map(|range| {
                let via = if range.contains(':') {
                    IpAddr::from(NODE6)
                } else {
                    IpAddr::from(NODE4)
                };
                let source = if range.contains(':') {
                    IpAddr::from(CLIENT6)
                } else {
                    IpAddr::from(CLIENT4)
                };
                format!("route add {range} via {via} src {source}\n")
            })
            .collect();
        outside.netns.ip(&routes.concat())?;
        // Whole checksums, as on a wire. GRO gives the device a NAPI, without which what the node's XDP
        // program sends back (XDP_TX) would be dropped.
        outside
            .netns
            .command("ethtool", &["-K", UPLINK, "tx", "off", "gro", "on"], "")?;
        Ok(Self {
            id,
            pods: Cell::new(0),
            cgroup,
            outside,
            netns,
            bpffs,
            folder,
        })
    }

    /// Its name: unique, and the start of the names of its namespaces.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// What is at the other end of its uplink.
    pub fn outside(&self) -> &Outside {
        &self.outside
    }

    /// Its cgroup, below which its pods and its own processes are.
    pub fn cgroup(&self) -> &Path {
        self.cgroup.path()
    }

    /// Its BPF file system.
    pub fn bpffs(&self) -> &Path {
        self.bpffs.path()
    }

    /// A folder for its files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where its own processes run.
    ///
    /// # Errors
    ///
    /// When the cgroup cannot be made.
    pub fn place(&self) -> Result<Place> {
        Ok(Place {
            netns: self.netns.path(),
            cgroup: Some(self.cgroup.below("system")?),
            cpu: None,
        })
    }

    /// Adds a pod with the next addresses.
    ///
    /// # Errors
    ///
    /// As [`Node::create`].
    pub fn add_pod(&self, name: &str) -> Result<Pod> {
        let index = self.pods.get();
        self.pods.set(
            index
                .checked_add(1)
                .filter(|index| *index < 200)
                .context("a node takes 200 pods")?,
        );
        // Written in the same digits: 10.244.0.10 and fd10:244::10.
        let number = index + 10;
        let address4 = Ipv4Addr::new(10, 244, 0, number);
        let digits = u16::from_str_radix(&number.to_string(), 16)?;
        let address6 = Ipv6Addr::new(0xfd10, 0x244, 0, 0, 0, 0, 0, digits);
        let device = format!("pod{index}");
        let cgroup = self.cgroup.below(&format!("pods/{name}"))?;
        let netns = Netns::create(&format!("{}-{name}", self.id))?;
        netns.sysctl(HOST)?;
        self.netns.ip(&format!(
            "link add {device} type veth peer name eth0 netns {}\n\
             addr add 169.254.1.1/32 dev {device} scope link\n\
             addr add fe80::1/64 dev {device} nodad\n\
             link set {device} up\n",
            netns.name()
        ))?;
        netns.ip(&format!(
            "link set eth0 up\n\
             addr add {address4}/32 dev eth0\n\
             addr add {address6}/128 dev eth0 nodad\n\
             route add 169.254.1.1 dev eth0 scope link\n\
             route add default via 169.254.1.1 dev eth0\n\
             route add default via fe80::1 dev eth0\n"
        ))?;
        self.netns.ip(&format!(
            "route add {address4}/32 dev {device} src {NODE4}\n\
             route add {address6}/128 dev {device} src {NODE6}\n"
        ))?;
        Ok(Pod {
            name: name.to_owned(),
            netns,
            cgroup,
            device,
            address4,
            address6,
        })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        bpffs::remove(self.bpffs.path());
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Outside {
    /// Its namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Where outside processes run: in no cgroup of the node's.
    pub fn place(&self) -> Place {
        Place {
            netns: self.netns.path(),
            cgroup: None,
            cpu: None,
        }
    }
}

impl Pod {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Where its processes run: in its own cgroup below the node's.
    pub fn place(&self) -> Place {
        Place {
            netns: self.netns.path(),
            cgroup: Some(self.cgroup.clone()),
            cpu: None,
        }
    }

    /// The node's end of its link.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// Its address of the family.
    pub fn address(&self, v6: bool) -> IpAddr {
        if v6 {
            self.address6.into()
        } else {
            self.address4.into()
        }
    }
}

/// For whoever opens connections: enough ports, ports of closed connections usable again, an early end
/// for those that nothing answers. Time stamps without an offset per peer rise from one connection of a
/// client to the next, whatever address it connects to; a backend that still remembers the old one would
/// otherwise refuse a new connection from the same port.
const HOST: &[(&str, &str)] = &[
    ("net/ipv4/ip_local_port_range", "1024 65535"),
    ("net/ipv4/tcp_tw_reuse", "1"),
    ("net/ipv4/tcp_timestamps", "2"),
    ("net/ipv4/tcp_syn_retries", "3"),
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
    ("net/ipv6/conf/all/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
    ("net/ipv6/conf/default/router_solicitations", "0"),
];

/// For the node: it forwards, and tells nobody of shorter ways, for there are none.
const ROUTER: &[(&str, &str)] = &[
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv6/conf/all/forwarding", "1"),
    ("net/ipv4/conf/all/send_redirects", "0"),
    ("net/ipv4/conf/default/send_redirects", "0"),
];

/// Removes what processes that are gone have left: namespaces, cgroups, mounts, folders.
fn sweep() {
    for name in netns::names(PREFIX)
        .into_iter()
        .filter(|name| orphaned(name))
    {
        netns::remove(&name);
    }
    let entries = |folder: PathBuf| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries
            .filter(|entry| orphaned(&entry.file_name().to_string_lossy()))
            .map(|entry| entry.path())
    };
    if let Ok(mount) = cgroup::mount() {
        entries(mount).for_each(|path| cgroup::remove(&path));
    }
    for folder in entries(PathBuf::from(FOLDERS)) {
        bpffs::remove(&folder.join("bpf"));
        let _ = std::fs::remove_dir_all(folder);
    }
}

/// Whether a name is one of ours and its process is gone.
fn orphaned(name: &str) -> bool {
    name.strip_prefix(PREFIX)
        .and_then(|rest| rest.split('-').next())
        .and_then(|pid| pid.parse::<u32>().ok())
        .is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_processes_that_are_gone_are_swept() {
        let mine = format!("{PREFIX}{}-0", std::process::id());
        let cases = [
            (mine.as_str(), false),
            ("fl-4294967295-0-node", true),
            ("fl-bpf-77", false),
            ("other", false),
        ];
        for (name, expected) in cases {
            assert_eq!(orphaned(name), expected, "{name}");
        }
    }
}
