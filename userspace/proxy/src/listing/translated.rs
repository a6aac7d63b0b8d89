//! What `dsr` leaves to source translation, in words for `fairlead status` and `fairlead doctor`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use abi::members::flags::{HERE, NODE};
use abi::{Backend, Member, MemberKey, backends, family, frontends};
use plan::{FrontendKey, Tables};

/// Each place that is reached with this node's source though packets are to keep theirs, and why.
#[must_use]
pub fn translated(tables: &Tables, members: &BTreeMap<MemberKey, Member>) -> Vec<String> {
    let mut ranges = BTreeSet::new();
    let straight = backends::flags::LOCAL | backends::flags::TUNNELS;
    for backend in tables.backends.values() {
        let of = (backend.flags & straight == 0).then(|| member(members, mapped(backend)));
        match of.flatten() {
            Some((key, member)) if member.flags & HERE == 0 => ranges.insert(range(key)),
            Some(_) | None => false,
        };
    }
    let mut addresses = BTreeSet::new();
    for (key, frontend) in &tables.frontends {
        use frontends::flags::{HOST_ONLY, NODE_PORT};
        let addr: IpAddr = match key {
            FrontendKey::V4(key) => key.addr.into(),
            FrontendKey::V6(key) => key.addr.into(),
        };
        let named = member(members, to_mapped(addr)).is_some_and(|(_, it)| it.flags & NODE != 0);
        if frontend.flags & (HOST_ONLY | NODE_PORT) == NODE_PORT && !named {
            addresses.insert(addr);
        }
    }
    let ranges = ranges.into_iter().map(|range| {
        format!(
            "backends in {range} by snat: the route there is a tunnel, or no node is named for them"
        )
    });
    let addresses = addresses.into_iter().map(|addr| {
        format!("NodePorts at {addr} by snat: the Node object does not name this address as an InternalIP")
    });
    ranges.chain(addresses).collect()
}

/// The longest range that an address is in.
fn member(members: &BTreeMap<MemberKey, Member>, addr: Ipv6Addr) -> Option<(&MemberKey, &Member)> {
    (0..=128).rev().find_map(|prefix_len| {
        let mask = u128::MAX.checked_shl(128 - prefix_len).unwrap_or(0);
        members.get_key_value(&MemberKey {
            prefix_len,
            addr: (u128::from(addr) & mask).to_be_bytes(),
        })
    })
}

fn range(key: &MemberKey) -> String {
    let addr = Ipv6Addr::from(key.addr);
    match addr.to_ipv4_mapped() {
        Some(addr) => format!("{addr}/{}", key.prefix_len.saturating_sub(96)),
        None => format!("{addr}/{}", key.prefix_len),
    }
}

fn mapped(backend: &Backend) -> Ipv6Addr {
    let [a, b, c, d, ..] = backend.addr;
    match backend.family {
        family::V4 => to_mapped([a, b, c, d].into()),
        _ => backend.addr.into(),
    }
}

fn to_mapped(addr: IpAddr) -> Ipv6Addr {
    match addr {
        IpAddr::V4(addr) => addr.to_ipv6_mapped(),
        IpAddr::V6(addr) => addr,
    }
}
