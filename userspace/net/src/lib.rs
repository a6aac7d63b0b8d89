//! Links, addresses, network namespaces, mounts and capabilities of the host; what its kernel tells of this process.
//!
//! This crate knows nothing about BPF programs or Services: it tells what is there.
#![allow(
    unsafe_code,
    reason = "leaving a network namespace is unsafe in rustix, and no safe wrapper sends datagrams in batches"
)]

mod conntrack;
mod datagrams;
mod error;
mod host;
mod ipsec;
mod iptables;
mod kube_proxy;
mod links;
mod listeners;
mod mounts;
mod netfilter;
mod netlink;
mod netns;
mod paths;
mod process;
mod routes;
mod rtnl;
mod scheduling;
mod sockets;
mod towards;

pub use conntrack::{Conntrack, Translated};
pub use datagrams::{BATCH, Batch, Datagrams, RECEIVE_MAX, SEND_MAX};
pub use error::Error;
pub use host::{Capability, hostname, missing_capabilities};
pub use ipsec::has_ipsec_policies;
pub use iptables::remove_kube_proxy_chains;
pub use kube_proxy::{release_translations, remove_kube_proxy_tables};
pub use links::{Address, Change, Link, Links};
pub use listeners::begin_no_more;
pub use mounts::{cgroup2_mount, ensure_bpffs, is_bpffs, release_bpffs};
pub use netfilter::{Hooked, Netfilter};
pub use netns::Netns;
pub use paths::{HostRoute, Neighbour};
pub use process::process_metrics;
pub use routes::{default_route_devices, forward, forwards};
pub use rtnl::{Device, Route, Rtnl, Vxlan};
pub use scheduling::{Turns, ask_for_turns, has_usual_turns};
pub use sockets::{Connected, Sockets};
pub use towards::{Towards, towards};
