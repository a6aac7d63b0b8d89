//! What every namespace has, and how one ends.

use std::sync::Arc;

use serde_json::json;

use crate::snapshot::{Name, Snapshot};
use crate::write::{Target, Write};

/// An open namespace has a ServiceAccount `default`. One that is to go is emptied, then let go.
pub(crate) fn reconcile(name: &Arc<str>, snapshot: &Snapshot) -> Vec<Write> {
    let Some(namespace) = snapshot.namespace(name) else {
        return Vec::new();
    };
    if namespace.metadata.deletion_timestamp.is_some() {
        let held = namespace
            .spec
            .finalizers
            .iter()
            .any(|finalizer| finalizer == "kubernetes");
        return match held {
            true => vec![
                Write::Empty {
                    namespace: Arc::clone(name),
                },
                Write::Finalize {
                    namespace: Arc::clone(name),
                },
            ],
            false => Vec::new(),
        };
    }
    if snapshot.account(&Name::new(name, "default")).is_some() {
        return Vec::new();
    }
    vec![Write::Create {
        target: Target::ServiceAccount,
        namespace: Arc::clone(name),
        object: json!({
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"namespace": &**name, "name": "default"},
        }),
    }]
}
