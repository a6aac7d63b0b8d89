//! Over loopback: TLS, both HTTP versions, client certificate and token, kubeconfig, shutdown.

mod support;

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use axum::body::Body;
use base64::Engine as _;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use support::Server;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::client::TlsStream;

struct Running {
    server: Server,
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    served: tokio::task::JoinHandle<Result<(), apiserver::Error>>,
}

async fn start() -> Running {
    let server = Server::with(Arc::new(storage::memory::Memory::new()), |config| {
        config.kubeconfig = Some(config.data_dir.join("kubeconfig"));
    })
    .await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let app = server.app.clone();
    let served = tokio::spawn(async move {
        app.serve(listener, async {
            let _ = stopped.await;
        })
        .await
    });
    Running {
        server,
        address,
        stop,
        served,
    }
}

/// A field of the kubeconfig, decoded.
fn field(kubeconfig: &str, name: &str) -> Vec<u8> {
    let line = kubeconfig
        .lines()
        .find_map(|line| line.trim().strip_prefix(&format!("{name}: ")))
        .unwrap();
    base64::engine::general_purpose::STANDARD
        .decode(line)
        .unwrap()
}

impl Running {
    async fn connect(
        &self,
        alpn: &str,
        certificate: bool,
    ) -> Result<TlsStream<TcpStream>, Box<dyn std::error::Error>> {
        let kubeconfig = self.server.app.kubeconfig("https://here");
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&field(
            &kubeconfig,
            "certificate-authority-data",
        ))?)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let mut config = if certificate {
            let chain = vec![CertificateDer::from_pem_slice(&field(
                &kubeconfig,
                "client-certificate-data",
            ))?];
            config.with_client_auth_cert(
                chain,
                PrivateKeyDer::from_pem_slice(&field(&kubeconfig, "client-key-data"))?,
            )?
        } else {
            config.with_no_client_auth()
        };
        if !alpn.is_empty() {
            config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        }
        let stream = TcpStream::connect(self.address).await?;
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        Ok(connector
            .connect(ServerName::try_from("localhost")?, stream)
            .await?)
    }

    async fn request(
        &self,
        alpn: &str,
        certificate: bool,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, Box<dyn std::error::Error>> {
        let stream = TokioIo::new(self.connect(alpn, certificate).await?);
        if alpn == "h2" {
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await?;
            tokio::spawn(connection);
            Ok(sender.send_request(request).await?)
        } else {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
            tokio::spawn(connection);
            Ok(sender.send_request(request).await?)
        }
    }
}

fn get(path: &str, token: Option<&str>) -> Request<Body> {
    let mut request = Request::builder()
        .uri(format!("https://localhost{path}"))
        .header("host", "localhost");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    request.body(Body::empty()).unwrap()
}

#[tokio::test]
async fn certificate_and_token_open_the_door_in_both_versions_of_http() {
    let running = start().await;
    let token = running.server.app.admin_token().to_owned();
    for alpn in ["h2", "http/1.1"] {
        for (certificate, token, code) in [
            (true, None, 200),
            (false, Some(token.as_str()), 200),
            (false, Some("wrong"), 401),
            (true, Some("wrong"), 200),
            (false, None, 403),
        ] {
            let response = running
                .request(alpn, certificate, get("/api/v1/pods", token))
                .await
                .unwrap();
            assert_eq!(
                response.status(),
                code,
                "{alpn} certificate {certificate} token {token:?}"
            );
        }
    }
}

#[tokio::test]
async fn the_shutdown_ends_watches_and_the_server() {
    let running = start().await;
    let mut watches = Vec::new();
    for alpn in ["h2", "http/1.1"] {
        let response = running
            .request(alpn, true, get("/api/v1/namespaces?watch=1", None))
            .await
            .unwrap();
        let mut body = response.into_body();
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(first.starts_with(b"{\"type\":\"ADDED\""), "{first:?}");
        watches.push(body);
    }
    running.stop.send(()).unwrap();
    for mut body in watches {
        while let Some(frame) = body.frame().await {
            frame.unwrap();
        }
    }
    tokio::time::timeout(std::time::Duration::from_secs(5), running.served)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert!(TcpStream::connect(running.address).await.is_err());
}

#[tokio::test]
async fn the_kubeconfig_is_for_its_owner_alone() {
    let running = start().await;
    let path = running.server.dir.path().join("kubeconfig");
    // It is written once the server answers.
    running
        .request("h2", true, get("/readyz", None))
        .await
        .unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(
        text.contains(&format!("server: \"https://{}\"", running.address)),
        "{text}"
    );
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
}

#[tokio::test]
async fn those_who_speak_no_tls_disturb_nobody() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let running = start().await;
    for (sent, told) in [
        (b"GET / HTTP/1.1\r\n\r\n".as_slice(), true),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", true),
        (b"\x16\x03\x01 and no more of it", false),
        (b"\0\0\0", false),
    ] {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        stream.write_all(sent).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer);
        let words = "Client sent an HTTP request to an HTTPS server.";
        assert_eq!(answer.contains(words), told, "{sent:?}: {answer}");
    }
    let response = running
        .request("h2", true, get("/readyz", None))
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn silent_connections_are_let_go_and_watches_are_not() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let running = start().await;
    let watched = "/api/v1/namespaces?watch=1&resourceVersion=1&timeoutSeconds=300";
    let watch = running
        .request("http/1.1", true, get(watched, None))
        .await
        .unwrap();
    let mut silent = Vec::new();
    for (alpn, sent) in [
        ("", ""),
        ("h2", ""),
        ("h2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ("http/1.1", ""),
        ("http/1.1", "GET /readyz HTTP/1.1\r\nhost: "),
        (
            "http/1.1",
            "GET /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n",
        ),
    ] {
        let mut stream = running.connect(alpn, false).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        silent.push((alpn, sent, stream));
    }
    // From here on the clock runs ahead whenever everybody waits.
    tokio::time::pause();
    let began = tokio::time::Instant::now();
    for (alpn, sent, mut stream) in silent {
        let mut answer = Vec::new();
        let ended = stream.read_to_end(&mut answer);
        let ended = tokio::time::timeout(std::time::Duration::from_secs(200), ended).await;
        assert!(ended.is_ok(), "{alpn:?} {sent:?} stays");
    }
    assert!(began.elapsed().as_secs() < 120, "{:?}", began.elapsed());
    assert!(watch.into_body().collect().await.is_ok());
    assert!(began.elapsed().as_secs() >= 290, "{:?}", began.elapsed());
}

#[tokio::test]
async fn the_way_to_the_server_is_put_back_when_it_is_deleted() {
    let running = start().await;
    running
        .request("h2", true, get("/readyz", None))
        .await
        .unwrap();
    let path = "/api/v1/namespaces/default/services";
    let mut watch = running.server.watch(&format!("{path}?watch=1")).await;
    assert_eq!(watch.line().await, "ADDED kubernetes");
    running
        .server
        .delete(&format!("{path}/kubernetes"))
        .await
        .ok();
    assert_eq!(watch.line().await, "DELETED kubernetes");
    let back = watch.next().await.unwrap();
    assert_eq!(back["object"]["spec"]["clusterIP"], "10.96.0.1");
}

#[tokio::test]
async fn streams_that_are_reset_at_once_and_connections_half_open_hold_nobody_up() {
    let running = start().await;
    let token = running.server.app.admin_token().to_owned();
    // Connected, and silent ever after; some in the middle of a handshake.
    let mut silent = Vec::new();
    for i in 0..200 {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        if i % 2 == 0 {
            tokio::io::AsyncWriteExt::write_all(&mut stream, &[22, 3, 1, 2, 0])
                .await
                .unwrap();
        }
        silent.push(stream);
    }
    // CVE-2023-44487: a request and its reset, as fast as it goes, until the server has had enough.
    let stream = TokioIo::new(running.connect("h2", true).await.unwrap());
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream)
            .await
            .unwrap();
    let connection = tokio::spawn(connection);
    for _ in 0..20_000 {
        if sender.ready().await.is_err() {
            break;
        }
        let mut answer = Box::pin(sender.send_request(get("/api/v1/pods", None)));
        // Once polled it is on its way; dropped, it is reset.
        let _ = futures_util::poll!(&mut answer);
    }
    drop(sender);
    for alpn in ["h2", "http/1.1"] {
        let asked = running.request(alpn, false, get("/readyz", Some(&token)));
        let answer = tokio::time::timeout(std::time::Duration::from_secs(10), asked).await;
        assert_eq!(answer.unwrap().unwrap().status(), 200);
    }
    connection.abort();
    drop(silent);
    running.stop.send(()).unwrap();
    running.served.await.unwrap().unwrap();
}
