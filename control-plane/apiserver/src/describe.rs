//! What the server says about itself: version, discovery, schema.

use api::discovery::{self, Aggregated};
use api::status::Status;
use api::value::{items_mut, list};
use bytes::Bytes;
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use http::request::Parts;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use crate::State;
use crate::aggregation::{self, Remote};
use crate::negotiate::{self, Encoding};
use crate::query::Query;
use crate::respond::{self, Answer};

/// The Kubernetes release whose wire contract is kept.
const MINOR: &str = "35";

/// Answers a path that names no resource.
pub(crate) fn answer(state: &State, path: &str, parts: &Parts, query: &Query) -> Answer {
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    let encoding = match negotiate::negotiate(&parts.headers, query, false) {
        Ok(accepted) => accepted.encoding,
        // Discovery has forms of its own; a client that accepts only those is served below.
        Err(_) => Encoding::Json,
    };
    let found = |document: Option<Value>| match document {
        Some(document) => respond::value(200, encoding, &document),
        None => not_found(),
    };
    match segments.as_slice() {
        [""] => respond::value(200, encoding, &index(state)),
        ["openid", "v1", "jwks"] => {
            let keys = state.accounts.keys.public().to_string();
            respond::bytes(200, "application/jwk-set+json", keys)
        }
        [".well-known", "openid-configuration"] => {
            respond::value(200, Encoding::Json, &openid(state))
        }
        ["version"] => respond::value(200, Encoding::PrettyJson, &version()),
        ["api"] => groups(
            state,
            parts,
            true,
            || discovery::legacy_versions(&server_address(state)),
            encoding,
        ),
        ["apis"] => groups(state, parts, false, || legacy_groups(state), encoding),
        ["api", version] => found(discovery::legacy_resources(
            &state.registry.rows(),
            "",
            version,
        )),
        ["apis", group] => found(legacy_group(state, group)),
        ["apis", group, version] => found(discovery::legacy_resources(
            &state.registry.rows(),
            group,
            version,
        )),
        ["openapi", "v2"] => swagger(state, parts),
        ["openapi", "v3"] => {
            let own = state.documents.index(&state.registry);
            respond::value(200, Encoding::Json, &aggregation::index(state, own))
        }
        ["openapi", "v3", rest @ ..] => schema(state, &rest.join("/"), parts, query),
        _ => not_found(),
    }
}

fn not_found() -> Answer {
    respond::text(404, "404 page not found\n")
}

/// `/api` or `/apis`: the whole of discovery in one document where the client knows that form.
fn groups(
    state: &State,
    parts: &Parts,
    core: bool,
    legacy: impl FnOnce() -> Value,
    encoding: Encoding,
) -> Answer {
    let aggregated = negotiate::ranges(&parts.headers)
        .into_iter()
        .find_map(|range| {
            if range.media != "application/json" {
                return None;
            }
            match (
                range.parameter("as"),
                range.parameter("g"),
                range.parameter("v"),
            ) {
                ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2") => {
                    Some(Some(Aggregated::V2))
                }
                ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2beta1") => {
                    Some(Some(Aggregated::V2Beta1))
                }
                ("", _, _) => Some(None),
                _ => None,
            }
        });
    let mut response = match aggregated.flatten() {
        None => respond::value(200, encoding, &legacy()),
        Some(form) => {
            let mut document = discovery::aggregated(&state.registry.rows(), core, form);
            if !core {
                merge(state, &mut document);
            }
            let mut response = respond::value(200, Encoding::Json, &document);
            if let Ok(content_type) = HeaderValue::from_str(&form.content_type()) {
                response.headers_mut().insert(CONTENT_TYPE, content_type);
            }
            response
        }
    };
    response
        .headers_mut()
        .insert(VARY, HeaderValue::from_static("Accept"));
    response
}

/// Makes an aggregated document of our groups one of all.
fn merge(state: &State, document: &mut Value) {
    let own = aggregation::group_versions(list(document, &["items"]), &["metadata", "name"]);
    let items: Vec<Value> = aggregation::merged(state, own, Remote::aggregated)
        .into_iter()
        .map(|(group, versions)| {
            let versions: Vec<Value> = versions.into_iter().map(|one| one.body).collect();
            json!({"metadata": {"name": group, "creationTimestamp": null}, "versions": versions})
        })
        .collect();
    document["items"] = items.into();
}

/// `/apis` for clients that know nothing newer.
fn legacy_groups(state: &State) -> Value {
    let mut document = discovery::legacy_groups(&state.registry.rows());
    let own = aggregation::group_versions(list(&document, &["groups"]), &["name"]);
    let groups: Vec<Value> = aggregation::merged(state, own, Remote::legacy)
        .into_iter()
        .map(|(group, versions)| {
            let versions: Vec<Value> = versions.into_iter().map(|one| one.body).collect();
            json!({"name": group, "versions": versions, "preferredVersion": versions.first()})
        })
        .collect();
    document["groups"] = groups.into();
    document
}

/// One of them.
fn legacy_group(state: &State, group: &str) -> Option<Value> {
    let mut groups = legacy_groups(state);
    let found = items_mut(&mut groups, "groups").find(|found| found["name"] == group)?;
    let mut found = found.take();
    found["kind"] = "APIGroup".into();
    found["apiVersion"] = "v1".into();
    Some(found)
}

/// The media type that kubectl asks for the v2 schema in. What is answered may not have the `@`.
const SWAGGER_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// The schema of everything in one document, in protobuf for those who ask for it.
fn swagger(state: &State, parts: &Parts) -> Answer {
    let both = state
        .documents
        .swagger(&state.registry, &aggregation::swaggers(state));
    let asked = negotiate::ranges(&parts.headers).into_iter().next();
    let (content_type, document) = match asked {
        Some(range) if range.media == SWAGGER_PROTOBUF => (
            "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
            &both.protobuf,
        ),
        _ => ("application/json", &both.json),
    };
    let body = Bytes::copy_from_slice(&document.bytes);
    let mut response = unless_known(&document.hash, body, content_type, parts);
    response
        .headers_mut()
        .insert(VARY, HeaderValue::from_static("Accept"));
    response
}

/// The document, or 304 where the client has it.
fn unless_known(hash: &str, body: Bytes, content_type: &'static str, parts: &Parts) -> Answer {
    let etag = format!("\"{hash}\"");
    let known = parts
        .headers
        .get(IF_NONE_MATCH)
        .is_some_and(|value| value.as_bytes() == etag.as_bytes());
    let mut response = if known {
        respond::bytes(304, content_type, Vec::new())
    } else {
        respond::bytes(200, content_type, body)
    };
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        response.headers_mut().insert(ETAG, etag);
    }
    response
}

/// The schema of a group version. Its address in the index carries a hash, so that it may be cached for ever.
fn schema(state: &State, group_version: &str, parts: &Parts, query: &Query) -> Answer {
    let found = match api::openapi::v3_document(group_version) {
        Some(document) => Some((document.hash.clone(), Bytes::from_static(&document.bytes))),
        None => state.documents.get(&state.registry, group_version),
    };
    let Some((hash, body)) = found else {
        return respond::refusal(&Status::unknown_resource());
    };
    let mut response = unless_known(&hash, body, "application/json", parts);
    if query.text("hash") == hash {
        response.headers_mut().insert(
            CACHE_CONTROL,
            HeaderValue::from_static("public, immutable, max-age=31536000"),
        );
    }
    response
}

/// What verifies tokens of service accounts elsewhere, as in OpenID Connect Discovery 1.0.
fn openid(state: &State) -> Value {
    json!({
        "issuer": state.accounts.issuer,
        "jwks_uri": format!("https://{}/openid/v1/jwks", server_address(state)),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": state.accounts.keys.algorithms(),
    })
}

fn server_address(state: &State) -> String {
    SocketAddr::new(
        state.config.advertised(),
        state.port.load(Ordering::Relaxed),
    )
    .to_string()
}

fn index(state: &State) -> Value {
    let mut paths: Vec<String> = vec!["/api".into(), "/apis".into()];
    for row in state.registry.rows() {
        let group = (!row.group.is_empty()).then(|| format!("/apis/{}", row.group));
        for path in group.into_iter().chain([row.root_path()]) {
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
    }
    for path in aggregation::root_paths(state) {
        if !paths.contains(&path) {
            paths.push(path);
        }
    }
    let others = [
        "/.well-known/openid-configuration",
        "/healthz",
        "/livez",
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
        "/openid/v1/jwks",
        "/readyz",
        "/version",
    ];
    paths.extend(others.map(str::to_owned));
    paths.sort();
    json!({"paths": paths})
}

fn version() -> Value {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    json!({
        "major": "1",
        "minor": MINOR,
        "emulationMajor": "1",
        "emulationMinor": MINOR,
        "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "34",
        "gitVersion": kubernetes_version(),
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{architecture}", std::env::consts::OS),
    })
}

/// The version of Kubernetes whose API is served, with ours behind it.
pub fn kubernetes_version() -> String {
    format!("v1.{MINOR}.0+fairlead-{}", env!("CARGO_PKG_VERSION"))
}
