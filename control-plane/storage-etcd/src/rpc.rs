//! Calls to etcd: one endpoint at a time, the next one when it does not answer, and never longer than agreed.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use http::uri::PathAndQuery;
use prost::Message;
use storage::{Error, Revision};
use tokio::time::{Instant, timeout_at};
use tonic::client::Grpc;
use tonic::metadata::MetadataValue;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::proto::{
    CompactionRequest, CompactionResponse, LeaseGrantRequest, LeaseGrantResponse, RangeRequest,
    RangeResponse, TxnRequest, TxnResponse, WatchCreateRequest, WatchRequest, WatchResponse,
};
use crate::{ConnectError, Options};

/// The largest message that is read: a page of a list, or all that one transaction changed.
const MESSAGE_MAX: usize = 512 << 20;
/// How long the connection to one endpoint may take, so that another can be tried in time.
const CONNECT: Duration = Duration::from_secs(2);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(50);

/// What may be done with a call that failed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Again {
    /// It changes nothing, or the same however often it is done.
    Harmless,
    /// What became of it is not known.
    Never,
}

/// The endpoints.
pub(crate) struct Rpc {
    endpoints: Vec<(String, Channel)>,
    active: AtomicUsize,
    timeout: Duration,
}

impl Rpc {
    /// Connects to nothing yet.
    pub(crate) fn new(options: &Options) -> Result<Self, ConnectError> {
        let mut endpoints = Vec::new();
        for url in &options.endpoints {
            endpoints.push((url.clone(), channel(url, options)?));
        }
        if endpoints.is_empty() {
            return Err(ConnectError::Config("no endpoint of etcd is given".into()));
        }
        Ok(Self {
            active: AtomicUsize::new(fastrand::usize(..endpoints.len())),
            endpoints,
            timeout: options.timeout,
        })
    }

    /// The longest that a call takes.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The endpoint in use.
    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoints[self.active.load(Ordering::Relaxed) % self.endpoints.len()].0
    }

    pub(crate) async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Status> {
        let path = "/etcdserverpb.KV/Range";
        self.unary(path, request, Again::Harmless).await
    }

    pub(crate) async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, Status> {
        self.unary("/etcdserverpb.KV/Txn", request, Again::Never)
            .await
    }

    /// For benches: a put as it is.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) async fn put(
        &self,
        request: crate::proto::PutRequest,
    ) -> Result<TxnResponse, Status> {
        self.unary("/etcdserverpb.KV/Put", request, Again::Never)
            .await
    }

    pub(crate) async fn compact(&self, revision: i64) -> Result<CompactionResponse, Status> {
        let path = "/etcdserverpb.KV/Compact";
        self.unary(path, CompactionRequest { revision }, Again::Harmless)
            .await
    }

    pub(crate) async fn grant(&self, ttl: i64) -> Result<LeaseGrantResponse, Status> {
        let path = "/etcdserverpb.Lease/LeaseGrant";
        self.unary(path, LeaseGrantRequest { ttl }, Again::Harmless)
            .await
    }

    /// Watches every key from a revision on.
    pub(crate) async fn watch(&self, from: i64) -> Result<Streaming<WatchResponse>, Status> {
        let used = self.active.load(Ordering::Relaxed);
        let opened = self.open_watch(used, from);
        match tokio::time::timeout(self.timeout, opened).await {
            Ok(Ok(events)) => Ok(events),
            Ok(Err(status)) => {
                self.leave(used);
                Err(status)
            }
            Err(_) => {
                self.leave(used);
                Err(Status::deadline_exceeded("no answer in time"))
            }
        }
    }

    async fn open_watch(&self, used: usize, from: i64) -> Result<Streaming<WatchResponse>, Status> {
        // From the least key to the greatest: a zero byte, and the end that etcd takes for "all that follow".
        let create = WatchCreateRequest {
            key: bytes::Bytes::from_static(b"\0"),
            range_end: bytes::Bytes::from_static(b"\0"),
            start_revision: from,
            progress_notify: true,
        };
        let request = WatchRequest {
            create: Some(create),
        };
        // The stream of requests stays open as long as its answers are wanted.
        let requests = stream::once(std::future::ready(request)).chain(stream::pending());
        let mut requests = Request::new(requests);
        // A member that is cut off from the others says so, instead of saying nothing.
        requests
            .metadata_mut()
            .insert("hasleader", MetadataValue::from_static("true"));
        let mut grpc = self.grpc(used);
        ready(&mut grpc).await?;
        let path = PathAndQuery::from_static("/etcdserverpb.Watch/Watch");
        let codec = ProstCodec::<WatchRequest, WatchResponse>::default();
        Ok(grpc.streaming(requests, path, codec).await?.into_inner())
    }

    async fn unary<Q, A>(&self, path: &'static str, request: Q, again: Again) -> Result<A, Status>
    where
        Q: Message + Clone + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let deadline = Instant::now() + self.timeout;
        let mut tries = 0;
        loop {
            tries += 1;
            let used = self.active.load(Ordering::Relaxed);
            let call = async {
                let mut grpc = self.grpc(used);
                ready(&mut grpc).await.map_err(|status| (status, false))?;
                let path = PathAndQuery::from_static(path);
                let codec = ProstCodec::<Q, A>::default();
                let answer = grpc.unary(Request::new(request.clone()), path, codec).await;
                answer
                    .map(tonic::Response::into_inner)
                    .map_err(|status| (status, true))
            };
            let (status, sent) = match timeout_at(deadline, call).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(failed)) => failed,
                Err(_) => (Status::deadline_exceeded("no answer in time"), true),
            };
            let lost = matches!(
                status.code(),
                Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown
            );
            if lost {
                self.leave(used);
            }
            let unsent = !sent || never_connected(&status);
            let more = tries <= self.endpoints.len() && Instant::now() + PAUSE < deadline;
            if !(lost && more && (again == Again::Harmless || unsent)) {
                return Err(status);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn grpc(&self, used: usize) -> Grpc<Channel> {
        let (_, channel) = &self.endpoints[used % self.endpoints.len()];
        Grpc::new(channel.clone())
            .max_decoding_message_size(MESSAGE_MAX)
            .max_encoding_message_size(MESSAGE_MAX)
    }

    /// The next one may do better; unless somebody else has gone there already.
    pub(crate) fn leave(&self, used: usize) {
        let next = (used + 1) % self.endpoints.len();
        let _ = self
            .active
            .compare_exchange(used, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Leaves the endpoint in use.
    pub(crate) fn leave_active(&self) {
        self.leave(self.active.load(Ordering::Relaxed));
    }

    /// What a failed call means.
    pub(crate) fn error(&self, doing: &str, asked: Revision, status: &Status) -> Error {
        let message = status.message();
        match status.code() {
            Code::OutOfRange if message.contains("compacted") => Error::Compacted {
                asked,
                oldest: asked,
            },
            Code::OutOfRange if message.contains("future") => Error::Future {
                asked,
                newest: Revision(0),
            },
            Code::InvalidArgument if message.contains("too large") => refused(message),
            Code::InvalidArgument if message.contains("too many") => refused(message),
            Code::ResourceExhausted if message.contains("message") => refused(message),
            Code::ResourceExhausted => Error::Unavailable {
                doing: format!(
                    "{doing} etcd at {}; compact and defragment it, raise its --quota-backend-bytes, then disarm its \
                     alarm",
                    self.endpoint()
                ),
                cause: message.into(),
            },
            _ => Error::Unavailable {
                doing: format!("{doing} etcd at {}", self.endpoint()),
                cause: causes(status).into(),
            },
        }
    }
}

fn refused(message: &str) -> Error {
    Error::Refused {
        reason: message.to_owned(),
    }
}

async fn ready(grpc: &mut Grpc<Channel>) -> Result<(), Status> {
    let made = grpc.ready().await;
    made.map_err(|error| Status::from_error(Box::new(error)))
}

/// Whether the call can't have reached anybody: there was no connection to send it on.
fn never_connected(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<std::io::Error>()
            && error.kind() == std::io::ErrorKind::ConnectionRefused
        {
            return true;
        }
        source = error.source();
    }
    false
}

/// The message of a status, and what led to it.
fn causes(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
        source = error.source();
    }
    text
}

fn channel(url: &str, options: &Options) -> Result<Channel, ConnectError> {
    let config = |why: String| ConnectError::Config(format!("the endpoint {url} of etcd: {why}"));
    let mut endpoint = Endpoint::from_shared(url.to_owned())
        .map_err(|error| config(error.to_string()))?
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(5))
        .keep_alive_while_idle(true)
        .initial_stream_window_size(8 << 20)
        .initial_connection_window_size(16 << 20);
    match endpoint.uri().scheme_str() {
        Some("http") => {}
        Some("https") => {
            let tls = tls(options)?;
            endpoint = endpoint
                .tls_config(tls)
                .map_err(|error| config(error.to_string()))?;
        }
        _ => return Err(config("it begins with neither http:// nor https://".into())),
    }
    Ok(endpoint.connect_lazy())
}

fn tls(options: &Options) -> Result<ClientTlsConfig, ConnectError> {
    let read = |path: &Path| {
        std::fs::read(path).map_err(|source| ConnectError::File {
            path: path.to_owned(),
            source: Arc::new(source),
        })
    };
    let ca = options.ca_file.as_deref().ok_or_else(|| {
        ConnectError::Config("an endpoint of etcd is https: give --etcd-cafile".into())
    })?;
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(ca)?));
    match (&options.cert_file, &options.key_file) {
        (Some(cert), Some(key)) => {
            tls = tls.identity(Identity::from_pem(read(cert)?, read(key)?));
        }
        (None, None) => {}
        _ => {
            let why = "--etcd-certfile and --etcd-keyfile belong together: give both or neither";
            return Err(ConnectError::Config(why.into()));
        }
    }
    Ok(tls)
}
