//! sendmsg(2) and sendto(2) on UDP sockets that name their peer with each datagram.

use abi::Counter;
use abi::events::kinds;
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;

use super::count::count;
use super::events::Seen;
use super::sock::{
    ALLOW, Call, Choice, Outcome, asked4, asked6, balance4, balance6, reject, stays4, stays6,
};

#[cgroup_sock_addr(sendmsg4)]
pub(crate) fn sendmsg4(ctx: SockAddrContext) -> i32 {
    let call = Call::new(&ctx);
    if stays4(&call) {
        return ALLOW;
    }
    verdict(&call, asked4, balance4(&call, Choice::Steady))
}

#[cgroup_sock_addr(sendmsg6)]
pub(crate) fn sendmsg6(ctx: SockAddrContext) -> i32 {
    let call = Call::new(&ctx);
    if stays6(&call) {
        return ALLOW;
    }
    verdict(&call, asked6, balance6(&call, Choice::Steady))
}

#[inline(always)]
fn verdict(call: &Call, asked: fn(&Call) -> Seen, outcome: Outcome) -> i32 {
    match outcome {
        Outcome::NotOurs => ALLOW,
        Outcome::Balanced => {
            count(Counter::SocketSend, 0);
            ALLOW
        }
        Outcome::NotAdmitted => reject(call, asked, kinds::DROP, Counter::DropSource),
        Outcome::NoEndpoint => reject(call, asked, kinds::REFUSE, Counter::SocketNoEndpoint),
        Outcome::NoBackend => reject(call, asked, kinds::DROP, Counter::DropNoBackend),
    }
}
