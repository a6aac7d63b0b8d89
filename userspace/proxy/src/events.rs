//! Troubles as Events on their Services, where `kubectl describe service` shows them.
//!
//! Nobody waits for an Event: a task of its own writes them, at a bounded rate, and what cannot be written is
//! passed over. While no trouble comes or goes nothing is sent.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::time::Duration;

use client::{Client, Error, ListParams, PatchKind, Resource};
use model::ServiceKey;
use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tracing::debug;
use view::objects;

use crate::Trouble;

/// What writes the Events.
#[derive(Debug)]
pub(crate) struct Events {
    news: UnboundedSender<News>,
    writer: JoinHandle<()>,
}

/// What kind of object the Events are about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum About {
    /// Services; host ports are those of Pods.
    Service,
    /// Pods.
    Pod,
    /// NetworkPolicies.
    NetworkPolicy,
    /// ClusterNetworkPolicies, which are in no namespace: their Events are in `default`.
    ClusterNetworkPolicy,
}

impl About {
    fn api_version(self) -> &'static str {
        match self {
            About::Service | About::Pod => "v1",
            About::NetworkPolicy => "networking.k8s.io/v1",
            About::ClusterNetworkPolicy => "policy.networking.k8s.io/v1alpha2",
        }
    }

    fn kind(self) -> &'static str {
        match self {
            About::Service => "Service",
            About::Pod => "Pod",
            About::NetworkPolicy => "NetworkPolicy",
            About::ClusterNetworkPolicy => "ClusterNetworkPolicy",
        }
    }

    fn resource(self) -> Resource {
        match self {
            About::Service => Resource::of::<objects::Service>(),
            About::Pod => Resource::of::<objects::Pod>(),
            About::NetworkPolicy => Resource::of::<objects::NetworkPolicy>(),
            About::ClusterNetworkPolicy => Resource::of::<objects::ClusterNetworkPolicy>(),
        }
    }
}

#[derive(Debug)]
enum News {
    /// All that is wrong with an object now.
    Now(ServiceKey, Vec<Trouble>),
    /// Something that went wrong and is over.
    Happened(ServiceKey, Trouble),
}

impl Events {
    /// Starts writing in the background, as long as this is kept.
    pub(crate) fn start(client: Client, node: &str, about: About) -> Self {
        let (news, heard) = mpsc::unbounded_channel();
        let writer = Writer {
            client,
            node: node.to_owned(),
            about,
            known: BTreeMap::new(),
            due: BTreeMap::new(),
            written: BTreeMap::new(),
        };
        Events {
            news,
            writer: tokio::spawn(writer.run(heard)),
        }
    }

    /// Notes that a service's troubles changed, and what they are now.
    pub(crate) fn tell(&self, service: &ServiceKey, troubles: &[Trouble]) {
        // Without a writer there is nobody left to tell.
        let news = News::Now(service.clone(), troubles.to_vec());
        let _ = self.news.send(news);
    }

    /// Notes that something went wrong with a service. The same is written again after [`REPEAT`], if it still happens.
    pub(crate) fn happened(&self, service: &ServiceKey, trouble: Trouble) {
        let _ = self.news.send(News::Happened(service.clone(), trouble));
    }

    /// Lets what is due be written, for a moment.
    pub(crate) async fn finish(self) {
        drop(self.news);
        if timeout(FINISH, self.writer).await.is_err() {
            debug!("not every Event was written");
        }
    }
}

const COMPONENT: &str = "fairlead-proxy";
/// Between two Events: a full table may trouble thousands of services at once.
const EVERY: Duration = Duration::from_millis(50);
/// A trouble that returns sooner is not written again.
const REPEAT: Duration = Duration::from_secs(300);
/// How long the end waits for Events.
const FINISH: Duration = Duration::from_secs(2);

struct Writer {
    client: Client,
    node: String,
    about: About,
    known: BTreeMap<ServiceKey, Vec<Trouble>>,
    /// Not yet written.
    due: BTreeMap<ServiceKey, Vec<Trouble>>,
    /// When an Event was written last, by namespace and name; not longer ago than [`REPEAT`].
    written: BTreeMap<(ServiceKey, u64), Instant>,
}

impl Writer {
    async fn run(mut self, mut heard: UnboundedReceiver<News>) {
        loop {
            while let Ok(news) = heard.try_recv() {
                self.hear(news);
            }
            if let Some((service, trouble)) = self.next_due() {
                self.report(&service, &trouble).await;
                continue;
            }
            match heard.recv().await {
                Some(news) => self.hear(news),
                None => return,
            }
        }
    }

    /// Notes what is new. What was due and is over is no longer worth an Event.
    fn hear(&mut self, news: News) {
        let (service, troubles) = match news {
            News::Now(service, troubles) => (service, troubles),
            News::Happened(service, trouble) => {
                let due = self.due.entry(service).or_default();
                if !due.contains(&trouble) {
                    due.push(trouble);
                }
                return;
            }
        };
        let mut due = self.due.remove(&service).unwrap_or_default();
        due.retain(|trouble| troubles.contains(trouble));
        let before = self.known.remove(&service).unwrap_or_default();
        let new = troubles.iter().filter(|trouble| !before.contains(trouble));
        due.extend(new.cloned());
        if !due.is_empty() {
            self.due.insert(service.clone(), due);
        }
        if !troubles.is_empty() {
            self.known.insert(service, troubles);
        }
    }

    fn next_due(&mut self) -> Option<(ServiceKey, Trouble)> {
        let mut first = self.due.first_entry()?;
        let service = first.key().clone();
        let trouble = first.get_mut().pop();
        if first.get().is_empty() {
            first.remove();
        }
        Some((service, trouble?))
    }

    async fn report(&mut self, service: &ServiceKey, trouble: &Trouble) {
        self.written.retain(|_, when| when.elapsed() < REPEAT);
        let mark = mark(&self.node, trouble);
        if self.written.contains_key(&(service.clone(), mark)) {
            return;
        }
        match self.write(service, trouble, mark).await {
            Ok(()) => {
                self.written.insert((service.clone(), mark), Instant::now());
            }
            Err(error) => debug!(
                service = service.to_string(),
                error = &error as &dyn StdError,
                "cannot write an Event"
            ),
        }
        sleep(EVERY).await;
    }

    /// Creates the Event of a trouble, or counts it up where an earlier one stands.
    async fn write(&self, service: &ServiceKey, trouble: &Trouble, mark: u64) -> Result<(), Error> {
        let (about, object) = match service.pod() {
            Some(pod) if self.about == About::Service => (About::Pod, pod),
            _ => (self.about, &*service.name),
        };
        let Some(uid) = self.uid(about, &service.namespace, object).await? else {
            return Ok(()); // gone in the meantime
        };
        let events = Resource {
            group: String::new(),
            version: "v1".to_owned(),
            plural: "events".to_owned(),
            namespaced: true,
        };
        let name = format!("{object}.{mark:016x}");
        let namespace = match &*service.namespace {
            "" => "default",
            namespace => namespace,
        };
        let now = now();
        let mut event = json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": {
                "apiVersion": about.api_version(),
                "kind": about.kind(),
                "name": object,
                "uid": uid,
            },
            "type": "Warning",
            "reason": trouble.reason,
            "message": trouble.message,
            "source": {"component": COMPONENT, "host": self.node},
            "reportingComponent": COMPONENT,
            "reportingInstance": self.node,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        });
        if !service.namespace.is_empty() {
            event["involvedObject"]["namespace"] = json!(namespace);
        }
        let collection = events.within(namespace);
        match self.client.create::<Value>(&collection, &event).await {
            Ok(_) => return Ok(()),
            Err(error) if error.is_already_exists() => {}
            Err(error) => return Err(error),
        }
        let path = events.object(namespace, &name);
        // A kube-proxy's role may write Events and not read them; the time is brought up to date then, and the
        // count stays.
        let mut change = json!({
            "involvedObject": {"uid": uid},
            "lastTimestamp": now,
        });
        if let Ok(Counted { count }) = self.client.get(&path).await {
            change["count"] = json!(count.saturating_add(1));
        }
        let patch = self.client.patch::<Value>(&path, PatchKind::Merge, &change);
        patch.await.map(drop)
    }

    /// The object's uid, by which `kubectl describe` asks for Events. Listed, for that a kube-proxy's role may.
    async fn uid(
        &self,
        about: About,
        namespace: &str,
        name: &str,
    ) -> Result<Option<String>, Error> {
        let collection = about.resource().within(namespace);
        let params = ListParams {
            field_selector: format!("metadata.name={name}"),
            ..ListParams::default()
        };
        let page = self.client.page::<Uid>(&collection, &params);
        Ok(page.await?.items.pop().map(|found| found.metadata.uid))
    }
}

/// All that is asked of an object.
#[derive(Deserialize)]
struct Uid {
    #[serde(default)]
    metadata: objects::ObjectMeta,
}

#[derive(Deserialize)]
struct Counted {
    #[serde(default)]
    count: u32,
}

/// RFC 3339, in whole seconds as Kubernetes writes it.
fn now() -> Option<String> {
    let now = OffsetDateTime::now_utc().replace_nanosecond(0).ok()?;
    now.format(&Rfc3339).ok()
}

/// Tells a service's troubles apart, the same in every process on the node: FNV-1a, 64 bits.
fn mark(node: &str, trouble: &Trouble) -> u64 {
    let bytes = [node, trouble.reason, &trouble.message].map(str::as_bytes);
    let bytes = bytes.join(&0);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use apiserver::{App, Config};
    use client::Path;
    use storage::memory::Memory;

    use super::*;

    fn trouble(message: &str) -> Trouble {
        Trouble {
            reason: "TableFull",
            message: message.to_owned(),
        }
    }

    fn writer(client: Client) -> Writer {
        Writer {
            client,
            node: "node-a".to_owned(),
            about: About::Service,
            known: BTreeMap::new(),
            due: BTreeMap::new(),
            written: BTreeMap::new(),
        }
    }

    /// Everything is 404 there.
    fn nobody() -> Client {
        Client::in_process(axum::Router::new(), "")
    }

    #[tokio::test]
    async fn what_is_in_no_namespace_has_its_events_in_default() {
        use axum::body::Bytes;
        use axum::http::header::CONTENT_TYPE;
        use axum::routing::{get, post};

        let answer = |body: &Value| ([(CONTENT_TYPE, "application/json")], body.to_string());
        let (told, mut heard) = mpsc::unbounded_channel();
        let of_group = "/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies";
        let found = json!({"metadata": {}, "items": [{"metadata": {"name": "deny", "uid": "7"}}]});
        let router = axum::Router::new()
            .route(of_group, get(async move || answer(&found)))
            .route(
                "/api/v1/namespaces/default/events",
                post(async move |event: Bytes| {
                    let event: Value = serde_json::from_slice(&event).unwrap();
                    let answer = answer(&event);
                    told.send(event).unwrap();
                    answer
                }),
            );
        let mut writer = writer(Client::in_process(router, ""));
        writer.about = About::ClusterNetworkPolicy;
        let trouble = trouble("egress[0]: peer 0 is not known here");
        writer.report(&ServiceKey::new("", "deny"), &trouble).await;
        let event = heard.try_recv().expect("an Event");
        let expected = json!({
            "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
            "name": "deny", "uid": "7",
        });
        assert_eq!(event["involvedObject"], expected);
        assert_eq!(event["metadata"]["namespace"], "default");
        assert_eq!(event["message"], trouble.message);
    }

    #[tokio::test]
    async fn host_ports_have_their_events_on_the_pod() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config::new(folder.path());
        let app: App = apiserver::build(config, Arc::new(Memory::new()))
            .await
            .unwrap();
        let client = Client::in_process(app.router(), app.admin_token());
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "hp"},
            "spec": {"containers": [{"name": "c", "image": "i"}]},
        });
        let account =
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
        let accounts = Path::raw("/api/v1/namespaces/default/serviceaccounts");
        client.create::<Value>(&accounts, &account).await.unwrap();
        let pods = Path::raw("/api/v1/namespaces/default/pods");
        let made: Value = client.create(&pods, &pod).await.unwrap();
        let ports = ServiceKey::new("default", "pod/hp");
        writer(client.clone()).report(&ports, &trouble("a")).await;
        let events = Path::raw("/api/v1/namespaces/default/events");
        let list: Value = client.get(&events).await.unwrap();
        let about = &list["items"][0]["involvedObject"];
        assert_eq!([&about["kind"], &about["name"]], ["Pod", "hp"]);
        assert_eq!(about["uid"], made["metadata"]["uid"]);
    }

    #[test]
    fn only_what_is_new_and_still_so_is_due() {
        let mut writer = writer(nobody());
        let web = ServiceKey::new("default", "web");
        let cases: [(&[&str], &[&str]); 6] = [
            (&["a"], &["a"]),
            (&["a", "b"], &["a", "b"]),
            (&["b"], &["b"]),
            (&["b", "c"], &["b", "c"]),
            (&[], &[]),
            (&["b"], &["b"]),
        ];
        for (now, due) in cases {
            let now = now.iter().map(|word| trouble(word)).collect();
            writer.hear(News::Now(web.clone(), now));
            let found = writer.due.get(&web).map_or(&[][..], Vec::as_slice);
            let found: Vec<&str> = found.iter().map(|t| t.message.as_str()).collect();
            assert_eq!(found, due);
        }
        assert_eq!(writer.next_due(), Some((web.clone(), trouble("b"))));
        writer.hear(News::Now(web, vec![trouble("b")]));
        assert_eq!(writer.next_due(), None, "what goes on is not repeated");
    }

    #[tokio::test]
    async fn a_trouble_that_returns_is_counted_in_one_event() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config::new(folder.path());
        let app: App = apiserver::build(config, Arc::new(Memory::new()))
            .await
            .unwrap();
        let client = Client::in_process(app.router(), app.admin_token());
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]},
        });
        let services = Path::raw("/api/v1/namespaces/default/services");
        let made: Value = client.create(&services, &service).await.unwrap();
        let events = || async {
            let path = Path::raw("/api/v1/namespaces/default/events");
            let list: Value = client.get(&path).await.unwrap();
            let items = list["items"].as_array().unwrap().clone();
            items
                .iter()
                .map(|event| (event["message"].clone(), event["count"].clone()))
                .collect::<Vec<_>>()
        };

        let web = ServiceKey::new("default", "web");
        let mut first = writer(client.clone());
        first.report(&web, &trouble("a")).await;
        first.report(&web, &trouble("a")).await;
        assert_eq!(events().await, [(json!("a"), json!(1))], "not so soon");
        let mut second = writer(client.clone());
        second.report(&web, &trouble("a")).await;
        assert_eq!(events().await, [(json!("a"), json!(2))]);
        second.report(&web, &trouble("b")).await;
        assert_eq!(events().await.len(), 2);

        second.hear(News::Happened(web.clone(), trouble("c")));
        second.hear(News::Happened(web.clone(), trouble("c")));
        assert_eq!(second.next_due(), Some((web.clone(), trouble("c"))));
        assert_eq!(second.next_due(), None);

        let list: Value = client
            .get(&Path::raw("/api/v1/namespaces/default/events"))
            .await
            .unwrap();
        for event in list["items"].as_array().unwrap() {
            let about = &event["involvedObject"];
            assert_eq!(about["uid"], made["metadata"]["uid"]);
            assert_eq!(event["source"]["host"], "node-a");
            let times = [&event["firstTimestamp"], &event["lastTimestamp"]];
            assert!(times.iter().all(|time| time.is_string()), "{event}");
        }

        // Who is gone gets none, and who cannot be asked holds nothing up.
        second
            .report(&ServiceKey::new("default", "gone"), &trouble("a"))
            .await;
        writer(nobody()).report(&web, &trouble("c")).await;
        assert_eq!(events().await.len(), 2);
    }
}
