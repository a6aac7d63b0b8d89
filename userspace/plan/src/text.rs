//! Tables and keys as text, for people and tests.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use abi::{Backend, backends, family, frontends, protocol};

use crate::{FrontendKey, Step, Tables};

impl FrontendKey {
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

    /// IP protocol number.
    #[must_use]
    pub fn proto(&self) -> u8 {
        match self {
            FrontendKey::V4(key) => key.proto,
            FrontendKey::V6(key) => key.proto,
        }
    }
}

/// For instance `10.96.0.1:443/TCP`; an address alone where it is a whole one.
impl fmt::Display for FrontendKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_whole_address() {
            return write!(f, "{}", self.socket_addr().ip());
        }
        write!(f, "{}/{}", self.socket_addr(), protocol_name(self.proto()))
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
            Step::PutFrontend(key, _) => write!(f, "put frontend {key}"),
            Step::RemoveFrontend(key) => write!(f, "remove frontend {key}"),
            Step::ClearRing { offset, len } => write!(f, "clear ring {offset}+{len}"),
            Step::RemoveBackend(id) => write!(f, "remove backend {id}"),
        }
    }
}

/// Every table, a line for an element, in order of key:
///
/// ```text
/// frontend 10.96.0.1:443/TCP -> service 1 ring 0+2 affinity 10800
/// ring 0+2: 1 2
/// backend 1 = 10.0.0.1:6443 service 1 local
/// ```
impl fmt::Display for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (key, frontend) in &self.frontends {
            write!(f, "frontend {key} -> service {}", frontend.service)?;
            match (frontend.ring_offset, frontend.ring_len) {
                (_, 0) if key.is_whole_address() => f.write_str(" alone")?,
                (_, 0) => f.write_str(" refuses")?,
                (offset, len) => write!(f, " ring {offset}+{len}")?,
            }
            if frontend.affinity_secs > 0 {
                write!(f, " affinity {}", frontend.affinity_secs)?;
            }
            if frontend.flags & frontends::flags::NODE_PORT != 0 {
                f.write_str(" node-port")?;
            }
            writeln!(f)?;
        }
        let mut runs: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        let starts = self.frontends.values().map(|f| f.ring_offset);
        let starts: std::collections::BTreeSet<u32> = starts.collect();
        for (slot, backend) in &self.rings {
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
        for (offset, run) in runs {
            write!(f, "ring {offset}+{}:", run.len())?;
            for backend in run {
                write!(f, " {backend}")?;
            }
            writeln!(f)?;
        }
        for (id, backend) in &self.backends {
            let addr = backend_addr(backend);
            write!(f, "backend {id} = {addr} service {}", backend.service)?;
            if backend.flags & backends::flags::LOCAL != 0 {
                f.write_str(" local")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
