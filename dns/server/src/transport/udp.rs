//! UDP: a socket and a thread for each core, on one address; the kernel spreads clients over them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use net::{Batch, Datagrams, Turns};

use super::{Arrived, Shared, Turn};
use crate::message::Transport;

/// How long a thread waits for queries before it looks whether it should end.
const PATIENCE: Duration = Duration::from_millis(200);

/// How long a thread wants to run at a time while there is little to do.
const SLICE: Duration = Duration::from_micros(500);

/// Batches that are still answered when the address is closed.
const LAST_ROUNDS: usize = 64;

/// Opens the sockets. Their threads are parked until the address is served.
pub(super) fn open(
    shared: &Arc<Shared>,
    local: SocketAddr,
) -> std::io::Result<Vec<JoinHandle<()>>> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut sockets = Vec::with_capacity(cores);
    for _ in 0..cores {
        sockets.push(Arc::new(Datagrams::bind(local, PATIENCE)?));
    }
    sockets
        .into_iter()
        .enumerate()
        .map(|(n, socket)| {
            let shared = Arc::clone(shared);
            std::thread::Builder::new()
                .name(format!("dns-udp-{n}"))
                .spawn(move || serve(&shared, &socket))
        })
        .collect()
}

fn serve(shared: &Arc<Shared>, socket: &Arc<Datagrams>) {
    let mut pace = Pace::begin();
    let mut batch = Batch::new();
    while !shared.serving() && !shared.stopping() {
        std::thread::park_timeout(PATIENCE);
    }
    let mut last = None;
    loop {
        if shared.stopping() {
            // What has come already is answered; others have the port.
            let rounds: &mut usize = last.get_or_insert_with(|| {
                socket.hurry();
                LAST_ROUNDS
            });
            if *rounds == 0 {
                return;
            }
            *rounds -= 1;
        }
        let count = match socket.receive(&mut batch) {
            Ok(count) => count,
            Err(error) => {
                tracing::error!(%error, address = %socket.local_addr(), "cannot receive");
                std::thread::sleep(PATIENCE);
                continue;
            }
        };
        if count == 0 {
            if last.is_some() {
                return;
            }
            continue;
        }
        if let Some(pace) = &mut pace {
            pace.received(count);
        }
        let when = Instant::now();
        let table = shared.fast.load();
        for at in 0..count {
            let (Some(peer), Some(ip)) = (batch.peer(at), batch.local(at)) else {
                continue;
            };
            let Some((octets, buffer)) = batch.exchange(at) else {
                shared.shed("cut_off");
                continue;
            };
            let arrived = Arrived {
                peer,
                local: SocketAddr::new(ip, socket.local_addr().port()),
                transport: Transport::Udp,
                when,
            };
            match shared.quick(octets, &arrived, &table, buffer) {
                Turn::Answered(length) => batch.answer(at, length),
                Turn::Slow => {
                    let octets = Bytes::copy_from_slice(octets);
                    hand_over(shared, socket, octets, arrived);
                }
                Turn::Silence => {}
            }
        }
        socket.send(&mut batch);
    }
}

/// How soon a thread wants its turns. While few queries come at a time their clients wait for it, and what shares the
/// core can wait better. Once many do, a query costs a tenth less where they come together first: who asks is not
/// interrupted for each of them.
struct Pace {
    batches: usize,
    queries: usize,
    late: bool,
}

impl Pace {
    /// Batches over which the mean is taken.
    const BATCHES: usize = 64;
    /// Queries of a batch in the mean from which turns may be late.
    const MANY: usize = 8;
    /// Queries of a batch in the mean below which turns are wanted soon again.
    const FEW: usize = 4;

    /// For the calling thread; nothing when it is not scheduled as usual, or cannot be otherwise.
    fn begin() -> Option<Self> {
        let pace = Pace {
            batches: 0,
            queries: 0,
            late: false,
        };
        (net::has_usual_turns() && pace.ask()).then_some(pace)
    }

    fn received(&mut self, queries: usize) {
        if let Some(late) = self.decide(queries) {
            self.late = late;
            self.ask();
        }
    }

    /// Counts a batch; tells whether turns may be late when that changes.
    fn decide(&mut self, queries: usize) -> Option<bool> {
        self.batches += 1;
        self.queries += queries;
        if self.batches < Self::BATCHES {
            return None;
        }
        let mean = self.queries / self.batches;
        (self.batches, self.queries) = (0, 0);
        let late = match self.late {
            true => mean >= Self::FEW,
            false => mean >= Self::MANY,
        };
        (late != self.late).then_some(late)
    }

    fn ask(&self) -> bool {
        let turns = match self.late {
            true => Turns::Late,
            false => Turns::Soon(SLICE),
        };
        let asked = net::ask_for_turns(turns);
        if let Err(error) = &asked {
            tracing::debug!(%error, "the scheduler's turns stay as they are");
        }
        asked.is_ok()
    }
}

/// Has the runtime answer, unless it has too much to do already.
fn hand_over(shared: &Arc<Shared>, socket: &Arc<Datagrams>, octets: Bytes, arrived: Arrived) {
    let Some(place) = shared.place(octets.len()) else {
        return;
    };
    let (of_task, socket) = (Arc::clone(shared), Arc::clone(socket));
    shared.runtime.spawn(async move {
        let answers = of_task.slow(octets, &arrived).await;
        // A datagram is one message; a transfer is refused on UDP by who would make it.
        if let Some(answer) = answers.first()
            && let Err(error) = socket.send_to(answer, arrived.peer, arrived.local.ip())
        {
            tracing::debug!(%error, "an answer could not be sent");
        }
        drop(place);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_may_be_late_while_batches_are_large() {
        let mut pace = Pace {
            batches: 0,
            queries: 0,
            late: false,
        };
        // Queries of each batch, and whether turns may be late after as many as the mean is taken over.
        for (queries, late) in [(1, false), (7, false), (8, true), (4, true), (3, false)] {
            for _ in 0..Pace::BATCHES {
                if let Some(late) = pace.decide(queries) {
                    pace.late = late;
                }
            }
            assert_eq!(pace.late, late, "{queries}");
        }
    }
}
