//! DNS over HTTPS to an upstream (RFC 8484): POST or GET over one HTTP/2 connection. Another is opened when it has ended,
//! or has gone silent: a question on it was given up, and nothing was answered since that was asked.

use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

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
pub(super) struct Doh(Mutex<Option<Kept>>);

/// A connection that is used again.
#[derive(Clone)]
struct Kept {
    sender: Sender,
    life: Arc<Life>,
}

/// The signs of life of a connection.
#[derive(Default)]
struct Life {
    answers: AtomicUsize,
    gone: AtomicBool,
}

/// A question on its way, which may be dropped before there is an answer.
struct Asking {
    life: Arc<Life>,
    /// How many answers there were when it was asked.
    before: usize,
}

impl Asking {
    fn new(life: Arc<Life>) -> Self {
        let before = life.answers.load(Ordering::Relaxed);
        Self { life, before }
    }

    fn answered(&self) {
        self.life.answers.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if self.life.answers.load(Ordering::Relaxed) == self.before {
            self.life.gone.store(true, Ordering::Relaxed);
        }
    }
}

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
        let Kept { mut sender, life } = self.connection(address, source, tls).await?;
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
        let asking = Asking::new(Arc::clone(&life));
        let response = match sender.send_request(request).await {
            Ok(response) => response,
            Err(error) => {
                life.gone.store(true, Ordering::Relaxed);
                return Err(http(error));
            }
        };
        if response.status() != hyper::StatusCode::OK {
            asking.answered();
            return Err(ExchangeError::Http(response.status().to_string()));
        }
        let body = Limited::new(response.into_body(), usize::from(u16::MAX))
            .collect()
            .await
            .map_err(|error| ExchangeError::Http(error.to_string()))?;
        asking.answered();
        Message::from_vec(&body.to_bytes())
            .map_err(|error| ExchangeError::Decode(error.to_string()))
    }

    async fn connection(
        &self,
        address: SocketAddr,
        source: Option<IpAddr>,
        (config, name): (Arc<ClientConfig>, ServerName<'static>),
    ) -> Result<Kept, ExchangeError> {
        let mut place = self.0.lock().await;
        let lives =
            |kept: &&Kept| !kept.sender.is_closed() && !kept.life.gone.load(Ordering::Relaxed);
        if let Some(kept) = place.as_ref().filter(lives) {
            return Ok(kept.clone());
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
        let life = Arc::default();
        let kept = place.insert(Kept { sender, life });
        Ok(kept.clone())
    }
}
