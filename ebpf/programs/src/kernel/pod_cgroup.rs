//! The cgroup of a pod that uses the node's network. It has no link of its own, and the addresses of the node: its packets
//! are judged where its sockets send and get them. Attached to the cgroups of such pods that have policies, and to no
//! others.
//!
//! What goes over the loopback device is between the node and itself, and always passes, as a node always reaches its
//! pods: who it is from cannot be told by its addresses.

use core::mem::offset_of;

use abi::events::kinds;
use abi::policy::CGROUP_LEVELS;
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::{bpf_skb_ancestor_cgroup_id, bpf_skb_load_bytes};
use aya_ebpf::macros::cgroup_skb;
use aya_ebpf::programs::SkBuffContext;
use packet::{Bytes, Family, V4, V6};

use super::count::count_number;
use super::events;
use super::maps::POLICY_CGROUPS;
use super::mem::{field, forget};
use super::outlined::{Plan, Told};
use super::policy::{self, how};

/// Lets the packet pass.
const PASS: i32 = 1;
/// Drops the packet; who sends it is told (EPERM).
const DROP: i32 = 0;
/// Index of the loopback device, in every network namespace.
const LOOPBACK: u32 = 1;
/// Ethernet's types, as the context has them.
const IPV4: u32 = u32::from_be(0x0800 << 16);
const IPV6: u32 = u32::from_be(0x86dd << 16);

#[cgroup_skb(ingress)]
pub(crate) fn cgroup_ingress(ctx: SkBuffContext) -> i32 {
    judge(Packet::of(ctx.skb.skb), 0)
}

#[cgroup_skb(egress)]
pub(crate) fn cgroup_egress(ctx: SkBuffContext) -> i32 {
    judge(Packet::of(ctx.skb.skb), how::EGRESS)
}

#[inline(always)]
fn judge(packet: Packet, how: u32) -> i32 {
    if !policy::is_on() || field::<_, { offset_of!(__sk_buff, ifindex) }>(packet.skb) == LOOPBACK {
        return PASS;
    }
    let link = cgroup_link(packet.skb);
    if link == 0 {
        return PASS;
    }
    match field::<_, { offset_of!(__sk_buff, protocol) }>(packet.skb) {
        IPV4 => judge4(packet, link, how),
        IPV6 => judge6(packet, link, how),
        _ => PASS,
    }
}

// Functions of their own, so that only one family's plan lies on the stack.

#[inline(never)]
fn judge4(packet: Packet, link: u32, how: u32) -> i32 {
    let mut plan = Plan::<V4>::new(0);
    cgroup_read4(packet.skb, &mut plan);
    done(&plan, link, cgroup_judge4(packet.skb, &plan, link, how))
}

#[inline(never)]
fn judge6(packet: Packet, link: u32, how: u32) -> i32 {
    let mut plan = Plan::<V6>::new(0);
    cgroup_read6(packet.skb, &mut plan);
    done(&plan, link, cgroup_judge6(packet.skb, &plan, link, how))
}

#[inline(always)]
fn done<F: Told>(plan: &Plan<F>, link: u32, denied: u32) -> i32 {
    if denied == 0 {
        return PASS;
    }
    count_number(denied - 1, plan.headers.bytes);
    F::tell(plan, events::what_number(kinds::DROP, denied - 1), link);
    DROP
}

/// The number of the pod in whose cgroup the packet's socket is; zero where it has none. Walked by itself, see
/// [`super::outlined`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn cgroup_link(skb: *mut __sk_buff) -> u32 {
    // The root is nobody's.
    let mut level = 1;
    while level <= CGROUP_LEVELS {
        // SAFETY: the helper takes this hook's context. Kernel 4.19 (7723628101aa).
        let id = unsafe { bpf_skb_ancestor_cgroup_id(skb, level as i32) };
        if id == 0 {
            return 0;
        }
        // SAFETY: the entry is copied out before anything else touches the map.
        if let Some(link) = unsafe { POLICY_CGROUPS.get(id) } {
            return *link;
        }
        level += 1;
    }
    0
}

macro_rules! outlined {
    ($family:ty, $read:ident, $judge:ident) => {
        /// Reads a packet that begins with its IP header.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub(crate) extern "C" fn $read(skb: *mut __sk_buff, plan: *mut Plan<$family>) -> u32 {
            // SAFETY: the verifier holds callers to memory of this size, or none. Nothing else has it.
            if let Some(plan) = unsafe { plan.as_mut() } {
                <$family>::read(&Packet::of(skb), &mut plan.headers);
                plan.to = plan.headers.tuple;
            }
            0
        }

        /// [`policy::judge`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub(crate) extern "C" fn $judge(
            skb: *mut __sk_buff,
            plan: *const Plan<$family>,
            link: u32,
            how: u32,
        ) -> u32 {
            // SAFETY: as above.
            match unsafe { plan.as_ref() } {
                Some(plan) => policy::judge(&Packet::of(skb), plan, link, how, false),
                None => 0,
            }
        }
    };
}

outlined!(V4, cgroup_read4, cgroup_judge4);
outlined!(V6, cgroup_read6, cgroup_judge6);

/// A packet of a socket's, from its IP header on: it may only be looked at here, and its headers may lie anywhere.
#[derive(Clone, Copy)]
struct Packet {
    skb: *mut __sk_buff,
}

impl Packet {
    #[inline(always)]
    fn of(skb: *mut __sk_buff) -> Self {
        Self { skb }
    }
}

impl Bytes for Packet {
    #[inline(always)]
    fn words<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
        let mut words = [0; N];
        // SAFETY: the helper checks the offset and writes as many octets as it is told that there is room for.
        let loaded = unsafe {
            bpf_skb_load_bytes(
                self.skb.cast(),
                offset,
                words.as_mut_ptr().cast(),
                N as u32 * 4,
            )
        };
        (loaded == 0).then_some(words)
    }

    #[inline(always)]
    fn len(&self) -> u32 {
        field::<_, { offset_of!(__sk_buff, len) }>(self.skb)
    }

    #[inline(always)]
    fn merge_paths(&self, offset: u32) -> u32 {
        forget(offset, self.len())
    }
}
