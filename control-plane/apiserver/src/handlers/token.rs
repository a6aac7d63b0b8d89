//! `serviceaccounts/token`: a token for an account, bound to what the client names.

use api::field::FieldError;
use api::meta;
use api::status::Status;
use api::value::{at, list, set, text};
use serde_json::{Value, json};
use storage::Entry;
use time::{Duration, OffsetDateTime};

use super::{Call, storage_failure};
use crate::auth::accounts::Bound;
use crate::respond::{self, Answer};
use crate::{body, object};

const HOUR: i64 = 3600;
const LEAST: i64 = 600;
const MOST: i64 = 1 << 32;

/// Answers with the request and the token in its status.
pub(crate) async fn create(call: &Call) -> Result<Answer, Status> {
    let mut request = body::of_kind(call, &["authentication.k8s.io/v1"], "TokenRequest")?;
    for (key, ours) in [("name", &call.name), ("namespace", &call.namespace)] {
        let sent = text(&request, &["metadata", key]);
        if !sent.is_empty() && sent != ours {
            return Err(Status::bad_request(format!(
                "metadata.{key}: {sent:?} is not the {key} in the path, {ours:?}"
            )));
        }
    }
    let account = find(call, call.row, &call.namespace, &call.name).await?;
    let account = account.ok_or_else(|| call.not_found())?;
    let account = object::decode(call.row, &account);
    let spec = at(&request, &["spec"]);
    let seconds = at(spec, &["expirationSeconds"]).as_i64().unwrap_or(HOUR);
    let field = "spec.expirationSeconds";
    let why = match seconds {
        ..LEAST => Some("may not specify a duration less than 10 minutes"),
        LEAST..=MOST => None,
        _ => Some("may not specify a duration larger than 2^32 seconds"),
    };
    if let Some(why) = why {
        let wrong = [FieldError::invalid(field, &seconds.into(), why)];
        return Err(Status::invalid(
            "authentication.k8s.io",
            "TokenRequest",
            "",
            &wrong,
        ));
    }
    let mut audiences: Vec<String> = list(spec, &["audiences"])
        .iter()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    if audiences.is_empty() {
        audiences = call.app.accounts.audiences().to_vec();
    }
    let bound = bound(call, at(spec, &["boundObjectRef"])).await?;
    let now = OffsetDateTime::now_utc();
    let accounts = &call.app.accounts;
    let token = accounts
        .issue(&account, &audiences, &bound, now.unix_timestamp(), seconds)
        .map_err(Status::internal)?;
    let ends = now.checked_add(Duration::seconds(seconds)).unwrap_or(now);
    set(&mut request["metadata"], "name", call.name.as_str());
    set(
        &mut request["metadata"],
        "namespace",
        call.namespace.as_str(),
    );
    set(
        &mut request["metadata"],
        "creationTimestamp",
        meta::timestamp(now),
    );
    let mut spec = request["spec"].take();
    if !spec.is_object() {
        spec = json!({});
    }
    set(&mut spec, "audiences", audiences);
    set(&mut spec, "expirationSeconds", seconds);
    set(&mut request, "spec", spec);
    let status = json!({"token": token, "expirationTimestamp": meta::timestamp(ends)});
    set(&mut request, "status", status);
    Ok(respond::value(201, call.accepted.encoding, &request))
}

/// An object as it is stored; `None` where there is none of the name.
pub(super) async fn find(
    call: &Call,
    row: &api::table::Resource,
    namespace: &str,
    name: &str,
) -> Result<Option<Entry>, Status> {
    if name.contains('/') {
        return Ok(None);
    }
    let key = row.key(namespace, name);
    let entry = call.app.storage.get(&key).await;
    entry.map_err(|error| storage_failure(&error))
}

/// What the reference names, as it stands: the client may say which uid it means.
async fn bound(call: &Call, reference: &Value) -> Result<Vec<Bound>, Status> {
    if reference.is_null() {
        return Ok(Vec::new());
    }
    let (kind, version) = (text(reference, &["kind"]), text(reference, &["apiVersion"]));
    let (claim, plural) = match (version, kind) {
        ("v1", "Pod") => ("pod", "pods"),
        ("v1", "Secret") => ("secret", "secrets"),
        ("v1", "Node") => ("node", "nodes"),
        _ => {
            return Err(Status::bad_request(format!(
                "cannot bind token for serviceaccount {:?} to object of type {version}, Kind={kind}",
                call.name
            )));
        }
    };
    let row = api::table::find("", "v1", plural).ok_or_else(Status::unknown_resource)?;
    let name = text(reference, &["name"]);
    let entry = find(call, row, &call.namespace, name).await?;
    let entry = entry.ok_or_else(|| Status::not_found(row, name))?;
    let found = object::decode(row, &entry);
    if claim == "pod" && text(&found, &["spec", "serviceAccountName"]) != call.name {
        return Err(Status::bad_request(format!(
            "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
            call.name
        )));
    }
    let (asked, uid) = (text(reference, &["uid"]), meta::uid(&found));
    if !asked.is_empty() && asked != uid {
        return Err(Status::conflict(
            row,
            name,
            &format!(
                "the UID in the bound object reference ({asked}) does not match the UID in record. The object might \
                 have been deleted and then recreated"
            ),
        ));
    }
    let one = |kind, object: &Value| Bound {
        kind,
        name: meta::name(object).to_owned(),
        uid: meta::uid(object).to_owned(),
    };
    let mut all = vec![one(claim, &found)];
    let node = text(&found, &["spec", "nodeName"]);
    if claim == "pod" && !node.is_empty() {
        // Where the Pod runs is told beside it; a node that is gone is told by name alone.
        let row = api::table::find("", "v1", "nodes").ok_or_else(Status::unknown_resource)?;
        all.push(match find(call, row, "", node).await? {
            Some(entry) => one("node", &object::decode(row, &entry)),
            None => Bound {
                kind: "node",
                name: node.to_owned(),
                uid: String::new(),
            },
        });
    }
    Ok(all)
}
