//! The agent's part of the pods' network: what the CNI plugin must know of this node, and the ways to the pods of the
//! others.
//!
//! Off unless asked for: beside another CNI nothing here runs. What is made stays when the process ends, so that pods
//! reach each other meanwhile.

mod apply;
mod inside;
mod wanted;

use std::path::PathBuf;
use std::time::Duration;

use client::{Client, Params};
use futures_util::StreamExt as _;
use ipnet::IpNet;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};
use view::PodRanges;
use view::objects::Node;

use crate::run::stopped;
use crate::{Error, Status};

pub use apply::{Keeper, remove};
pub use wanted::Overlay;

/// What [`run`] is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of this node's Node object.
    pub node_name: String,
    /// How packets get to pods of other nodes.
    pub overlay: Overlay,
    /// Where container runtimes look for networks.
    pub conf_dir: PathBuf,
    /// Where the plugin looks for what it must know of this node.
    pub node_file: PathBuf,
    /// Where the plugin finds the programs.
    pub bpffs_root: PathBuf,
    /// Whether the proxy serves the host ports of this node's Pods, so that runtimes need nobody else for them.
    pub host_ports: bool,
    /// Whether what pods send out of the cluster gets this node's address, where a device of the proxy's sends it.
    pub masquerade: bool,
    /// Ranges that are in the cluster beside those of its pods and the addresses of its nodes.
    pub non_masquerade_cidrs: Vec<IpNet>,
}

/// How often it is looked whether everything is still there: nobody tells when somebody removes a route.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How long it is waited after something could not be done.
const AGAIN: Duration = Duration::from_secs(1);

/// Follows the Nodes and keeps this node's part of the network, from when the proxy whose `status` it is has loaded its
/// programs until `shutdown` turns true.
///
/// # Errors
///
/// [`Error::Thread`]; what cannot be done is told in the log and tried again.
pub async fn run(
    client: Client,
    settings: Settings,
    mut status: watch::Receiver<Status>,
    mut shutdown: watch::Receiver<bool>,
) -> Result<(), Error> {
    tokio::select! {
        () = stopped(&mut shutdown) => return Ok(()),
        loaded = status.wait_for(|status| status.loaded) => {
            if loaded.is_err() {
                return Ok(()); // The proxy has ended before, and says why.
            }
        }
    }
    let mut nodes = Box::pin(client.watch::<Node>(Params::default()));
    let mut ranges = PodRanges::default();
    let mut keeper = Keeper::new(settings);
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let news = tokio::select! {
            () = stopped(&mut shutdown) => return Ok(()),
            Some(event) = nodes.next() => ranges.node(event),
            _ = looks.tick() => true,
        };
        let Some(all) = ranges.nodes().filter(|_| news) else {
            continue;
        };
        let all = all.clone();
        // Netlink and a few files: milliseconds, but not this thread's.
        let kept = tokio::task::spawn_blocking(move || {
            let kept = keeper.keep(&all);
            (keeper, kept)
        });
        let kept = kept.await?;
        keeper = kept.0;
        match kept.1 {
            Ok(true) => info!("the pods' network is as the Nodes say"),
            Ok(false) => {}
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                warn!(error, "the pods' network is not whole; it is tried again");
                looks.reset_after(AGAIN);
            }
        }
    }
}
