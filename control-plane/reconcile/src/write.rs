//! What a controller wants done.

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

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
            Write::Empty { namespace } => write!(f, "empty Namespace {namespace}"),
            Write::Finalize { namespace } => write!(f, "finalize Namespace {namespace}"),
        }
    }
}
