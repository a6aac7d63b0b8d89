//! A pod's bandwidth, where a container runtime has asked for one. What is more is dropped, whatever queue its device
//! has: times of departure (EDT) are kept by one kind of queue alone (fq), and by none on a pod's link.

use abi::Counter;
use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use packet::{Bytes as _, limit};

use super::count::count;
use super::maps::{LIMITING, LIMITS};
use super::skb::Skb;
use super::source;

/// Which of the two limits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// What the pod sends.
    Sent,
    /// What it gets.
    Got,
}

/// Whether a packet is too much for its pod. It is counted then, and to be dropped.
#[inline(always)]
pub(crate) fn exceeds(skb: Skb, side: Side) -> bool {
    match LIMITING.get(0) {
        Some(limiting) if *limiting != 0 => is_too_much(skb, side),
        Some(_) | None => false,
    }
}

/// A function of its own: hardly any pod has a limit.
#[inline(never)]
fn is_too_much(skb: Skb, side: Side) -> bool {
    let Some(found) = LIMITS.get_ptr_mut(skb.ifindex()) else {
        return false;
    };
    // SAFETY: the helper takes nothing and cannot fail.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    let len = skb.len();
    // SAFETY: the pointer comes from the kernel and its element stays mapped until the program ends. The word that is
    // changed in place is aligned and written whole; when two CPUs write it at once one of their packets passes free.
    let fits = unsafe {
        let bucket = match side {
            Side::Sent => &raw mut (*found).sent,
            Side::Got => &raw mut (*found).got,
        };
        let taken = limit::take(&*bucket, len, now_ns);
        if let Some(empty_at_ns) = taken {
            (*bucket).empty_at_ns = empty_at_ns;
        }
        taken.is_some()
    };
    if !fits {
        count(Counter::DropBandwidth, len);
        source::tell(skb, Counter::DropBandwidth);
    }
    !fits
}
