//! What the server shows, and asks to see, where it is the client: towards nodes, Pods, and other API servers.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use super::{Pair, Pki, certificates, provider};
use crate::Error;

impl Pki {
    /// Towards nodes and Pods; `identified`: as the administrator.
    pub(crate) fn client_tls(&self, identified: bool) -> Result<Arc<ClientConfig>, Error> {
        let shown = identified.then_some((&self.admin, "admin.crt"));
        config(None, shown).map(Arc::new)
    }

    /// Towards other API servers, as the one who passes on requests of others. `None`: whoever they are.
    pub(crate) fn front_tls(&self, believed: Option<RootCertStore>) -> Result<ClientConfig, Error> {
        config(believed, Some((&self.front, "front-proxy-client.crt")))
    }
}

/// `believed`: who signs certificates of the other side, `None` where it may show any; `shown`: our own, and its file.
fn config(
    believed: Option<RootCertStore>,
    shown: Option<(&Pair, &str)>,
) -> Result<ClientConfig, Error> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(Error::certificate)?;
    let builder = match believed {
        Some(roots) => builder.with_root_certificates(roots),
        None => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(provider()))),
    };
    let Some((pair, file)) = shown else {
        return Ok(builder.with_no_client_auth());
    };
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).map_err(Error::certificate)?;
    let chain = certificates(&pair.cert, Path::new(file))?;
    builder
        .with_client_auth_cert(chain, key)
        .map_err(Error::certificate)
}

/// The other side proves that it holds the key of the certificate that it shows; whose certificate it is is not asked.
/// So it is with nodes, as with kube-apiserver without `--kubelet-certificate-authority` (they make their own), and with
/// `insecureSkipTLSVerify`.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
