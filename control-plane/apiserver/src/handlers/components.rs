//! ComponentStatus: never stored, but asked for. The storage is the one part that this server can speak for.

use api::status::Status;
use bytes::Bytes;
use serde_json::{Value, json};
use storage::Entry;

use super::{Call, storage_failure};
use crate::object::{self, UNWRITTEN};
use crate::respond::{self, Answer, ListHead};

/// The store's name, as Kubernetes has it.
const STORE: &str = "etcd-0";

/// The one component.
pub(crate) async fn get(call: &Call) -> Result<Answer, Status> {
    if call.name != STORE {
        return Err(call.not_found());
    }
    let stored = store(call).await;
    Ok(respond::object(
        call.row,
        call.accepted,
        call.include,
        200,
        &stored,
        UNWRITTEN,
    ))
}

/// All components.
pub(crate) async fn list(call: &Call) -> Result<Answer, Status> {
    let head = ListHead {
        revision: UNWRITTEN,
        continue_token: String::new(),
        remaining: None,
    };
    let entry = Entry {
        key: STORE.into(),
        value: store(call).await,
        created: UNWRITTEN,
        modified: UNWRITTEN,
    };
    Ok(respond::list(
        call.row,
        call.accepted,
        call.include,
        &head,
        vec![entry],
    ))
}

async fn store(call: &Call) -> Bytes {
    let found = call
        .app
        .storage
        .get(&call.app.namespaces.key("", "default"))
        .await;
    let condition = match found.map_err(|error| storage_failure(&error)) {
        Ok(_) => json!({"type": "Healthy", "status": "True", "message": "ok"}),
        Err(status) => json!({"type": "Healthy", "status": "False", "error": status.message}),
    };
    let object: Value = json!({
        "kind": "ComponentStatus", "apiVersion": "v1", "metadata": {"name": STORE}, "conditions": [condition],
    });
    object::encode(&object)
}
