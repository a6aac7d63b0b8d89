//! What turns events into lines: names of services, pods and nodes, of devices, and of the network namespaces that
//! calls on sockets come from.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use abi::{Event, ServiceId};
use bpf::Datapath;
use net::{Netns, Rtnl};
use time::OffsetDateTime;
use view::policies::cgroup_uid;

use super::line::{Line, Source, Told};
use crate::commands::cluster::{Cluster, Names};

/// How often namespaces and devices are looked for, at most, while one is not known.
const LOOK: Duration = Duration::from_secs(1);

pub(super) struct Known {
    pub(super) names: Names,
    pub(super) services: BTreeMap<(SocketAddr, u8), ServiceId>,
    pub(super) host: Host,
    /// Pods that use the node's network, by the numbers that stand for the indexes of their links.
    pub(super) host_pods: BTreeMap<u32, String>,
    /// Nanoseconds that the wall clock is ahead of `CLOCK_MONOTONIC`.
    pub(super) epoch_ns: i128,
    /// Whether a client was refused, or sent on, at an address that no service is known to have.
    pub(super) missed: Cell<bool>,
}

impl Known {
    /// What the tables and the API server say; a server that does not answer is reported on stderr.
    pub(super) fn read(root: &Path, kubeconfig: Option<&Path>) -> anyhow::Result<Known> {
        Self::of(root, &Cluster::read_if_told(kubeconfig))
    }

    /// As [`read`](Self::read), without a word where the server does not answer: the names of before stay.
    pub(super) fn read_again(root: &Path, kubeconfig: Option<&Path>) -> anyhow::Result<Known> {
        let cluster = kubeconfig.map(Cluster::read).transpose()?;
        Self::of(root, &cluster.unwrap_or_default())
    }

    fn of(root: &Path, cluster: &Cluster) -> anyhow::Result<Known> {
        let view = Datapath::inspect(root)?;
        let tables = view.observe()?;
        let host_pods = view.policy_pods()?.into_iter().map(|(link, pod)| {
            let uid = bpf::pod_uid(&pod);
            let named = cluster.pods.iter().find(|pod| cgroup_uid(pod) == uid);
            let name = named.map(|pod| &pod.metadata).map_or_else(
                || format!("pod {uid}"),
                |of| format!("{}/{}", of.namespace, of.name),
            );
            (link, name)
        });
        let ports = tables.frontends.iter();
        let ports = ports.filter(|(key, _)| !key.is_whole_address());
        Ok(Known {
            services: ports
                .map(|(key, frontend)| ((key.socket_addr(), key.proto()), frontend.service))
                .collect(),
            names: cluster.names(&tables),
            host_pods: host_pods.collect(),
            host: Host::default(),
            epoch_ns: OffsetDateTime::now_utc().unix_timestamp_nanos() - i128::from(bpf::now_ns()),
            missed: Cell::new(false),
        })
    }

    /// Takes newer names; what was found out about this host stays.
    pub(super) fn replace(&mut self, newer: Known) {
        let host = std::mem::take(&mut self.host);
        *self = Known { host, ..newer };
    }

    /// Whether something had no name since this was last asked.
    pub(super) fn misses(&self) -> bool {
        self.missed.take()
    }

    pub(super) fn line(&mut self, event: &Event) -> Line {
        let end = |addr: &[u8; 16], port: u16| SocketAddr::new(addr_of(addr, event.family), port);
        let told = Told::of(event.what);
        let destination = end(&event.daddr, event.dport.get());
        let becomes = end(&event.to_daddr, event.to_dport.get());
        let is_call = event.ifindex == 0;
        let (source, becomes_source) = if is_call {
            let addr = self.host.client(event.netns_cookie, destination.is_ipv6());
            (addr.map(Source::Client), None)
        } else {
            let source = end(&event.saddr, event.sport.get());
            let becomes = end(&event.to_saddr, event.to_sport.get());
            (
                Some(Source::Packet(source)),
                (becomes != source).then_some(becomes),
            )
        };
        let services = &self.services;
        let service = services.get(&(destination, event.proto)).copied();
        if service.is_none() && told.is_services() {
            self.missed.set(true);
        }
        let name = |addr: IpAddr| self.names.address(addr).map(str::to_owned);
        let backend = (becomes != destination).then_some(becomes);
        let time = self.epoch_ns + i128::from(event.time_ns);
        Line {
            time: OffsetDateTime::from_unix_timestamp_nanos(time).ok(),
            told,
            source,
            source_name: source.and_then(|source| name(source.addr())),
            destination,
            destination_name: match service {
                Some(_) => None,
                None => name(destination.ip()),
            },
            service,
            service_name: service
                .and_then(|id| self.names.service(id))
                .map(str::to_owned),
            becomes_source,
            backend,
            backend_name: backend.and_then(|backend| name(backend.ip())),
            device: (!is_call).then(|| self.device(event.ifindex)),
            netns_cookie: is_call.then_some(event.netns_cookie),
            pid: is_call.then_some(event.pid),
            process: is_call.then(|| comm(&event.comm)),
            bytes: event.bytes,
            protocol: event.proto,
        }
    }
}

impl Known {
    /// Where a packet was seen: a device's name, or whose cgroup.
    fn device(&mut self, ifindex: u32) -> String {
        if ifindex & abi::policy::CGROUP_LINK == 0 {
            return self.host.device(ifindex);
        }
        match self.host_pods.get(&ifindex) {
            Some(name) => format!("cgroup of {name}"),
            None => {
                self.missed.set(true);
                "cgroup of a pod".to_owned()
            }
        }
    }
}

fn addr_of(padded: &[u8; 16], family: u8) -> IpAddr {
    let [a, b, c, d, ..] = *padded;
    if family == abi::family::V4 {
        IpAddr::from([a, b, c, d])
    } else {
        IpAddr::from(*padded)
    }
}

/// The name of a process. Anybody may name his own as he likes: what is not a plain character is shown as `?`.
fn comm(comm: &[u8]) -> String {
    let name = comm.split(|octet| *octet == 0).next().unwrap_or_default();
    let plain = |octet: &u8| match octet {
        b' '..=b'~' => char::from(*octet),
        _ => '?',
    };
    name.iter().map(plain).collect()
}

/// Devices and network namespaces of this host, looked for when one is not known.
#[derive(Default)]
pub(super) struct Host {
    pub(super) devices: BTreeMap<u32, String>,
    /// Addresses by the namespace's cookie.
    pub(super) clients: BTreeMap<u64, Vec<IpAddr>>,
    pub(super) devices_looked: Option<Instant>,
    pub(super) clients_looked: Option<Instant>,
}

impl Host {
    fn device(&mut self, ifindex: u32) -> String {
        if !self.devices.contains_key(&ifindex) && is_time(&mut self.devices_looked) {
            let devices = Rtnl::open().and_then(|rtnl| rtnl.devices());
            let devices = devices.unwrap_or_default().into_iter();
            self.devices = devices
                .map(|device| (device.ifindex, device.name))
                .collect();
        }
        let name = self.devices.get(&ifindex);
        name.cloned().unwrap_or_else(|| ifindex.to_string())
    }

    /// An address that sockets of a namespace have towards others: the first one of the family.
    fn client(&mut self, cookie: u64, v6: bool) -> Option<IpAddr> {
        if !self.clients.contains_key(&cookie) && is_time(&mut self.clients_looked) {
            let found = Netns::all().into_iter().filter_map(|netns| {
                let asked = netns.run(|| {
                    let cookie = Netns::current_cookie().ok()?;
                    let addresses = Rtnl::open().and_then(|rtnl| rtnl.all_addresses());
                    let addresses = addresses.unwrap_or_default().into_iter();
                    let addresses = addresses.map(|(_, address)| address.addr);
                    Some((cookie, addresses.filter(leads_here).collect()))
                });
                asked.ok().flatten()
            });
            self.clients = found.collect();
        }
        let addresses = self.clients.get(&cookie)?;
        addresses.iter().find(|addr| addr.is_ipv6() == v6).copied()
    }
}

fn is_time(looked: &mut Option<Instant>) -> bool {
    let due = looked.is_none_or(|at| at.elapsed() >= LOOK);
    if due {
        *looked = Some(Instant::now());
    }
    due
}

/// Whether others reach a namespace by an address of it.
fn leads_here(addr: &IpAddr) -> bool {
    !addr.is_loopback()
        && match addr {
            IpAddr::V4(addr) => !addr.is_link_local(),
            IpAddr::V6(addr) => !addr.is_unicast_link_local(),
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_says_its_name_in_plain_characters() {
        for (octets, name) in [
            (&b"curl\0\0\0"[..], "curl"),
            (b"\x1b[31mred\0", "?[31mred"),
            (b"", ""),
            (b"sixteen-octets-!", "sixteen-octets-!"),
        ] {
            assert_eq!(comm(octets), name);
        }
    }
}
