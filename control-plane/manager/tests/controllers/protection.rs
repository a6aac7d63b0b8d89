//! Claims, volumes and classes stay while they are in use, and go afterwards.

use super::*;

fn core(plural: &str, namespaced: bool) -> Resource {
    Resource {
        group: String::new(),
        version: "v1".into(),
        plural: plural.into(),
        namespaced,
    }
}

fn claim(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"namespace": "default", "name": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    })
}

fn volume(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
            "csi": {"driver": "example.org", "volumeHandle": name},
            "volumeAttributesClassName": "gold",
        },
    })
}

/// Deletes what is in use, and sees that it waits.
async fn delete_held(client: &Client, path: &Path, finalizer: &str) {
    client.delete(path, &Value::Null).await.unwrap();
    let held: Value = client.get(path).await.unwrap();
    assert_eq!(held["metadata"]["finalizers"], json!([finalizer]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_use_goes_after_its_users() {
    let mut world = World::new().await;
    let client = world.client.clone();
    let claims = core("persistentvolumeclaims", true);
    let volumes = core("persistentvolumes", false);
    let gold = Resource {
        group: "storage.k8s.io".into(),
        ..core("volumeattributesclasses", false)
    }
    .object("", "gold");

    world
        .apply(json!({"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttributesClass",
            "metadata": {"name": "gold"}, "driverName": "example.org", "parameters": {"type": "gp3"}}))
        .await;
    for object in [
        claim("used"),
        claim("idle"),
        volume("bound"),
        volume("idle"),
    ] {
        world.apply(object).await;
    }
    // No node agent is here, but one is told of: the pod waits for it.
    world
        .apply(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}}))
        .await;
    world
        .apply(json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "default", "name": "user"},
            "spec": {
                "nodeName": "n", "containers": [{"name": "c", "image": "i"}],
                "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "used"}}],
            },
        }))
        .await;
    let bound = volumes.object("", "bound");
    let phase = async |phase: &str| {
        let patch = json!({"status": {"phase": phase}});
        let status = bound.clone().subresource("status");
        let done = client.patch::<Value>(&status, PatchKind::Merge, &patch);
        done.await.unwrap();
    };
    phase("Bound").await;

    let used = claims.object("default", "used");
    delete_held(&client, &used, "kubernetes.io/pvc-protection").await;
    delete_held(&client, &bound, "kubernetes.io/pv-protection").await;
    delete_held(&client, &gold, "kubernetes.io/vac-protection").await;
    // The controllers have seen all of that when they have let go of what comes after it.
    for idle in [claims.object("default", "idle"), volumes.object("", "idle")] {
        client.delete(&idle, &Value::Null).await.unwrap();
        gone(&client, &idle).await;
    }
    for held in [&used, &bound, &gold] {
        client.get::<Value>(held).await.unwrap();
    }

    let user = Resource::of::<Pod>().object("default", "user");
    let at_once = json!({"gracePeriodSeconds": 0});
    client.delete(&user, &at_once).await.unwrap();
    gone(&client, &used).await;
    phase("Released").await;
    gone(&client, &bound).await;
    gone(&client, &gold).await;
    world.stop().await;
}

/// A namespace does not wait for its claims for ever, and what was made without a finalizer is given one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_go_with_their_namespace() {
    let mut world = World::new().await;
    let client = world.client.clone();
    world
        .apply(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}))
        .await;
    let mut object = claim("data");
    object["metadata"]["namespace"] = "shop".into();
    world.apply(object).await;
    let data = core("persistentvolumeclaims", true).object("shop", "data");
    let none = json!({"metadata": {"finalizers": null}});
    client
        .patch::<Value>(&data, PatchKind::Merge, &none)
        .await
        .unwrap();
    within("the finalizer", async {
        while client.get::<Value>(&data).await.unwrap()["metadata"]["finalizers"].is_null() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let shop = Resource::of::<Namespace>().object("", "shop");
    client.delete(&shop, &Value::Null).await.unwrap();
    gone(&client, &shop).await;
    world.stop().await;
}

/// What holds a namespace back is told in its status, until nothing does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_tells_what_it_waits_for() {
    let mut world = World::new().await;
    let client = world.client.clone();
    world
        .apply(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "held"}}))
        .await;
    world
        .apply(json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"namespace": "held", "name": "m", "finalizers": ["example.com/hold"]},
        }))
        .await;
    let held = Resource::of::<Namespace>().object("", "held");
    client.delete(&held, &Value::Null).await.unwrap();
    let condition = |namespace: &Value, of: &str| {
        let all = namespace["status"]["conditions"].as_array();
        all.into_iter()
            .flatten()
            .find(|condition| condition["type"] == of)
            .cloned()
            .unwrap_or_default()
    };
    within("the conditions", async {
        loop {
            let namespace = client.get::<Value>(&held).await.unwrap();
            let finalizers = condition(&namespace, "NamespaceFinalizersRemaining");
            if finalizers["status"] == "True" {
                assert_eq!(
                    finalizers["message"],
                    "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances"
                );
                let content = condition(&namespace, "NamespaceContentRemaining");
                assert_eq!(content["reason"], "SomeResourcesRemain");
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    let map = core("configmaps", true).object("held", "m");
    let none = json!({"metadata": {"finalizers": null}});
    client
        .patch::<Value>(&map, PatchKind::Merge, &none)
        .await
        .unwrap();
    gone(&client, &held).await;
    world.stop().await;
}
