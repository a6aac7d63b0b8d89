//! The body of a request, by its content type.

use api::decode::{self, Decoded, FieldValidation};
use api::status::Status;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde_json::Value;

use crate::handlers::Call;

/// What a body may be written in.
const ACCEPTED: &[&str] = &["application/json", "application/yaml", PROTOBUF];
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// The content type without parameters; JSON where the client says nothing.
pub(crate) fn content_type(headers: &HeaderMap) -> &str {
    let value = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    match value.split(';').next().unwrap_or_default().trim() {
        "" => "application/json",
        content_type => content_type,
    }
}

/// The object sent, and what the client should be warned of.
pub(crate) fn object(call: &Call, validation: FieldValidation) -> Result<Decoded, Status> {
    match content_type(&call.headers) {
        "application/json" => decode::json(call.row, &call.body, validation),
        "application/yaml" => decode::yaml(call.row, &call.body, validation),
        // The schema of protobuf leaves no room for unknown fields.
        PROTOBUF => decode::check(call.row, protobuf(&call.body)?, FieldValidation::Ignore),
        _ => Err(Status::unsupported_media_type(ACCEPTED)),
    }
}

/// The options in the body of a DELETE; `None` where it has no body.
pub(crate) fn delete_options(call: &Call) -> Result<Option<Value>, Status> {
    if call.body.is_empty() {
        return Ok(None);
    }
    let options = match content_type(&call.headers) {
        "application/json" => decode::untyped_json(&call.body)?,
        "application/yaml" => decode::untyped_yaml(&call.body)?,
        PROTOBUF => protobuf(&call.body)?,
        _ => return Err(Status::unsupported_media_type(ACCEPTED)),
    };
    let kind = api::value::text(&options, &["kind"]);
    if !options.is_object() || !matches!(kind, "" | "DeleteOptions") {
        return Err(Status::bad_request(
            "the body of a DELETE must be a DeleteOptions object",
        ));
    }
    Ok(Some(options))
}

fn protobuf(body: &[u8]) -> Result<Value, Status> {
    api::protobuf::decode(body).map_err(|error| Status::bad_request(error.to_string()))
}

/// The body of a call whose object is of another kind than the row's, or of one that is not stored.
pub(crate) fn of_kind(call: &Call, api_versions: &[&str], kind: &str) -> Result<Value, Status> {
    let mut object = match content_type(&call.headers) {
        "application/json" => decode::untyped_json(&call.body)?,
        "application/yaml" => decode::untyped_yaml(&call.body)?,
        PROTOBUF => protobuf(&call.body)?,
        _ => return Err(Status::unsupported_media_type(ACCEPTED)),
    };
    if !object.is_object() {
        return Err(Status::bad_request(format!(
            "the object provided is unrecognized (must be of type {kind})"
        )));
    }
    let wrong = |key: &str, wanted: &[&str]| {
        let sent = api::value::text(&object, &[key]);
        !sent.is_empty() && !wanted.contains(&sent)
    };
    if wrong("apiVersion", api_versions) || wrong("kind", &[kind]) {
        let sent = |key: &str| api::value::text(&object, &[key]).to_owned();
        return Err(Status::bad_request(format!(
            "{} in version {:?} cannot be handled as a {kind}",
            sent("kind"),
            sent("apiVersion").rsplit('/').next().unwrap_or_default()
        )));
    }
    api::value::set(&mut object, "apiVersion", api_versions[0]);
    api::value::set(&mut object, "kind", kind);
    let _ = api::value::object_mut(&mut object, "metadata");
    if !object["metadata"].is_object() {
        return Err(Status::bad_request("metadata must be an object"));
    }
    Ok(object)
}
