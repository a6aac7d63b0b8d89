//! What load balancers ask a node about a Service whose external traffic stays on it: a server at its healthCheckNodePort.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderName, header};
use axum::response::{IntoResponse, Response};
use futures_util::future::join_all;
use model::ServiceKey;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tracing::warn;
use view::HealthCheck;

use crate::Trouble;
use crate::healthz::code;
use crate::status::Status;

/// The servers of Services.
#[derive(Debug)]
pub(crate) struct HealthChecks {
    servers: BTreeMap<ServiceKey, Server>,
    news: UnboundedSender<ServiceKey>,
}

#[derive(Debug)]
struct Server {
    port: u16,
    addresses: Option<Vec<IpAddr>>,
    local_endpoints: Arc<AtomicUsize>,
    unserved: Unserved,
    task: JoinHandle<()>,
}

/// Where load balancers cannot ask now, and why.
type Unserved = Arc<Mutex<BTreeMap<SocketAddr, String>>>;

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl HealthChecks {
    /// None yet, and what tells of which Service [`HealthChecks::troubles`] are others.
    pub(crate) fn new() -> (Self, UnboundedReceiver<ServiceKey>) {
        let (news, heard) = mpsc::unbounded_channel();
        let servers = BTreeMap::new();
        (HealthChecks { servers, news }, heard)
    }

    /// Serves what is asked of a Service now. Must be called in a tokio runtime.
    pub(crate) fn set(
        &mut self,
        key: &ServiceKey,
        check: Option<HealthCheck>,
        status: &watch::Receiver<Status>,
    ) {
        let Some(check) = check else {
            self.remove(key);
            return;
        };
        if let Some(server) = self.servers.get(key)
            && server.port == check.port
            && server.addresses == check.addresses
        {
            server
                .local_endpoints
                .store(check.local_endpoints, Ordering::Relaxed);
            return;
        }
        self.remove(key);
        let local_endpoints = Arc::new(AtomicUsize::new(check.local_endpoints));
        let unserved = Unserved::default();
        let page = Page {
            service: key.clone(),
            local_endpoints: local_endpoints.clone(),
            status: status.clone(),
            unserved: unserved.clone(),
            news: self.news.clone(),
        };
        let server = Server {
            port: check.port,
            addresses: check.addresses.clone(),
            local_endpoints,
            unserved,
            task: tokio::spawn(page.serve(check.port, check.addresses)),
        };
        self.servers.insert(key.clone(), server);
    }

    /// What keeps load balancers from asking about a Service.
    pub(crate) fn troubles(&self, key: &ServiceKey) -> Vec<Trouble> {
        let Some(server) = self.servers.get(key) else {
            return Vec::new();
        };
        let unserved = server.unserved.lock();
        let unserved = unserved.unwrap_or_else(PoisonError::into_inner);
        let trouble = |(address, error): (&SocketAddr, &String)| Trouble {
            reason: "FailedToStartServiceHealthcheck",
            message: format!(
                "healthCheckNodePort {} cannot be served at {address}: {error}; load balancers pass this node by",
                server.port
            ),
        };
        unserved.iter().map(trouble).collect()
    }

    fn remove(&mut self, key: &ServiceKey) {
        let before = self.troubles(key);
        self.servers.remove(key);
        if !before.is_empty() {
            // Without a reader there is nobody left to tell.
            let _ = self.news.send(key.clone());
        }
    }
}

#[derive(Clone)]
struct Page {
    service: ServiceKey,
    local_endpoints: Arc<AtomicUsize>,
    status: watch::Receiver<Status>,
    unserved: Unserved,
    news: UnboundedSender<ServiceKey>,
}

/// Between two attempts to have a port: at first, when an earlier server may not have let go of it yet, and later, when
/// somebody else has it.
const AGAIN_SOON: Duration = Duration::from_millis(50);
const AGAIN_LATER: Duration = Duration::from_secs(5);
/// So many attempts fail before that is told.
const QUIET: u32 = 6;

impl Page {
    async fn serve(self, port: u16, addresses: Option<Vec<IpAddr>>) {
        let everywhere = vec![IpAddr::from(Ipv6Addr::UNSPECIFIED)];
        let addresses = addresses.unwrap_or(everywhere);
        let servers = addresses.into_iter().map(async |address| {
            let listener = self.listen(SocketAddr::new(address, port)).await;
            let pages = Router::new()
                .fallback(health_check)
                .with_state(self.clone());
            if let Err(error) = axum::serve(listener, pages).await {
                let service = self.service.to_string();
                let error = &error as &dyn std::error::Error;
                warn!(
                    service,
                    port, error, "healthCheckNodePort is served no more"
                );
            }
        });
        join_all(servers).await;
    }

    /// Listens, however long it takes until that is possible.
    async fn listen(&self, address: SocketAddr) -> TcpListener {
        let mut tries = 0;
        loop {
            match listen(address).await {
                Ok(listener) => {
                    self.note(address, None);
                    return listener;
                }
                Err(_) if tries < QUIET => {
                    tries += 1;
                    sleep(AGAIN_SOON).await;
                }
                Err(error) => {
                    self.note(address, Some(error.to_string()));
                    sleep(AGAIN_LATER).await;
                }
            }
        }
    }

    /// Remembers why an address is not served, and tells of it where that is new.
    fn note(&self, address: SocketAddr, error: Option<String>) {
        let mut unserved = self.unserved.lock().unwrap_or_else(PoisonError::into_inner);
        let before = match &error {
            Some(error) => unserved.insert(address, error.clone()),
            None => unserved.remove(&address),
        };
        if before != error {
            // Without a reader there is nobody left to tell.
            let _ = self.news.send(self.service.clone());
        }
    }
}

/// Where every address is asked for and there is no IPv6, on those of IPv4.
async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(error)
            if error.kind() != io::ErrorKind::AddrInUse
                && address.ip() == IpAddr::from(Ipv6Addr::UNSPECIFIED) =>
        {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        done => done,
    }
}

/// Tells load balancers how many endpoints a node has.
const WEIGHT: HeaderName = HeaderName::from_static("x-load-balancing-endpoint-weight");

async fn health_check(State(page): State<Page>) -> Response {
    let count = page.local_endpoints.load(Ordering::Relaxed);
    let healthy = page
        .status
        .borrow()
        .kube_proxy
        .is_healthy(SystemTime::now());
    let body = format!(
        "{{\n\t\"service\": {{\n\t\t\"namespace\": \"{}\",\n\t\t\"name\": \"{}\"\n\t}},\n\
         \t\"localEndpoints\": {count},\n\t\"serviceProxyHealthy\": {healthy}\n}}",
        page.service.namespace, page.service.name
    );
    let headers = [
        (header::CONTENT_TYPE, "application/json".to_owned()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (WEIGHT, count.to_string()),
    ];
    (code(count > 0 && healthy), headers, body).into_response()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn ask(port: u16) -> String {
        let mut socket = loop {
            match tokio::net::TcpStream::connect(("127.0.0.1", port)).await {
                Ok(socket) => break socket,
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        };
        let request = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        socket.write_all(request).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_service_with_endpoints_here_is_healthy_while_the_proxy_is() {
        let port = {
            let free = std::net::TcpListener::bind("[::]:0").unwrap();
            free.local_addr().unwrap().port()
        };
        let status = watch::Sender::new(Status::default());
        let key = ServiceKey::new("default", "web");
        let (mut checks, _heard) = HealthChecks::new();
        let mut set = |local_endpoints| {
            let check = HealthCheck {
                port,
                addresses: None,
                local_endpoints,
            };
            checks.set(&key, Some(check), &status.subscribe());
        };
        set(2);
        assert!(
            ask(port).await.starts_with("HTTP/1.1 503"),
            "nothing is programmed"
        );
        status.send_modify(|status| {
            let none = crate::NoLocalEndpoints::default();
            let now = SystemTime::now();
            status.kube_proxy.synced(now, Duration::ZERO, true, none);
        });
        let answer = ask(port).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(
            answer.contains("\r\nx-load-balancing-endpoint-weight: 2\r\n"),
            "{answer}"
        );
        assert_eq!(answer.matches("\r\ncontent-type: ").count(), 1, "{answer}");
        let body = "{\n\t\"service\": {\n\t\t\"namespace\": \"default\",\n\t\t\"name\": \"web\"\n\t},\n\
                    \t\"localEndpoints\": 2,\n\t\"serviceProxyHealthy\": true\n}";
        assert!(answer.ends_with(body), "{answer}");
        set(0);
        let answer = ask(port).await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(answer.contains("\"localEndpoints\": 0"), "{answer}");
    }

    #[tokio::test]
    async fn only_the_addresses_that_serve_node_ports_are_listened_on() {
        let free = std::net::TcpListener::bind("127.0.0.2:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let status = watch::Sender::new(Status::default());
        let key = ServiceKey::new("default", "web");
        let (mut checks, _heard) = HealthChecks::new();
        let check = HealthCheck {
            port,
            addresses: Some(vec!["127.0.0.2".parse().unwrap()]),
            local_endpoints: 1,
        };
        checks.set(&key, Some(check), &status.subscribe());
        while tokio::net::TcpStream::connect(("127.0.0.2", port))
            .await
            .is_err()
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let elsewhere = tokio::net::TcpStream::connect(("127.0.0.1", port)).await;
        assert!(elsewhere.is_err(), "{elsewhere:?}");
    }
}
