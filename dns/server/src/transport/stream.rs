//! DNS on streams: TCP (RFC 7766) and TLS (RFC 7858). Queries of one connection are answered as they are ready.
//!
//! A connection holds at most [`Out`]'s 80 kB of answers, a message of 64 kB that has not arrived in full, and the
//! [`PIPELINE_MAX`] queries of [`PIPELINE_OCTETS`] together that are on their way down a chain: a client that asks and
//! does not read is not read either. What waits to be read or written in full is bounded over all connections
//! ([`Held`]), and a connection on which nothing is under way holds no buffer.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::held::Held;
use super::seats::{self, Seat};
use super::{Arrived, Shared, Turn, encode, scratch};
use crate::corefile::Scheme;
use crate::message::Transport;

/// Queries of one connection that are on their way down a chain; further ones wait to be read.
const PIPELINE_MAX: usize = 64;

/// Octets of these queries beyond which further ones wait to be read.
const PIPELINE_OCTETS: usize = 16 * 1024;

/// Octets that are read at a time.
const CHUNK: usize = 8 * 1024;

/// Octets of answers that are written before more queries are answered.
const WRITE_AT: usize = 16 * 1024;

/// Each gives the length of its query and the messages of the answer.
type Slow<'a> = FuturesUnordered<BoxFuture<'a, (usize, Vec<Vec<u8>>)>>;

/// Takes connections until the address is closed.
pub(super) async fn run(shared: &Arc<Shared>, listener: Arc<TcpListener>) {
    seats::accept(shared, listener, |stream, [peer, local], seat| {
        let shared = Arc::clone(shared);
        let arrived = move |transport| Arrived {
            peer,
            local,
            transport,
            when: Instant::now(),
        };
        async move {
            if shared.listen.scheme == Scheme::Dns {
                return serve(&shared, stream, arrived(Transport::Tcp), &seat).await;
            }
            if let Some(stream) = seats::secured(&shared, stream, &[]).await {
                serve(&shared, stream, arrived(Transport::Tls), &seat).await;
            }
        }
        .boxed()
    })
    .await;
}

/// Answers the queries of one connection until it ends, goes quiet or breaks the rules.
async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    shared: &Arc<Shared>,
    mut stream: S,
    at: Arrived,
    seat: &Seat,
) {
    let limits = shared.instance().timeouts(&shared.listen);
    let mut read = BytesMut::new();
    let mut unread = Held::new(shared);
    let mut out = Out::new(shared, limits.write);
    let mut slow = Slow::new();
    let most = limits.queries.unwrap_or(usize::MAX);
    let mut taken = 0;
    // Of the queries in `slow`.
    let mut pending = 0;
    loop {
        while !out.is_full()
            && slow.len() < PIPELINE_MAX
            && pending < PIPELINE_OCTETS
            && taken < most
            && let Some(octets) = message(&mut read)
        {
            taken += 1;
            let at = Arrived {
                when: Instant::now(),
                ..at
            };
            let table = shared.fast.load_full();
            let turn = scratch::with(|room| {
                let turn = shared.quick(&octets, &at, &table, room);
                if let Turn::Answered(length) = turn {
                    out.add(room.get(..length).unwrap_or_default());
                }
                turn
            });
            match turn {
                Turn::Answered(_) | Turn::Silence => {}
                Turn::Slow => match shared.place(octets.len()) {
                    Some(place) => {
                        pending += octets.len();
                        slow.push(
                            async move {
                                let length = octets.len();
                                let answers = shared.slow(octets, &at).await;
                                drop(place);
                                (length, answers)
                            }
                            .boxed(),
                        );
                    }
                    // The connection lives on, and so does who waits for an answer.
                    None => scratch::with(|room| {
                        if let Some(length) = encode::failed(&octets, room) {
                            out.add(room.get(..length).unwrap_or_default());
                        }
                    }),
                },
            }
        }
        seat.set_asked(slow.len());
        // Where it was full, there may be more whole queries to answer before anything is read.
        let more = out.is_full();
        if read.is_empty() {
            read = BytesMut::new();
        }
        if !unread.hold(read.capacity()) || !out.write(&mut stream).await {
            return;
        }
        if more {
            continue;
        }
        if taken >= most {
            finish(&mut stream, slow, out).await;
            return;
        }
        // A query that has begun to arrive must end soon.
        let patience = if read.is_empty() {
            limits.idle
        } else {
            limits.read
        };
        let may_read = slow.len() < PIPELINE_MAX && pending < PIPELINE_OCTETS;
        let waiting = !slow.is_empty();
        let idle = !waiting && read.is_empty();
        tokio::select! {
            biased;
            Some((length, answers)) = slow.next(), if waiting => {
                pending -= length;
                if !out.write_all(&mut stream, &answers).await {
                    return;
                }
            }
            got = timeout(patience, fill(&mut stream, &mut read)), if may_read => match got {
                Ok(Ok(0) | Err(_)) => {
                    finish(&mut stream, slow, out).await;
                    return;
                }
                Ok(Ok(_)) => seat.hear(),
                // Quiet, but answers are still on their way.
                Err(_) if waiting && read.is_empty() => {}
                Err(_) => return,
            },
            // After the read, so that a query that is there is answered; who has just come has come to ask.
            _ = shared.closed(), if idle && taken > 0 => {
                finish(&mut stream, slow, out).await;
                return;
            }
        }
    }
}

/// A client may close its side once it has asked; it still hears the answers.
async fn finish<S: AsyncWrite + Unpin>(stream: &mut S, mut slow: Slow<'_>, mut out: Out<'_>) {
    while let Some((_, answers)) = slow.next().await {
        if !out.write_all(stream, &answers).await || !out.write(stream).await {
            return;
        }
    }
    let _ = timeout(out.patience, stream.shutdown()).await;
}

/// Reads what is there. Until something is, no room is taken for it.
async fn fill<S: AsyncRead + Unpin>(stream: &mut S, read: &mut BytesMut) -> io::Result<usize> {
    poll_fn(|context| {
        scratch::with(|room| {
            let mut room = ReadBuf::new(room.get_mut(..CHUNK).unwrap_or_default());
            ready!(Pin::new(&mut *stream).poll_read(context, &mut room))?;
            read.extend_from_slice(room.filled());
            Poll::Ready(Ok(room.filled().len()))
        })
    })
    .await
}

/// Answers that are to be written, each behind its length: those of many queries leave together.
struct Out<'a> {
    octets: Vec<u8>,
    held: Held<'a>,
    /// How long the client may take to read what is written at a time.
    patience: Duration,
}

impl<'a> Out<'a> {
    fn new(shared: &'a Shared, patience: Duration) -> Self {
        Self {
            octets: Vec::new(),
            held: Held::new(shared),
            patience,
        }
    }

    fn is_full(&self) -> bool {
        self.octets.len() >= WRITE_AT
    }

    /// Adds a message; one that is too long for a stream is none.
    fn add(&mut self, message: &[u8]) {
        if let Ok(prefix) = u16::try_from(message.len()) {
            self.octets.extend_from_slice(&prefix.to_be_bytes());
            self.octets.extend_from_slice(message);
        }
    }

    /// Adds messages, and writes whenever it is full. False when the client is gone or does not read.
    async fn write_all<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        messages: &[Vec<u8>],
    ) -> bool {
        for message in messages {
            if self.is_full() && !self.write(stream).await {
                return false;
            }
            self.add(message);
        }
        true
    }

    /// Writes what was added. False when the client is gone or does not read.
    async fn write<S: AsyncWrite + Unpin>(&mut self, stream: &mut S) -> bool {
        let octets = std::mem::take(&mut self.octets);
        if octets.is_empty() {
            return true;
        }
        if !self.held.hold(octets.len()) {
            return false;
        }
        let writing = async {
            stream.write_all(&octets).await?;
            stream.flush().await
        };
        let written = matches!(timeout(self.patience, writing).await, Ok(Ok(())));
        self.held.hold(0) && written
    }
}

/// Takes the next whole message off what was read.
fn message(read: &mut BytesMut) -> Option<Bytes> {
    let head: [u8; 2] = read.get(..2)?.try_into().ok()?;
    let length = usize::from(u16::from_be_bytes(head));
    if read.len() < 2 + length {
        return None;
    }
    read.advance(2);
    Some(read.split_to(length).freeze())
}
