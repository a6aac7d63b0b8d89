//! DNS over HTTPS as clients of HTTP/2 see it.

mod common;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use dns_server::instance::Environment;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

/// The question for the addresses of `a.`.
const QUERY: &[u8] = b"\0\0\x01\0\0\x01\0\0\0\0\0\0\x01a\0\0\x01\0\x01";

async fn secured(
    server: SocketAddr,
    trusted: &CertificateDer<'static>,
    protocol: &str,
) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap();
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    let stream = TcpStream::connect(server).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    connector.connect(name, stream).await.unwrap()
}

async fn connect(
    server: SocketAddr,
    trusted: &CertificateDer<'static>,
) -> SendRequest<Full<Bytes>> {
    let stream = secured(server, trusted, "h2").await;
    let connected = handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (sender, connection) = connected.unwrap();
    tokio::spawn(connection);
    sender
}

/// Passes connections on to a server, but nothing of those that are older than what the number says.
async fn relay(to: SocketAddr) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listener.unwrap();
    let (address, first) = (
        listener.local_addr().unwrap(),
        Arc::<AtomicUsize>::default(),
    );
    let passed = Arc::clone(&first);
    tokio::spawn(async move {
        for number in 0.. {
            let (client, _) = listener.accept().await.unwrap();
            let server = TcpStream::connect(to).await.unwrap();
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            for (mut from, mut to) in [(from_client, to_server), (from_server, to_client)] {
                let passed = Arc::clone(&passed);
                tokio::spawn(async move {
                    let mut octets = [0; 4096];
                    while let Ok(length @ 1..) = from.read(&mut octets).await {
                        if number >= passed.load(Ordering::Relaxed) {
                            to.write_all(&octets[..length]).await.unwrap();
                        }
                    }
                });
            }
        }
    });
    (address, first)
}

/// A certificate for localhost, the folder that it lies in with its key, and a free address.
fn certified() -> (
    tempfile::TempDir,
    rcgen::CertifiedKey<rcgen::KeyPair>,
    std::net::SocketAddr,
) {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(file("cert.pem"), own.cert.pem()).unwrap();
    std::fs::write(file("key.pem"), own.signing_key.serialize_pem()).unwrap();
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = free.local_addr().unwrap();
    (folder, own, address)
}

/// As behind a NAT that has forgotten the connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_connection_to_an_upstream_is_given_up() {
    let (folder, _, address) = certified();
    let (port, shown) = (address.port(), folder.path().display());
    let text = format!(
        "https://.:{port} {{\n bind 127.0.0.1\n tls {shown}/cert.pem {shown}/key.pem\n whoami\n}}\n"
    );
    let upstream = common::run(&text, None).await;
    let (relay, first) = relay(address).await;
    let text = format!(
        ". {{\n bind 127.0.0.1\n forward . https://{relay} {{\n  tls {shown}/cert.pem\n  tls_servername localhost\n  read_timeout 300ms\n }}\n}}\n"
    );
    let server = common::run(&text, None).await;
    let ask = async || {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        socket.connect(server.address).await.unwrap();
        socket.send(QUERY).await.unwrap();
        let mut answer = [0; 512];
        let received = timeout(Duration::from_secs(6), socket.recv(&mut answer)).await;
        received.expect("an answer").unwrap();
        answer[3] & 15
    };
    assert_eq!(ask().await, 0);
    first.store(1, Ordering::Relaxed);
    for _ in 0..2 {
        assert_eq!(ask().await, 0, "by a new connection");
    }
    server.stop().await;
    upstream.stop().await;
}

/// Behind a balancer that takes the TLS off.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_certificate_it_is_served_in_clear() {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let port = address.port();
    let text = format!("https://.:{port} {{\n bind 127.0.0.1\n whoami\n}}\n");
    let server = common::run(&text, None).await;
    let stream = TcpStream::connect(address).await.unwrap();
    let connected = handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = connected.unwrap();
    tokio::spawn(connection);
    let request = Request::post(format!("http://localhost:{port}/dns-query"))
        .header("content-type", "application/dns-message")
        .body(Full::new(Bytes::copy_from_slice(QUERY)))
        .unwrap();
    let response = sender.send_request(request).await.expect("a status");
    assert_eq!(response.status(), StatusCode::OK);
    drop(sender);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_has_a_status() {
    let (folder, own, address) = certified();
    let (port, shown) = (address.port(), folder.path().display());
    let text = format!(
        "https://.:{port} {{\n bind 127.0.0.1\n timeouts {{\n  read 1s\n }}\n tls {shown}/cert.pem {shown}/key.pem\n prometheus 127.0.0.1:0\n whoami\n}}\n"
    );
    let server = common::run(&text, None).await;
    let mut sender = connect(address, own.cert.der()).await;
    let message = "application/dns-message";
    let long = vec![b'x'; 60_000];
    let too_long = vec![b'x'; 70_000];
    for (method, path, kind, body, expected) in [
        (Method::POST, "/dns-query", message, QUERY, StatusCode::OK),
        (
            Method::POST,
            "/dns-query",
            "Application/DNS-Message; charset=x",
            QUERY,
            StatusCode::OK,
        ),
        (
            Method::POST,
            "/dns-query",
            "text/plain",
            QUERY,
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ),
        (
            Method::POST,
            "/dns-query",
            "text/plain",
            &long,
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ),
        (
            Method::POST,
            "/elsewhere",
            message,
            &long,
            StatusCode::NOT_FOUND,
        ),
        (
            Method::PUT,
            "/dns-query",
            message,
            &long,
            StatusCode::METHOD_NOT_ALLOWED,
        ),
        (
            Method::POST,
            "/dns-query",
            message,
            &too_long,
            StatusCode::PAYLOAD_TOO_LARGE,
        ),
    ] {
        let uri = format!("https://localhost:{port}{path}");
        let request = Request::builder().method(method).uri(uri);
        let request = request.header("content-type", kind);
        let request = request
            .body(Full::new(Bytes::copy_from_slice(body)))
            .unwrap();
        sender.ready().await.unwrap();
        let response = sender.send_request(request).await.expect("a status");
        assert_eq!(response.status(), expected);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body.is_empty(), expected != StatusCode::OK);
    }
    // Who announces a body and does not send it is not waited for.
    let mut stream = secured(address, own.cert.der(), "http/1.1").await;
    let head = "POST /dns-query HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/dns-message\r\nContent-Length: 100\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut status = [0; 12];
    stream.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 408");
    let metrics = common::metrics(&server.reloader);
    let counted = format!(
        "coredns_dns_https_responses_total{{server=\"https://127.0.0.1:{port}\",status=\"415\"}} 2\n"
    );
    assert!(metrics.contains(&counted), "{metrics}");
    server.stop().await;
}

/// A server in clear on a free port, whose connections may hold so many octets.
async fn in_clear(octets: usize, lines: &str) -> (common::Running, SocketAddr) {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let mut environment = Environment::new(0);
    environment.stream_octets = Arc::new(Semaphore::new(octets));
    let port = address.port();
    let text = format!(
        "https://.:{port} {{\n bind 127.0.0.1\n prometheus 127.0.0.1:0\n{lines} whoami\n}}\n"
    );
    (common::run_in(&text, environment).await, address)
}

/// What arrives in part is kept for few at a time; the others are told, and counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unfinished_bodies_of_all_are_bounded() {
    let (server, address) = in_clear(100_000, "").await;
    let head = "POST /dns-query HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/dns-message\r\nContent-Length: 60000\r\n\r\n";
    let unfinished = [head.as_bytes(), &[0; 40_000]].concat();
    let mut streams = Vec::new();
    for _ in 0..5 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&unfinished).await.unwrap();
        streams.push(stream);
    }
    let mut told = 0;
    for stream in &mut streams {
        let mut status = [0; 12];
        let read = timeout(Duration::from_millis(500), stream.read_exact(&mut status)).await;
        if read.is_ok() {
            assert_eq!(&status, b"HTTP/1.1 503");
            told += 1;
        }
    }
    assert!((1..5).contains(&told), "{told}");
    let text = common::metrics(&server.reloader);
    let counted = format!("coredns_shed_dropped_total{{reason=\"stream_octets\"}} {told}\n");
    assert!(text.contains(&counted), "{text}");
    server.stop().await;
}

/// Answers that a client does not read are among what connections hold, until it does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_answers_are_bounded() {
    // Room for one answer with the client's address and port.
    const ROOM: usize = 100;
    let (server, address) = in_clear(ROOM, "").await;
    let stream = TcpStream::connect(address).await.unwrap();
    let mut client = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    client.initial_stream_window_size(1);
    let connected = client.handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = connected.unwrap();
    tokio::spawn(connection);
    let mut ask = async || {
        let request = Request::post(format!("http://{address}/dns-query"))
            .header("content-type", "application/dns-message")
            .body(Full::new(Bytes::copy_from_slice(QUERY)));
        sender.ready().await.unwrap();
        let sent = sender.send_request(request.unwrap()).await;
        sent.expect("a status")
    };
    let unread = ask().await;
    assert_eq!(unread.status(), StatusCode::OK);
    assert_eq!(ask().await.status(), StatusCode::SERVICE_UNAVAILABLE);
    let answer = unread.into_body().collect().await.unwrap().to_bytes();
    assert!((ROOM / 2 + 1..=ROOM).contains(&answer.len()), "{answer:?}");
    assert_eq!(ask().await.status(), StatusCode::OK);
    server.stop().await;
}

/// A client that answers pings and asks nothing is sent away as one that is silent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_nothing_is_idle() {
    let (server, address) = in_clear(100_000, " timeouts {\n  idle 1s\n }\n").await;
    let stream = TcpStream::connect(address).await.unwrap();
    let connected = handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (sender, connection) = connected.unwrap();
    let sender: SendRequest<Full<Bytes>> = sender;
    let ended = timeout(Duration::from_secs(5), connection).await;
    ended.expect("it ends").expect("in good order");
    drop(sender);
    server.stop().await;
}
