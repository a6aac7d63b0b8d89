//! Objects as their readers need them, and watch folding.
//!
//! [`objects`] are typed views. Nothing here speaks HTTP or keeps time.
#![forbid(unsafe_code)]

pub mod objects;

pub use objects::Object;
