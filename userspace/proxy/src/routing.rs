//! Whether packets go straight to pods or through the host's stack, by family: what was asked for, and what hangs in
//! the stack that must not be passed by.

use std::time::Duration;

use abi::HostRouting as Lease;
use abi::host_routing::{LEASE_SECS, Reason};
use bpf::Datapath;
use net::{Hooked, Netfilter};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::Error;

/// Which way packets for pods of this node take.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum HostRouting {
    /// Straight, while nothing in the host's stack would be passed by.
    #[default]
    Auto,
    /// Straight, whatever hangs there.
    Bpf,
    /// Through the stack.
    Kernel,
}

/// What the host says of one family.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Host {
    forwards: bool,
    /// Has routing rules, or routes with an MTU or type of service, of its own; unknown where they could not be read.
    rules: Option<bool>,
    /// A link where others see what arrives, if there is one.
    foreign: Option<String>,
    /// Has IPsec policies; unknown where that could not be read.
    ipsec: Option<bool>,
    /// What hangs in netfilter; unknown where that could not be read.
    hooked: Option<Vec<String>>,
}

/// Why packets of a family go through the stack; [`Reason::None`] if they do not.
fn decide(asked: HostRouting, host: &Host) -> Reason {
    match (asked, host) {
        (HostRouting::Kernel, _) => Reason::Asked,
        (
            _,
            Host {
                forwards: false, ..
            },
        ) => Reason::NoForwarding,
        (HostRouting::Bpf, _) => Reason::None,
        (
            HostRouting::Auto,
            Host { hooked: None, .. } | Host { rules: None, .. } | Host { ipsec: None, .. },
        ) => Reason::Unread,
        (
            HostRouting::Auto,
            Host {
                hooked: Some(hooked),
                ..
            },
        ) if !hooked.is_empty() => Reason::Netfilter,
        (
            HostRouting::Auto,
            Host {
                rules: Some(true), ..
            },
        ) => Reason::Rules,
        (
            HostRouting::Auto,
            Host {
                ipsec: Some(true), ..
            },
        ) => Reason::Ipsec,
        (
            HostRouting::Auto,
            Host {
                foreign: Some(_), ..
            },
        ) => Reason::Foreign,
        (HostRouting::Auto, _) => Reason::None,
    }
}

/// How often what the kernel does not tell of is looked for, and the lease renewed.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long to wait with a second look after a first: changes come in swarms.
const LOOK_AFTER: Duration = Duration::from_millis(100);

/// Follows the host and keeps the lease.
#[derive(Debug)]
pub(crate) struct Routing {
    asked: HostRouting,
    netfilter: Option<Netfilter>,
    /// Whether chains must be read again.
    stale: bool,
    rules: [Option<bool>; 2],
    foreign: Option<String>,
    next: Instant,
    looked: Option<Instant>,
    reasons: Option<[Reason; 2]>,
}

impl Routing {
    pub(crate) fn new(asked: HostRouting) -> Routing {
        let netfilter = match (asked, Netfilter::open()) {
            (HostRouting::Auto, Ok(netfilter)) => Some(netfilter),
            (HostRouting::Auto, Err(error)) => {
                warn!(error = &error as &dyn std::error::Error, "the stack routes");
                None
            }
            (HostRouting::Bpf | HostRouting::Kernel, _) => None,
        };
        Routing {
            asked,
            netfilter,
            stale: true,
            rules: [None, None],
            foreign: None,
            next: Instant::now(),
            looked: None,
            reasons: None,
        }
    }

    /// Waits until it is time to look.
    pub(crate) async fn due(&mut self) {
        loop {
            let changed = async {
                match &self.netfilter {
                    Some(netfilter) => netfilter.changed().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = changed => {
                    self.stale = true;
                    let soon = self.looked.map(|looked| looked + LOOK_AFTER);
                    self.next = self.next.min(soon.unwrap_or(self.next).max(Instant::now()));
                }
                () = tokio::time::sleep_until(self.next) => return,
            }
        }
    }

    /// Whether IPv4 and IPv6 are routed by more than destinations: [`net::Links::is_routed_by_more`].
    pub(crate) fn set_rules(&mut self, rules: [Option<bool>; 2]) {
        self.rules = rules;
    }

    /// The name of a link where programs or filters of others see what arrives.
    pub(crate) fn set_foreign(&mut self, link: Option<String>) {
        self.foreign = link;
    }

    /// Looks, decides, and writes the lease.
    pub(crate) fn look(&mut self, datapath: &mut Datapath) -> Result<(), Error> {
        let now = Instant::now();
        self.looked = Some(now);
        self.next = now + LOOK_EVERY;
        if self.stale
            && let Some(netfilter) = &mut self.netfilter
        {
            match netfilter.read_chains() {
                Ok(()) => self.stale = false,
                Err(error) => warn!(error = &error as &dyn std::error::Error, "the stack routes"),
            }
        }
        let hooked = match &self.netfilter {
            Some(netfilter) if !self.stale => Some(netfilter.hooked()),
            Some(_) | None => None,
        };
        let hosts = self.hosts(hooked);
        let reasons = [decide(self.asked, &hosts[0]), decide(self.asked, &hosts[1])];
        let until = |reason| match reason {
            Reason::None => bpf::now_secs().saturating_add(LEASE_SECS),
            _ => 0,
        };
        datapath.set_host_routing(&Lease {
            until_secs4: until(reasons[0]),
            until_secs6: until(reasons[1]),
            reason4: reasons[0] as u32,
            reason6: reasons[1] as u32,
        })?;
        if self.reasons != Some(reasons) {
            self.reasons = Some(reasons);
            for ((family, reason), host) in ["IPv4", "IPv6"].iter().zip(reasons).zip(&hosts) {
                let mode = if reason == Reason::None {
                    "bpf"
                } else {
                    "kernel"
                };
                let hooked = host.hooked.iter().flatten().next();
                let link = host.foreign.as_deref();
                info!(
                    family,
                    mode,
                    reason = reason.label(),
                    hooked,
                    link,
                    "host routing"
                );
            }
        }
        Ok(())
    }

    fn hosts(&self, hooked: Option<Hooked>) -> [Host; 2] {
        let hooked = match hooked {
            Some(Hooked { ipv4, ipv6, .. }) => [Some(ipv4), Some(ipv6)],
            None => [None, None],
        };
        let mut v6 = [false, true].into_iter();
        let mut rules = self.rules.into_iter();
        // Both families at once: policies may join them.
        let ipsec = net::has_ipsec_policies().ok();
        hooked.map(|hooked| Host {
            foreign: self.foreign.clone(),
            ipsec,
            forwards: net::forwards(v6.next().unwrap_or_default()),
            rules: rules.next().flatten(),
            hooked: hooked.map(|hooked| hooked.into_iter().collect()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_passed_by_unless_it_was_asked_for() {
        use HostRouting::{Auto, Bpf, Kernel};
        let host = |forwards, rules, hooked: Option<&[&str]>| Host {
            forwards,
            rules,
            ipsec: Some(false),
            foreign: None,
            hooked: hooked.map(|words| words.iter().map(|word| (*word).to_owned()).collect()),
        };
        let plain = host(true, Some(false), Some(&[]));
        let watched = Host {
            foreign: Some("veth0".to_owned()),
            ..plain.clone()
        };
        let encrypts = |ipsec| Host {
            ipsec,
            ..host(true, Some(false), Some(&[]))
        };
        let cases = [
            (Auto, plain.clone(), Reason::None),
            (Bpf, plain.clone(), Reason::None),
            (Kernel, plain, Reason::Asked),
            (
                Auto,
                host(true, Some(false), Some(&["a chain"])),
                Reason::Netfilter,
            ),
            (
                Bpf,
                host(true, Some(false), Some(&["a chain"])),
                Reason::None,
            ),
            (Auto, host(true, Some(true), Some(&[])), Reason::Rules),
            (Bpf, host(true, Some(true), Some(&[])), Reason::None),
            (Auto, host(true, Some(false), None), Reason::Unread),
            (Auto, host(true, None, Some(&[])), Reason::Unread),
            (Bpf, host(true, None, None), Reason::None),
            (Auto, encrypts(Some(true)), Reason::Ipsec),
            (Auto, encrypts(None), Reason::Unread),
            (Bpf, encrypts(Some(true)), Reason::None),
            (Auto, watched.clone(), Reason::Foreign),
            (Bpf, watched, Reason::None),
            (
                Auto,
                host(false, Some(false), Some(&[])),
                Reason::NoForwarding,
            ),
            (Bpf, host(false, None, None), Reason::NoForwarding),
        ];
        for (asked, host, expected) in cases {
            assert_eq!(decide(asked, &host), expected, "{asked:?} {host:?}");
        }
    }
}
