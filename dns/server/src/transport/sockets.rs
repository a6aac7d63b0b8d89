//! The open sockets of a process. Those that a new configuration wants are bound before it is in service, so that it
//! can still be refused; they are served, and those that are no longer wanted closed, once it is.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use super::cookie::Cookies;
use super::{SLOW_MAX, Shared, https, stream, udp};
use crate::corefile::Scheme;
use crate::fast::Table;
use crate::instance::{Instance, Listen};
use crate::listen;
use crate::metrics::Kind;

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

/// Where is listened on, as configured and in truth; kept up to date.
pub(crate) type Addresses = Arc<ArcSwap<Vec<(Listen, SocketAddr)>>>;

/// The open sockets.
#[derive(Default)]
pub(crate) struct Sockets {
    listeners: BTreeMap<Listen, Listener>,
    addresses: Addresses,
}

/// Sockets that a configuration needs beside the open ones. Dropping this closes them.
pub(crate) struct Bound(BTreeMap<Listen, Listener>);

/// Where connections come from, until they are taken.
enum Streams {
    /// Nobody can connect yet.
    Bound(TcpSocket),
    /// Who connects waits, or is taken by the one who listened before.
    Listens(Arc<TcpListener>),
}

/// An open address. Dropping it closes its sockets.
struct Listener {
    shared: Arc<Shared>,
    threads: Vec<std::thread::JoinHandle<()>>,
    /// For connections, until it is served.
    waiting: Option<Streams>,
    /// The socket that connections come in by, once there is one.
    streams: Option<Arc<TcpListener>>,
    accepting: Option<JoinHandle<()>>,
    /// What was bound, which tells the port where 0 was asked for.
    local: SocketAddr,
}

impl Sockets {
    pub(crate) fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Binds what a configuration needs and is not open. Call it inside the runtime.
    ///
    /// # Errors
    /// When an address cannot be listened on; nothing has changed then.
    pub(crate) fn bind(
        &self,
        instance: &Instance,
        current: &Arc<ArcSwap<Instance>>,
    ) -> Result<Bound, ListenError> {
        let wanted = instance.listens();
        let mut new: Vec<(&Listen, bool)> = Vec::new();
        for listen in wanted
            .iter()
            .filter(|listen| !self.listeners.contains_key(*listen))
        {
            // Two schemes on one address would get each other's clients.
            let rival =
                |other: &Listen| other.address == listen.address && other.scheme != listen.scheme;
            let ours = |other: &Listen| overlap(other.address, listen.address);
            let mut open = self
                .listeners
                .keys()
                .chain(new.iter().map(|(listen, _)| *listen));
            let shares = listen.address.port() != 0 && !wanted.iter().any(rival) && open.any(ours);
            new.push((listen, shares));
        }
        // What fails is most often a port that another process has; datagrams go astray as soon as a port is shared.
        new.sort_by_key(|(_, shares)| *shares);
        let mut bound = BTreeMap::new();
        for (listen, shares) in &new {
            let before = self.listeners.iter().find(|(open, _)| {
                let same = open.address == listen.address && listen.address.port() != 0;
                same && !wanted.contains(open)
            });
            let streams = before.and_then(|(_, listener)| listener.streams.clone());
            let listener = Listener::bind(listen, instance, current, *shares, streams)
                .map_err(failed(listen))?;
            bound.insert((*listen).clone(), listener);
        }
        for (listen, _) in new {
            if let Some(listener) = bound.get_mut(listen) {
                listener.take_datagrams().map_err(failed(listen))?;
            }
        }
        Ok(Bound(bound))
    }

    /// Has what the next configuration does not want answer by the one `before` it to the end.
    pub(crate) fn part(&self, next: &Instance, before: &Arc<Instance>) {
        let wanted = next.listens();
        for (listen, listener) in &self.listeners {
            if !wanted.contains(listen) {
                // Set once: nobody wants it again.
                let _ = listener.shared.last.set(Arc::clone(before));
            }
        }
    }

    /// Follows a configuration that is in service from now on: serves what was bound for it, closes what it does not
    /// want, and shows it to the others. Sockets that stay wanted are never closed, and who is connected to those that
    /// are still gets answers.
    pub(crate) fn follow(&mut self, Bound(bound): Bound, instance: &Instance) {
        let wanted = instance.listens();
        for (listen, open) in &self.listeners {
            if wanted.contains(listen) {
                let table = Table::new(instance, listen);
                open.shared.fast.store(Arc::new(table));
            }
        }
        for (listen, listener) in &bound {
            let before = self
                .listeners
                .iter()
                .find(|(open, _)| open.address == listen.address);
            if let (Some((_, before)), Some(Streams::Listens(streams))) =
                (before, &listener.waiting)
                && before
                    .streams
                    .as_ref()
                    .is_some_and(|open| Arc::ptr_eq(open, streams))
            {
                before.shared.given_away.store(true, Ordering::Relaxed);
            }
        }
        for (listen, mut listener) in bound {
            listener.serve();
            self.listeners.insert(listen, listener);
        }
        let unwanted = self
            .listeners
            .extract_if(.., |listen, _| !wanted.contains(listen));
        for (_, mut listener) in unwanted {
            // Not aborted with the rest: it ends by itself, when its connections have ended.
            drop(listener.accepting.take());
        }
        let open = self.listeners.iter();
        let local = open.map(|(listen, open)| (listen.clone(), open.local));
        self.addresses.store(Arc::new(local.collect()));
        instance.listening();
    }
}

impl Bound {
    /// Listens: from now on clients may wait in the sockets.
    ///
    /// # Errors
    /// When an address cannot be listened on.
    pub(crate) fn listen(mut self) -> Result<Self, ListenError> {
        for (listen, listener) in &mut self.0 {
            listener.listen().map_err(failed(listen))?;
        }
        Ok(self)
    }
}

fn failed(listen: &Listen) -> impl FnOnce(std::io::Error) -> ListenError {
    let (scheme, address) = (listen.scheme.text(), listen.address);
    move |source| ListenError {
        scheme,
        address,
        source,
    }
}

/// Whether sockets at two addresses would get each other's queries: the unspecified address stands for all of its
/// family, and that of IPv6 for those of IPv4 too.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let covers = |all: SocketAddr, part: SocketAddr| {
        all.ip().is_unspecified() && (all.is_ipv6() || part.is_ipv4())
    };
    one.port() == other.port()
        && (one.ip() == other.ip() || covers(one, other) || covers(other, one))
}

impl Listener {
    fn bind(
        listen: &Listen,
        instance: &Instance,
        current: &Arc<ArcSwap<Instance>>,
        shares: bool,
        streams: Option<Arc<TcpListener>>,
    ) -> std::io::Result<Self> {
        let metrics = &instance.environment().metrics;
        let shared = Arc::new(Shared {
            listen: listen.clone(),
            current: Arc::clone(current),
            last: OnceLock::new(),
            fast: ArcSwap::from_pointee(Table::new(instance, listen)),
            serving: AtomicBool::new(false),
            given_away: AtomicBool::new(false),
            stop: watch::Sender::new(false),
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
        for reason in super::SHED_REASONS {
            shared.sheds.with(&[reason]).add(0);
        }
        let bind = || -> std::io::Result<_> {
            let socket = listen::bind(listen.address, shares)?;
            let port = socket.local_addr()?.port();
            Ok((
                Streams::Bound(socket),
                SocketAddr::new(listen.address.ip(), port),
            ))
        };
        let (waiting, local) = match streams {
            Some(streams) => (Streams::Listens(streams), listen.address),
            None => bind()?,
        };
        let mut listener = Listener {
            shared,
            threads: Vec::new(),
            waiting: Some(waiting),
            streams: None,
            accepting: None,
            local,
        };
        // Any port will do, but it must be free for datagrams too.
        let mut tries = if listen.address.port() == 0 { 8 } else { 0 };
        while tries > 0 {
            tries -= 1;
            match listener.take_datagrams() {
                Ok(()) => break,
                Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && tries > 0 => {
                    let (waiting, local) = bind()?;
                    (listener.waiting, listener.local) = (Some(waiting), local);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(listener)
    }

    /// Opens the sockets for datagrams, if there are to be some and are none yet.
    fn take_datagrams(&mut self) -> std::io::Result<()> {
        if self.shared.listen.scheme == Scheme::Dns && self.threads.is_empty() {
            self.threads = udp::open(&self.shared, self.local)?;
        }
        Ok(())
    }

    fn listen(&mut self) -> std::io::Result<()> {
        let listener = match self.waiting.take() {
            Some(Streams::Bound(socket)) => Arc::new(listen::listen(socket)?),
            Some(Streams::Listens(listener)) => listener,
            None => return Ok(()),
        };
        self.waiting = Some(Streams::Listens(listener));
        Ok(())
    }

    /// Begins to take queries.
    fn serve(&mut self) {
        self.shared.serving.store(true, Ordering::Relaxed);
        for thread in &self.threads {
            thread.thread().unpark();
        }
        let Some(Streams::Listens(tcp)) = self.waiting.take() else {
            return;
        };
        self.streams = Some(Arc::clone(&tcp));
        let shared = Arc::clone(&self.shared);
        self.accepting = Some(self.shared.runtime.spawn(async move {
            match shared.listen.scheme {
                Scheme::Https => https::run(&shared, tcp).await,
                Scheme::Dns | Scheme::Tls => stream::run(&shared, tcp).await,
            }
        }));
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.shared.stop.send_replace(true);
        if let Some(task) = &self.accepting {
            task.abort();
        }
        for thread in self.threads.drain(..) {
            thread.thread().unpark();
            // A thread looks at `stop` several times a second; it does not panic.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::overlap;

    #[test]
    fn addresses_that_share_a_port() {
        for (one, other, shared) in [
            ("127.0.0.1:53", "127.0.0.1:53", true),
            ("127.0.0.1:53", "127.0.0.2:53", false),
            ("127.0.0.1:53", "127.0.0.1:54", false),
            ("0.0.0.0:53", "127.0.0.1:53", true),
            ("0.0.0.0:53", "[::1]:53", false),
            ("[::]:53", "127.0.0.1:53", true),
            ("[::]:53", "[::1]:53", true),
        ] {
            let [one, other] = [one, other].map(|text| text.parse().unwrap());
            assert_eq!(overlap(one, other), shared, "{one} {other}");
            assert_eq!(overlap(other, one), shared, "{other} {one}");
        }
    }
}
