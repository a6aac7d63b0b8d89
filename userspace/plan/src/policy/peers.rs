//! Which clauses an address is meant by: from blocks, their exceptions and pods to prefixes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use abi::PolicyPeerKey;
use abi::policy::{ADDRESS_BITS, EPOCH_BITS, NODE};
use model::Range;

/// That an address is meant by a clause: the clause, and the profile of the ports that its names mean there.
pub(crate) type Element = (u32, u32);

/// What an address is meant by, in order, each once.
pub(crate) type Signature = Arc<[Element]>;

/// A block of a clause.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Block<'a> {
    pub(crate) clause: u32,
    pub(crate) range: Range,
    pub(crate) except: &'a [Range],
}

impl Block<'_> {
    /// Whether an address is in it and in none of its exceptions.
    pub(crate) fn contains(&self, addr: IpAddr) -> bool {
        self.range.contains(addr) && !self.except.iter().any(|except| except.contains(addr))
    }
}

/// A range of addresses of both families: first address and number of leading bits.
type Prefix = (u128, u8);

/// Where IPv4 addresses are among those of IPv6.
const MAPPED: Prefix = (0xffff_0000_0000, 96);

#[derive(Default)]
struct Place {
    begins: Vec<u32>,
    excepts: Vec<u32>,
    pod: Option<Signature>,
    node: bool,
}

/// What holds within a prefix, as far as blocks are concerned.
#[derive(Clone)]
struct Within {
    prefix: Prefix,
    active: Arc<Vec<u32>>,
    signature: Signature,
}

/// Every prefix whose addresses differ in what they are meant by from those around.
pub(crate) struct Peers<'a> {
    blocks: Vec<Block<'a>>,
    places: BTreeMap<Prefix, Place>,
}

impl<'a> Peers<'a> {
    pub(crate) fn new(mut blocks: Vec<Block<'a>>) -> Self {
        blocks.sort();
        blocks.dedup();
        let mut places: BTreeMap<Prefix, Place> = BTreeMap::new();
        places.insert(MAPPED, Place::default());
        for (index, block) in (0..).zip(&blocks) {
            let Some(range) = prefix(block.range) else {
                continue;
            };
            // An exception of the other family excepts nothing, even one that is all addresses.
            let v4 = block.range.addr().is_ipv4();
            let except = block
                .except
                .iter()
                .filter(|except| except.addr().is_ipv4() == v4);
            let except: Vec<Prefix> = except.copied().filter_map(prefix).collect();
            if except.iter().any(|except| contains(*except, range)) {
                continue; // nothing is left
            }
            places.entry(range).or_default().begins.push(index);
            for except in except {
                if contains(range, except) {
                    places.entry(except).or_default().excepts.push(index);
                }
            }
        }
        Peers { blocks, places }
    }

    /// An address is a pod's.
    pub(crate) fn pod(&mut self, addr: IpAddr, signature: &Signature) {
        self.places.entry(host(addr)).or_default().pod = Some(signature.clone());
    }

    /// An address is this node's own.
    pub(crate) fn node(&mut self, addr: IpAddr) {
        self.places.entry(host(addr)).or_default().node = true;
    }

    /// Gives every prefix that differs from what is around it, in order, with its signature and whether it is this
    /// node's own.
    pub(crate) fn walk(&self, mut each: impl FnMut(Prefix, &Signature, bool)) {
        let nothing = Within {
            prefix: (0, 0),
            active: Arc::default(),
            signature: Arc::default(),
        };
        let mut around = vec![nothing.clone()];
        for (prefix, place) in &self.places {
            while around.len() > 1
                && !around
                    .last()
                    .is_some_and(|within| contains(within.prefix, *prefix))
            {
                around.pop();
            }
            let outside = around.last().unwrap_or(&nothing).clone();
            // No block of IPv6 means addresses of IPv4.
            let mut within = if *prefix == MAPPED {
                nothing.clone()
            } else {
                outside.clone()
            };
            within.prefix = *prefix;
            if !place.begins.is_empty() || !place.excepts.is_empty() {
                let out = |block: &u32| place.excepts.binary_search(block).is_ok();
                let stays = within.active.iter().filter(|block| !out(block));
                let mut active: Vec<u32> = stays.copied().collect();
                active.extend(&place.begins);
                active.sort_unstable();
                active.dedup();
                within.signature = self.signature(&active);
                within.active = Arc::new(active);
            }
            let signature = match &place.pod {
                Some(pod) => joined(&within.signature, pod),
                None => within.signature.clone(),
            };
            let same = signature == outside.signature && !place.node;
            if !same || *prefix == MAPPED {
                each(*prefix, &signature, place.node);
            }
            around.push(within);
        }
    }

    fn signature(&self, active: &[u32]) -> Signature {
        let clauses = active
            .iter()
            .filter_map(|block| self.blocks.get(*block as usize));
        in_order(clauses.map(|block| (block.clause, 0)))
    }
}

fn joined(a: &Signature, b: &Signature) -> Signature {
    if a.is_empty() {
        return b.clone();
    }
    in_order(a.iter().chain(b.iter()).copied())
}

/// A signature of elements in any order, with repetitions.
pub(crate) fn in_order(elements: impl Iterator<Item = Element>) -> Signature {
    let mut elements: Vec<Element> = elements.collect();
    elements.sort_unstable();
    elements.dedup();
    elements.into()
}

fn mapped(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(addr) => addr.to_ipv6_mapped().to_bits(),
        IpAddr::V6(addr) => addr.to_bits(),
    }
}

fn host(addr: IpAddr) -> Prefix {
    (mapped(addr), 128)
}

/// `None` for addresses of IPv6 that no packet has: those that stand for IPv4's.
fn prefix(range: Range) -> Option<Prefix> {
    let prefix = match range.addr() {
        IpAddr::V4(_) => (mapped(range.addr()), 96 + range.prefix_len()),
        IpAddr::V6(_) => (mapped(range.addr()), range.prefix_len()),
    };
    (range.addr().is_ipv4() || !contains(MAPPED, prefix)).then_some(prefix)
}

fn contains((addr, len): Prefix, (inner, inner_len): Prefix) -> bool {
    let mask = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
    len <= inner_len && inner & mask == addr
}

/// The entry of the table of peers for a prefix.
pub(crate) fn key(epoch: u32, (addr, len): Prefix) -> PolicyPeerKey {
    PolicyPeerKey {
        prefix_len: EPOCH_BITS + u32::from(len),
        epoch,
        addr: addr.to_be_bytes(),
    }
}

/// The identity that the table gives an address, found as the kernel finds it.
pub(crate) fn find(peers: &BTreeMap<PolicyPeerKey, u32>, epoch: u32, addr: IpAddr) -> u32 {
    let addr = mapped(addr);
    let at = |len: u32| {
        let mask = u128::MAX.checked_shl(ADDRESS_BITS - len).unwrap_or(0);
        peers.get(&PolicyPeerKey {
            prefix_len: EPOCH_BITS + len,
            epoch,
            addr: (addr & mask).to_be_bytes(),
        })
    };
    let found = (0..=ADDRESS_BITS).rev().find_map(at);
    found.copied().unwrap_or_default() & !NODE
}
