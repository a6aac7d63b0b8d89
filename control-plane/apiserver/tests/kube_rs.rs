//! kube-rs against the server, over TLS on loopback with the durable store below: its typed and dynamic requests, its
//! watchers through `kill -9` and compaction, and a controller with a finalizer.

#[path = "support/process.rs"]
mod process;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, Secret, ServiceAccount};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, EvictParams, GroupVersionKind, ListParams,
    ObjectList, Patch, PatchParams, PostParams,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::controller::{Action, Controller};
use kube::runtime::finalizer::{Event as Finalized, finalizer};
use kube::runtime::reflector::{self, Store, reflector};
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::watcher::{self, watcher};
use kube::{Client, Config, Discovery, Resource as _, ResourceExt as _};
use process::{Process, REVISIONS};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

const NAMESPACE: &str = "kube-rs";
/// The longest that anything may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a watch lasts before the next goes on from there.
const WATCH_SECS: u32 = 3;

/// Runs a test against a server of its own; in the process that is to serve, serves.
fn with_server(test: &'static str, run: impl AsyncFnOnce(&mut Process, Client)) {
    process::serve_if_asked();
    let mut server = Process::start(test);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let kubeconfig = Kubeconfig::read_from(server.kubeconfig()).unwrap();
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
        let client = Client::try_from(config.unwrap()).unwrap();
        let namespaces: Api<Namespace> = Api::all(client.clone());
        made(&namespaces, json!({"metadata": {"name": NAMESPACE}})).await;
        run(&mut server, client).await;
    });
}

fn typed<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

async fn made<K>(api: &Api<K>, object: Value) -> K
where
    K: kube::Resource + Clone + DeserializeOwned + serde::Serialize + std::fmt::Debug,
{
    api.create(&PostParams::default(), &typed(object))
        .await
        .unwrap()
}

fn map(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"app": "kube-rs"}}, "data": {"a": "1"}})
}

/// Asserts a refusal with this code and reason.
#[track_caller]
fn refused<T: std::fmt::Debug>(answer: Result<T, kube::Error>, code: u16, reason: &str) {
    match answer {
        Err(kube::Error::Api(status)) if status.code == code && status.reason == reason => {}
        other => panic!("{other:?}, expected {code} {reason}"),
    }
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let found = timeout(PATIENCE, async {
        while !holds().await {
            sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(found.await.is_ok(), "{what}");
}

#[test]
fn requests() {
    with_server("requests", async |_, client| {
        let version = client.apiserver_version().await.unwrap();
        assert_eq!((version.major, version.minor), ("1".into(), "35".into()));
        discovers(&client).await;
        patches(&client).await;
        lists_pages(&client).await;
        subresources(&client).await;
        dynamic(&client).await;
    });
}

/// Every resource is found, whichever way it is looked for, and lists.
async fn discovers(client: &Client) {
    let found = Discovery::new(client.clone());
    let aggregated = found.run_aggregated().await.unwrap();
    let legacy = Discovery::new(client.clone()).run().await.unwrap();
    let names = |found: &Discovery| -> Vec<String> {
        let kinds = found
            .groups()
            .flat_map(|group| group.recommended_resources());
        let mut names: Vec<_> = kinds
            .map(|(kind, _)| format!("{}/{}", kind.api_version, kind.plural))
            .collect();
        names.sort_unstable();
        names
    };
    assert_eq!(names(&aggregated), names(&legacy));
    assert!(names(&legacy).len() > 60, "{:?}", names(&legacy));
    let kinds = aggregated.groups();
    for (kind, can) in kinds.flat_map(|group| group.recommended_resources()) {
        if can.supports_operation("list") {
            let api: Api<DynamicObject> = Api::all_with(client.clone(), &kind);
            let some = ListParams::default().limit(3);
            api.list(&some).await.unwrap();
            api.list_metadata(&some).await.unwrap();
        }
    }
}

async fn patches(client: &Client) {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    let stale = made(&maps, map("one")).await;
    let again = maps.create(&PostParams::default(), &stale).await;
    refused(again, 400, "BadRequest"); // It has a resourceVersion.
    let again = maps
        .create(&PostParams::default(), &typed(map("one")))
        .await;
    refused(again, 409, "AlreadyExists");
    let own = PatchParams::default();
    let merge = Patch::Merge(json!({"data": {"b": "2"}}));
    maps.patch("one", &own, &merge).await.unwrap();
    let strategic = Patch::Strategic(json!({"data": {"a": null, "c": "3"}}));
    let now = maps.patch("one", &own, &strategic).await.unwrap();
    let data = BTreeMap::from([("b", "2"), ("c", "3")].map(|(k, v)| (k.into(), v.into())));
    assert_eq!(now.data, Some(data));
    let late = maps.replace("one", &PostParams::default(), &stale).await;
    refused(late, 409, "Conflict");

    let apply = |value: &str| {
        Patch::Apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"s": value}}))
    };
    let (one, other) = (PatchParams::apply("one"), PatchParams::apply("other"));
    maps.patch("one", &one, &apply("1")).await.unwrap();
    match maps.patch("one", &other, &apply("2")).await {
        Err(kube::Error::Api(status)) => {
            assert_eq!((status.code, &*status.reason), (409, "Conflict"));
            let causes = status.details.unwrap().causes;
            assert_eq!(causes[0].reason, "FieldManagerConflict");
            assert_eq!(causes[0].field, ".data.s");
        }
        taken => panic!("{taken:?}"),
    }
    let forced = maps.patch("one", &other.force(), &apply("2")).await;
    assert_eq!(forced.unwrap().data.unwrap()["s"], "2");
    let labels =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"labels": {"x": "y"}}});
    let labels = Patch::Apply(labels);
    let labelled = maps
        .patch_metadata("one", &PatchParams::apply("labels"), &labels)
        .await;
    assert_eq!(labelled.unwrap().metadata.labels.unwrap()["x"], "y");

    let entry = maps.entry("entry").await.unwrap();
    let mut entry = entry.or_insert(|| typed(map("entry")));
    entry.commit(&PostParams::default()).await.unwrap();
    entry
        .get_mut()
        .data
        .get_or_insert_default()
        .insert("e".into(), "v".into());
    entry.commit(&PostParams::default()).await.unwrap();
    assert_eq!(maps.get("entry").await.unwrap().data.unwrap()["e"], "v");
}

async fn lists_pages(client: &Client) {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    for i in 0..20 {
        made(&maps, map(&format!("page-{i}"))).await;
    }
    let all = ListParams::default().labels("app=kube-rs");
    let whole: ObjectList<ConfigMap> = maps.list(&all).await.unwrap();
    let (mut names, mut token, mut versions) = (Vec::new(), None, Vec::new());
    loop {
        let mut some = all.clone().limit(7);
        some.continue_token = token.take();
        let page = maps.list(&some).await.unwrap();
        versions.push(page.metadata.resource_version);
        names.extend(page.items.iter().map(ConfigMap::name_any));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(next) => token = Some(next),
            None => break,
        }
    }
    let expected: Vec<_> = whole.items.iter().map(ConfigMap::name_any).collect();
    assert_eq!(names, expected);
    assert!(versions.iter().all(|version| *version == versions[0]));
    maps.delete_collection(&DeleteParams::default(), &all)
        .await
        .unwrap();
    assert!(maps.list(&all).await.unwrap().items.is_empty());
}

async fn subresources(client: &Client) {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), NAMESPACE);
    made(&accounts, json!({"metadata": {"name": "robot"}})).await;
    let request: TokenRequest = typed(json!({"spec": {"audiences": []}}));
    let own = PostParams::default();
    let token = accounts.create_token_request("robot", &own, &request).await;
    assert!(token.unwrap().status.unwrap().token.contains('.'));

    let template = json!({
        "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "x"}]},
    });
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), NAMESPACE);
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": template},
    });
    let applied = PatchParams::apply("kube-rs");
    deployments
        .patch("d", &applied, &Patch::Apply(&deployment))
        .await
        .unwrap();
    let more = Patch::Merge(json!({"spec": {"replicas": 3}}));
    let scaled = deployments
        .patch_scale("d", &PatchParams::default(), &more)
        .await;
    assert_eq!(scaled.unwrap().spec.unwrap().replicas, Some(3));
    let status = json!({"apiVersion": "apps/v1", "kind": "Deployment", "status": {"replicas": 2}});
    let told = deployments
        .patch_status("d", &applied, &Patch::Apply(status))
        .await;
    assert_eq!(told.unwrap().status.unwrap().replicas, Some(2));
    deployments.restart("d").await.unwrap();

    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    made(
        &pods,
        json!({"metadata": {"name": "p"}, "spec": template["spec"]}),
    )
    .await;
    pods.evict("p", &EvictParams::default()).await.unwrap();
    let nodes: Api<Node> = Api::all(client.clone());
    made(&nodes, json!({"metadata": {"name": "n"}})).await;
    nodes.cordon("n").await.unwrap();
    let spec = nodes.get("n").await.unwrap().spec.unwrap();
    assert_eq!(spec.unschedulable, Some(true));
}

/// A definition, and objects of it that no type describes.
async fn dynamic(client: &Client) {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let number = json!({"type": "object", "properties": {"n": {"type": "integer", "default": 2}}});
    let name = "boats.harbour.example";
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "spec": {
            "group": "harbour.example", "scope": "Namespaced",
            "names": {"plural": "boats", "singular": "boat", "kind": "Boat"},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.n", "statusReplicasPath": ".status.n"}},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": number, "status": number}}},
            }],
        },
    });
    let applied = PatchParams::apply("kube-rs").force();
    definitions
        .patch(name, &applied, &Patch::Apply(definition))
        .await
        .unwrap();
    let established = conditions::is_crd_established();
    let established = await_condition(definitions, name, established);
    timeout(PATIENCE, established).await.unwrap().unwrap();
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("harbour.example", "v1", "Boat"));
    let boats: Api<DynamicObject> = Api::namespaced_with(client.clone(), NAMESPACE, &kind);
    let boat = DynamicObject::new("b", &kind).data(json!({"spec": {}}));
    let boat = boats.create(&PostParams::default(), &boat).await.unwrap();
    assert_eq!(boat.data, json!({"spec": {"n": 2}}));
    let status = Patch::Merge(json!({"status": {"n": 1}}));
    boats
        .patch_status("b", &PatchParams::default(), &status)
        .await
        .unwrap();
    let scale = boats.get_scale("b").await.unwrap();
    assert_eq!(scale.spec.unwrap().replicas, Some(2));
    assert_eq!(scale.status.unwrap().replicas, 1);
}

#[test]
fn a_controller_with_a_finalizer() {
    let test = "a_controller_with_a_finalizer";
    with_server(test, async |_, client| {
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
        let secrets: Api<Secret> = Api::namespaced(client.clone(), NAMESPACE);
        let cleaned = Arc::new(AtomicUsize::new(0));
        let (own_maps, own_secrets) = (maps.clone(), secrets.clone());
        let reconcile = move |map: Arc<ConfigMap>, cleaned: Arc<AtomicUsize>| {
            let (maps, secrets) = (own_maps.clone(), own_secrets.clone());
            async move {
                let handle = |event| async move {
                    match event {
                        Finalized::Apply(map) => {
                            let map: Arc<ConfigMap> = map;
                            let secret = json!({
                                "apiVersion": "v1", "kind": "Secret",
                                "metadata": {"ownerReferences": [map.controller_owner_ref(&())]},
                                "stringData": map.data,
                            });
                            let applied = PatchParams::apply("controller").force();
                            let name = map.name_any();
                            secrets
                                .patch(&name, &applied, &Patch::Apply(secret))
                                .await?;
                        }
                        Finalized::Cleanup(_) => {
                            cleaned.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                    Ok::<_, kube::Error>(Action::await_change())
                };
                finalizer(&maps, "kube-rs.example/done", map, handle).await
            }
        };
        let again = |_, _: &_, _| Action::requeue(Duration::from_millis(50));
        let controller = Controller::new(
            maps.clone(),
            watcher::Config::default().labels("app=kube-rs"),
        )
        .owns(secrets.clone(), watcher::Config::default())
        .run(reconcile, again, cleaned.clone())
        .for_each(|_| async {});
        let controller = tokio::spawn(controller);

        let map = made(&maps, map("kept")).await;
        let there = async || secrets.get_opt("kept").await.unwrap().is_some();
        until("the secret is made", there).await;
        secrets
            .delete("kept", &DeleteParams::default())
            .await
            .unwrap();
        until("the secret is made again", there).await;
        maps.delete("kept", &DeleteParams::default()).await.unwrap();
        let uid = map.uid().unwrap();
        let deleted = conditions::is_deleted(&uid);
        let deleted = await_condition(maps, "kept", deleted);
        timeout(PATIENCE, deleted).await.unwrap().unwrap();
        assert_eq!(cleaned.load(Ordering::SeqCst), 1);
        controller.abort();
    });
}

#[test]
fn reflectors_through_kill_9_and_compaction() {
    let test = "reflectors_through_kill_9_and_compaction";
    with_server(test, async |server, client| {
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
        for i in 0..30 {
            made(&maps, map(&format!("first-{i}"))).await;
        }
        let listing = watcher::Config::default().page_size(7);
        let streaming = watcher::Config::default().streaming_lists();
        for (round, config) in [listing, streaming].into_iter().enumerate() {
            let (store, writer) = reflector::store::<ConfigMap>();
            let begun = Arc::new(AtomicUsize::new(0));
            let counted = begun.clone();
            let watched = watcher(
                maps.clone(),
                config.labels("app=kube-rs").timeout(WATCH_SECS),
            );
            // An error is told and tried again, so that it does not end the stream.
            let events = reflector(writer, watched.default_backoff()).map(move |event| {
                if let Ok(watcher::Event::Init) = event {
                    counted.fetch_add(1, Ordering::SeqCst);
                }
                Ok::<_, ()>(())
            });
            let mut events = Box::pin(events);
            follow(&mut events, "the state", async || {
                agrees(&maps, &store).await
            })
            .await;
            assert_eq!(begun.load(Ordering::SeqCst), 1);

            change(&maps, &format!("a{round}"), 20).await;
            server.restart();
            change(&maps, &format!("b{round}"), 20).await;
            let caught_up = async || agrees(&maps, &store).await;
            follow(&mut events, "what came around a restart", caught_up).await;

            // The watch comes to its end unheard; then there is more than the server keeps.
            sleep(Duration::from_secs(u64::from(WATCH_SECS) + 1)).await;
            change(&maps, &format!("c{round}"), 2 * REVISIONS).await;
            let before = begun.load(Ordering::SeqCst);
            let anew =
                async || begun.load(Ordering::SeqCst) > before && agrees(&maps, &store).await;
            follow(&mut events, "everything anew after the history ended", anew).await;
            change(&maps, &format!("d{round}"), 10).await;
            follow(&mut events, "what comes then", caught_up).await;
        }
    });
}

/// Takes events until the condition holds.
async fn follow<S>(events: &mut S, what: &str, holds: impl AsyncFnMut() -> bool)
where
    S: futures_util::Stream<Item = Result<(), ()>> + Unpin,
{
    tokio::select! {
        () = until(what, holds) => {}
        _ = events.try_for_each(|()| async { Ok(()) }) => panic!("the events ended"),
    }
}

/// Creates, changes and deletes.
async fn change(maps: &Api<ConfigMap>, prefix: &str, count: u64) {
    for i in 0..count {
        let name = format!("{prefix}-{}", i / 3 * 3);
        match i % 3 {
            0 => {
                until("the server takes writes", async || {
                    let new = typed(map(&name));
                    maps.create(&PostParams::default(), &new).await.is_ok()
                })
                .await;
            }
            1 => {
                let changed = Patch::Merge(json!({"data": {"n": i.to_string()}}));
                maps.patch(&name, &PatchParams::default(), &changed)
                    .await
                    .unwrap();
            }
            _ if i % 2 == 0 => {
                maps.delete(&name, &DeleteParams::default()).await.unwrap();
            }
            _ => {}
        }
    }
}

/// Whether a store holds what the server does.
async fn agrees(maps: &Api<ConfigMap>, store: &Store<ConfigMap>) -> bool {
    let versions = |maps: Vec<ConfigMap>| -> BTreeMap<String, Option<String>> {
        let each = maps.into_iter();
        each.map(|map| (map.name_any(), map.resource_version()))
            .collect()
    };
    let held = store
        .state()
        .iter()
        .map(|map| ConfigMap::clone(map))
        .collect();
    let all = ListParams::default().labels("app=kube-rs");
    match maps.list(&all).await {
        Ok(list) => versions(list.items) == versions(held),
        Err(_) => false,
    }
}
