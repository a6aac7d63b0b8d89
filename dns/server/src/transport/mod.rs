//! Sockets of clients: UDP in batches on a thread for each core, TCP, DNS over TLS, DNS over HTTPS.
//!
//! A query about the cluster is answered where it was read ([`crate::fast`]); the others go down a chain on the
//! runtime, as many at a time as [`SLOW_MAX`]. What is more is shed, and counted.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use arc_swap::ArcSwap;
use bytes::Bytes;
use hickory_proto::op::Message;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use zone::Query;

use crate::corefile::Scheme;
use crate::fast::{Arrival, Table};
use crate::instance::{Instance, Listen};
use crate::message::{Outcome, Request, Transport};
use crate::metrics::{Family, Kind};
use crate::plugin::tsig::Verified;
use crate::reload::Reloader;

mod cookie;
mod encode;
mod https;
mod stream;
mod udp;

use cookie::Cookies;

/// Queries of one listener that are on their way down a chain at a time.
const SLOW_MAX: usize = 4096;

/// Why sockets are not open.
#[derive(Debug, thiserror::Error)]
#[error(
    "listen on {scheme}://{address}: free the address, or choose another with --dns.port or `bind`"
)]
pub struct ListenError {
    scheme: &'static str,
    address: SocketAddr,
    #[source]
    source: std::io::Error,
}

/// What the sockets of one address share.
pub(crate) struct Shared {
    listen: Listen,
    current: Arc<ArcSwap<Instance>>,
    fast: ArcSwap<Table>,
    stop: AtomicBool,
    slow: Arc<Semaphore>,
    sheds: Arc<Family>,
    cookies: Cookies,
    turn: AtomicUsize,
    runtime: tokio::runtime::Handle,
}

/// An open address. Dropping it closes its sockets.
struct Listener {
    shared: Arc<Shared>,
    threads: Vec<std::thread::JoinHandle<()>>,
    tasks: Vec<JoinHandle<()>>,
    /// What was bound, which tells the port where 0 was asked for.
    local: SocketAddr,
}

/// The sockets of a process, which follow its configuration.
pub struct Server {
    reloader: Arc<Reloader>,
    listeners: BTreeMap<Listen, Listener>,
    addresses: Arc<ArcSwap<Vec<(Listen, SocketAddr)>>>,
}

impl Server {
    /// Opens the sockets of the configuration in service. Call it inside the runtime.
    ///
    /// # Errors
    /// When an address cannot be listened on.
    pub fn open(reloader: Arc<Reloader>) -> Result<Self, ListenError> {
        let mut server = Server {
            reloader,
            listeners: BTreeMap::new(),
            addresses: Arc::default(),
        };
        server.apply()?;
        Ok(server)
    }

    /// Where plain DNS is listened on in truth.
    #[must_use]
    pub fn local_addresses(&self) -> Vec<(Listen, SocketAddr)> {
        let listeners = self.listeners.iter();
        listeners
            .map(|(listen, open)| (listen.clone(), open.local))
            .collect()
    }

    /// As [`Server::local_addresses`], at each instant.
    #[must_use]
    pub fn addresses(&self) -> Arc<ArcSwap<Vec<(Listen, SocketAddr)>>> {
        Arc::clone(&self.addresses)
    }

    /// The configuration that it follows.
    #[must_use]
    pub fn reloader(&self) -> &Arc<Reloader> {
        &self.reloader
    }

    /// Follows the configuration until `stopping` turns true; sockets that stay wanted are never closed.
    pub async fn run(mut self, mut stopping: watch::Receiver<bool>) {
        let mut changes = self.reloader.changes();
        loop {
            tokio::select! {
                changed = changes.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    if let Err(error) = self.apply() {
                        let cause = std::error::Error::source(&error).map(ToString::to_string);
                        tracing::error!(%error, cause, "a new address is not served");
                    }
                }
                _ = stopping.wait_for(|stop| *stop) => break,
            }
        }
        let lameduck = {
            let current = self.reloader.current().load();
            let environment = current.environment();
            environment.ending.store(true, Ordering::Relaxed);
            *environment
                .lameduck
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
        };
        tokio::time::sleep(lameduck).await;
        let closing = tokio::task::spawn_blocking(move || drop(self));
        let _ = closing.await;
    }

    /// Opens what is newly wanted, closes what no longer is, and shows every listener the new configuration.
    fn apply(&mut self) -> Result<(), ListenError> {
        let instance = self.reloader.current().load_full();
        let wanted = instance.listens();
        let mut failed = Ok(());
        for listen in &wanted {
            if let Some(open) = self.listeners.get(listen) {
                open.shared
                    .fast
                    .store(Arc::new(Table::new(&instance, listen)));
                continue;
            }
            match Listener::open(listen, &instance, self.reloader.current()) {
                Ok(open) => {
                    self.listeners.insert(listen.clone(), open);
                }
                Err(source) => {
                    failed = Err(ListenError {
                        scheme: listen.scheme.text(),
                        address: listen.address,
                        source,
                    });
                }
            }
        }
        self.listeners.retain(|listen, _| wanted.contains(listen));
        self.addresses.store(Arc::new(self.local_addresses()));
        instance.listening();
        failed
    }
}

impl Listener {
    fn open(
        listen: &Listen,
        instance: &Instance,
        current: &Arc<ArcSwap<Instance>>,
    ) -> std::io::Result<Self> {
        let metrics = &instance.environment().metrics;
        let shared = Arc::new(Shared {
            listen: listen.clone(),
            current: Arc::clone(current),
            fast: ArcSwap::from_pointee(Table::new(instance, listen)),
            stop: AtomicBool::new(false),
            slow: Arc::new(Semaphore::new(SLOW_MAX)),
            sheds: metrics.family(
                "coredns_shed_dropped_total",
                "Counter of the number of queries that were dropped, by reason.",
                Kind::Counter,
                &["reason"],
            ),
            cookies: Cookies::new()?,
            turn: AtomicUsize::new(fastrand::usize(..)),
            runtime: tokio::runtime::Handle::current(),
        });
        for reason in ["too_many", "cut_off", "stranger"] {
            shared.sheds.with(&[reason]).add(0);
        }
        let mut listener = Listener {
            shared: Arc::clone(&shared),
            threads: Vec::new(),
            tasks: Vec::new(),
            local: listen.address,
        };
        match listen.scheme {
            Scheme::Dns => {
                let cores = std::thread::available_parallelism().map_or(1, usize::from);
                listener.threads = udp::open(&shared, cores, &mut listener.local)?;
                listener
                    .tasks
                    .push(stream::open(&shared, listener.local, None)?);
            }
            Scheme::Tls | Scheme::Https => {
                let tls = instance.tls(listen);
                let open = match listen.scheme {
                    Scheme::Https => https::open,
                    Scheme::Tls | Scheme::Dns => stream::open,
                };
                listener.tasks.push(open(&shared, listen.address, tls)?);
            }
        }
        Ok(listener)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for task in &self.tasks {
            task.abort();
        }
        for thread in self.threads.drain(..) {
            // A thread looks at `stop` several times a second; it does not panic.
            let _ = thread.join();
        }
    }
}

/// What a query's octets come to where they were read.
enum Turn {
    /// That many octets of the buffer are the answer.
    Answered(usize),
    /// Down the chain.
    Slow,
    /// Nothing is sent.
    Silence,
}

impl Shared {
    /// Answers what can be answered at once.
    fn quick(&self, octets: &[u8], at: &Arrived, table: &Table, buffer: &mut [u8]) -> Turn {
        let query = Query::parse(octets);
        if !self.lets_in(at.peer.ip()) {
            self.shed("stranger");
            return query.map_or(Turn::Silence, |query| encode::refused(&query, buffer));
        }
        let query = match query {
            Ok(query) => query,
            Err(odd) => return encode::odd(odd, octets, buffer),
        };
        let cookie = query.edns.and_then(|edns| edns.cookie);
        let cookie = cookie.map(|cookie| self.cookies.answer(&cookie, at.peer.ip()));
        let arrival = Arrival {
            transport: at.transport,
            v6: at.peer.is_ipv6(),
            at: at.when,
            octets: octets.len(),
            cookie: cookie.as_ref().map(<[u8; 24]>::as_slice),
            turn: self.turn.fetch_add(1, Ordering::Relaxed),
        };
        match table.answer(&query, &arrival, buffer) {
            Some(length) => Turn::Answered(length),
            None => Turn::Slow,
        }
    }

    /// Sends a query down its chain; gives the messages of the answer, each as octets.
    async fn slow(&self, octets: Bytes, at: &Arrived) -> Vec<Vec<u8>> {
        let Ok(message) = Message::from_vec(&octets) else {
            return encode::malformed(&octets).into_iter().collect();
        };
        let cookie = match Query::parse(&octets) {
            Ok(Query { edns, .. }) => edns.and_then(|edns| edns.cookie),
            Err(_) => None,
        };
        let cookie = cookie.map(|cookie| self.cookies.answer(&cookie, at.peer.ip()));
        let asked = message.clone();
        let mut request = Request::new(message, octets, at.peer, at.local, at.transport);
        request.arrived = at.when;
        let instance = self.current.load_full();
        let frame = encode::Frame {
            asked: &asked,
            transport: at.transport,
            cookie,
        };
        let outcome = instance.serve(&self.listen, &mut request).await;
        let signer = request.tsig.as_deref();
        let room = signer.map_or(0, Verified::record_len);
        let octets: Vec<Vec<u8>> = match outcome {
            Outcome::Answer(response) => {
                // `bufsize` lowers what the client says it takes.
                let size_max = request.payload_max().saturating_sub(room);
                frame
                    .encode(response.message, size_max)
                    .into_iter()
                    .collect()
            }
            Outcome::Stream(messages) => {
                let encoded = messages
                    .into_iter()
                    .map(|message| frame.encode(message, u16::MAX - room));
                encoded.flatten().collect()
            }
            Outcome::Silence(_) => Vec::new(),
        };
        match signer {
            Some(signer) => signer.sign_all(&octets),
            None => octets,
        }
    }

    fn lets_in(&self, peer: IpAddr) -> bool {
        let current = self.current.load();
        let may_ask = current.environment().may_ask.as_ref();
        may_ask.is_none_or(|may_ask| may_ask(peer.to_canonical()))
    }

    fn shed(&self, reason: &'static str) {
        self.sheds.with(&[reason]).increment();
    }

    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// How a query came.
#[derive(Clone, Copy)]
struct Arrived {
    peer: SocketAddr,
    local: SocketAddr,
    transport: Transport,
    when: Instant,
}
