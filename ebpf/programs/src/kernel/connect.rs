//! connect(2): TCP, and UDP sockets that name their peer once. What follows on the socket costs nothing.

use abi::Counter;
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;

use super::count::count;
use super::sock::{ALLOW, Call, Choice, Outcome, REJECT, balance4, balance6, refuse};

#[cgroup_sock_addr(connect4)]
pub(crate) fn connect4(ctx: SockAddrContext) -> i32 {
    verdict(balance4(&Call::new(&ctx), Choice::Random))
}

#[cgroup_sock_addr(connect6)]
pub(crate) fn connect6(ctx: SockAddrContext) -> i32 {
    verdict(balance6(&Call::new(&ctx), Choice::Random))
}

#[inline(always)]
fn verdict(outcome: Outcome) -> i32 {
    match outcome {
        Outcome::NotOurs => ALLOW,
        Outcome::Balanced => {
            count(Counter::SocketConnect, 0);
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
