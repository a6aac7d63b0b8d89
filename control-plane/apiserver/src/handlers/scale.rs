//! The subresource `scale`: replicas of any kind read and set in the words of autoscaling/v1.

use api::decode::{self, Decoded, FieldValidation};
use api::scale::{self, SCALES, Scale};
use api::status::Status;
use api::write::Part;
use api::{meta, patch, schema, value};
use http::Method;
use serde_json::Value;
use storage::Revision;

use super::{Call, storage_failure};
use crate::body;
use crate::object;
use crate::options::WriteOptions;
use crate::respond::{self, Answer};
use crate::write::{self, Managers};

/// Answers GET, PUT and PATCH.
pub(crate) async fn answer(
    call: &Call,
    replicas: &'static Scale,
    method: &Method,
) -> Result<Answer, Status> {
    match *method {
        Method::PUT => {
            let options = WriteOptions::parse(&call.query, "UpdateOptions")?;
            let Decoded { object, warnings } =
                body::object(&as_scale(call), options.field_validation)?;
            let answer = set(call, replicas, options.dry_run, |_| Ok(object.clone())).await?;
            Ok(respond::warn(answer, &warnings))
        }
        Method::PATCH => {
            let options = WriteOptions::parse(&call.query, "PatchOptions")?;
            let change = Change::read(call)?;
            let make = |current: &Value| change.on(current);
            set(call, replicas, options.dry_run, make).await
        }
        _ => {
            let entry = call.app.storage.get(&call.key()).await;
            let entry = entry.map_err(|error| storage_failure(&error))?;
            let entry = entry.ok_or_else(|| call.not_found())?;
            let scale = replicas.of(&object::decode(call.row, &entry));
            Ok(show(call, &scale, entry.modified))
        }
    }
}

/// The same request, to an object that is a Scale.
fn as_scale(call: &Call) -> Call {
    let mut call = call.with_name(&call.namespace, &call.name);
    call.row = &SCALES;
    call.subresource = None;
    call
}

fn show(call: &Call, scale: &Value, revision: Revision) -> Answer {
    let stored = object::encode(scale);
    respond::object(&SCALES, call.accepted, call.include, 200, &stored, revision)
}

/// What is to become of the Scale.
enum Change {
    Json(Value),
    Merge(Value),
    Strategic(Value),
}

impl Change {
    fn read(call: &Call) -> Result<Self, Status> {
        match body::content_type(&call.headers) {
            "application/json-patch+json" => decode::untyped_json(&call.body).map(Change::Json),
            "application/merge-patch+json" => decode::untyped_json(&call.body).map(Change::Merge),
            "application/strategic-merge-patch+json" => {
                decode::untyped_json(&call.body).map(Change::Strategic)
            }
            "application/apply-patch+yaml" => decode::untyped_yaml(&call.body).map(Change::Merge),
            _ => Err(Status::unsupported_patch_type()),
        }
    }

    fn on(&self, current: &Value) -> Result<Value, Status> {
        let patched = match self {
            Change::Json(change) => patch::json_patch(current, change)?,
            Change::Merge(change) => {
                let mut patched = current.clone();
                patch::merge_patch(&mut patched, change);
                patched
            }
            Change::Strategic(change) => {
                let schema = schema::of(&SCALES).ok_or_else(Status::unsupported_patch_type)?;
                patch::strategic_merge(schema, current, change)?
            }
        };
        decode::check(&SCALES, patched, FieldValidation::Ignore).map(|checked| checked.object)
    }
}

async fn set(
    call: &Call,
    replicas: &'static Scale,
    dry_run: bool,
    make: impl Fn(&Value) -> Result<Value, Status>,
) -> Result<Answer, Status> {
    let written = write::modify(call, dry_run, |current| {
        let wanted = make(&replicas.of(current))?;
        let sent = meta::name(&wanted);
        if sent != call.name && !sent.is_empty() {
            let why = api::write::name_mismatch(sent, &call.name);
            return Err(Status::bad_request(why));
        }
        let wrong = scale::validate(&wanted);
        if !wrong.is_empty() {
            return Err(Status::invalid_object(&SCALES, &call.name, &wrong));
        }
        let mut new = current.clone();
        replicas.apply(&wanted, &mut new);
        // What the Scale says of the version that it replaces holds for the object.
        let (uid, version) = (meta::uid(&wanted), meta::resource_version(&wanted));
        if let Some(metadata) = new.get_mut("metadata") {
            if !matches!(version, "" | "0") {
                value::set(metadata, "resourceVersion", version);
            }
            if !uid.is_empty() {
                value::set(metadata, "uid", uid);
            }
        }
        write::prepare(call, Part::Main, new, current, Managers::Track)
    })
    .await?;
    let object = object::decode_at(call.row, &written.stored, written.revision);
    Ok(show(call, &replicas.of(&object), written.revision))
}
