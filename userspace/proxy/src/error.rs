//! What ends a proxy. What is wrong with one service does not.

use std::io;
use std::net::SocketAddr;

/// Why the proxy could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel's side could not be set up.
    #[error("cannot set up the datapath")]
    Datapath(#[from] bpf::Error),
    /// The host's links or mounts could not be read or changed.
    #[error("cannot prepare the host")]
    Host(#[from] net::Error),
    /// The address for metrics is taken, or not this host's.
    #[error("cannot serve metrics on {address}: choose another --metrics-bind-address")]
    Metrics {
        /// As given.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// The address for health is taken, or not this host's.
    #[error("cannot serve health on {address}: choose another --healthz-bind-address")]
    Healthz {
        /// As given.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// With `once`: a step was refused.
    #[error("cannot program the tables")]
    Apply(#[from] bpf::ApplyError),
    /// kube-proxy's rules could not be taken over.
    #[error("cannot take over from kube-proxy: {action}")]
    Takeover {
        /// What was being done.
        action: &'static str,
        /// What the kernel or iptables said.
        source: io::Error,
    },
    /// A thread of ours ended without an answer.
    #[error("a thread of the proxy ended unexpectedly")]
    Thread(#[from] tokio::task::JoinError),
}
