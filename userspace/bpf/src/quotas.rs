//! Bounds on flows: written, and what the programs counted counted anew. What a count costs follows the flows that there
//! are. Those that both sides ended, which the tables keep for a while, do not count.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use abi::flows::flags::{CLOSING, REPLY, RESET, TUNNELLED};
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
    macro_rules! count {
        ($spec:ident, $flow:ident, $state:ty) => {{
            let table: Hash<$flow, $state> = Hash::open(&pins, spec::$spec, true)?;
            // What the answers of flows say of their end, by what the client sends.
            let mut ends: HashMap<$flow, u32> = HashMap::new();
            table.walk(|_, states| {
                let answers = states.iter().filter(|it| it.flags & REPLY != 0);
                let ended = answers.filter(|it| {
                    it.flags & CLOSING != 0 && wanted.services.contains_key(&it.service)
                });
                ends.extend(ended.map(|it| (it.answer(), it.flags)));
                true
            })?;
            table.walk(|keys, states| {
                for (key, state) in keys.iter().zip(states) {
                    let Some(groups) = wanted.services.get(&state.service) else {
                        continue;
                    };
                    if state.flags & REPLY != 0 || has_ended(state.flags, ends.get(key).copied()) {
                        continue;
                    }
                    for group in groups {
                        *flows.entry(*group).or_default() += 1;
                    }
                }
                true
            })?;
        }};
    }
    if !wanted.services.is_empty() {
        count!(FLOWS4, Flow4, FlowState4);
        count!(FLOWS6, Flow6, FlowState6);
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

/// Whether both sides of a flow have ended it, by the flags of its entry and of that of its answers, where those close.
fn has_ended(flags: u32, answers: Option<u32>) -> bool {
    let answers = match answers {
        // Where the answers go another way, nothing is known of them.
        None if flags & TUNNELLED != 0 => flags,
        answers => answers.unwrap_or(0),
    };
    (flags | answers) & RESET != 0 || flags & answers & CLOSING != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_has_ended_where_both_sides_say_so_or_one_resets_it() {
        let reset = CLOSING | RESET;
        for (flags, answers, ended) in [
            (0, None, false),
            (CLOSING, None, false),
            (0, Some(CLOSING), false),
            (CLOSING, Some(CLOSING), true),
            (reset, None, true),
            (0, Some(reset), true),
            (TUNNELLED, None, false),
            (TUNNELLED | CLOSING, None, true),
        ] {
            assert_eq!(has_ended(flags, answers), ended, "{flags:x} {answers:x?}");
        }
    }
}
