//! DNS over HTTPS to an upstream (RFC 8484): POST or GET over one HTTP/2 connection, opened again when it ends.

use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hickory_proto::op::Message;
use http_body_util::BodyExt as _;
use http_body_util::Full;
use http_body_util::Limited;
use hyper::body::Bytes;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::sync::Mutex;

use super::connection;
use super::tls;
use super::upstream::ExchangeError;

type Sender = SendRequest<Full<Bytes>>;

/// How a query stands in a request (`doh_method`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Method {
    /// In its URI, where caches on the way see it.
    Get,
    /// In its body.
    #[default]
    Post,
}

/// The connection to an upstream, once there is one.
#[derive(Default)]
pub(super) struct Doh(Mutex<Option<Sender>>);

impl Doh {
    pub(super) async fn ask(
        &self,
        address: SocketAddr,
        source: Option<IpAddr>,
        tls: (Arc<ClientConfig>, ServerName<'static>),
        uri: &str,
        method: Method,
        octets: Vec<u8>,
    ) -> Result<Message, ExchangeError> {
        let mut sender = self.sender(address, source, tls).await?;
        let http = |error: hyper::Error| ExchangeError::Http(error.to_string());
        let request = match method {
            Method::Get => {
                let query = URL_SAFE_NO_PAD.encode(octets);
                hyper::Request::get(format!("{uri}?dns={query}"))
                    .header("accept", "application/dns-message")
                    .body(Full::default())
            }
            Method::Post => hyper::Request::post(uri)
                .header("content-type", "application/dns-message")
                .header("accept", "application/dns-message")
                .body(Full::new(Bytes::from(octets))),
        };
        let request = request.map_err(|error| ExchangeError::Http(error.to_string()))?;
        let response = match sender.send_request(request).await {
            Ok(response) => response,
            Err(error) => {
                *self.0.lock().await = None;
                return Err(http(error));
            }
        };
        if response.status() != hyper::StatusCode::OK {
            return Err(ExchangeError::Http(response.status().to_string()));
        }
        let body = Limited::new(response.into_body(), usize::from(u16::MAX))
            .collect()
            .await
            .map_err(|error| ExchangeError::Http(error.to_string()))?;
        Message::from_vec(&body.to_bytes())
            .map_err(|error| ExchangeError::Decode(error.to_string()))
    }

    async fn sender(
        &self,
        address: SocketAddr,
        source: Option<IpAddr>,
        (config, name): (Arc<ClientConfig>, ServerName<'static>),
    ) -> Result<Sender, ExchangeError> {
        let mut kept = self.0.lock().await;
        if let Some(sender) = kept.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
        let stream = connection::tcp(address, source).await?;
        let stream = tls::secure(&config, &name, stream).await?;
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .map_err(|error| ExchangeError::Http(error.to_string()))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to an upstream ended");
            }
        });
        *kept = Some(sender.clone());
        Ok(sender)
    }
}
