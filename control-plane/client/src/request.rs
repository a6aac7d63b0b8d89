//! One request, one answer.

use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use rustls_pki_types::ServerName;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tower::Service;

use crate::apply::Discovery;
use crate::error::{BoxError, Error, Status};
use crate::https::Network;
use crate::kubeconfig::{KubeconfigError, Login, Settings};
use crate::login::Credentials;
use crate::page::{ListParams, Page, decode_page};
use crate::path::{Path, Query};
use crate::transport::{InProcess, RequestBody, ResponseBody, Transport};

/// How long a request may take, but for watches: an API server gives up after a minute itself.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Speaks to one API server. Clones share its connections.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
    observer: Option<Arc<dyn Observer>>,
}

/// Hears of each exchange with an API server, as metrics want it.
pub trait Observer: Send + Sync {
    /// The server of `host` answered a request, or did not where there is no status; of a watch that is its beginning.
    fn answered(&self, method: &Method, host: &str, status: Option<StatusCode>, took: Duration);
}

struct Inner {
    transport: Box<dyn Transport>,
    credentials: Credentials,
    /// For messages.
    server: String,
    namespace: String,
    discovery: Discovery,
}

/// How a patch is to be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PatchKind {
    /// RFC 7386.
    Merge,
    /// Kubernetes' own: lists are merged by key.
    Strategic,
    /// RFC 6902.
    Json,
    /// What the sender wants of the object; the server knows by his name what he wanted before.
    Apply,
}

impl PatchKind {
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            PatchKind::Merge => "application/merge-patch+json",
            PatchKind::Strategic => "application/strategic-merge-patch+json",
            PatchKind::Json => "application/json-patch+json",
            PatchKind::Apply => "application/apply-patch+yaml",
        }
    }
}

impl Client {
    /// A client for the current context of a kubeconfig. Nothing is sent yet.
    ///
    /// # Errors
    /// Names the file and the field that cannot be used.
    pub fn from_kubeconfig(path: impl AsRef<FilePath>) -> Result<Client, KubeconfigError> {
        let path = path.as_ref();
        Client::over_network(Settings::read(path, None)?, path)
    }

    /// As [`Client::from_kubeconfig`], for another than its current context.
    ///
    /// # Errors
    /// Names the file and the field that cannot be used.
    pub fn from_kubeconfig_context(
        path: impl AsRef<FilePath>,
        context: &str,
    ) -> Result<Client, KubeconfigError> {
        let path = path.as_ref();
        Client::over_network(Settings::read(path, Some(context))?, path)
    }

    /// A client for the server of an address. `tls` names files: our certificate, its key, and the certificates
    /// of whom we believe; without them nobody vouches for us, and the system's authorities for the server.
    ///
    /// # Errors
    /// Names the file or the address that cannot be used.
    pub fn from_endpoint(
        url: &str,
        tls: Option<[&FilePath; 3]>,
    ) -> Result<Client, KubeconfigError> {
        Client::over_network(Settings::endpoint(url, tls)?, FilePath::new(url))
    }

    /// As [`Client::from_kubeconfig`], of a text; files that it names are looked for beside `origin`.
    ///
    /// # Errors
    /// Names `origin` and the field that cannot be used.
    pub fn from_kubeconfig_text(
        text: &str,
        origin: impl AsRef<FilePath>,
    ) -> Result<Client, KubeconfigError> {
        let origin = origin.as_ref();
        Client::over_network(Settings::parse(text, origin, None)?, origin)
    }

    /// A client for the cluster that this process is a pod of, by what is mounted into every pod.
    ///
    /// # Errors
    /// Names what a pod would have and this process has not.
    pub fn in_cluster() -> Result<Client, KubeconfigError> {
        Client::over_network(Settings::in_cluster()?, FilePath::new("(in cluster)"))
    }

    /// A client whose requests are calls of a router in this process. An empty token sends none.
    pub fn in_process<S, B>(service: S, token: &str) -> Client
    where
        S: Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let login = match token {
            "" => Login::Nothing,
            token => Login::Token(token.to_owned()),
        };
        let credentials = Credentials::new(login).unwrap_or(Credentials::Fixed(None));
        Client::new(
            Box::new(InProcess(service)),
            credentials,
            "this process".to_owned(),
            "default".to_owned(),
        )
    }

    fn over_network(mut settings: Settings, origin: &FilePath) -> Result<Client, KubeconfigError> {
        let field = |field: &str, problem: &str| KubeconfigError::Field {
            path: origin.to_owned(),
            field: field.to_owned(),
            problem: problem.to_owned(),
        };
        let login = std::mem::replace(&mut settings.login, Login::Nothing);
        let credentials = Credentials::new(login)
            .ok_or_else(|| field("token", "holds more than one line or is not text"))?;
        let tls = match settings.server.scheme_str() {
            Some("http") => None,
            Some(_) | None => {
                let host = settings.server.host().unwrap_or_default();
                let host = host.trim_start_matches('[').trim_end_matches(']');
                let name = settings
                    .server_name
                    .clone()
                    .unwrap_or_else(|| host.to_owned());
                let name = ServerName::try_from(name)
                    .map_err(|error| field("tls-server-name", &error.to_string()))?;
                let config =
                    crate::tls::config(&mut settings).map_err(|source| KubeconfigError::Tls {
                        path: origin.to_owned(),
                        source,
                    })?;
                Some((config, name))
            }
        };
        let parts = settings.server.clone().into_parts();
        let authority = parts
            .authority
            .ok_or_else(|| field("server", "names no host"))?;
        let prefix = settings.server.path().trim_end_matches('/').to_owned();
        Ok(Client::new(
            Box::new(Network::new(authority, prefix, tls)),
            credentials,
            settings.server.to_string(),
            settings.namespace,
        ))
    }

    fn new(
        transport: Box<dyn Transport>,
        credentials: Credentials,
        server: String,
        namespace: String,
    ) -> Client {
        Client {
            inner: Arc::new(Inner {
                transport,
                credentials,
                server,
                namespace,
                discovery: Discovery::default(),
            }),
            observer: None,
        }
    }

    /// The same client, of whose exchanges `observer` hears.
    #[must_use]
    pub fn observed(&self, observer: Arc<dyn Observer>) -> Client {
        Client {
            inner: Arc::clone(&self.inner),
            observer: Some(observer),
        }
    }

    /// Where requests go, for messages.
    pub fn server(&self) -> &str {
        &self.inner.server
    }

    /// The namespace of objects that name none.
    pub fn namespace(&self) -> &str {
        &self.inner.namespace
    }

    pub(crate) fn discovery(&self) -> &Discovery {
        &self.inner.discovery
    }

    /// Reads an object.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::is_not_found`] when it does not exist.
    pub async fn get<T: DeserializeOwned>(&self, path: &Path) -> Result<T, Error> {
        let body = self
            .exchange(Method::GET, path, Query::default(), None)
            .await?;
        decode(Method::GET, path, &body)
    }

    /// Reads whatever stands at a path, for instance `/version` or `/readyz`.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn get_raw(&self, path: &Path) -> Result<Bytes, Error> {
        self.exchange(Method::GET, path, Query::default(), None)
            .await
    }

    /// Reads one page of a collection. Items that cannot be decoded are in [`Page::findings`], not in the way of
    /// the others.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::is_gone`] when the continue token is too old.
    pub async fn page<T: DeserializeOwned>(
        &self,
        path: &Path,
        params: &ListParams,
    ) -> Result<Page<T>, Error> {
        let body = self
            .exchange(Method::GET, path, params.query(), None)
            .await?;
        decode_page(&body).map_err(|source| Error::Decode {
            method: Method::GET,
            path: path.to_string(),
            source,
        })
    }

    /// Reads a whole collection at one resource version, page by page.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::is_gone`] when the list took longer than the server keeps history.
    pub async fn list<T: DeserializeOwned>(
        &self,
        path: &Path,
        params: &ListParams,
    ) -> Result<Page<T>, Error> {
        let mut params = params.clone();
        let mut whole = self.page::<T>(path, &params).await?;
        while !whole.continue_token.is_empty() {
            params.continue_token = std::mem::take(&mut whole.continue_token);
            let next = self.page::<T>(path, &params).await?;
            whole.items.extend(next.items);
            whole.findings.extend(next.findings);
            whole.continue_token = next.continue_token;
        }
        Ok(whole)
    }

    /// Creates an object in a collection and returns it as the server keeps it.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::is_already_exists`] when the name is taken.
    pub async fn create<T: DeserializeOwned>(
        &self,
        collection: &Path,
        object: &impl Serialize,
    ) -> Result<T, Error> {
        self.write(Method::POST, collection, "application/json", object, &[])
            .await
    }

    /// Replaces an object and returns it as the server keeps it. With a resource version in its metadata, only if
    /// it is still of that version.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::is_conflict`] when it changed meanwhile.
    pub async fn replace<T: DeserializeOwned>(
        &self,
        path: &Path,
        object: &impl Serialize,
    ) -> Result<T, Error> {
        self.write(Method::PUT, path, "application/json", object, &[])
            .await
    }

    /// Changes part of an object and returns the whole.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn patch<T: DeserializeOwned>(
        &self,
        path: &Path,
        kind: PatchKind,
        patch: &impl Serialize,
    ) -> Result<T, Error> {
        self.write(Method::PATCH, path, kind.content_type(), patch, &[])
            .await
    }

    /// Deletes an object. `options` is a `v1` DeleteOptions, or `Value::Null` for none. Returns the object where
    /// deletion waits for something, else a Status.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::is_conflict`] when a precondition does not hold.
    pub async fn delete(&self, path: &Path, options: &Value) -> Result<Value, Error> {
        let content = match options {
            Value::Null => None,
            options => Some(("application/json", encode(path, options)?)),
        };
        let body = self
            .exchange(Method::DELETE, path, Query::default(), content)
            .await?;
        decode(Method::DELETE, path, &body)
    }

    /// Sends an object, with parameters beside the usual ones.
    pub(crate) async fn write<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &Path,
        content_type: &'static str,
        object: &impl Serialize,
        parameters: &[(&'static str, &str)],
    ) -> Result<T, Error> {
        let content = Some((content_type, encode(path, object)?));
        let query = Query::default().with("fieldManager", "fairlead");
        let query = parameters
            .iter()
            .fold(query, |query, (name, value)| query.with(name, value));
        let body = self.exchange(method.clone(), path, query, content).await?;
        decode(method, path, &body)
    }

    /// Sends, and reads the whole answer.
    async fn exchange(
        &self,
        method: Method,
        path: &Path,
        query: Query,
        content: Option<(&'static str, Bytes)>,
    ) -> Result<Bytes, Error> {
        let exchange = async {
            let response = self.send(&method, path, &query, content).await?;
            let body = response.into_body().collect().await;
            Ok(body
                .map_err(|source| self.lost(&method, path, source))?
                .to_bytes())
        };
        match tokio::time::timeout(REQUEST_TIMEOUT, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(self.late(&method, path)),
        }
    }

    /// Opens a watch: the answer's body goes on until the server ends it.
    pub(crate) async fn open(
        &self,
        path: &Path,
        query: &Query,
    ) -> Result<Response<ResponseBody>, Error> {
        let answer = self.send(&Method::GET, path, query, None);
        match tokio::time::timeout(REQUEST_TIMEOUT, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(self.late(&Method::GET, path)),
        }
    }

    /// Sends, and turns an answer that says no into an error. A token that was refused is read again once.
    async fn send(
        &self,
        method: &Method,
        path: &Path,
        query: &Query,
        content: Option<(&'static str, Bytes)>,
    ) -> Result<Response<ResponseBody>, Error> {
        let mut again = true;
        loop {
            let login = self.inner.credentials.header()?;
            let request = form(method, path, query, content.as_ref(), login.as_ref())?;
            let begin = Instant::now();
            let answer = self.inner.transport.call(request).await;
            if let Some(observer) = &self.observer {
                let server = &self.inner.server;
                let host = server.split_once("://").map_or(&**server, |(_, host)| host);
                let host = host.split_once('/').map_or(host, |(host, _)| host);
                let status = answer.as_ref().ok().map(Response::status);
                observer.answered(method, host, status, begin.elapsed());
            }
            let response = answer.map_err(|source| self.lost(method, path, source))?;
            if response.status().is_success() {
                return Ok(response);
            }
            if response.status() == StatusCode::UNAUTHORIZED
                && std::mem::take(&mut again)
                && self.inner.credentials.refused(login.as_ref())
            {
                continue;
            }
            let code = response.status();
            let body = response.into_body().collect().await;
            let body = body
                .map_err(|source| self.lost(method, path, source))?
                .to_bytes();
            return Err(Error::Status {
                method: method.clone(),
                path: path.to_string(),
                status: Box::new(Status::from_answer(code, &body)),
            });
        }
    }

    fn lost(&self, method: &Method, path: &Path, source: BoxError) -> Error {
        Error::Transport {
            method: method.clone(),
            path: path.to_string(),
            server: self.inner.server.clone(),
            source,
        }
    }

    fn late(&self, method: &Method, path: &Path) -> Error {
        Error::Timeout {
            method: method.clone(),
            path: path.to_string(),
            server: self.inner.server.clone(),
            seconds: REQUEST_TIMEOUT.as_secs(),
        }
    }
}

fn form(
    method: &Method,
    path: &Path,
    query: &Query,
    content: Option<&(&'static str, Bytes)>,
    login: Option<&HeaderValue>,
) -> Result<Request<RequestBody>, Error> {
    let mut request = Request::builder()
        .method(method)
        .uri(format!("{path}{}", query.as_str()))
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, concat!("fairlead/", env!("CARGO_PKG_VERSION")));
    if let Some(login) = login {
        request = request.header(AUTHORIZATION, login);
    }
    let mut body = Bytes::new();
    if let Some((content_type, bytes)) = content {
        request = request.header(CONTENT_TYPE, *content_type);
        body = bytes.clone();
    }
    request
        .body(Full::new(body))
        .map_err(|source| Error::Request {
            path: path.to_string(),
            source,
        })
}

fn encode(path: &Path, object: &impl Serialize) -> Result<Bytes, Error> {
    let bytes = serde_json::to_vec(object).map_err(|source| Error::Encode {
        path: path.to_string(),
        source,
    })?;
    Ok(Bytes::from(bytes))
}

fn decode<T: DeserializeOwned>(method: Method, path: &Path, body: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(body).map_err(|source| Error::Decode {
        method,
        path: path.to_string(),
        source,
    })
}
