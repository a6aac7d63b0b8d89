//! A fingerprint of every table's name and of every field's name, offset and size, and of the counters' order,
//! compared with [`crate::LAYOUT_VERSION`] by a test.

use core::mem::{offset_of, size_of};

use crate::{
    Affinity, AffinityKey, Backend, Balancing, Bucket, Connection, Conversation, Counter,
    CounterValue, Device, DnsAnswer, DnsControl, DnsName, Endpoint, Event, Flow4, Flow6,
    FlowState4, FlowState6, FragmentKey, FragmentPorts, Frontend, FrontendKey4, FrontendKey6, Host,
    HostRouting, InsideKey, Limit, Load, Masquerade, Member, MemberKey, Namespace, NextHop,
    NodeConfig, PolicyAnswer, PolicyControl, PolicyHeld, PolicyHeldKey, PolicyLink, PolicyLinkKey,
    PolicyPassed, PolicyPeerKey, PolicyPod, PolicyPortKey, PolicyVerdictKey, Quota, ReverseSocket,
    ReverseSocketKey, RingSlot, Source, SourceKey, SpreadWord, Watcher, Watchers, policy,
};

/// FNV-1a over the bytes of a word and a number.
const fn mix(hash: u64, word: &str, number: usize) -> u64 {
    let mut hash = hash;
    let mut i = 0;
    while i < word.len() {
        hash = (hash ^ word.as_bytes()[i] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        i += 1;
    }
    (hash ^ number as u64).wrapping_mul(0x0000_0100_0000_01b3)
}

const fn size_of_field<S, F>(_: fn(&S) -> &F) -> usize {
    size_of::<F>()
}

/// Every type that a table holds, with all of its fields: a field that is left out does not compile.
macro_rules! fingerprint {
    ($($type:ident { $($field:ident),* })*) => {{
        let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
        $(
            hash = mix(hash, stringify!($type), size_of::<$type>());
            $(
                hash = mix(hash, stringify!($field), offset_of!($type, $field));
                hash = mix(hash, "", size_of_field(|value: &$type| &value.$field));
            )*
            const _: fn(&$type) = |$type { $($field: _),* }| {};
        )*
        hash
    }};
}

const TYPES: u64 = fingerprint! {
    FrontendKey4 { addr, port, proto, scope }
    FrontendKey6 { addr, port, proto, scope }
    Frontend { service, ring_offset, ring_len, affinity_secs, flags }
    RingSlot { backend, _reserved }
    Backend { addr, port, family, flags, service }
    AffinityKey { client, service, client_kind }
    Affinity { backend, last_used_secs }
    Flow4 { saddr, daddr, sport, dport, proto, _pad }
    Flow6 { saddr, daddr, sport, dport, proto, _pad }
    FlowState4 { to, service, backend, last_seen_secs, flags }
    FlowState6 { to, service, backend, last_seen_secs, flags }
    ReverseSocketKey { cookie, addr, port, family, _pad }
    ReverseSocket { addr, port, _pad }
    FragmentKey { saddr, daddr, id, proto, family, _pad }
    FragmentPorts { sport, dport, proto, _pad }
    Device { flags }
    NodeConfig { addr4, addr6, snat_port_min, snat_port_max }
    CounterValue { packets, bytes }
};

const NAMES: [&str; 12] = [
    crate::frontends::NAME4,
    crate::frontends::NAME6,
    crate::rings::NAME,
    crate::backends::NAME,
    crate::affinity::NAME,
    crate::flows::NAME4,
    crate::flows::NAME6,
    crate::reverse_sockets::NAME,
    crate::fragments::NAME,
    crate::devices::NAME,
    crate::config::NAME,
    crate::counters::NAME,
];

/// Counters that the version began with. Those behind them were added: the table has room for more (see
/// [`crate::counters::CAPACITY`]), and a process that does not know one does not show it.
const COUNTERS: usize = 21;

/// What came to this version since: tables by name, with a fingerprint of what they hold. A table that is added
/// changes none that is there: an older process leaves it alone, a newer one makes it where it is not pinned yet,
/// and the programs of both run on the same tables. So the version stays, and flows live on.
pub const ADDED: [(&str, u64); 41] = [
    (
        crate::endpoints::NAME4,
        fingerprint! { Endpoint { ifindex, flags, pod_link, host_link, _pad } },
    ),
    (
        crate::endpoints::NAME6,
        fingerprint! { Endpoint { ifindex, flags, pod_link, host_link, _pad } },
    ),
    (
        crate::host_routing::NAME,
        fingerprint! { HostRouting { until_secs4, until_secs6, reason4, reason6 } },
    ),
    (
        crate::dns::NAMES,
        fingerprint! {
            DnsName { words }
            DnsAnswer { addr4, addr6, ttl, zone_at, flags, _pad }
        },
    ),
    (
        crate::dns::CONTROL,
        fingerprint! {
            DnsControl {
                service4, service6, local4, local6, service_port, local_port, answers_reason,
                local_reason, left_out, generation, serial, answers_until_secs, local_until_secs
            }
        },
    ),
    (crate::dns::SCRATCH, crate::dns::SCRATCH_LEN as u64),
    (crate::dns::ALIVE, 0),
    (
        crate::sources::NAME,
        fingerprint! {
            SourceKey { prefix_len, service, addr }
            Source { _reserved }
        },
    ),
    (crate::host::NAME, fingerprint! { Host { netns_cookie } }),
    (
        policy::CONTROL,
        fingerprint! { PolicyControl { flags, epoch, generation, _pad } },
    ),
    (
        policy::LINKS,
        fingerprint! {
            PolicyLinkKey { ifindex, epoch }
            PolicyLink { ingress, ingress_default, egress, egress_default, adopt_until_secs }
        },
    ),
    (
        policy::PEERS,
        fingerprint! { PolicyPeerKey { prefix_len, epoch, addr } },
    ),
    (
        policy::VERDICTS,
        fingerprint! { PolicyVerdictKey { set, identity } },
    ),
    (
        policy::PORTS,
        fingerprint! { PolicyPortKey { prefix_len, profile, proto, _pad, port } },
    ),
    (
        policy::FLOWS4,
        fingerprint! { Conversation { egress, ingress, last_seen_secs, second_began } },
    ),
    (
        policy::FLOWS6,
        fingerprint! { Conversation { egress, ingress, last_seen_secs, second_began } },
    ),
    (
        policy::HELD,
        fingerprint! {
            PolicyHeldKey { policy, ifindex }
            PolicyHeld { since_secs, closed }
        },
    ),
    (crate::spreads::NAME, fingerprint! { SpreadWord { words } }),
    (crate::loads::NAME, fingerprint! { Load { connections } }),
    (
        crate::loads::CONNECTIONS,
        fingerprint! { Connection { backend, service } },
    ),
    (
        crate::events::SWITCHES,
        fingerprint! {
            Watcher { until_secs, kinds, threshold, _pad }
            Watchers { watchers }
        },
    ),
    (crate::events::LOST, size_of::<u64>() as u64),
    (crate::events::RINGS[0], EVENT),
    (crate::events::RINGS[1], EVENT),
    (crate::events::RINGS[2], EVENT),
    (crate::events::RINGS[3], EVENT),
    (
        crate::masquerade::INSIDE,
        fingerprint! { InsideKey { prefix_len, family, addr } },
    ),
    (
        crate::masquerade::NAME,
        fingerprint! { Masquerade { families } },
    ),
    (
        crate::limits::NAME,
        fingerprint! {
            Limit { sent, got }
            Bucket { bytes_per_sec, burst_ns, empty_at_ns }
        },
    ),
    (crate::limits::LIMITING, size_of::<u32>() as u64),
    (
        crate::members::NAME,
        fingerprint! {
            MemberKey { prefix_len, addr }
            Member { flags }
        },
    ),
    (crate::balancing::NAME, fingerprint! { Balancing { mode } }),
    (
        crate::quotas::NAME,
        fingerprint! { Quota { groups, flows_max, flows, refused } },
    ),
    (policy::CGROUPS, size_of::<u32>() as u64),
    (policy::PODS, fingerprint! { PolicyPod { cgroup, uid } }),
    (crate::openings::NAME4, size_of::<Flow4>() as u64),
    (crate::openings::NAME6, size_of::<Flow6>() as u64),
    (
        crate::next_hops::NAME,
        fingerprint! {
            NextHop { saddr, daddr, from, ifindex, next, next_family, mtu, asked_ms }
        },
    ),
    (
        crate::namespaces::NAME,
        fingerprint! { Namespace { addr4, addr6 } },
    ),
    (
        crate::passed::NAME,
        fingerprint! {
            PolicyPassed { pod, remote, ports, what, link, generation, moment }
        },
    ),
    (
        crate::passed::ANSWERS,
        fingerprint! { PolicyAnswer { remote, set, usual, proto, family, port, generation } },
    ),
];

const EVENT: u64 = fingerprint! {
    Event {
        time_ns, netns_cookie, saddr, daddr, to_saddr, to_daddr, sport, dport, to_sport, to_dport,
        bytes, ifindex, pid, what, family, proto, comm
    }
};

/// The fingerprint of this build's layout, without what was [`ADDED`].
pub const FINGERPRINT: u64 = {
    let mut hash = TYPES;
    let mut i = 0;
    while i < NAMES.len() {
        hash = mix(hash, NAMES[i], i);
        i += 1;
    }
    let mut i = 0;
    while i < COUNTERS {
        hash = mix(hash, Counter::ALL[i].label(), Counter::ALL[i] as usize);
        i += 1;
    }
    hash
};

#[cfg(test)]
mod tests {
    /// Layout versions that were ever released, with their fingerprints. Never edit a line: add one.
    const RELEASED: &[(u32, u64)] = &[(1, 8_704_338_765_809_741_137)];

    /// What was added to the last version and released. Never edit a line either.
    const RELEASED_ADDED: &[(&str, u64)] = &[
        ("ENDPOINTS4", 12_015_523_427_939_503_309),
        ("ENDPOINTS6", 12_015_523_427_939_503_309),
        ("HOST_ROUTING", 15_631_183_993_857_336_407),
        ("DNS_NAMES", 3_255_989_796_858_737_159),
        ("DNS_CONTROL", 13_756_120_172_235_810_200),
        ("DNS_SCRATCH", 512),
        ("DNS_ALIVE", 0),
        ("SOURCES", 14_549_145_317_994_021_091),
        ("HOST", 9_191_175_750_574_051_562),
        ("POLICY_CONTROL", 9_041_193_763_431_519_732),
        ("POLICY_LINKS", 963_745_713_302_958_356),
        ("POLICY_PEERS", 2_767_221_175_002_389_488),
        ("POLICY_VERDICTS", 8_972_099_426_299_798_465),
        ("POLICY_PORTS", 6_706_170_846_029_089_360),
        ("POLICY_FLOWS4", 16_144_706_000_598_473_187),
        ("POLICY_FLOWS6", 16_144_706_000_598_473_187),
        ("POLICY_HELD", 460_926_380_892_422_042),
        ("SPREADS", 18_392_508_401_665_443_731),
        ("LOADS", 8_709_736_781_464_625_896),
        ("CONNECTIONS", 3_971_616_664_300_885_628),
        ("SWITCHES", 8_401_994_232_132_759_888),
        ("EVENTS_LOST", 8),
        ("EVENTS0", 2_622_434_840_162_553_891),
        ("EVENTS1", 2_622_434_840_162_553_891),
        ("EVENTS2", 2_622_434_840_162_553_891),
        ("EVENTS3", 2_622_434_840_162_553_891),
        ("INSIDE", 2_749_481_710_940_674_467),
        ("MASQUERADE", 12_993_079_024_459_913_173),
        ("LIMITS", 10_468_286_564_850_603_194),
        ("LIMITING", 4),
        ("MEMBERS", 16_286_154_081_561_788_476),
        ("BALANCING", 17_023_286_758_200_864_463),
        ("QUOTAS", 8_401_377_514_075_658_912),
        ("POLICY_CGROUPS", 4),
        ("POLICY_PODS", 11_892_805_909_457_229_536),
        ("OPENINGS4", 16),
        ("OPENINGS6", 40),
        ("NEXT_HOPS", 11_891_006_823_956_958_389),
        ("NAMESPACES", 5_261_946_770_784_867_300),
        ("POLICY_PASSED", 5_317_980_025_467_636_070),
        ("POLICY_ANSWERS", 9_220_627_709_163_000_947),
    ];

    #[test]
    fn what_was_added_stays_as_it_is() {
        assert_eq!(
            super::ADDED.as_slice(),
            RELEASED_ADDED,
            "a table that was added changed: raise LAYOUT_VERSION; or one more was added: add a line here"
        );
    }

    #[test]
    fn a_changed_layout_has_a_new_version() {
        assert_eq!(
            RELEASED.last(),
            Some(&(crate::LAYOUT_VERSION, super::FINGERPRINT)),
            "the layout changed: raise LAYOUT_VERSION, add a line here, and the tables to inherit::CHANGES"
        );
    }
}
