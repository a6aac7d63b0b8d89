//! A configuration in service: listeners, and for each of them the blocks by zone.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::net::IpAddr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::Name;
use hickory_proto::rr::RecordType;

use crate::corefile;
use crate::corefile::ConfigError;
use crate::corefile::Corefile;
use crate::corefile::Directive;
use crate::corefile::Key;
use crate::corefile::Scheme;
use crate::corefile::Server;
use crate::http::Servers;
use crate::message::Outcome;
use crate::message::Request;
use crate::message::reply;
use crate::metrics::Registry;
use crate::names;
use crate::plugin::Chain;
use crate::plugin::Next;
use crate::plugin::Plugin;
use crate::plugin::setup::Draft;
use crate::plugin::setup::Filter;
use crate::plugin::setup::Setup;
use crate::plugin::setup::Timeouts;
use crate::plugin::setup::Whole;
use crate::plugin::setup::matching;
use crate::plugin::table;

/// The family of queries that got no answer so that others get theirs.
pub const SHED: &str = "coredns_shed_dropped_total";
/// The reason where there are [`QUERIES_MAX`].
pub const SHED_QUERIES: &str = "queries";
/// Its help.
pub const SHED_HELP: &str =
    "Counter of queries and answers dropped to keep work and memory bounded, by reason.";

/// Queries on their way down the chains at a time: each holds memory until it is answered, and one that waits for
/// an upstream waits for seconds. What comes beyond this is dropped; clients ask again.
pub const QUERIES_MAX: usize = 20_000;

/// Octets of queries on their way down the chains: most are of a hundred octets, but one may be of 64 kB, and takes a
/// multiple of that once it is read.
pub const QUERY_OCTETS_MAX: usize = 4 << 20;

/// Octets that connections of clients may hold together while they wait: what has not arrived in full, and answers that
/// nobody has read.
pub const STREAM_OCTETS_MAX: usize = 32 << 20;

/// What lives as long as the process and is shared by its configurations.
pub struct Environment {
    /// All metrics.
    pub metrics: Registry,
    /// The HTTP servers of `health`, `ready` and `prometheus`.
    pub http: Servers,
    /// Clusters that are followed.
    pub clusters: crate::cluster::Clusters,
    /// The port of plain DNS where a key gives none (`--dns.port`).
    pub port: u16,
    /// What is had of zones that are transferred from others.
    pub(crate) secondaries: Arc<crate::plugin::secondary::Kept>,
    /// Queries on their way down the chains now.
    pub queries: AtomicUsize,
    /// A permit for each octet of a query that may be on its way down the chains: see [`QUERY_OCTETS_MAX`].
    pub query_octets: Arc<tokio::sync::Semaphore>,
    /// A permit for each octet that connections may hold: see [`STREAM_OCTETS_MAX`].
    pub stream_octets: Arc<tokio::sync::Semaphore>,
    /// Set when the process is about to end: `ready` and `health` say so.
    pub ending: AtomicBool,
    /// The node's own resolver: what it appends to names, pods append after the cluster's suffixes.
    pub resolv_conf: PathBuf,
    /// Reads a variable for `{$NAME}`.
    pub variable: fn(&str) -> Option<String>,
    /// `log` writes its lines: not where the answer alone is wanted.
    pub logs_queries: bool,
    /// Who may ask: everybody where nothing is said. Others are refused before their query is looked at.
    pub may_ask: Option<MayAsk>,
}

/// Whether a client is served, by its address. Called on the threads that answer: it must be quick.
pub type MayAsk = Box<dyn Fn(IpAddr) -> bool + Send + Sync>;

impl Environment {
    /// The environment of a process.
    #[must_use]
    pub fn new(port: u16) -> Self {
        Self {
            metrics: Registry::default(),
            http: Servers::default(),
            clusters: crate::cluster::Clusters::default(),
            port,
            secondaries: Arc::default(),
            queries: AtomicUsize::new(0),
            query_octets: Arc::new(tokio::sync::Semaphore::new(QUERY_OCTETS_MAX)),
            stream_octets: Arc::new(tokio::sync::Semaphore::new(STREAM_OCTETS_MAX)),
            ending: AtomicBool::new(false),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            variable: |name| std::env::var(name).ok(),
            logs_queries: true,
            may_ask: None,
        }
    }
}

/// A socket that queries come in by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Listen {
    /// What is spoken there.
    pub scheme: Scheme,
    /// The address; the unspecified IPv6 address means all addresses of both families.
    pub address: SocketAddr,
}

/// A configuration, ready to answer.
pub struct Instance {
    groups: HashMap<Listen, Group>,
    environment: Arc<Environment>,
    whole: Whole,
    chains: Vec<Chain>,
    /// Turns true when its sockets are open.
    listening: Arc<tokio::sync::watch::Sender<bool>>,
    /// Labels of `coredns_plugin_enabled`.
    enabled: Vec<[String; 4]>,
    /// [`Corefile::digest`] of what it was made of.
    digest: String,
}

/// The blocks behind one listener.
#[derive(Default)]
struct Group {
    /// By wire name of the zone; blocks of one zone differ in their views.
    zones: HashMap<Vec<u8>, Vec<Arc<Block>>>,
    tls: Option<Arc<rustls::ServerConfig>>,
    timeouts: Timeouts,
}

/// A server block in service.
pub struct Block {
    /// Its name in metrics.
    pub server: Arc<str>,
    /// Its view's name, or nothing.
    pub view: Arc<str>,
    filter: Option<Filter>,
    /// Zones whose requests are described before views look at them.
    metadata: Vec<Name>,
    /// Its plugins.
    pub chain: Chain,
}

impl Instance {
    /// Makes a configuration out of a Corefile's text. Nothing is started.
    ///
    /// # Errors
    ///
    /// When the text or a file that it names is wrong.
    pub fn build(
        environment: &Arc<Environment>,
        file: &Path,
        text: &str,
    ) -> Result<Self, ConfigError> {
        let corefile = corefile::read(file, text, &environment.variable)?;
        let folder = file.parent().unwrap_or(Path::new(""));
        let mut builder = Builder {
            environment,
            folder,
            enabled: Vec::new(),
            instance: Self {
                groups: HashMap::new(),
                environment: Arc::clone(environment),
                whole: Whole::default(),
                chains: Vec::new(),
                listening: Arc::default(),
                enabled: Vec::new(),
                digest: corefile.digest(),
            },
        };
        builder.file(file, &corefile)?;
        builder.instance.enabled = builder.enabled;
        Ok(builder.instance)
    }

    /// Binds what its HTTP servers need and is not open; nothing changes yet. Call it inside the runtime.
    ///
    /// # Errors
    ///
    /// When an address cannot be listened on.
    pub fn bind_http(&self) -> Result<crate::http::Bound, (SocketAddr, std::io::Error)> {
        self.environment.http.bind(&self.whole.routes)
    }

    /// Puts the configuration into service: HTTP servers answer for it, plugins start their tasks. Call it inside
    /// the runtime.
    ///
    /// # Errors
    ///
    /// When an address of an HTTP server cannot be listened on; the configuration before is still in service.
    pub fn start(&self, http: crate::http::Bound) -> Result<(), (SocketAddr, std::io::Error)> {
        self.environment.http.follow(http)?;
        let family = self.environment.metrics.family(
            "coredns_plugin_enabled",
            "A metric that indicates whether a plugin is enabled on per server and zone basis.",
            crate::metrics::Kind::Gauge,
            &["server", "zone", "view", "name"],
        );
        // What the configuration before had switched on may be gone.
        family.clear();
        for labels in &self.enabled {
            family.with(&labels.each_ref().map(String::as_str)).set(1.0);
        }
        self.start_plugins();
        Ok(())
    }

    /// Has plugins start their tasks, without the HTTP servers. Call it inside the runtime.
    pub fn start_plugins(&self) {
        for plugin in self.chains.iter().flat_map(|chain| chain.iter()) {
            plugin.start();
        }
    }

    /// Says that queries can come in: plugins that send themselves some wait for it.
    pub fn listening(&self) {
        self.listening.send_replace(true);
    }

    /// Tells whoever listens to plugins that nothing more comes; see [`Plugin::end`].
    pub async fn end(&self) {
        let plugins = self.chains.iter().flat_map(|chain| chain.iter());
        futures_util::future::join_all(plugins.map(|plugin| plugin.end())).await;
    }

    /// Ends when every plugin can answer; see [`Plugin::until_ready`].
    pub async fn until_ready(&self) {
        let plugins = self.chains.iter().flat_map(|chain| chain.iter());
        futures_util::future::join_all(plugins.map(|plugin| plugin.until_ready())).await;
    }

    /// How long to go on answering after the end was asked for.
    #[must_use]
    pub fn lameduck(&self) -> Duration {
        self.whole.lameduck
    }

    /// How often the Corefile is to be looked at, if at all.
    #[must_use]
    pub fn reload(&self) -> Option<crate::reload::Interval> {
        self.whole.reload
    }

    /// The digest of the Corefile that it was made of: see [`Corefile::digest`].
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The process's environment.
    #[must_use]
    pub fn environment(&self) -> &Arc<Environment> {
        &self.environment
    }

    /// Where to listen.
    pub fn listens(&self) -> BTreeSet<Listen> {
        self.groups.keys().cloned().collect()
    }

    /// The certificates of a listener.
    #[must_use]
    pub fn tls(&self, listen: &Listen) -> Option<Arc<rustls::ServerConfig>> {
        self.groups.get(listen)?.tls.clone()
    }

    /// The time limits of a listener's connections.
    #[must_use]
    pub fn timeouts(&self, listen: &Listen) -> Timeouts {
        self.groups
            .get(listen)
            .map_or_else(Timeouts::default, |group| group.timeouts)
    }

    /// The zones of a listener in wire form, with the blocks of each.
    pub fn blocks(&self, listen: &Listen) -> impl Iterator<Item = (&[u8], &[Arc<Block>])> {
        let groups = self.groups.get(listen).into_iter();
        groups.flat_map(|group| {
            group
                .zones
                .iter()
                .map(|(zone, blocks)| (&**zone, &**blocks))
        })
    }

    /// Every chain, each once.
    #[must_use]
    pub fn chains(&self) -> &[Chain] {
        &self.chains
    }

    /// The plugins of all chains that cannot answer yet.
    #[must_use]
    pub fn unready(&self) -> Vec<&'static str> {
        let plugins = self.chains.iter().flat_map(|chain| chain.iter());
        let unready: BTreeSet<&'static str> = plugins
            .filter(|plugin| !plugin.ready())
            .map(|plugin| plugin.name())
            .collect();
        unready.into_iter().collect()
    }

    /// The block that serves a request: of those whose view lets it in, the one with the longest zone. A question
    /// for DS goes to the parent's side of a zone cut where that is served too (RFC 4035, 3.1.4.1); the root is not:
    /// what stands there forwards whatever nobody knows, and the internet's root denies names of clusters.
    #[must_use]
    pub fn block(&self, listen: &Listen, request: &mut Request) -> Option<(&Arc<Block>, Name)> {
        let group = self.groups.get(listen)?;
        let octets = names::wire(request.name());
        let mut child = None;
        for (index, suffix) in names::suffixes(&octets).enumerate() {
            let Some(blocks) = group.zones.get(suffix) else {
                continue;
            };
            let Some(block) = blocks.iter().find(|block| block.lets_in(request)) else {
                continue;
            };
            let labels = names::labels(request.name()).saturating_sub(index);
            if labels == 0 && child.is_some() {
                break;
            }
            let found = (block, request.name().trim_to(labels).to_lowercase());
            if index == 0 && request.kind() == RecordType::DS && labels > 0 {
                child = Some(found);
                continue;
            }
            return Some(found);
        }
        child
    }

    /// Answers a request that came in by a listener, unless too many others are being answered.
    pub async fn serve(self: &Arc<Self>, listen: &Listen, request: &mut Request) -> Outcome {
        let Some(_place) = Place::take(&self.environment.queries) else {
            let shed = self.environment.metrics.family(
                SHED,
                SHED_HELP,
                crate::metrics::Kind::Counter,
                &["reason"],
            );
            shed.with(&[SHED_QUERIES]).increment();
            return Outcome::Silence(SHED_QUERIES);
        };
        self.serve_within(listen, request).await
    }

    async fn serve_within(self: &Arc<Self>, listen: &Listen, request: &mut Request) -> Outcome {
        let Some((block, zone)) = self.block(listen, request) else {
            return Outcome::answer("server", request.reply(ResponseCode::Refused));
        };
        request.zone = zone;
        request.server = Arc::clone(&block.server);
        request.view = Arc::clone(&block.view);
        request.instance = Some(Arc::clone(self));
        request.listen = Some(listen.clone());
        match Next::first(&block.chain).serve(request).await {
            Ok(outcome) => outcome,
            Err(failure) => Outcome::answer(failure.plugin, reply(&request.message, failure.code)),
        }
    }

    /// Answers a question that a plugin has, as if a client had asked it.
    pub fn ask<'a>(
        self: &'a Arc<Self>,
        request: &'a mut Request,
    ) -> futures_util::future::BoxFuture<'a, Outcome> {
        Box::pin(async move {
            match request.listen.clone() {
                // Within the place of the query that needs it.
                Some(listen) => self.serve_within(&listen, request).await,
                None => Outcome::answer("server", request.reply(ResponseCode::Refused)),
            }
        })
    }
}

/// A query's place among those being answered.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(queries: &'a AtomicUsize) -> Option<Self> {
        let place = Self(queries);
        (queries.fetch_add(1, Ordering::Relaxed) < QUERIES_MAX).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Block {
    /// Describes the request where that is wanted, and asks the view.
    fn lets_in(&self, request: &mut Request) -> bool {
        if matching(&self.metadata, request.name()).is_some() {
            request.described = true;
            for plugin in self.chain.iter() {
                plugin.describe(request);
            }
            if !self.view.is_empty() {
                let view = self.view.to_string();
                request.metadata.insert("view/name", view);
            }
        }
        self.filter.as_ref().is_none_or(|lets| lets(request))
    }

    /// Whether a view chooses its queries.
    #[must_use]
    pub fn has_filter(&self) -> bool {
        self.filter.is_some()
    }
}

struct Builder<'a> {
    environment: &'a Arc<Environment>,
    folder: &'a Path,
    enabled: Vec<[String; 4]>,
    instance: Instance,
}

/// A block's name in metrics: the address stands in it where `bind` names one.
pub(crate) fn label(scheme: Scheme, address: IpAddr, port: u16) -> Arc<str> {
    let scheme = scheme.text();
    Arc::from(match address {
        address if address.is_unspecified() => format!("{scheme}://:{port}"),
        address => format!("{scheme}://{}", SocketAddr::new(address, port)),
    })
}

/// The series of `coredns_plugin_enabled` of a block: its plugins that queries go through.
fn enabled(server: &Server, name: &str, zone: &Name, view: &str) -> Vec<[String; 4]> {
    let lines = server.directives.iter().map(|line| &*line.name.text);
    let handlers = lines.filter(|plugin| !table::SETTINGS.contains(plugin));
    let zone = zone.to_string();
    handlers
        .map(|plugin| [name, &zone, view, plugin].map(str::to_owned))
        .collect()
}

impl Builder<'_> {
    fn file(&mut self, file: &Path, corefile: &Corefile) -> Result<(), ConfigError> {
        if corefile.servers.is_empty() {
            return Err(ConfigError {
                file: Arc::from(file.display().to_string()),
                line: 1,
                what: "the file holds no server block".to_owned(),
                remedy: "write one, as in `. { forward . /etc/resolv.conf }` with each brace ending its line".to_owned(),
            });
        }
        for server in &corefile.servers {
            self.server(server)?;
        }
        Ok(())
    }

    fn server(&mut self, server: &Server) -> Result<(), ConfigError> {
        let mut keys: Vec<Key> = Vec::new();
        for word in &server.keys {
            keys.extend(corefile::key::keys(word, self.environment.port)?);
        }
        let Some(word) = server.keys.first() else {
            return Ok(());
        };
        let mut zones: Vec<Name> = Vec::new();
        for key in &keys {
            if !zones.contains(&key.zone) {
                zones.push(key.zone.clone());
            }
        }
        let any = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let mut draft = Draft {
            listening: Arc::clone(&self.instance.listening),
            ..Draft::default()
        };
        let chain = self.chain(server, &keys, &zones, &mut draft)?;
        let _ = draft.chain.set(Arc::downgrade(&chain));
        let (view, filter) = match draft.view.take() {
            Some((view, filter)) => (Arc::from(view), Some(filter)),
            None => (Arc::from(""), None),
        };
        let addresses = if draft.bind.is_empty() {
            vec![any]
        } else {
            draft.bind.clone()
        };
        for key in &keys {
            for &address in &addresses {
                let name = label(key.scheme, address, key.port);
                self.enabled
                    .extend(enabled(server, &name, &key.zone, &view));
                let block = Arc::new(Block {
                    server: name,
                    view: Arc::clone(&view),
                    filter: filter.clone(),
                    metadata: draft.metadata.clone(),
                    chain: Arc::clone(&chain),
                });
                let listen = Listen {
                    scheme: key.scheme,
                    address: SocketAddr::new(address, key.port),
                };
                if key.scheme != Scheme::Dns && draft.tls.is_none() {
                    let scheme = key.scheme.text();
                    tracing::warn!(server = %block.server, "{scheme}:// without a certificate is served in clear, for who has taken the TLS off; else add a line `tls CERT KEY`");
                }
                let group = self.instance.groups.entry(listen).or_default();
                group.tls = draft.tls.clone().or(group.tls.take());
                group.timeouts = draft.timeouts;
                let blocks = group.zones.entry(names::wire(&key.zone)).or_default();
                if blocks.iter().any(|other| other.filter.is_none()) && block.filter.is_none() {
                    return Err(word.error(
                        format!("the zone {} is served twice on port {}", key.zone, key.port),
                        "join the two blocks, give them different ports or addresses (bind), or a view each",
                    ));
                }
                // Blocks with a view are asked first.
                let index = match block.filter {
                    Some(_) => blocks
                        .iter()
                        .take_while(|other| other.filter.is_some())
                        .count(),
                    None => blocks.len(),
                };
                blocks.insert(index, Arc::clone(&block));
            }
        }
        self.instance.chains.push(chain);
        Ok(())
    }

    fn chain(
        &mut self,
        server: &Server,
        keys: &[Key],
        zones: &[Name],
        draft: &mut Draft,
    ) -> Result<Chain, ConfigError> {
        let mut by_name: HashMap<&str, Vec<&Directive>> = HashMap::new();
        for line in &server.directives {
            let known = table::PLUGINS
                .iter()
                .any(|(name, _)| *name == line.name.text);
            if !known {
                return Err(line.error(
                    format!("unknown plugin {:?}", line.name.text),
                    format!("known are {}", table::known()),
                ));
            }
            by_name.entry(&line.name.text).or_default().push(line);
        }
        let mut plugins: Vec<Arc<dyn Plugin>> = Vec::new();
        for (plugin, make) in table::PLUGINS {
            let Some(lines) = by_name.get(plugin) else {
                continue;
            };
            // `bind` stands before the plugins that count.
            let address = draft.bind.first().copied();
            let address = address.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
            let server = keys.first().map_or_else(
                || Arc::from(""),
                |first| label(first.scheme, address, first.port),
            );
            let mut setup = Setup {
                environment: self.environment,
                keys,
                zones,
                server: &server,
                folder: self.folder,
                draft,
                whole: &mut self.instance.whole,
                lines,
            };
            plugins.extend(make(&mut setup)?);
        }
        Ok(Arc::from(plugins))
    }
}
