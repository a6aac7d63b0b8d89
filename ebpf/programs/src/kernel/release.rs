//! A socket is closed.

use aya_ebpf::macros::cgroup_sock;
use aya_ebpf::programs::SockContext;

use super::load;
use super::sock::ALLOW;

#[cgroup_sock(sock_release)]
pub(crate) fn sock_release(ctx: SockContext) -> i32 {
    load::close(ctx.sock);
    ALLOW
}
