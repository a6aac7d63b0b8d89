//! Objects as their readers need them, and watch folding.
//!
//! [`objects`] are typed views; [`Services`] folds what watches say into [`model`] values, and keeps what it
//! could not understand as [`Finding`]s. Nothing here speaks HTTP or keeps time.
#![forbid(unsafe_code)]

mod account;
mod annotations;
mod endpoints;
mod event;
mod finding;
mod host_ports;
mod node_ports;
pub mod objects;
mod pod_ranges;
pub mod policies;
mod service;
mod services;
mod slice;

pub use account::ServiceAccount;
pub use event::{Event, Listing};
pub use finding::Finding;
pub use node_ports::{BadNodePortAddresses, NodePortAddresses};
pub use objects::Object;
pub use pod_ranges::{NodeRanges, PodRanges};
pub use policies::Policies;
pub use services::{Change, HealthCheck, News, Services, Trigger};
