//! PUT: the whole object in place of the one that stands there.

use api::decode::Decoded;
use api::meta;
use api::status::Status;
use api::write::Part;

use super::{Call, create};
use crate::body;
use crate::options::WriteOptions;
use crate::respond::{self, Answer};
use crate::write::{self, Managers, Wish};

/// Answers with the object as stored: 201 where the resource allows PUT to make it.
pub(crate) async fn update(call: &Call) -> Result<Answer, Status> {
    let options = WriteOptions::parse(&call.query, "UpdateOptions")?;
    let Decoded { object, warnings } = body::object(call, options.field_validation)?;
    let sent = meta::name(&object);
    if !sent.is_empty() && sent != call.name {
        return Err(Status::bad_request(api::write::name_mismatch(
            sent, &call.name,
        )));
    }
    let part = part(call);
    let replaced = write::modify(call, options.dry_run, |_| {
        Ok(Wish::Change {
            new: object.clone(),
            part,
            managers: Managers::Track,
        })
    })
    .await;
    let (code, result) = match replaced {
        Err(status) if status.code == 404 && may_create(call, &object) => (
            201,
            create::insert(call, object, options.dry_run, Managers::Track).await,
        ),
        result => (200, result),
    };
    Ok(match result {
        Ok(written) => {
            let (stored, revision) = (&written.stored, written.revision);
            let answer = respond::object(
                call.row,
                call.accepted,
                call.include,
                code,
                stored,
                revision,
            );
            respond::warn(answer, &warnings)
        }
        Err(status) => respond::warn(
            respond::refusal_in(&status, call.accepted.encoding),
            &warnings,
        ),
    })
}

/// Which part of the object the path names.
pub(crate) fn part(call: &Call) -> Part {
    match call.subresource.map_or("", |sub| sub.name) {
        "status" => Part::Status,
        "finalize" => Part::Finalize,
        "approval" => Part::Approval,
        "ephemeralcontainers" => Part::Ephemeral,
        "resize" => Part::Resize,
        _ => Part::Main,
    }
}

/// An object that says which version it replaces means one that exists.
fn may_create(call: &Call, object: &serde_json::Value) -> bool {
    call.row.create_on_update
        && call.subresource.is_none()
        && matches!(meta::resource_version(object), "" | "0")
        && meta::uid(object).is_empty()
        && meta::name(object) == call.name
}
