//! A file for each command.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use client::Client;

use crate::cli::{Command, List, ListFlows};

mod apply;
pub(crate) mod askers;
mod backup;
mod cluster;
mod cluster_dns;
mod control_plane;
mod datapath;
mod dns;
mod doctor;
mod explain;
mod filter;
mod flows;
mod history;
mod list;
mod monitor;
mod node;
mod policy;
mod proxy;
mod rights;
mod server;
mod status;
mod up;
mod version;

/// Carries out a command; says with which status the process ends.
pub(crate) fn run(command: Command) -> anyhow::Result<ExitCode> {
    let done = match command {
        Command::Up(flags) => runtime()?.block_on(up::run(flags)),
        Command::Server(flags) => runtime()?.block_on(server::run(flags)),
        Command::Proxy(flags) => runtime()?.block_on(proxy::run(flags)),
        // With flags that mean nothing to it; without any, the process never comes here.
        Command::Cni => match cni::run(cni::Plugin::Fairlead) {
            code if code == std::process::ExitCode::SUCCESS => Ok(()),
            _ => std::process::exit(1),
        },
        Command::Dns(flags) => runtime()?.block_on(dns::run(flags)),
        Command::Apply(flags) => runtime()?.block_on(apply::run(&flags)),
        Command::History(flags) => runtime()?.block_on(history::history(&flags)),
        Command::Diff(flags) => runtime()?.block_on(history::diff(&flags)),
        Command::Backup(flags) => backup::backup(&flags),
        Command::Restore(flags) => backup::restore(&flags),
        Command::Service(List::List(listing)) => list::services(&listing),
        Command::Backend(List::List(listing)) => list::backends(&listing),
        Command::Flow(ListFlows::List(listing)) => flows::run(&listing),
        Command::Policy(List::List(listing)) => policy::list(&listing),
        Command::Status(flags) => status::run(&flags),
        Command::Doctor(flags) => {
            return Ok(if doctor::run(&flags)? {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            });
        }
        Command::Explain(flags) => explain::run(&flags),
        Command::Monitor(flags) => runtime()?.block_on(monitor::run(flags)),
        Command::Version(output) => version::run(&output),
    };
    done.map(|()| ExitCode::SUCCESS)
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
