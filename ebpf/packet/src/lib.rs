//! Headers, checksums, NAT rewriting and backend choice: one logic for the kernel programs and for the host.
//!
//! Nothing here touches a map or a kernel helper: packets are [`Bytes`], tables are [`Tables`], and the kernel
//! programs, the tests and the simulator each bring their own. Nearly everything is inlined into the kernel programs;
//! what is not says which stack it spares.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod balance;
pub mod bytes;
pub mod checksum;
pub mod choose;
pub mod dns;
pub mod family;
pub mod hop;
pub mod limit;
pub mod local_dns;
#[cfg(test)]
mod model;
pub mod parse;
mod plain;
pub mod policy;
pub mod port_range;
pub mod quote;
pub mod refuse;
pub mod sctp;
pub mod socket;
pub mod tables;

pub use balance::{Decision, Place, balance, reply};
pub use bytes::Bytes;
pub use family::{Address, Family, Flow, State, V4, V6};
pub use parse::{Fault, Fragment, Headers, Link, Transport};
pub use tables::{Inserted, Shared, Tables};
