//! The host side of a pod's link, packets towards the pod: a service's answers get its address.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;

use super::outlined::place;
use super::skb::Skb;
use super::tc;

#[classifier]
pub(crate) fn pod_egress(ctx: TcContext) -> i32 {
    tc::egress(Skb::new(&ctx), place::POD)
}
