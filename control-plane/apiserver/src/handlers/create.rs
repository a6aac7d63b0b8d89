//! POST to a collection.

use admission::Operation;
use api::decode::Decoded;
use api::meta::{self, Stamps};
use api::status::Status;
use serde_json::Value;
use storage::{Error, Write};
use time::OffsetDateTime;

use super::{Call, storage_failure};
use crate::access;
use crate::admit;
use crate::body;
use crate::hooks::conversion;
use crate::object;
use crate::options::WriteOptions;
use crate::respond::{self, Answer};
use crate::write::{self, Managers, Written};

/// How often another name is generated after one was taken.
const NAME_TRIES: usize = 8;
/// Letters and digits that read well and spell nothing.
const SUFFIX: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Answers with the object as stored.
pub(crate) async fn create(call: &Call) -> Result<Answer, Status> {
    let options = WriteOptions::parse(&call.query, "CreateOptions")?;
    let Decoded { object, warnings } = body::object(call, options.field_validation)?;
    match insert(call, object, options.dry_run, Managers::Track).await {
        Ok(written) => {
            let answer = respond::object(
                call.row,
                call.accepted,
                call.include,
                201,
                &written.stored,
                written.revision,
            );
            Ok(respond::warn(answer, &warnings))
        }
        Err(status) => Ok(respond::warn(
            respond::refusal_in(&status, call.accepted.encoding),
            &warnings,
        )),
    }
}

/// Stores a new object.
pub(crate) async fn insert(
    call: &Call,
    mut object: Value,
    dry_run: bool,
    managers: Managers,
) -> Result<Written, Status> {
    match_namespace(call, &object)?;
    admit::ready(call, &object).await?;
    if call
        .row
        .is("certificates.k8s.io", "CertificateSigningRequest")
    {
        sign(call, &mut object);
    }
    let asked = admit::Asked {
        operation: Operation::Create,
        dry_run,
    };
    let generated = meta::name(&object).is_empty();
    let mut taken = String::new();
    let mut tries = if generated { NAME_TRIES } else { 1 };
    while tries > 0 {
        tries -= 1;
        let mut new = if tries == 0 {
            std::mem::take(&mut object)
        } else {
            object.clone()
        };
        let stamps = stamps();
        api::write::fill_new(call.row, &mut new, &call.namespace, &stamps)?;
        if managers == Managers::Track {
            crate::managers::track(call, None, &mut new);
        }
        // What plugins change is nobody's: the record of managers is made before.
        admit::mutate(call, asked, &mut new, None, &stamps.suffix).await?;
        api::write::check_new(call.row, &mut new)?;
        access::check_grant(call, &new, None)?;
        admit::validate(call, asked, &new, None).await?;
        // As Kubernetes does when it reads what is stored: a Job's labels are those that its template was given.
        (call.row.default)(&mut new);
        call.warn((call.row.warnings)(&new, None));
        meta::name(&new).clone_into(&mut taken);
        if let Some(written) = store(call, new, dry_run).await? {
            return Ok(written);
        }
    }
    if generated {
        Err(Status::generated_name_taken(call.row, &taken))
    } else {
        Err(Status::already_exists(call.row, &taken))
    }
}

/// `None`: the name is taken.
async fn store(call: &Call, mut new: Value, dry_run: bool) -> Result<Option<Written>, Status> {
    let storage = &call.app.storage;
    let key = call.row.key(&call.namespace, meta::name(&new));
    // An address or port that somebody else takes in the same moment is chosen anew.
    let asked = call.row.is("", "Service").then(|| new.clone());
    loop {
        match storage.get(&key).await {
            Ok(None) => {}
            Ok(Some(_)) | Err(Error::Unreadable { .. }) => return Ok(None),
            Err(error) => return Err(storage_failure(&error)),
        }
        let grant = write::grant(call, Some(&mut new), None).await?;
        let mut charge = admit::charge(call, Some(&new), None).await?;
        let value = conversion::stored(&call.app, call.row, &new).await?;
        let stored = write::answered(call, &new, &value);
        if dry_run {
            return Ok(Some(Written {
                stored,
                revision: object::UNWRITTEN,
            }));
        }
        let mut writes = vec![Write::Create {
            key: key.clone(),
            value,
        }];
        writes.extend(grant.writes());
        writes.extend(charge.writes());
        match storage.write(writes).await {
            Ok(revision) => {
                grant.keep();
                drop(charge);
                admit::written(call, revision).await;
                return Ok(Some(Written { stored, revision }));
            }
            Err(Error::Exists { key: taken }) if taken == key => return Ok(None),
            Err(Error::Exists { key: taken }) => grant.refuse(&taken),
            Err(Error::Conflict { .. } | Error::NotFound { .. }) => {}
            Err(error) => return Err(storage_failure(&error)),
        }
        if let Some(asked) = &asked {
            new.clone_from(asked);
        }
    }
}

/// A request for a certificate says who asks.
fn sign(call: &Call, request: &mut Value) {
    let Some(spec) = api::value::object_mut(request, "spec") else {
        return;
    };
    let user = &call.user;
    for key in ["uid", "groups", "extra"] {
        api::value::remove(spec, key);
    }
    api::value::set(spec, "username", user.name.as_str());
    if !user.uid.is_empty() {
        api::value::set(spec, "uid", user.uid.as_str());
    }
    if !user.groups.is_empty() {
        api::value::set(spec, "groups", user.groups.clone());
    }
    if !user.extra.is_empty() {
        api::value::set(spec, "extra", serde_json::json!(user.extra));
    }
}

fn stamps() -> Stamps {
    let suffix = (0..5)
        .map(|_| char::from(SUFFIX[fastrand::usize(..SUFFIX.len())]))
        .collect();
    Stamps {
        now: OffsetDateTime::now_utc(),
        uid: uuid::Uuid::new_v4().to_string(),
        suffix,
    }
}

/// The namespace in the object, if any, is that of the path.
fn match_namespace(call: &Call, object: &Value) -> Result<(), Status> {
    let sent = meta::namespace(object);
    if call.row.namespaced && !sent.is_empty() && sent != call.namespace {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(())
}
