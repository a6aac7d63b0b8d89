//! The operations of the specification.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use bpf::PodLinks;
use ipam::{Attachment, NodeFile, Range, Record};
use net::{Netns, Rtnl};
use serde_json::Value;

use crate::config::{Config, check_mtu};
use crate::environment::Environment;
use crate::failure::{Code, Failure};
use crate::names::Names;
use crate::result::{addresses, ethernet_addresses};
use crate::store::Store;
use crate::version::Version;
use crate::wire::{self, Plan};

/// Where nobody says what fits.
const MTU_DEFAULT: u32 = 1_500;

/// ADD: the result.
///
/// # Errors
///
/// Whatever stands in the way; then nothing is left of it.
pub(crate) fn add(environment: &Environment, config: &Config) -> Result<Value, Failure> {
    config.check()?;
    let node = NodeFacts::read(config)?;
    config.check_port_mappings(node.host_ports, &environment.args.pod)?;
    let (netns, path) = netns(environment)?;
    let host = Rtnl::open()?;
    let programs = programs(config)?;
    let attachment = &environment.attachment;
    if let Some(before) = &config.prev_result {
        let Some(programs) = &programs else {
            return Ok(before.clone());
        };
        let ifindex = wire::host_side(&host, &netns, &attachment.ifname)?;
        if let Some(limit) = config.limit()? {
            programs.limit(ifindex, &limit)?;
        }
        programs.attach(ifindex)?;
        return Ok(before.clone());
    }
    if node.sets.is_empty() {
        return Err(Failure::new(Code::TryAgainLater, no_ranges(config)));
    }
    let mtu = node.mtu(config, &host)?;
    check_mtu(mtu, &node.sets)?;
    let mut names = Names::of(&config.name, attachment);
    let args = &environment.args;
    if let Some(address) = config.hardware_address(args.mac.as_deref())? {
        names.pod_address = address;
    }
    let wanted = config.wanted(args.ip.as_deref())?;
    for v6 in [false, true] {
        if node
            .sets
            .iter()
            .flatten()
            .any(|range| range.is_ipv6() == v6)
        {
            net::forward(v6)?;
        }
    }
    wire::require_free(&netns, &attachment.ifname)?;
    let addresses = lease(config, &host, environment, &node.sets, &wanted)?;
    let plan = Plan {
        attachment,
        netns: (&netns, path),
        names: &names,
        addresses: &addresses,
        mtu,
        limit: config.limit()?,
    };
    match wire::make(&host, programs.as_ref(), &plan) {
        Ok(mut outcome) => {
            outcome.dns.clone_from(&config.dns);
            Ok(outcome.json(config.version(), config.version_name()))
        }
        Err(failure) => {
            let mut store = Store::open(&config.state_dir, &config.name)?;
            store.write(&[Record::Free(attachment.clone())])?;
            Err(failure)
        }
    }
}

/// Takes addresses. What an ADD of the same attachment left that ended early goes first: the runtime says ADD once
/// only, unless it heard nothing.
fn lease(
    config: &Config,
    host: &Rtnl,
    environment: &Environment,
    sets: &[Vec<Range>],
    wanted: &[IpAddr],
) -> Result<Vec<IpAddr>, Failure> {
    let attachment = &environment.attachment;
    let mut store = Store::open(&config.state_dir, &config.name)?;
    if store.leases().get(attachment).is_some() {
        free(config, &mut store, host, attachment)?;
    }
    let pod = &environment.args.pod;
    let record = store.leases().take(attachment, pod, sets, wanted)?;
    store.write(&[record])?;
    let lease = store.leases().get(attachment);
    Ok(lease
        .map(|lease| lease.addresses.clone())
        .unwrap_or_default())
}

/// DEL: whatever is there of the attachment goes. What is not there is no error.
///
/// # Errors
///
/// Where something is there and cannot be removed.
pub(crate) fn del(environment: &Environment, config: &Config) -> Result<(), Failure> {
    if config.prev_result.is_some() && !is_ours(config, &environment.attachment)? {
        // Another plugin's link, which goes with that.
        return Ok(());
    }
    let mut store = Store::open(&config.state_dir, &config.name)?;
    let host = Rtnl::open()?;
    free(config, &mut store, &host, &environment.attachment)
}

/// Whether it was this plugin that made an attachment: where it came second, it has no lease of it.
fn is_ours(config: &Config, attachment: &Attachment) -> Result<bool, Failure> {
    if !config.state_dir.join(&config.name).exists() {
        return Ok(false);
    }
    let store = Store::open(&config.state_dir, &config.name)?;
    Ok(store.leases().get(attachment).is_some())
}

/// Removes a link and then its lease: whoever is killed between them leaves a lease, by which both are found again.
fn free(
    config: &Config,
    store: &mut Store,
    host: &Rtnl,
    attachment: &Attachment,
) -> Result<(), Failure> {
    let lease = store.leases().get(attachment).cloned();
    let addresses = lease.as_ref().map_or(&[][..], |lease| &lease.addresses);
    let names = Names::of(&config.name, attachment);
    // Without its agent's pins there is nothing of the link's to forget.
    let programs = programs(config).ok().flatten();
    wire::remove(host, programs.as_ref(), &names, addresses)?;
    if lease.is_some() {
        store.write(&[Record::Free(attachment.clone())])?;
    }
    Ok(())
}

/// CHECK: is all as ADD made it?
///
/// # Errors
///
/// [`Code::NotAsMade`], naming what is not.
pub(crate) fn check(environment: &Environment, config: &Config) -> Result<(), Failure> {
    since(config, Version::V0_4_0, "CHECK")?;
    let Some(before) = &config.prev_result else {
        let msg = "prevResult is missing: CHECK compares with what ADD said";
        return Err(Failure::new(Code::InvalidConfig, msg));
    };
    let (netns, path) = netns(environment)?;
    let host = Rtnl::open()?;
    let programs = programs(config)?;
    let attachment = &environment.attachment;
    if !is_ours(config, attachment)? {
        let ifindex = wire::host_side(&host, &netns, &attachment.ifname)?;
        return match programs {
            Some(programs) if !programs.is_attached(ifindex)? => {
                let msg = format!(
                    "the programs do not hang on the host's side of {}",
                    attachment.ifname
                );
                Err(Failure::new(Code::NotAsMade, msg))
            }
            _ => Ok(()),
        };
    }
    let store = Store::open(&config.state_dir, &config.name)?;
    let held = store.leases().get(attachment).cloned().unwrap_or_default();
    drop(store);
    let said = addresses(before);
    if let Some(lost) = held.addresses.iter().find(|addr| !said.contains(addr)) {
        let msg = format!("the container has {lost} here, of which prevResult says nothing");
        return Err(Failure::new(Code::NotAsMade, msg));
    }
    let names = Names::of(&config.name, attachment);
    let plan = Plan {
        attachment,
        netns: (&netns, path),
        names: &names,
        addresses: &held.addresses,
        mtu: 0,
        limit: None,
    };
    let said = ethernet_addresses(before);
    wire::check(&host, programs.as_ref(), &plan, &said)
}

/// GC: whatever is there of attachments that the runtime does not name goes.
///
/// # Errors
///
/// The first that cannot be removed; the others are.
pub(crate) fn gc(config: &Config) -> Result<(), Failure> {
    since(config, Version::V1_1_0, "GC")?;
    let valid = config.valid_attachments()?;
    let mut store = Store::open(&config.state_dir, &config.name)?;
    let host = Rtnl::open()?;
    let all = store
        .leases()
        .iter()
        .map(|(attachment, _)| attachment.clone());
    let gone: Vec<Attachment> = all
        .filter(|attachment| !valid.contains(attachment))
        .collect();
    let freed = gone
        .iter()
        .map(|attachment| free(config, &mut store, &host, attachment));
    let results: Vec<Result<(), Failure>> = freed.collect();
    results.into_iter().collect()
}

/// STATUS: could a pod be added now?
///
/// # Errors
///
/// [`Code::NotAvailable`], with what is missing.
pub(crate) fn status(config: &Config) -> Result<(), Failure> {
    since(config, Version::V1_1_0, "STATUS")?;
    let unavailable = |failure: Failure| Failure {
        code: Code::NotAvailable,
        ..failure
    };
    config.check()?;
    programs(config).map_err(unavailable)?;
    let node = NodeFacts::read(config).map_err(unavailable)?;
    if node.sets.is_empty() {
        return Err(Failure::new(Code::NotAvailable, no_ranges(config)));
    }
    let store = Store::open(&config.state_dir, &config.name).map_err(unavailable)?;
    let somebody = Attachment {
        container: String::new(),
        ifname: String::new(),
    };
    let next = store.leases().take(&somebody, "", &node.sets, &[]);
    next.map(drop)
        .map_err(|refused| unavailable(refused.into()))
}

fn since(config: &Config, version: Version, operation: &str) -> Result<(), Failure> {
    if config.version() >= version {
        return Ok(());
    }
    let msg = format!("cniVersion {} has no {operation}", config.version_name());
    Err(Failure::new(Code::IncompatibleVersion, msg))
}

fn netns(environment: &Environment) -> Result<(Netns, &Path), Failure> {
    let path = environment.netns.as_deref().unwrap_or(Path::new(""));
    let netns = Netns::open(path).map_err(|error| Failure::of(Code::UnknownContainer, &error))?;
    if netns.id()? == Netns::current()?.id()? {
        let msg = format!("CNI_NETNS is {}, the host's own namespace", path.display());
        return Err(Failure::new(Code::InvalidEnvironment, msg));
    }
    Ok((netns, path))
}

fn programs(config: &Config) -> Result<Option<PodLinks>, Failure> {
    if config.bpffs_root.as_os_str().is_empty() {
        return Ok(None);
    }
    Ok(Some(PodLinks::open(&config.bpffs_root)?))
}

fn no_ranges(config: &Config) -> String {
    format!(
        "this node has no range of addresses for pods yet: {} holds no podCIDRs, which `fairlead proxy --cni` writes there once the Node object has some; or give ipam.ranges",
        config.node_file.display()
    )
}

/// What is known of this node.
struct NodeFacts {
    sets: Vec<Vec<Range>>,
    mtu: Option<u32>,
    host_ports: bool,
}

impl NodeFacts {
    /// What the configuration says, and of the rest what the agent does.
    fn read(config: &Config) -> Result<NodeFacts, Failure> {
        let sets = config.ranges()?;
        let path = &config.node_file;
        let file = match fs::read(path) {
            Ok(bytes) => serde_json::from_slice::<NodeFile>(&bytes).map_err(|error| {
                let msg = format!("{} cannot be read: {error}", path.display());
                Failure::new(Code::Decode, msg)
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => NodeFile::default(),
            Err(error) => {
                let msg = format!("cannot read {}: {error}", path.display());
                return Err(Failure::new(Code::Io, msg));
            }
        };
        Ok(NodeFacts {
            sets: if sets.is_empty() { file.sets() } else { sets },
            mtu: file.mtu,
            host_ports: file.host_ports,
        })
    }

    fn mtu(&self, config: &Config, host: &Rtnl) -> Result<u32, Failure> {
        if let Some(mtu) = config.mtu.filter(|mtu| *mtu > 0).or(self.mtu) {
            return Ok(mtu);
        }
        let mut least = None;
        for name in net::default_route_devices() {
            let mtu = host.device(&name)?.map(|device| device.mtu);
            least = least.into_iter().chain(mtu).min();
        }
        Ok(least.unwrap_or(MTU_DEFAULT))
    }
}
