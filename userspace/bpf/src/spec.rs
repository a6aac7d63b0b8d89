//! The tables as the loader sees them: name, sizes, capacity, and the option that sets it.

use std::io;
use std::os::fd::AsFd;

use crate::pins::Pins;
use crate::{Error, sys};

/// How many entries the tables have. The defaults are those of `abi`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capacities {
    /// Frontends, of each family.
    pub frontends: u32,
    /// Slots of all rings together.
    pub rings: u32,
    /// Elements of the tables behind rings, all together.
    pub spreads: u32,
    /// Backends of both families.
    pub backends: u32,
    /// Ranges of clients that load balancers' addresses are for.
    pub sources: u32,
    /// Clients with session affinity; the least recently used give way.
    pub affinity: u32,
    /// Entries of the flow tables, two a flow, of each family; the least recently used give way.
    pub flows: u32,
    /// Balanced UDP sockets; the least recently used give way.
    pub reverse_sockets: u32,
}

impl Default for Capacities {
    fn default() -> Capacities {
        Capacities {
            frontends: abi::frontends::CAPACITY,
            rings: abi::rings::CAPACITY,
            spreads: abi::spreads::CAPACITY,
            backends: abi::backends::CAPACITY,
            sources: abi::sources::CAPACITY,
            affinity: abi::affinity::CAPACITY,
            flows: abi::flows::CAPACITY,
            reverse_sockets: abi::reverse_sockets::CAPACITY,
        }
    }
}

impl Capacities {
    /// For tables that may have any.
    pub(crate) fn none() -> Capacities {
        Capacities {
            frontends: 0,
            rings: 0,
            spreads: 0,
            backends: 0,
            sources: 0,
            affinity: 0,
            flows: 0,
            reverse_sockets: 0,
        }
    }
}

/// What is known of a table before it is opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spec {
    pub(crate) name: &'static str,
    pub(crate) key_size: u32,
    pub(crate) value_size: u32,
    /// The command line option that sets the capacity.
    pub(crate) flag: &'static str,
    /// Picks the capacity; `None` for tables whose size is part of the layout.
    capacity: Option<fn(&Capacities) -> u32>,
}

macro_rules! specs {
    ($($(#[$doc:meta])* $id:ident = $name:expr, $key:ty => $value:ty, $flag:literal, $capacity:expr;)*) => {
        $($(#[$doc])* pub(crate) const $id: Spec = Spec {
            name: $name,
            key_size: size_of::<$key>() as u32,
            value_size: size_of::<$value>() as u32,
            flag: $flag,
            capacity: $capacity,
        };)*

        /// Every table of the object.
        pub(crate) const ALL: &[Spec] = &[$($id,)* EVENTS[0], EVENTS[1], EVENTS[2], EVENTS[3]];
    };
}

specs! {
    FRONTENDS4 = abi::frontends::NAME4, abi::FrontendKey4 => abi::Frontend, "--frontends-max", Some(|c| c.frontends);
    FRONTENDS6 = abi::frontends::NAME6, abi::FrontendKey6 => abi::Frontend, "--frontends-max", Some(|c| c.frontends);
    RINGS = abi::rings::NAME, u32 => abi::RingSlot, "--rings-max", Some(|c| c.rings);
    BACKENDS = abi::backends::NAME, u32 => abi::Backend, "--backends-max", Some(|c| c.backends);
    AFFINITY = abi::affinity::NAME, abi::AffinityKey => abi::Affinity, "--affinity-max", Some(|c| c.affinity);
    FLOWS4 = abi::flows::NAME4, abi::Flow4 => abi::FlowState4, "--flows-max", Some(|c| c.flows);
    FLOWS6 = abi::flows::NAME6, abi::Flow6 => abi::FlowState6, "--flows-max", Some(|c| c.flows);
    OPENINGS4 = abi::openings::NAME4, u32 => abi::Flow4, "--flows-max", Some(|c| abi::openings::capacity(c.flows));
    OPENINGS6 = abi::openings::NAME6, u32 => abi::Flow6, "--flows-max", Some(|c| abi::openings::capacity(c.flows));
    REVERSE_SOCKETS = abi::reverse_sockets::NAME, abi::ReverseSocketKey => abi::ReverseSocket, "--sockets-max", Some(|c| c.reverse_sockets);
    FRAGMENTS = abi::fragments::NAME, abi::FragmentKey => abi::FragmentPorts, "", None;
    DEVICES = abi::devices::NAME, u32 => abi::Device, "", None;
    CONFIG = abi::config::NAME, u32 => abi::NodeConfig, "", None;
    ENDPOINTS4 = abi::endpoints::NAME4, [u8; 4] => abi::Endpoint, "", None;
    ENDPOINTS6 = abi::endpoints::NAME6, [u8; 16] => abi::Endpoint, "", None;
    SOURCES = abi::sources::NAME, abi::SourceKey => abi::Source, "--ranges-max", Some(|c| c.sources);
    SPREADS = abi::spreads::NAME, u32 => abi::SpreadWord, "--spreads-max", Some(|c| c.spreads);
    LOADS = abi::loads::NAME, u32 => abi::Load, "--backends-max", Some(|c| c.backends);
    CONNECTIONS = abi::loads::CONNECTIONS, u32 => abi::Connection, "", None;
    HOST = abi::host::NAME, u32 => abi::Host, "", None;
    MEMBERS = abi::members::NAME, abi::MemberKey => abi::Member, "", None;
    QUOTAS = abi::quotas::NAME, u32 => abi::Quota, "", None;
    BALANCING = abi::balancing::NAME, u32 => abi::Balancing, "", None;
    NEXT_HOPS = abi::next_hops::NAME, u32 => abi::NextHop, "", None;
    HOST_ROUTING = abi::host_routing::NAME, u32 => abi::HostRouting, "", None;
    DNS_NAMES = abi::dns::NAMES, abi::DnsName => abi::DnsAnswer, "", None;
    DNS_CONTROL = abi::dns::CONTROL, u32 => abi::DnsControl, "", None;
    DNS_ALIVE = abi::dns::ALIVE, u32 => u32, "", None;
    DNS_SCRATCH = abi::dns::SCRATCH, u32 => [u8; abi::dns::SCRATCH_LEN], "", None;
    POLICY_CONTROL = abi::policy::CONTROL, u32 => abi::PolicyControl, "", None;
    POLICY_LINKS = abi::policy::LINKS, abi::PolicyLinkKey => abi::PolicyLink, "", None;
    POLICY_PEERS = abi::policy::PEERS, abi::PolicyPeerKey => u32, "", None;
    POLICY_VERDICTS = abi::policy::VERDICTS, abi::PolicyVerdictKey => u32, "", None;
    POLICY_PORTS = abi::policy::PORTS, abi::PolicyPortKey => u32, "", None;
    POLICY_FLOWS4 = abi::policy::FLOWS4, abi::Flow4 => abi::Conversation, "", None;
    POLICY_FLOWS6 = abi::policy::FLOWS6, abi::Flow6 => abi::Conversation, "", None;
    POLICY_PASSED = abi::passed::NAME, u32 => abi::PolicyPassed, "", None;
    POLICY_ANSWERS = abi::passed::ANSWERS, u32 => abi::PolicyAnswer, "", None;
    POLICY_HELD = abi::policy::HELD, abi::PolicyHeldKey => abi::PolicyHeld, "", None;
    POLICY_CGROUPS = abi::policy::CGROUPS, u64 => u32, "", None;
    POLICY_PODS = abi::policy::PODS, u32 => abi::PolicyPod, "", None;
    SWITCHES = abi::events::SWITCHES, u32 => abi::Watchers, "", None;
    EVENTS_LOST = abi::events::LOST, u32 => u64, "", None;
    INSIDE = abi::masquerade::INSIDE, abi::InsideKey => u32, "", None;
    MASQUERADE = abi::masquerade::NAME, u32 => abi::Masquerade, "", None;
    NAMESPACES = abi::namespaces::NAME, u64 => abi::Namespace, "", None;
    LIMITS = abi::limits::NAME, u32 => abi::Limit, "", None;
    LIMITING = abi::limits::LIMITING, u32 => u32, "", None;
    COUNTERS = abi::counters::NAME, u32 => abi::CounterValue, "", None;
}

/// The rings of events, which have neither keys nor values in the kernel's eyes.
pub(crate) const EVENTS: [Spec; abi::events::WATCHERS] = [ring(0), ring(1), ring(2), ring(3)];

const fn ring(number: usize) -> Spec {
    Spec {
        name: abi::events::RINGS[number],
        key_size: 0,
        value_size: 0,
        flag: "",
        capacity: None,
    }
}

impl Spec {
    /// The configured number of entries, where it can be configured.
    pub(crate) fn capacity(&self, capacities: &Capacities) -> Option<u32> {
        self.capacity.map(|pick| pick(capacities))
    }

    /// Checks that a table that is pinned already, if one is, can serve this build.
    pub(crate) fn check(&self, pins: &Pins, capacities: &Capacities) -> Result<(), Error> {
        let path = pins.map(self.name);
        let fd = match sys::get(&path, true) {
            Ok(fd) => fd,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(Error::path("open", &path)(error)),
        };
        let info = sys::map_info(fd.as_fd())
            .map_err(|source| self.failed("look at", "the shape", source))?;
        self.check_shape(&info)?;
        match self.capacity(capacities) {
            Some(wanted) if info.entries_max < wanted => Err(Error::TooSmall {
                table: self.name,
                flag: self.flag,
                found: info.entries_max,
                wanted,
            }),
            _ => Ok(()),
        }
    }

    /// Checks the sizes of a table's keys and values.
    pub(crate) fn check_shape(&self, info: &sys::MapInfo) -> Result<(), Error> {
        for (what, found, wanted) in [
            ("keys of size", info.key_size, self.key_size),
            ("values of size", info.value_size, self.value_size),
        ] {
            if found != wanted {
                return Err(Error::Shape {
                    table: self.name,
                    what,
                    found,
                    wanted,
                });
            }
        }
        Ok(())
    }

    pub(crate) fn failed(&self, action: &'static str, key: &str, source: io::Error) -> Error {
        Error::Table {
            table: self.name,
            action,
            key: key.to_owned(),
            source,
        }
    }
}
