//! The name of this host and what this process may do on it.

use std::fs;

/// A capability that Fairlead needs, by its number in linux/capability.h.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Capability {
    /// Attach to devices.
    NetAdmin = 12,
    /// Enter namespaces, mount file systems, read back objects by identifier.
    SysAdmin = 21,
    /// Load programs and make tables (Linux 5.8).
    Bpf = 39,
}

impl Capability {
    /// The name that capabilities(7) gives it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Capability::NetAdmin => "CAP_NET_ADMIN",
            Capability::SysAdmin => "CAP_SYS_ADMIN",
            Capability::Bpf => "CAP_BPF",
        }
    }
}

/// Those of `wanted` that this process does not have in effect.
#[must_use]
pub fn missing_capabilities(wanted: &[Capability]) -> Vec<Capability> {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    missing(&status, wanted)
}

/// This host's name, in lower case: what Kubernetes calls the node unless told otherwise.
#[must_use]
pub fn hostname() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .to_lowercase()
}

fn missing(status: &str, wanted: &[Capability]) -> Vec<Capability> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|text| u64::from_str_radix(text.trim(), 16).ok())
        .unwrap_or(0);
    wanted
        .iter()
        .copied()
        .filter(|capability| effective & (1 << *capability as u8) == 0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_capabilities_are_found() {
        use Capability::{Bpf, NetAdmin, SysAdmin};
        let wanted = [NetAdmin, SysAdmin, Bpf];
        for (effective, expected) in [
            ("000001fffeffffff", vec![]),
            ("0000008000000000", vec![NetAdmin, SysAdmin]),
            ("0000000000201000", vec![Bpf]),
            ("nonsense", vec![NetAdmin, SysAdmin, Bpf]),
        ] {
            let status = format!("Name:\tfairlead\nCapPrm:\t0\nCapEff:\t{effective}\n");
            assert_eq!(missing(&status, &wanted), expected, "{effective}");
        }
    }
}
