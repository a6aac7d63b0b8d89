//! sendmsg(2) and sendto(2) on UDP sockets that name their peer with each datagram.

use abi::Counter;
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;

use super::count::count;
use super::sock::{ALLOW, Call, Choice, Outcome, REJECT, balance4, balance6, refuse};

#[cgroup_sock_addr(sendmsg4)]
pub(crate) fn sendmsg4(ctx: SockAddrContext) -> i32 {
    verdict(balance4(&Call::new(&ctx), Choice::Steady))
}

#[cgroup_sock_addr(sendmsg6)]
pub(crate) fn sendmsg6(ctx: SockAddrContext) -> i32 {
    verdict(balance6(&Call::new(&ctx), Choice::Steady))
}

#[inline(always)]
fn verdict(outcome: Outcome) -> i32 {
    match outcome {
        Outcome::NotOurs => ALLOW,
        Outcome::Balanced => {
            count(Counter::SocketSend, 0);
            ALLOW
        }
        Outcome::NotAdmitted => {
            count(Counter::DropSource, 0);
            refuse();
            REJECT
        }
        Outcome::NoEndpoint => {
            count(Counter::SocketNoEndpoint, 0);
            refuse();
            REJECT
        }
        Outcome::NoBackend => {
            count(Counter::DropNoBackend, 0);
            refuse();
            REJECT
        }
    }
}
