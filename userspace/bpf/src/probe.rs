//! What this kernel and this process can do.

use std::fs;

use rustix::thread::CapabilitySet;
use serde::Serialize;

use crate::{Error, sys};

/// The oldest kernel that runs our programs: XDP on frames in fragments and `bpf_set_retval` came with 5.18.
const KERNEL_MIN: (u32, u32) = (5, 18);

/// An interface index that no device has.
const NO_DEVICE: u32 = i32::MAX as u32;

/// What this kernel offers, as far as it changes what Fairlead does.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
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
            release: release(),
            tcx: tcx(),
            jit: sysctl("/proc/sys/net/core/bpf_jit_enable"),
            run_statistics: sysctl("/proc/sys/kernel/bpf_stats_enabled").unwrap_or(false),
        }
    }

    /// Whether there is TCX, without asking for anything else.
    pub(crate) fn has_tcx() -> bool {
        tcx()
    }
}

fn release() -> String {
    let uname = rustix::system::uname();
    uname.release().to_string_lossy().into_owned()
}

/// Refuses a kernel that could not run the programs, before the verifier does so in its own words.
pub(crate) fn require_kernel() -> Result<(), Error> {
    let release = release();
    match version(&release) {
        Some(version) if version < KERNEL_MIN => Err(Error::Kernel { release }),
        _ => Ok(()),
    }
}

/// The first two numbers of a release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// A kernel that knows TCX looks for the device; one that does not refuses the attach type.
fn tcx() -> bool {
    match sys::query_tcx(NO_DEVICE, sys::attach::TCX_INGRESS) {
        Ok(_) => true,
        Err(error) => error.raw_os_error() == Some(libc::ENODEV),
    }
}

/// Refuses a thread that may not load programs, naming what it lacks.
pub(crate) fn require_capabilities() -> Result<(), Error> {
    let sets = rustix::thread::capabilities(None).map_err(|error| Error::System {
        action: "read the capabilities of this process",
        source: error.into(),
    })?;
    let missing: Vec<_> = [
        (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"),
        (CapabilitySet::SYS_ADMIN, "CAP_SYS_ADMIN"),
        (CapabilitySet::BPF, "CAP_BPF"),
    ]
    .into_iter()
    .filter(|(capability, _)| !sets.effective.contains(*capability))
    .map(|(_, name)| name)
    .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(Error::Capabilities { missing })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        for (release, expected) in [
            ("6.18.44-fc-v669", Some((6, 18))),
            ("5.4.0-150-generic", Some((5, 4))),
            ("5.18", Some((5, 18))),
            ("6.1-rc3", Some((6, 1))),
            ("next", None),
        ] {
            assert_eq!(version(release), expected, "{release}");
        }
        assert!(version("5.4.0") < Some(KERNEL_MIN));
        assert!(version("6.2.0") > Some(KERNEL_MIN));
    }
}
