//! What the kernel can do that Fairlead uses, each asked of the kernel itself rather than of its version, and what
//! Fairlead does without it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use serde::Serialize;

use crate::probe::Probe;
use crate::sys::{self, kind};

/// Something that a kernel may lack.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Feature {
    /// What it is called.
    pub name: &'static str,
    /// Whether this kernel has it; `None` where it could not be asked.
    pub there: Option<bool>,
    /// Whether the programs cannot be loaded without it.
    pub required: bool,
    /// What Fairlead does without it.
    pub without: &'static str,
    /// How to come by it.
    pub remedy: &'static str,
}

/// A helper, the kind of program that calls it, and its number.
const HELPERS: [(&str, u32, u32); 8] = [
    ("bpf_redirect_peer for classifiers", kind::CLASSIFIER, 155),
    ("bpf_redirect_neigh for classifiers", kind::CLASSIFIER, 152),
    ("bpf_check_mtu for classifiers", kind::CLASSIFIER, 163),
    ("bpf_fib_lookup for XDP", kind::XDP, 69),
    ("bpf_xdp_get_buff_len for XDP", kind::XDP, 188),
    (
        "bpf_set_retval for socket hooks",
        kind::CGROUP_SOCK_ADDR,
        187,
    ),
    (
        "bpf_get_netns_cookie for socket hooks",
        kind::CGROUP_SOCK_ADDR,
        122,
    ),
    (
        "bpf_ktime_get_coarse_ns for socket hooks",
        kind::CGROUP_SOCK_ADDR,
        160,
    ),
];

const NOT_WITHOUT: &str = "the kernel refuses the programs: Fairlead does not start";
const NEWER: &str = "run Linux 5.18 or later";

/// Asks the kernel for everything. Needs the right to load programs; what could not be asked for want of it is `None`.
#[must_use]
pub fn features() -> Vec<Feature> {
    let probe = Probe::read();
    let mut features: Vec<Feature> = HELPERS
        .iter()
        .map(|&(name, kind, helper)| Feature {
            name,
            there: has_helper(kind, helper),
            required: true,
            without: NOT_WITHOUT,
            remedy: NEWER,
        })
        .collect();
    features.extend([
        Feature {
            name: "XDP on packets of several buffers",
            there: loads(kind::XDP, sys::XDP_HAS_FRAGS),
            required: true,
            without: NOT_WITHOUT,
            remedy: NEWER,
        },
        Feature {
            name: "ring buffers",
            there: made(sys::create_ring_buffer(4096)),
            required: true,
            without: NOT_WITHOUT,
            remedy: NEWER,
        },
        Feature {
            name: "TCX",
            there: Some(probe.tcx),
            required: false,
            without: "classifiers are attached as tc filters on a clsact queueing discipline, which others can remove",
            remedy: "run Linux 6.6 or later",
        },
        Feature {
            name: "the BPF compiler",
            there: probe.jit,
            required: false,
            without: "programs are interpreted, several times slower",
            remedy: "sysctl -w net.core.bpf_jit_enable=1",
        },
        Feature {
            name: "checksum updates of IPv6 (BPF_F_IPV6)",
            there: csum_flag(),
            required: false,
            without: "the sum that a device computed over a translated IPv6 packet no longer holds: the stack computes it anew",
            remedy: "run Linux 6.16 or later",
        },
    ]);
    features
}

/// Whether programs of a kind may call a helper: the verifier says so of a program that calls it, whatever else it
/// finds wrong.
fn has_helper(kind: u32, helper: u32) -> Option<bool> {
    let [a, b, c, d] = helper.to_le_bytes();
    let instructions = [[0x85, 0, 0, 0, a, b, c, d], RETURN_ZERO, EXIT];
    let mut log = vec![0; 1 << 14];
    match sys::load(kind, attach_type(kind), &instructions, 0, &mut log) {
        Ok(_) => Some(true),
        Err(error) if is_forbidden(&error) => None,
        Err(_) => {
            let log = String::from_utf8_lossy(&log);
            let refusals = ["unknown func", "invalid func", "cannot use helper"];
            Some(!refusals.iter().any(|words| log.contains(words)))
        }
    }
}

/// Whether a program that does nothing loads with these flags.
fn loads(kind: u32, flags: u32) -> Option<bool> {
    let instructions = [RETURN_ZERO, EXIT];
    made(sys::load(
        kind,
        attach_type(kind),
        &instructions,
        flags,
        &mut [],
    ))
}

fn made(result: io::Result<OwnedFd>) -> Option<bool> {
    match result {
        Ok(_) => Some(true),
        Err(error) if is_forbidden(&error) => None,
        Err(_) => Some(false),
    }
}

/// Programs of the socket hooks are for one attachment; others for any.
fn attach_type(kind: u32) -> u32 {
    if kind == kind::CGROUP_SOCK_ADDR {
        sys::attach::INET4_CONNECT
    } else {
        0
    }
}

/// Updates a checksum with the flag, in a packet that is nobody's: older kernels refuse the flag as the program runs.
fn csum_flag() -> Option<bool> {
    const ZERO: fn(u8) -> [u8; 8] = |register| [0xb7, register, 0, 0, 0, 0, 0, 0];
    let instructions = [
        [0xb7, 2, 0, 0, 40, 0, 0, 0], // r2 = offset
        ZERO(3),
        ZERO(4),
        [0xb7, 5, 0, 0, 0x90, 0, 0, 0], // r5 = BPF_F_PSEUDO_HDR | BPF_F_IPV6
        [0x85, 0, 0, 0, 11, 0, 0, 0],   // call bpf_l4_csum_replace
        EXIT,
    ];
    let program = sys::load(kind::CLASSIFIER, 0, &instructions, 0, &mut []).ok()?;
    let ran = sys::test_run(program.as_fd(), &[0; 64], &[], 1).ok()?;
    Some(ran.verdict == 0)
}

const RETURN_ZERO: [u8; 8] = [0xb7, 0, 0, 0, 0, 0, 0, 0];
const EXIT: [u8; 8] = [0x95, 0, 0, 0, 0, 0, 0, 0];

fn is_forbidden(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EPERM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_kernel_has_is_not_there() {
        assert_eq!(has_helper(kind::CLASSIFIER, 99_999), Some(false));
        // A helper of sockets' hooks alone.
        assert_eq!(has_helper(kind::XDP, 187), Some(false));
    }

    #[test]
    fn this_kernel_has_what_the_programs_need() {
        for feature in features() {
            assert!(feature.there.is_some(), "{feature:?}");
            assert!(
                !feature.required || feature.there == Some(true),
                "{feature:?}"
            );
        }
    }
}
