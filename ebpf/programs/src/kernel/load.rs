//! How many connections each backend has, for services that ask for the least used one.

use core::ptr;

use abi::{BackendId, Connection, ServiceId};
use aya_ebpf::bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock, bpf_sock_addr};
use aya_ebpf::helpers::generated::bpf_sk_storage_get;
use packet::Shared as _;

use super::maps::{CONNECTIONS, LOADS};
use super::tables::Maps;

/// Counts a socket for a backend, and no longer for the one before. Where the kernel has no memory for that, it is
/// not counted.
#[inline(always)]
pub(crate) fn connect(call: *mut bpf_sock_addr, backend: BackendId, service: ServiceId) {
    // SAFETY: the kernel's context is valid for the whole run; volatile, as the verifier wants its fields read.
    let sk = unsafe { ptr::addr_of!((*call).__bindgen_anon_1.sk).read_volatile() };
    if sk.is_null() {
        return;
    }
    // SAFETY: the verifier holds that this is a socket, and the map one of socket storage.
    let connection = unsafe {
        bpf_sk_storage_get(
            connections(),
            sk.cast(),
            ptr::null_mut(),
            BPF_SK_STORAGE_GET_F_CREATE.into(),
        )
    }
    .cast::<Connection>();
    // SAFETY: what is not null is the socket's own value, which stays until the program ends. Calls on one socket come
    // one after another.
    if let Some(connection) = unsafe { connection.as_mut() } {
        leave(*connection);
        *connection = Connection { backend, service };
        add(backend, 1);
    }
}

/// Counts a socket that is closed no longer.
#[inline(always)]
pub(crate) fn close(sock: *mut bpf_sock) {
    // SAFETY: as above; the hook's context is the socket.
    let connection = unsafe { bpf_sk_storage_get(connections(), sock.cast(), ptr::null_mut(), 0) }
        .cast::<Connection>();
    // SAFETY: as above.
    if let Some(connection) = unsafe { connection.as_mut() } {
        leave(*connection);
        connection.backend = 0;
    }
}

/// The map, as helpers take it: aya's own call serves only hooks whose context names the socket.
#[inline(always)]
fn connections() -> *mut core::ffi::c_void {
    ptr::from_ref(&CONNECTIONS).cast_mut().cast()
}

#[inline(always)]
fn leave(Connection { backend, service }: Connection) {
    // An identifier that means another service's backend by now has not counted this socket.
    if backend != 0
        && let Some(now) = Maps.backend(backend)
        && now.service == service
    {
        add(backend, u64::MAX);
    }
}

#[inline(always)]
fn add(backend: BackendId, number: u64) {
    if let Some(load) = LOADS.get_ptr_mut(backend) {
        // SAFETY: an aligned word of the map's memory, which all programs change in atomic additions alone. As an
        // instruction, since Rust has those only where a target can compare and swap.
        unsafe {
            core::arch::asm!(
                "lock *(u64 *)({word} + 0) += {number}",
                word = in(reg) ptr::addr_of_mut!((*load).connections),
                number = in(reg) number,
                options(nostack),
            );
        }
    }
}
