//! UDP: a socket and a thread for each core, on one address; the kernel spreads clients over them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use net::{Batch, Datagrams};

use super::{Arrived, Shared, Turn};
use crate::message::Transport;

/// How long a thread waits for queries before it looks whether it should end.
const PATIENCE: Duration = Duration::from_millis(200);

/// How long a thread wants to run at a time.
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
    // A batch takes a fraction of a millisecond, and clients wait for it: what shares the core can wait better.
    if let Err(error) = net::ask_for_slices(SLICE) {
        tracing::debug!(%error, "the scheduler's usual slices stay");
    }
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
