//! `fairlead server`

use super::control_plane;
use crate::cli::Server;
use crate::shutdown;

pub(crate) async fn run(flags: Server) -> anyhow::Result<()> {
    let stopping = shutdown::on_signal()?;
    let Some(control_plane) = control_plane::start(&flags.server, &stopping).await? else {
        return Ok(());
    };
    control_plane::say_ready(&control_plane.url)?;
    control_plane::finish(control_plane.tasks).await
}
