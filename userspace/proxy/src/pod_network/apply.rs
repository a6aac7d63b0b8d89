//! Makes the host as it is wanted, and tells the plugin of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use net::{Address, Device, Route, Rtnl, Vxlan};
use serde_json::{Value, json};
use tracing::{info, warn};
use view::NodeRanges;

use super::wanted::{End, Hop, Host, Wanted, wanted};
use super::{Settings, inside};
use crate::Error;

/// The tunnel's device.
const TUNNEL: &str = "fairlead.vxlan";
/// The network identifier in every packet of ours.
const VNI: u32 = 4_001;
/// RFC 7348 section 8.
const PORT: u16 = 4_789;
/// What runtimes start.
const PLUGIN: &str = "fairlead-cni";
/// Runtimes take the first in order of names.
const CONF_FILE: &str = "10-fairlead.conflist";

/// Keeps the host of the thread that calls it.
#[derive(Debug)]
pub struct Keeper {
    settings: Settings,
    /// What was made last.
    made: Option<Wanted>,
    missing: bool,
}

impl Keeper {
    /// Begins; nothing is made yet.
    #[must_use]
    pub fn new(settings: Settings) -> Keeper {
        Keeper {
            settings,
            made: None,
            missing: false,
        }
    }

    /// Makes what is wanted; returns whether that is something new.
    ///
    /// # Errors
    ///
    /// [`Error::Host`]: what could be made is made.
    pub fn keep(&mut self, nodes: &BTreeMap<String, NodeRanges>) -> Result<bool, Error> {
        let rtnl = Rtnl::open()?;
        let devices = rtnl.devices()?;
        let host = host(&rtnl, &devices)?;
        let this = &self.settings.node_name;
        let Some(mut wanted) = wanted(this, nodes, &host, self.settings.overlay) else {
            if !std::mem::replace(&mut self.missing, true) {
                warn!(
                    node = this,
                    "there is no Node object of that name: pods have no addresses here"
                );
            }
            return Ok(false);
        };
        self.missing = false;
        wanted.node.host_ports = self.settings.host_ports;
        let before = self.made.as_ref().map(|made| &made.unreachable);
        if before != Some(&wanted.unreachable) {
            for why in &wanted.unreachable {
                warn!("the pods of another node are out of reach: {why}");
            }
        }
        for v6 in [false, true] {
            let ranges = wanted.node.pod_cidrs.iter();
            if ranges
                .map(|range| range.addr())
                .any(|addr| addr.is_ipv6() == v6)
            {
                net::forward(v6)?;
            }
        }
        let tunnel = match wanted.end {
            Some(end) => Some(tunnel(&rtnl, &devices, &end)?),
            None => None,
        };
        self.lead(&rtnl, tunnel, &wanted)?;
        let masqueraded = self.masquerade(nodes);
        // Last: a plugin that reads it finds the rest in place.
        self.tell(&wanted)?;
        masqueraded?;
        let new = self.made.as_ref() != Some(&wanted);
        self.made = Some(wanted);
        Ok(new)
    }

    /// Routes, and who is at the other ends of the tunnel.
    fn lead(&self, rtnl: &Rtnl, tunnel: Option<u32>, wanted: &Wanted) -> Result<(), Error> {
        let there: BTreeSet<Route> = rtnl.routes()?.into_iter().filter(is_ours_route).collect();
        let mut routes = BTreeSet::new();
        for (range, hop) in &wanted.hops {
            let to = Address {
                addr: range.network(),
                prefix_len: range.prefix_len(),
            };
            let route = match (*hop, tunnel) {
                (Hop::Node(addr, ifindex), _) => Route {
                    via: Some(addr),
                    ..Route::over(to, ifindex)
                },
                (Hop::Tunnel(address, node), Some(ifindex)) => {
                    let end = end_of(to.addr, address);
                    rtnl.set_neighbour(ifindex, end, address)?;
                    rtnl.set_forwarding(ifindex, address, node)?;
                    Route {
                        via: Some(end),
                        onlink: true,
                        ..Route::over(to, ifindex)
                    }
                }
                (Hop::Tunnel(..), None) => continue,
            };
            if !there.iter().any(|other| leads_alike(other, &route)) {
                rtnl.replace_route(&route)?;
            }
            routes.insert(route);
        }
        for route in &there {
            if !routes.iter().any(|other| leads_alike(other, route)) {
                rtnl.remove_route(route)?;
            }
        }
        let ends = |wanted: &Wanted| -> BTreeSet<([u8; 6], IpAddr)> {
            let ends = wanted.hops.values().filter_map(|hop| match hop {
                Hop::Tunnel(address, node) => Some((*address, *node)),
                Hop::Node(..) => None,
            });
            ends.collect()
        };
        if let (Some(made), Some(ifindex)) = (&self.made, tunnel) {
            for (address, node) in ends(made).difference(&ends(wanted)) {
                rtnl.remove_forwarding(ifindex, *address, *node)?;
            }
        }
        Ok(())
    }

    /// What pods send out of the cluster.
    fn masquerade(&self, nodes: &BTreeMap<String, NodeRanges>) -> Result<(), Error> {
        let settings = &self.settings;
        if !settings.masquerade {
            return Ok(()); // The proxy has switched it off.
        }
        let this = &settings.node_name;
        let ranges = inside::inside(this, nodes, &settings.non_masquerade_cidrs);
        let table = bpf::Masquerading::open(&settings.bpffs_root)?;
        Ok(table.set(&ranges, inside::how(this, nodes))?)
    }

    /// The plugin's file, and the network's configuration once there is something to configure.
    fn tell(&self, wanted: &Wanted) -> Result<(), Error> {
        let settings = &self.settings;
        let text = serde_json::to_string_pretty(&wanted.node).unwrap_or_default();
        write(&settings.node_file, &text)?;
        if wanted.node.pod_cidrs.is_empty() {
            return Ok(());
        }
        let mut capabilities = json!({"ips": true, "mac": true, "bandwidth": true});
        if settings.host_ports {
            capabilities["portMappings"] = json!(true);
        }
        let conf = json!({
            // What runtimes of before 1.1 read; the others choose from the list.
            "cniVersion": "1.0.0",
            "cniVersions": ["0.4.0", "1.0.0", "1.1.0"],
            "name": "fairlead",
            "plugins": [{
                "type": PLUGIN,
                "nodeFile": settings.node_file,
                "bpffsRoot": settings.bpffs_root,
                "capabilities": capabilities,
            }],
        });
        let path = settings.conf_dir.join(CONF_FILE);
        if write(&path, &format!("{conf:#}\n"))? {
            info!(file = %path.display(), "container runtimes find the network there");
        }
        Ok(())
    }
}

/// Takes away what keepers made and no agent needs any more: the network's configuration first, so that no pod is begun;
/// then the plugin's file, the routes to other nodes' pods and the tunnel. Pods of this node keep their links.
///
/// # Errors
///
/// [`Error::Host`]: what could be removed is removed.
pub fn remove(conf_dir: &Path, node_file: &Path) -> Result<(), Error> {
    let conf = conf_dir.join(CONF_FILE);
    let is_ours = |text: String| {
        let conf: Option<Value> = serde_json::from_str(&text).ok();
        conf.is_some_and(|conf| conf["plugins"][0]["type"] == PLUGIN)
    };
    if fs::read_to_string(&conf).is_ok_and(is_ours) {
        remove_file(&conf)?;
    }
    remove_file(node_file)?;
    let rtnl = Rtnl::open()?;
    for route in rtnl.routes()?.iter().filter(|route| is_ours_route(route)) {
        rtnl.remove_route(route)?;
    }
    let devices = rtnl.devices()?;
    let tunnel = devices
        .iter()
        .find(|device| device.name == TUNNEL && device.kind.as_deref() == Some("vxlan"));
    match tunnel {
        Some(device) => Ok(rtnl.remove_device(device.ifindex)?),
        None => Ok(()),
    }
}

fn remove_file(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::Host(net::Error::Path {
                action: "remove",
                path: path.to_owned(),
                source,
            }))
        }
        _ => Ok(()),
    }
}

/// Subnets on links that lead to other hosts.
fn host(rtnl: &Rtnl, devices: &[Device]) -> Result<Host, Error> {
    let mut subnets = Vec::new();
    for (ifindex, address) in rtnl.all_addresses()? {
        let device = devices.iter().find(|device| device.ifindex == ifindex);
        let Some(device) = device.filter(|device| device.up && device.name != TUNNEL) else {
            continue;
        };
        let alone = match address.addr {
            IpAddr::V4(addr) => {
                addr.is_loopback() || addr.is_link_local() || address.prefix_len == 32
            }
            IpAddr::V6(addr) => {
                addr.is_loopback() || addr.is_unicast_link_local() || address.prefix_len == 128
            }
        };
        if let (false, Ok(subnet)) = (alone, IpNet::new(address.addr, address.prefix_len)) {
            subnets.push((subnet.trunc(), ifindex, device.mtu));
        }
    }
    Ok(Host { subnets })
}

/// This node's end of the tunnel, made or made anew.
fn tunnel(rtnl: &Rtnl, devices: &[Device], end: &End) -> Result<u32, Error> {
    let there = devices.iter().find(|device| device.name == TUNNEL);
    if let Some(device) = there {
        let same = device.kind.as_deref() == Some("vxlan")
            && device.hardware_address == end.hardware_address;
        if same {
            if device.mtu != end.mtu {
                rtnl.set_mtu(device.ifindex, end.mtu)?;
            }
            if !device.up {
                rtnl.set_up(device.ifindex)?;
            }
            return Ok(device.ifindex);
        }
        // Its Ethernet address follows from this node's address: that has changed.
        rtnl.remove_device(device.ifindex)?;
    }
    rtnl.add_vxlan(&Vxlan {
        name: TUNNEL.to_owned(),
        hardware_address: end.hardware_address,
        vni: VNI,
        port: PORT,
        local: end.local,
        mtu: end.mtu,
    })?;
    let made = rtnl.device(TUNNEL)?.map(|device| device.ifindex);
    let gone = || net::Error::Change {
        action: format!("find {TUNNEL}, which was just made"),
        source: std::io::ErrorKind::NotFound.into(),
    };
    let ifindex = made.ok_or_else(gone)?;
    rtnl.set_up(ifindex)?;
    Ok(ifindex)
}

/// What the other end of the tunnel is called as a next hop. In IPv4 no host has a range's first address, so it can be
/// that; in IPv6 it is link-local, and follows from its Ethernet address.
fn end_of(range: IpAddr, [a, b, c, d, e, f]: [u8; 6]) -> IpAddr {
    match range {
        IpAddr::V4(_) => range,
        IpAddr::V6(_) => {
            let mut octets = [0; 16];
            octets[..2].copy_from_slice(&[0xfe, 0x80]);
            // RFC 4291, appendix A.
            octets[8..].copy_from_slice(&[a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
            octets.into()
        }
    }
}

/// A route to another node's pods that an agent made; the plugin's lead over a link, without a next hop.
fn is_ours_route(route: &Route) -> bool {
    route.protocol == Rtnl::PROTOCOL && route.via.is_some()
}

fn leads_alike(a: &Route, b: &Route) -> bool {
    (a.to, a.via, a.ifindex) == (b.to, b.via, b.ifindex)
}

/// Replaces a file whole, if it says something else; returns whether it did.
fn write(path: &Path, text: &str) -> Result<bool, Error> {
    let failed = |action, path: &Path| {
        let path = path.to_owned();
        move |source| {
            Error::Host(net::Error::Path {
                action,
                path,
                source,
            })
        }
    };
    if fs::read_to_string(path).is_ok_and(|there| there == text) {
        return Ok(false);
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed("make", folder))?;
    }
    // No name that a runtime would take for a configuration.
    let mut new = path.as_os_str().to_owned();
    new.push("~new");
    let new = PathBuf::from(new);
    let mut options = fs::OpenOptions::new();
    options.create(true).write(true).truncate(true).mode(0o644);
    let written = options.open(&new).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.map_err(failed("write", &new))?;
    fs::rename(&new, path).map_err(failed("replace", path))?;
    Ok(true)
}
