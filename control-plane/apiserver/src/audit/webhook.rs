//! Events to a server of somebody else's, several in a request. Nobody waits for it: what it does not take in time is
//! counted as lost.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use http::{Method, Request, Uri};
use http_body_util::{BodyExt as _, Limited};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use crate::dial::{self, Peer};
use crate::{Error, pki};

/// The most bytes of events that wait to be sent.
const WAITING_MAX: usize = 16 << 20;
/// The most events in a request, as with kube-apiserver.
const BATCH_MAX: usize = 400;
/// For how long an event waits for others.
const GATHER: Duration = Duration::from_secs(1);
/// How long a request may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a request is tried, and how long it is waited after the first failure; each time half as long again.
const TRIES: usize = 4;
const BACKOFF: Duration = Duration::from_secs(2);

enum Item {
    Event(Vec<u8>, OwnedSemaphorePermit),
    /// Everything before it is to be sent; then this is told.
    Flush(oneshot::Sender<()>),
}

/// The end of the queue that requests hold.
pub(super) struct Webhook {
    queue: mpsc::UnboundedSender<Item>,
    room: Arc<Semaphore>,
    lost: Arc<AtomicU64>,
}

impl Webhook {
    /// Starts the task that sends, which ends with the webhook.
    pub(super) fn new(path: &Path) -> Result<Self, Error> {
        let target = Target::read(path)?;
        let (queue, items) = mpsc::unbounded_channel();
        let lost = Arc::<AtomicU64>::default();
        tokio::spawn(run(target, items, lost.clone()));
        Ok(Webhook {
            queue,
            room: Arc::new(Semaphore::new(WAITING_MAX)),
            lost,
        })
    }

    /// Sends the event when others have come, if there is room for it.
    pub(super) fn push(&self, event: Vec<u8>) {
        let share = u32::try_from(event.len()).unwrap_or(u32::MAX);
        match self.room.clone().try_acquire_many_owned(share) {
            Ok(room) => {
                let _ = self.queue.send(Item::Event(event, room));
            }
            Err(_) => {
                let lost = self.lost.fetch_add(1, Ordering::Relaxed) + 1;
                if lost.is_power_of_two() {
                    tracing::warn!(lost, "the audit webhook is too slow: events are lost");
                }
            }
        }
    }

    /// How many events were lost.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Resolves once everything is sent, or after some seconds.
    pub(super) async fn flush(&self) {
        let (done, sent) = oneshot::channel();
        if self.queue.send(Item::Flush(done)).is_ok() {
            let _ = timeout(Duration::from_secs(5), sent).await;
        }
    }
}

async fn run(target: Target, mut items: mpsc::UnboundedReceiver<Item>, lost: Arc<AtomicU64>) {
    while let Some(first) = items.recv().await {
        let end = Instant::now() + GATHER;
        let (mut batch, mut asked, mut next) = (Vec::new(), None, Some(first));
        while let Some(item) = next {
            match item {
                Item::Event(event, room) => batch.push((event, room)),
                Item::Flush(done) => asked = Some(done),
            }
            next = match batch.len() < BATCH_MAX && asked.is_none() {
                true => timeout_at(end, items.recv()).await.ok().flatten(),
                false => None,
            };
        }
        if !batch.is_empty() {
            let body = list(batch.iter().map(|(event, _)| event.as_slice()));
            if let Err(why) = target.send(&body).await {
                let events = batch.len();
                lost.fetch_add(events as u64, Ordering::Relaxed);
                tracing::warn!(
                    why,
                    events,
                    "the audit webhook takes no events: they are lost"
                );
            }
        }
        if let Some(done) = asked {
            // Who asked may have gone.
            let _ = done.send(());
        }
    }
}

fn list<'a>(events: impl Iterator<Item = &'a [u8]>) -> Bytes {
    let mut body =
        br#"{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":["#.to_vec();
    for (index, event) in events.enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(event.trim_ascii_end());
    }
    body.extend_from_slice(b"]}");
    body.into()
}

/// Whom the file means.
struct Target {
    peer: Peer,
    /// Whose certificate he has to show.
    name: String,
    uri: String,
    authorization: Option<HeaderValue>,
    tls: Arc<rustls::ClientConfig>,
}

/// What is read of a kubeconfig.
#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", default)]
struct Kubeconfig {
    clusters: Vec<Named<Cluster>>,
    users: Vec<Named<Identity>>,
    contexts: Vec<Named<Context>>,
    current_context: String,
}

#[derive(Deserialize)]
struct Named<T> {
    name: String,
    #[serde(alias = "cluster", alias = "user", alias = "context")]
    of: T,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Context {
    cluster: String,
    user: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", default)]
struct Cluster {
    server: String,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
    tls_server_name: Option<String>,
    insecure_skip_tls_verify: bool,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", default)]
struct Identity {
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
    token: Option<String>,
}

impl Target {
    fn read(path: &Path) -> Result<Self, Error> {
        let wrong = |why: String| Error::Config(format!("audit webhook {}: {why}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|source| {
            Error::io("reading the kubeconfig of the audit webhook", path, source)
        })?;
        let config: Kubeconfig = serde_saphyr::from_str(&text).map_err(|error| {
            let said = error.without_snippet().to_string();
            wrong(said.lines().next().unwrap_or_default().to_owned())
        })?;
        Self::of(config, path.parent().unwrap_or(Path::new("."))).map_err(wrong)
    }

    /// Paths in the file begin at its folder.
    fn of(config: Kubeconfig, folder: &Path) -> Result<Self, String> {
        let current = config.current_context;
        let context = config.contexts.into_iter().find(|it| it.name == current);
        let context = context.map(|context| context.of);
        let cluster = config.clusters.into_iter().find(|it| {
            context
                .as_ref()
                .is_none_or(|context| context.cluster == it.name)
        });
        let user = config.users.into_iter().find(|it| {
            context
                .as_ref()
                .is_none_or(|context| context.user == it.name)
        });
        let cluster = cluster.ok_or("it names no cluster")?.of;
        let user = user.map(|user| user.of).unwrap_or_default();
        if cluster.insecure_skip_tls_verify {
            return Err(
                "insecure-skip-tls-verify is not done: name the certificate-authority".into(),
            );
        }
        let uri: Uri = cluster
            .server
            .parse()
            .map_err(|error| format!("server: {error}"))?;
        let host = uri.host().ok_or("server: there is no host in it")?;
        let host = host.trim_matches(['[', ']']).to_owned();
        let tls = uri.scheme_str() != Some("http");
        let pem =
            |data: &Option<String>, file: &Option<PathBuf>| -> Result<Option<Vec<u8>>, String> {
                match (data, file) {
                    (Some(data), _) => STANDARD
                        .decode(data)
                        .map(Some)
                        .map_err(|error| error.to_string()),
                    (None, Some(file)) => {
                        let file = folder.join(file);
                        let read = std::fs::read(&file).map(Some);
                        read.map_err(|error| format!("{}: {error}", file.display()))
                    }
                    (None, None) => Ok(None),
                }
            };
        let authority = pem(
            &cluster.certificate_authority_data,
            &cluster.certificate_authority,
        )?;
        let certificate = pem(&user.client_certificate_data, &user.client_certificate)?;
        let key = pem(&user.client_key_data, &user.client_key)?;
        let bearer = |token: &String| HeaderValue::from_str(&format!("Bearer {token}"));
        let authorization = user.token.as_ref().map(bearer).transpose();
        Ok(Target {
            peer: Peer {
                port: uri.port_u16().unwrap_or(if tls { 443 } else { 80 }),
                host: host.clone(),
                tls,
                agent: false,
            },
            name: cluster.tls_server_name.unwrap_or(host),
            uri: uri
                .path_and_query()
                .map_or("/", |it| it.as_str())
                .to_owned(),
            authorization: authorization.map_err(|error| format!("token: {error}"))?,
            tls: trust(
                authority.as_deref(),
                certificate.as_deref().zip(key.as_deref()),
            )?,
        })
    }

    async fn send(&self, body: &Bytes) -> Result<(), String> {
        let mut wait = BACKOFF;
        let mut tried = 1;
        loop {
            let answer = timeout(PATIENCE, self.post(body.clone())).await;
            let answer = answer.unwrap_or_else(|_| Err("no answer in time".to_owned()));
            if answer.is_ok() || tried == TRIES {
                return answer;
            }
            tokio::time::sleep(wait).await;
            wait += wait / 2;
            tried += 1;
        }
    }

    async fn post(&self, body: Bytes) -> Result<(), String> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(&self.uri)
            .header(HOST, self.peer.authority())
            .header(CONTENT_TYPE, "application/json");
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request
            .body(Body::from(body))
            .map_err(|error| error.to_string())?;
        let answer = dial::send_as(&self.peer, &self.name, self.tls.clone(), request).await;
        let answer = answer.map_err(|failure| failure.to_string())?;
        let code = answer.status();
        // It is read so that the connection ends in order; nothing is done with it.
        let _ = Limited::new(answer.into_body(), 64 << 10).collect().await;
        match code.is_success() {
            true => Ok(()),
            false => Err(format!("it answers {code}")),
        }
    }
}

/// Whom to believe, and as whom to come.
fn trust(
    authority: Option<&[u8]>,
    identity: Option<(&[u8], &[u8])>,
) -> Result<Arc<rustls::ClientConfig>, String> {
    let mut believed = pki::Certificates::new();
    for certificate in CertificateDer::pem_slice_iter(authority.unwrap_or_default()) {
        let certificate = certificate.map_err(|error| format!("certificate-authority: {error}"))?;
        let read = rustls::RootCertStore::empty().add(certificate.clone());
        read.map_err(|error| error.to_string())?;
        believed.push(certificate);
    }
    if authority.is_some() && believed.is_empty() {
        return Err("there is no certificate in its certificate-authority".into());
    }
    let builder = rustls::ClientConfig::builder_with_provider(pki::provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = pki::believing(builder, believed);
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate).collect();
            let chain = chain.map_err(|error| format!("client-certificate: {error}"))?;
            let key = PrivateKeyDer::from_pem_slice(key);
            let key = key.map_err(|error| format!("client-key: {error}"))?;
            let config = builder.with_client_auth_cert(chain, key);
            config.map_err(|error| format!("client-certificate: {error}"))?
        }
    };
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_make_a_list() {
        let events = [&b"{\"a\":1}\n"[..], b"{}\n"];
        let body = list(events.into_iter());
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["kind"], "EventList");
        assert_eq!(body["items"], serde_json::json!([{"a": 1}, {}]));
    }

    #[test]
    fn what_a_kubeconfig_says() {
        let read = |text: &str| {
            let config = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
            Target::of(config, Path::new("/nowhere"))
        };
        let two = "clusters: [{name: a, cluster: {server: 'https://a'}}, {name: b, cluster: {server: 'http://10.0.0.1:8080/x?y=1'}}]\n";
        let first = read(two).unwrap();
        assert_eq!(
            (first.peer.url(), first.name.as_str()),
            ("https://a:443".into(), "a")
        );
        let context = "contexts: [{name: c, context: {cluster: b, user: u}}]\ncurrent-context: c\nusers: [{name: u, user: {token: t}}]\n";
        let second = read(&format!("{two}{context}")).unwrap();
        assert_eq!(
            (second.peer.url(), second.uri.as_str()),
            ("http://10.0.0.1:8080".into(), "/x?y=1")
        );
        assert_eq!(second.authorization.unwrap(), "Bearer t");
        for (text, why) in [
            ("clusters: []", "it names no cluster"),
            ("clusters: [{name: a, cluster: {server: ''}}]", "server: "),
            (
                "clusters: [{name: a, cluster: {server: 'https://a', certificate-authority: ca.crt}}]",
                "/nowhere/ca.crt: ",
            ),
            (
                "clusters: [{name: a, cluster: {server: 'https://a', certificate-authority-data: eA==}}]",
                "there is no certificate",
            ),
            (
                "clusters: [{name: a, cluster: {server: 'https://a', insecure-skip-tls-verify: true}}]",
                "insecure-skip",
            ),
        ] {
            let error = read(text).err().unwrap();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
