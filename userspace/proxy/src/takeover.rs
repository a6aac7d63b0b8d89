//! `--take-over-kube-proxy`: what kube-proxy left in netfilter goes once our tables are in force, and the connections that
//! it translated live on.
//!
//! A connection of TCP or SCTP is left to the kernel's connection tracking, which translates it for as long as it lasts:
//! an entry among our flows that changes nothing says so, and a client that takes the port again replaces it. A flow of
//! UDP, which has no end, becomes ours with the same backend, and connection tracking forgets it. Sockets of this host are
//! seen by no program that could take them for new ones.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use abi::flows::flags;
use abi::{BackendId, Flow4, Flow6, FlowState4, FlowState6, FrontendKey4, FrontendKey6, Scope};
use abi::{ServiceId, protocol};
use bpf::Flow;
use net::{Conntrack, Netfilter, Translated};
use plan::{FrontendKey, Tables};

use crate::Error;

/// Adopts what connection tracking translates for the frontends of `tables`. `own` are this host's addresses. Gives how
/// many connections these are.
pub(crate) fn adopt(
    bpffs_root: &Path,
    tables: &Tables,
    own: &BTreeSet<IpAddr>,
) -> Result<usize, Error> {
    let failed = |action| move |source: io::Error| Error::Takeover { action, source };
    let conntrack = Conntrack::open().map_err(failed("ask connection tracking"))?;
    let translated = conntrack
        .translated()
        .map_err(failed("list what is translated"))?;
    let index = Index::of(tables);
    let now_secs = bpf::now_secs();
    let mut adopted = 0;
    let mut flows = Vec::new();
    let mut ours = Vec::new();
    for connection in &translated {
        let Some(service) = index.service(connection) else {
            continue;
        };
        if own.contains(&connection.client.ip()) {
            continue;
        }
        adopted += 1;
        if connection.protocol == protocol::UDP {
            if let Some(backend) = index.backend(service, connection.answers) {
                flows.extend(taken_over(connection, service, backend, now_secs));
            }
            ours.push(connection);
        } else {
            flows.push(entry(
                connection.protocol,
                (connection.client, connection.asked),
                (connection.client, connection.asked),
                State {
                    service: 0,
                    backend: 0,
                    flags: 0,
                    now_secs,
                },
            ));
        }
    }
    bpf::adopt_flows(bpffs_root, &flows)?;
    // After that: were it forgotten first, kube-proxy's rules would choose anew.
    for connection in ours {
        conntrack
            .forget(connection)
            .map_err(failed("forget a flow of UDP"))?;
    }
    Ok(adopted)
}

/// Removes kube-proxy's tables and chains from this namespace. Gives how many there were.
pub(crate) fn remove() -> Result<usize, Error> {
    let failed = |action| move |source: io::Error| Error::Takeover { action, source };
    let tables = net::remove_kube_proxy_tables().map_err(failed("remove kube-proxy's tables"))?;
    let chains = net::remove_kube_proxy_chains().map_err(failed("remove kube-proxy's chains"))?;
    Ok(tables + chains)
}

/// Lets go of the translations once connection tracking has none left; whether that is done.
pub(crate) fn release() -> Result<bool, Error> {
    let failed = |action| move |source: io::Error| Error::Takeover { action, source };
    let conntrack = Conntrack::open().map_err(failed("ask connection tracking"))?;
    let translated = conntrack
        .translated()
        .map_err(failed("list what is translated"))?;
    if translated.is_empty() {
        net::release_translations().map_err(failed("let go of its translations"))?;
    }
    Ok(translated.is_empty())
}

/// What kube-proxy has in netfilter, in words. Must be called in a tokio runtime.
pub(crate) fn rules() -> Result<BTreeSet<String>, Error> {
    let mut netfilter = Netfilter::open()?;
    netfilter.read_chains()?;
    Ok(netfilter.hooked().kube_proxy)
}

/// Frontends and backends by their addresses.
struct Index {
    frontends: BTreeMap<(u8, SocketAddr), ServiceId>,
    backends: BTreeMap<(ServiceId, SocketAddr), BackendId>,
}

impl Index {
    fn of(tables: &Tables) -> Index {
        let mut frontends = BTreeMap::new();
        for (key, frontend) in &tables.frontends {
            let (addr, port, proto, scope): (IpAddr, _, _, _) = match key {
                FrontendKey::V4(FrontendKey4 {
                    addr,
                    port,
                    proto,
                    scope,
                }) => ((*addr).into(), port, proto, scope),
                FrontendKey::V6(FrontendKey6 {
                    addr,
                    port,
                    proto,
                    scope,
                }) => ((*addr).into(), port, proto, scope),
            };
            let key = (*proto, SocketAddr::new(addr, port.get()));
            // Clients from outside have a key of their own; who it is for does not matter to a flow that is there.
            if *scope == Scope::Any as u8 {
                frontends.insert(key, frontend.service);
            } else {
                frontends.entry(key).or_insert(frontend.service);
            }
        }
        let backends = tables.backends.iter().map(|(id, backend)| {
            let addr: IpAddr = if backend.family == abi::family::V4 {
                let [a, b, c, d, ..] = backend.addr;
                [a, b, c, d].into()
            } else {
                backend.addr.into()
            };
            let at = SocketAddr::new(addr, backend.port.get());
            ((backend.service, at), *id)
        });
        Index {
            frontends,
            backends: backends.collect(),
        }
    }

    fn service(&self, connection: &Translated) -> Option<ServiceId> {
        let key = (connection.protocol, connection.asked);
        self.frontends.get(&key).copied()
    }

    fn backend(&self, service: ServiceId, at: SocketAddr) -> Option<BackendId> {
        self.backends.get(&(service, at)).copied()
    }
}

/// The two entries of a flow that goes on as it was translated.
fn taken_over(
    connection: &Translated,
    service: ServiceId,
    backend: BackendId,
    now_secs: u32,
) -> [Flow; 2] {
    let asked = (connection.client, connection.asked);
    let given = (connection.answered, connection.answers);
    let snat = if connection.answered.ip() == connection.client.ip() {
        0
    } else {
        flags::SNAT
    };
    let turned = |(from, to)| (to, from);
    let state = |flags| State {
        service,
        backend,
        flags,
        now_secs,
    };
    [
        entry(connection.protocol, asked, given, state(snat)),
        entry(
            connection.protocol,
            turned(given),
            turned(asked),
            state(snat | flags::REPLY),
        ),
    ]
}

#[derive(Clone, Copy)]
struct State {
    service: ServiceId,
    backend: BackendId,
    flags: u32,
    now_secs: u32,
}

/// An entry by which packets between two ends become packets between two others, of the same family.
fn entry(
    proto: u8,
    from: (SocketAddr, SocketAddr),
    to: (SocketAddr, SocketAddr),
    state: State,
) -> Flow {
    let State {
        service,
        backend,
        flags,
        now_secs,
    } = state;
    match (from.0.ip(), from.1.ip(), to.0.ip(), to.1.ip()) {
        (IpAddr::V4(a), IpAddr::V4(b), IpAddr::V4(c), IpAddr::V4(d)) => {
            let tuple = |s: [u8; 4], d: [u8; 4], (from, to): (SocketAddr, SocketAddr)| Flow4 {
                saddr: s,
                daddr: d,
                sport: from.port().into(),
                dport: to.port().into(),
                proto,
                _pad: [0; 3],
            };
            let state = FlowState4 {
                to: tuple(c.octets(), d.octets(), to),
                service,
                backend,
                last_seen_secs: now_secs,
                flags,
            };
            Flow::V4(tuple(a.octets(), b.octets(), from), state)
        }
        (a, b, c, d) => {
            let octets = |addr: IpAddr| match addr {
                IpAddr::V4(addr) => addr.to_ipv6_mapped().octets(),
                IpAddr::V6(addr) => addr.octets(),
            };
            let tuple = |s: IpAddr, d: IpAddr, (from, to): (SocketAddr, SocketAddr)| Flow6 {
                saddr: octets(s),
                daddr: octets(d),
                sport: from.port().into(),
                dport: to.port().into(),
                proto,
                _pad: [0; 3],
            };
            let state = FlowState6 {
                to: tuple(c, d, to),
                service,
                backend,
                last_seen_secs: now_secs,
                flags,
            };
            Flow::V6(tuple(a, b, from), state)
        }
    }
}
