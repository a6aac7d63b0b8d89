//! Store, API server and controllers in this process: what `up` and `server` share.

use std::net::SocketAddr;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use client::{Client, Path};
use storage::Storage;
use storage_embedded::Embedded;
use storage_etcd::Etcd;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::cli::{AuditFlags, ServerFlags};
use crate::{memory, output};

/// A control plane that answers.
pub(crate) struct ControlPlane {
    /// Where it answers.
    pub(crate) url: String,
    /// Wired straight into the router, as the administrator.
    pub(crate) client: Client,
    /// The same as `system:kube-proxy`, which may do no more than a kube-proxy does, unless it is granted more.
    pub(crate) proxy: Client,
    /// The server and the controllers; each ends at the shutdown.
    pub(crate) tasks: JoinSet<anyhow::Result<()>>,
}

/// Starts everything, until /readyz is ok. `None`: the shutdown came first.
pub(crate) async fn start(
    flags: &ServerFlags,
    shutdown: &watch::Receiver<bool>,
) -> anyhow::Result<Option<ControlPlane>> {
    tokio::select! {
        biased;
        // Nothing was promised to anybody yet, and an etcd that does not answer may not do so for long.
        () = stopped(shutdown.clone()) => Ok(None),
        started = start_all(flags, shutdown) => started.map(Some),
    }
}

async fn start_all(
    flags: &ServerFlags,
    shutdown: &watch::Receiver<bool>,
) -> anyhow::Result<ControlPlane> {
    let listener = listen(SocketAddr::new(flags.bind_address, flags.secure_port)).await?;
    if let Some(folder) = flags.write_kubeconfig.as_deref().and_then(FilePath::parent) {
        std::fs::create_dir_all(folder).with_context(|| {
            format!("make {}, where --write-kubeconfig points", folder.display())
        })?;
    }
    let store = open_store(flags).await?;
    let identity = flags.identity.clone();
    let config = apiserver::Config {
        anonymous_auth: identity.anonymous_auth,
        token_auth_file: identity.token_auth_file,
        tls_cert_file: identity.tls_cert_file,
        tls_private_key_file: identity.tls_private_key_file,
        root_ca_file: identity.root_ca_file,
        client_ca_file: identity.client_ca_file,
        service_account_issuer: identity.service_account_issuer,
        service_account_key_files: identity.service_account_key_file,
        service_account_signing_key_file: identity.service_account_signing_key_file,
        api_audiences: identity.api_audiences,
        disable_admission_plugins: flags.disable_admission_plugins.clone(),
        audit: audit(&flags.audit),
        shutdown_delay: flags.shutdown_delay_duration,
        bind_address: flags.bind_address,
        port: flags.secure_port,
        service_cidrs: flags.service_cluster_ip_range.clone(),
        node_ports: flags.service_node_port_range.0..=flags.service_node_port_range.1,
        cluster_domain: flags.cluster_domain.clone(),
        advertise_address: flags.advertise_address,
        ..apiserver::Config::new(&flags.data_dir)
    };
    let app = apiserver::build(config, store)
        .await
        .context("start the API server")?;
    let url = app.url(listener.local_addr().context("address of the listener")?);
    // Before `ready` is said: who waits for that may read the file at once.
    if let Some(file) = &flags.write_kubeconfig {
        app.write_kubeconfig(file, &url)
            .context("--write-kubeconfig")?;
    }
    let client = Client::in_process(app.router(), app.admin_token());
    let proxy = Client::in_process(app.router(), app.proxy_token());
    let managing = Client::in_process(app.router(), app.manager_token());
    let mut tasks = JoinSet::new();
    let stop = stopped(shutdown.clone());
    tasks.spawn(async move { app.serve(listener, stop).await.context("serve the API") });
    wait_ready(&client, &mut tasks).await?;
    memory::release();
    let controllers = manager::run(managing, stopped(shutdown.clone()));
    tasks.spawn(async move {
        controllers.await;
        Ok(())
    });
    Ok(ControlPlane {
        url,
        client,
        proxy,
        tasks,
    })
}

/// Says `ready URL` on stdout.
pub(crate) fn say_ready(url: &str) -> anyhow::Result<()> {
    output::emit(&format!("ready {url}\n"))
}

/// What the flags have recorded.
fn audit(flags: &AuditFlags) -> apiserver::AuditConfig {
    let log = |path: &PathBuf| apiserver::LogConfig {
        path: path.clone(),
        max_size: flags.audit_log_maxsize,
        max_backup: flags.audit_log_maxbackup,
        max_age: flags.audit_log_maxage,
    };
    apiserver::AuditConfig {
        policy_file: flags.audit_policy_file.clone(),
        log: flags.audit_log_path.as_ref().map(log),
        webhook_file: flags.audit_webhook_config_file.clone(),
    }
}

/// The store that the flags name.
async fn open_store(flags: &ServerFlags) -> anyhow::Result<Arc<dyn Storage>> {
    let etcd = &flags.etcd;
    if etcd.etcd_servers.is_empty() {
        let store = Embedded::open(
            flags.data_dir.join("store"),
            storage_embedded::Options::default(),
        );
        let store = store.with_context(|| {
            format!("open the store in --data-dir {}", flags.data_dir.display())
        })?;
        return Ok(Arc::new(store));
    }
    let interval = etcd.etcd_compaction_interval;
    let options = storage_etcd::Options {
        ca_file: etcd.etcd_cafile.clone(),
        cert_file: etcd.etcd_certfile.clone(),
        key_file: etcd.etcd_keyfile.clone(),
        prefix: etcd.etcd_prefix.clone(),
        compaction: (interval > Duration::ZERO).then_some(interval),
        ..storage_etcd::Options::new(etcd.etcd_servers.clone())
    };
    let store = Etcd::connect(options, Arc::new(apiserver::KubernetesCodec)).await;
    let store = store.with_context(|| {
        format!(
            "use the etcd of --etcd-servers {}",
            etcd.etcd_servers.join(",")
        )
    })?;
    Ok(Arc::new(store))
}

/// Waits until every part has ended; the first failure is the whole's.
pub(crate) async fn finish(mut tasks: JoinSet<anyhow::Result<()>>) -> anyhow::Result<()> {
    while let Some(ended) = tasks.join_next().await {
        ended.context("a part of the process ended unexpectedly")??;
    }
    Ok(())
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("listen on {address}: choose another --bind-address or --secure-port")
    })
}

/// Resolves at the shutdown.
async fn stopped(mut shutdown: watch::Receiver<bool>) {
    // An error means that the sender is gone, which ends us as well.
    let _ = shutdown.wait_for(|stop| *stop).await;
}

/// Asks until /readyz is ok. The server's own end, with its reason, ends the waiting.
async fn wait_ready(
    client: &Client,
    tasks: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let readyz = Path::raw("/readyz");
    while client.get_raw(&readyz).await.is_err() {
        if let Some(ended) = tasks.try_join_next() {
            ended.context("the API server ended unexpectedly")??;
            anyhow::bail!("the API server ended before it was ready");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}
