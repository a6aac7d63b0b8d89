//! Policies and the pods of this node for which they hold, as rows for `fairlead policy list`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use abi::policy::held::{ALTERED, NO_ROOM};
use abi::{Endpoint, PolicyPod};
use plan::policy::PolicyTables;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A policy at a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyRow {
    /// A mark of the policy as it was written; `view::policies` gives objects theirs.
    pub mark: u64,
    /// Index of the host's side of the pod's link.
    pub ifindex: u32,
    /// The pod's addresses; none where it uses the node's network.
    pub addresses: Vec<IpAddr>,
    /// Of a pod that uses the node's network, the identifier that its cgroup is named after; the number of the link stands
    /// for none then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Since when it holds there, RFC 3339.
    pub since: String,
    /// It found no room in a table: nothing passes in its direction.
    pub closed: bool,
    /// Something of it is not known here: it denies more, or lets less through, than is written.
    pub altered: bool,
    /// The pod uses the node's network and its cgroup is not found: the policy does not hold.
    pub open: bool,
}

/// Every policy that holds, with every pod for which it does; none where nothing is enforced.
#[must_use]
pub fn policies(
    tables: &PolicyTables,
    endpoints: &BTreeMap<IpAddr, Endpoint>,
    host_pods: &BTreeMap<u32, PolicyPod>,
) -> Vec<PolicyRow> {
    if tables.control.flags & abi::policy::flags::ENFORCED == 0 {
        return Vec::new();
    }
    let held = tables.held.iter();
    held.map(|(key, held)| {
        let here = endpoints.iter().filter(|(_, of)| of.ifindex == key.ifindex);
        let host_pod = host_pods.get(&key.ifindex);
        let since = i64::try_from(whole(held.since_secs)).unwrap_or(i64::MAX);
        let since = OffsetDateTime::from_unix_timestamp(since).ok();
        PolicyRow {
            mark: whole(key.policy),
            ifindex: key.ifindex,
            addresses: here.map(|(addr, _)| *addr).collect(),
            uid: host_pod.map(bpf::pod_uid),
            since: since
                .and_then(|since| since.format(&Rfc3339).ok())
                .unwrap_or_default(),
            closed: held.closed & NO_ROOM != 0,
            altered: held.closed & ALTERED != 0,
            open: host_pod.is_some_and(|pod| pod.cgroup == 0),
        }
    })
    .collect()
}

/// A number of two halves, the lower first.
fn whole([low, high]: [u32; 2]) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

#[cfg(test)]
mod tests {
    use abi::{PolicyHeld, PolicyHeldKey};
    use plan::policy::halves;

    use super::*;

    #[test]
    fn what_holds_is_shown_with_addresses_and_time() {
        let mut tables = PolicyTables::default();
        let key = PolicyHeldKey {
            policy: halves(0x1234_5678_9abc_def0),
            ifindex: 7,
        };
        let held = PolicyHeld {
            since_secs: halves(1_000_000_000),
            closed: ALTERED,
        };
        tables.held.insert(key, held);
        let at = |ifindex| Endpoint {
            ifindex,
            ..Endpoint::default()
        };
        let addr = |n| IpAddr::from([10, 0, 0, n]);
        let endpoints = BTreeMap::from([(addr(1), at(7)), (addr(2), at(8))]);
        assert_eq!(
            policies(&tables, &endpoints, &BTreeMap::new()),
            [],
            "nothing is enforced"
        );
        tables.control.flags = abi::policy::flags::ENFORCED;
        let row = PolicyRow {
            mark: 0x1234_5678_9abc_def0,
            ifindex: 7,
            addresses: vec![addr(1)],
            since: "2001-09-09T01:46:40Z".to_owned(),
            uid: None,
            closed: false,
            altered: true,
            open: false,
        };
        assert_eq!(
            policies(&tables, &endpoints, &BTreeMap::new()),
            [row.clone()]
        );
        let mut pod = PolicyPod {
            cgroup: 0,
            uid: [0; abi::policy::POD_UID_LEN],
        };
        pod.uid[..3].copy_from_slice(b"a-b");
        let row = PolicyRow {
            uid: Some("a-b".to_owned()),
            open: true,
            ..row
        };
        let host_pods = BTreeMap::from([(7, pod)]);
        assert_eq!(policies(&tables, &endpoints, &host_pods), [row]);
    }
}
