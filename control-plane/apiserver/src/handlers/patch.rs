//! PATCH: JSON patch, merge patch, strategic merge patch and apply patch, carried out on whatever stands there when it
//! is written.

use api::decode::{self, FieldValidation};
use api::field::FieldError;
use api::status::Status;
use api::{meta, patch, schema};
use serde_json::Value;

use super::{Call, apply, update};
use crate::body;
use crate::options::WriteOptions;
use crate::respond::{self, Answer};
use crate::write::{self, Managers, Wish};

/// The kinds of patch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Json,
    Merge,
    Strategic,
}

/// Answers with the object as stored.
pub(crate) async fn patch(call: &Call) -> Result<Answer, Status> {
    let content_type = body::content_type(&call.headers);
    if !call.row.patch_types().contains(&content_type) {
        return Err(Status::unsupported_patch_type(call.row));
    }
    let kind = match content_type {
        "application/apply-patch+yaml" => return apply::apply(call).await,
        "application/json-patch+json" => Kind::Json,
        "application/merge-patch+json" => Kind::Merge,
        _ => Kind::Strategic,
    };
    let options = WriteOptions::of_patch(&call.query, false)?;
    let (patch, mut twice) = decode::patch(&call.body)?;
    if kind == Kind::Json {
        twice
            .iter_mut()
            .for_each(|why| why.insert_str(0, "json patch "));
    }
    if kind != Kind::Json && !patch.is_object() {
        return Err(Status::bad_request(
            "error decoding patch: a merge patch must be an object",
        ));
    }
    let mut warnings = Vec::new();
    let part = update::part(call);
    let result = write::modify(call, options.dry_run, |current| {
        let (new, found) = patched(
            call,
            kind,
            (&patch, &twice),
            current,
            options.field_validation,
        )?;
        warnings = found;
        let sent = meta::name(&new);
        if sent != call.name {
            return Err(Status::bad_request(api::write::name_mismatch(
                sent, &call.name,
            )));
        }
        keeps_uid(call, &new, current)?;
        Ok(Wish::Change {
            new,
            part,
            managers: Managers::Track,
        })
    })
    .await;
    Ok(match result {
        Ok(written) => {
            let (stored, revision) = (&written.stored, written.revision);
            let answer =
                respond::object(call.row, call.accepted, call.include, 200, stored, revision);
            respond::warn(answer, &warnings)
        }
        Err(status) => respond::warn(
            respond::refusal_in(&status, call.accepted.encoding),
            &warnings,
        ),
    })
}

/// A patch asks for no revision and no uid to be there: another uid in it is a change of a field that nobody can change,
/// where a PUT with one would mean another object.
fn keeps_uid(call: &Call, new: &Value, current: &Value) -> Result<(), Status> {
    let sent = meta::uid(new);
    if sent.is_empty() || sent == meta::uid(current) {
        return Ok(());
    }
    let error = FieldError::invalid_text("metadata.uid", sent, "field is immutable");
    Err(Status::invalid_object(call.row, &call.name, &[error]))
}

/// The patched object, and what the client should be warned of, keys that come twice in the patch first.
fn patched(
    call: &Call,
    kind: Kind,
    (patch, twice): (&Value, &[String]),
    current: &Value,
    validation: FieldValidation,
) -> Result<(Value, Vec<String>), Status> {
    let (patched, mut unknown) = match kind {
        Kind::Json => (patch::json_patch(current, patch)?, None),
        Kind::Merge => {
            let mut patched = current.clone();
            patch::merge_patch(&mut patched, patch);
            // Of a custom resource, what pruning takes out of the whole is what nobody knows.
            let built_in = call.row.custom.is_none();
            (
                patched,
                built_in.then(|| decode::unknown_in_patch(call.row, patch)),
            )
        }
        Kind::Strategic => {
            let schema =
                schema::of(call.row).ok_or_else(|| Status::unsupported_patch_type(call.row))?;
            (
                patch::strategic_merge(schema, current, patch)?,
                Some(decode::unknown_in_patch(call.row, patch)),
            )
        }
    };
    // A merge patch answers for the fields that it names, not for those that were stored before.
    let mut found = twice.to_vec();
    if validation == FieldValidation::Ignore {
        unknown = Some(Vec::new());
        found.clear();
    }
    let refuse = |why: &str| {
        let error = FieldError::invalid_text("patch", &patch.to_string(), why);
        Status::invalid("", "", "", &[error])
    };
    let whole = if unknown.is_some() {
        FieldValidation::Ignore
    } else {
        FieldValidation::Warn
    };
    let checked = decode::check(call.row, patched, whole).map_err(|status| {
        let words = format!("cannot be handled as a {}: ", call.row.kind);
        refuse(
            status
                .message
                .split_once(&words)
                .map_or(status.message.as_str(), |(_, why)| why),
        )
    })?;
    found.extend(unknown.unwrap_or(checked.warnings));
    if validation == FieldValidation::Strict && !found.is_empty() {
        return Err(refuse(&format!(
            "strict decoding error: {}",
            found.join(", ")
        )));
    }
    Ok((checked.object, found))
}
