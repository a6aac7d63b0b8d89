//! What every namespace is given: the service account `default`, and the authority that the server's certificate is
//! signed by, as ConfigMap `kube-root-ca.crt`.

use std::sync::Arc;
use std::time::Duration;

use api::meta::{self, Stamps};
use serde_json::{Value, json};
use storage::{Error as StorageError, Write};
use time::OffsetDateTime;

use crate::{State, object, write};

const RETRY: Duration = Duration::from_secs(1);

/// Gives every namespace what it lacks; until it is dropped.
pub(crate) async fn furnish(state: Arc<State>) {
    let (Some(mut namespaces), Some(mut accounts)) = (
        state.mirror.changes("namespaces"),
        state.mirror.changes("serviceaccounts"),
    ) else {
        return;
    };
    loop {
        namespaces.mark_unchanged();
        accounts.mark_unchanged();
        let mut failed = false;
        for namespace in state.mirror.list("namespaces", "") {
            if meta::is_terminating(&namespace) {
                continue;
            }
            let name = meta::name(&namespace);
            for wanted in [account(name), authority(name, &state.authorities)] {
                if let Err(error) = keep(&state, name, &wanted).await {
                    tracing::warn!(%error, namespace = name, "a namespace lacks what each is given");
                    failed = true;
                }
            }
        }
        tokio::select! {
            changed = namespaces.changed() => if changed.is_err() { return },
            changed = accounts.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(RETRY), if failed => {}
        }
    }
}

fn account(namespace: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": "default", "namespace": namespace},
    })
}

fn authority(namespace: &str, certificate: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {
            "name": "kube-root-ca.crt", "namespace": namespace,
            "annotations": {
                "kubernetes.io/description":
                    "The certificate of the authority that signs the certificate of this cluster's API server. Clients in Pods verify the server with it.",
            },
        },
        "data": {"ca.crt": certificate},
    })
}

/// Makes the object, or puts its data in the place of other data.
pub(crate) async fn keep(
    state: &State,
    namespace: &str,
    wanted: &Value,
) -> Result<(), StorageError> {
    let kind = api::value::text(wanted, &["kind"]);
    let Some(row) = api::table::find_kind("", "v1", kind) else {
        return Ok(());
    };
    let key = row.key(namespace, meta::name(wanted));
    let change = match state.storage.get(&key).await? {
        Some(entry) => {
            let mut current = object::decode(row, &entry);
            if current["data"] == wanted["data"] {
                return Ok(());
            }
            api::value::set(&mut current, "data", wanted["data"].clone());
            Write::Update {
                key,
                value: write::stored_form(row, &current),
                expected: entry.modified,
            }
        }
        None => {
            let mut new = wanted.clone();
            let stamps = Stamps {
                now: OffsetDateTime::now_utc(),
                uid: uuid::Uuid::new_v4().to_string(),
                suffix: String::new(),
            };
            if let Err(status) = api::write::create(row, &mut new, namespace, &stamps) {
                tracing::error!(%status, kind, "what every namespace is given is refused");
                return Ok(());
            }
            Write::Create {
                key,
                value: write::stored_form(row, &new),
            }
        }
    };
    match state.storage.write(vec![change]).await {
        Ok(_) => Ok(()),
        // Somebody else was quicker; his change comes as one of its own.
        Err(
            StorageError::Exists { .. }
            | StorageError::Conflict { .. }
            | StorageError::NotFound { .. },
        ) => Ok(()),
        Err(error) => Err(error),
    }
}
