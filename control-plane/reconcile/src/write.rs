//! What a controller wants done.

use std::fmt;
use std::sync::Arc;

use serde_json::Value;
use view::objects::OwnerReference;

use crate::protection::Claim;
use crate::snapshot::Name;

/// The kinds that controllers write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// `discovery.k8s.io/v1` EndpointSlice.
    EndpointSlice,
    /// `v1` Endpoints.
    Endpoints,
    /// `v1` ServiceAccount.
    ServiceAccount,
}

/// The collection that an object is in.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Origin {
    /// Empty for the core group.
    pub group: Arc<str>,
    /// For instance `v1`.
    pub version: Arc<str>,
    /// As in the path.
    pub plural: Arc<str>,
    /// Whether its objects live in a namespace.
    pub namespaced: bool,
}

impl Origin {
    pub(crate) fn of<T: view::Object>() -> Origin {
        Origin {
            group: T::GROUP.into(),
            version: T::VERSION.into(),
            plural: T::PLURAL.into(),
            namespaced: T::NAMESPACED,
        }
    }
}

/// One change at the API server.
#[derive(Clone, PartialEq, Debug)]
pub enum Write {
    /// Create an object.
    Create {
        /// Its kind.
        target: Target,
        /// Where.
        namespace: Arc<str>,
        /// The whole object; named, or with a `generateName`.
        object: Value,
    },
    /// Replace an object, if it is still of the resource version in `object`.
    Replace {
        /// Its kind.
        target: Target,
        /// Which.
        name: Name,
        /// The whole object.
        object: Value,
    },
    /// Delete an object, if it is still the one with this uid and of this resource version.
    Delete {
        /// Its kind.
        target: Target,
        /// Which.
        name: Name,
        /// Of the object that was looked at.
        uid: String,
        /// Of the object that was looked at.
        resource_version: String,
    },
    /// Delete an object of any kind, if it is still the one with this uid and of this resource version.
    Remove {
        /// Its collection.
        origin: Origin,
        /// Which.
        name: Name,
        /// Of the object that was looked at.
        uid: String,
        /// Of the object that was looked at.
        resource_version: String,
        /// It stays if one of these turns out to exist.
        unless_owned_by: Vec<OwnerReference>,
        /// Without a grace period.
        at_once: bool,
    },
    /// Give an object other owners.
    SetOwners {
        /// Its collection.
        origin: Origin,
        /// Which.
        name: Name,
        /// Of the object that was looked at.
        uid: String,
        /// Of the object that was looked at.
        resource_version: String,
        /// All that are left.
        owners: Vec<OwnerReference>,
    },
    /// Give an object other finalizers.
    SetFinalizers {
        /// Its collection.
        origin: Origin,
        /// Which.
        name: Name,
        /// Of the object that was looked at.
        uid: String,
        /// Of the object that was looked at.
        resource_version: String,
        /// All that it is to have.
        finalizers: Vec<String>,
        /// It stays as it is if a pod turns out to use this claim.
        unless_used: Option<Claim>,
    },
    /// Delete every object of every kind in a namespace, pods first; done when nothing is left.
    Empty {
        /// The namespace.
        namespace: Arc<str>,
    },
    /// Take `kubernetes` out of a namespace's finalizers, so that it may go.
    Finalize {
        /// The namespace.
        namespace: Arc<str>,
    },
}

/// For logs, and for people who read tests.
impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Write::Create {
                target,
                namespace,
                object,
            } => {
                let meta = &object["metadata"];
                let name = meta["name"].as_str().or(meta["generateName"].as_str());
                write!(
                    f,
                    "create {target:?} {namespace}/{}",
                    name.unwrap_or_default()
                )
            }
            Write::Replace { target, name, .. } => write!(f, "replace {target:?} {name}"),
            Write::Delete { target, name, .. } => write!(f, "delete {target:?} {name}"),
            Write::Remove { origin, name, .. } => write!(f, "remove {} {name}", origin.plural),
            Write::SetOwners {
                origin,
                name,
                owners,
                ..
            } => write!(f, "leave {} {name} {} owners", origin.plural, owners.len()),
            Write::SetFinalizers {
                origin,
                name,
                finalizers,
                ..
            } => write!(
                f,
                "leave {} {name} finalizers [{}]",
                origin.plural,
                finalizers.join(", ")
            ),
            Write::Empty { namespace } => write!(f, "empty Namespace {namespace}"),
            Write::Finalize { namespace } => write!(f, "finalize Namespace {namespace}"),
        }
    }
}
