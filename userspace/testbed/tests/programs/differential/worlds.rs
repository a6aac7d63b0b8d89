//! Tables: services of every kind, and policies.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use abi::members::flags as member_of;
use abi::policy::{ACCEPT, ADDRESS_BITS, CLOSED, EPOCH_BITS, NODE, PORT_AT, REFUSE, flags};
use abi::quotas::GROUP;
use abi::{
    Frontend, InsideKey, Masquerade, Member, MemberKey, PolicyControl, PolicyLink, PolicyLinkKey,
    PolicyPeerKey, PolicyPortKey, PolicyVerdictKey,
};
use bpf::Quotas;
use plan::policy::PolicyStep;
use plan::{Step, Tables};

use super::frames::{behind, client};
use crate::host_pods::HOST_POD;
use crate::kernel::{LOOPBACK, SCTP, TCP, UDP, backend, key, nets};
use crate::tunnel::{member, other};

/// Backends of a service, at most.
pub(super) const RING: u32 = 3;
/// Places of a table behind a ring.
pub(super) const PLACES: u32 = 8;

/// Other services in the place of those that are there.
pub(super) fn services(before: &Tables, random: &mut fastrand::Rng) -> Vec<Step> {
    let gone = before.frontends.keys();
    let mut steps: Vec<Step> = gone.map(|key| Step::RemoveFrontend(*key)).collect();
    steps.extend(before.sources.iter().map(|key| Step::RemoveSource(*key)));
    let mut id = 0;
    for net in nets() {
        for number in 0..3_u16 {
            let at = behind(&net.service, number, 0);
            for proto in [TCP, UDP, SCTP] {
                id += 1;
                let clients = &net.client;
                steps.extend(service(id, at, proto, clients, &net.backend, random));
            }
            if random.u8(0..3) != 0 {
                let whole = SocketAddr::new(at.ip(), 0);
                let whole = key(whole, abi::frontends::WHOLE_ADDRESS);
                steps.push(Step::PutFrontend(whole, Frontend::default()));
            }
        }
    }
    steps
}

fn service(
    id: u32,
    at: SocketAddr,
    proto: u8,
    clients: &SocketAddr,
    backends: &SocketAddr,
    random: &mut fastrand::Rng,
) -> Vec<Step> {
    use abi::frontends::flags::{CHECK_SOURCE, DROP, HASHED, HOST_ONLY, SPREAD};
    let mut steps = Vec::new();
    let len = random.u32(0..=RING);
    for slot in 0..len {
        let to = match random.u8(0..6) {
            // A client that is its own backend.
            0 => SocketAddr::new(client(clients, random.u16(0..3)).ip(), 8080),
            other => behind(backends, u16::from(other), 0),
        };
        let mut backend = backend(id, to, random.bool());
        if backend.flags == 0 && random.bool() {
            backend.flags = abi::backends::flags::TUNNELS;
        }
        steps.push(Step::PutBackend(id * RING + slot, backend));
    }
    let mut flags = match random.u8(0..10) {
        0 => CHECK_SOURCE,
        1 => DROP,
        2 => HOST_ONLY,
        _ => 0,
    };
    if flags & CHECK_SOURCE != 0 && random.bool() {
        steps.push(Step::PutSource(range(id, clients)));
    }
    if random.u8(0..3) == 0 {
        flags |= abi::frontends::flags::DSR;
    }
    if random.u8(0..2) == 0 {
        flags |= abi::frontends::flags::LIMITED;
    }
    let mut spread = 0;
    if len > 0 && random.u8(0..4) == 0 {
        flags |= [SPREAD, SPREAD | HASHED][random.usize(0..2)];
        spread = id * 2;
        let places: Vec<u8> = (0..PLACES).map(|_| random.u8(1..=len as u8)).collect();
        let word = |from: usize| u32::from_le_bytes(std::array::from_fn(|i| places[from + i]));
        steps.push(Step::PutSpread {
            offset: spread,
            words: [[PLACES, len], [word(0), word(4)]].into(),
        });
    }
    // A slot that leads nowhere, now and then; behind the last one stands the table.
    let hole = random.u8(0..12) == 0;
    let slot = |slot| {
        if hole && slot == 0 {
            0
        } else {
            id * RING + slot
        }
    };
    let offset = id * (RING + 1);
    steps.push(Step::PutRing {
        offset,
        backends: (0..len).map(slot).chain([spread]).collect(),
    });
    let frontend = Frontend {
        service: id,
        ring_offset: offset,
        ring_len: len,
        affinity_secs: if random.u8(0..4) == 0 { 10_800 } else { 0 },
        flags,
    };
    steps.push(Step::PutFrontend(key(at, proto), frontend));
    steps
}

/// The range that the first client is in, and the others not.
fn range(service: u32, end: &SocketAddr) -> abi::SourceKey {
    match end.ip() {
        IpAddr::V4(ip) => abi::SourceKey::v4(service, ip.octets(), 32),
        IpAddr::V6(ip) => abi::SourceKey::v6(service, ip.octets(), 128),
    }
}

/// The cluster's own addresses: two nodes, where the backends are, and a client now and then.
pub(super) fn members(random: &mut fastrand::Rng) -> BTreeMap<MemberKey, Member> {
    let mut members = BTreeMap::new();
    for net in nets() {
        let here = if random.bool() { member_of::HERE } else { 0 };
        members.extend([
            member(net.node, 0, member_of::NODE | member_of::HERE),
            member(other(&net), 0, member_of::NODE),
            member(net.backend.ip(), 8, here),
        ]);
        if random.u8(0..4) == 0 {
            members.extend([member(client(&net.client, 1).ip(), 0, 0)]);
        }
    }
    members
}

/// Bounds of two groups, and services in none, either or both.
pub(super) fn quotas(random: &mut fastrand::Rng) -> Quotas {
    let groups = [GROUP | 1, GROUP | 2];
    let mut wanted = Quotas {
        groups: groups
            .map(|group| (group, random.u32(0..20)))
            .into_iter()
            .collect(),
        ..Quotas::default()
    };
    for service in 1..=18 {
        let mut of = |group| [0, group][random.usize(0..2)];
        let in_groups = groups.map(&mut of);
        if in_groups != [0; 2] {
            wanted.services.insert(service, in_groups);
        }
    }
    wanted
}

const SET: u32 = 20;
const PROFILE: u32 = 40;

/// Policies of another epoch and generation, or none.
pub(super) fn policies(generation: u32, random: &mut fastrand::Rng) -> Vec<PolicyStep> {
    let epoch = random.u32(1..4);
    let mut steps = Vec::new();
    for (number, net) in nets().into_iter().enumerate() {
        for end in [net.client, net.backend, SocketAddr::new(net.node, 0)] {
            let node = if end.ip() == net.node { NODE } else { 0 };
            let identity = random.u32(30..34) | node;
            let left_out = random.u32(0..3);
            steps.push(PolicyStep::PutPeer(
                peer(epoch, end.ip(), left_out),
                identity,
            ));
        }
        let profile = [PROFILE, REFUSE, ACCEPT][random.usize(0..3)];
        let key = PolicyVerdictKey {
            set: SET + random.u32(0..2),
            identity: 30 + number as u32 + random.u32(0..3),
        };
        steps.push(PolicyStep::PutVerdict(key, profile));
        let bits = random.u32(0..=16);
        let port = [80, 8080, 40_000][random.usize(0..3)];
        steps.push(PolicyStep::PutPort(PolicyPortKey {
            prefix_len: PORT_AT + bits,
            profile: PROFILE,
            proto: [TCP, UDP, SCTP, 0][random.usize(0..4)],
            _pad: 0,
            port: (port & u16::MAX.checked_shl(16 - bits).unwrap_or(0)).into(),
        }));
    }
    for ifindex in [LOOPBACK, HOST_POD] {
        let key = PolicyLinkKey { ifindex, epoch };
        if random.u8(0..5) == 0 {
            steps.push(PolicyStep::RemoveLink(key));
            continue;
        }
        let mut set = || [0, CLOSED, SET, SET + 1][random.usize(0..4)];
        let (ingress, egress) = (set(), set());
        let mut usual = || [REFUSE, ACCEPT, PROFILE][random.usize(0..3)];
        let link = PolicyLink {
            ingress,
            ingress_default: usual(),
            egress,
            egress_default: usual(),
            adopt_until_secs: [0, u32::MAX][random.usize(0..2)],
        };
        steps.push(PolicyStep::PutLink(key, link));
    }
    let on = flags::ENFORCED | flags::UNKNOWN_CLOSED;
    steps.push(PolicyStep::Control(PolicyControl {
        flags: [0, flags::ENFORCED, on, on][random.usize(0..4)],
        epoch,
        generation,
        _pad: 0,
    }));
    steps
}

/// A range that an address is the first of.
fn peer(epoch: u32, addr: IpAddr, left_out: u32) -> PolicyPeerKey {
    let addr = match addr {
        IpAddr::V4(addr) => addr.to_ipv6_mapped(),
        IpAddr::V6(addr) => addr,
    };
    let kept = u128::from(addr) >> left_out << left_out;
    PolicyPeerKey {
        prefix_len: EPOCH_BITS + ADDRESS_BITS - left_out,
        epoch,
        addr: kept.to_be_bytes(),
    }
}

/// What is inside of the cluster, and whether pods' packets to the outside get the node's address.
pub(super) fn inside(random: &mut fastrand::Rng) -> (BTreeMap<InsideKey, u32>, Masquerade) {
    use abi::masquerade::{FAMILY_BITS, families, flags::PODS_HERE};
    let mut ranges = BTreeMap::new();
    for net in nets() {
        for (addr, flags) in [
            (net.client.ip(), PODS_HERE),
            (net.backend.ip(), 0),
            (net.service.ip(), 0),
        ] {
            let mut padded = [0; 16];
            let (family, bits) = match addr {
                IpAddr::V4(addr) => {
                    padded[..3].copy_from_slice(&addr.octets()[..3]);
                    (abi::family::V4, 24)
                }
                IpAddr::V6(addr) => {
                    padded[..8].copy_from_slice(&addr.octets()[..8]);
                    (abi::family::V6, 64)
                }
            };
            let key = InsideKey {
                prefix_len: FAMILY_BITS + bits,
                family: family.into(),
                addr: padded,
            };
            if flags == PODS_HERE || random.bool() {
                ranges.insert(key, flags);
            }
        }
    }
    let families = [families::V4, families::V6]
        .into_iter()
        .filter(|_| random.u8(0..4) != 0)
        .sum();
    (ranges, Masquerade { families })
}
