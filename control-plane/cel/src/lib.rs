//! The Common Expression Language as Kubernetes uses it in validation rules.
#![forbid(unsafe_code)]

pub mod duration;
pub mod pattern;
pub mod url;
