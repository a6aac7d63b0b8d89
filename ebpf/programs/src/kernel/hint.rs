//! What `device_xdp` tells `device_ingress` of a packet, in the octets before it: that it was balanced, that its client's
//! source was checked, and, where it may go there straight, the link of the pod of this node that is to have it. Such a
//! packet has made its hop but for the link addresses: a packet for another one's address is not taken up the stack.
//!
//! The octets stay with a packet on its way into a pod, which may be a node itself: the sender is named. They are the
//! same in all packets of a flow, or receive offload would not put those together.

use core::mem::offset_of;

use abi::{Counter, Endpoint};
use aya_ebpf::bindings::{__sk_buff, xdp_md};
use aya_ebpf::helpers::generated::{bpf_redirect_peer, bpf_xdp_adjust_meta};
use packet::parse::ETHERNET_LEN;
use packet::{Bytes as _, hop};

use super::count::count;
use super::frame::Frame;
use super::mem::{Words, bounds};
use super::policy;
use super::skb::Skb;
use super::tables::host;

/// Length in words: this host, the device, the pod's link on this side (zero where the packet may not go there
/// straight), and the link header's addresses.
const LEN: usize = 6;

/// Leaves the hint; false where the driver has no room for it.
#[inline(always)]
pub(crate) fn leave(frame: &Frame, pod: Option<&Endpoint>) -> bool {
    let host = host();
    // SAFETY: the helper takes this hook's context.
    if host == 0 || unsafe { bpf_xdp_adjust_meta(frame.ctx(), -(LEN as i32 * 4)) } != 0 {
        return false;
    }
    let (meta, data) =
        bounds::<_, { offset_of!(xdp_md, data_meta) }, { offset_of!(xdp_md, data) }>(frame.ctx());
    let Some(words) = Words::<LEN>::at(meta, data, 0) else {
        return false;
    };
    words.set_word(0, host);
    words.set_word(1, frame.ifindex());
    let (link, addresses) = match pod {
        Some(pod) => (pod.ifindex, hop::link(pod.host_link, pod.pod_link)),
        None => (0, [0; 3]),
    };
    words.set_word(2, link);
    let [a, b, c] = addresses;
    words.set_word(3, a);
    words.set_word(4, b);
    words.set_word(5, c);
    true
}

/// Whether `device_xdp` of this node has left the hint at the device where the packet is seen.
#[inline(always)]
pub(crate) fn is_on(skb: &Skb) -> bool {
    found(skb).is_some()
}

/// What [`follow`] says of a packet that is to be looked at. No verdict of TC's.
pub(crate) const NOT_FOLLOWED: i32 = -2;

/// Sends a packet that has made its hop to its pod. A function of its own, so that what it holds does not lie on the
/// stack beside what is done with other packets.
#[inline(never)]
pub(crate) fn follow(skb: Skb) -> i32 {
    straight(&skb).unwrap_or(NOT_FOLLOWED)
}

#[inline(always)]
fn straight(skb: &Skb) -> Option<i32> {
    let words = found(skb)?;
    let pod = words.word(2);
    // Of policies XDP has seen to it that there are none, but they may have come since.
    if pod == 0 || policy::is_on() || !skb.is_for_this_device() {
        return None;
    }
    skb.set_link([words.word(3), words.word(4), words.word(5)])?;
    count(Counter::TcHostRouted, skb.len().wrapping_sub(ETHERNET_LEN));
    // SAFETY: the helper takes numbers. Kernel 5.10 (9aa1206e8f48).
    Some(unsafe { bpf_redirect_peer(pod, 0) } as i32)
}

#[inline(always)]
fn found(skb: &Skb) -> Option<Words<LEN>> {
    let (meta, data) =
        bounds::<_, { offset_of!(__sk_buff, data_meta) }, { offset_of!(__sk_buff, data) }>(
            skb.ctx(),
        );
    let words = Words::<LEN>::at(meta, data, 0)?;
    let host = host();
    (host != 0 && words.word(0) == host && words.word(1) == skb.ifindex()).then_some(words)
}
