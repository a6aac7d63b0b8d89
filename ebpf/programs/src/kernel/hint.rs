//! What `device_xdp` tells `device_ingress` of a packet, in the octets before it: that it was balanced, that its client's
//! source was checked, and that a pod of this node is to have it.
//!
//! The octets stay with a packet on its way into a pod, which may be a node itself: the sender is named.

use core::mem::offset_of;

use aya_ebpf::bindings::{__sk_buff, xdp_md};
use aya_ebpf::helpers::generated::bpf_xdp_adjust_meta;

use super::frame::Frame;
use super::mem::{Words, bounds};
use super::skb::Skb;
use super::tables::host;

/// Length in octets.
const LEN: i32 = 8;

/// Leaves the hint, where the driver has room for it.
#[inline(always)]
pub(crate) fn leave(frame: &Frame) {
    let host = host();
    // SAFETY: the helper takes this hook's context.
    if host == 0 || unsafe { bpf_xdp_adjust_meta(frame.ctx(), -LEN) } != 0 {
        return;
    }
    let (meta, data) =
        bounds::<_, { offset_of!(xdp_md, data_meta) }, { offset_of!(xdp_md, data) }>(frame.ctx());
    if let Some(words) = Words::<2>::at(meta, data, 0) {
        words.set_word(0, host);
        words.set_word(1, frame.ifindex());
    }
}

/// Whether `device_xdp` of this node has left the hint at the device where the packet is seen.
#[inline(always)]
pub(crate) fn is_on(skb: &Skb) -> bool {
    let (meta, data) =
        bounds::<_, { offset_of!(__sk_buff, data_meta) }, { offset_of!(__sk_buff, data) }>(
            skb.ctx(),
        );
    match Words::<2>::at(meta, data, 0) {
        Some(words) => {
            let host = host();
            host != 0 && words.word(0) == host && words.word(1) == skb.ifindex()
        }
        None => false,
    }
}
