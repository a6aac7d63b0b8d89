//! Certificates of clients: who must show one, and whose word is needed for it.

use std::sync::Arc;

use rustls::DigitallySignedStruct;
use rustls::DistinguishedName;
use rustls::Error;
use rustls::RootCertStore;
use rustls::SignatureScheme;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::crypto::verify_tls12_signature;
use rustls::crypto::verify_tls13_signature;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerified;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::UnixTime;

use super::settings::provider;

/// What clients must show.
pub(crate) enum Clients {
    /// Nothing.
    Unasked,
    /// A certificate of anyone's, signed by themselves if they like.
    Anyone {
        /// True where there is no connection without one.
        required: bool,
    },
    /// A certificate that one of these authorities signed.
    Known {
        /// The authorities.
        roots: RootCertStore,
        /// True where there is no connection without one.
        required: bool,
    },
}

impl Clients {
    /// Who looks at the certificates.
    ///
    /// # Errors
    ///
    /// When there is no authority; the text says so.
    pub(crate) fn verifier(self) -> Result<Arc<dyn ClientCertVerifier>, String> {
        let (roots, required) = match self {
            Self::Unasked => return Ok(WebPkiClientVerifier::no_client_auth()),
            Self::Anyone { required } => {
                let provider = provider();
                return Ok(Arc::new(Anyone { provider, required }));
            }
            Self::Known { roots, required } => (Arc::new(roots), required),
        };
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
        let verifier = match required {
            true => verifier,
            false => verifier.allow_unauthenticated(),
        };
        let verifier = verifier.build().map_err(|error| error.to_string())?;
        Ok(verifier)
    }
}

/// Takes any certificate from whoever has its key.
#[derive(Debug)]
struct Anyone {
    provider: Arc<CryptoProvider>,
    required: bool,
}

impl ClientCertVerifier for Anyone {
    fn client_auth_mandatory(&self) -> bool {
        self.required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}
