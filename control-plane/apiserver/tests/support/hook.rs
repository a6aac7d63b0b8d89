//! A webhook's server: HTTPS on loopback, answering with what a function makes of each question.
#![allow(
    clippy::needless_pass_by_value,
    reason = "a table reads better with values in place"
)]
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// Gets path and query, and the body; gives status and answer.
pub(crate) type Answer = dyn Fn(&str, &Value) -> (u16, Value) + Send + Sync;

/// A server that ends with this value.
pub(crate) struct Hook {
    pub(crate) address: SocketAddr,
    /// Base64 of the PEM of its authority.
    pub(crate) ca_bundle: String,
    /// Every question so far.
    pub(crate) asked: Arc<Mutex<Vec<Value>>>,
    serving: tokio::task::JoinHandle<()>,
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Hook {
    /// With a certificate for loopback and these names.
    pub(crate) async fn start(
        names: &[&str],
        answer: impl Fn(&str, &Value) -> (u16, Value) + Send + Sync + 'static,
    ) -> Self {
        let mut all = vec!["127.0.0.1".to_owned()];
        all.extend(names.iter().map(|name| (*name).to_owned()));
        Self::show(CertificateParams::new(all).unwrap(), answer).await
    }

    /// With a certificate that it signed itself, which is its authority's, too.
    pub(crate) async fn show(
        certificate: CertificateParams,
        answer: impl Fn(&str, &Value) -> (u16, Value) + Send + Sync + 'static,
    ) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = certificate.self_signed(&key).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            )
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::<Mutex<Vec<Value>>>::default();
        let (answer, seen): (Arc<Answer>, _) = (Arc::new(answer), asked.clone());
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, answer, seen) = (acceptor.clone(), answer.clone(), seen.clone());
                tokio::spawn(async move {
                    // A client that does not trust the certificate goes away.
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let service =
                        service_fn(move |request| respond(answer.clone(), seen.clone(), request));
                    let _ = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Hook {
            address,
            ca_bundle: base64::engine::general_purpose::STANDARD.encode(certificate.pem()),
            asked,
            serving,
        }
    }

    /// A `clientConfig` that means this server.
    pub(crate) fn client(&self, path: &str) -> Value {
        json!({"url": format!("https://{}{path}", self.address), "caBundle": self.ca_bundle})
    }

    pub(crate) fn count(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    pub(crate) fn last(&self) -> Value {
        self.asked
            .lock()
            .unwrap()
            .last()
            .cloned()
            .unwrap_or_default()
    }
}

async fn respond(
    answer: Arc<Answer>,
    seen: Arc<Mutex<Vec<Value>>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let path = request.uri().to_string();
    let body = request.into_body().collect().await?.to_bytes();
    let question: Value = serde_json::from_slice(&body).unwrap_or_default();
    seen.lock().unwrap().push(question.clone());
    let answer = tokio::task::spawn_blocking(move || answer(&path, &question)).await;
    let (code, body) = answer.unwrap_or((500, json!("the test's answer failed")));
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = code.try_into().unwrap();
    Ok(response)
}

/// An AdmissionReview that says yes, with these further members.
pub(crate) fn review(question: &Value, more: Value) -> (u16, Value) {
    let mut response = json!({"uid": question["request"]["uid"], "allowed": true});
    for (key, value) in more.as_object().into_iter().flatten() {
        response[key] = value.clone();
    }
    (
        200,
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}),
    )
}

/// The members of an answer that carry a JSON patch.
pub(crate) fn patch(patch: &Value) -> Value {
    let encoded = base64::engine::general_purpose::STANDARD.encode(patch.to_string());
    json!({"patch": encoded, "patchType": "JSONPatch"})
}
