//! Bounds on flows: written, and what the programs counted counted anew. What a count costs follows the flows that there
//! are.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use abi::flows::flags::REPLY;
use abi::{Flow4, Flow6, FlowState4, FlowState6, Quota, ServiceId};

use crate::pins::Pins;
use crate::table::Hash;
use crate::{Error, spec};

/// Who is bound, and by what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quotas {
    /// The most flows of each group, by its key, which has the bit [`abi::quotas::GROUP`].
    pub groups: BTreeMap<u32, u32>,
    /// The groups that a service is in; zero for none.
    pub services: BTreeMap<ServiceId, [u32; 2]>,
}

/// Writes the bounds with the flows that there are, in the place of those that were. Gives how many new flows each group
/// refused since the last time, of those that refused any.
///
/// # Errors
///
/// [`Error::NotLoaded`] where nothing is pinned, [`Error::Full`], [`Error::Table`].
pub fn keep_quotas(bpffs_root: &Path, wanted: &Quotas) -> Result<BTreeMap<u32, u32>, Error> {
    let pins = Pins::new(bpffs_root);
    let table: Hash<u32, Quota> = Hash::open(&pins, spec::QUOTAS, false)?;
    let held: HashMap<u32, Quota> = table.entries(usize::MAX)?.into_iter().collect();
    let mut flows: HashMap<u32, u32> = HashMap::new();
    let mut count = |service: ServiceId, flags: u32| {
        if flags & REPLY == 0
            && let Some(groups) = wanted.services.get(&service)
        {
            for group in groups {
                *flows.entry(*group).or_default() += 1;
            }
        }
    };
    if !wanted.services.is_empty() {
        let flows4: Hash<Flow4, FlowState4> = Hash::open(&pins, spec::FLOWS4, true)?;
        flows4.walk(|_, states| {
            states.iter().for_each(|it| count(it.service, it.flags));
            true
        })?;
        let flows6: Hash<Flow6, FlowState6> = Hash::open(&pins, spec::FLOWS6, true)?;
        flows6.walk(|_, states| {
            states.iter().for_each(|it| count(it.service, it.flags));
            true
        })?;
    }
    let groups = wanted.groups.iter().map(|(key, flows_max)| {
        let quota = Quota {
            flows_max: *flows_max,
            flows: flows.get(key).copied().unwrap_or(0),
            ..Quota::default()
        };
        (*key, quota)
    });
    let services = wanted.services.iter().map(|(service, groups)| {
        let quota = Quota {
            groups: *groups,
            ..Quota::default()
        };
        (*service, quota)
    });
    // Groups first: a service is never in one that is not there.
    let new = groups.chain(services);
    let (keys, quotas): (Vec<u32>, Vec<Quota>) = new
        .filter(|(key, quota)| held.get(key) != Some(quota))
        .unzip();
    table.insert(&keys, &quotas).map_err(|(_, error)| error)?;
    let is_wanted =
        |key: &u32| wanted.groups.contains_key(key) || wanted.services.contains_key(key);
    let gone: Vec<u32> = held.keys().filter(|key| !is_wanted(key)).copied().collect();
    table.remove(&gone).map_err(|(_, error)| error)?;
    let refused = held.into_iter().filter(|(_, quota)| quota.refused > 0);
    Ok(refused.map(|(key, quota)| (key, quota.refused)).collect())
}
