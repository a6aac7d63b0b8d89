//! Watch to model to plan to kernel: the kube-proxy replacement.
//!
//! [`run`] is the shell: it follows Services, EndpointSlices and Nodes, and carries out what [`Balancer`]
//! decides. What is in the kernel serves on when the process ends, when it starts again and while the API server
//! cannot be reached; [`listing`] shows it to people.
//!
//! This crate knows nothing about command lines.
#![forbid(unsafe_code)]

mod apply;
mod attach;
mod balancer;
mod crowd;
mod error;
mod events;
mod expiry;
mod grace;
mod hand_back;
mod health_checks;
mod healthz;
mod histogram;
mod host_pods;
mod inputs;
mod kube_proxy;
mod leaving;
pub mod listing;
mod members;
mod metrics;
pub mod pod_network;
mod pods;
mod policy;
mod quotas;
mod rest_client;
mod routing;
mod run;
mod settings;
mod status;
mod takeover;
mod trouble;
mod vanished;
mod ways;

pub use balancer::{Balancer, Turn};
pub use error::Error;
pub use hand_back::hand_back;
pub use kube_proxy::{ByFamily, KubeProxy, NoLocalEndpoints};
pub use policy::PolicyStatus;
pub use quotas::FlowLimits;
pub use routing::HostRouting;
pub use run::run;
pub use settings::{Settings, TABLES_MAX};
pub use status::{Latency, Status};
pub use trouble::Trouble;
