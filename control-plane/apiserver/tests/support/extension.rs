//! Another API server: HTTPS on loopback, behind a Service, for whoever shows the front proxy's certificate.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use base64::Engine as _;
use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertificateParams, KeyPair};
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use storage::Write;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::Server;

pub(crate) const API_SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
/// What a server reads to know whom to believe.
pub(crate) const AUTHENTICATION: &str =
    "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";

/// Gets a request; gives the answer.
pub(crate) type Answer = dyn Fn(&Parts, &Bytes) -> Response<Body> + Send + Sync;

/// A server that ends with this value.
pub(crate) struct Extension {
    pub(crate) address: SocketAddr,
    /// Base64 of the PEM of its authority.
    pub(crate) ca_bundle: String,
    /// Every request so far.
    pub(crate) asked: Arc<Mutex<Vec<Parts>>>,
    serving: tokio::task::JoinHandle<()>,
}

impl Drop for Extension {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Extension {
    /// Believes whom the server says is to be believed; speaks these protocols.
    pub(crate) async fn start(
        server: &Server,
        service: &str,
        protocols: &[&str],
        answer: impl Fn(&Parts, &Bytes) -> Response<Body> + Send + Sync + 'static,
    ) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![format!("{service}.kube-system.svc")])
            .unwrap()
            .self_signed(&key)
            .unwrap();
        let believed = until(async || {
            let reply = server.get(AUTHENTICATION).await;
            (reply.code == 200).then(|| reply.json())
        })
        .await;
        let mut roots = rustls::RootCertStore::empty();
        let pem = believed["data"]["requestheader-client-ca-file"].as_str();
        for certificate in CertificateDer::pem_slice_iter(pem.unwrap().as_bytes()) {
            roots.add(certificate.unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            )
            .unwrap();
        tls.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::<Mutex<Vec<Parts>>>::default();
        let (answer, seen): (Arc<Answer>, _) = (Arc::new(answer), asked.clone());
        let serving = tokio::spawn(async move {
            // Connections end with this task.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, answer, seen) = (acceptor.clone(), answer.clone(), seen.clone());
                connections.spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let service =
                        service_fn(move |request| respond(answer.clone(), seen.clone(), request));
                    let _ = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
                        .serve_connection_with_upgrades(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Extension {
            address,
            ca_bundle: base64::engine::general_purpose::STANDARD.encode(certificate.pem()),
            asked,
            serving,
        }
    }

    /// Says to the server that this one answers for a version of a group.
    pub(crate) async fn register(
        &self,
        server: &Server,
        service: &str,
        group: &str,
        version: &str,
    ) {
        stand(server, service, self.address).await;
        let more = json!({"caBundle": self.ca_bundle});
        server
            .post(API_SERVICES, &api_service(service, group, version, &more))
            .await
            .ok();
        available(server, &format!("{version}.{group}"), "Passed").await;
    }

    /// The last request of such a path.
    pub(crate) fn last(&self, path: &str) -> Parts {
        let asked = self.asked.lock().unwrap();
        let found = asked.iter().rev().find(|parts| parts.uri.path() == path);
        found
            .unwrap_or_else(|| panic!("{path} was asked for"))
            .clone()
    }
}

async fn respond(
    answer: Arc<Answer>,
    seen: Arc<Mutex<Vec<Parts>>>,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, hyper::Error> {
    if request.headers().contains_key("upgrade") {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut stream = TokioIo::new(upgrade.await.unwrap());
            let (mut read, mut write) = tokio::io::split(&mut stream);
            let _ = tokio::io::copy(&mut read, &mut write).await;
        });
    }
    let (parts, body) = request.into_parts();
    let body = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return Err(error),
    };
    seen.lock().unwrap().push(parts.clone());
    Ok(answer(&parts, &body))
}

/// A Service with one endpoint.
pub(crate) async fn stand(server: &Server, service: &str, address: SocketAddr) {
    let object = json!({
        "metadata": {"name": service},
        "spec": {"ports": [{"name": "https", "port": 443}]},
    });
    server
        .post("/api/v1/namespaces/kube-system/services", &object)
        .await
        .ok();
    point(server, service, address).await;
}

/// Gives the Service this one endpoint. No client can write one on loopback.
pub(crate) async fn point(server: &Server, service: &str, address: SocketAddr) {
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {
            "name": service, "namespace": "kube-system", "labels": {"kubernetes.io/service-name": service},
        },
        "endpoints": [{"addresses": [address.ip().to_string()]}],
        "ports": [{"name": "https", "port": address.port()}],
    });
    let key = format!("/registry/endpointslices/kube-system/{service}");
    let value = Bytes::from(slice.to_string());
    let write = match server.storage.get(&key).await.unwrap() {
        None => Write::Create { key, value },
        Some(entry) => Write::Update {
            key,
            value,
            expected: entry.modified,
        },
    };
    server.storage.write(vec![write]).await.unwrap();
}

pub(crate) fn api_service(service: &str, group: &str, version: &str, more: &Value) -> Value {
    let mut spec = json!({
        "group": group, "version": version, "groupPriorityMinimum": 100, "versionPriority": 100,
        "service": {"namespace": "kube-system", "name": service},
    });
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    json!({"metadata": {"name": format!("{version}.{group}")}, "spec": spec})
}

/// Waits until the condition has this reason, and returns it.
pub(crate) async fn available(server: &Server, name: &str, reason: &str) -> Value {
    until(async || {
        let service = server.get(&format!("{API_SERVICES}/{name}")).await.ok();
        let condition = service["status"]["conditions"][0].clone();
        (condition["reason"] == reason).then_some(condition)
    })
    .await
}

/// What comes of it in some seconds.
pub(crate) async fn until<T>(look: impl AsyncFn() -> Option<T>) -> T {
    for _ in 0..400 {
        if let Some(found) = look().await {
            return found;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("it does not come about");
}

/// JSON with this status.
pub(crate) fn answered(code: u16, body: &Value) -> Response<Body> {
    Response::builder()
        .status(code)
        .header("content-type", "application/json")
        .body(Body::from(body.to_string()))
        .unwrap()
}
