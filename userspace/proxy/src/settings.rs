//! What the proxy is told when it starts.

use std::net::SocketAddr;
use std::sync::Arc;

use abi::balancing::Mode;
use tokio::sync::watch;
use view::NodePortAddresses;

use crate::quotas::FlowLimits;
use crate::routing::HostRouting;
use crate::status::Status;

/// Default of [`Settings::tables_max`].
pub const TABLES_MAX: u32 = 1 << 24;

/// Settings of [`run`](crate::run).
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of this node's Node object; endpoints that carry it are local.
    pub node_name: String,
    /// Devices where traffic from outside arrives. None by default: nothing is attached to a device that was
    /// not named.
    pub devices: Vec<String>,
    /// Attach to pod links, those that are there and those that come.
    pub pod_links: bool,
    /// How XDP is attached to the devices.
    pub xdp: bpf::XdpMode,
    /// How many flows a Service, and a namespace, may have.
    pub flow_limits: FlowLimits,
    /// How external traffic gets to backends of other nodes.
    pub load_balancing: Mode,
    /// Which way packets for pods of this node take.
    pub host_routing: HostRouting,
    /// Which addresses of the node serve NodePorts.
    pub node_port_addresses: NodePortAddresses,
    /// Serve the host ports of this node's Pods, which needs the right to list and watch Pods.
    pub host_ports: bool,
    /// Judge the packets of this node's pods by NetworkPolicies and ClusterNetworkPolicies, which needs the right to list
    /// and watch these, Pods and Namespaces. Not with `once`: what pods come later would find nothing.
    pub network_policy: bool,
    /// Leave alone what [`pod_network`](crate::pod_network) says of pods' packets that leave the cluster; otherwise they keep
    /// their addresses.
    pub masquerade: bool,
    /// The kernel's side: pins, cgroup, capacities.
    pub datapath: bpf::Settings,
    /// Entries that a full table grows to at most by itself; zero leaves every table as it was made.
    pub tables_max: u32,
    /// Reset the connections to backends that no EndpointSlice names any more.
    pub reset_dead_backends: bool,
    /// Remove kube-proxy's rules once ours are in force, and let its connections live on.
    pub take_over_kube_proxy: bool,
    /// Where `/healthz`, `/readyz`, `/status` and `/metrics` are served; nowhere by default.
    pub metrics_bind_address: Option<SocketAddr>,
    /// Where the node's `/healthz` and `/livez` are served as kube-proxy serves them; nowhere by default.
    pub healthz_bind_address: Option<SocketAddr>,
    /// Program once and return.
    pub once: bool,
    /// What the proxy says of itself; subscribe before it runs.
    pub status: Arc<watch::Sender<Status>>,
}

impl Settings {
    /// Defaults for a node.
    #[must_use]
    pub fn new(node_name: &str) -> Self {
        Settings {
            node_name: node_name.to_owned(),
            devices: Vec::new(),
            pod_links: true,
            xdp: bpf::XdpMode::Auto,
            flow_limits: FlowLimits::default(),
            load_balancing: Mode::Snat,
            host_routing: HostRouting::Auto,
            node_port_addresses: NodePortAddresses::All,
            host_ports: false,
            network_policy: false,
            masquerade: false,
            datapath: bpf::Settings::default(),
            tables_max: TABLES_MAX,
            reset_dead_backends: false,
            take_over_kube_proxy: false,
            metrics_bind_address: None,
            healthz_bind_address: None,
            once: false,
            status: Arc::default(),
        }
    }
}
