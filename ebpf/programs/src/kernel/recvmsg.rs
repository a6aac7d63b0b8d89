//! recvmsg(2) and recvfrom(2) on UDP sockets: the answer of a backend shows the service's address.

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;

use super::sock::{ALLOW, Call, restore4, restore6};

#[cgroup_sock_addr(recvmsg4)]
pub(crate) fn recvmsg4(ctx: SockAddrContext) -> i32 {
    restore4(&Call::new(&ctx));
    ALLOW
}

#[cgroup_sock_addr(recvmsg6)]
pub(crate) fn recvmsg6(ctx: SockAddrContext) -> i32 {
    restore6(&Call::new(&ctx));
    ALLOW
}
