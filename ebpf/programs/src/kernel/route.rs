//! The kernel's routing table, asked for the way on of a packet.

use aya_ebpf::bindings::{
    BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS, bpf_fib_lookup,
    bpf_fib_lookup__bindgen_ty_1, bpf_fib_lookup__bindgen_ty_2, bpf_fib_lookup__bindgen_ty_3,
    bpf_fib_lookup__bindgen_ty_4, bpf_fib_lookup__bindgen_ty_5, bpf_redir_neigh,
    bpf_redir_neigh__bindgen_ty_1,
};
use packet::{Address as _, Family, Flow as _};

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
pub(crate) fn query<F: Family>(to: &F::Flow, ifindex: u32) -> bpf_fib_lookup {
    let is_v4 = F::NUMBER == abi::family::V4;
    // Every field by itself: zeroing it as a whole would become a loop.
    bpf_fib_lookup {
        family: if is_v4 { AF_INET } else { AF_INET6 },
        l4_protocol: to.proto(),
        sport: u16::from_ne_bytes(to.sport().to_bytes()),
        dport: u16::from_ne_bytes(to.dport().to_bytes()),
        // Zero: the kernel compares the packet's own length with the device's limit.
        __bindgen_anon_1: bpf_fib_lookup__bindgen_ty_1 { tot_len: 0 },
        ifindex,
        __bindgen_anon_2: bpf_fib_lookup__bindgen_ty_2 { flowinfo: 0 },
        // IPv4 takes the first word.
        __bindgen_anon_3: bpf_fib_lookup__bindgen_ty_3 {
            ipv6_src: to.saddr().words(),
        },
        __bindgen_anon_4: bpf_fib_lookup__bindgen_ty_4 {
            ipv6_dst: to.daddr().words(),
        },
        __bindgen_anon_5: bpf_fib_lookup__bindgen_ty_5 { tbid: 0 },
        smac: [0; 6],
        dmac: [0; 6],
    }
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

/// The address of the next hop that a routing table has answered with: of a gateway, or of the destination itself. IPv4
/// has the first word.
#[inline(always)]
pub(crate) fn next_address(answered: &bpf_fib_lookup) -> [u32; 4] {
    // SAFETY: every bit pattern is four words.
    unsafe { answered.__bindgen_anon_4.ipv6_dst }
}

/// A next hop in the form that `bpf_redirect_neigh` takes. An IPv4 packet's may have an IPv6 address (RFC 5549).
#[inline(always)]
pub(crate) fn next_hop(family: u32, address: [u32; 4]) -> bpf_redir_neigh {
    bpf_redir_neigh {
        nh_family: family,
        __bindgen_anon_1: bpf_redir_neigh__bindgen_ty_1 { ipv6_nh: address },
    }
}
