//! PATCH with an apply patch: server-side apply. What is absent is made.

use api::decode::{self, FieldValidation};
use api::meta;
use api::status::Status;
use serde_json::Value;

use super::{Call, create, update};
use crate::managers;
use crate::options::WriteOptions;
use crate::respond::{self, Answer};
use crate::write::{self, Managers, Wish, Written};

/// How often an object that comes and goes in the meantime is tried again.
const TRIES: usize = 4;

/// Answers with the object as stored.
pub(crate) async fn apply(call: &Call) -> Result<Answer, Status> {
    let options = WriteOptions::of_patch(&call.query, true)?;
    let (config, twice) = decode::apply_patch(&call.body)?;
    check(call, &config)?;
    let mut warnings = Vec::new();
    if options.field_validation != FieldValidation::Ignore
        && let Some(why) = twice
    {
        if options.field_validation == FieldValidation::Strict {
            return Err(Status::bad_request(format!(
                "error strict decoding YAML: {why}"
            )));
        }
        warnings.push(why);
    }
    let (code, written) = apply_or_create(call, &config, &options).await?;
    let answer = respond::object(
        call.row,
        call.accepted,
        call.include,
        code,
        &written.stored,
        written.revision,
    );
    Ok(respond::warn(answer, &warnings))
}

async fn apply_or_create(
    call: &Call,
    config: &Value,
    options: &WriteOptions,
) -> Result<(u16, Written), Status> {
    let part = update::part(call);
    let mut refusal = call.not_found();
    for _ in 0..TRIES {
        let changed = write::modify(call, options.dry_run, |current| {
            let applied = managers::apply(call, Some(current), config, options.force)?;
            let applied = decode::check(call.row, applied, FieldValidation::Ignore)?.object;
            Ok(Wish::Change {
                new: applied,
                part,
                managers: Managers::Known,
            })
        })
        .await;
        match changed {
            Ok(written) => return Ok((200, written)),
            // Only the object as a whole can be made.
            Err(status) if status.code != 404 || call.subresource.is_some() => return Err(status),
            Err(_) => {}
        }
        match make(call, config, options).await {
            Ok(written) => return Ok((201, written)),
            Err(status) if status.reason == "AlreadyExists" => refusal = status,
            Err(status) => return Err(status),
        }
    }
    Err(refusal)
}

async fn make(call: &Call, config: &Value, options: &WriteOptions) -> Result<Written, Status> {
    let uid = meta::uid(config);
    if !uid.is_empty() {
        let why = format!(
            "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
        );
        return Err(Status::conflict(call.row, &call.name, &why));
    }
    let mut new = managers::apply(call, None, config, options.force)?;
    if let Some(metadata) = api::value::object_mut(&mut new, "metadata") {
        api::value::set(metadata, "name", call.name.as_str());
    }
    let new = decode::check(call.row, new, FieldValidation::Ignore)?.object;
    create::insert(call, new, options.dry_run, Managers::Known).await
}

/// Refuses a configuration that is of another kind or for another object.
fn check(call: &Call, config: &Value) -> Result<(), Status> {
    let text = |path: &[&str]| api::value::text(config, path).to_owned();
    let (version, kind) = (text(&["apiVersion"]), text(&["kind"]));
    let refuse = |why: String| Err(Status::bad_request(why));
    if !config.is_object() && !config.is_null() {
        let found = api::decode::kind_of(config);
        return refuse(format!(
            "error decoding YAML: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {found} into Go \
             value of type map[string]interface {{}}"
        ));
    }
    if kind != call.row.kind || version != call.row.api_version() {
        let group_version = if version.contains('/') {
            version
        } else {
            format!("/{version}")
        };
        return refuse(format!("invalid object type: {group_version}, Kind={kind}"));
    }
    let sent = meta::name(config);
    if !sent.is_empty() && sent != call.name {
        return refuse(api::write::name_mismatch(sent, &call.name));
    }
    let sent = meta::namespace(config);
    if !sent.is_empty() && call.row.namespaced && sent != call.namespace {
        return refuse(
            "the namespace of the provided object does not match the namespace sent on the request"
                .into(),
        );
    }
    Ok(())
}
