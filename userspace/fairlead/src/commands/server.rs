//! `fairlead server`

use super::control_plane;
use crate::cli::Server;
use crate::shutdown;

pub(crate) async fn run(flags: Server) -> anyhow::Result<()> {
    let stopping = shutdown::on_signal()?;
    match control_plane::start(&flags.server, &stopping).await? {
        Some(control_plane) => control_plane::finish(control_plane.tasks).await,
        None => Ok(()),
    }
}
