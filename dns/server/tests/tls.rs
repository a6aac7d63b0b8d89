//! Servers with TLS: which clients they want to see a certificate of.

mod common;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// The question for the addresses of `a.`, with its length before it.
const QUERY: &[u8] = b"\0\x13\0\0\x01\0\0\x01\0\0\0\0\0\0\x01a\0\0\x01\0\x01";

/// Whether a question is answered, of a client who shows this certificate of its own or none.
async fn answers(
    question: &[u8],
    server: SocketAddr,
    trusted: &CertificateDer<'static>,
    shown: Option<&rcgen::CertifiedKey<rcgen::KeyPair>>,
) -> bool {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match shown {
        Some(own) => {
            let key = own.signing_key.serialize_der().try_into().unwrap();
            let chain = vec![own.cert.der().clone()];
            config.with_client_auth_cert(chain, key).unwrap()
        }
        None => config.with_no_client_auth(),
    };
    let asked = async {
        let stream = TcpStream::connect(server).await?;
        let name = ServerName::try_from("localhost").unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let mut stream = connector.connect(name, stream).await?;
        stream.write_all(question).await?;
        stream.read_u16().await
    };
    let asked = timeout(Duration::from_secs(5), asked).await;
    asked.expect("an answer or an end").is_ok()
}

/// An address that nobody listens on.
async fn free() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    listener.unwrap().local_addr().unwrap()
}

/// The modes are those of Go's library: `request` and `require` take any certificate, and only the other two need an
/// authority, which is the system's where none is named.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_show_what_client_auth_wants() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let make = || rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (own, known, stranger) = (make(), make(), make());
    std::fs::write(file("cert.pem"), own.cert.pem()).unwrap();
    std::fs::write(file("key.pem"), own.signing_key.serialize_pem()).unwrap();
    std::fs::write(file("known.pem"), known.cert.pem()).unwrap();
    let shown = folder.path().display().to_string();
    let ca = format!("{shown}/known.pem");
    // Who is answered: who shows nothing, a certificate of the authority, one of a stranger.
    for (ca, mode, expected) in [
        ("", "nocert", [true, true, true]),
        ("", "request", [true, true, true]),
        ("", "require", [false, true, true]),
        ("", "verify_if_given", [true, false, false]),
        ("", "require_and_verify", [false, false, false]),
        (&*ca, "require", [false, true, true]),
        (&*ca, "verify_if_given", [true, true, false]),
        (&*ca, "require_and_verify", [false, true, false]),
    ] {
        let address = free().await;
        let text = format!(
            "tls://.:{} {{\n bind 127.0.0.1\n tls {shown}/cert.pem {shown}/key.pem {ca} {{\n  client_auth {mode}\n }}\n whoami\n}}\n",
            address.port()
        );
        let server = common::run(&text, None).await;
        let mut found = Vec::new();
        for client in [None, Some(&known), Some(&stranger)] {
            found.push(answers(QUERY, address, own.cert.der(), client).await);
        }
        assert_eq!(found, expected, "{mode} {ca}");
        server.stop().await;
    }
}

/// The same of the server that metrics are fetched from.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_fetches_metrics_shows_what_the_web_configuration_wants() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let make = || rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (own, stranger) = (make(), make());
    write("cert.pem", &own.cert.pem());
    write("key.pem", &own.signing_key.serialize_pem());
    let shown = folder.path().display();
    for (mode, expected) in [
        ("NoClientCert", [true, true]),
        ("RequestClientCert", [true, true]),
        ("RequireAnyClientCert", [false, true]),
    ] {
        write(
            "web.yml",
            &format!(
                "tls_server_config:\n  cert_file: cert.pem\n  key_file: key.pem\n  client_auth_type: {mode}\n"
            ),
        );
        let address = free().await;
        let text = format!(
            ". {{\n bind 127.0.0.1\n prometheus {address} {{\n  tls {shown}/web.yml\n }}\n whoami\n}}\n"
        );
        let server = common::run(&text, None).await;
        let question = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n";
        let mut found = Vec::new();
        for client in [None, Some(&stranger)] {
            found.push(answers(question, address, own.cert.der(), client).await);
        }
        assert_eq!(found, expected, "{mode}");
        server.stop().await;
    }
}
