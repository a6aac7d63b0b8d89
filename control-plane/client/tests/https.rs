//! Real connections on loopback: TLS, client certificates, HTTP/2 and HTTP/1.1, tokens from files.
#![forbid(unsafe_code)]

use std::convert::Infallible;
use std::path::Path as FilePath;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use client::{Client, Path};
use http::{Request, Response, StatusCode, Version};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// What a server saw of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Seen {
    connection: usize,
    version: Version,
    path: String,
    login: String,
    certificate: bool,
}

struct Server {
    port: u16,
    seen: Arc<Mutex<Vec<Seen>>>,
    authority: CertifiedIssuer<'static, KeyPair>,
}

/// A server on loopback with a certificate of its own authority; refuses the token `old`.
async fn server(alpn: &[&str]) -> Server {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".into(), "api.test".into()]).unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();

    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()
            .unwrap();
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    tls.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Arc::new(Mutex::new(Vec::new()));
    tokio::spawn(accept(
        listener,
        TlsAcceptor::from(Arc::new(tls)),
        Arc::clone(&seen),
    ));
    Server {
        port,
        seen,
        authority,
    }
}

async fn accept(listener: TcpListener, tls: TlsAcceptor, seen: Arc<Mutex<Vec<Seen>>>) {
    for connection in 0.. {
        let (tcp, _) = listener.accept().await.unwrap();
        let (tls, seen) = (tls.clone(), Arc::clone(&seen));
        tokio::spawn(async move {
            let Ok(stream) = tls.accept(tcp).await else {
                return;
            };
            let certificate = stream.get_ref().1.peer_certificates().is_some();
            let service = service_fn(move |request: Request<Incoming>| {
                let login = request.headers().get("authorization");
                let login = login.map_or("", |value| value.to_str().unwrap()).to_owned();
                let code = match login.as_str() {
                    "Bearer old" => StatusCode::UNAUTHORIZED,
                    _ => StatusCode::OK,
                };
                seen.lock().unwrap().push(Seen {
                    connection,
                    version: request.version(),
                    path: request.uri().path().to_owned(),
                    login,
                    certificate,
                });
                let body = Full::new(Bytes::from_static(b"{\"answer\":42}"));
                async move { Ok::<_, Infallible>(Response::builder().status(code).body(body).unwrap()) }
            });
            // The client went away: nothing to do.
            let _ = auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

impl Server {
    fn kubeconfig(&self, cluster: &Value, user: &Value) -> String {
        let mut whole = json!({"server": format!("https://127.0.0.1:{}", self.port)});
        for (key, value) in cluster.as_object().unwrap() {
            whole[key] = value.clone();
        }
        json!({
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": whole}],
            "users": [{"name": "u", "user": user}],
        })
        .to_string()
    }

    fn trusted(&self) -> Value {
        json!({"certificate-authority-data": STANDARD.encode(self.authority.pem())})
    }

    fn client(&self, cluster: &Value, user: &Value) -> Client {
        Client::from_kubeconfig_text(&self.kubeconfig(cluster, user), "k").unwrap()
    }

    fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

async fn get(client: &Client) -> Value {
    client.get(&Path::raw("/version")).await.unwrap()
}

#[tokio::test]
async fn http2_shares_a_connection_and_http1_is_the_fallback() {
    for (alpn, version) in [
        (&["h2", "http/1.1"][..], Version::HTTP_2),
        (&["http/1.1"], Version::HTTP_11),
        (&[], Version::HTTP_11),
    ] {
        let server = server(alpn).await;
        let client = server.client(&server.trusted(), &json!({"token": "t"}));
        assert_eq!(get(&client).await, json!({"answer": 42}));
        futures_util::future::join_all((0..20).map(|_| get(&client))).await;
        let seen = server.seen();
        assert_eq!(seen.len(), 21);
        assert!(
            seen.iter()
                .all(|seen| seen.version == version && seen.login == "Bearer t"),
            "{seen:?}"
        );
        if version == Version::HTTP_2 {
            assert!(seen.iter().all(|seen| seen.connection == 0), "{seen:?}");
        }
    }
}

#[tokio::test]
async fn whom_we_trust_and_who_we_are() {
    let server = server(&["h2"]).await;
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![]).unwrap();
    let certificate = params.signed_by(&key, &server.authority).unwrap();
    let pair = json!({
        "client-certificate-data": STANDARD.encode(certificate.pem()),
        "client-key-data": STANDARD.encode(key.serialize_pem()),
    });
    let insecure = json!({"insecure-skip-tls-verify": true});
    let mut prefixed = server.trusted();
    prefixed["server"] = json!(format!("https://127.0.0.1:{}/k8s/c-1/", server.port));
    let mut named = server.trusted();
    named["tls-server-name"] = json!("api.test");
    for (cluster, user, path, login, certificate) in [
        (&server.trusted(), &pair, "/version", "", true),
        (&insecure, &json!({}), "/version", "", false),
        (
            &named,
            &json!({"username": "a", "password": "b"}),
            "/version",
            "Basic YTpi",
            false,
        ),
        (
            &prefixed,
            &json!({"token": "t"}),
            "/k8s/c-1/version",
            "Bearer t",
            false,
        ),
    ] {
        get(&server.client(cluster, user)).await;
        let [seen] = &server.seen()[..] else {
            panic!("one request")
        };
        assert_eq!(
            (seen.path.as_str(), seen.login.as_str(), seen.certificate),
            (path, login, certificate)
        );
    }

    let mut misnamed = server.trusted();
    misnamed["tls-server-name"] = json!("other.test");
    for cluster in [misnamed, json!({})] {
        let error = server
            .client(&cluster, &json!({}))
            .get_raw(&Path::raw("/version"))
            .await;
        let error = format!("{:?}", error.unwrap_err());
        assert!(error.contains("InvalidCertificate"), "{error}");
    }
    assert_eq!(server.seen(), []);
}

#[tokio::test]
async fn a_refused_token_is_read_again() {
    let server = server(&["h2"]).await;
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    std::fs::write(&token, "old\n").unwrap();
    let file = directory.path().join("config");
    let text = server.kubeconfig(&server.trusted(), &json!({"tokenFile": "token"}));
    std::fs::write(&file, text).unwrap();
    let client = Client::from_kubeconfig(&file).unwrap();

    let error = client.get_raw(&Path::raw("/version")).await.unwrap_err();
    assert_eq!(error.status().map(|status| status.code), Some(401));
    assert_eq!(server.seen().len(), 1, "the same token is not sent twice");

    std::fs::write(&token, "new\n").unwrap();
    get(&client).await;
    get(&client).await;
    let logins: Vec<String> = server.seen().into_iter().map(|seen| seen.login).collect();
    assert_eq!(
        logins,
        ["Bearer old", "Bearer new", "Bearer new"],
        "what was cached is tried first"
    );

    std::fs::remove_file(&token).unwrap();
    get(&client).await;
}

#[tokio::test]
async fn nobody_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let text = json!({
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c"}}],
        "clusters": [{"name": "c", "cluster": {"server": server}}],
    });
    let client = Client::from_kubeconfig_text(&text.to_string(), FilePath::new("k")).unwrap();
    let error = client.get_raw(&Path::raw("/version")).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("GET /version: no answer from {server}/")
    );
}
