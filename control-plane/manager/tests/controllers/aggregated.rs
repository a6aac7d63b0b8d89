//! Groups that another API server answers for, which is away.

use client::{Path, Resource};
use serde_json::{Value, json};
use view::objects::Namespace;

use super::{Seen, World, gone};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_away_holds_up_what_it_may_have() {
    let mut world = World::new().await;
    let client = world.client.clone();
    let services = Path::raw("/apis/apiregistration.k8s.io/v1/apiservices");
    let service = json!({
        "metadata": {"name": "v1.agg.x"},
        "spec": {
            "group": "agg.x", "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 100,
            "service": {"namespace": "a", "name": "b"}, "insecureSkipTLSVerify": true,
        },
    });
    client.create::<Value>(&services, &service).await.unwrap();
    world
        .apply(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}))
        .await;
    let maps = Resource {
        group: String::new(),
        version: "v1".into(),
        plural: "configmaps".into(),
        namespaced: true,
    };
    // Garbage is collected all the same.
    let map = |name: &str, references: Value| json!({"metadata": {"name": name, "ownerReferences": references}});
    let collection = maps.within("shop");
    let owner = map("owner", json!([]));
    let owner: Value = client.create(&collection, &owner).await.unwrap();
    let references = json!([{
        "apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"],
    }]);
    let owned = map("owned", references);
    client.create::<Value>(&collection, &owned).await.unwrap();
    let options = json!({"propagationPolicy": "Background"});
    client
        .delete(&maps.object("shop", "owner"), &options)
        .await
        .unwrap();
    gone(&client, &maps.object("shop", "owned")).await;

    let left = map("left", json!([]));
    client.create::<Value>(&collection, &left).await.unwrap();
    let mut namespaces = Seen::<Namespace>::new(&client, "");
    let shop = Resource::of::<Namespace>().object("", "shop");
    client.delete(&shop, &Value::Null).await.unwrap();
    gone(&client, &maps.object("shop", "left")).await;
    let expected = json!([
        "NamespaceDeletionDiscoveryFailure",
        "True",
        "DiscoveryFailed",
        "Discovery failed for some groups, 1 failing: unable to retrieve the complete list of server APIs: \
         agg.x/v1: stale GroupVersion discovery: agg.x/v1",
    ]);
    super::within("the condition", async {
        loop {
            let shop: Value = client.get(&shop).await.unwrap();
            let told = &shop["status"]["conditions"][0];
            if json!([
                told["type"],
                told["status"],
                told["reason"],
                told["message"]
            ]) == expected
            {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    let path = Path::raw("/apis/apiregistration.k8s.io/v1/apiservices/v1.agg.x");
    client.delete(&path, &Value::Null).await.unwrap();
    namespaces
        .until("the namespace to be gone", |namespaces| {
            !namespaces.contains_key("shop")
        })
        .await;
    world.stop().await;
}
