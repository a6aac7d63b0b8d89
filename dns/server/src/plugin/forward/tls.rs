//! TLS to upstreams, and what to do where their certificates are not believed.

use std::io::Error;
use std::sync::Arc;

use rustls::CertificateError;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Speaks TLS on a connection.
pub(super) async fn secure(
    config: &Arc<ClientConfig>,
    name: &ServerName<'static>,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, Error> {
    let connector = TlsConnector::from(Arc::clone(config));
    let connected = connector.connect(name.clone(), stream).await;
    connected.map_err(explained)
}

/// The library's words for an authority's certificate that a server shows as its own name no remedy. Go's library
/// takes such a certificate if it is trusted itself, so that it works with CoreDNS.
fn explained(error: Error) -> Error {
    let inner = error.get_ref();
    let of_tls = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match of_tls {
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(other)))
            if other.0.to_string() == "CaUsedAsEndEntity" =>
        {
            let text = "the server's certificate is an authority's (CA:TRUE), which can vouch for others but not be a \
                        server's: make one with basicConstraints=CA:FALSE, which `tls` may name as its own authority, \
                        or one that the authority signed";
            Error::new(error.kind(), text)
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use rcgen::BasicConstraints;
    use rcgen::CertificateParams;
    use rcgen::IsCa;
    use rcgen::KeyPair;
    use rustls::RootCertStore;
    use rustls::ServerConfig;
    use rustls::crypto::aws_lc_rs::default_provider;
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    /// Asks a server whose certificate is signed by itself, and trusted.
    async fn connect(is_ca: IsCa) -> Result<(), String> {
        let mut params = CertificateParams::new(["dns.example".to_owned()]).unwrap();
        params.is_ca = is_ca;
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let provider = Arc::new(default_provider());
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key.serialize_der().try_into().unwrap())
            .unwrap();
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepted = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let _ = TlsAcceptor::from(Arc::new(server)).accept(stream).await;
        });
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("dns.example").unwrap();
        let secured = secure(&Arc::new(client), &name, stream).await;
        accepted.await.unwrap();
        secured.map(drop).map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn an_authority_as_a_server_is_told_what_to_do() {
        let refused = connect(IsCa::Ca(BasicConstraints::Unconstrained)).await;
        let text = refused.unwrap_err();
        assert!(text.contains("basicConstraints=CA:FALSE"), "{text}");
        // The remedy is one.
        assert_eq!(connect(IsCa::ExplicitNoCa).await, Ok(()));
    }
}
