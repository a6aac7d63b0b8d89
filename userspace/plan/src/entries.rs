//! Which entries of the frontends tables a service wants.

use std::collections::BTreeSet;
use std::net::IpAddr;

use abi::{FrontendKey4, FrontendKey6, Scope, frontends};
use model::{FrontendKind, Service, ServicePort};

use crate::FrontendKey;

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

/// By port, the entries that it wants, what matters most first. An entry that two ports name is the first
/// one's.
pub(crate) fn entries(service: &Service) -> Vec<Vec<Wanted>> {
    let mut seen = BTreeSet::new();
    let mut of_port = |port: &ServicePort| {
        let proto = port.protocol.number();
        let ports = port.frontends.iter().map(|f| Wanted {
            key: frontend_key(f.addr, f.port, proto),
            leads_to: LeadsTo::Ring {
                flags: flags(f.kind),
            },
        });
        let own = port
            .frontends
            .iter()
            .filter(|f| f.kind == FrontendKind::ClusterIp);
        let none = frontends::WHOLE_ADDRESS;
        let addresses = own.map(|f| Wanted {
            key: frontend_key(f.addr, none.into(), none),
            leads_to: LeadsTo::Nothing,
        });
        let wanted = ports.chain(addresses);
        wanted.filter(|wanted| seen.insert(wanted.key)).collect()
    };
    service.ports.iter().map(&mut of_port).collect()
}

fn frontend_key(addr: IpAddr, port: u16, proto: u8) -> FrontendKey {
    let scope = Scope::Any as u8;
    match addr {
        IpAddr::V4(addr) => FrontendKey::V4(FrontendKey4 {
            addr: addr.octets(),
            port: port.into(),
            proto,
            scope,
        }),
        IpAddr::V6(addr) => FrontendKey::V6(FrontendKey6 {
            addr: addr.octets(),
            port: port.into(),
            proto,
            scope,
        }),
    }
}

fn flags(kind: FrontendKind) -> u32 {
    match kind {
        FrontendKind::NodePort => frontends::flags::NODE_PORT,
        FrontendKind::ClusterIp | FrontendKind::ExternalIp | FrontendKind::LoadBalancer => 0,
    }
}
