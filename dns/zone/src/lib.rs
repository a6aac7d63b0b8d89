//! Services to DNS records, question to answer.
//!
//! A [`Store`] folds what watches say; a [`Snapshot`] of it answers questions by the Kubernetes DNS specification
//! 1.1.0 into a [`Reply`], the octets that are sent. Addresses of a Service are kept as records ready to send; an
//! answer is one lookup and a copy. This crate knows no sockets, no clock, and no other names than the cluster's.
#![forbid(unsafe_code)]

mod answer;
mod config;
mod host;
mod name;
pub mod query;
pub mod reply;
mod reverse;
mod service;
mod snapshot;
mod srv;
mod store;
mod transfer;

pub use answer::{Absence, Outcome};
pub use config::{Config, Pods, TTL_SECS};
pub use name::{NAME_MAX, Name, NameError, labels};
pub use query::{Edns, Odd, Query, Question};
pub use reply::{Frame, Reply};
pub use service::External;
pub use snapshot::{PodName, ServiceView, Snapshot};
pub use store::{Options, Store};
pub use transfer::Record;
