//! Addresses for pods: which there are ([`Range`]), who has which ([`Leases`]), and the journal that remembers it
//! ([`journal`]).
//!
//! Pure: this crate opens no file and asks no kernel. What it is given is a value, and so is what it says.
#![forbid(unsafe_code)]

pub mod journal;
mod leases;
mod node;
mod range;

pub use leases::{Attachment, Lease, Leases, Record, Refused};
pub use node::NodeFile;
pub use range::{BadRange, Range};
