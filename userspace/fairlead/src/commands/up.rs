//! `fairlead up`: control plane and proxy in one process, which also keeps this host's Node object.

use anyhow::Context as _;

use super::askers::Askers;
use super::{cluster_dns, control_plane, datapath, dns, node, rights};
use crate::cli::Up;
use crate::shutdown;

pub(crate) async fn run(flags: Up) -> anyhow::Result<()> {
    let stopping = shutdown::on_signal()?;
    // A host that cannot be programmed is told so before anything is stored or served.
    let settings = datapath::settings(&flags.datapath, false)?;
    let Some(mut control_plane) = control_plane::start(&flags.server, &stopping).await? else {
        return Ok(());
    };
    node::register(
        &control_plane.client,
        &settings.node_name,
        &settings.devices,
    )
    .await
    .context("register this node")?;
    rights::grant(&control_plane.client)
        .await
        .context("let the proxy see policies")?;
    if flags.no_cluster_dns {
        if let Err(error) = cluster_dns::withdraw(&control_plane.client).await {
            tracing::error!("the Service of an earlier run's DNS is still there: {error:#}");
        }
    } else {
        let addresses = node::own_addresses(&settings.devices).await?;
        let port = flags.cluster_dns_port;
        let askers = Askers::new(&flags.cluster_dns_clients, &settings.devices);
        let client = &control_plane.client;
        match cluster_dns::start(client, &flags.server, port, &addresses, &askers).await {
            Ok(server) => {
                let stopping = stopping.clone();
                let root = &settings.datapath.bpffs_root;
                let kernel = dns::node::start(&flags.node_dns, root, &server, addresses);
                let serving = dns::serve(server, kernel, stopping);
                control_plane.tasks.spawn(serving);
            }
            // A host without DNS is still a cluster.
            Err(error) => tracing::error!("the cluster has no DNS here: {error:#}"),
        }
    }
    let client = control_plane.proxy;
    let url = control_plane.url;
    let mut status = settings.status.subscribe();
    let mut stopped = stopping.clone();
    control_plane.tasks.spawn(async move {
        // Who waits for this line may create a Service and connect to it at once.
        tokio::select! {
            Ok(_) = status.wait_for(|status| status.ready) => control_plane::say_ready(&url),
            _ = stopped.wait_for(|stop| *stop) => Ok(()),
        }
    });
    control_plane.tasks.spawn(async move {
        datapath::run(client, settings, &flags.datapath, stopping)
            .await
            .context("run the proxy")
    });
    control_plane::finish(control_plane.tasks).await
}
