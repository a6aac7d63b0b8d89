//! getpeername(2): the peer of a balanced socket is shown by the service's address.

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;

use super::sock::{ALLOW, Call, restore4, restore6};

#[cgroup_sock_addr(getpeername4)]
pub(crate) fn getpeername4(ctx: SockAddrContext) -> i32 {
    restore4(&Call::new(&ctx));
    ALLOW
}

#[cgroup_sock_addr(getpeername6)]
pub(crate) fn getpeername6(ctx: SockAddrContext) -> i32 {
    restore6(&Call::new(&ctx));
    ALLOW
}
