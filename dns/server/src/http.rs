//! The small HTTP servers of `health`, `ready` and `prometheus`. They outlive a reload: addresses that stay keep
//! their sockets, and their routes are swapped.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use arc_swap::ArcSwap;
use http_body_util::Full;
use hyper::Response;
use hyper::StatusCode;
use hyper::body::Bytes;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

use crate::listen;

/// Connections to one address at a time.
const CONNECTIONS_MAX: usize = 128;

/// What a path answers: status and text.
pub type Handler = Arc<dyn Fn() -> (StatusCode, String) + Send + Sync>;

/// An address and path, and who answers there.
#[derive(Clone)]
pub struct Route {
    /// Where to listen.
    pub address: SocketAddr,
    /// The path, beginning with a slash.
    pub path: &'static str,
    /// What is answered.
    pub handler: Handler,
    /// What the address shows where it speaks HTTPS.
    pub tls: Option<Arc<rustls::ServerConfig>>,
}

/// What an address answers.
#[derive(Default)]
struct Answers {
    paths: BTreeMap<&'static str, Handler>,
    tls: Option<Arc<rustls::ServerConfig>>,
}

type Routes = Arc<ArcSwap<Answers>>;

/// A server. When this is dropped it takes the connections that wait for it, and no others.
struct Listening {
    routes: Routes,
    _open: oneshot::Sender<()>,
    /// Where it listens in truth: differs from the key if the port was 0.
    local: SocketAddr,
}

/// The servers of a process.
#[derive(Default)]
pub struct Servers {
    listening: Mutex<HashMap<SocketAddr, Listening>>,
}

impl Servers {
    /// Makes exactly these routes answered. Nothing changes if an address cannot be listened on.
    ///
    /// # Errors
    ///
    /// When an address cannot be listened on.
    pub fn apply(&self, routes: &[Route]) -> Result<(), (SocketAddr, std::io::Error)> {
        let mut wanted: HashMap<SocketAddr, Answers> = HashMap::new();
        for route in routes {
            let answers = wanted.entry(route.address).or_default();
            let handler = Arc::clone(&route.handler);
            answers.paths.insert(route.path, handler);
            answers.tls = answers.tls.take().or(route.tls.clone());
        }
        let mut listening = self
            .listening
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut opened = HashMap::new();
        for &address in wanted
            .keys()
            .filter(|address| !listening.contains_key(*address))
        {
            let mut ours = listening.keys().chain(opened.keys());
            let shares = address.port() != 0 && ours.any(|other| other.port() == address.port());
            let socket = open(address, shares).map_err(|error| (address, error))?;
            opened.insert(address, socket);
        }
        listening.extend(opened);
        listening.retain(|address, server| match wanted.remove(address) {
            Some(routes) => {
                server.routes.store(Arc::new(routes));
                true
            }
            None => false,
        });
        Ok(())
    }

    /// Where the server of a configured address listens in truth.
    #[must_use]
    pub fn local(&self, address: SocketAddr) -> Option<SocketAddr> {
        let listening = self
            .listening
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        listening.get(&address).map(|server| server.local)
    }
}

fn open(address: SocketAddr, shares: bool) -> std::io::Result<Listening> {
    let listener = listen::tcp(address, shares)?;
    let local = listener.local_addr()?;
    let routes: Routes = Arc::default();
    let (open, closed) = oneshot::channel();
    tokio::spawn(accept(listener, Arc::clone(&routes), closed));
    Ok(Listening {
        routes,
        _open: open,
        local,
    })
}

async fn accept(listener: TcpListener, routes: Routes, mut closed: oneshot::Receiver<()>) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let next = async {
            let permit = Arc::clone(&permits).acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, stream) = tokio::select! {
            // Who waits in the kernel's queue is answered before the socket is closed.
            biased;
            (permit, accepted) = next => match accepted {
                Ok((stream, _)) => (permit, stream),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            _ = &mut closed => return,
        };
        let routes = Arc::clone(&routes);
        let tls = routes.load().tls.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                let answer = answer(&routes, request.uri().path());
                async move { Ok::<_, Infallible>(answer) }
            });
            let mut server = hyper::server::conn::http1::Builder::new();
            server
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(10));
            let connection = async {
                match tls {
                    None => {
                        let _ = server.serve_connection(TokioIo::new(stream), service).await;
                    }
                    Some(tls) => {
                        let accepting = TlsAcceptor::from(tls).accept(stream);
                        let shaken = tokio::time::timeout(Duration::from_secs(10), accepting);
                        if let Ok(Ok(stream)) = shaken.await {
                            let _ = server.serve_connection(TokioIo::new(stream), service).await;
                        }
                    }
                }
            };
            let _ = tokio::time::timeout(Duration::from_secs(300), connection).await;
            drop(permit);
        });
    }
}

fn answer(routes: &Routes, path: &str) -> Response<Full<Bytes>> {
    let (status, text) = match routes.load().paths.get(path) {
        Some(handler) => handler(),
        None => (StatusCode::NOT_FOUND, "404 page not found\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(
        hyper::header::CONTENT_TYPE,
        hyper::header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
    );
    response
}
