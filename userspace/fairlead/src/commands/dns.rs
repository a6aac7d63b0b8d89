//! `fairlead dns`: a DNS server with CoreDNS's configuration, and `fairlead dns query`, which asks it.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use client::Client;
use dns_server::cluster::Clusters;
use dns_server::instance::{Environment, MayAsk};
use dns_server::kernel::Kernel;
use dns_server::reload::Reloader;
use dns_server::transport::Server;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::connect;
use crate::cli::Dns;
use crate::output;
use crate::shutdown;

pub(crate) mod node;
mod query;

pub(crate) async fn run(flags: Dns) -> anyhow::Result<()> {
    if let Some(crate::cli::DnsCommand::Query(flags)) = &flags.command {
        return query::run(flags).await;
    }
    let stopping = shutdown::on_signal()?;
    let client = match &flags.kubeconfig {
        Some(file) => Some(connect(file)?),
        None => None,
    };
    let here = PathBuf::from("Corefile");
    let conf = flags.conf.or_else(|| here.is_file().then_some(here));
    let server = open(client, conf, flags.port, None)?;
    let kernel = node::start(&flags.node, &flags.bpffs.bpffs_root, &server, Vec::new());
    for (listen, local) in server.local_addresses() {
        output::emit(&format!("listening {}://{local}\n", listen.scheme.text()))?;
    }
    serve(server, kernel, stopping).await
}

/// Reads the Corefile, opens its sockets, and follows changes of it; `may_ask` says who is answered, if not everybody.
/// Call it inside the runtime.
pub(crate) fn open(
    client: Option<Client>,
    corefile: Option<PathBuf>,
    port: u16,
    may_ask: Option<MayAsk>,
) -> anyhow::Result<Server> {
    let mut environment = Environment::new(port);
    environment.may_ask = may_ask;
    environment.clusters = Clusters::new(client);
    let reloader =
        Reloader::start(Arc::new(environment), corefile).context("start the DNS server")?;
    tokio::spawn(Arc::clone(&reloader).watch());
    let mut hangups = signal(SignalKind::hangup()).context("listen for SIGHUP")?;
    let mut users = signal(SignalKind::user_defined1()).context("listen for SIGUSR1")?;
    let by_hand = Arc::clone(&reloader);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = hangups.recv() => {}
                _ = users.recv() => {}
            }
            let reloader = Arc::clone(&by_hand);
            // What came of it is logged; a wrong file changes nothing.
            let _ = tokio::task::spawn_blocking(move || reloader.reload()).await;
        }
    });
    Server::open(reloader).context("open the sockets of the DNS server")
}

/// Serves until the process stops; what the kernel does in its stead ends first.
pub(crate) async fn serve(
    server: Server,
    kernel: Option<Arc<Kernel>>,
    mut stopping: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let serving = server.run(stopping.clone());
    if let Some(kernel) = kernel {
        tokio::spawn(async move {
            let _ = stopping.wait_for(|stop| *stop).await;
            kernel.end();
        });
    }
    serving.await;
    Ok(())
}
