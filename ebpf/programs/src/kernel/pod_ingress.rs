//! The host side of a pod's link, packets that leave the pod: services are balanced, hairpins turned round.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;

use super::outlined::place;
use super::skb::Skb;
use super::tc;

#[classifier]
pub(crate) fn pod_ingress(ctx: TcContext) -> i32 {
    tc::ingress(Skb::new(&ctx), place::POD)
}
