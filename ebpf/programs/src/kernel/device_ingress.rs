//! A node device, packets that arrive: what XDP left, and everything where there is no XDP.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;

use super::outlined::place;
use super::skb::Skb;
use super::tc;

#[classifier]
pub(crate) fn device_ingress(ctx: TcContext) -> i32 {
    tc::ingress(Skb::new(&ctx), place::DEVICE)
}
