//! The open sockets of a process. Those that a new configuration wants are bound before it is in service, so that it
//! can still be refused; they are served, and those that are no longer wanted closed, once it is.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
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

/// Sockets that a configuration needs beside the open ones. Queries wait in them; dropping this closes them.
pub(crate) struct Bound(BTreeMap<Listen, Listener>);

/// An open address. Dropping it closes its sockets.
struct Listener {
    shared: Arc<Shared>,
    threads: Vec<std::thread::JoinHandle<()>>,
    /// For connections, until it is served.
    waiting: Option<TcpListener>,
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
        let mut bound = BTreeMap::new();
        for listen in &wanted {
            if self.listeners.contains_key(listen) {
                continue;
            }
            // Two schemes on one address would get each other's clients.
            let rival =
                |other: &Listen| other.address == listen.address && other.scheme != listen.scheme;
            let ours = |other: &Listen| overlap(other.address, listen.address);
            let shares = listen.address.port() != 0
                && !wanted.iter().any(rival)
                && self.listeners.keys().chain(bound.keys()).any(ours);
            let listener = Listener::bind(listen, instance, current, shares).map_err(|source| {
                ListenError {
                    scheme: listen.scheme.text(),
                    address: listen.address,
                    source,
                }
            })?;
            bound.insert(listen.clone(), listener);
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
    ) -> std::io::Result<Self> {
        let metrics = &instance.environment().metrics;
        let shared = Arc::new(Shared {
            listen: listen.clone(),
            current: Arc::clone(current),
            last: OnceLock::new(),
            fast: ArcSwap::from_pointee(Table::new(instance, listen)),
            serving: AtomicBool::new(false),
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
        let mut tries = if listen.address.port() == 0 { 8 } else { 1 };
        let (tcp, local, threads) = loop {
            let tcp = listen::tcp(listen.address, shares)?;
            let port = tcp.local_addr()?.port();
            let local = SocketAddr::new(listen.address.ip(), port);
            if listen.scheme != Scheme::Dns {
                break (tcp, local, Vec::new());
            }
            tries -= 1;
            match udp::open(&shared, local) {
                Ok(threads) => break (tcp, local, threads),
                // Any port will do, and this one is free for streams alone.
                Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && tries > 0 => {}
                Err(error) => {
                    // For threads that were begun.
                    shared.stop.send_replace(true);
                    return Err(error);
                }
            }
        };
        Ok(Listener {
            shared,
            threads,
            waiting: Some(tcp),
            accepting: None,
            local,
        })
    }

    /// Begins to take queries.
    fn serve(&mut self) {
        self.shared.serving.store(true, Ordering::Relaxed);
        for thread in &self.threads {
            thread.thread().unpark();
        }
        let Some(tcp) = self.waiting.take() else {
            return;
        };
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
