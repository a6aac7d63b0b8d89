//! Loads, pins, attaches and reads back the BPF programs and tables; carries out the steps that `plan` decided
//! on. [`Datapath`] is the agent's hold on the kernel, [`View`] what anybody may read.
//!
//! The only crate that names aya. aya brings the object into the kernel; links are our own, because they must be
//! found again and replaced after a restart, which aya 0.14 cannot do for cgroups.
//!
//! The kernel must be Linux 5.18 or later; before 6.6 tc filters stand in for TCX.
//!
//! This crate knows nothing about Services: it decides nothing.
#![allow(
    unsafe_code,
    reason = "bpf(2) and memory shared with the kernel have no safe interface"
)]

mod crowd;
mod datapath;
mod dns;
mod error;
mod expire;
mod features;
mod flows;
mod foreign;
mod grow;
mod inherit;
mod link;
mod masquerade;
mod netlink;
mod object;
mod pass;
mod pins;
mod pod_cgroups;
mod pod_links;
mod policy;
mod probe;
mod quotas;
mod show;
mod sockets;
mod spec;
mod status;
mod sys;
mod table;
mod trial;
mod view;
mod watch;

pub use datapath::{Datapath, Settings};
pub use dns::DnsTable;
pub use error::{ApplyError, Error};
pub use expire::{Begun, Looked, expire_flows, timeout};
pub use features::{Feature, features};
pub use flows::{adopt_flows, forget_flows};
pub use foreign::Foreign;
pub use inherit::{CHANGES, Change, Convert, Inherited};
pub use link::{DeviceReport, XdpMode};
pub use masquerade::Masquerading;
pub use pass::XdpPass;
pub use pod_cgroups::{CgroupAt, PodCgroups, pod_uid};
pub use pod_links::PodLinks;
pub use policy::PolicyTable;
pub use probe::Probe;
pub use quotas::{Quotas, keep_quotas};
pub use spec::Capacities;
pub use status::{
    DnsStatus, HostRoutingStatus, LinkStatus, MasqueradeStatus, Place, ProgramStatus, RoutingMode,
    Status,
};
pub use trial::Trial;
pub use view::{Fill, Flow, TestRun, View};
pub use watch::{Watch, Watched};

/// The clock of events: nanoseconds of `CLOCK_MONOTONIC`.
#[must_use]
pub fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let secs = u64::try_from(now.tv_sec).unwrap_or(0);
    secs * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// The clock that the programs read: seconds of `CLOCK_MONOTONIC`.
#[must_use]
pub fn now_secs() -> u32 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u32::try_from(now.tv_sec).unwrap_or(u32::MAX)
}
