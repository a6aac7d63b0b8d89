//! `fairlead dns`: a DNS server with CoreDNS's configuration, and `fairlead dns query`, which asks it.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use client::Client;
use dns_server::cluster::Clusters;
use dns_server::instance::{Environment, MayAsk};
use dns_server::kernel::Kernel;
use dns_server::plugin::table::PLUGINS;
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
    if flags.plugins {
        return output::emit(&plugins());
    }
    let stopping = shutdown::on_signal_in_peace()?;
    let client = match &flags.kubeconfig {
        Some(file) => Some(connect(file)?),
        None => None,
    };
    let here = PathBuf::from("Corefile");
    let conf = flags.conf.or_else(|| here.is_file().then_some(here));
    let server = open(client, conf, flags.port, None)?;
    let kernel = node::start(&flags.node, &flags.bpffs.bpffs_root, &server, Vec::new());
    let pidfile = flags.pidfile.map(Pidfile::write).transpose()?;
    if !flags.quiet {
        for (listen, local) in server.local_addresses() {
            output::emit(&format!("listening {}://{local}\n", listen.scheme.text()))?;
        }
    }
    serve(server, kernel, stopping).await?;
    drop(pidfile);
    Ok(())
}

/// What `-plugins` shows, as CoreDNS's users look for it: `dns.forward` and such, a line each.
fn plugins() -> String {
    let mut names: Vec<&str> = PLUGINS.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    let names = names.iter().map(|name| format!("  dns.{name}\n"));
    format!(
        "Server types:\n  dns\n\nOther plugins:\n{}",
        names.collect::<String>()
    )
}

/// The file with the process's number; removed when this is dropped.
struct Pidfile(PathBuf);

impl Pidfile {
    fn write(path: PathBuf) -> anyhow::Result<Self> {
        std::fs::write(&path, format!("{}\n", std::process::id()))
            .with_context(|| format!("write the pidfile {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Pidfile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::warn!(%error, file = %self.0.display(), "the pidfile stays");
        }
    }
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
    // Would end the process otherwise; with CoreDNS too it serves on.
    let mut others = signal(SignalKind::user_defined2()).context("listen for SIGUSR2")?;
    let by_hand = Arc::clone(&reloader);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = hangups.recv() => {}
                _ = users.recv() => {}
                _ = others.recv() => continue,
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
