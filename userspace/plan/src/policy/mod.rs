//! Policies: from the model to what the kernel holds of them, and the steps between.
//!
//! [`PolicyPlanner`] decides. What a packet costs does not grow with the number of rules, see [`abi::policy`]; the
//! tables do: with the prefixes that rules name and the pods that they select ([`PolicyTables::peers`]), with these
//! for each different set of policies that pods of this node have ([`PolicyTables::verdicts`]), and with the different
//! lists of ports. A set that finds no room is closed: its pods' traffic is refused, and said so.
//!
//! Steps are ordered so that a packet between any two is judged by what held before or by what holds now. A change of
//! pods is made in place: what an address becomes is said of every set before the address becomes it. A policy that
//! changes begins another *epoch*: all that holds then is written beside what holds now, and one write switches.

mod compile;
mod peers;
mod planner;
mod ports;
mod sets;

use std::collections::BTreeMap;
use std::net::IpAddr;

use abi::policy::{CLOSED, REFUSE, flags};
use abi::{
    PolicyControl, PolicyHeld, PolicyHeldKey, PolicyLink, PolicyLinkKey, PolicyPeerKey,
    PolicyPortKey, PolicyVerdictKey, protocol,
};
use model::policy::{Direction, PolicyKey};

pub use planner::{ADOPT_SECS, Inputs, PolicyPlan, PolicyPlanner, halves};

/// What the kernel holds of policies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyTables {
    /// What holds.
    pub control: PolicyControl,
    /// Pods' links.
    pub links: BTreeMap<PolicyLinkKey, PolicyLink>,
    /// Identities of addresses.
    pub peers: BTreeMap<PolicyPeerKey, u32>,
    /// Profiles of identities.
    pub verdicts: BTreeMap<PolicyVerdictKey, u32>,
    /// Ports of profiles.
    pub ports: BTreeMap<PolicyPortKey, u32>,
    /// What holds where.
    pub held: BTreeMap<PolicyHeldKey, PolicyHeld>,
}

/// One change of what the kernel holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyStep {
    /// Ports of a profile.
    PutPort(PolicyPortKey),
    /// A profile of an identity.
    PutVerdict(PolicyVerdictKey, u32),
    /// The identity of addresses.
    PutPeer(PolicyPeerKey, u32),
    /// A pod's link.
    PutLink(PolicyLinkKey, PolicyLink),
    /// What holds.
    Control(PolicyControl),
    /// For people.
    PutHeld(PolicyHeldKey, PolicyHeld),
    /// Forgets a link.
    RemoveLink(PolicyLinkKey),
    /// Forgets an identity.
    RemovePeer(PolicyPeerKey),
    /// Forgets a profile of an identity.
    RemoveVerdict(PolicyVerdictKey),
    /// Forgets ports of a profile.
    RemovePort(PolicyPortKey),
    /// For people.
    RemoveHeld(PolicyHeldKey),
}

/// How many entries the tables have room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyLimits {
    /// Links, of two epochs.
    pub links: usize,
    /// Identities, of two epochs.
    pub peers: usize,
    /// Verdicts, of two epochs.
    pub verdicts: usize,
    /// Ports, of two epochs.
    pub ports: usize,
}

impl Default for PolicyLimits {
    fn default() -> Self {
        PolicyLimits {
            links: abi::policy::LINKS_CAPACITY as usize,
            peers: abi::policy::PEERS_CAPACITY as usize,
            verdicts: abi::policy::VERDICTS_CAPACITY as usize,
            ports: abi::policy::PORTS_CAPACITY as usize,
        }
    }
}

/// A policy that cannot be served: what it selects on this node is closed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PolicyProblem {
    /// Which.
    pub policy: PolicyKey,
    /// The table that has no room.
    pub table: &'static str,
}

impl PolicyTables {
    /// Carries out a step.
    pub fn apply(&mut self, step: &PolicyStep) {
        match *step {
            PolicyStep::PutPort(key) => drop(self.ports.insert(key, ACCEPTED)),
            PolicyStep::PutVerdict(key, profile) => drop(self.verdicts.insert(key, profile)),
            PolicyStep::PutPeer(key, identity) => drop(self.peers.insert(key, identity)),
            PolicyStep::PutLink(key, link) => drop(self.links.insert(key, link)),
            PolicyStep::Control(control) => self.control = control,
            PolicyStep::PutHeld(key, held) => drop(self.held.insert(key, held)),
            PolicyStep::RemoveLink(key) => drop(self.links.remove(&key)),
            PolicyStep::RemovePeer(key) => drop(self.peers.remove(&key)),
            PolicyStep::RemoveVerdict(key) => drop(self.verdicts.remove(&key)),
            PolicyStep::RemovePort(key) => drop(self.ports.remove(&key)),
            PolicyStep::RemoveHeld(key) => drop(self.held.remove(&key)),
        }
    }

    /// Whether a conversation may begin between the pod behind a link and another end, in a direction: found as the
    /// programs find it. `port` is the server's.
    #[must_use]
    pub fn lets_begin(
        &self,
        ifindex: u32,
        direction: Direction,
        remote: IpAddr,
        proto: u8,
        port: u16,
    ) -> bool {
        if self.control.flags & flags::ENFORCED == 0 {
            return true;
        }
        let epoch = self.control.epoch;
        let Some(link) = self.links.get(&PolicyLinkKey { ifindex, epoch }) else {
            return self.control.flags & flags::UNKNOWN_CLOSED == 0;
        };
        let (set, usual) = match direction {
            Direction::Ingress => (link.ingress, link.ingress_default),
            Direction::Egress => (link.egress, link.egress_default),
        };
        match set {
            0 => true,
            CLOSED => false,
            set => {
                let identity = peers::find(&self.peers, epoch, remote);
                let key = PolicyVerdictKey { set, identity };
                let profile = self.verdicts.get(&key).copied().unwrap_or(usual);
                self.profile_has(profile, proto, port)
            }
        }
    }

    fn profile_has(&self, profile: u32, proto: u8, port: u16) -> bool {
        if profile == REFUSE || profile == abi::policy::ACCEPT {
            return profile != REFUSE;
        }
        let proto = match proto {
            protocol::TCP | protocol::UDP | protocol::SCTP => proto,
            _ => 0,
        };
        (0..=16).any(|bits| {
            let mask = u16::MAX.checked_shl(16 - bits).unwrap_or(0);
            self.ports.contains_key(&PolicyPortKey {
                prefix_len: abi::policy::PORT_AT + bits,
                profile,
                proto,
                _pad: 0,
                port: (port & mask).into(),
            })
        })
    }
}

/// What stands beside a key of the table of ports.
pub const ACCEPTED: u32 = 1;
