//! The certificate that clients see: the server's own, or one that somebody else has signed (`--tls-cert-file`), and
//! whom clients have to trust to believe it.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustls::CipherSuite;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::pki::{self, Pki, certificates};
use crate::{Config, Error};

/// What connections are made with: TLS 1.2 and 1.3, HTTP/2 before HTTP/1.1; a client certificate is asked for and may
/// be left out. Files are read each time.
pub(crate) fn tls(config: &Config, pki: &Pki) -> Result<rustls::ServerConfig, Error> {
    let mut roots = front_roots(pki)?;
    if let Some(path) = &config.client_ca_file {
        for cert in certificates(&read(path, "reading the authorities in")?, path)? {
            roots.add(cert).map_err(|e| Error::damaged(path, &e))?;
        }
    }
    for cert in certificates(&pki.ca_cert, Path::new("ca.crt"))? {
        roots.add(cert).map_err(Error::certificate)?;
    }
    let provider = provider();
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()
            .map_err(Error::certificate)?;
    let builder = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(Error::certificate)?
        .with_client_cert_verifier(verifier);
    let mut tls = match given(config)? {
        Some((chain, key, path)) => builder
            .with_single_cert(chain, key)
            .map_err(|e| Error::damaged(path, &e))?,
        None => {
            let key = PrivateKeyDer::from_pem_slice(pki.server.key.as_bytes())
                .map_err(Error::certificate)?;
            let chain = certificates(&pki.server.cert, Path::new("server.crt"))?;
            builder
                .with_single_cert(chain, key)
                .map_err(Error::certificate)?
        }
    };
    tls.ignore_client_order = true;
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(tls)
}

/// Tells those who speak for users from the users.
pub(crate) fn fronts(pki: &Pki) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    WebPkiClientVerifier::builder_with_provider(Arc::new(front_roots(pki)?), pki::provider())
        .build()
        .map_err(Error::certificate)
}

fn front_roots(pki: &Pki) -> Result<rustls::RootCertStore, Error> {
    let mut roots = rustls::RootCertStore::empty();
    for cert in certificates(&pki.front_ca, Path::new("front-proxy-ca.crt"))? {
        roots.add(cert).map_err(Error::certificate)?;
    }
    Ok(roots)
}

/// Authorities of which one signs a client's certificate, PEM: the server's own, and those of `--client-ca-file`.
pub(crate) fn client_authorities(config: &Config, pki: &Pki) -> Result<String, Error> {
    let mut pem = pki.ca_cert.clone();
    if let Some(path) = &config.client_ca_file {
        pem.push_str(&read(path, "reading the authorities in")?);
    }
    Ok(pem)
}

/// The provider of cryptography with the suites in the order in which the server wants them, which is Go's: of two
/// that nobody can break, AES-128 costs a third less than AES-256.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| {
        let (suite, new) = (suite.suite(), suite.tls13().is_some());
        let small = matches!(
            suite,
            CipherSuite::TLS13_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
        );
        (!new, !small)
    });
    Arc::new(provider)
}

/// Certificates, PEM, of which clients have to trust one: they stand in kubeconfigs and in the ConfigMap
/// `kube-root-ca.crt` of each namespace.
pub(crate) fn authorities(config: &Config, pki: &Pki) -> Result<String, Error> {
    if let Some(path) = &config.root_ca_file {
        let pem = read(path, "reading the authorities in")?;
        if certificates(&pem, path)?.is_empty() {
            return Err(Error::damaged(path, &"there is no certificate in it"));
        }
        return Ok(pem);
    }
    let Some((chain, _, path)) = given(config)? else {
        return Ok(pki.ca_cert.clone());
    };
    let parse = |der| X509Certificate::from_der(der).map_err(|e| Error::damaged(path, &e));
    let own = certificates(&pki.ca_cert, Path::new("ca.crt"))?;
    for certificate in &chain {
        let (_, certificate) = parse(certificate)?;
        for own in &own {
            let (_, own) = parse(own)?;
            if certificate.issuer().as_raw() == own.subject().as_raw() {
                return Ok(pki.ca_cert.clone());
            }
        }
    }
    // The authority, if it is in the file, is last there; one certificate alone is its own authority or needs
    // --root-ca-file.
    let pem = read(path, "reading the certificate in")?;
    let last = pem.rfind("-----BEGIN CERTIFICATE-----").unwrap_or(0);
    Ok(pem[last..].to_owned())
}

type Given<'a> = (
    Vec<CertificateDer<'static>>,
    PrivateKeyDer<'static>,
    &'a Path,
);

/// The certificate and key that the configuration names, if any.
fn given(config: &Config) -> Result<Option<Given<'_>>, Error> {
    let (path, key_path) = match (&config.tls_cert_file, &config.tls_private_key_file) {
        (Some(cert), Some(key)) => (cert, key),
        (None, None) => return Ok(None),
        _ => {
            return Err(Error::Config(
                "--tls-cert-file and --tls-private-key-file go together: give both or neither"
                    .to_owned(),
            ));
        }
    };
    let chain = certificates(&read(path, "reading the certificate in")?, path)?;
    if chain.is_empty() {
        return Err(Error::damaged(path, &"there is no certificate in it"));
    }
    let key = read(key_path, "reading the key in")?;
    let key =
        PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|e| Error::damaged(key_path, &e))?;
    let signer = pki::provider()
        .key_provider
        .load_private_key(key.clone_key());
    let signer = signer.map_err(|e| Error::damaged(key_path, &e))?;
    let pair = rustls::sign::CertifiedKey::new(chain.clone(), signer);
    match pair.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
        Err(_) => {
            let why = format!("it does not belong to the key in {}", key_path.display());
            return Err(Error::damaged(path, &why));
        }
    }
    Ok(Some((chain, key, path)))
}

fn read(path: &Path, doing: &'static str) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|source| Error::io(doing, path, source))
}
