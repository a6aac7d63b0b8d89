//! What another API server says of its group version: resources and schemas.

use std::sync::Arc;
use std::time::Duration;

use api::discovery;
use api::value::{list, text};
use authorization::{MASTERS, User};
use axum::body::Body;
use bytes::Bytes;
use http::header::{ACCEPT, ETAG, IF_NONE_MATCH};
use http::{Request, StatusCode, response};
use http_body_util::{BodyExt as _, Limited};
use serde_json::Value;
use tokio::time::timeout;

use super::{OURSELVES, READER, Route};
use crate::auth::front;
use crate::dial::Peer;

/// The most bytes of a document that is read.
const DOCUMENT_MAX: usize = 16 << 20;
/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The forms of aggregated discovery.
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
                          application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";

/// See the module.
#[derive(PartialEq)]
pub(crate) struct Told {
    /// As in aggregated discovery.
    pub(super) resources: Vec<Value>,
    /// The query in the address of the schema, which changes with it; `None`: there is none.
    pub(super) schema: Option<String>,
    /// The schema in OpenAPI v2, and its entity tag.
    pub(super) swagger: Option<(String, Arc<Value>)>,
}

/// Asks for all that there is beside `resources`, the document of the group version in its old form. What does not come
/// is as if it were not there.
pub(super) async fn learn(
    route: &Route,
    peer: &Peer,
    resources: &Value,
    before: Option<&Told>,
) -> Told {
    let url = peer.url();
    let (aggregated, index, v2) = (
        format!("{url}/apis"),
        format!("{url}/openapi/v3"),
        format!("{url}/openapi/v2"),
    );
    let known = before.and_then(|told| told.swagger.as_ref());
    let swagger = Asked {
        known: known.map_or("", |(tag, _)| tag),
        ..Asked::new(&v2, "application/json")
    };
    let (ourselves, reader) = (User::new(OURSELVES, &[MASTERS]), User::new(READER, &[]));
    let (aggregated, index, swagger) = tokio::join!(
        document(route, &ourselves, Asked::new(&aggregated, AGGREGATED)),
        document(route, &reader, Asked::new(&index, "application/json")),
        document(route, &reader, swagger),
    );
    let aggregated =
        aggregated.and_then(|(_, body)| listed(&serde_json::from_slice(&body).ok()?, route));
    let schema = index.and_then(|(_, body)| {
        let index: Value = serde_json::from_slice(&body).ok()?;
        let address = text(&index, &["paths", &route.root(), "serverRelativeURL"]);
        let query = address.split_once('?').map_or("", |(_, query)| query);
        (!address.is_empty()).then(|| query.to_owned())
    });
    let swagger = swagger.and_then(|(head, body)| {
        if head.status == StatusCode::NOT_MODIFIED {
            return known.cloned();
        }
        let tag = head.headers.get(ETAG).and_then(|tag| tag.to_str().ok());
        let document: Value = serde_json::from_slice(&body).ok()?;
        Some((tag.unwrap_or_default().to_owned(), Arc::new(document)))
    });
    Told {
        resources: aggregated.unwrap_or_else(|| {
            discovery::aggregated_from_legacy(resources, &route.group, &route.version)
        }),
        schema,
        swagger,
    }
}

/// The resources of the group version in an aggregated document.
fn listed(document: &Value, route: &Route) -> Option<Vec<Value>> {
    if text(document, &["kind"]) != "APIGroupDiscoveryList" {
        return None;
    }
    let group = list(document, &["items"])
        .iter()
        .find(|group| text(group, &["metadata", "name"]) == route.group)?;
    let version = list(group, &["versions"])
        .iter()
        .find(|version| text(version, &["version"]) == route.version)?;
    let mut resources = list(version, &["resources"]).to_vec();
    resources.retain(|resource| !text(resource, &["resource"]).is_empty());
    Some(resources)
}

/// A document that is asked for.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    url: &'a str,
    accept: &'a str,
    /// The entity tag of the one that is there; empty: none is.
    known: &'a str,
}

impl<'a> Asked<'a> {
    pub(super) fn new(url: &'a str, accept: &'a str) -> Self {
        Asked {
            url,
            accept,
            known: "",
        }
    }
}

/// A document that came, or did not change.
async fn document(
    route: &Route,
    user: &User,
    asked: Asked<'_>,
) -> Option<(response::Parts, Bytes)> {
    let answer = timeout(PATIENCE, get(route, user, &asked)).await.ok()?;
    let (head, body) = answer.ok()?;
    let came = head.status == StatusCode::OK || head.status == StatusCode::NOT_MODIFIED;
    came.then_some((head, body))
}

/// Asks for a document as this user.
///
/// # Errors
/// Why there is no answer.
pub(super) async fn get(
    route: &Route,
    user: &User,
    asked: &Asked<'_>,
) -> Result<(response::Parts, Bytes), String> {
    let mut request = Request::get(asked.url)
        .header(ACCEPT, asked.accept)
        .body(Body::empty())
        .map_err(|error| error.to_string())?;
    if let Ok(tag) = asked.known.parse()
        && !asked.known.is_empty()
    {
        request.headers_mut().insert(IF_NONE_MATCH, tag);
    }
    front::name(request.headers_mut(), user).map_err(|error| error.to_string())?;
    let (head, body) = route.backend.send(request).await?.into_parts();
    let body = Limited::new(body, DOCUMENT_MAX).collect().await;
    let body = body.map_err(|error| error.to_string())?;
    Ok((head, body.to_bytes()))
}
