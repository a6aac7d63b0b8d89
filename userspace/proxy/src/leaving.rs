//! Who is with a backend that left its service leaves it too.
//!
//! Connected UDP sockets were translated once, when they connected, and would speak to nobody for ever. They are closed
//! wherever they are, and whoever has one hears of it at once, connects again and is balanced again. A connection of TCP
//! lasts as long as its backend does; where that is asked for, it is reset when the backend is dead, rather than left to
//! find out by itself.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use bpf::{Datapath, View};
use net::{Netns, Sockets};
use plan::Left;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tracing::{debug, warn};

use crate::{ByFamily, Status};

/// Closes sockets in the background.
#[derive(Debug)]
pub(crate) struct Leaving {
    news: UnboundedSender<Vec<Left>>,
}

impl Leaving {
    /// Starts, for the tables that are pinned below `bpffs_root`, and counts in `status`. Must be called in a tokio
    /// runtime.
    pub(crate) fn start(bpffs_root: PathBuf, status: Arc<watch::Sender<Status>>) -> Self {
        let (news, heard) = mpsc::unbounded_channel();
        tokio::spawn(follow(bpffs_root, heard, status));
        Leaving { news }
    }

    /// Notes what left, after the tables say so.
    pub(crate) fn tell(&self, left: &[Left]) {
        let udp = left
            .iter()
            .filter(|left| left.protocol == abi::protocol::UDP);
        self.reset(udp.copied().collect());
    }

    /// Ends whatever is with these.
    pub(crate) fn reset(&self, left: Vec<Left>) {
        if !left.is_empty() {
            // Without a follower there is nobody left to tell.
            let _ = self.news.send(left);
        }
    }
}

async fn follow(
    bpffs_root: PathBuf,
    mut heard: UnboundedReceiver<Vec<Left>>,
    status: Arc<watch::Sender<Status>>,
) {
    while let Some(mut left) = heard.recv().await {
        while let Ok(more) = heard.try_recv() {
            left.extend(more);
        }
        let root = bpffs_root.clone();
        let start = Instant::now();
        let ended = spawn_blocking(move || end(&root, &left));
        match ended.await {
            Ok(Ok(ended)) => {
                debug!(?ended, "ended what was with backends that left");
                let took = start.elapsed();
                status.send_modify(|status| status.kube_proxy.reconciled(took, ended));
            }
            Ok(Err(error)) => warn!(
                error = &error as &dyn std::error::Error,
                "cannot close sockets of backends that left"
            ),
            Err(error) => warn!(
                error = &error as &dyn std::error::Error,
                "cannot close sockets of backends that left"
            ),
        }
    }
}

/// Forgets flows and closes sockets; says how many.
fn end(bpffs_root: &Path, left: &[Left]) -> Result<ByFamily<u64>, bpf::Error> {
    let view = Datapath::inspect(bpffs_root)?;
    let mut ended = ByFamily::default();
    for protocol in [abi::protocol::UDP, abi::protocol::TCP, abi::protocol::SCTP] {
        for ipv4 in [true, false] {
            let of = |left: &&Left| left.protocol == protocol && left.addr.is_ipv4() == ipv4;
            let peers = left.iter().filter(of).map(|left| left.addr);
            let peers: BTreeSet<SocketAddr> = peers.collect();
            if peers.is_empty() {
                continue;
            }
            // UDP's flows move by themselves with their next packet.
            if protocol != abi::protocol::UDP {
                *ended.of(ipv4) += bpf::forget_flows(bpffs_root, protocol, &peers)? as u64;
            }
            if protocol != abi::protocol::SCTP {
                *ended.of(ipv4) += close(&view, protocol, &peers);
            }
        }
    }
    Ok(ended)
}

/// Closes the sockets of every namespace that a service sent to one of `peers`, and would send there no more. A namespace
/// that cannot be asked is passed over.
fn close(view: &View, protocol: u8, peers: &BTreeSet<SocketAddr>) -> u64 {
    let mut closed = 0;
    for netns in Netns::all() {
        match netns.run(|| close_here(view, protocol, peers)) {
            Ok(Ok(sockets)) => closed += sockets,
            Ok(Err(error)) => debug!(%error, ?netns, "cannot close the sockets of a namespace"),
            Err(error) => debug!(
                error = &error as &dyn std::error::Error,
                "cannot enter a namespace"
            ),
        }
    }
    closed
}

fn close_here(view: &View, protocol: u8, peers: &BTreeSet<SocketAddr>) -> std::io::Result<u64> {
    let sockets = Sockets::open()?;
    let mut closed = 0;
    for socket in sockets.connected(protocol)? {
        if !peers.contains(&socket.peer) {
            continue;
        }
        let left = view.is_left_behind(socket.cookie, socket.protocol, socket.peer);
        if left.map_err(std::io::Error::other)? {
            sockets.destroy(&socket)?;
            closed += 1;
        }
    }
    Ok(closed)
}
