//! One upstream server: asking it, and knowing whether it lives.

use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use futures_util::future::BoxFuture;
use hickory_proto::op::Message;
use hickory_proto::op::MessageType;
use hickory_proto::op::Query;
use hickory_proto::rr::Name;
use hickory_proto::rr::RecordType;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;

use super::connection;
use super::connection::Pool;
use super::doh::Doh;
use crate::message::Transport;
use crate::metrics::Family;
use crate::metrics::Kind;
use crate::metrics::Registry;
use crate::metrics::SECONDS;
use crate::plugin::prometheus::code_label;

/// What an upstream speaks.
#[derive(Clone)]
pub(crate) enum Protocol {
    Plain,
    Tls(Arc<ClientConfig>, ServerName<'static>),
    Https(Arc<ClientConfig>, ServerName<'static>, String),
}

/// How a plain upstream is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum How {
    Datagram,
    Stream,
}

/// What holds for all upstreams of a line.
#[derive(Clone)]
pub(crate) struct Options {
    /// How DNS over HTTPS is asked.
    pub(super) doh_method: super::doh::Method,
    /// An idle connection is closed after this.
    pub(super) expire: Duration,
    /// Any connection is closed after this.
    pub(super) max_age: Option<Duration>,
    /// How long an answer may take.
    pub(super) read_timeout: Duration,
    /// Idle connections kept.
    pub(super) idle_max: usize,
    /// Failed probes until the upstream counts as down; 0 means never.
    pub(super) max_fails: u32,
    pub(super) probe_every: Duration,
    pub(super) probe_recursion: bool,
    pub(super) probe_name: Name,
    /// Random case of letters, which the answer must repeat (draft-vixie-dnsext-dns0x20).
    pub(super) random_case: bool,
    pub(super) source: Option<IpAddr>,
}

/// Why a question got no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExchangeError {
    #[error("i/o timeout")]
    Timeout,
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("cannot read the answer: {0}")]
    Decode(String),
    #[error("cannot write the query: {0}")]
    Encode(String),
    #[error("the answer belongs to another question")]
    Stranger,
    #[error("HTTP: {0}")]
    Http(String),
    /// The connection from the pool was closed by the other side; a fresh one may do.
    #[error("the connection was closed")]
    Closed,
}

/// The families of `coredns_proxy_*`.
#[derive(Clone)]
pub(crate) struct Meters {
    seconds: Arc<Family>,
    failures: Arc<Family>,
    pub(super) hits: Arc<Family>,
    pub(super) misses: Arc<Family>,
}

impl Meters {
    pub(crate) fn new(registry: &Registry) -> Self {
        Self {
            seconds: registry.family(
                "coredns_proxy_request_duration_seconds",
                "Histogram of the time each request took.",
                Kind::Histogram(SECONDS),
                &["proxy_name", "to", "rcode"],
            ),
            failures: registry.family(
                "coredns_proxy_healthcheck_failures_total",
                "Counter of the number of failed healthchecks.",
                Kind::Counter,
                &["proxy_name", "to"],
            ),
            hits: registry.family(
                "coredns_proxy_conn_cache_hits_total",
                "Counter of connection cache hits per upstream and protocol.",
                Kind::Counter,
                &["proxy_name", "to", "proto"],
            ),
            misses: registry.family(
                "coredns_proxy_conn_cache_misses_total",
                "Counter of connection cache misses per upstream and protocol.",
                Kind::Counter,
                &["proxy_name", "to", "proto"],
            ),
        }
    }
}

/// An upstream.
pub(crate) struct Upstream {
    address: SocketAddr,
    text: Arc<str>,
    protocol: Protocol,
    options: Options,
    meters: Meters,
    pool: Pool,
    doh: Doh,
    fails: AtomicU32,
    probing: AtomicBool,
}

impl Upstream {
    pub(crate) fn new(
        protocol: Protocol,
        address: SocketAddr,
        options: Options,
        meters: Meters,
    ) -> Self {
        let text = match &protocol {
            Protocol::Plain | Protocol::Tls(..) => address.to_string(),
            Protocol::Https(_, _, uri) => uri.clone(),
        };
        Self {
            address,
            text: text.into(),
            protocol,
            pool: Pool::new(&options),
            options,
            meters,
            doh: Doh::default(),
            fails: AtomicU32::new(0),
            probing: AtomicBool::new(false),
        }
    }

    /// Its address, or its URI: the label `to` of metrics.
    pub(crate) fn name(&self) -> &Arc<str> {
        &self.text
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What carries a question to it.
    pub(super) fn transport(&self, how: How) -> Transport {
        match (&self.protocol, how) {
            (Protocol::Plain, How::Datagram) => Transport::Udp,
            (Protocol::Plain, How::Stream) => Transport::Tcp,
            (Protocol::Tls(..), _) => Transport::Tls,
            (Protocol::Https(..), _) => Transport::Https,
        }
    }

    /// The text of a failure, in the words that Go has for those of sockets: rules of `errors` look for them.
    pub(super) fn failed(&self, how: How, error: &ExchangeError) -> String {
        match error {
            ExchangeError::Timeout | ExchangeError::Io(_) => {
                let network = self.transport(how).proto();
                format!("read {network} {}: {error}", self.text)
            }
            _ => format!("{}: {error}", self.text),
        }
    }

    /// True after more failed probes than allowed.
    pub(crate) fn down(&self) -> bool {
        let most = self.options.max_fails;
        most > 0 && self.fails.load(Ordering::Relaxed) >= most
    }

    /// Asks, and checks that the answer is the question's.
    pub(crate) async fn exchange(
        &self,
        query: &Message,
        how: How,
    ) -> Result<Message, ExchangeError> {
        let began = Instant::now();
        let mut query = query.clone();
        if self.options.random_case {
            for question in &mut query.queries {
                question.name = random_case(&question.name);
            }
        }
        let answer = match self.attempt(&query, how).await {
            // What lay in the pool may all have been closed while it lay there.
            Err(ExchangeError::Closed) => {
                self.pool.clear();
                self.attempt(&query, how).await
            }
            answer => answer,
        }?;
        self.meters
            .seconds
            .with(&[
                "forward",
                &self.text,
                code_label(answer.metadata.response_code),
            ])
            .observe(began.elapsed().as_secs_f64());
        Ok(answer)
    }

    async fn attempt(&self, query: &Message, how: How) -> Result<Message, ExchangeError> {
        let mut query = query.clone();
        query.metadata.id = connection::random_id();
        // Each in a box of its own: a question that waits takes the room of the way that it went, not of the longest.
        let asking: BoxFuture<'_, _> = match (&self.protocol, how) {
            (Protocol::Plain, How::Datagram) => Box::pin(self.by_datagram(&query)),
            (Protocol::Plain, How::Stream) => Box::pin(self.by_stream(&query, "tcp", None)),
            (Protocol::Tls(config, name), _) => {
                Box::pin(self.by_stream(&query, "tcp-tls", Some((config, name))))
            }
            (Protocol::Https(config, name, uri), _) => {
                Box::pin(self.by_https(query.clone(), (config, name), uri))
            }
        };
        tokio::time::timeout(self.options.read_timeout, asking)
            .await
            .unwrap_or(Err(ExchangeError::Timeout))
    }

    /// Each datagram has a socket of its own, so that its port cannot be guessed.
    async fn by_datagram(&self, query: &Message) -> Result<Message, ExchangeError> {
        let labels = ["forward", &*self.text, "udp"];
        self.meters.misses.with(&labels).increment();
        let size = usize::from(query.max_payload()).max(4096);
        let (octets, belongs) = (written(query)?, |answer: &Message| {
            self.belongs(query, answer)
        });
        connection::datagram(self.address, self.options.source, &octets, size, &belongs).await
    }

    async fn by_stream(
        &self,
        query: &Message,
        proto: &str,
        tls: Option<(&Arc<ClientConfig>, &ServerName<'static>)>,
    ) -> Result<Message, ExchangeError> {
        let octets = written(query)?;
        let belongs = |answer: &Message| self.belongs(query, answer);
        let (connection, fresh) = self.connection(proto, tls).await?;
        self.pool.ask(connection, fresh, &octets, &belongs).await
    }

    async fn by_https(
        &self,
        mut query: Message,
        (config, name): (&Arc<ClientConfig>, &ServerName<'static>),
        uri: &str,
    ) -> Result<Message, ExchangeError> {
        // The identifier is zero so that caches on the way see equal questions (RFC 8484, 4.1).
        query.metadata.id = 0;
        let octets = written(&query)?;
        let tls = (Arc::clone(config), name.clone());
        let (source, method) = (self.options.source, self.options.doh_method);
        let asked = self.doh.ask(self.address, source, tls, uri, method, octets);
        let answer = asked.await?;
        match self.belongs(&query, &answer) {
            true => Ok(answer),
            false => Err(ExchangeError::Stranger),
        }
    }

    async fn connection(
        &self,
        proto: &str,
        tls: Option<(&Arc<ClientConfig>, &ServerName<'static>)>,
    ) -> Result<(connection::Connection, bool), ExchangeError> {
        let labels = ["forward", &*self.text, proto];
        if let Some(connection) = self.pool.take() {
            self.meters.hits.with(&labels).increment();
            return Ok((connection, false));
        }
        self.meters.misses.with(&labels).increment();
        let connection = connection::connect(self.address, self.options.source, tls).await?;
        Ok((connection, true))
    }

    /// An answer is believed only if it carries the identifier and the question of what was asked, so that neither
    /// a late answer nor a forged one is taken (RFC 5452, 9.1).
    fn belongs(&self, query: &Message, answer: &Message) -> bool {
        let same = match (query.queries.as_slice(), answer.queries.as_slice()) {
            ([asked], [told]) => {
                let name = match self.options.random_case {
                    true => asked.name().eq_case(told.name()),
                    false => asked.name() == told.name(),
                };
                name && asked.query_type() == told.query_type()
                    && asked.query_class() == told.query_class()
            }
            // Errors may come without the question.
            (_, []) => answer.answers.is_empty(),
            _ => false,
        };
        same && answer.metadata.id == query.metadata.id
            && answer.metadata.message_type == MessageType::Response
            && answer.metadata.op_code == query.metadata.op_code
    }

    /// Begins to probe an upstream that failed, unless that is going on already. The probes end when it answers or
    /// is no longer used.
    pub(crate) fn probe(upstream: &Arc<Self>) {
        if upstream.options.max_fails == 0 || upstream.probing.swap(true, Ordering::Relaxed) {
            return;
        }
        let weak = Arc::downgrade(upstream);
        tokio::spawn(async move {
            loop {
                let Some(upstream) = weak.upgrade() else {
                    return;
                };
                if upstream.probe_once().await {
                    upstream.fails.store(0, Ordering::Relaxed);
                    upstream.probing.store(false, Ordering::Relaxed);
                    return;
                }
                upstream.fails.fetch_add(1, Ordering::Relaxed);
                upstream
                    .meters
                    .failures
                    .with(&["forward", &upstream.text])
                    .increment();
                let every = upstream.options.probe_every;
                drop(upstream);
                tokio::time::sleep(every).await;
            }
        });
    }

    /// Any answer is a sign of life, whatever its code.
    async fn probe_once(&self) -> bool {
        let mut query = Message::query();
        query.metadata.recursion_desired = self.options.probe_recursion;
        query.add_query(Query::query(
            self.options.probe_name.clone(),
            RecordType::NS,
        ));
        let probe = self.attempt(&query, How::Datagram);
        matches!(
            tokio::time::timeout(Duration::from_secs(1), probe).await,
            Ok(Ok(_))
        )
    }
}

fn written(query: &Message) -> Result<Vec<u8>, ExchangeError> {
    let octets = query.to_vec();
    octets.map_err(|error| ExchangeError::Encode(error.to_string()))
}

/// The name with each letter in a case drawn at random.
fn random_case(name: &Name) -> Name {
    let mut bits = connection::random_bits();
    let labels: Vec<Vec<u8>> = name
        .iter()
        .map(|label| {
            let flip = label.iter().map(|octet| {
                let upper = bits.next().unwrap_or_default();
                if upper {
                    octet.to_ascii_uppercase()
                } else {
                    octet.to_ascii_lowercase()
                }
            });
            flip.collect()
        })
        .collect();
    let labels: Vec<&[u8]> = labels.iter().map(Vec::as_slice).collect();
    let mut cased = Name::from_labels(labels).unwrap_or_else(|_| name.clone());
    cased.set_fqdn(true);
    cased
}

/// Octets of the future of a question by datagram, and of what is around it.
#[cfg(test)]
pub(super) fn size_of_attempt() -> [usize; 2] {
    fn size<F>(_: impl Fn(&'static Upstream, &'static Message) -> F) -> usize {
        size_of::<F>()
    }
    [
        size(|upstream, query| upstream.by_datagram(query)),
        size(|upstream, query| upstream.exchange(query, How::Datagram)),
    ]
}
