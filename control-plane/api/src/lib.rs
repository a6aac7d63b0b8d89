//! The object vocabulary and the resource table: a resource is a row.
#![forbid(unsafe_code)]

mod kind;

pub use kind::Kind;
