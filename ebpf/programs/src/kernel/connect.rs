//! connect(2): TCP, and UDP sockets that name their peer once. What follows on the socket costs nothing.

use abi::Counter;
use abi::events::kinds;
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;

use super::count::count;
use super::events::Seen;
use super::sock::{ALLOW, Call, Choice, Outcome, asked4, asked6, balance4, balance6, reject};

#[cgroup_sock_addr(connect4)]
pub(crate) fn connect4(ctx: SockAddrContext) -> i32 {
    let call = Call::new(&ctx);
    verdict(&call, asked4, balance4(&call, Choice::Random))
}

#[cgroup_sock_addr(connect6)]
pub(crate) fn connect6(ctx: SockAddrContext) -> i32 {
    let call = Call::new(&ctx);
    verdict(&call, asked6, balance6(&call, Choice::Random))
}

#[inline(always)]
fn verdict(call: &Call, asked: fn(&Call) -> Seen, outcome: Outcome) -> i32 {
    match outcome {
        Outcome::NotOurs => ALLOW,
        Outcome::Balanced => {
            count(Counter::SocketConnect, 0);
            ALLOW
        }
        Outcome::NotAdmitted => reject(call, asked, kinds::DROP, Counter::DropSource),
        Outcome::NoEndpoint => reject(call, asked, kinds::REFUSE, Counter::SocketNoEndpoint),
        Outcome::NoBackend => reject(call, asked, kinds::DROP, Counter::DropNoBackend),
    }
}
