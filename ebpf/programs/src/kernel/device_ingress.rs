//! A node device, packets that arrive: what XDP left, and everything where there is no XDP.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;

use super::outlined::place;
use super::skb::Skb;
use super::{hint, tc};

#[classifier]
pub(crate) fn device_ingress(ctx: TcContext) -> i32 {
    let skb = Skb::new(&ctx);
    let verdict = hint::follow(skb);
    if verdict != hint::NOT_FOLLOWED {
        return verdict;
    }
    tc::ingress(skb, place::DEVICE)
}
