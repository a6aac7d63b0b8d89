//! Answers: objects, lists and refusals as HTTP responses in the encoding and form that the client accepts.

mod items;

use api::printing::{self, IncludeObject, TableOptions};
use api::protobuf;
use api::status::Status;
use api::table::Resource;
use axum::body::Body;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WARNING};
use http::{HeaderValue, Response, StatusCode};
use serde_json::{Value, json};
use storage::{Entry, Revision};
use time::OffsetDateTime;

use crate::json;
use crate::negotiate::{Accepted, Encoding, Form};
use crate::object::{self, Head};

pub(crate) type Answer = Response<Body>;

/// Bytes of one media type.
pub(crate) fn bytes(code: u16, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    of_body(code, content_type, Body::from(body.into()))
}

/// A body of one media type.
pub(crate) fn of_body(code: u16, content_type: &'static str, body: Body) -> Answer {
    let mut response = Response::new(body);
    *response.status_mut() =
        StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// A line or page of text.
pub(crate) fn text(code: u16, body: impl Into<Bytes>) -> Answer {
    bytes(code, "text/plain; charset=utf-8", body)
}

/// A refusal in JSON, for whom nothing else was agreed on.
pub(crate) fn refusal(status: &Status) -> Answer {
    refusal_in(status, Encoding::Json)
}

/// A refusal, in the encoding that the client accepts.
pub(crate) fn refusal_in(status: &Status, encoding: Encoding) -> Answer {
    let mut response = match encoding {
        Encoding::Json => bytes(status.code, "application/json", status.to_json()),
        other => value(status.code, other, &status.to_value()),
    };
    let retry_after = status
        .details
        .as_ref()
        .map_or(0, |details| details.retry_after_secs);
    if retry_after > 0 {
        response
            .headers_mut()
            .insert(RETRY_AFTER, retry_after.into());
    }
    response
}

/// Any value, as it is.
pub(crate) fn value(code: u16, encoding: Encoding, value: &Value) -> Answer {
    match encoding {
        Encoding::Json => {
            let mut body = Vec::with_capacity(512);
            json::append(&mut body, value);
            bytes(code, "application/json", body)
        }
        Encoding::PrettyJson => {
            // A value whose keys are texts always serialises.
            let mut body = serde_json::to_vec_pretty(value).unwrap_or_default();
            body.push(b'\n');
            bytes(code, "application/json", body)
        }
        Encoding::Yaml => match serde_saphyr::to_string(value) {
            Ok(body) => bytes(code, "application/yaml", body),
            Err(error) => refusal(&Status::internal(error)),
        },
        Encoding::Protobuf => match protobuf::encode(value) {
            Some(body) => bytes(code, protobuf::CONTENT_TYPE, body),
            None => self::value(code, Encoding::Json, value),
        },
    }
}

/// JSON that is already written, in the encoding wanted.
fn json_bytes(code: u16, encoding: Encoding, body: Vec<u8>) -> Answer {
    match encoding {
        Encoding::Json => bytes(code, "application/json", body),
        Encoding::PrettyJson | Encoding::Yaml | Encoding::Protobuf => {
            match serde_json::from_slice(&body) {
                Ok(parsed) => value(code, encoding, &parsed),
                Err(error) => refusal(&Status::internal(error)),
            }
        }
    }
}

/// One object, from its stored bytes.
pub(crate) fn object(
    row: &Resource,
    accepted: Accepted,
    include: IncludeObject,
    code: u16,
    stored: &[u8],
    revision: Revision,
) -> Answer {
    match accepted.form {
        Form::Object => {
            let mut body = Vec::with_capacity(stored.len() + 40);
            object::append(&mut body, row, stored, revision, Head::Typed);
            body.push(b'\n');
            json_bytes(code, accepted.encoding, body)
        }
        Form::Table(version) => {
            let item = object::decode_at(row, stored, revision);
            let list_metadata = json!({"resourceVersion": revision.0.to_string()});
            let now = OffsetDateTime::now_utc();
            let options = TableOptions {
                version,
                include,
                list_metadata,
                now,
                without_columns: false,
            };
            value(
                code,
                accepted.encoding,
                &printing::table(row, [&item], &options),
            )
        }
        Form::Metadata(version) => {
            let item = object::decode_at(row, stored, revision);
            value(code, accepted.encoding, &printing::partial(&item, version))
        }
    }
}

/// What stands above the items of a list.
pub(crate) struct ListHead {
    pub(crate) revision: Revision,
    /// Empty on the last page.
    pub(crate) continue_token: String,
    pub(crate) remaining: Option<u64>,
}

impl ListHead {
    fn metadata(&self) -> Value {
        let mut metadata = json!({"resourceVersion": self.revision.0.to_string()});
        if !self.continue_token.is_empty() {
            api::value::set(&mut metadata, "continue", self.continue_token.clone());
        }
        if let Some(remaining) = self.remaining {
            api::value::set(&mut metadata, "remainingItemCount", remaining);
        }
        metadata
    }
}

/// A list, from stored bytes.
pub(crate) fn list(
    row: &'static Resource,
    accepted: Accepted,
    include: IncludeObject,
    head: &ListHead,
    mut items: Vec<Entry>,
) -> Answer {
    match accepted.form {
        Form::Object if accepted.encoding == Encoding::Protobuf => {
            let metadata = head.metadata();
            let metadata = metadata.as_object().cloned().unwrap_or_default();
            let version = row.api_version();
            match protobuf::ListWriter::new(&version, row.list_kind, &metadata) {
                Some(mut list) => {
                    for entry in &items {
                        list.push(&object::decode(row, entry));
                    }
                    bytes(200, protobuf::CONTENT_TYPE, list.finish())
                }
                None => {
                    let encoding = Encoding::Json;
                    let accepted = Accepted {
                        encoding,
                        ..accepted
                    };
                    self::list(row, accepted, include, head, items)
                }
            }
        }
        Form::Object => {
            let opening = format!(
                "{{\"kind\":\"{}\",\"apiVersion\":\"{}\",\"metadata\":{},\"items\":[",
                row.list_kind,
                row.api_version(),
                head.metadata()
            );
            if accepted.encoding == Encoding::Json {
                match items::body(row, opening.clone().into_bytes(), items) {
                    Ok(body) => return of_body(200, "application/json", body),
                    Err(back) => items = back,
                }
            }
            let size: usize = items.iter().map(|entry| entry.value.len() + 40).sum();
            let mut body = Vec::with_capacity(size + 200);
            body.extend_from_slice(opening.as_bytes());
            for (index, entry) in items.iter().enumerate() {
                if index > 0 {
                    body.push(b',');
                }
                object::append(&mut body, row, &entry.value, entry.modified, Head::Untyped);
            }
            body.extend_from_slice(b"]}\n");
            json_bytes(200, accepted.encoding, body)
        }
        Form::Table(version) => {
            let items: Vec<Value> = items
                .iter()
                .map(|entry| object::decode(row, entry))
                .collect();
            let list_metadata = head.metadata();
            let now = OffsetDateTime::now_utc();
            let options = TableOptions {
                version,
                include,
                list_metadata,
                now,
                without_columns: false,
            };
            value(
                200,
                accepted.encoding,
                &printing::table(row, &items, &options),
            )
        }
        Form::Metadata(version) => {
            let items: Vec<Value> = items
                .iter()
                .map(|entry| printing::partial(&object::decode(row, entry), version))
                .collect();
            let list = json!({
                "kind": "PartialObjectMetadataList",
                "apiVersion": format!("meta.k8s.io/{version}"),
                "metadata": head.metadata(),
                "items": items,
            });
            value(200, accepted.encoding, &list)
        }
    }
}

/// The most characters of all warnings; where there are more, each is cut to [`WARNING_MAX`] and the last are left out.
/// Both as with kube-apiserver.
const WARNINGS_MAX: usize = 4096;
const WARNING_MAX: usize = 256;

/// Adds what the client should be told beside the answer (RFC 7234, code 299).
pub(crate) fn warn(mut response: Answer, warnings: &[String]) -> Answer {
    let all: usize = warnings.iter().map(|warning| warning.chars().count()).sum();
    let each = if all > WARNINGS_MAX {
        WARNING_MAX
    } else {
        usize::MAX
    };
    let mut left = WARNINGS_MAX;
    for warning in warnings {
        let warning: String = warning.chars().take(each).collect();
        match left.checked_sub(warning.chars().count()) {
            Some(rest) => left = rest,
            None => break,
        }
        let quoted = warning
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace(['\n', '\r'], " ");
        if let Ok(header) = HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes()) {
            response.headers_mut().append(WARNING, header);
        }
    }
    response
}
