//! A pod's link: a veth pair, one end in the pod, and what leads to it and from it.
//!
//! There is no bridge: the host routes to each pod over the pod's own link. In the pod everything goes to one next hop
//! (169.254.1.1 and fe80::1), whose Ethernet address, the host's side's, is told for good; the host is told the pod's. So
//! nobody has to ask before the first packet, and no pod hears another's broadcasts. A pod whose end gets another Ethernet
//! address forgets its next hop: it asks, the host's side answers, and learns the new address from the question.
//!
//! The pair is made on the host and is given its programs there, before one end moves into the pod: a pod never has a
//! link that the programs do not see.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use abi::{Endpoint, Limit, endpoints};
use bpf::PodLinks;
use ipam::Attachment;
use net::{Address, Netns, Route, Rtnl};

use crate::failure::{Code, Failure};
use crate::names::Names;
use crate::result::{Interface, Ip, Outcome, mac};

/// The pods' next hop.
pub(crate) const GATEWAY4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// The pods' next hop.
pub(crate) const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// What is to be made.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    /// Interface and container.
    pub(crate) attachment: &'a Attachment,
    /// The pod's namespace, and its path.
    pub(crate) netns: (&'a Netns, &'a Path),
    /// Names and Ethernet addresses.
    pub(crate) names: &'a Names,
    /// The pod's addresses.
    pub(crate) addresses: &'a [IpAddr],
    /// Largest packet.
    pub(crate) mtu: u32,
    /// How much the pod may send and get.
    pub(crate) limit: Option<Limit>,
}

/// Makes the link. Of what fails nothing is left.
///
/// # Errors
///
/// [`Code::Io`].
pub(crate) fn make(
    host: &Rtnl,
    programs: Option<&PodLinks>,
    plan: &Plan<'_>,
) -> Result<Outcome, Failure> {
    let made = try_make(host, programs, plan);
    if made.is_err() {
        // The reason why it failed is what is told.
        let _ = remove(host, programs, plan.names, plan.addresses);
    }
    made
}

fn try_make(host: &Rtnl, programs: Option<&PodLinks>, plan: &Plan<'_>) -> Result<Outcome, Failure> {
    let Plan {
        attachment,
        netns: (netns, path),
        names,
        addresses,
        mtu,
        limit,
    } = plan;
    let pod = netns.run(Rtnl::open)??;
    let ends = [
        (names.host.as_str(), names.host_address),
        (names.other.as_str(), names.pod_address),
    ];
    host.add_veth(ends[0], ends[1], *mtu)?;
    let here = index(host, &names.host)?;
    let other = index(host, &names.other)?;
    let v6 = addresses.iter().any(IpAddr::is_ipv6);
    for (family, name, value) in host_sysctls(v6) {
        sysctl(family, &names.host, name, value)?;
    }
    if let Some(programs) = programs {
        programs.admit(
            addresses,
            &Endpoint {
                ifindex: here,
                // A new link has no queue, and no program of anybody else's; with a limit, all that goes there is counted.
                flags: if limit.is_none() {
                    endpoints::flags::DIRECT
                } else {
                    0
                },
                pod_link: names.pod_address,
                host_link: names.host_address,
                _pad: [0; 2],
            },
        )?;
        programs.name_namespace(netns.run(Netns::current_cookie)??, addresses)?;
        if let Some(limit) = limit {
            programs.limit(here, limit)?;
        }
        programs.attach(here)?;
    }
    host.move_device(other, netns, &attachment.ifname)?;
    let pod = netns.run(move || furnish(&pod, plan, v6).map(|()| pod))??;
    host.set_up(here)?;
    for addr in *addresses {
        host.answer_for(here, gateway(*addr))?;
        host.suggest_neighbour(here, *addr, names.pod_address)?;
        host.add_route(&Route::over(alone(*addr), here))?;
    }
    wait_for(host, &names.host)?;
    wait_for(&pod, &attachment.ifname)?;
    let interface = |name: &str, mac, sandbox: Option<String>| Interface {
        name: name.to_owned(),
        mac,
        mtu: *mtu,
        sandbox,
    };
    let sandbox = Some(path.display().to_string());
    Ok(Outcome {
        interfaces: vec![
            interface(&names.host, names.host_address, None),
            interface(&attachment.ifname, names.pod_address, sandbox),
        ],
        ips: addresses
            .iter()
            .map(|addr| Ip {
                address: *addr,
                gateway: gateway(*addr),
                interface: 1,
            })
            .collect(),
        dns: None,
    })
}

/// Waits until a link carries packets: a pod's first datagram would be lost without a word before.
fn wait_for(rtnl: &Rtnl, name: &str) -> Result<(), Failure> {
    let until = Instant::now() + CARRIER_WAIT;
    while rtnl.device(name)?.is_none_or(|device| !device.running) {
        if Instant::now() > until {
            let msg = format!("{name} is up and carries nothing after {CARRIER_WAIT:?}");
            return Err(Failure::new(Code::Io, msg));
        }
        thread::sleep(CARRIER_LOOK);
    }
    Ok(())
}

/// How long the kernel may take to see that both ends of a link are up: it is about a millisecond.
const CARRIER_WAIT: Duration = Duration::from_secs(5);
const CARRIER_LOOK: Duration = Duration::from_micros(500);

/// The pod's side, from within.
fn furnish(pod: &Rtnl, plan: &Plan<'_>, v6: bool) -> Result<(), Failure> {
    let ifname = &plan.attachment.ifname;
    let ifindex = index(pod, ifname)?;
    if v6 {
        for (name, value) in POD_SYSCTLS6 {
            sysctl("ipv6", ifname, name, value)?;
        }
    }
    pod.set_up(ifindex)?;
    for addr in plan.addresses {
        let gateway = gateway(*addr);
        pod.add_address(ifindex, alone(*addr))?;
        pod.set_neighbour(ifindex, gateway, plan.names.host_address)?;
        if gateway.is_ipv4() {
            // In IPv6 every link has its link-local addresses.
            pod.replace_route(&Route::over(alone(gateway), ifindex))?;
        }
        pod.add_route(&default_route(gateway, ifindex))?;
    }
    Ok(())
}

/// Removes an attachment's link so far as it is there.
///
/// # Errors
///
/// [`Code::Io`].
pub(crate) fn remove(
    host: &Rtnl,
    programs: Option<&PodLinks>,
    names: &Names,
    addresses: &[IpAddr],
) -> Result<(), Failure> {
    if let Some(device) = host.device(&names.host)? {
        // The other end goes with it, wherever it is, and so do routes and neighbours.
        host.remove_device(device.ifindex)?;
    }
    if let Some(programs) = programs {
        programs.forget(&names.host, addresses)?;
    }
    Ok(())
}

/// Whether the link is as [`make`] made it, with the Ethernet addresses of `said`, by the ends' names: plugins behind this one
/// may have changed them.
///
/// # Errors
///
/// [`Code::NotAsMade`], naming what is not.
pub(crate) fn check(
    host: &Rtnl,
    programs: Option<&PodLinks>,
    plan: &Plan<'_>,
    said: &BTreeMap<String, String>,
) -> Result<(), Failure> {
    let wrong = |what: String| Err(Failure::new(Code::NotAsMade, what));
    let names = plan.names;
    let ifname = &plan.attachment.ifname;
    let Some(here) = host.device(&names.host)? else {
        return wrong(format!("the host's side, {}, is gone", names.host));
    };
    if !here.up {
        return wrong(format!("the host's side, {}, is down", names.host));
    }
    let (netns, path) = plan.netns;
    let pod = netns.run(Rtnl::open)??;
    let Some(inside) = pod.device(ifname)? else {
        return wrong(format!("there is no {ifname} in {}", path.display()));
    };
    if !inside.up {
        return wrong(format!("{ifname} is down"));
    }
    if (inside.kind.as_deref(), inside.peer) != (Some("veth"), here.ifindex) {
        return wrong(format!("{ifname} is not the other end of {}", names.host));
    }
    for device in [&here, &inside] {
        let has = mac(&device.hardware_address);
        if let Some(said) = said.get(&device.name)
            && !said.eq_ignore_ascii_case(&has)
        {
            return wrong(format!(
                "{} has the Ethernet address {has}, not {said}",
                device.name
            ));
        }
    }
    let held = pod.addresses(inside.ifindex)?;
    let inner_routes = pod.routes()?;
    let routes = host.routes()?;
    for addr in plan.addresses {
        if !held.iter().any(|address| address.addr == *addr) {
            return wrong(format!("{ifname} has lost its address {addr}"));
        }
        let next_hop = gateway(*addr);
        let default = default_route(next_hop, inside.ifindex);
        let leads = |route: &Route, to: &Route| {
            (route.to, route.via, route.ifindex) == (to.to, to.via, to.ifindex)
        };
        if !inner_routes.iter().any(|route| leads(route, &default)) {
            return wrong(format!(
                "the container's default route via {next_hop} is gone"
            ));
        }
        let over = Route::over(alone(*addr), here.ifindex);
        if !routes.iter().any(|route| leads(route, &over)) {
            return wrong(format!(
                "the host's route to {addr} over {} is gone",
                names.host
            ));
        }
    }
    if let Some(programs) = programs
        && !programs.is_attached(here.ifindex)?
    {
        return wrong(format!("the programs do not hang on {}", names.host));
    }
    Ok(())
}

/// Refuses where a pod has such an interface, whoever made it.
///
/// # Errors
///
/// [`Code::InvalidEnvironment`].
pub(crate) fn require_free(netns: &Netns, ifname: &str) -> Result<(), Failure> {
    let pod = netns.run(Rtnl::open)??;
    if pod.device(ifname)?.is_none() {
        return Ok(());
    }
    let msg = format!("the container has an interface {ifname} already");
    Err(Failure::new(Code::InvalidEnvironment, msg))
}

/// The index of a link on the host whose other end an interface of a pod is.
///
/// # Errors
///
/// [`Code::UnsupportedField`] where it is of another kind.
pub(crate) fn host_side(host: &Rtnl, netns: &Netns, ifname: &str) -> Result<u32, Failure> {
    let pod = netns.run(Rtnl::open)??;
    let Some(inside) = pod.device(ifname)? else {
        let msg = format!("the plugin before this one in the chain made no {ifname}");
        return Err(Failure::new(Code::UnsupportedField, msg));
    };
    let here = host.device_at(inside.peer)?;
    let veth = |kind: &Option<String>| kind.as_deref() == Some("veth");
    match here {
        Some(here) if veth(&inside.kind) && veth(&here.kind) => Ok(here.ifindex),
        _ => {
            let kind = inside.kind.as_deref().unwrap_or("device of its own");
            let msg = format!(
                "{ifname} is a {kind}: the programs hang on the host's side of a veth pair, which it has none of"
            );
            Err(Failure::new(Code::UnsupportedField, msg))
        }
    }
}

fn gateway(addr: IpAddr) -> IpAddr {
    match addr {
        IpAddr::V4(_) => GATEWAY4.into(),
        IpAddr::V6(_) => GATEWAY6.into(),
    }
}

fn alone(addr: IpAddr) -> Address {
    let prefix_len = if addr.is_ipv4() { 32 } else { 128 };
    Address { addr, prefix_len }
}

fn default_route(gateway: IpAddr, ifindex: u32) -> Route {
    let everything = match gateway {
        IpAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
    };
    Route {
        via: Some(gateway),
        ..Route::over(
            Address {
                addr: everything,
                prefix_len: 0,
            },
            ifindex,
        )
    }
}

/// Of the host's side: it forwards, and believes nothing that a pod says of routers and ways.
fn host_sysctls(v6: bool) -> Vec<(&'static str, &'static str, &'static str)> {
    let mut all = vec![
        ("ipv4", "forwarding", "1"),
        ("ipv4", "accept_redirects", "0"),
    ];
    if v6 {
        all.extend([
            ("ipv6", "disable_ipv6", "0"),
            ("ipv6", "accept_dad", "0"),
            ("ipv6", "accept_ra", "0"),
            ("ipv6", "accept_redirects", "0"),
        ]);
    }
    all
}

/// Of the pod's side: addresses are used at once, and no router but the host is looked for.
const POD_SYSCTLS6: [(&str, &str); 4] = [
    ("disable_ipv6", "0"),
    ("accept_dad", "0"),
    ("accept_ra", "0"),
    ("router_solicitations", "0"),
];

/// Of this thread's namespace.
fn sysctl(family: &str, device: &str, name: &str, value: &str) -> Result<(), Failure> {
    // A dot in a device's name is no separator in a path.
    let path = format!("/proc/sys/net/{family}/conf/{device}/{name}");
    match fs::write(&path, value) {
        Ok(()) => Ok(()),
        // Whoever gave the container a /proc to read only sets such things itself.
        Err(error) if is_so_already(&path, value) => {
            drop(error);
            Ok(())
        }
        Err(error) => Err(unwritten(&path, &error, family)),
    }
}

fn is_so_already(path: &str, value: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text.trim() == value)
}

fn unwritten(path: &str, error: &io::Error, family: &str) -> Failure {
    let msg = if family == "ipv6" && error.kind() == io::ErrorKind::NotFound {
        "this kernel has no IPv6: leave out the IPv6 ranges".to_owned()
    } else {
        format!("cannot write {path}")
    };
    Failure {
        details: error.to_string(),
        ..Failure::new(Code::Io, msg)
    }
}

fn index(rtnl: &Rtnl, name: &str) -> Result<u32, Failure> {
    let device = rtnl.device(name)?;
    device.map(|device| device.ifindex).ok_or_else(|| {
        Failure::new(
            Code::Io,
            format!("{name} was removed by somebody meanwhile"),
        )
    })
}
