//! A file for each command.

use std::path::Path;

use anyhow::Context as _;
use client::Client;

use crate::cli::{Command, List};

mod apply;
mod backup;
mod cluster_dns;
mod control_plane;
mod datapath;
mod dns;
mod history;
mod list;
mod names;
mod node;
mod proxy;
mod server;
mod status;
mod up;
mod version;

/// Carries out a command.
pub(crate) fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Up(flags) => runtime()?.block_on(up::run(flags)),
        Command::Server(flags) => runtime()?.block_on(server::run(flags)),
        Command::Proxy(flags) => runtime()?.block_on(proxy::run(flags)),
        Command::Dns(flags) => runtime()?.block_on(dns::run(flags)),
        Command::Apply(flags) => runtime()?.block_on(apply::run(&flags)),
        Command::History(flags) => runtime()?.block_on(history::history(&flags)),
        Command::Diff(flags) => runtime()?.block_on(history::diff(&flags)),
        Command::Backup(flags) => backup::backup(&flags),
        Command::Restore(flags) => backup::restore(&flags),
        Command::Service(List::List(listing)) => list::services(&listing),
        Command::Backend(List::List(listing)) => list::backends(&listing),
        Command::Flow(List::List(listing)) => list::flows(&listing),
        Command::Status(flags) => status::run(&flags),
        Command::Version(output) => version::run(&output),
    }
}

/// A client for the server of a kubeconfig.
fn connect(kubeconfig: &Path) -> anyhow::Result<Client> {
    Client::from_kubeconfig(kubeconfig).context(
        "--kubeconfig or KUBECONFIG names no usable file; `fairlead up --write-kubeconfig FILE` writes one",
    )
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start the runtime")
}
