//! A node device, packets that leave: a service's answers get its address.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;

use super::skb::Skb;
use super::tc;

#[classifier]
pub(crate) fn device_egress(ctx: TcContext) -> i32 {
    tc::egress(Skb::new(&ctx))
}
