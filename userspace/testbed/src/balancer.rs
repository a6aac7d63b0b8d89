//! Services written straight into a node's tables, without an API server: for what tests and benches ask
//! of the datapath alone.

use std::net::{IpAddr, SocketAddr};

use abi::frontends::flags::{HOST_ONLY, NODE_PORT};
use abi::{
    Backend, BackendId, Endpoint, Frontend, HostRouting, NodeConfig, Scope, endpoints, family,
};
use anyhow::{Context as _, Result};
use bpf::{Datapath, DeviceReport, Settings, XdpMode};
use net::{Link, Links};
use plan::{FrontendKey, Step, Store as _};
use rustix::net::{AddressFamily, SocketType, netdevice};

use crate::Netns;
use crate::topology::{NODE4, NODE6, Node, Pod, REMOTE4, REMOTE6, UPLINK};

/// A service, in the words of this crate.
#[derive(Clone, Debug)]
pub struct Service {
    /// What clients connect to; one that is the node's own address is a NodePort, a loopback address one for the node's
    /// own sockets.
    pub frontends: Vec<SocketAddr>,
    /// See [`abi::protocol`].
    pub protocol: u8,
    /// What answers, of the same family; those at the topology's remote address are not local.
    pub backends: Vec<SocketAddr>,
    /// Session affinity; zero for none.
    pub affinity_secs: u32,
}

/// A node's datapath, written by hand.
#[derive(Debug)]
pub struct Balancer {
    datapath: Datapath,
    services: u32,
    backends: BackendId,
    slots: u32,
}

impl Balancer {
    /// Loads the programs for a node, or takes over what is pinned there, and hooks its cgroup's sockets.
    ///
    /// # Errors
    ///
    /// What the kernel refuses, the verifier's words included.
    pub fn open(node: &Node) -> Result<Self> {
        let settings = Settings {
            bpffs_root: node.bpffs().join("fairlead"),
            cgroup_root: Some(node.cgroup().to_path_buf()),
            ..Settings::default()
        };
        let mut datapath = Datapath::open(&settings)?;
        datapath.set_node(&NodeConfig {
            addr4: NODE4.octets(),
            addr6: NODE6.octets(),
            snat_port_min: (*abi::config::SNAT_PORTS.start()).into(),
            snat_port_max: (*abi::config::SNAT_PORTS.end()).into(),
        })?;
        let cookie = node.netns().run(|| Ok(net::Netns::current_cookie()?))?;
        datapath.set_host(cookie)?;
        let held = datapath.observe()?;
        Ok(Self {
            services: held
                .frontends
                .values()
                .map(|frontend| frontend.service)
                .max()
                .unwrap_or(0),
            backends: held.backends.keys().copied().max().unwrap_or(0),
            slots: held.rings.keys().copied().max().map_or(0, |slot| slot + 1),
            datapath,
        })
    }

    /// What the kernel holds.
    pub fn datapath(&self) -> &Datapath {
        &self.datapath
    }

    /// Hooks the node's side of a pod's link.
    ///
    /// # Errors
    ///
    /// What the kernel refuses.
    pub fn attach_pod(&mut self, node: &Node, pod: &Pod) -> Result<DeviceReport> {
        let datapath = &mut self.datapath;
        node.netns().run(|| {
            let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None)?;
            let index = netdevice::name_to_index(&socket, pod.device())
                .with_context(|| format!("no device {}", pod.device()))?;
            Ok(datapath.attach_pod(index)?)
        })
    }

    /// Says where a hooked pod is, as an agent learns it from the host, and lets packets go straight to pods.
    ///
    /// # Errors
    ///
    /// What the kernel refuses.
    pub fn route_pod(&mut self, node: &Node, pod: &Pod) -> Result<()> {
        let host = link(node.netns(), pod.device())?;
        let theirs = link(pod.netns(), "eth0")?;
        let endpoint = Endpoint {
            ifindex: host.ifindex,
            flags: endpoints::flags::DIRECT,
            pod_link: ethernet(&theirs)?,
            host_link: ethernet(&host)?,
            _pad: [0; 2],
        };
        for v6 in [false, true] {
            self.datapath
                .set_endpoint(pod.address(v6), Some(endpoint))?;
        }
        self.route_straight(true)
    }

    /// Lets packets go straight to the pods that are known, for the time of a test or bench, or leaves them to the
    /// stack.
    ///
    /// # Errors
    ///
    /// What the kernel refuses.
    pub fn route_straight(&mut self, straight: bool) -> Result<()> {
        let until = if straight { u32::MAX } else { 0 };
        Ok(self.datapath.set_host_routing(&HostRouting {
            until_secs4: until,
            until_secs6: until,
            ..HostRouting::default()
        })?)
    }

    /// Hooks the node's uplink.
    ///
    /// # Errors
    ///
    /// What the kernel refuses.
    pub fn attach_uplink(&mut self, node: &Node, mode: XdpMode) -> Result<DeviceReport> {
        let datapath = &mut self.datapath;
        node.netns()
            .run(|| Ok(datapath.attach_device(UPLINK, mode)?))
    }

    /// Lets XDP send from the uplink, where the outside has a NAPI for what comes so.
    ///
    /// # Errors
    ///
    /// What the kernel refuses.
    pub fn let_xdp_transmit(&mut self, node: &Node) -> Result<()> {
        use abi::devices::flags::{XDP_RUNS, XDP_TRANSMIT};
        let uplink = link(node.netns(), UPLINK)?;
        let device = abi::Device {
            flags: XDP_RUNS | XDP_TRANSMIT,
        };
        Ok(self.datapath.set_device(uplink.ifindex, device)?)
    }

    /// Adds services, or gives their frontends new backends.
    ///
    /// # Errors
    ///
    /// When a table is full.
    pub fn put(&mut self, services: &[Service]) -> Result<()> {
        let mut steps = Vec::new();
        let mut frontends = Vec::new();
        for service in services {
            self.services += 1;
            let mut ring = Vec::with_capacity(service.backends.len());
            for address in &service.backends {
                self.backends += 1;
                ring.push(self.backends);
                steps.push(Step::PutBackend(
                    self.backends,
                    backend(*address, self.services),
                ));
            }
            let frontend = Frontend {
                service: self.services,
                ring_offset: self.slots,
                ring_len: u32::try_from(ring.len())?,
                affinity_secs: service.affinity_secs,
                flags: 0,
            };
            self.slots += frontend.ring_len;
            if !ring.is_empty() {
                steps.push(Step::PutRing {
                    offset: frontend.ring_offset,
                    backends: ring,
                });
            }
            frontends.extend(service.frontends.iter().map(|address| {
                let own = [IpAddr::from(NODE4), IpAddr::from(NODE6)].contains(&address.ip());
                let flags = match address.ip() {
                    _ if own => NODE_PORT,
                    addr if addr.is_loopback() => NODE_PORT | HOST_ONLY,
                    _ => 0,
                };
                Step::PutFrontend(
                    key(*address, service.protocol),
                    Frontend { flags, ..frontend },
                )
            }));
        }
        // Adjacent steps of one kind become one batch; frontends come last because they lead to the rest.
        steps.extend(frontends);
        Ok(self.datapath.apply(&steps)?)
    }

    /// Forgets which backends are on this node, as if no EndpointSlice had said so.
    ///
    /// # Errors
    ///
    /// What the kernel refuses.
    pub fn forget_places(&mut self) -> Result<()> {
        let held = self.datapath.observe()?.backends;
        let steps: Vec<Step> = held
            .into_iter()
            .map(|(id, backend)| {
                Step::PutBackend(
                    id,
                    Backend {
                        flags: 0,
                        ..backend
                    },
                )
            })
            .collect();
        Ok(self.datapath.apply(&steps)?)
    }

    /// Forgets backends that no ring leads to any more.
    ///
    /// # Errors
    ///
    /// What the kernel refuses.
    pub fn remove_backends(&mut self, backends: impl IntoIterator<Item = BackendId>) -> Result<()> {
        let steps: Vec<Step> = backends.into_iter().map(Step::RemoveBackend).collect();
        Ok(self.datapath.apply(&steps)?)
    }
}

/// Index of the node's end of a pod's link.
///
/// # Errors
///
/// When the link is gone.
pub fn ifindex(node: &Node, pod: &Pod) -> Result<u32> {
    Ok(link(node.netns(), pod.device())?.ifindex)
}

fn link(netns: &Netns, device: &str) -> Result<Link> {
    netns.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let links = Links::open()?.list().await?;
            let named = links.into_iter().find(|link| link.name == device);
            named.with_context(|| format!("no device {device}"))
        })
    })
}

fn ethernet(link: &Link) -> Result<[u8; 6]> {
    <[u8; 6]>::try_from(link.hardware_address.as_slice())
        .ok()
        .with_context(|| format!("{} has no Ethernet address", link.name))
}

fn key(address: SocketAddr, proto: u8) -> FrontendKey {
    FrontendKey::new(address, proto, Scope::Any)
}

fn backend(address: SocketAddr, service: u32) -> Backend {
    let remote = [IpAddr::from(REMOTE4), IpAddr::from(REMOTE6)].contains(&address.ip());
    let mut addr = [0; 16];
    let family = match address.ip() {
        IpAddr::V4(v4) => {
            addr[..4].copy_from_slice(&v4.octets());
            family::V4
        }
        IpAddr::V6(v6) => {
            addr = v6.octets();
            family::V6
        }
    };
    let flags = if remote {
        0
    } else {
        abi::backends::flags::LOCAL
    };
    Backend {
        addr,
        port: address.port().into(),
        family,
        flags,
        service,
    }
}
