//! Keeps the statuses of ValidatingAdmissionPolicies: what type checking says of their expressions.

use std::sync::Arc;
use std::time::Duration;

use admission::hook::{self, typing};
use api::meta;
use api::value::at;
use serde_json::Value;
use storage::{Error, Revision, Write};

use crate::{State, write};

const POLICIES: &str = "validatingadmissionpolicies";
/// After the store failed.
const RETRY: Duration = Duration::from_secs(1);

/// Checks every policy whose status is not of what it says now; until it is dropped.
pub(crate) async fn keep(state: Arc<State>) {
    let Some(mut changes) = state.mirror.changes(POLICIES) else {
        return;
    };
    loop {
        changes.borrow_and_update();
        if let Err(error) = check(&state).await {
            tracing::debug!(%error, "statuses of policies");
            tokio::time::sleep(RETRY).await;
            continue;
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

async fn check(state: &State) -> Result<(), Error> {
    let Some(row) = api::table::find(hook::GROUP, "v1", POLICIES) else {
        return Ok(());
    };
    for policy in state.mirror.list(POLICIES, "") {
        let seen = at(&policy, &["status", "observedGeneration"]);
        if seen == at(&policy, &["metadata", "generation"]) {
            continue;
        }
        let mut new = Value::clone(&policy);
        let mut status = typing::status(&policy);
        let conditions = at(&policy, &["status", "conditions"]);
        if conditions.is_array() {
            api::value::set(&mut status, "conditions", conditions.clone());
        }
        api::value::set(&mut new, "status", status);
        let expected: u64 = meta::resource_version(&policy).parse().unwrap_or_default();
        let written = state.storage.write(vec![Write::Update {
            key: row.key("", meta::name(&policy)),
            value: write::stored_form(row, &new),
            expected: Revision(expected),
        }]);
        match written.await {
            Ok(revision) => state.mirror.caught_up(row, revision).await,
            // The change of somebody else comes as a change of its own.
            Err(Error::Conflict { .. } | Error::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
