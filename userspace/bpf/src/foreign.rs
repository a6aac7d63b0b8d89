//! Programs of others where ours hang: what runs before and behind them, and may take a packet or a call from them.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use serde::Serialize;

use crate::object::{Hook, PROGRAMS};
use crate::{Error, netlink, pins, sys};

/// A program that is not ours.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Foreign {
    /// Where it is attached: one of our programs' names, whose hook it shares.
    pub hook: &'static str,
    /// The device or cgroup.
    pub on: String,
    /// The kernel's identifier.
    pub id: u32,
    /// Its name, as far as the kernel tells.
    pub name: String,
    /// Whether it runs before ours.
    pub before: bool,
}

/// Programs of others at a device of this thread's network namespace, where `ours` are the identifiers of our
/// programs. One that is gone, or does not tell, has none.
pub(crate) fn at_device(name: &str, ifindex: u32, ours: &BTreeSet<u32>) -> Vec<Foreign> {
    let mut found = Vec::new();
    if let Ok(facts) = netlink::link(ifindex)
        && let Some((_, id)) = facts.xdp
        && !ours.contains(&id)
    {
        found.push(foreign("device_xdp", name, id, true));
    }
    for (hook, attach_type) in [
        ("device_ingress", sys::attach::TCX_INGRESS),
        ("device_egress", sys::attach::TCX_EGRESS),
    ] {
        let attached = sys::query(ifindex, attach_type, 0).unwrap_or_default();
        let ids: Vec<u32> = attached
            .into_iter()
            .map(|attached| attached.program)
            .collect();
        found.extend(others(hook, name, &ids, ours));
    }
    found
}

/// Programs of others that see the calls of a cgroup's sockets, those of the cgroups above included.
///
/// # Errors
///
/// [`Error::NoCgroup`] if it is none.
pub(crate) fn at_cgroup(path: &Path, ours: &BTreeSet<u32>) -> Result<Vec<Foreign>, Error> {
    let (cgroup, _) = pins::open_cgroup(path)?;
    let on = path.display().to_string();
    let mut found = Vec::new();
    for &(hook, kind) in PROGRAMS {
        let Hook::Cgroup(attach_type) = kind else {
            continue;
        };
        let target = cgroup.as_fd().as_raw_fd() as u32;
        let attached = sys::query(target, attach_type, sys::EFFECTIVE).unwrap_or_default();
        let ids: Vec<u32> = attached
            .into_iter()
            .map(|attached| attached.program)
            .collect();
        found.extend(others(hook, &on, &ids, ours));
    }
    Ok(found)
}

/// Those of the programs of one hook, in the order in which they run, that are not ours.
fn others(hook: &'static str, on: &str, ids: &[u32], ours: &BTreeSet<u32>) -> Vec<Foreign> {
    let first = ids.iter().position(|id| ours.contains(id));
    let ids = ids.iter().enumerate().filter(|(_, id)| !ours.contains(id));
    ids.map(|(at, id)| foreign(hook, on, *id, first.is_none_or(|first| at < first)))
        .collect()
}

fn foreign(hook: &'static str, on: &str, id: u32, before: bool) -> Foreign {
    let name = sys::program_by_id(id)
        .and_then(|fd| sys::program_info(fd.as_fd()))
        .map(|info| info.name)
        .unwrap_or_default();
    Foreign {
        hook,
        on: on.to_owned(),
        id,
        name,
        before,
    }
}
