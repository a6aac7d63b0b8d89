//! What this kernel and this process can do.

use std::fs;

use serde::Serialize;

use crate::{Error, sys};

/// An interface index that no device has.
const NO_DEVICE: u32 = i32::MAX as u32;

/// What this kernel offers, as far as it changes what Fairlead does.
#[derive(Clone, Debug, Serialize)]
pub struct Probe {
    /// The kernel's release, as `uname -r` prints it.
    pub release: String,
    /// TCX: classifiers attached by links that can be replaced (Linux 6.6). Otherwise tc filters on a clsact
    /// queueing discipline are used.
    pub tcx: bool,
    /// Programs are compiled; `None` where the kernel does not tell.
    pub jit: Option<bool>,
    /// The kernel counts runs and time of programs (`sysctl kernel.bpf_stats_enabled`).
    pub run_statistics: bool,
}

impl Probe {
    /// Asks the kernel.
    #[must_use]
    pub fn read() -> Probe {
        let sysctl = |path: &str| {
            let text = fs::read_to_string(path).ok()?;
            Some(text.trim() != "0")
        };
        Probe {
            release: rustix::system::uname()
                .release()
                .to_string_lossy()
                .into_owned(),
            tcx: tcx(),
            jit: sysctl("/proc/sys/net/core/bpf_jit_enable"),
            run_statistics: sysctl("/proc/sys/kernel/bpf_stats_enabled").unwrap_or(false),
        }
    }
}

/// A kernel that knows TCX looks for the device; one that does not refuses the attach type.
fn tcx() -> bool {
    match sys::query_tcx(NO_DEVICE, sys::attach::TCX_INGRESS) {
        Ok(_) => true,
        Err(error) => error.raw_os_error() == Some(libc::ENODEV),
    }
}

/// Refuses a process that may not load programs, naming what it lacks.
pub(crate) fn require_capabilities() -> Result<(), Error> {
    let status = fs::read_to_string("/proc/self/status")
        .map_err(Error::path("read", "/proc/self/status".as_ref()))?;
    let missing = missing(&status);
    if missing.is_empty() {
        Ok(())
    } else {
        Err(Error::Capabilities { missing })
    }
}

/// The capabilities that loading and attaching need and the text of /proc/self/status does not have, by the
/// numbers of linux/capability.h.
fn missing(status: &str) -> Vec<&'static str> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|text| u64::from_str_radix(text.trim(), 16).ok())
        .unwrap_or(0);
    [
        (12, "CAP_NET_ADMIN"),
        (21, "CAP_SYS_ADMIN"),
        (39, "CAP_BPF"),
    ]
    .into_iter()
    .filter(|(bit, _)| effective & (1 << bit) == 0)
    .map(|(_, name)| name)
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_capabilities_are_named() {
        for (effective, expected) in [
            ("000001fffeffffff", vec![]),
            ("000000ffffdfefff", vec!["CAP_NET_ADMIN", "CAP_SYS_ADMIN"]),
            ("0000000000201000", vec!["CAP_BPF"]),
            (
                "0000000000000000",
                vec!["CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_BPF"],
            ),
        ] {
            let status = format!("Name:\tfairlead\nCapEff:\t{effective}\n");
            assert_eq!(missing(&status), expected, "{effective}");
        }
    }
}
