//! The host side of a pod's link, packets that leave the pod: services are balanced, hairpins turned round.

use aya_ebpf::bindings::TC_ACT_SHOT;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;

use super::limit::Side;
use super::outlined::place;
use super::skb::Skb;
use super::{limit, source, tc};

#[classifier]
pub(crate) fn pod_ingress(ctx: TcContext) -> i32 {
    let skb = Skb::new(&ctx);
    if source::is_forged(skb) || limit::exceeds(skb, Side::Sent) {
        return TC_ACT_SHOT;
    }
    tc::ingress(skb, place::POD)
}
