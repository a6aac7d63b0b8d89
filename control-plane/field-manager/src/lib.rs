//! Who owns which field of an object: server-side apply (KEP-555) and `metadata.managedFields`.
//!
//! [`track`] records what a create, update or patch changed; [`apply`] merges what an applier sent into an object and
//! says who stands against it. Below them: [`Set`], a set of paths as `fieldsV1` encodes it; [`Type`], how the values
//! of a schema merge; and four walks over values (compare, collect, merge, prune).
//!
//! This crate knows nothing of storage, requests or the clock: the time of a write comes in as text.
#![forbid(unsafe_code)]

mod attempt;
mod collect;
mod compare;
mod element;
mod entries;
mod last_applied;
mod managers;
mod merge;
mod overlay;
mod refusal;
mod remove;
mod set;
mod types;
mod versions;

pub use entries::{NAME_MAX, manager_name};
pub use managers::{Writer, apply, track};
pub use overlay::overlay;
pub use refusal::Refusal;
pub use set::Set;
pub use types::Type;
