//! Tables and keys as text, for people and tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use abi::{
    Backend, Frontend, FrontendKey4, FrontendKey6, Scope, SourceKey, backends, family, frontends,
    protocol, sources,
};

use crate::{FrontendKey, Step, Tables};

impl FrontendKey {
    /// Of an address and port, an IP protocol number, and who it is for.
    #[must_use]
    pub fn new(at: SocketAddr, proto: u8, scope: Scope) -> Self {
        let (port, scope) = (at.port().into(), scope as u8);
        match at.ip() {
            IpAddr::V4(addr) => FrontendKey::V4(FrontendKey4 {
                addr: addr.octets(),
                port,
                proto,
                scope,
            }),
            IpAddr::V6(addr) => FrontendKey::V6(FrontendKey6 {
                addr: addr.octets(),
                port,
                proto,
                scope,
            }),
        }
    }

    /// Address and port.
    #[must_use]
    pub fn socket_addr(&self) -> SocketAddr {
        match self {
            FrontendKey::V4(key) => SocketAddr::new(key.addr.into(), key.port.get()),
            FrontendKey::V6(key) => SocketAddr::new(key.addr.into(), key.port.get()),
        }
    }

    /// Whether this says that the address is a service's alone ([`frontends::WHOLE_ADDRESS`]), rather than
    /// where clients connect.
    #[must_use]
    pub fn is_whole_address(&self) -> bool {
        self.proto() == frontends::WHOLE_ADDRESS
    }

    /// Whether it serves only clients outside of the cluster.
    #[must_use]
    pub fn is_for_outside(&self) -> bool {
        let scope = match self {
            FrontendKey::V4(key) => key.scope,
            FrontendKey::V6(key) => key.scope,
        };
        scope == Scope::External as u8
    }

    /// IP protocol number.
    #[must_use]
    pub fn proto(&self) -> u8 {
        match self {
            FrontendKey::V4(key) => key.proto,
            FrontendKey::V6(key) => key.proto,
        }
    }
}

/// For instance `10.96.0.1:443/TCP`; an address alone where it is a whole one, and whose clients where it is not for
/// all.
impl fmt::Display for FrontendKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_whole_address() {
            return write!(f, "{}", self.socket_addr().ip());
        }
        write!(f, "{}/{}", self.socket_addr(), protocol_name(self.proto()))?;
        if self.is_for_outside() {
            f.write_str(" from outside")?;
        }
        Ok(())
    }
}

/// A range of clients, without the service that serves them.
#[must_use]
pub fn source_range(key: &SourceKey) -> String {
    let len = key.prefix_len.saturating_sub(sources::SERVICE_BITS);
    let addr = Ipv6Addr::from(key.addr);
    match (addr.to_ipv4_mapped(), len.checked_sub(sources::MAPPED_BITS)) {
        (Some(addr), Some(len)) => format!("{addr}/{len}"),
        _ => format!("{addr}/{len}"),
    }
}

/// Address and port of a backend.
#[must_use]
pub fn backend_addr(backend: &Backend) -> SocketAddr {
    let [a, b, c, d, ..] = backend.addr;
    let addr = if backend.family == family::V4 {
        IpAddr::from([a, b, c, d])
    } else {
        IpAddr::from(backend.addr)
    };
    SocketAddr::new(addr, backend.port.get())
}

/// The name of a protocol, as Kubernetes writes it.
#[must_use]
pub fn protocol_name(number: u8) -> &'static str {
    match number {
        protocol::TCP => "TCP",
        protocol::UDP => "UDP",
        protocol::SCTP => "SCTP",
        _ => "?",
    }
}

/// For instance `put frontend 10.96.0.1:443/TCP` or `clear ring 8+3`.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::PutBackend(id, _) => write!(f, "put backend {id}"),
            Step::PutRing { offset, backends } => write!(f, "put ring {offset}+{}", backends.len()),
            Step::PutSpread { offset, words } => write!(f, "put spread {offset}+{}", words.len()),
            Step::ClearSpread { offset, len } => write!(f, "clear spread {offset}+{len}"),
            Step::PutFrontend(key, _) => write!(f, "put frontend {key}"),
            Step::PutSource(key) => {
                write!(f, "put source {} of {}", source_range(key), key.service)
            }
            Step::RemoveSource(key) => {
                write!(f, "remove source {} of {}", source_range(key), key.service)
            }
            Step::RemoveFrontend(key) => write!(f, "remove frontend {key}"),
            Step::ClearRing { offset, len } => write!(f, "clear ring {offset}+{len}"),
            Step::RemoveBackend(id) => write!(f, "remove backend {id}"),
        }
    }
}

impl Tables {
    /// Where a frontend's ring names a table of [`abi::spreads`], if it does: the slot and the table's first element.
    #[must_use]
    pub fn spread_of(&self, frontend: &Frontend) -> Option<(u32, u32)> {
        let has = frontend.flags & frontends::flags::SPREAD != 0;
        let slot = frontend.ring_offset.saturating_add(frontend.ring_len);
        let table = has.then(|| self.rings.get(&slot)).flatten()?;
        Some((slot, *table))
    }
}

/// Every table, a line for an element, in order of key:
///
/// ```text
/// frontend 10.96.0.1:443/TCP -> service 1 ring 0+2 affinity 10800
/// source 203.0.113.0/24 -> service 1
/// ring 0+2: 1 2
/// backend 1 = 10.0.0.1:6443 service 1 local
/// ```
impl fmt::Display for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut tables = BTreeSet::new();
        for (key, frontend) in &self.frontends {
            write!(f, "frontend {key} -> service {}", frontend.service)?;
            match (frontend.ring_offset, frontend.ring_len) {
                (_, 0) if key.is_whole_address() => f.write_str(" alone")?,
                (_, 0) if frontend.flags & frontends::flags::DROP != 0 => f.write_str(" drops")?,
                (_, 0) => f.write_str(" refuses")?,
                (offset, len) => write!(f, " ring {offset}+{len}")?,
            }
            if frontend.affinity_secs > 0 {
                write!(f, " affinity {}", frontend.affinity_secs)?;
            }
            for (flag, word) in [
                (frontends::flags::NODE_PORT, " node-port"),
                (frontends::flags::HOST_ONLY, " host-only"),
                (frontends::flags::EXACT, " exact"),
                (frontends::flags::CHECK_SOURCE, " restricted"),
                (frontends::flags::HASHED, " hashed"),
                (frontends::flags::LEAST, " least-connection"),
                (frontends::flags::DSR, " dsr"),
                (frontends::flags::LIMITED, " limited"),
            ] {
                if frontend.flags & flag != 0 {
                    f.write_str(word)?;
                }
            }
            if let Some((slot, table)) = self.spread_of(frontend) {
                tables.insert(slot);
                write!(f, " through spread {table}")?;
            }
            writeln!(f)?;
        }
        for key in &self.sources {
            writeln!(f, "source {} -> service {}", source_range(key), key.service)?;
        }
        let mut runs: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        let starts = self.frontends.values().map(|f| f.ring_offset);
        let starts: BTreeSet<u32> = starts.collect();
        let slots = self.rings.iter();
        for (slot, backend) in slots.filter(|(slot, _)| !tables.contains(slot)) {
            match runs.last_entry() {
                Some(mut run)
                    if run.key() + run.get().len() as u32 == *slot && !starts.contains(slot) =>
                {
                    run.get_mut().push(*backend);
                }
                Some(_) | None => {
                    runs.insert(*slot, vec![*backend]);
                }
            }
        }
        let mut shown = BTreeSet::new();
        for (offset, run) in runs {
            write!(f, "ring {offset}+{}:", run.len())?;
            for backend in run {
                write!(f, " {backend}")?;
            }
            writeln!(f)?;
        }
        for slot in &tables {
            let first = self.rings.get(slot).copied().unwrap_or(0);
            let [places, over] = self.spreads.get(&first).copied().unwrap_or_default();
            if shown.insert(first) {
                writeln!(f, "spread {first}: {places} places over {over}")?;
            }
        }
        for (id, backend) in &self.backends {
            let addr = backend_addr(backend);
            write!(f, "backend {id} = {addr} service {}", backend.service)?;
            if backend.flags & backends::flags::LOCAL != 0 {
                f.write_str(" local")?;
            }
            if backend.flags & backends::flags::TUNNELS != 0 {
                f.write_str(" tunnels")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
