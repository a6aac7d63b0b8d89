//! Which entries of the frontends tables a service wants.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use abi::balancing::Mode;
use abi::{Scope, frontends};
use model::{Choice, Clients, Frontend, FrontendKind, Protocol, Service, ServicePort};

use crate::{FrontendKey, Reach};

/// An entry of the frontends tables that a port wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) key: FrontendKey,
    pub(crate) leads_to: LeadsTo,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeadsTo {
    /// The port's ring; with a union of [`frontends::flags`].
    Ring { flags: u32 },
    /// Nothing: the address is the service's alone ([`frontends::WHOLE_ADDRESS`]).
    Nothing,
}

impl LeadsTo {
    /// A union of [`frontends::flags`].
    pub(crate) fn flags(self) -> u32 {
        match self {
            LeadsTo::Ring { flags } => flags,
            LeadsTo::Nothing => 0,
        }
    }
}

/// By port, the entries that it wants, what matters most first. An entry that two ports name is the first
/// one's.
pub(crate) fn entries(
    service: &Service,
    mode: Mode,
    reach: &Reach,
    limits: bool,
) -> Vec<Vec<Wanted>> {
    let mut seen = BTreeSet::new();
    let limited = if limits || service.flows_max != 0 {
        frontends::flags::LIMITED
    } else {
        0
    };
    let mut of_port = |port: &ServicePort| {
        let proto = port.protocol.number();
        let ports = port.frontends.iter().map(|f| Wanted {
            key: FrontendKey::new(SocketAddr::new(f.addr, f.port), proto, scope(f.clients)),
            leads_to: LeadsTo::Ring {
                flags: flags(port, f, mode, reach) | limited,
            },
        });
        let own = port
            .frontends
            .iter()
            .filter(|f| f.kind == FrontendKind::ClusterIp);
        let none = frontends::WHOLE_ADDRESS;
        let addresses = own.map(|f| Wanted {
            key: FrontendKey::new(SocketAddr::new(f.addr, none.into()), none, Scope::Any),
            leads_to: LeadsTo::Nothing,
        });
        let wanted = ports.chain(addresses);
        wanted.filter(|wanted| seen.insert(wanted.key)).collect()
    };
    service.ports.iter().map(&mut of_port).collect()
}

fn scope(clients: Clients) -> Scope {
    match clients {
        Clients::All | Clients::Host | Clients::HostExactly => Scope::Any,
        Clients::External => Scope::External,
    }
}

fn flags(port: &ServicePort, frontend: &Frontend, mode: Mode, reach: &Reach) -> u32 {
    use frontends::flags::{CHECK_SOURCE, DROP, DSR, EXACT, HASHED, HOST_ONLY, LEAST, NODE_PORT};
    let of_node = matches!(
        frontend.kind,
        FrontendKind::NodePort | FrontendKind::HostPort
    );
    let restricted = frontend.kind == FrontendKind::LoadBalancer && !port.sources.is_empty();
    let is_served = |addr| {
        let mut all = port.frontends.iter();
        all.any(|other| other.kind == FrontendKind::NodePort && other.addr == addr)
    };
    let from_outside = match frontend.kind {
        FrontendKind::NodePort => reach.is_known(frontend.addr, is_served),
        FrontendKind::ExternalIp | FrontendKind::LoadBalancer => !reach.is_own(frontend.addr),
        FrontendKind::ClusterIp | FrontendKind::HostPort => false,
    };
    let as_it_came = match mode {
        Mode::Snat => false,
        Mode::Dsr => true,
        Mode::Hybrid => port.protocol == Protocol::Tcp,
    };
    let exact = frontend.clients == Clients::HostExactly;
    let host_only = frontend.clients == Clients::Host || exact;
    let flags = [
        (from_outside && as_it_came && !host_only, DSR),
        (of_node, NODE_PORT),
        (port.drops, DROP),
        (restricted, CHECK_SOURCE),
        (host_only, HOST_ONLY),
        (exact, EXACT),
        (port.choice == Choice::Maglev, HASHED),
        (port.choice == Choice::LeastConnection, LEAST),
    ];
    let set = flags.into_iter().filter(|(is, _)| *is);
    set.fold(0, |all, (_, flag)| all | flag)
}
