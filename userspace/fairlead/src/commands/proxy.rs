//! `fairlead proxy`

use std::path::Path;

use anyhow::Context as _;

use super::{connect, datapath};
use crate::cli::Proxy;
use crate::memory;
use crate::shutdown;

pub(crate) async fn run(flags: Proxy) -> anyhow::Result<()> {
    memory::release_at_once();
    if flags.cleanup {
        let bpffs_root = &flags.datapath.bpffs.bpffs_root;
        hand_back(bpffs_root);
        bpf::Datapath::uninstall(bpffs_root)?;
        let network = &flags.datapath.pod_network;
        proxy::pod_network::remove(&network.cni_conf_dir, &network.cni_node_file)?;
        net::release_bpffs(bpffs_root).context("unmount the bpffs")?;
        net::release_translations().context("release what kube-proxy translated")?;
        return Ok(());
    }
    let stopping = shutdown::on_signal()?;
    let kubeconfig = flags.kubeconfig.context("--kubeconfig is missing")?;
    let client = connect(&kubeconfig)?;
    let settings = datapath::settings(&flags.datapath, flags.once)?;
    datapath::run(client, settings, &flags.datapath, stopping).await
}

/// Lets connections live on where kube-proxy follows; where that cannot be had, they end with the programs.
fn hand_back(bpffs_root: &Path) {
    match proxy::hand_back(bpffs_root) {
        Ok([0, 0]) => {}
        Ok([connections, 0]) => {
            tracing::info!(connections, "gave connections to kube-proxy's rules");
        }
        Ok([connections, refused]) => tracing::warn!(
            connections,
            refused,
            "gave connections to kube-proxy's rules; connection tracking refused some, which end"
        ),
        Err(error) => tracing::warn!(
            error = &error as &dyn std::error::Error,
            "connections end: they cannot be given to kube-proxy's rules"
        ),
    }
}
