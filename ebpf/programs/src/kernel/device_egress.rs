//! A node device, packets that leave: a service's answers get its address.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;

use super::outlined::place;
use super::skb::Skb;
use super::tc;

#[classifier]
pub(crate) fn device_egress(ctx: TcContext) -> i32 {
    let skb = Skb::new(&ctx);
    if skb.take_mark() {
        // `pod_ingress` sent it here, and has done this program's part.
        return tc::NEXT;
    }
    tc::egress(skb, place::DEVICE)
}
