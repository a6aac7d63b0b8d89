//! Controllers as plain functions: key and snapshot in, writes out.
//!
//! [`Snapshot`] folds what watches say and tells which [`Key`]s a change touches; [`reconcile`] looks at everything
//! that belongs to a key and says what to write. No clock, no network, no memory of earlier calls: a write that was
//! lost is simply decided again.
#![forbid(unsafe_code)]

mod endpoints;
mod fill;
mod garbage;
mod index;
mod leaving;
mod mirror;
mod namespaces;
mod pods;
mod protection;
mod render;
mod slices;
mod snapshot;
mod write;

use std::sync::Arc;

pub use protection::{Claim, Protected};
pub use snapshot::{Bare, Name, Snapshot, Stored};
pub use write::{Origin, Target, Write};

/// What is decided about as a whole.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Key {
    /// EndpointSlices of a Service with a selector.
    Slices(Name),
    /// The Endpoints object of a Service with a selector.
    Endpoints(Name),
    /// EndpointSlices that repeat hand-made Endpoints of a Service without a selector.
    Mirror(Name),
    /// A namespace: its default ServiceAccount, and its end.
    Namespace(Arc<str>),
    /// A pod that is to go.
    Pod(Name),
    /// An object of any kind, by uid: it goes when its owners are gone, and its dependents when it goes.
    Owned(Arc<str>),
    /// An object of storage, which stays while it is in use.
    Protected(Protected, Name),
}

/// What to write so that what belongs to `key` is as it should be; nothing when it is. The writes are to be done in
/// their order, and the rest left when one fails.
pub fn reconcile(key: &Key, snapshot: &Snapshot) -> Vec<Write> {
    match key {
        Key::Slices(name) => slices::reconcile(name, snapshot),
        Key::Endpoints(name) => endpoints::reconcile(name, snapshot),
        Key::Mirror(name) => mirror::reconcile(name, snapshot),
        Key::Namespace(name) => namespaces::reconcile(name, snapshot),
        Key::Pod(name) => leaving::reconcile(name, snapshot),
        Key::Owned(uid) => garbage::reconcile(uid, snapshot),
        Key::Protected(kind, name) => protection::reconcile(*kind, name, snapshot),
    }
}
