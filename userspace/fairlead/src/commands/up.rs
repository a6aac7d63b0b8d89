//! `fairlead up`: control plane and proxy in one process, which also keeps this host's Node object.

use anyhow::Context as _;

use super::{control_plane, datapath, node};
use crate::cli::Up;
use crate::shutdown;

pub(crate) async fn run(flags: Up) -> anyhow::Result<()> {
    let stopping = shutdown::on_signal()?;
    // A host that cannot be programmed is told so before anything is stored or served.
    let settings = datapath::settings(&flags.datapath, false)?;
    let mut control_plane = control_plane::start(&flags.server, &stopping).await?;
    node::register(
        &control_plane.client,
        &settings.node_name,
        &settings.devices,
    )
    .await
    .context("register this node")?;
    let client = control_plane.proxy;
    control_plane.tasks.spawn(async move {
        proxy::run(client, settings, stopping)
            .await
            .context("run the proxy")
    });
    control_plane::finish(control_plane.tasks).await
}
