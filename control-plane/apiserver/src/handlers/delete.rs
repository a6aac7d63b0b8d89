//! DELETE of an object or of all that a selector picks.

use api::meta;
use api::status::{self, Status};
use api::write::{Deletion, Fate};
use storage::Entry;
use time::OffsetDateTime;

use super::Call;
use super::list::{self, Page};
use crate::body;
use crate::negotiate::{Encoding, Form};
use crate::object;
use crate::options::{self, ListOptions};
use crate::respond::{self, Answer};
use crate::write::{self, Wish, Written};

/// What became of the object.
pub(crate) struct Deleted {
    written: Written,
    uid: String,
    removed: bool,
}

/// Answers with the object where it stays for a while or its row says so, else with a Status.
pub(crate) async fn delete(call: &Call) -> Result<Answer, Status> {
    let (deletion, dry_run) = options::deletion(&call.query, body::delete_options(call)?)?;
    let deleted = remove(call, &deletion, dry_run).await?;
    if deleted.removed && !call.row.returns_deleted {
        let encoding = match call.accepted.form {
            Form::Object => call.accepted.encoding,
            Form::Table(_) | Form::Metadata(_) => Encoding::Json,
        };
        return Ok(respond::value(
            200,
            encoding,
            &status::deleted(call.row, &call.name, &deleted.uid),
        ));
    }
    let Written { stored, revision } = deleted.written;
    Ok(respond::object(
        call.row,
        call.accepted,
        call.include,
        200,
        &stored,
        revision,
    ))
}

/// Answers with the list of what was deleted.
pub(crate) async fn delete_collection(call: &Call) -> Result<Answer, Status> {
    let (deletion, dry_run) = options::deletion(&call.query, body::delete_options(call)?)?;
    let options = ListOptions::parse(&call.query)?;
    let (head, items) = match list::page(call, &options).await? {
        Page::Items(head, items) => (head, items),
        Page::Expired(answer) => return Ok(answer),
    };
    let mut gone = Vec::with_capacity(items.len());
    for entry in items {
        let found = object::decode(call.row, &entry);
        let one = call.with_name(meta::namespace(&found), meta::name(&found));
        match remove(&one, &deletion, dry_run).await {
            Ok(Deleted { written, .. }) => {
                gone.push(Entry {
                    value: written.stored,
                    modified: written.revision,
                    ..entry
                });
            }
            Err(status) if status.code == 404 => {}
            Err(status) => return Err(status),
        }
    }
    Ok(respond::list(
        call.row,
        call.accepted,
        call.include,
        &head,
        gone,
    ))
}

/// Deletes what the call names.
pub(crate) async fn remove(
    call: &Call,
    deletion: &Deletion,
    dry_run: bool,
) -> Result<Deleted, Status> {
    let (mut uid, mut removed) = (String::new(), false);
    let written = write::modify(call, dry_run, |current| {
        deletion.check(call.row, current)?;
        meta::uid(current).clone_into(&mut uid);
        let fate = deletion.fate(call.row, current, OffsetDateTime::now_utc());
        removed = fate == Fate::Remove;
        Ok(Wish::Delete(fate))
    })
    .await?;
    Ok(Deleted {
        written,
        uid,
        removed,
    })
}
