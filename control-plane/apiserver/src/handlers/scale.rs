//! The subresource `scale`: replicas of any kind read and set in the words of autoscaling/v1.

use api::decode::{self, Decoded, FieldValidation};
use api::scale::{self, SCALES, Scale};
use api::status::Status;
use api::write::Part;
use api::{meta, patch, schema, value};
use http::Method;
use serde_json::{Value, json};
use storage::Revision;

use super::{Call, storage_failure};
use crate::body;
use crate::managers;
use crate::object;
use crate::options::WriteOptions;
use crate::respond::{self, Answer};
use crate::write::{self, Managers, Wish};

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
            let applies = body::content_type(&call.headers) == "application/apply-patch+yaml";
            let options = WriteOptions::of_patch(&call.query, applies)?;
            if applies {
                return apply(call, replicas, &options).await;
            }
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
        let content_type = body::content_type(&call.headers);
        if !call.row.patch_types().contains(&content_type) {
            return Err(Status::unsupported_patch_type(call.row));
        }
        match content_type {
            "application/json-patch+json" => decode::untyped_json(&call.body).map(Change::Json),
            "application/merge-patch+json" => decode::untyped_json(&call.body).map(Change::Merge),
            "application/strategic-merge-patch+json" => {
                decode::untyped_json(&call.body).map(Change::Strategic)
            }
            _ => Err(Status::unsupported_patch_type(call.row)),
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
                let schema =
                    schema::of(&SCALES).ok_or_else(|| Status::unsupported_patch_type(&SCALES))?;
                patch::strategic_merge(schema, current, change)?
            }
        };
        decode::check(&SCALES, patched, FieldValidation::Ignore).map(|checked| checked.object)
    }
}

/// Applies a Scale: the applier owns the replicas of the object that is scaled.
async fn apply(
    call: &Call,
    replicas: &'static Scale,
    options: &WriteOptions,
) -> Result<Answer, Status> {
    let (config, _) = decode::apply_patch(&call.body)?;
    let config = decode::check(&SCALES, config, FieldValidation::Ignore)?.object;
    refuse_wrong(call, &config)?;
    let mut wish = json!({
        "apiVersion": call.row.api_version(), "kind": call.row.kind,
        "metadata": {"name": call.name, "namespace": call.namespace},
    });
    for key in ["uid", "resourceVersion"] {
        value::keep(&mut wish["metadata"], &config["metadata"], key);
    }
    if !value::at(&config, &["spec", "replicas"]).is_null() {
        replicas.apply(&config, &mut wish);
    }
    let written = write::modify(call, options.dry_run, |current| {
        let applied = managers::apply(call, Some(current), &wish, options.force)?;
        Ok(Wish::Change {
            new: applied,
            part: Part::Main,
            managers: Managers::Known,
        })
    })
    .await?;
    let object = object::decode_at(call.row, &written.stored, written.revision);
    Ok(show(call, &replicas.of(&object), written.revision))
}

fn refuse_wrong(call: &Call, scale: &Value) -> Result<(), Status> {
    let sent = meta::name(scale);
    if sent != call.name && !sent.is_empty() {
        let why = api::write::name_mismatch(sent, &call.name);
        return Err(Status::bad_request(why));
    }
    let wrong = scale::validate(scale);
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(Status::invalid_object(&SCALES, &call.name, &wrong))
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
        refuse_wrong(call, &wanted)?;
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
        Ok(Wish::Change {
            new,
            part: Part::Main,
            managers: Managers::Track,
        })
    })
    .await?;
    let object = object::decode_at(call.row, &written.stored, written.revision);
    Ok(show(call, &replicas.of(&object), written.revision))
}
