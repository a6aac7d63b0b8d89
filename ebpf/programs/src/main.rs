//! The kernel programs: entry points and maps, a file per hook.
//!
//! What a program decides is in the crate `packet`; here are the maps that it decides on, access to packets and
//! sockets, and the verdicts. Each entry point is a match from a closed list of outcomes to a verdict and a
//! counter. This crate knows nothing about Kubernetes or about how its tables come to be.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(
    target_arch = "bpf",
    feature(asm_experimental_arch),
    allow(
        unsafe_code,
        reason = "kernel helpers, maps and packet memory are raw pointers; each block names what the verifier holds"
    )
)]

#[cfg(target_arch = "bpf")]
mod kernel {
    mod clock;
    mod connect;
    mod count;
    mod device_egress;
    mod device_ingress;
    mod device_xdp;
    mod device_xdp_rest;
    mod direct;
    mod dns;
    mod events;
    mod frame;
    mod getpeername;
    mod hint;
    mod limit;
    mod load;
    mod maps;
    mod masquerade;
    mod mem;
    mod next_hops;
    mod openings;
    mod outlined;
    mod passed;
    mod pod_cgroup;
    mod pod_egress;
    mod pod_ingress;
    mod policy;
    mod recvmsg;
    mod release;
    mod route;
    mod sendmsg;
    mod skb;
    mod sock;
    mod source;
    mod tables;
    mod tc;
    mod tunnel;
    mod xdp;

    /// The kernel runs only programs under a licence compatible with its own for the helpers used here.
    #[unsafe(link_section = "license")]
    #[unsafe(no_mangle)]
    static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

    #[panic_handler]
    fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
        // The verifier admits no program that could come here.
        loop {}
    }
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
