//! The HTTP face of the storage: the Kubernetes API.
//!
//! [`build`] makes an [`App`] of a [`Config`] and a store. [`App::serve`] answers over TLS, [`App::router`] within the
//! process; both ask for the same credentials. What a resource is and which rules hold for it is in the table of the
//! `api` crate; what is durable is the storage's affair. This crate knows of no controller and runs none.
#![forbid(unsafe_code)]

mod access;
mod admit;
mod aggregation;
mod allocate;
mod audit;
mod auth;
mod body;
mod bootstrap;
mod carried;
mod codec;
mod compress;
mod cursor;
mod defaults;
mod definitions;
mod describe;
mod dial;
mod documents;
mod error;
mod events;
mod flows;
mod former;
mod handlers;
mod health;
mod hooks;
mod json;
mod kubeconfig;
mod managers;
mod masters;
mod metrics;
mod mirror;
mod namespaces;
mod negotiate;
mod nodes;
mod object;
mod options;
mod pki;
mod query;
mod registry;
mod request;
mod respond;
mod roles;
mod rotate;
mod router;
mod serve;
mod serving;
mod upkeep;
mod write;

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU16;
use std::time::Duration;

use ipnet::IpNet;
use storage::Storage;
use tokio::net::TcpListener;

pub use audit::{AuditConfig, LogConfig};
pub use codec::KubernetesCodec;
pub use describe::kubernetes_version;
pub use error::Error;

use admit::Admission;
use allocate::Allocator;
use auth::accounts::Accounts;
use auth::keys::Keys;
use auth::tokens::Tokens;
use authorization::User;
use metrics::{Measured, Metrics};
use mirror::Mirror;
use pki::{Names, Pki};

/// How long the start waits for the definitions of custom resources.
const DEFINITIONS_PATIENCE: Duration = Duration::from_secs(5);

/// What a server needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Certificates go to `pki/` below it, tokens to `tokens.csv`. Made where it is missing.
    pub data_dir: PathBuf,
    /// Where the listener that is given to [`App::serve`] listens; it becomes a name in the serving certificate.
    pub bind_address: IpAddr,
    /// TCP port; zero where the listener's own is to be used.
    pub port: u16,
    /// Under which address pods and other hosts reach the server. `None`: the bind address, or where that is
    /// unspecified the address that the default route leaves from.
    pub advertise_address: Option<IpAddr>,
    /// More names and addresses for the serving certificate.
    pub extra_names: Vec<String>,
    /// Ranges that Services get their addresses from: one, or one of each family. The first is the family of Services
    /// that do not ask for another.
    pub service_cidrs: Vec<IpNet>,
    /// Ports that Services get on every node.
    pub node_ports: RangeInclusive<u16>,
    /// For instance `cluster.local`.
    pub cluster_domain: String,
    /// Where [`App::serve`] writes a kubeconfig (mode 0600), if anywhere.
    pub kubeconfig: Option<PathBuf>,
    /// Whether those without credentials are asked who they are by their rights alone, or are refused.
    pub anonymous_auth: bool,
    /// A file of static tokens beside the server's own: `token,user,uid,"group1,group2"` a line.
    pub token_auth_file: Option<PathBuf>,
    /// The certificate that clients see, PEM, with those that lead to its authority behind it; the server's own unless
    /// given.
    pub tls_cert_file: Option<PathBuf>,
    /// The key of that certificate, PEM.
    pub tls_private_key_file: Option<PathBuf>,
    /// Authorities of which clients have to trust one, PEM, for kubeconfigs and `kube-root-ca.crt`: the one that signed
    /// the certificate that they see, unless given.
    pub root_ca_file: Option<PathBuf>,
    /// Authorities beside the server's own whose client certificates are accepted, PEM.
    pub client_ca_file: Option<PathBuf>,
    /// Who signs tokens of service accounts, as their `iss` says. Empty: `https://kubernetes.default.svc.` and the
    /// cluster's domain.
    pub service_account_issuer: String,
    /// Keys whose signatures on such tokens are accepted, beside those in `pki/`.
    pub service_account_key_files: Vec<PathBuf>,
    /// The key that signs them; `pki/sa.key`, made where it is missing, unless given.
    pub service_account_signing_key_file: Option<PathBuf>,
    /// What the server calls itself in tokens; the issuer unless given.
    pub api_audiences: Vec<String>,
    /// How long requests are still answered after the server was asked to end, while `/readyz` fails so that nobody
    /// sends it more.
    pub shutdown_delay: Duration,
    /// Admission plugins that are not to run, by name.
    pub disable_admission_plugins: Vec<String>,
    /// Which requests are recorded, and where.
    pub audit: AuditConfig,
}

impl Config {
    /// The defaults of Kubernetes, on all addresses, port 6443.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Config {
            data_dir: data_dir.into(),
            bind_address: Ipv4Addr::UNSPECIFIED.into(),
            port: 6443,
            advertise_address: None,
            extra_names: Vec::new(),
            service_cidrs: vec![IpNet::new_assert(Ipv4Addr::new(10, 96, 0, 0).into(), 12)],
            node_ports: 30000..=32767,
            cluster_domain: "cluster.local".into(),
            kubeconfig: None,
            anonymous_auth: true,
            token_auth_file: None,
            tls_cert_file: None,
            tls_private_key_file: None,
            root_ca_file: None,
            client_ca_file: None,
            service_account_issuer: String::new(),
            service_account_key_files: Vec::new(),
            service_account_signing_key_file: None,
            api_audiences: Vec::new(),
            shutdown_delay: Duration::ZERO,
            disable_admission_plugins: Vec::new(),
            audit: AuditConfig::default(),
        }
    }

    fn issuer(&self) -> String {
        if self.service_account_issuer.is_empty() {
            format!("https://kubernetes.default.svc.{}", self.cluster_domain)
        } else {
            self.service_account_issuer.clone()
        }
    }

    /// Where clients reach the server.
    fn advertised(&self) -> IpAddr {
        if let Some(address) = self.advertise_address {
            return address;
        }
        if !self.bind_address.is_unspecified() {
            return self.bind_address;
        }
        outbound_address(self.bind_address.is_ipv4()).unwrap_or_else(|| {
            if self.bind_address.is_ipv4() {
                Ipv4Addr::LOCALHOST.into()
            } else {
                Ipv6Addr::LOCALHOST.into()
            }
        })
    }

    fn check(&self) -> Result<(), Error> {
        let families: Vec<bool> = self
            .service_cidrs
            .iter()
            .map(|cidr| cidr.addr().is_ipv4())
            .collect();
        if !matches!(families.as_slice(), [_] | [true, false] | [false, true]) {
            let shown: Vec<String> = self.service_cidrs.iter().map(IpNet::to_string).collect();
            return Err(Error::Config(format!(
                "service ranges [{}]: give one, or one IPv4 and one IPv6",
                shown.join(", ")
            )));
        }
        if let Some(cidr) = self
            .service_cidrs
            .iter()
            .find(|cidr| cidr.max_prefix_len() - cidr.prefix_len() < 3)
        {
            return Err(Error::Config(format!(
                "service range {cidr} is too small: give one of at least 8 addresses"
            )));
        }
        if self.node_ports.is_empty() || *self.node_ports.start() == 0 {
            let (first, last) = (self.node_ports.start(), self.node_ports.end());
            return Err(Error::Config(format!(
                "node ports {first}-{last}: give a range such as 30000-32767"
            )));
        }
        Ok(())
    }
}

/// The address that packets to elsewhere leave from. Connecting a UDP socket sends nothing.
fn outbound_address(ipv4: bool) -> Option<IpAddr> {
    let (local, remote): (SocketAddr, SocketAddr) = if ipv4 {
        (
            (Ipv4Addr::UNSPECIFIED, 0).into(),
            (Ipv4Addr::new(192, 0, 2, 1), 9).into(),
        )
    } else {
        (
            (Ipv6Addr::UNSPECIFIED, 0).into(),
            (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 9).into(),
        )
    };
    let socket = UdpSocket::bind(local).ok()?;
    socket.connect(remote).ok()?;
    socket
        .local_addr()
        .ok()
        .map(|address| address.ip())
        .filter(|address| !address.is_unspecified())
}

/// A server that is ready to answer. Cheap to clone.
#[derive(Clone)]
pub struct App(Arc<State>);

/// What all requests share.
pub(crate) struct State {
    pub(crate) config: Config,
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) pki: Pki,
    /// PEM; clients have to trust one of them.
    pub(crate) authorities: String,
    pub(crate) tokens: Tokens,
    pub(crate) accounts: Accounts,
    /// Who asks without credentials.
    pub(crate) anonymous: Arc<User>,
    pub(crate) mirror: Mirror,
    pub(crate) admission: Admission,
    pub(crate) metrics: Arc<Metrics>,
    /// `None` where nothing is recorded.
    pub(crate) audit: Option<Arc<audit::Audit>>,
    pub(crate) flows: flows::Flows,
    /// What watchers share.
    pub(crate) events: events::Events,
    pub(crate) allocator: Allocator,
    /// Becomes true when the server is to end; watches end then.
    pub(crate) closing: tokio::sync::watch::Sender<bool>,
    /// Becomes true when the server was asked to end: it goes on for [`Config::shutdown_delay`], and is not ready.
    pub(crate) stopping: tokio::sync::watch::Sender<bool>,
    /// The port that clients reach the server at.
    pub(crate) port: AtomicU16,
    pub(crate) namespaces: &'static api::table::Resource,
    pub(crate) registry: Arc<registry::Registry>,
    pub(crate) documents: documents::Documents,
    pub(crate) aggregator: aggregation::Aggregator,
}

/// Reads or makes certificates and tokens, learns which addresses and ports are taken, and puts what every cluster
/// begins with into the store.
///
/// # Errors
/// A configuration that makes no sense, files in the data directory that cannot be read, written or understood, a
/// store that does not answer.
pub async fn build(config: Config, storage: Arc<dyn Storage>) -> Result<App, Error> {
    config.check()?;
    let admission = Admission::new(&config.disable_admission_plugins)?;
    let audit = audit::Audit::new(&config.audit)?;
    let names = names(&config);
    let pki_dir = config.data_dir.join("pki");
    let pki = Pki::load_or_make(&pki_dir, &names)?;
    let authorities = serving::authorities(&config, &pki)?;
    let tokens = Tokens::load_or_make(
        &config.data_dir.join("tokens.csv"),
        config.token_auth_file.as_deref(),
    )?;
    let keys = Keys::load_or_make(
        &pki_dir,
        config.service_account_signing_key_file.as_deref(),
        &config.service_account_key_files,
    )?;
    let accounts = Accounts::new(keys, config.issuer(), &config.api_audiences);
    let metrics = Arc::<Metrics>::default();
    let storage: Arc<dyn Storage> = Arc::new(Measured {
        store: storage,
        metrics: metrics.clone(),
    });
    let mirror = Mirror::start(&storage)
        .await
        .map_err(|source| Error::Storage {
            doing: "reading what requests are decided by",
            source,
        })?;
    let allocator = Allocator::load(
        storage.clone(),
        &config.service_cidrs,
        config.node_ports.clone(),
    )
    .await?;
    let namespaces = api::table::find("", "v1", "namespaces")
        .ok_or_else(|| Error::Config("the resource table has no namespaces".into()))?;
    let state = State {
        aggregator: aggregation::Aggregator::new(&pki),
        port: AtomicU16::new(config.port),
        config,
        storage,
        pki,
        authorities,
        tokens,
        accounts,
        anonymous: Arc::new(User::anonymous()),
        mirror,
        admission,
        metrics,
        audit,
        flows: flows::Flows::default(),
        events: events::Events::default(),
        allocator,
        closing: tokio::sync::watch::Sender::new(false),
        stopping: tokio::sync::watch::Sender::new(false),
        namespaces,
        registry: Arc::default(),
        documents: documents::Documents::default(),
    };
    // It ends with the state: nothing in it keeps the state alive.
    tokio::spawn(definitions::follow(
        state.storage.clone(),
        state.registry.clone(),
        state.closing.subscribe(),
    ));
    // Nobody is told that a custom resource is unknown that is only not yet read. What is missing after that time
    // /readyz says.
    let _ = tokio::time::timeout(DEFINITIONS_PATIENCE, state.registry.until_read()).await;
    let app = App(Arc::new(state));
    bootstrap::namespaces_and_service(&app.0).await?;
    roles::reconcile(&app.0).await?;
    defaults::make(&app.0).await?;
    allocate::begin(&app.0)
        .await
        .map_err(|source| Error::Storage {
            doing: "reading the ranges of Service addresses",
            source,
        })?;
    Ok(app)
}

impl App {
    /// Answers within the process, without a socket. Requests carry a bearer token like any other.
    pub fn router(&self) -> axum::Router {
        router::router(self.0.clone())
    }

    /// Answers over TLS (HTTP/1.1 and HTTP/2) until `shutdown` resolves; watches end then, and requests under way get
    /// some seconds to finish.
    ///
    /// # Errors
    /// Certificates that rustls refuses, a listener without an address, a kubeconfig that cannot be written, a store
    /// that does not answer.
    pub async fn serve(
        &self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), Error> {
        let tls = tokio::sync::watch::Sender::new(rotate::load(&self.0)?);
        let current = tls.subscribe();
        let local = listener.local_addr().map_err(|source| Error::Listener {
            doing: "asking the listener for its address",
            source,
        })?;
        self.0
            .port
            .store(local.port(), std::sync::atomic::Ordering::Relaxed);
        masters::point(&self.0, local.port()).await?;
        if let Some(path) = &self.0.config.kubeconfig {
            self.write_kubeconfig(path, &self.url(local))?;
        }
        // Both end with this function.
        let mut upkeep = tokio::task::JoinSet::new();
        upkeep.spawn(allocate::keep(self.0.clone()));
        upkeep.spawn(allocate::follow(self.0.clone()));
        upkeep.spawn(upkeep::forget(self.0.storage.clone()));
        upkeep.spawn(upkeep::keep_service(self.0.clone(), local.port()));
        upkeep.spawn(masters::keep(self.0.clone(), local.port()));
        upkeep.spawn(roles::aggregate(self.0.clone()));
        upkeep.spawn(aggregation::follow(self.0.clone()));
        upkeep.spawn(aggregation::announce(self.0.clone()));
        upkeep.spawn(aggregation::register(self.0.clone()));
        upkeep.spawn(admit::keep_counts(self.0.clone()));
        upkeep.spawn(namespaces::furnish(self.0.clone()));
        upkeep.spawn(hooks::typing::keep(self.0.clone()));
        upkeep.spawn(rotate::follow(self.0.clone(), tls));
        serve::serve(listener, current, self.0.clone(), async {
            shutdown.await;
            self.0.stopping.send_replace(true);
            masters::leave(&self.0).await;
            tokio::time::sleep(self.0.config.shutdown_delay).await;
        })
        .await;
        if let Some(audit) = &self.0.audit {
            audit.flush().await;
        }
        Ok(())
    }

    /// Ends the watches that are being served; [`App::serve`] does so at its shutdown.
    pub fn close(&self) {
        self.0.closing.send_replace(true);
    }

    /// How a client on this host reaches a listener at `local`.
    pub fn url(&self, local: SocketAddr) -> String {
        let address = match local.ip() {
            IpAddr::V4(v4) if v4.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(v6) if v6.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            address => address,
        };
        format!("https://{}", SocketAddr::new(address, local.port()))
    }

    /// A kubeconfig that speaks to `server_url` as the administrator, by client certificate.
    pub fn kubeconfig(&self, server_url: &str) -> String {
        kubeconfig::render(&self.0.pki, &self.0.authorities, server_url)
    }

    /// Writes the kubeconfig with mode 0600.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_kubeconfig(&self, path: &Path, server_url: &str) -> Result<(), Error> {
        pki::write_private(path, self.kubeconfig(server_url).as_bytes())
    }

    /// The bearer token of the administrator, from the tokens file.
    pub fn admin_token(&self) -> &str {
        self.0.tokens.admin()
    }

    /// The bearer token of the controllers in this process, `system:kube-controller-manager`. It ends with the process.
    pub fn manager_token(&self) -> &str {
        self.0.tokens.manager()
    }

    /// The bearer token of the proxy in this process, `system:kube-proxy`. It ends with the process.
    pub fn proxy_token(&self) -> &str {
        self.0.tokens.proxy()
    }

    /// The certificates, PEM, of which one is of the authority that signed the server's.
    pub fn ca_certificate(&self) -> &str {
        &self.0.authorities
    }
}

/// Everything that clients may call the server.
fn names(config: &Config) -> Names {
    let mut names = Names::default();
    let short = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "localhost",
    ];
    names.dns.extend(short.map(str::to_owned));
    names
        .dns
        .insert(format!("kubernetes.default.svc.{}", config.cluster_domain));
    if let Ok(host) = std::fs::read_to_string("/proc/sys/kernel/hostname") {
        let host = host.trim().to_ascii_lowercase();
        if api::names::is_subdomain(&host) {
            names.dns.insert(host);
        }
    }
    names.addresses.extend([
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
        config.advertised(),
    ]);
    if !config.bind_address.is_unspecified() {
        names.addresses.insert(config.bind_address);
    }
    names.addresses.extend(
        config
            .service_cidrs
            .iter()
            .map(|cidr| allocate::first_address(*cidr)),
    );
    for name in &config.extra_names {
        match name.parse() {
            Ok(address) => names.addresses.insert(address),
            Err(_) => names.dns.insert(name.clone()),
        };
    }
    names
}
