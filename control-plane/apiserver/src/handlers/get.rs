//! GET of one object.

use api::status::Status;

use super::{Call, storage_failure};
use crate::options;
use crate::respond::{self, Answer};

/// The newest state; a resourceVersion asks that it be no older.
pub(crate) async fn get(call: &Call) -> Result<Answer, Status> {
    let asked = options::resource_version(call.query.text("resourceVersion"))?.unwrap_or(0);
    let current = call.app.storage.revision().0;
    if asked > current {
        return Err(Status::future_version(asked, current));
    }
    let entry = call
        .app
        .storage
        .get(&call.key())
        .await
        .map_err(|e| storage_failure(&e))?;
    let entry = entry.ok_or_else(|| call.not_found())?;
    Ok(respond::object(
        call.row,
        call.accepted,
        call.include,
        200,
        &entry.value,
        entry.modified,
    ))
}
