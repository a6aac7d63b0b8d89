//! The command line. Flags that upstream's programs have carry upstream's names.

mod dns;
mod values;

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use ipnet::IpNet;
use view::NodePortAddresses;

use crate::commands::askers::Clients;
use crate::config;
use crate::duration;
use crate::logging::LogFormat;
use crate::output::Format;

use values::{address, cidr, entries, port_range};

pub(crate) use dns::{Dns, DnsCommand, DnsQuery, NodeDnsFlags};
pub(crate) use values::protocol;

/// Kubernetes Services, balanced in the Linux kernel.
#[derive(Debug, Parser)]
#[command(
    name = "fairlead",
    version,
    propagate_version = true,
    args_override_self = true
)]
pub(crate) struct Cli {
    /// How logs are written to stderr (the text of `dns` is CoreDNS's, on stdout); `RUST_LOG` chooses what.
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "FORMAT"
    )]
    pub(crate) log_format: LogFormat,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Reads the command line, and the configuration file that it names. Wrong usage ends the process with status 2.
pub(crate) fn parse() -> anyhow::Result<Cli> {
    let args: Vec<OsString> = dns::coredns_flags(std::env::args_os()).collect();
    let cli = Cli::parse_from(&args);
    let (command, from_file) = match &cli.command {
        Command::Up(Up {
            config: Some(file), ..
        }) => ("up", config::arguments(file)?),
        Command::Proxy(Proxy {
            config: Some(file), ..
        }) => ("proxy", config::of_kube_proxy(file)?),
        _ => return Ok(cli),
    };
    let behind = args
        .iter()
        .position(|arg| arg == command)
        .map_or(args.len(), |at| at + 1);
    let mut merged = args[..behind].to_vec();
    merged.extend(from_file);
    merged.extend_from_slice(&args[behind..]);
    Ok(Cli::parse_from(merged))
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// API server, store, controllers and proxy on this host, in one process
    Up(Up),
    /// The control plane alone: API server, store and controllers
    Server(Server),
    /// The kube-proxy replacement, for any Kubernetes API server
    Proxy(Proxy),
    /// The CNI plugin, as CNI_COMMAND says; container runtimes start it as `fairlead-cni`
    Cni,
    /// The DNS server of a cluster, with CoreDNS's configuration
    Dns(Dns),
    /// Create or update the objects of YAML files, where there is no kubectl
    Apply(Apply),
    /// What became of an object, as far back as the server retains history
    History(History),
    /// What differs between two states of an object
    Diff(Diff),
    /// Copy everything in the store of a data directory into one file, also while a server runs on it
    Backup(Backup),
    /// Make the store of a data directory from such a file
    Restore(Restore),
    /// What the kernel holds of Services
    #[command(subcommand)]
    Service(List),
    /// What the kernel holds of backends
    #[command(subcommand)]
    Backend(List),
    /// What the kernel holds of flows on the packet paths
    #[command(subcommand)]
    Flow(ListFlows),
    /// Which NetworkPolicies hold for which pods of this node, and since when
    #[command(subcommand)]
    Policy(List),
    /// Programs, hooks, tables and how full they are, counters
    Status(Status),
    /// What stands in the way of Services on this host, why it matters, and the remedy; status 1 if something does
    Doctor(Doctor),
    /// What would become of a connection, and why, by the programs themselves; nothing is sent and nothing changes
    Explain(Explain),
    /// Flows that begin, what is dropped or refused and why, and what policies let pass, while it happens
    Monitor(Monitor),
    /// Version, kernel layout and build
    Version(Output),
}

/// Where and how the API is served.
#[derive(Args, Clone, Debug)]
pub(crate) struct ServerFlags {
    /// Store, certificates and tokens; made if missing
    #[arg(long, value_name = "DIR", default_value = "/var/lib/fairlead")]
    pub(crate) data_dir: PathBuf,
    /// Address that the API server listens on
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    pub(crate) bind_address: IpAddr,
    /// Address that pods and other hosts reach the API server at; the bind address unless given
    #[arg(long, value_name = "IP")]
    pub(crate) advertise_address: Option<IpAddr>,
    /// Port that the API server listens on; 0 takes a free one
    #[arg(long, value_name = "N", default_value_t = 6443)]
    pub(crate) secure_port: u16,
    /// Ranges that ClusterIPs come from: one, or one of each family
    #[arg(
        long,
        value_name = "CIDR",
        value_delimiter = ',',
        value_parser = cidr,
        default_value = "10.96.0.0/12"
    )]
    pub(crate) service_cluster_ip_range: Vec<IpNet>,
    /// Ports that NodePorts come from
    #[arg(long, value_name = "MIN-MAX", default_value = "30000-32767", value_parser = port_range)]
    pub(crate) service_node_port_range: (u16, u16),
    /// DNS domain of the cluster
    #[arg(long, value_name = "NAME", default_value = "cluster.local")]
    pub(crate) cluster_domain: String,
    #[command(flatten)]
    pub(crate) etcd: EtcdFlags,
    #[command(flatten)]
    pub(crate) identity: IdentityFlags,
    #[command(flatten)]
    pub(crate) audit: AuditFlags,
    /// How long requests are still answered after the server was told to end, while /readyz fails
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration::parse)]
    pub(crate) shutdown_delay_duration: Duration,
    /// Admission plugins that are not to run, by name
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    pub(crate) disable_admission_plugins: Vec<String>,
    /// Write a kubeconfig for the administrator here (mode 0600)
    #[arg(long, value_name = "FILE")]
    pub(crate) write_kubeconfig: Option<PathBuf>,
}

/// An etcd to store in, rather than the data directory. Names and meanings are those of kube-apiserver.
#[derive(Args, Clone, Debug)]
pub(crate) struct EtcdFlags {
    /// Store in this etcd, named by the client URLs of its members, and not in the data directory
    #[arg(long, value_name = "URL,..", value_delimiter = ',')]
    pub(crate) etcd_servers: Vec<String>,
    /// Authority that signed the certificates of etcd's members
    #[arg(long, value_name = "FILE", requires = "etcd_servers")]
    pub(crate) etcd_cafile: Option<PathBuf>,
    /// Certificate that is shown to etcd
    #[arg(long, value_name = "FILE", requires = "etcd_keyfile")]
    pub(crate) etcd_certfile: Option<PathBuf>,
    /// Key of that certificate
    #[arg(long, value_name = "FILE", requires = "etcd_certfile")]
    pub(crate) etcd_keyfile: Option<PathBuf>,
    /// What every key in etcd begins with
    #[arg(long, value_name = "PREFIX", default_value = "/registry")]
    pub(crate) etcd_prefix: String,
    /// How often the history in etcd is compacted; 0: never
    #[arg(long, value_name = "DURATION", default_value = "5m0s", value_parser = duration::parse)]
    pub(crate) etcd_compaction_interval: Duration,
}

/// Who may be whom. Names and meanings are those of kube-apiserver.
#[derive(Args, Clone, Debug)]
pub(crate) struct IdentityFlags {
    /// Whether requests without credentials are answered as far as system:anonymous may ask
    #[arg(long, value_name = "BOOL", default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub(crate) anonymous_auth: bool,
    /// Static tokens beside the server's own, a line each: token,user,uid,"group1,group2"
    #[arg(long, value_name = "FILE")]
    pub(crate) token_auth_file: Option<PathBuf>,
    /// Certificate that clients see, with those that lead to its authority behind it; made in the data directory unless
    /// given
    #[arg(long, value_name = "FILE", requires = "tls_private_key_file")]
    pub(crate) tls_cert_file: Option<PathBuf>,
    /// Key of that certificate
    #[arg(long, value_name = "FILE", requires = "tls_cert_file")]
    pub(crate) tls_private_key_file: Option<PathBuf>,
    /// Authorities by which clients verify that certificate, for kubeconfigs and kube-root-ca.crt; what signed it, as
    /// far as --tls-cert-file says, unless given
    #[arg(long, value_name = "FILE")]
    pub(crate) root_ca_file: Option<PathBuf>,
    /// Authorities beside the server's own whose client certificates are accepted
    #[arg(long, value_name = "FILE")]
    pub(crate) client_ca_file: Option<PathBuf>,
    /// Issuer of service accounts' tokens; https://kubernetes.default.svc.DOMAIN unless given
    #[arg(long, value_name = "URL", default_value = "")]
    pub(crate) service_account_issuer: String,
    /// Keys whose signatures on service accounts' tokens are accepted beside the server's own
    #[arg(long, value_name = "FILE")]
    pub(crate) service_account_key_file: Vec<PathBuf>,
    /// Key that signs service accounts' tokens; made in the data directory unless given
    #[arg(long, value_name = "FILE")]
    pub(crate) service_account_signing_key_file: Option<PathBuf>,
    /// What the server calls itself in tokens; the issuer unless given
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    pub(crate) api_audiences: Vec<String>,
}

/// Which requests are recorded, and where. Names and meanings are those of kube-apiserver.
#[derive(Args, Clone, Debug)]
pub(crate) struct AuditFlags {
    /// Which requests are recorded, and how much of each: a Policy of audit.k8s.io/v1
    #[arg(long, value_name = "FILE")]
    pub(crate) audit_policy_file: Option<PathBuf>,
    /// Where they are recorded, an event a line; - for standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) audit_log_path: Option<PathBuf>,
    /// Whom they are sent to as well: a kubeconfig that names the server
    #[arg(long, value_name = "FILE")]
    pub(crate) audit_webhook_config_file: Option<PathBuf>,
    /// How events are written
    #[arg(long, value_name = "FORMAT", default_value = "json", value_parser = ["json"])]
    pub(crate) audit_log_format: String,
    /// Megabytes after which the file is set aside and a new one begun; 0: 100
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) audit_log_maxsize: u32,
    /// How many files that were set aside are kept; 0: all
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) audit_log_maxbackup: u32,
    /// For how many days files that were set aside are kept; 0: for ever
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) audit_log_maxage: u32,
}

/// How the kernel is programmed.
#[derive(Args, Clone, Debug)]
pub(crate) struct DatapathFlags {
    /// Name of this node's Node object; the host name unless given
    #[arg(long, value_name = "N")]
    pub(crate) node_name: Option<String>,
    /// Devices where traffic from outside arrives; nothing is attached to any other
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    pub(crate) devices: Vec<String>,
    /// The cgroup v2 whose processes are balanced at the socket; the mount's root unless given
    #[arg(long, value_name = "DIR")]
    pub(crate) cgroup_root: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) bpffs: BpffsFlags,
    /// How XDP is attached to the devices
    #[arg(long, value_enum, default_value_t)]
    pub(crate) xdp: Xdp,
    /// Which way packets for pods of this node, and from them to other hosts, take: straight, or through the host's
    /// stack. Auto goes straight while no firewall, routing rule or IPsec policy of the host would be passed by
    #[arg(long, value_enum, default_value_t)]
    pub(crate) host_routing: HostRouting,
    /// How traffic from outside for a NodePort, a load balancer's address or one of externalIPs gets to a backend of
    /// another node. Every node must run Fairlead for any but `snat`, and the network let the answers pass
    #[arg(long, value_enum, default_value_t)]
    pub(crate) load_balancing_mode: LoadBalancing,
    /// How many flows a Service may have on this node at most, where its annotation fairlead.io/flows-max does not say; 0
    /// for any number
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) service_flows_max: u32,
    /// How many flows the Services of a namespace may have together on this node at most; 0 for any number
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) namespace_flows_max: u32,
    /// Which addresses of the node serve NodePorts: ranges, or `primary` for the first of each family that the Node
    /// object names; all unless given
    #[arg(long, value_name = "CIDRS", default_value = "")]
    pub(crate) nodeport_addresses: NodePortAddresses,
    /// Serve the host ports of this node's Pods, as a CNI plugin `portmap` would; needs the right to watch Pods
    #[arg(long)]
    pub(crate) host_ports: bool,
    /// Judge the packets of this node's pods by NetworkPolicies and ClusterNetworkPolicies; needs the right to list and
    /// watch these, Pods and Namespaces, and a route on the host for each pod
    #[arg(long, value_enum, default_value_t)]
    pub(crate) network_policy: NetworkPolicy,
    /// Reset TCP connections to a backend that no EndpointSlice names any more, rather than leave them to time out; one
    /// that is terminating keeps its own. Those of this node's sockets at once, those of outside clients with their next
    /// packet
    #[arg(long)]
    pub(crate) reset_dead_backends: bool,
    /// Remove the rules that kube-proxy left in nftables or iptables once every Service is programmed; connections that
    /// they translated live on. Stop kube-proxy first: one that runs writes them again
    #[arg(long)]
    pub(crate) take_over_kube_proxy: bool,
    #[command(flatten)]
    pub(crate) pod_network: PodNetworkFlags,
    /// Serve the node's /healthz and /livez here, as kube-proxy does on port 10256
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) healthz_bind_address: Option<SocketAddr>,
    /// Serve /metrics, /proxyMode and /configz here, as kube-proxy does on port 10249, with /healthz, /readyz and /status
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) metrics_bind_address: Option<SocketAddr>,
    #[command(flatten)]
    pub(crate) capacities: CapacityFlags,
}

/// The pods' network, where no other CNI plugin makes it.
#[derive(Args, Clone, Debug)]
pub(crate) struct PodNetworkFlags {
    /// Make the pods' network: tell the plugin `fairlead-cni` of this node's podCIDRs, container runtimes of the plugin,
    /// and lead to the pods of other nodes. Off beside another CNI plugin
    #[arg(long)]
    pub(crate) cni: bool,
    /// With --cni: whether what pods send out of the cluster by a device of --devices gets this node's address and one of
    /// its ports 61000 to 65535 as its source (TCP, UDP, SCTP, echo requests); nothing else translates it. Conversations
    /// that are translated when it is switched off stay so
    #[arg(
        long,
        value_name = "BOOL",
        action = clap::ArgAction::Set,
        default_value_t = true,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub(crate) masquerade: bool,
    /// Destinations that see pods' own addresses, beside the pods and nodes of the cluster: those that know a way back
    #[arg(long, value_name = "CIDRS", value_delimiter = ',', value_parser = cidr, requires = "cni")]
    pub(crate) non_masquerade_cidrs: Vec<IpNet>,
    /// How packets get to pods of other nodes
    #[arg(long, value_enum, default_value_t, requires = "cni")]
    pub(crate) cni_overlay: CniOverlay,
    /// Where container runtimes look for networks
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d")]
    pub(crate) cni_conf_dir: PathBuf,
    /// What the plugin reads of this node
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/run/fairlead/cni-node.json"
    )]
    pub(crate) cni_node_file: PathBuf,
}

/// How packets get to pods of other nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub(crate) enum CniOverlay {
    /// Straight to nodes on a link with this one, in VXLAN to the others
    #[default]
    Auto,
    /// In VXLAN to every node
    Vxlan,
    /// Straight to nodes on a link with this one, and not to others
    Off,
}

/// How many entries the tables have. A table that is pinned and smaller is swapped for a larger one; none gets smaller
/// before `fairlead proxy --cleanup`.
#[derive(Args, Clone, Debug)]
pub(crate) struct CapacityFlags {
    /// Frontends of each family
    #[arg(long, value_name = "N", default_value_t = abi::frontends::CAPACITY, value_parser = entries())]
    pub(crate) frontends_max: u32,
    /// Slots of all rings together
    #[arg(long, value_name = "N", default_value_t = abi::rings::CAPACITY, value_parser = entries())]
    pub(crate) rings_max: u32,
    /// Elements of the tables behind rings, of eight places each: 202 for up to 16 backends, shared by equal sets
    #[arg(long, value_name = "N", default_value_t = abi::spreads::CAPACITY, value_parser = entries())]
    pub(crate) spreads_max: u32,
    /// Entries that a full table of Services, of their clients or of flows grows to by itself at most, under the traffic
    /// that uses it; 0 for none to grow
    #[arg(long, value_name = "N", default_value_t = proxy::TABLES_MAX)]
    pub(crate) tables_max: u32,
    /// Backends
    #[arg(long, value_name = "N", default_value_t = abi::backends::CAPACITY, value_parser = entries())]
    pub(crate) backends_max: u32,
    /// Ranges of clients of load balancers
    #[arg(long, value_name = "N", default_value_t = abi::sources::CAPACITY, value_parser = entries())]
    pub(crate) ranges_max: u32,
    /// Clients with session affinity
    #[arg(long, value_name = "N", default_value_t = abi::affinity::CAPACITY, value_parser = entries())]
    pub(crate) affinity_max: u32,
    /// Entries of the flow tables of each family, two for a flow
    #[arg(long, value_name = "N", default_value_t = abi::flows::CAPACITY, value_parser = entries())]
    pub(crate) flows_max: u32,
    /// Balanced sockets whose peer can be shown as the service
    #[arg(long, value_name = "N", default_value_t = abi::reverse_sockets::CAPACITY, value_parser = entries())]
    pub(crate) sockets_max: u32,
}

/// Where the pins are.
#[derive(Args, Clone, Debug)]
pub(crate) struct BpffsFlags {
    /// Folder of a bpffs where programs, tables and links are pinned
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf/fairlead")]
    pub(crate) bpffs_root: PathBuf,
}

/// How XDP is attached.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub(crate) enum Xdp {
    /// In the driver where it can, generic elsewhere
    #[default]
    Auto,
    /// In the driver or not at all
    Native,
    /// In the stack, with any driver
    Generic,
    /// Not at all: TC alone
    Off,
}

/// Whether policies are enforced.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub(crate) enum NetworkPolicy {
    /// They are, where there are any
    #[default]
    On,
    /// Somebody else does that, or nobody
    Off,
}

/// How external traffic gets to backends of other nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub(crate) enum LoadBalancing {
    /// With this node's address as its source; answers come back through this node
    #[default]
    Snat,
    /// As it came, in IP-in-IP; answers go from the backend's node straight to the client
    Dsr,
    /// TCP as with `dsr`, the rest as with `snat`
    Hybrid,
}

/// Which way packets for pods of this node take.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub(crate) enum HostRouting {
    /// Straight, while nothing in the host's stack would be passed by
    #[default]
    Auto,
    /// Straight, whatever hangs there
    Bpf,
    /// Through the stack
    Kernel,
}

/// `fairlead up`
#[derive(Args, Clone, Debug)]
pub(crate) struct Up {
    #[command(flatten)]
    pub(crate) server: ServerFlags,
    #[command(flatten)]
    pub(crate) datapath: DatapathFlags,
    /// Read further flags from this YAML file, by their long names; flags win over the file
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Port of this host that the cluster's DNS listens on, behind the Service kube-dns; 0 takes a free one
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) cluster_dns_port: u16,
    /// Who may ask the cluster's DNS beside this host, its pods, and the cluster's other nodes with theirs: ranges, or
    /// `any`. Others are refused
    #[arg(long, value_name = "CIDR,..", value_delimiter = ',')]
    pub(crate) cluster_dns_clients: Vec<Clients>,
    /// Somebody else answers the cluster's names: no DNS server, and no Service for it
    #[arg(long)]
    pub(crate) no_cluster_dns: bool,
    #[command(flatten)]
    pub(crate) node_dns: NodeDnsFlags,
}

/// `fairlead server`
#[derive(Args, Clone, Debug)]
pub(crate) struct Server {
    #[command(flatten)]
    pub(crate) server: ServerFlags,
}

/// `fairlead proxy`
#[derive(Args, Clone, Debug)]
pub(crate) struct Proxy {
    /// Kubeconfig file of the API server
    #[arg(
        long,
        value_name = "FILE",
        env = "KUBECONFIG",
        required_unless_present_any = ["cleanup", "config"]
    )]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Read kube-proxy's own configuration from this file (KubeProxyConfiguration): kubeconfig, node name, addresses of
    /// NodePorts, health and metrics; what is about rules of netfilter means nothing here. Flags win over the file
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) datapath: DatapathFlags,
    /// Program what the API server holds now, and exit
    #[arg(long)]
    pub(crate) once: bool,
    /// Detach every program, remove every pin, what --cni made (the network's configuration in --cni-conf-dir,
    /// --cni-node-file, routes to other nodes' pods, the tunnel) and a bpffs that Fairlead mounted, and exit
    #[arg(long)]
    pub(crate) cleanup: bool,
}

/// Which API server, as whom.
#[derive(Args, Clone, Debug)]
pub(crate) struct Kubeconfig {
    /// Kubeconfig file of the API server
    #[arg(long, value_name = "FILE", env = "KUBECONFIG")]
    pub(crate) kubeconfig: PathBuf,
}

/// `fairlead apply`
#[derive(Args, Clone, Debug)]
pub(crate) struct Apply {
    #[command(flatten)]
    pub(crate) kubeconfig: Kubeconfig,
    /// YAML files, or folders of them; - for standard input
    #[arg(short, long, value_name = "FILE", required = true)]
    pub(crate) filename: Vec<PathBuf>,
}

/// Which object.
#[derive(Args, Clone, Debug)]
pub(crate) struct ObjectFlags {
    #[command(flatten)]
    pub(crate) kubeconfig: Kubeconfig,
    /// The object; the kind may be a plural or short name, with its group behind a dot
    #[arg(value_name = "KIND/NAME")]
    pub(crate) target: String,
    /// Its namespace; that of the kubeconfig unless given
    #[arg(short, long, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
}

/// `fairlead history`
#[derive(Args, Clone, Debug)]
pub(crate) struct History {
    #[command(flatten)]
    pub(crate) object: ObjectFlags,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// `fairlead diff`
#[derive(Args, Clone, Debug)]
pub(crate) struct Diff {
    #[command(flatten)]
    pub(crate) object: ObjectFlags,
    /// Resource version of the older state
    #[arg(long, value_name = "RV")]
    pub(crate) from: u64,
    /// Resource version of the newer state; the object as it is now unless given
    #[arg(long, value_name = "RV")]
    pub(crate) to: Option<u64>,
}

/// `fairlead backup`
#[derive(Args, Clone, Debug)]
pub(crate) struct Backup {
    /// Where to write it
    pub(crate) file: PathBuf,
    /// The data directory of the server. Certificates and tokens in it are not part of the backup
    #[arg(long, value_name = "DIR", default_value = "/var/lib/fairlead")]
    pub(crate) data_dir: PathBuf,
}

/// `fairlead restore`
#[derive(Args, Clone, Debug)]
pub(crate) struct Restore {
    /// What `fairlead backup` wrote
    pub(crate) file: PathBuf,
    /// The data directory to make a store in
    #[arg(long, value_name = "DIR", default_value = "/var/lib/fairlead")]
    pub(crate) data_dir: PathBuf,
    /// How far the store goes on beyond the revision of the backup, so that no revision that a client has seen comes
    /// again
    #[arg(long, value_name = "N", default_value_t = storage_embedded::BUMP)]
    pub(crate) bump_revision: u64,
}

/// `fairlead service`, `fairlead backend`
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum List {
    /// List what the kernel holds now
    List(Listing),
}

/// `fairlead flow`
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum ListFlows {
    /// List what the kernel holds now, a line for each direction of a flow
    List(FlowListing),
}

/// `fairlead flow list`
#[derive(Args, Clone, Debug)]
pub(crate) struct FlowListing {
    #[command(flatten)]
    pub(crate) listing: Listing,
    #[command(flatten)]
    pub(crate) filter: TrafficFilter,
}

/// Which flows or events are shown: those for which everything holds that is asked for.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct TrafficFilter {
    /// Of this Service or one port of it, or of the service with this identifier
    #[arg(long, value_name = "[NAMESPACE/]NAME[:PORT]|ID")]
    pub(crate) service: Option<String>,
    /// From or to this Pod
    #[arg(long, value_name = "[NAMESPACE/]NAME")]
    pub(crate) pod: Option<String>,
    /// From or to this address, or one of this range, before or after translation
    #[arg(long, value_name = "IP|CIDR", value_parser = address)]
    pub(crate) address: Option<IpNet>,
    /// Of this protocol
    #[arg(long, value_name = "TCP|UDP|SCTP", value_parser = protocol)]
    pub(crate) protocol: Option<u8>,
}

/// Which node's tables, and in which format.
#[derive(Args, Clone, Debug)]
pub(crate) struct Listing {
    /// Ask this API server for the names of what the kernel holds
    #[arg(long, value_name = "FILE", env = "KUBECONFIG")]
    pub(crate) kubeconfig: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) bpffs: BpffsFlags,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// `fairlead status`
#[derive(Args, Clone, Debug)]
pub(crate) struct Status {
    #[command(flatten)]
    pub(crate) bpffs: BpffsFlags,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// `fairlead doctor`
#[derive(Args, Clone, Debug)]
pub(crate) struct Doctor {
    #[command(flatten)]
    pub(crate) bpffs: BpffsFlags,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// `fairlead explain`
#[derive(Args, Clone, Debug)]
pub(crate) struct Explain {
    /// Who connects: a Pod of this node, or an address
    #[arg(
        long,
        value_name = "[NAMESPACE/]POD|ADDRESS",
        required_unless_present = "from_node",
        conflicts_with = "from_node"
    )]
    pub(crate) from: Option<String>,
    /// This node itself connects, or a Pod with the node's network
    #[arg(long)]
    pub(crate) from_node: bool,
    /// Where to: a Service by its name and a port by number or name, or an address and port
    #[arg(long, value_name = "NAME[.NAMESPACE[.svc...]]:PORT|ADDRESS:PORT")]
    pub(crate) to: String,
    /// By which protocol
    #[arg(long, value_name = "TCP|UDP|SCTP", default_value = "TCP", value_parser = protocol)]
    pub(crate) protocol: u8,
    /// Ask this API server for names
    #[arg(long, value_name = "FILE", env = "KUBECONFIG")]
    pub(crate) kubeconfig: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) bpffs: BpffsFlags,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// `fairlead monitor`
#[derive(Args, Clone, Debug)]
pub(crate) struct Monitor {
    /// What is shown; everything unless given
    #[arg(
        long = "type",
        value_enum,
        value_delimiter = ',',
        value_name = "TYPE,.."
    )]
    pub(crate) kinds: Vec<EventKind>,
    /// What is dropped or refused, and nothing else: the same as `--type drop,refuse`
    #[arg(long, conflicts_with = "kinds")]
    pub(crate) drops: bool,
    #[command(flatten)]
    pub(crate) filter: TrafficFilter,
    /// Have the kernel tell of one event of so many, by chance
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = entries())]
    pub(crate) sample: u32,
    /// End after so many
    #[arg(long, value_name = "N", value_parser = entries())]
    pub(crate) count: Option<u32>,
    /// Ask this API server for names
    #[arg(long, value_name = "FILE", env = "KUBECONFIG")]
    pub(crate) kubeconfig: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) bpffs: BpffsFlags,
    /// Lines for people; `json`: a line each; `yaml`: a document each
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Format,
}

/// Kinds of events.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum EventKind {
    /// A flow begins, or a socket connects
    New,
    /// A packet is dropped, or a call fails since something is amiss
    Drop,
    /// A packet or call is answered with an error: nobody listens, or it is too big
    Refuse,
    /// An ICMP error about a packet of a flow is given to whoever sent that packet
    Error,
    /// The policies of a pod were asked, and let a conversation begin
    Policy,
}

/// In which format.
#[derive(Args, Clone, Debug)]
pub(crate) struct Output {
    /// Format of the output
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Format,
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::Cli;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn cleaning_up_asks_no_server() {
        let flags = |words: &[&str]| Cli::try_parse_from([&["fairlead", "proxy"], words].concat());
        assert!(flags(&["--cleanup"]).is_ok());
        assert!(flags(&["--kubeconfig", "here"]).is_ok());
        assert!(flags(&["--frontends-max", "0", "--kubeconfig", "here"]).is_err());
    }
}
