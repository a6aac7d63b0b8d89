//! What the server shows, and asks to see, where it is the client: towards nodes, Pods, and other API servers.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WantsClientCert, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, ConfigBuilder, DigitallySignedStruct, RootCertStore,
    SignatureScheme, WantsVerifier,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{Pair, Pki, certificates, provider};
use crate::Error;

impl Pki {
    /// Towards nodes and Pods; `identified`: as the administrator.
    pub(crate) fn client_tls(&self, identified: bool) -> Result<Arc<ClientConfig>, Error> {
        let shown = identified.then_some((&self.admin, "admin.crt"));
        config(None, shown).map(Arc::new)
    }

    /// Towards other API servers, as the one who passes on requests of others. `None`: whoever they are.
    pub(crate) fn front_tls(&self, believed: Option<Certificates>) -> Result<ClientConfig, Error> {
        config(believed, Some((&self.front, "front-proxy-client.crt")))
    }
}

/// Certificates that are believed: authorities, and servers that are named by theirs.
pub(crate) type Certificates = Vec<CertificateDer<'static>>;

/// Believes who shows a certificate that one of these signed, or one of these itself: so does Go, where a root makes a chain
/// by itself, and a `caBundle` is often the very certificate that its server shows, made by `openssl req -x509`, which is an
/// authority's.
pub(crate) fn believing(
    builder: ConfigBuilder<ClientConfig, WantsVerifier>,
    believed: Certificates,
) -> ConfigBuilder<ClientConfig, WantsClientCert> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(believed.iter().cloned());
    let roots = Arc::new(roots);
    match WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), provider()).build() {
        Ok(authorities) => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Believed {
                authorities,
                believed,
            })),
        // There is none: nobody is believed.
        Err(_) => builder.with_root_certificates(roots),
    }
}

/// `believed`: who signs certificates of the other side, `None` where it may show any; `shown`: our own, and its file.
fn config(
    believed: Option<Certificates>,
    shown: Option<(&Pair, &str)>,
) -> Result<ClientConfig, Error> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(Error::certificate)?;
    let builder = match believed {
        Some(believed) => believing(builder, believed),
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

/// See [`believing`].
#[derive(Debug)]
struct Believed {
    authorities: Arc<WebPkiServerVerifier>,
    believed: Certificates,
}

impl ServerCertVerifier for Believed {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.authorities.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        match verified {
            Err(_) if self.believed.iter().any(|known| known == end_entity) => {
                verify_itself(end_entity, server_name, now)
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.authorities
            .verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.authorities
            .verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authorities.supported_verify_schemes()
    }
}

/// Whether a certificate that is believed is valid now, of a server, and of this name.
fn verify_itself(
    certificate: &CertificateDer<'_>,
    server_name: &ServerName<'_>,
    now: UnixTime,
) -> Result<ServerCertVerified, rustls::Error> {
    let (_, parsed) =
        X509Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let secs = i64::try_from(now.as_secs()).map_err(|_| CertificateError::Expired)?;
    let validity = parsed.validity();
    if secs < validity.not_before.timestamp() {
        return Err(CertificateError::NotValidYet.into());
    }
    if secs > validity.not_after.timestamp() {
        return Err(CertificateError::Expired.into());
    }
    let usage = parsed
        .extended_key_usage()
        .map_err(|_| CertificateError::BadEncoding)?;
    if usage.is_some_and(|usage| !usage.value.any && !usage.value.server_auth) {
        return Err(CertificateError::InvalidPurpose.into());
    }
    verify_server_name(&ParsedCertificate::try_from(certificate)?, server_name)?;
    Ok(ServerCertVerified::assertion())
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
