//! From flags to the proxy's settings.

use abi::balancing::Mode;
use anyhow::Context as _;
use net::Capability;

use crate::cli::{CniOverlay, DatapathFlags, HostRouting, LoadBalancing, NetworkPolicy, Xdp};
use crate::memory;

pub(crate) fn settings(flags: &DatapathFlags, once: bool) -> anyhow::Result<proxy::Settings> {
    let missing =
        net::missing_capabilities(&[Capability::NetAdmin, Capability::SysAdmin, Capability::Bpf]);
    if !missing.is_empty() {
        let names: Vec<&str> = missing.iter().map(|capability| capability.name()).collect();
        anyhow::bail!(
            "{} missing: programming the kernel needs root, or CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN; `fairlead server` serves the API without",
            names.join(", ")
        );
    }
    let node_name = flags.node_name.clone().unwrap_or_else(net::hostname);
    // As kubelet and kube-proxy: a Node's name has no capitals.
    let node_name = node_name.trim().to_lowercase();
    let cgroup_root = match &flags.cgroup_root {
        Some(root) => root.clone(),
        None => net::cgroup2_mount().context("find the cgroups to balance")?,
    };
    let sizes = &flags.capacities;
    let datapath = bpf::Settings {
        bpffs_root: flags.bpffs.bpffs_root.clone(),
        cgroup_root: Some(cgroup_root),
        capacities: bpf::Capacities {
            frontends: sizes.frontends_max,
            rings: sizes.rings_max,
            spreads: sizes.spreads_max,
            backends: sizes.backends_max,
            sources: sizes.ranges_max,
            affinity: sizes.affinity_max,
            flows: sizes.flows_max,
            reverse_sockets: sizes.sockets_max,
        },
        ..bpf::Settings::default()
    };
    bpf::Datapath::check(&datapath, &flags.devices)?;
    Ok(proxy::Settings {
        devices: flags.devices.clone(),
        xdp: match flags.xdp {
            Xdp::Auto => bpf::XdpMode::Auto,
            Xdp::Native => bpf::XdpMode::Native,
            Xdp::Generic => bpf::XdpMode::Generic,
            Xdp::Off => bpf::XdpMode::Off,
        },
        flow_limits: proxy::FlowLimits {
            service: flags.service_flows_max,
            namespace: flags.namespace_flows_max,
        },
        load_balancing: match flags.load_balancing_mode {
            LoadBalancing::Snat => Mode::Snat,
            LoadBalancing::Dsr => Mode::Dsr,
            LoadBalancing::Hybrid => Mode::Hybrid,
        },
        host_routing: match flags.host_routing {
            HostRouting::Auto => proxy::HostRouting::Auto,
            HostRouting::Bpf => proxy::HostRouting::Bpf,
            HostRouting::Kernel => proxy::HostRouting::Kernel,
        },
        node_port_addresses: flags.nodeport_addresses.clone(),
        host_ports: flags.host_ports,
        network_policy: flags.network_policy == NetworkPolicy::On,
        masquerade: flags.pod_network.cni && flags.pod_network.masquerade,
        datapath,
        tables_max: sizes.tables_max,
        reset_dead_backends: flags.reset_dead_backends,
        take_over_kube_proxy: flags.take_over_kube_proxy,
        metrics_bind_address: flags.metrics_bind_address,
        healthz_bind_address: flags.healthz_bind_address,
        once,
        ..proxy::Settings::new(&node_name)
    })
}

/// The proxy, and beside it what makes the pods' network, if that was asked for.
pub(crate) async fn run(
    client: client::Client,
    settings: proxy::Settings,
    flags: &DatapathFlags,
    stopping: tokio::sync::watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let network = proxy::pod_network::Settings {
        node_name: settings.node_name.clone(),
        overlay: match flags.pod_network.cni_overlay {
            CniOverlay::Auto => proxy::pod_network::Overlay::Auto,
            CniOverlay::Vxlan => proxy::pod_network::Overlay::Vxlan,
            CniOverlay::Off => proxy::pod_network::Overlay::Off,
        },
        conf_dir: flags.pod_network.cni_conf_dir.clone(),
        node_file: flags.pod_network.cni_node_file.clone(),
        bpffs_root: flags.bpffs.bpffs_root.clone(),
        host_ports: flags.host_ports,
        masquerade: flags.pod_network.masquerade,
        non_masquerade_cidrs: flags.pod_network.non_masquerade_cidrs.clone(),
    };
    let mut status = settings.status.subscribe();
    tokio::spawn(async move {
        if status.wait_for(|status| status.ready).await.is_ok() {
            memory::release();
        }
    });
    let status = settings.status.subscribe();
    let proxy = proxy::run(client.clone(), settings, stopping.clone());
    if !flags.pod_network.cni {
        return Ok(proxy.await?);
    }
    let network = proxy::pod_network::run(client, network, status, stopping);
    tokio::select! {
        // With --once, or where it cannot start, the proxy ends by itself.
        ended = proxy => Ok(ended?),
        ended = async { network.await?; std::future::pending().await } => ended,
    }
}
