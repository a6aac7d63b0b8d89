//! One question over HTTPS, to a webhook at a URL or behind a Service. Connections are made anew; sessions of TLS are
//! resumed.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use api::value::{at, number, text};
use axum::body::Body;
use base64::Engine as _;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST};
use http::{Method, Request};
use http_body_util::{BodyExt as _, Limited};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::Value;

use crate::dial::{self, Peer};
use crate::handlers::connect::targets;
use crate::{State, pki};

/// The most bytes of an answer: an object as large as any, in base64, and some.
const ANSWER_MAX: usize = 16 << 20;
/// How many authorities' configurations are kept; when there are more, all are forgotten.
const KEPT: usize = 128;
/// Where systems keep the authorities that everybody trusts.
const SYSTEM_ROOTS: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

/// How long the webhook may take.
pub(super) fn seconds(webhook: &Value) -> u64 {
    u64::try_from(number(webhook, &["timeoutSeconds"]))
        .ok()
        .filter(|seconds| *seconds > 0)
        .unwrap_or(10)
}

/// Whom a `clientConfig` means.
struct Target {
    peer: Peer,
    /// Whose certificate he has to show.
    name: String,
    authority: String,
    path: String,
}

/// Posts the question, and reads the answer.
///
/// # Errors
/// Why there is none, as Kubernetes words it.
pub(crate) async fn post(
    app: &Arc<State>,
    client: &Value,
    seconds: u64,
    question: &Value,
) -> Result<Value, String> {
    let service = at(client, &["service"]);
    let shown = if service.is_object() {
        service_url(service)
    } else {
        text(client, &["url"]).to_owned()
    };
    let failed =
        |why: String| format!("failed to call webhook: Post \"{shown}?timeout={seconds}s\": {why}");
    let asked = async {
        let target = if service.is_object() {
            behind_service(app, service).await
        } else {
            at_url(&shown)
        };
        let target = target.map_err(failed)?;
        let tls = trust(text(client, &["caBundle"])).map_err(failed)?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("{}?timeout={seconds}s", target.path))
            .header(HOST, &target.authority)
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json, */*")
            .body(Body::from(question.to_string()))
            .map_err(|error| failed(error.to_string()))?;
        let response = dial::send_as(&target.peer, &target.name, tls, request)
            .await
            .map_err(|failure| failed(failure.to_string()))?;
        let code = response.status();
        let body = Limited::new(response.into_body(), ANSWER_MAX)
            .collect()
            .await
            .map_err(|error| failed(error.to_string()))?
            .to_bytes();
        if !code.is_success() {
            return Err(format!(
                "failed to call webhook: {}",
                refused(code.as_u16(), &body)
            ));
        }
        serde_json::from_slice(&body).map_err(|error| {
            format!("failed to call webhook: couldn't get version/kind; json parse error: {error}")
        })
    };
    // In a box: it is large, and would make every write as large that asks nobody.
    match tokio::time::timeout(Duration::from_secs(seconds), Box::pin(asked)).await {
        Ok(answer) => answer,
        Err(_) => Err(failed("context deadline exceeded".to_owned())),
    }
}

fn refused(code: u16, body: &Bytes) -> String {
    let text: String = String::from_utf8_lossy(body).chars().take(256).collect();
    match code {
        404 => "the server could not find the requested resource".to_owned(),
        _ => format!(
            "an error on the server ({}) has prevented the request from succeeding",
            api::field::quoted(text.trim())
        ),
    }
}

fn service_url(service: &Value) -> String {
    format!(
        "https://{}.{}.svc:{}{}",
        text(service, &["name"]),
        text(service, &["namespace"]),
        service_port(service),
        service_path(service)
    )
}

fn service_port(service: &Value) -> i64 {
    match number(service, &["port"]) {
        0 => 443,
        port => port,
    }
}

fn service_path(service: &Value) -> &str {
    match text(service, &["path"]) {
        "" => "/",
        path => path,
    }
}

/// The Service's endpoints are asked directly. That one of them may be on loopback does no harm: it has to show the
/// certificate of the Service's name.
async fn behind_service(app: &Arc<State>, service: &Value) -> Result<Target, String> {
    let (namespace, name) = (text(service, &["namespace"]), text(service, &["name"]));
    let port = service_port(service);
    let (host, port) = targets::endpoint(app, namespace, name, &port.to_string())
        .await
        .map_err(|status| match status.code {
            404 => format!("service {} not found", api::field::quoted(name)),
            _ => status.message,
        })?;
    let name = format!("{name}.{namespace}.svc");
    Ok(Target {
        peer: Peer {
            host,
            port,
            tls: true,
            agent: false,
        },
        authority: name.clone(),
        name,
        path: service_path(service).to_owned(),
    })
}

fn at_url(url: &str) -> Result<Target, String> {
    let uri: http::Uri = url.parse().map_err(|error| format!("{error}"))?;
    let authority = uri.authority().ok_or("no host in request URL")?;
    let host = authority.host().trim_matches(['[', ']']).to_owned();
    Ok(Target {
        name: host.clone(),
        peer: Peer {
            host,
            port: authority.port_u16().unwrap_or(443),
            tls: true,
            agent: false,
        },
        authority: authority.as_str().to_owned(),
        path: uri.path().to_owned(),
    })
}

/// Whether a `caBundle` names somebody to be believed.
pub(crate) fn is_trust(bundle: &str) -> bool {
    trust(bundle).is_ok()
}

/// Who is believed to be whom: the authorities of `caBundle` (base64 of PEM), or those of the system.
fn trust(bundle: &str) -> Result<Arc<rustls::ClientConfig>, String> {
    static KNOWN: LazyLock<Mutex<HashMap<String, Arc<rustls::ClientConfig>>>> =
        LazyLock::new(Mutex::default);
    let known = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(config) = known().get(bundle) {
        return Ok(config.clone());
    }
    let believed = believed(bundle)?;
    let builder = rustls::ClientConfig::builder_with_provider(pki::provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let config = Arc::new(pki::believing(builder, believed).with_no_client_auth());
    let mut known = known();
    if known.len() >= KEPT {
        known.clear();
    }
    known.insert(bundle.to_owned(), config.clone());
    Ok(config)
}

/// The authorities of a `caBundle`, or those of the system where it is empty.
pub(crate) fn believed(bundle: &str) -> Result<pki::Certificates, String> {
    let pem = if bundle.is_empty() {
        SYSTEM_ROOTS
            .iter()
            .find_map(|path| std::fs::read(path).ok())
            .unwrap_or_default()
    } else {
        base64::engine::general_purpose::STANDARD
            .decode(bundle)
            .map_err(|error| format!("caBundle is not base64: {error}"))?
    };
    let certificates = CertificateDer::pem_slice_iter(&pem).flatten();
    // One that cannot be read makes the others no worse.
    let is_one = |certificate: &CertificateDer<'_>| {
        rustls::RootCertStore::empty()
            .add(certificate.clone().into_owned())
            .is_ok()
    };
    let believed: pki::Certificates = certificates.filter(is_one).collect();
    if believed.is_empty() && !bundle.is_empty() {
        return Err("unable to load root certificates: unable to parse bytes as PEM block".into());
    }
    Ok(believed)
}
