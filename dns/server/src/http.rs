//! The small HTTP servers of `health`, `ready` and `prometheus`. They outlive a reload: addresses that stay keep
//! their sockets, and their routes are swapped.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
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
use tokio::net::TcpSocket;
use tokio::sync::Semaphore;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

use crate::listen;
use crate::listen::Closed;
use crate::listen::Door;

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

/// What a configuration wants answered, and the sockets that it needs beside the open ones. Nothing is answered by it yet.
pub struct Bound {
    wanted: HashMap<SocketAddr, Answers>,
    sockets: HashMap<SocketAddr, Socket>,
}

enum Socket {
    Bound(TcpSocket),
    Listens(TcpListener),
}

type Failed = (SocketAddr, std::io::Error);

impl Bound {
    /// Listens: from now on clients may wait in the sockets.
    ///
    /// # Errors
    ///
    /// When an address cannot be listened on.
    pub fn listen(self) -> Result<Self, Failed> {
        let listened = self.sockets.into_iter().map(|(address, socket)| {
            let socket = match socket {
                Socket::Bound(socket) => {
                    listen::listen(socket).map_err(|error| (address, error))?
                }
                Socket::Listens(listener) => listener,
            };
            Ok((address, Socket::Listens(socket)))
        });
        Ok(Self {
            sockets: listened.collect::<Result<_, Failed>>()?,
            wanted: self.wanted,
        })
    }
}

impl Servers {
    /// Binds what these routes need and is not open: nothing changes for anybody. Call it inside the runtime.
    ///
    /// # Errors
    ///
    /// When an address cannot be listened on.
    pub fn bind(&self, routes: &[Route]) -> Result<Bound, Failed> {
        let mut wanted: HashMap<SocketAddr, Answers> = HashMap::new();
        for route in routes {
            let answers = wanted.entry(route.address).or_default();
            let handler = Arc::clone(&route.handler);
            answers.paths.insert(route.path, handler);
            answers.tls = answers.tls.take().or(route.tls.clone());
        }
        let listening = self.listening();
        let mut sockets = HashMap::new();
        for &address in wanted
            .keys()
            .filter(|address| !listening.contains_key(*address))
        {
            let mut ours = listening.keys().chain(sockets.keys());
            let shares = address.port() != 0 && ours.any(|other| other.port() == address.port());
            let socket = listen::bind(address, shares).map_err(|error| (address, error))?;
            sockets.insert(address, Socket::Bound(socket));
        }
        drop(listening);
        Ok(Bound { wanted, sockets })
    }

    /// Makes exactly what was bound answered.
    ///
    /// # Errors
    ///
    /// When an address cannot be listened on, which [`Bound::listen`] tells before.
    pub fn follow(&self, bound: Bound) -> Result<(), Failed> {
        let Bound {
            mut wanted,
            sockets,
        } = bound.listen()?;
        let mut listening = self.listening();
        for (address, socket) in sockets {
            if let Socket::Listens(listener) = socket {
                let server = Listening::new(listener).map_err(|error| (address, error))?;
                listening.insert(address, server);
            }
        }
        listening.retain(|address, server| match wanted.remove(address) {
            Some(routes) => {
                server.routes.store(Arc::new(routes));
                true
            }
            None => false,
        });
        Ok(())
    }

    fn listening(&self) -> MutexGuard<'_, HashMap<SocketAddr, Listening>> {
        self.listening
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the server of a configured address listens in truth.
    #[must_use]
    pub fn local(&self, address: SocketAddr) -> Option<SocketAddr> {
        self.listening().get(&address).map(|server| server.local)
    }
}

impl Listening {
    fn new(listener: TcpListener) -> std::io::Result<Self> {
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
}

async fn accept(listener: TcpListener, routes: Routes, mut closed: oneshot::Receiver<()>) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut door = Door::new(Arc::new(listener));
    let mut ended = false;
    loop {
        // Where all places are taken, nobody waits for one to be free once this is closed.
        let permit = tokio::select! {
            biased;
            permit = Arc::clone(&permits).acquire_owned() => permit,
            _ = &mut closed, if !ended => return,
        };
        let closing = async {
            if !ended {
                let _ = (&mut closed).await;
                ended = true;
            }
            Closed::Ended
        };
        let stream = match door.next(closing).await {
            Some(Ok(stream)) => stream,
            Some(Err(error)) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
            None => return,
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
