//! Connected UDP sockets leave a backend that left its service: they were translated once, when they connected, and
//! would speak to nobody for ever. They are closed wherever they are, and whoever has one hears of it at once, connects
//! again and is balanced again. A socket of TCP finds out by itself.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use bpf::{Datapath, View};
use net::{Netns, Sockets};
use plan::Left;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::spawn_blocking;
use tracing::{debug, warn};

/// Closes sockets in the background.
#[derive(Debug)]
pub(crate) struct Leaving {
    news: UnboundedSender<Vec<Left>>,
}

impl Leaving {
    /// Starts, for the tables that are pinned below `bpffs_root`. Must be called in a tokio runtime.
    pub(crate) fn start(bpffs_root: PathBuf) -> Self {
        let (news, heard) = mpsc::unbounded_channel();
        tokio::spawn(follow(bpffs_root, heard));
        Leaving { news }
    }

    /// Notes what left, after the tables say so.
    pub(crate) fn tell(&self, left: &[Left]) {
        let udp = left
            .iter()
            .filter(|left| left.protocol == abi::protocol::UDP);
        let udp: Vec<Left> = udp.copied().collect();
        if !udp.is_empty() {
            // Without a follower there is nobody left to tell.
            let _ = self.news.send(udp);
        }
    }
}

async fn follow(bpffs_root: PathBuf, mut heard: UnboundedReceiver<Vec<Left>>) {
    while let Some(mut left) = heard.recv().await {
        while let Ok(more) = heard.try_recv() {
            left.extend(more);
        }
        let root = bpffs_root.clone();
        let closed = spawn_blocking(move || {
            let view = Datapath::inspect(&root)?;
            let peers: BTreeSet<SocketAddr> = left.iter().map(|left| left.addr).collect();
            Ok::<_, bpf::Error>(close(&view, &peers))
        });
        match closed.await {
            Ok(Ok(0)) => {}
            Ok(Ok(sockets)) => debug!(sockets, "closed sockets of backends that left"),
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

/// Closes the UDP sockets of every namespace that a service sent to one of `peers`, and would send there no more. A
/// namespace that cannot be asked is passed over.
fn close(view: &View, peers: &BTreeSet<SocketAddr>) -> usize {
    let mut closed = 0;
    for netns in Netns::all() {
        match netns.run(|| close_here(view, peers)) {
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

fn close_here(view: &View, peers: &BTreeSet<SocketAddr>) -> std::io::Result<usize> {
    let sockets = Sockets::open()?;
    let mut closed = 0;
    for socket in sockets.connected(abi::protocol::UDP)? {
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
