//! Custom resources in another version than the one they are stored in, where only a webhook knows how to get there.
//!
//! Objects are converted as they leave the store and before they enter it, so that everything between sees them in the
//! version that was asked for.

use std::sync::Arc;

use api::meta;
use api::status::Status;
use api::table::Resource;
use api::value::{at, list, text};
use bytes::Bytes;
use serde_json::{Value, json};
use storage::{Change, Entry, Error, WatchEvent};

use super::ask;
use crate::{State, object, write};

/// How long a conversion may take, as with kube-apiserver.
const PATIENCE_SECS: u64 = 30;
const GROUP: &str = "apiextensions.k8s.io";

/// Whether objects of the row may have to be converted by a webhook.
pub(crate) fn converts(row: &Resource) -> bool {
    row.rules().is_some_and(|rules| rules.webhook().is_some())
}

/// Entries as they are in the row's version.
pub(crate) async fn entries(
    app: &Arc<State>,
    row: &Resource,
    mut entries: Vec<Entry>,
) -> Result<Vec<Entry>, Status> {
    if !converts(row) {
        return Ok(entries);
    }
    let wanted = row.api_version();
    let mut foreign = Vec::new();
    let known = |(_, entry): &(usize, &Entry)| entry.fault().is_none();
    for (index, entry) in entries.iter().enumerate().filter(known) {
        let object: Value = serde_json::from_slice(&entry.value).unwrap_or_default();
        if text(&object, &["apiVersion"]) != wanted {
            foreign.push((index, object));
        }
    }
    if foreign.is_empty() {
        return Ok(entries);
    }
    let (places, objects): (Vec<usize>, Vec<Value>) = foreign.into_iter().unzip();
    let converted = convert(app, row, &wanted, objects).await?;
    for (index, object) in places.into_iter().zip(converted) {
        if let Some(entry) = entries.get_mut(index) {
            entry.value = object::encode(&object);
        }
    }
    Ok(entries)
}

/// One entry, as [`entries`].
pub(crate) async fn entry(app: &Arc<State>, row: &Resource, entry: Entry) -> Result<Entry, Status> {
    let mut one = entries(app, row, vec![entry]).await?;
    one.pop().ok_or_else(|| Status::internal("no object"))
}

/// A change as watchers of the row's version see it.
pub(crate) async fn event(
    app: Arc<State>,
    row: &'static Resource,
    event: Result<WatchEvent, Error>,
) -> Result<WatchEvent, Error> {
    let failed = |status: Status| Error::Unavailable {
        doing: "converting an object".into(),
        cause: status.message.into(),
    };
    Ok(match event? {
        WatchEvent::Change(Change::Put {
            entry: new,
            previous,
        }) => {
            let all: Vec<Entry> = [new].into_iter().chain(previous).collect();
            let mut all = entries(&app, row, all).await.map_err(failed)?.into_iter();
            match all.next() {
                Some(entry) => WatchEvent::Change(Change::Put {
                    entry,
                    previous: all.next(),
                }),
                None => return Err(failed(Status::internal("no object"))),
            }
        }
        WatchEvent::Change(Change::Delete { revision, previous }) => {
            let previous = entry(&app, row, previous).await.map_err(failed)?;
            WatchEvent::Change(Change::Delete { revision, previous })
        }
        progress @ WatchEvent::Progress(_) => progress,
    })
}

/// The bytes to be stored of an object in the row's version.
pub(crate) async fn stored(
    app: &Arc<State>,
    row: &Resource,
    object: &Value,
) -> Result<Bytes, Status> {
    let rules = row.rules().filter(|rules| rules.webhook().is_some());
    let Some(rules) = rules.filter(|rules| rules.storage_version() != row.api_version()) else {
        return Ok(write::stored_form(row, object));
    };
    let converted = convert(app, row, rules.storage_version(), vec![object.clone()]).await?;
    Ok(object::encode(converted.first().unwrap_or(object)))
}

async fn convert(
    app: &Arc<State>,
    row: &Resource,
    wanted: &str,
    objects: Vec<Value>,
) -> Result<Vec<Value>, Status> {
    let Some(rules) = row.rules() else {
        return Ok(objects);
    };
    let webhook = rules.webhook().unwrap_or(&Value::Null);
    let from = objects
        .first()
        .map_or("", |object| text(object, &["apiVersion"]))
        .to_owned();
    let failed = |why: String| {
        Status::internal(format!(
            "conversion webhook for {from}, Kind={} failed: {why}",
            row.kind
        ))
    };
    let version = list(webhook, &["conversionReviewVersions"])
        .iter()
        .find_map(|version| match version.as_str() {
            Some("v1") => Some("v1"),
            Some("v1beta1") => Some("v1beta1"),
            _ => None,
        })
        .ok_or_else(|| failed("it speaks no known version of ConversionReview".into()))?;
    let uid = uuid::Uuid::new_v4().to_string();
    let api_version = format!("{GROUP}/{version}");
    let question = json!({
        "kind": "ConversionReview", "apiVersion": api_version,
        "request": {"uid": uid, "desiredAPIVersion": wanted, "objects": objects},
    });
    let client = at(webhook, &["clientConfig"]);
    let answer = ask::post(app, client, PATIENCE_SECS, &question)
        .await
        .map_err(failed)?;
    let response = at(&answer, &["response"]);
    if text(&answer, &["apiVersion"]) != api_version || text(response, &["uid"]) != uid {
        return Err(failed(format!(
            "expected a ConversionReview of {api_version} with response.uid={}",
            api::field::quoted(&uid)
        )));
    }
    if text(response, &["result", "status"]) != "Success" {
        let why = match text(response, &["result", "message"]) {
            "" => "the webhook gives no reason",
            why => why,
        };
        return Err(failed(why.to_owned()));
    }
    let converted = list(response, &["convertedObjects"]);
    if converted.len() != objects.len() {
        return Err(failed(format!(
            "webhook returned {} objects, expected {}",
            converted.len(),
            objects.len()
        )));
    }
    objects
        .iter()
        .zip(converted)
        .enumerate()
        .map(|(index, (before, after))| {
            accept(before, after, wanted)
                .map_err(|why| failed(format!("invalid converted object at index {index}: {why}")))
        })
        .collect()
}

/// A converted object, in which nothing of the metadata differs but labels and annotations.
fn accept(before: &Value, after: &Value, wanted: &str) -> Result<Value, String> {
    let (version, kind) = (text(after, &["apiVersion"]), text(after, &["kind"]));
    if version != wanted {
        return Err(format!("expected apiVersion {wanted}, got {version}"));
    }
    if kind != text(before, &["kind"]) {
        return Err(format!(
            "expected kind {}, got {kind}",
            text(before, &["kind"])
        ));
    }
    for (what, of) in [
        ("metadata.name", meta::name as fn(&Value) -> &str),
        ("metadata.namespace", meta::namespace),
        ("metadata.uid", meta::uid),
    ] {
        if of(before) != of(after) {
            return Err(format!("{what} must not change"));
        }
    }
    let mut accepted = after.clone();
    accepted["metadata"] = before["metadata"].clone();
    for key in ["labels", "annotations"] {
        match at(after, &["metadata", key]) {
            Value::Null => {
                api::value::remove(&mut accepted["metadata"], key);
            }
            changed => accepted["metadata"][key] = changed.clone(),
        }
    }
    Ok(accepted)
}
