//! `fairlead proxy`

use anyhow::Context as _;

use super::{connect, datapath};
use crate::cli::Proxy;
use crate::memory;
use crate::shutdown;

pub(crate) async fn run(flags: Proxy) -> anyhow::Result<()> {
    memory::release_at_once();
    if flags.cleanup {
        let bpffs_root = &flags.datapath.bpffs.bpffs_root;
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
