//! The name of this host and what this process may do on it.

use rustix::thread::CapabilitySet;

/// A capability that Fairlead needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Capability {
    /// Attach to devices.
    NetAdmin,
    /// Enter namespaces, mount file systems, read back objects by identifier.
    SysAdmin,
    /// Load programs and make tables (Linux 5.8).
    Bpf,
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

    fn set(self) -> CapabilitySet {
        match self {
            Capability::NetAdmin => CapabilitySet::NET_ADMIN,
            Capability::SysAdmin => CapabilitySet::SYS_ADMIN,
            Capability::Bpf => CapabilitySet::BPF,
        }
    }
}

/// Those of `wanted` that this thread does not have in effect.
#[must_use]
pub fn missing_capabilities(wanted: &[Capability]) -> Vec<Capability> {
    let effective =
        rustix::thread::capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    wanted
        .iter()
        .copied()
        .filter(|capability| !effective.contains(capability.set()))
        .collect()
}

/// This host's name, in lower case: what Kubernetes calls the node unless told otherwise.
#[must_use]
pub fn hostname() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_belong_to_a_thread() {
        use Capability::{Bpf, NetAdmin, SysAdmin};
        let wanted = [NetAdmin, SysAdmin, Bpf];
        let without = std::thread::spawn(move || {
            let mut sets = rustix::thread::capabilities(None).unwrap();
            sets.effective -= CapabilitySet::BPF;
            rustix::thread::set_capabilities(None, sets).unwrap();
            missing_capabilities(&wanted)
        });
        assert!(without.join().unwrap().contains(&Bpf));
        assert_eq!(missing_capabilities(&[]), []);
    }
}
