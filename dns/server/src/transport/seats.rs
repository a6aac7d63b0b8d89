//! Who has the connections of an address: a bounded number, of which no client keeps others out. When all are taken,
//! a newcomer gets the place of the client that has most: of its connections one that asks nothing, the one that was
//! silent longest.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::Shared;
use crate::listen::Door;

/// Connections to one address at a time, where the process may have so many files.
const CONNECTIONS_MAX: usize = 2048;
/// Of the files that a process may have, an address takes one of so many: others and upstreams need some too.
const OF_FILES: u64 = 4;

/// How many connections an address takes. The process's files are raised to the hard limit first.
fn connections_max() -> usize {
    let mut files = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: files.maximum,
        maximum: files.maximum,
    };
    if setrlimit(Resource::Nofile, raised).is_ok() {
        files = raised;
    }
    let share = files.current.map_or(u64::MAX, |files| files / OF_FILES);
    usize::try_from(share)
        .unwrap_or(usize::MAX)
        .clamp(1, CONNECTIONS_MAX)
}

/// A connection's place.
pub(super) struct Seat {
    client: IpAddr,
    /// When the client was last heard, in milliseconds since `began`.
    heard: AtomicU64,
    began: Instant,
    /// Queries that are being answered.
    asked: AtomicUsize,
    leave: Notify,
}

/// The places of an address, by a number that is never given twice.
#[derive(Default)]
struct Seats {
    taken: Mutex<(u64, HashMap<u64, Arc<Seat>>)>,
}

/// A taken place; free again when this is dropped.
struct Taken {
    seats: Arc<Seats>,
    number: u64,
    seat: Arc<Seat>,
}

impl Seat {
    fn new(client: IpAddr, began: Instant) -> Self {
        let seat = Self {
            client,
            heard: AtomicU64::new(0),
            began,
            asked: AtomicUsize::new(0),
            leave: Notify::new(),
        };
        seat.hear();
        seat
    }

    /// The client has said something.
    pub(super) fn hear(&self) {
        let now = self.began.elapsed().as_millis();
        let now = u64::try_from(now).unwrap_or(u64::MAX);
        self.heard.store(now, Ordering::Relaxed);
    }

    /// Ends when nothing was asked for so long, and nothing is being answered.
    pub(super) async fn quiet(&self, long: Duration) {
        loop {
            let heard = Duration::from_millis(self.heard.load(Ordering::Relaxed));
            let silent = self.began.elapsed().saturating_sub(heard);
            let rest = match self.asked.load(Ordering::Relaxed) {
                0 => long.saturating_sub(silent),
                _ => long,
            };
            if rest.is_zero() {
                return;
            }
            tokio::time::sleep(rest).await;
        }
    }

    /// So many queries are being answered now.
    pub(super) fn set_asked(&self, queries: usize) {
        self.asked.store(queries, Ordering::Relaxed);
    }

    /// One more query is being answered, until what is given back is dropped.
    pub(super) fn ask(self: &Arc<Self>) -> Asking {
        self.hear();
        self.asked.fetch_add(1, Ordering::Relaxed);
        Asking(Arc::clone(self))
    }
}

/// A query that is being answered.
pub(super) struct Asking(Arc<Seat>);

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.asked.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What came of asking for a place.
enum Place {
    Free(Taken),
    /// Somebody else had to go.
    Cleared(Taken),
    /// Everybody is being answered, and nobody has more than the client who asks.
    None,
}

impl Seats {
    fn taken(&self) -> MutexGuard<'_, (u64, HashMap<u64, Arc<Seat>>)> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(self: &Arc<Self>, client: IpAddr, began: Instant, most: usize) -> Place {
        let mut taken = self.taken();
        let (last, seats) = &mut *taken;
        let full = seats.len() >= most;
        if full {
            let Some(leaver) = leaver(seats, client).and_then(|number| seats.remove(&number))
            else {
                return Place::None;
            };
            leaver.leave.notify_one();
        }
        *last += 1;
        let seat = Arc::new(Seat::new(client, began));
        seats.insert(*last, Arc::clone(&seat));
        let place = Taken {
            seats: Arc::clone(self),
            number: *last,
            seat,
        };
        match full {
            true => Place::Cleared(place),
            false => Place::Free(place),
        }
    }
}

/// Who makes room for a client's connection, if anybody should.
fn leaver(seats: &HashMap<u64, Arc<Seat>>, client: IpAddr) -> Option<u64> {
    let mut counts: HashMap<IpAddr, usize> = HashMap::new();
    for seat in seats.values() {
        *counts.entry(seat.client).or_default() += 1;
    }
    let count = |client: IpAddr| counts.get(&client).copied().unwrap_or_default();
    let idle = |seat: &Seat| seat.asked.load(Ordering::Relaxed) == 0;
    let rank = |(_, seat): &(&u64, &Arc<Seat>)| {
        let silent = Reverse(seat.heard.load(Ordering::Relaxed));
        (count(seat.client), idle(seat), silent)
    };
    let (number, first) = seats.iter().max_by_key(rank)?;
    // A query is cut off only for who has less.
    if idle(first) || count(first.client) > count(client) + 1 {
        return Some(*number);
    }
    let least = count(client);
    let others = seats.iter();
    let idle = others.filter(|(_, seat)| idle(seat) && count(seat.client) >= least);
    idle.max_by_key(rank).map(|(number, _)| *number)
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.seats.taken().1.remove(&self.number);
    }
}

/// A connection's octets, in TLS or not.
pub(super) trait Octets: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Octets for S {}

/// A connection in TLS, speaking one of these protocols if any are given. As it is where the configuration has no
/// certificate: somebody before us has taken the TLS off.
pub(super) async fn secured(
    shared: &Shared,
    stream: TcpStream,
    protocols: &[&[u8]],
) -> Option<Box<dyn Octets>> {
    let instance = shared.instance();
    // Certificates may have changed with the configuration.
    let Some(mut tls) = instance.tls(&shared.listen) else {
        return Some(Box::new(stream));
    };
    if !protocols.is_empty() {
        let protocols = protocols.iter().map(|protocol| protocol.to_vec());
        Arc::make_mut(&mut tls).alpn_protocols = protocols.collect();
    }
    let patience = instance.timeouts(&shared.listen).read;
    drop(instance);
    let accepting = TlsAcceptor::from(tls).accept(stream);
    let stream = timeout(patience, accepting).await.ok()?.ok()?;
    Some(Box::new(stream))
}

/// Takes connections, a bounded number at a time, until the address is closed, and ends when they have ended. They end
/// at once where the task that this runs in is aborted.
pub(super) async fn accept(
    shared: &Shared,
    listener: Arc<TcpListener>,
    serve: impl Fn(TcpStream, [SocketAddr; 2], Arc<Seat>) -> BoxFuture<'static, ()>,
) {
    let (began, most) = (Instant::now(), connections_max());
    let seats = Arc::new(Seats::default());
    let mut connections = tokio::task::JoinSet::new();
    let mut door = Door::new(listener);
    loop {
        while connections.try_join_next().is_some() {}
        let stream = match door.next(shared.closed()).await {
            Some(Ok(stream)) => stream,
            Some(Err(error)) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
            None => break,
        };
        let (Ok(peer), Ok(local)) = (stream.peer_addr(), stream.local_addr()) else {
            continue;
        };
        let _ = stream.set_nodelay(true);
        let ends = [peer, local].map(|end| SocketAddr::new(end.ip().to_canonical(), end.port()));
        let [client, _] = ends.map(|end| end.ip());
        let taken = match seats.take(client, began, most) {
            Place::Free(taken) => taken,
            Place::Cleared(taken) => {
                shared.shed("connection_closed");
                taken
            }
            Place::None => {
                shared.shed("connection_refused");
                continue;
            }
        };
        let connection = serve(stream, ends, Arc::clone(&taken.seat));
        connections.spawn(async move {
            tokio::select! {
                () = connection => {}
                () = taken.seat.leave.notified() => {}
            }
        });
    }
    drop(door);
    while connections.join_next().await.is_some() {}
}

#[cfg(test)]
mod tests {
    use super::*;

    const GREEDY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));
    const NEW: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 3));

    /// Who leaves for whom; a seat is a client, when it was last heard, and the queries that are being answered.
    #[test]
    fn the_greediest_makes_room_first() {
        type Case<'a> = (&'a str, &'a [(IpAddr, u64, usize)], IpAddr, Option<u64>);
        let table: &[Case<'_>] = &[
            (
                "the client with most, not the one that was silent longest",
                &[(OTHER, 1, 0), (GREEDY, 9, 0), (GREEDY, 5, 0)],
                NEW,
                Some(2),
            ),
            (
                "of its connections one that asks nothing",
                &[(OTHER, 1, 0), (GREEDY, 9, 0), (GREEDY, 5, 3)],
                NEW,
                Some(1),
            ),
            (
                "one that asks, for who has less",
                &[(OTHER, 1, 0), (GREEDY, 9, 1), (GREEDY, 5, 3)],
                NEW,
                Some(2),
            ),
            (
                "one that asks nothing, of who has as much",
                &[(OTHER, 1, 0), (GREEDY, 9, 1)],
                GREEDY,
                Some(0),
            ),
            (
                "nobody who has less",
                &[(OTHER, 1, 0), (GREEDY, 9, 1), (GREEDY, 5, 3)],
                GREEDY,
                None,
            ),
        ];
        for (what, taken, newcomer, expected) in table {
            let seats = taken.iter().map(|(client, heard, asked)| {
                let seat = Seat::new(*client, Instant::now());
                seat.heard.store(*heard, Ordering::Relaxed);
                seat.set_asked(*asked);
                Arc::new(seat)
            });
            let seats = (0..).zip(seats).collect();
            assert_eq!(leaver(&seats, *newcomer), *expected, "{what}");
        }
    }

    #[tokio::test]
    async fn a_place_is_free_again_and_who_must_leave_hears_it() {
        let (seats, began) = (Arc::new(Seats::default()), Instant::now());
        let Place::Free(first) = seats.take(GREEDY, began, 1) else {
            panic!("there is room");
        };
        let Place::Cleared(second) = seats.take(NEW, began, 1) else {
            panic!("the first asks nothing");
        };
        first.seat.leave.notified().await;
        drop(first);
        second.seat.set_asked(1);
        assert!(matches!(seats.take(OTHER, began, 1), Place::None));
        drop(second);
        assert!(matches!(seats.take(OTHER, began, 1), Place::Free(_)));
    }
}
