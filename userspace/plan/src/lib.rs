//! From the model and what the kernel holds to wanted tables and ordered steps.
//!
//! [`Planner`] decides, [`Tables`] and [`Step`] are what it decides about, [`Store`] is where it takes
//! effect. This crate knows nothing about aya, Kubernetes or time.
#![forbid(unsafe_code)]

mod entries;
mod holdings;
mod ids;
mod maglev;
mod planner;
pub mod policy;
mod problem;
mod ranges;
mod reach;
pub mod tables;
pub mod text;

pub use planner::{Capacities, Epoch, Left, Named, Plan, Planner};
pub use problem::{Problem, Table};
pub use reach::Reach;
pub use tables::{FrontendKey, Step, Store, Tables};
