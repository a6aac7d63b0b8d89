//! The DNS server around a zone: a Corefile names server blocks, a block is a chain of plugins in CoreDNS's fixed
//! order, and a query goes down the chain of the block with the longest matching zone.
//!
//! Start with [`plugin::Plugin`], then [`instance::Instance`], which a Corefile becomes. Sockets are in
//! `transport`; they know no plugin. Plugins know no socket of a client: a [`message::Request`] comes in, an
//! [`message::Outcome`] goes out. Which records a cluster has is decided in the crate `zone`, not here.

#![forbid(unsafe_code)]

pub mod client;
pub mod cluster;
pub mod corefile;
pub mod fast;
pub mod http;
pub mod instance;
pub mod interface;
pub mod kernel;
mod listen;
pub mod message;
pub mod metrics;
pub mod names;
pub mod plugin;
pub mod reload;
pub mod transport;
pub mod watch;
