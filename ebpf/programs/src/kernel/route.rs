//! The kernel's routing table, asked for the way on of a translated packet.

use aya_ebpf::bindings::{BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS, bpf_fib_lookup};
use packet::{Address as _, Family, Flow as _, Headers};

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// What the routing table says.
pub(crate) enum Route {
    /// Device and neighbour are known.
    Known,
    /// The device is known, the neighbour's link address is not yet.
    NoNeighbour,
    /// No way on: unreachable, local, too big, or this node does not forward.
    None,
}

/// A question for the route of a packet that arrived at `ifindex` and now has the tuple `to`.
#[inline(always)]
pub(crate) fn query<F: Family>(headers: &Headers<F>, to: &F::Flow, ifindex: u32) -> bpf_fib_lookup {
    // SAFETY: the type is made of integers, for which zeros are a value.
    let mut query: bpf_fib_lookup = unsafe { core::mem::zeroed() };
    let _ = headers;
    query.ifindex = ifindex;
    query.l4_protocol = to.proto();
    query.sport = u16::from_ne_bytes(to.sport().to_bytes());
    query.dport = u16::from_ne_bytes(to.dport().to_bytes());
    let saddr: [u32; 4] = zerocopy::transmute!(to.saddr().padded());
    let daddr: [u32; 4] = zerocopy::transmute!(to.daddr().padded());
    if F::NUMBER == abi::family::V4 {
        query.family = AF_INET;
        query.__bindgen_anon_3.ipv4_src = saddr[0];
        query.__bindgen_anon_4.ipv4_dst = daddr[0];
    } else {
        query.family = AF_INET6;
        query.__bindgen_anon_3.ipv6_src = saddr;
        query.__bindgen_anon_4.ipv6_dst = daddr;
    }
    query
}

/// Reads the helper's return value.
#[inline(always)]
pub(crate) fn answer(result: i64) -> Route {
    const SUCCESS: i64 = BPF_FIB_LKUP_RET_SUCCESS as i64;
    const NO_NEIGH: i64 = BPF_FIB_LKUP_RET_NO_NEIGH as i64;
    match result {
        SUCCESS => Route::Known,
        // The device is set before the neighbour is looked for: kernel 5.12 (d1c362e1dd68).
        NO_NEIGH => Route::NoNeighbour,
        _ => Route::None,
    }
}
