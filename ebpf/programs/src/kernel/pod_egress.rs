//! The host side of a pod's link, packets towards the pod: a service's answers get its address.

use aya_ebpf::bindings::TC_ACT_SHOT;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;

use super::limit::Side;
use super::outlined::place;
use super::skb::Skb;
use super::{limit, tc};

#[classifier]
pub(crate) fn pod_egress(ctx: TcContext) -> i32 {
    let skb = Skb::new(&ctx);
    if limit::exceeds(skb, Side::Got) {
        return TC_ACT_SHOT;
    }
    tc::egress(skb, place::POD)
}
