//! Requests that no client library would send.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use testbed::Netns;
use testbed::topology::NODE4;

/// Speaks for the administrator of a data directory.
pub(crate) struct Https {
    config: Arc<ClientConfig>,
    token: String,
}

/// What the server answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) body: String,
}

impl Answer {
    /// `message` of the Status in the body.
    pub(crate) fn message(&self) -> String {
        let status: Value = serde_json::from_str(&self.body).unwrap_or_default();
        status["message"].as_str().unwrap_or_default().to_owned()
    }
}

impl Https {
    pub(crate) fn of(data_dir: &Path) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(data_dir.join("pki/ca.crt"))?)?;
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let tokens = std::fs::read_to_string(data_dir.join("tokens.csv"))?;
        let token = tokens.split(',').next().context("no token")?;
        Ok(Self {
            config: Arc::new(config),
            token: token.trim_matches('"').to_owned(),
        })
    }

    /// Sends these bytes as a request's body and reads the answer to its end.
    pub(crate) fn send(
        &self,
        netns: &Netns,
        line: &str,
        content_type: &str,
        body: &[u8],
    ) -> Result<Answer> {
        let address = SocketAddr::new(NODE4.into(), 6443);
        let socket = netns.run(|| Ok(TcpStream::connect(address)?))?;
        socket.set_read_timeout(Some(Duration::from_secs(20)))?;
        let server = ServerName::IpAddress(std::net::IpAddr::from(NODE4).into());
        let connection = ClientConnection::new(Arc::clone(&self.config), server)?;
        let mut stream = StreamOwned::new(connection, socket);
        write!(
            stream,
            "{line} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {}\r\ncontent-type: {content_type}\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n",
            self.token,
            body.len()
        )?;
        stream.write_all(body)?;
        let mut bytes = Vec::new();
        // A server may end the connection without saying so in TLS.
        let read = stream.read_to_end(&mut bytes);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let (head, body) = text
            .split_once("\r\n\r\n")
            .with_context(|| format!("{line}: {read:?} {text:?}"))?;
        let code = head.split(' ').nth(1).context("no status")?.parse()?;
        Ok(Answer {
            code,
            body: body.to_owned(),
        })
    }
}
