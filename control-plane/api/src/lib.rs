//! The object vocabulary of the Kubernetes API, and the resource table: a resource is a row.
//!
//! Objects are JSON values, kept as they were sent; [`table::RESOURCES`] says of each kind how it is named, filled,
//! checked and printed. Beside the table stands what all kinds share: metadata, decoding, patches, selectors, the
//! `Status` object, discovery and OpenAPI documents.
//!
//! This crate does no IO and has no clock. Times, uids and random suffixes are parameters.
#![forbid(unsafe_code)]

pub mod custom;
pub mod decode;
pub mod discovery;
pub mod duration;
pub mod field;
mod kind;
mod kinds;
pub mod meta;
pub mod names;
pub mod net;
pub mod openapi;
pub mod patch;

pub mod printing;
pub mod protobuf;
pub mod quantity;
pub mod scale;
pub mod schema;
pub mod selector;
pub mod service;
pub mod status;
pub mod table;
pub mod value;
pub mod webhook_client;
pub mod write;

pub use field::FieldError;
pub use kind::Kind;
pub use kinds::{api_service, pod_parts};
pub use status::Status;
pub use table::Resource;
