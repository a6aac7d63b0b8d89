//! What the doctor looks at.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use abi::balancing::Mode;
use abi::{Counter, CounterValue};
use anyhow::Context as _;
use bpf::{Datapath, Feature, Foreign};
use net::{Capability, Link, Links, Netfilter};
use proxy::listing::PolicyRow;

use crate::cli;

/// What is known of this host.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) bpffs_root: PathBuf,
    pub(super) missing_capabilities: Vec<&'static str>,
    pub(super) features: Vec<Feature>,
    /// Whether the root of the pins is on a bpffs.
    pub(super) bpffs: bool,
    /// Where the unified hierarchy of cgroups is mounted.
    pub(super) cgroup2: Option<PathBuf>,
    /// What is loaded, or why that cannot be told.
    pub(super) loaded: Option<Loaded>,
    pub(super) not_loaded: Option<String>,
    /// Layouts with pins.
    pub(super) layouts: BTreeSet<u32>,
    pub(super) links: Vec<Link>,
    /// Of all devices and of each: `net.ipv4.conf.NAME.rp_filter`.
    pub(super) rp_filter: BTreeMap<String, u32>,
    pub(super) forwards: [bool; 2],
    /// Whether this host has IPv6 at all.
    pub(super) ipv6: bool,
    /// Entries of the kernel's own connection tracking, and room for them.
    pub(super) conntrack: Option<(u64, u64)>,
    /// What kube-proxy left, or `None` where netfilter could not be asked.
    pub(super) kube_proxy: Option<BTreeSet<String>>,
    /// Processes of the name.
    pub(super) kube_proxies: Vec<u32>,
}

/// What is loaded.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) status: bpf::Status,
    pub(super) counters: Vec<(Counter, CounterValue)>,
    /// What holds at each pod that a policy selects.
    pub(super) policies: Vec<PolicyRow>,
    pub(super) foreign: Vec<Foreign>,
    /// What has this node's source where it is to keep the client's, and why.
    pub(super) translated: Vec<String>,
    /// The network namespace that this process is in.
    pub(super) netns: u64,
    /// The file that the agent runs was replaced since it began.
    pub(super) agent_is_replaced: bool,
}

pub(super) fn read(flags: &cli::Doctor) -> anyhow::Result<Facts> {
    let root = &flags.bpffs.bpffs_root;
    let (loaded, not_loaded) = match loaded(root) {
        Ok(loaded) => (Some(loaded), None),
        Err(error) => (None, Some(format!("{error:#}"))),
    };
    let (links, kube_proxy) = super::super::runtime()?.block_on(async {
        let links = Links::open()?.list().await?;
        anyhow::Ok((links, kube_proxy()))
    })?;
    let names = links.iter().map(|link| link.name.clone());
    let rp_filter = names.chain(["all".to_owned()]).filter_map(|name| {
        let value = number(&format!(
            "net/ipv4/conf/{}/rp_filter",
            name.replace('/', ".")
        ))?;
        Some((name, u32::try_from(value).ok()?))
    });
    let missing =
        net::missing_capabilities(&[Capability::NetAdmin, Capability::SysAdmin, Capability::Bpf]);
    let count = number("net/netfilter/nf_conntrack_count");
    Ok(Facts {
        bpffs_root: root.clone(),
        missing_capabilities: missing.iter().map(|capability| capability.name()).collect(),
        features: bpf::features(),
        bpffs: net::is_bpffs(root),
        cgroup2: net::cgroup2_mount().ok(),
        loaded,
        not_loaded,
        layouts: Datapath::layouts(root).unwrap_or_default(),
        rp_filter: rp_filter.collect(),
        forwards: [net::forwards(false), net::forwards(true)],
        ipv6: links
            .iter()
            .flat_map(|link| &link.addresses)
            .any(|address| address.addr.is_ipv6()),
        conntrack: count.zip(number("net/netfilter/nf_conntrack_max")),
        kube_proxy,
        kube_proxies: processes("kube-proxy"),
        links,
    })
}

fn loaded(root: &Path) -> anyhow::Result<Loaded> {
    let view = Datapath::inspect(root)?;
    let status = view.status()?;
    let executable = |pid: u32| fs::read_link(format!("/proc/{pid}/exe")).ok();
    let agent = status.agent_pid.and_then(executable);
    Ok(Loaded {
        counters: view.counters()?,
        policies: proxy::listing::policies(
            &view.policies()?,
            &BTreeMap::new(),
            &view.policy_pods()?,
        ),
        foreign: view.foreign()?,
        translated: if status.load_balancing == Mode::Snat.label() {
            Vec::new()
        } else {
            proxy::listing::translated(&view.observe()?, &view.members()?)
        },
        netns: net::Netns::current()
            .and_then(|netns| netns.id())
            .context("find this network namespace")?,
        agent_is_replaced: agent.is_some_and(|path| path.to_string_lossy().ends_with(" (deleted)")),
        status,
    })
}

/// What kube-proxy left, where netfilter can be asked. Must be called in a runtime.
pub(in crate::commands) fn kube_proxy() -> Option<BTreeSet<String>> {
    let mut netfilter = Netfilter::open().ok()?;
    netfilter.read_chains().ok()?;
    Some(netfilter.hooked().kube_proxy)
}

/// A number in a file below /proc/sys.
fn number(name: &str) -> Option<u64> {
    let text = fs::read_to_string(Path::new("/proc/sys").join(name)).ok()?;
    text.trim().parse().ok()
}

/// Processes of a name.
fn processes(name: &str) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let called = |pid: &u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        text.trim_end() == name
    };
    pids.filter(called).collect()
}
