//! The certificate that clients see, where it is somebody else's: `--tls-cert-file`, `--tls-private-key-file` and
//! `--root-ca-file`.

mod support;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use api::value::text;
use base64::Engine as _;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use support::Server;
use tokio::net::{TcpListener, TcpStream};

/// An authority of somebody else's.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        Authority { pem, issuer }
    }

    /// A certificate for `localhost` and its key, PEM.
    fn leaf(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        (leaf.pem(), key.serialize_pem())
    }
}

fn put(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}

/// The certificate that the server shows to somebody who trusts `authority` alone.
async fn shown(address: SocketAddr, authority: &str) -> Result<CertificateDer<'static>, String> {
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connected = tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .map_err(|error| error.to_string())?;
    let (_, session) = connected.get_ref();
    Ok(session.peer_certificates().unwrap()[0].clone().into_owned())
}

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_shown_and_renewed() {
    let (authority, files) = (Authority::new("theirs"), tempfile::tempdir().unwrap());
    let (cert, key) = (files.path().join("tls.crt"), files.path().join("tls.key"));
    let first = authority.leaf();
    put(&cert, &format!("{}{}", first.0, authority.pem));
    put(&key, &first.1);
    let server = Server::with(Arc::new(storage::memory::Memory::new()), |config| {
        config.tls_cert_file = Some(cert.clone());
        config.tls_private_key_file = Some(key.clone());
    })
    .await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = server.app.clone();
    let served = tokio::spawn(async move { app.serve(listener, std::future::pending()).await });

    let found = shown(address, &authority.pem).await.unwrap();
    assert_eq!(found, der(&first.0));
    let other = shown(address, &Authority::new("others").pem).await;
    assert!(other.is_err(), "it is believed by who trusts somebody else");
    // Whoever is told whom to trust is told of that authority.
    assert_eq!(der(server.app.ca_certificate()), der(&authority.pem));
    let encoded = base64::engine::general_purpose::STANDARD.encode(&authority.pem);
    assert!(server.app.kubeconfig("https://x").contains(&encoded));
    let path = "/api/v1/namespaces/default/configmaps/kube-root-ca.crt";
    let published = loop {
        let answer = server.get(path).await;
        if answer.code == 200 {
            break answer.json();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert_eq!(
        der(text(&published, &["data", "ca.crt"])),
        der(&authority.pem)
    );

    // Files that were replaced are used without a restart.
    let second = authority.leaf();
    put(&cert, &format!("{}{}", second.0, authority.pem));
    put(&key, &second.1);
    tokio::time::pause();
    let renewed = async {
        while shown(address, &authority.pem).await.unwrap() != der(&second.0) {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(600), renewed)
        .await
        .expect("the new certificate is shown");
    served.abort();
}

#[tokio::test]
async fn who_has_to_be_trusted() {
    let (theirs, root) = (Authority::new("theirs"), Authority::new("root"));
    let leaf = theirs.leaf();
    let alone = leaf.0.as_str();
    let chain = format!("{alone}{}", theirs.pem);
    // What is in --tls-cert-file and in --root-ca-file; whom clients trust then.
    let cases = [
        (alone, None, alone),
        (&chain, None, &theirs.pem),
        (&chain, Some(root.pem.as_str()), &root.pem),
    ];
    for (cert, root, trusted) in cases {
        let files = tempfile::tempdir().unwrap();
        let path = |name: &str| files.path().join(name);
        put(&path("tls.crt"), cert);
        put(&path("tls.key"), &leaf.1);
        put(&path("root.crt"), root.unwrap_or_default());
        let server = Server::with(Arc::new(storage::memory::Memory::new()), |config| {
            config.tls_cert_file = Some(path("tls.crt"));
            config.tls_private_key_file = Some(path("tls.key"));
            config.root_ca_file = root.map(|_| path("root.crt"));
        })
        .await;
        assert_eq!(der(server.app.ca_certificate()), der(trusted));
    }
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named() {
    let authority = Authority::new("theirs");
    let (leaf, other) = (authority.leaf(), authority.leaf());
    // Certificate, key; what is named.
    let cases = [
        (leaf.0.as_str(), other.1.as_str(), "tls.crt"),
        ("nonsense", &leaf.1, "tls.crt"),
        (&leaf.0, "nonsense", "tls.key"),
        (&leaf.0, &leaf.0, "tls.key"),
    ];
    for (cert, key, named) in cases {
        let files = tempfile::tempdir().unwrap();
        let path = |name: &str| files.path().join(name);
        put(&path("tls.crt"), cert);
        put(&path("tls.key"), key);
        let config = apiserver::Config {
            tls_cert_file: Some(path("tls.crt")),
            tls_private_key_file: Some(path("tls.key")),
            ..support::config(files.path())
        };
        let built = apiserver::build(config, Arc::new(storage::memory::Memory::new())).await;
        let error = built.err().expect("it is refused").to_string();
        assert!(error.contains(named), "{error}");
    }
    let files = tempfile::tempdir().unwrap();
    let config = apiserver::Config {
        tls_cert_file: Some("tls.crt".into()),
        ..support::config(files.path())
    };
    let built = apiserver::build(config, Arc::new(storage::memory::Memory::new())).await;
    let error = built.err().expect("it is refused").to_string();
    assert!(error.contains("--tls-private-key-file"), "{error}");
}

/// How two servers come to trust the same clients.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Sharing {
    /// The second has copies of the first's authority and keys.
    Copies,
    /// The second is told of them by flags, and both show a certificate of somebody else's.
    Flags,
}

/// Listens until it is dropped; where.
struct Listening(SocketAddr, tokio::task::JoinHandle<()>);

impl Drop for Listening {
    fn drop(&mut self) {
        self.1.abort();
    }
}

async fn listen(server: &Server) -> Listening {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = server.app.clone();
    let served = tokio::spawn(async move {
        let _ = app.serve(listener, std::future::pending()).await;
    });
    Listening(address, served)
}

/// A field of a kubeconfig, decoded.
fn field(kubeconfig: &str, name: &str) -> Vec<u8> {
    let lines = kubeconfig.lines().map(str::trim);
    let mut found = lines.filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let encoded = found.next_back().expect("the field is there");
    base64::engine::general_purpose::STANDARD
        .decode(encoded)
        .unwrap()
}

/// Whom the server at `address` takes the owner of the kubeconfig for.
async fn who(address: SocketAddr, kubeconfig: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut roots = rustls::RootCertStore::empty();
    let authority = field(kubeconfig, "certificate-authority-data");
    roots
        .add(CertificateDer::from_pem_slice(&authority).unwrap())
        .unwrap();
    let chain = field(kubeconfig, "client-certificate-data");
    let key = field(kubeconfig, "client-key-data");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![CertificateDer::from_pem_slice(&chain).unwrap()],
            rustls_pki_types::PrivateKeyDer::from_pem_slice(&key).unwrap(),
        )
        .unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let mut stream = connector.connect(name, stream).await.unwrap();
    let request = "POST /apis/authentication.k8s.io/v1/selfsubjectreviews HTTP/1.1\r\nhost: localhost\r\n\
                   connection: close\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").expect("an answer");
    let review: serde_json::Value = serde_json::from_str(body).unwrap();
    text(&review, &["status", "userInfo", "username"]).to_owned()
}

async fn store(url: &str) -> Arc<dyn storage::Storage> {
    let options = storage_etcd::Options::new(vec![url.to_owned()]);
    let codec = Arc::new(apiserver::KubernetesCodec);
    let store = storage_etcd::Etcd::connect(options, codec).await;
    Arc::new(store.expect("etcd answers"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_on_one_etcd_trust_the_same_clients() {
    use serde_json::json;
    for sharing in [Sharing::Copies, Sharing::Flags] {
        let etcd = storage_etcd::testing::Server::start();
        let (front, files) = (Authority::new("front"), tempfile::tempdir().unwrap());
        let leaf = front.leaf();
        let path = |name: &str| files.path().join(name);
        put(&path("tls.crt"), &leaf.0);
        put(&path("tls.key"), &leaf.1);
        put(&path("root.crt"), &front.pem);
        let shown = |config: &mut apiserver::Config| {
            if sharing == Sharing::Flags {
                config.tls_cert_file = Some(path("tls.crt"));
                config.tls_private_key_file = Some(path("tls.key"));
                config.root_ca_file = Some(path("root.crt"));
            }
        };
        let a = Server::with(store(&etcd.url).await, |config| shown(config)).await;
        let theirs = a.dir.path().join("pki");
        let b = Server::with(store(&etcd.url).await, |config| {
            shown(config);
            let own = config.data_dir.join("pki");
            match sharing {
                Sharing::Copies => {
                    std::fs::create_dir_all(&own).unwrap();
                    for name in ["ca.crt", "ca.key", "sa.key"] {
                        std::fs::copy(theirs.join(name), own.join(name)).unwrap();
                    }
                }
                Sharing::Flags => {
                    config.client_ca_file = Some(theirs.join("ca.crt"));
                    config.service_account_signing_key_file = Some(theirs.join("sa.key"));
                }
            }
        })
        .await;
        assert_eq!(
            a.app.ca_certificate(),
            b.app.ca_certificate(),
            "{sharing:?}"
        );
        // The administrator's certificate of the first is good at the second.
        let kubeconfig = a.app.kubeconfig("https://localhost");
        for server in [&a, &b] {
            let listening = listen(server).await;
            assert_eq!(who(listening.0, &kubeconfig).await, "fairlead-admin");
        }
        // What either signs for a service account the other takes.
        let accounts = "/api/v1/namespaces/default/serviceaccounts";
        let account = json!({"metadata": {"name": "bot"}});
        a.post(accounts, &account).await.ok();
        for (signs, takes) in [(&a, &b), (&b, &a)] {
            let (path, spec) = (format!("{accounts}/bot/token"), json!({"spec": {}}));
            let token = signs.post(&path, &spec).await.ok()["status"]["token"].take();
            let review = json!({"spec": {"token": token}});
            let path = "/apis/authentication.k8s.io/v1/tokenreviews";
            let status = takes.post(path, &review).await.ok()["status"].take();
            let name = text(&status, &["user", "username"]);
            assert_eq!(
                name, "system:serviceaccount:default:bot",
                "{sharing:?} {status}"
            );
        }
    }
}
