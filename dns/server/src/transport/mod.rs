//! Sockets of clients: UDP in batches on a thread for each core, TCP, DNS over TLS, DNS over HTTPS.
//!
//! A query about the cluster is answered where it was read ([`crate::fast`]); the others go down a chain on the
//! runtime, as many at a time as [`SLOW_MAX`]. What is more is shed, and counted.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use hickory_proto::op::Message;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use zone::reply::UDP_MIN;
use zone::{Odd, Query};

use crate::fast::{Arrival, Table};
use crate::instance::{self, Instance, Listen};
use crate::listen::Closed;
use crate::message::{Outcome, Request, Transport};
use crate::metrics::Family;
use crate::plugin::tsig::Verified;
use crate::reload::Reloader;

mod cookie;
mod encode;
mod held;
mod https;
mod scratch;
mod seats;
mod sockets;
mod stream;
mod udp;

use cookie::Cookies;
pub use sockets::ListenError;
pub(crate) use sockets::{Addresses, Bound, Sockets};

/// Queries of one listener that are on their way down a chain at a time.
const SLOW_MAX: usize = 4096;

/// How long plugins may take to say goodbye.
const FAREWELL: Duration = Duration::from_secs(1);

/// Why a query or a connection is shed here.
const SHED_REASONS: [&str; 7] = [
    "too_many",
    "octets",
    "stream_octets",
    "cut_off",
    "stranger",
    "connection_closed",
    "connection_refused",
];

/// What the sockets of one address share.
pub(crate) struct Shared {
    listen: Listen,
    current: Arc<ArcSwap<Instance>>,
    /// The last configuration that wanted this, once one does not: connections that are open end by it.
    last: OnceLock<Arc<Instance>>,
    fast: ArcSwap<Table>,
    /// Turns true when `current` is the configuration that this was opened for.
    serving: AtomicBool,
    /// Connections are another's to take from now on.
    given_away: AtomicBool,
    stop: watch::Sender<bool>,
    slow: Arc<Semaphore>,
    sheds: Arc<Family>,
    cookies: Cookies,
    turn: AtomicUsize,
    runtime: tokio::runtime::Handle,
}

/// A server on the sockets that its configuration names. Dropping it closes them.
pub struct Server {
    reloader: Arc<Reloader>,
    addresses: Addresses,
}

impl Server {
    /// Opens the sockets of the configuration in service; they follow it from now on. Call it inside the runtime.
    ///
    /// # Errors
    /// When an address cannot be listened on.
    pub fn open(reloader: Arc<Reloader>) -> Result<Self, ListenError> {
        let addresses = reloader.listen()?;
        Ok(Server {
            reloader,
            addresses,
        })
    }

    /// Where plain DNS is listened on in truth.
    #[must_use]
    pub fn local_addresses(&self) -> Vec<(Listen, SocketAddr)> {
        self.addresses.load().to_vec()
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

    /// Serves until `stopping` turns true, and as much longer as `health` says.
    pub async fn run(self, mut stopping: watch::Receiver<bool>) {
        // Whoever could stop it is gone: so is the reason to go on.
        let _ = stopping.wait_for(|stop| *stop).await;
        let lameduck = {
            let current = self.reloader.current().load();
            current.environment().ending.store(true, Ordering::Relaxed);
            current.lameduck()
        };
        tokio::time::sleep(lameduck).await;
        let last = self.reloader.current().load_full();
        let closing = tokio::task::spawn_blocking(move || drop(self));
        let _ = closing.await;
        let _ = tokio::time::timeout(FAREWELL, last.end()).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.reloader.close();
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
            Err(Odd::Questions(0)) => {
                let cookie = zone::query::edns_alone(octets).and_then(|edns| edns.cookie);
                return match cookie.map(|cookie| self.cookies.answer(&cookie, at.peer.ip())) {
                    Some(cookie) => encode::cookie_alone(octets, &cookie, buffer),
                    None => encode::odd(Odd::Questions(0), octets, buffer),
                };
            }
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

    /// A place for a query of so many octets on its way down the chain, if there is one; a query that is shed is counted.
    fn place(&self, octets: usize) -> Option<[OwnedSemaphorePermit; 2]> {
        let Ok(one) = Arc::clone(&self.slow).try_acquire_owned() else {
            self.shed("too_many");
            return None;
        };
        let room = Arc::clone(&self.current.load().environment().query_octets);
        let octets = u32::try_from(octets).unwrap_or(u32::MAX);
        let Ok(room) = room.try_acquire_many_owned(octets) else {
            self.shed("octets");
            return None;
        };
        Some([one, room])
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
        let raw = octets.clone();
        let mut request = Request::new(message, octets, at.peer, at.local, at.transport);
        request.arrived = at.when;
        let instance = self.instance();
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
            // Who asks by a stream knows that the query came, and waits for what comes of it.
            Outcome::Silence(instance::SHED_QUERIES) if at.transport != Transport::Udp => {
                let mut buffer = [0; UDP_MIN];
                let failed = encode::failed(&raw, &mut buffer);
                let answer = failed.and_then(|length| buffer.get(..length));
                answer.map(<[u8]>::to_vec).into_iter().collect()
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

    fn serving(&self) -> bool {
        self.serving.load(Ordering::Relaxed)
    }

    fn stopping(&self) -> bool {
        *self.stop.borrow()
    }

    /// Ends when the address is closed.
    async fn closed(&self) -> Closed {
        let mut stop = self.stop.subscribe();
        let _ = stop.wait_for(|stop| *stop).await.map(drop);
        match self.given_away.load(Ordering::Relaxed) {
            true => Closed::GivenAway,
            false => Closed::Ended,
        }
    }

    /// The configuration that answers.
    fn instance(&self) -> Arc<Instance> {
        let last = self.last.get();
        last.map_or_else(|| self.current.load_full(), Arc::clone)
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
