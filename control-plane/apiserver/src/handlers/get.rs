//! GET of one object.

use api::status::Status;

use storage::{Entry, Range, Revision};

use super::{Call, current, storage_failure};
use crate::hooks::conversion;
use crate::options;
use crate::respond::{self, Answer};

/// The newest state; a resourceVersion asks that it be no older. With `resourceVersionMatch=Exact` it is the state at
/// that very resourceVersion, as long as its history is retained: Kubernetes has this of lists alone.
pub(crate) async fn get(call: &Call) -> Result<Answer, Status> {
    let asked = options::resource_version(call.query.text("resourceVersion"))?.unwrap_or(0);
    let newest = current(&call.app, Some(asked)).await?.0;
    if asked > newest {
        return Err(Status::future_version(asked, newest));
    }
    let entry = if asked > 0 && call.query.text("resourceVersionMatch") == "Exact" {
        at(call, Revision(asked)).await?
    } else {
        let found = call.app.storage.get(&call.key()).await;
        found.map_err(|e| storage_failure(&e))?
    };
    let entry = entry.ok_or_else(|| call.not_found())?;
    let entry = conversion::entry(&call.app, call.row, entry).await?;
    Ok(respond::object(
        call.row,
        call.accepted,
        call.include,
        200,
        &entry.value,
        entry.modified,
    ))
}

/// The object as it stood at a revision.
async fn at(call: &Call, revision: Revision) -> Result<Option<Entry>, Status> {
    let key = call.key();
    let range = Range {
        prefix: key.clone(),
        limit: 1,
        at: Some(revision),
        ..Range::default()
    };
    let page = call.app.storage.list(range).await;
    let found = page.map_err(|e| storage_failure(&e))?.entries.pop();
    Ok(found.filter(|entry| *entry.key == *key))
}
