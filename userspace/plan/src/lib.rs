//! From the model and what the kernel holds to wanted tables and ordered steps.
#![forbid(unsafe_code)]

pub mod tables;

pub use tables::{FrontendKey, Step, Store, Tables};
