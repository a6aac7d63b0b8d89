//! CustomResourceDefinitions: what makes a schema structural, how it prunes, fills and validates objects, which names
//! a definition gets, how its columns are printed and its versions differ.
//!
//! [`custom::Custom`] gives one version's rules to the resource table of the `api` crate. This crate knows nothing of
//! storage or HTTP; times come in as arguments.
#![forbid(unsafe_code)]

pub mod columns;
pub mod conditions;
mod correlate;
pub mod custom;
mod declare;
mod defaults;
pub mod definition;
mod extensions;
pub mod fill;
pub mod formats;
pub mod jsonpath;
pub mod lists;
pub mod openapi;
pub mod path;
mod review;
mod review_rules;
pub mod row;
pub mod rules;
pub mod schema;
pub mod structural;
pub mod validate;
mod warnings;

pub use custom::Custom;
pub use definition::Definition;
pub use review::{review, review_status};
