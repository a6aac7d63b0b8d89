//! The tables of policies: read whole, written in steps.

use abi::{
    Conversation, Flow4, Flow6, PolicyControl, PolicyHeld, PolicyHeldKey, PolicyLink,
    PolicyLinkKey, PolicyPeerKey, PolicyPortKey, PolicyVerdictKey,
};
use plan::policy::{ACCEPTED, PolicyStep, PolicyTables};
use zerocopy::{FromZeros as _, IntoBytes as _};

use crate::pins::Pins;
use crate::pod_cgroups::PodCgroups;
use crate::table::{Hash, open_pinned};
use crate::view::Fill;
use crate::{Error, spec, sys};

use std::os::fd::{AsFd as _, OwnedFd};

/// The agent's hold on the tables of policies. What it wrote outlives it.
#[derive(Debug)]
pub struct PolicyTable {
    policies: Policies,
    cgroups: PodCgroups,
}

impl PolicyTable {
    pub(crate) fn open(pins: &Pins) -> Result<Self, Error> {
        Ok(PolicyTable {
            policies: Policies::open(pins, false)?,
            cgroups: PodCgroups::open(pins, false)?,
        })
    }

    /// What the kernel holds.
    ///
    /// # Errors
    ///
    /// [`Error::Table`] if the kernel refuses.
    pub fn tables(&self) -> Result<PolicyTables, Error> {
        self.policies.tables()
    }

    /// The cgroups of pods that use the node's network.
    #[must_use]
    pub fn cgroups(&self) -> &PodCgroups {
        &self.cgroups
    }

    /// Carries out steps, in order.
    ///
    /// # Errors
    ///
    /// [`Error::Full`], [`Error::Table`]: steps before the one that the kernel refused are done.
    pub fn apply(&self, steps: &[PolicyStep]) -> Result<(), Error> {
        self.policies.apply(steps)
    }
}

/// What the kernel holds of policies.
#[derive(Debug)]
pub(crate) struct Policies {
    control: OwnedFd,
    links: Hash<PolicyLinkKey, PolicyLink>,
    peers: Hash<PolicyPeerKey, u32>,
    verdicts: Hash<PolicyVerdictKey, u32>,
    ports: Hash<PolicyPortKey, u32>,
    held: Hash<PolicyHeldKey, PolicyHeld>,
    flows4: Hash<Flow4, Conversation>,
    flows6: Hash<Flow6, Conversation>,
}

impl Policies {
    pub(crate) fn open(pins: &Pins, read_only: bool) -> Result<Self, Error> {
        Ok(Policies {
            control: open_pinned(pins, &spec::POLICY_CONTROL, read_only)?.0,
            links: Hash::open(pins, spec::POLICY_LINKS, read_only)?,
            peers: Hash::open(pins, spec::POLICY_PEERS, read_only)?,
            verdicts: Hash::open(pins, spec::POLICY_VERDICTS, read_only)?,
            ports: Hash::open(pins, spec::POLICY_PORTS, read_only)?,
            held: Hash::open(pins, spec::POLICY_HELD, read_only)?,
            flows4: Hash::open(pins, spec::POLICY_FLOWS4, true)?,
            flows6: Hash::open(pins, spec::POLICY_FLOWS6, true)?,
        })
    }

    pub(crate) fn tables(&self) -> Result<PolicyTables, Error> {
        let mut control = PolicyControl::new_zeroed();
        sys::lookup(
            self.control.as_fd(),
            0_u32.as_bytes(),
            control.as_mut_bytes(),
        )
        .map_err(|source| spec::POLICY_CONTROL.failed("read", "what holds", source))?;
        Ok(PolicyTables {
            control,
            links: self.links.entries(usize::MAX)?.into_iter().collect(),
            peers: self.peers.entries(usize::MAX)?.into_iter().collect(),
            verdicts: self.verdicts.entries(usize::MAX)?.into_iter().collect(),
            ports: self.ports.entries(usize::MAX)?.into_iter().collect(),
            held: self.held.entries(usize::MAX)?.into_iter().collect(),
        })
    }

    pub(crate) fn fill(&self) -> Result<Vec<Fill>, Error> {
        fn fill<K, V>(spec: &spec::Spec, table: &Hash<K, V>) -> Result<Fill, Error>
        where
            K: crate::table::Element + crate::show::Show,
            V: crate::table::Element,
        {
            Ok(Fill {
                table: spec.name,
                used: table.entries(usize::MAX)?.len() as u32,
                capacity: table.capacity(),
                flag: spec.flag,
            })
        }
        Ok(vec![
            fill(&spec::POLICY_LINKS, &self.links)?,
            fill(&spec::POLICY_PEERS, &self.peers)?,
            fill(&spec::POLICY_VERDICTS, &self.verdicts)?,
            fill(&spec::POLICY_PORTS, &self.ports)?,
            fill(&spec::POLICY_FLOWS4, &self.flows4)?,
            fill(&spec::POLICY_FLOWS6, &self.flows6)?,
        ])
    }

    /// Carries out steps in order, those of one kind together.
    pub(crate) fn apply(&self, steps: &[PolicyStep]) -> Result<(), Error> {
        use PolicyStep as S;
        let mut rest = steps;
        while let Some(step) = rest.first() {
            macro_rules! put {
                ($table:ident, $pattern:pat => $pair:expr) => {{
                    let run = rest.iter().map_while(|step| match *step {
                        $pattern => Some($pair),
                        _ => None,
                    });
                    let (keys, values): (Vec<_>, Vec<_>) = run.unzip();
                    self.$table
                        .insert(&keys, &values)
                        .map_err(|(_, error)| error)?;
                    keys.len()
                }};
            }
            macro_rules! remove {
                ($table:ident, $pattern:pat => $key:expr) => {{
                    let run = rest.iter().map_while(|step| match *step {
                        $pattern => Some($key),
                        _ => None,
                    });
                    let keys: Vec<_> = run.collect();
                    self.$table.remove(&keys).map_err(|(_, error)| error)?;
                    keys.len()
                }};
            }
            let done = match step {
                S::PutPort(_) => put!(ports, S::PutPort(key) => (key, ACCEPTED)),
                S::PutVerdict(..) => put!(verdicts, S::PutVerdict(key, value) => (key, value)),
                S::PutPeer(..) => put!(peers, S::PutPeer(key, value) => (key, value)),
                S::PutLink(..) => put!(links, S::PutLink(key, value) => (key, value)),
                S::PutHeld(..) => put!(held, S::PutHeld(key, value) => (key, value)),
                S::RemoveLink(_) => remove!(links, S::RemoveLink(key) => key),
                S::RemovePeer(_) => remove!(peers, S::RemovePeer(key) => key),
                S::RemoveVerdict(_) => remove!(verdicts, S::RemoveVerdict(key) => key),
                S::RemovePort(_) => remove!(ports, S::RemovePort(key) => key),
                S::RemoveHeld(_) => remove!(held, S::RemoveHeld(key) => key),
                S::Control(control) => {
                    sys::update(self.control.as_fd(), 0_u32.as_bytes(), control.as_bytes())
                        .map_err(|source| {
                            spec::POLICY_CONTROL.failed("write", "what holds", source)
                        })?;
                    1
                }
            };
            rest = rest.get(done..).unwrap_or_default();
        }
        Ok(())
    }
}
