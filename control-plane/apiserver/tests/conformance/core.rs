//! Conformance of kinds of the core group and of those around it.
#![allow(
    clippy::needless_pass_by_value,
    reason = "a table reads better with values in place"
)]

use std::sync::Arc;

use serde_json::{Value, json};
use storage::memory::Memory;

use super::names;
use crate::support::Server;

const DEFAULT: &str = "/api/v1/namespaces/default";

fn pod(name: &str, change: Value) -> Value {
    let mut spec = json!({"containers": [{"name": "c", "image": "i"}]});
    for (key, value) in change.as_object().unwrap() {
        spec[key] = value.clone();
    }
    json!({"metadata": {"name": name}, "spec": spec})
}

/// [sig-api-machinery] Namespaces [Serial] should apply an update to a Namespace [Conformance]
/// [sig-api-machinery] Namespaces [Serial] should apply changes to a namespace status [Conformance]
/// [sig-api-machinery] Namespaces [Serial] should patch a Namespace [Conformance]
#[tokio::test]
async fn namespaces() {
    let server = Server::new().await;
    server
        .post(
            "/api/v1/namespaces",
            &json!({"metadata": {"name": "nspatchtest"}}),
        )
        .await
        .ok();
    let path = "/api/v1/namespaces/nspatchtest";
    let patched = server
        .patch(
            path,
            "strategic-merge",
            &json!({"metadata": {"labels": {"testLabel": "testValue"}}}),
        )
        .await
        .ok();
    assert_eq!(patched["metadata"]["labels"]["testLabel"], "testValue");
    assert_eq!(
        patched["metadata"]["labels"]["kubernetes.io/metadata.name"],
        "nspatchtest"
    );
    let condition = |kind: &str| json!({"type": kind, "status": "True", "reason": "E2E", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let status = json!({"metadata": {"annotations": {"e2e-patched-ns-status": "x"}}, "status": {"conditions": [condition("StatusPatch")]}});
    let patched = server
        .patch(&format!("{path}/status"), "merge", &status)
        .await
        .ok();
    assert_eq!(patched["status"]["conditions"][0]["type"], "StatusPatch");
    let mut whole = server.get(path).await.ok();
    whole["status"]["conditions"]
        .as_array_mut()
        .unwrap()
        .push(condition("StatusUpdate"));
    let updated = server.put(&format!("{path}/status"), &whole).await.ok();
    assert_eq!(updated["status"]["conditions"].as_array().unwrap().len(), 2);
    whole = server.get(path).await.ok();
    whole["metadata"]["labels"]["updated"] = "y".into();
    assert_eq!(
        server.put(path, &whole).await.ok()["metadata"]["labels"]["updated"],
        "y"
    );
}

/// [sig-node] ConfigMap should fail to create ConfigMap with empty key [Conformance]
/// [sig-node] Secrets should fail to create secret due to empty secret key [Conformance]
#[tokio::test]
async fn empty_keys() {
    let server = Server::new().await;
    let map = json!({"metadata": {"name": "m"}, "data": {"": "value-1"}});
    assert_eq!(
        server
            .post(&format!("{DEFAULT}/configmaps"), &map)
            .await
            .code,
        422
    );
    let secret = json!({"metadata": {"name": "s"}, "data": {"": "dmFsdWUtMQ=="}});
    assert_eq!(
        server
            .post(&format!("{DEFAULT}/secrets"), &secret)
            .await
            .code,
        422
    );
}

/// [sig-node] ConfigMap should update ConfigMap successfully [NodeConformance] [Conformance]
/// [sig-storage] ConfigMap should be immutable if `immutable` field is set [Conformance]
/// [sig-storage] Secrets should be immutable if `immutable` field is set [Conformance]
#[tokio::test]
async fn immutable() {
    let server = Server::new().await;
    for plural in ["configmaps", "secrets"] {
        let collection = format!("{DEFAULT}/{plural}");
        let path = format!("{collection}/immutable");
        let value = |text: &str| {
            if plural == "secrets" {
                json!({"k": format!("{text}aa")})
            } else {
                json!({"k": text})
            }
        };
        let made = server
            .post(
                &collection,
                &json!({"metadata": {"name": "immutable"}, "data": value("aa")}),
            )
            .await
            .ok();
        let mut new = made.clone();
        new["data"] = value("bb");
        new["metadata"]
            .as_object_mut()
            .unwrap()
            .remove("resourceVersion");
        assert_eq!(server.put(&path, &new).await.ok()["data"], value("bb"));
        new["immutable"] = true.into();
        assert_eq!(server.put(&path, &new).await.ok()["immutable"], true);
        for change in [
            json!({"data": value("cc")}),
            json!({"immutable": false}),
            json!({"immutable": null}),
        ] {
            assert_eq!(
                server.patch(&path, "merge", &change).await.code,
                422,
                "{plural} {change}"
            );
        }
        server
            .patch(&path, "merge", &json!({"metadata": {"labels": {"a": "b"}}}))
            .await
            .ok();
        server.delete(&path).await.ok();
    }
}

/// [sig-node] RuntimeClass should reject a Pod requesting a non-existent RuntimeClass [NodeConformance] [Conformance]
/// [sig-node] RuntimeClass should reject a Pod requesting a deleted RuntimeClass [NodeConformance] [Conformance]
#[tokio::test]
async fn runtime_classes() {
    let server = Server::new().await;
    let pods = format!("{DEFAULT}/pods");
    let named = |name: &str| pod("p", json!({"runtimeClassName": name}));
    let refused = server.post(&pods, &named("nonexistent")).await.refused(403);
    assert!(
        refused.contains("pod rejected: RuntimeClass \"nonexistent\" not found"),
        "{refused}"
    );
    let classes = "/apis/node.k8s.io/v1/runtimeclasses";
    server
        .post(
            classes,
            &json!({"metadata": {"name": "deleted"}, "handler": "test-handler"}),
        )
        .await
        .ok();
    server
        .post(&format!("{pods}?dryRun=All"), &named("deleted"))
        .await
        .ok();
    server.delete(&format!("{classes}/deleted")).await.ok();
    assert_eq!(server.post(&pods, &named("deleted")).await.code, 403);
}

/// [sig-node] Pods Extended Pods Set QOS Class should be set on Pods with matching resource requests and limits for memory and cpu [Conformance]
#[tokio::test]
async fn qos_class() {
    let server = Server::new().await;
    let some = json!({"cpu": "100m", "memory": "100Mi"});
    let same = json!({"containers": [{"name": "c", "image": "i", "resources": {"requests": some, "limits": some}}]});
    let made = server
        .post(&format!("{DEFAULT}/pods"), &pod("p", same))
        .await
        .ok();
    assert_eq!(made["status"]["qosClass"], "Guaranteed");
}

/// [sig-node] Sysctls [LinuxOnly] [NodeConformance] should reject invalid sysctls [Conformance]
#[tokio::test]
async fn bad_sysctls() {
    let server = Server::new().await;
    let sysctls: Vec<Value> = ["foo-", "kernel.shmmax", "safe-and-unsafe", "bar.."]
        .iter()
        .map(|name| json!({"name": name, "value": "100000000"}))
        .collect();
    let bad = pod("p", json!({"securityContext": {"sysctls": sysctls}}));
    let refused = server
        .post(&format!("{DEFAULT}/pods"), &bad)
        .await
        .refused(422);
    for part in ["Invalid value: \"foo-\"", "Invalid value: \"bar..\""] {
        assert!(refused.contains(part), "{refused}");
    }
    assert!(
        !refused.contains("safe-and-unsafe") && !refused.contains("kernel.shmmax"),
        "{refused}"
    );
}

/// [sig-storage] CSIInlineVolumes should support CSIVolumeSource in Pod API [Conformance]
#[tokio::test]
async fn csi_volumes() {
    let server = Server::new().await;
    let volume = json!({"name": "v", "csi": {"driver": "e2e.example.com", "readOnly": true}});
    let body = pod("p", json!({"volumes": [volume]}));
    let made = server.post(&format!("{DEFAULT}/pods"), &body).await.ok();
    assert_eq!(made["spec"]["volumes"][0], volume);
    assert_eq!(names(&server.get("/api/v1/pods").await.ok()), ["p"]);
    server
        .delete(&format!("{DEFAULT}/pods?labelSelector="))
        .await
        .ok();
}

/// [sig-scheduling] LimitRange should create a LimitRange with defaults and ensure pod has those defaults applied. [Conformance]
#[tokio::test]
async fn limit_ranges() {
    let server = Server::new().await;
    let range = json!({"metadata": {"name": "limit-range"}, "spec": {"limits": [{
        "type": "Container", "min": {"cpu": "50m", "memory": "100Mi"}, "max": {"cpu": "500m", "memory": "500Mi"},
        "default": {"cpu": "500m", "memory": "500Mi"}, "defaultRequest": {"cpu": "100m", "memory": "200Mi"},
    }]}});
    server
        .post(&format!("{DEFAULT}/limitranges"), &range)
        .await
        .ok();
    let pods = format!("{DEFAULT}/pods");
    let with = |name: &str, resources: Value| {
        pod(
            name,
            json!({"containers": [{"name": "c", "image": "i", "resources": resources}]}),
        )
    };
    let made = server.post(&pods, &with("none", json!({}))).await.ok();
    assert_eq!(
        made["spec"]["containers"][0]["resources"],
        json!({"requests": {"cpu": "100m", "memory": "200Mi"}, "limits": {"cpu": "500m", "memory": "500Mi"}})
    );
    let made = server
        .post(
            &pods,
            &with(
                "part",
                json!({"requests": {"cpu": "300m"}, "limits": {"memory": "300Mi"}}),
            ),
        )
        .await
        .ok();
    assert_eq!(
        made["spec"]["containers"][0]["resources"],
        json!({"requests": {"cpu": "300m", "memory": "300Mi"}, "limits": {"cpu": "500m", "memory": "300Mi"}})
    );
    for (name, resources) in [
        ("less", json!({"requests": {"cpu": "10m"}})),
        ("more", json!({"limits": {"cpu": "600m"}})),
    ] {
        assert_eq!(
            server.post(&pods, &with(name, resources)).await.code,
            403,
            "{name}"
        );
    }
}

/// [sig-network] API Server should provide secure master service [Conformance]
/// [sig-network] API Server should have Endpoints and EndpointSlices pointing to API Server [Conformance]
#[tokio::test]
async fn the_servers_own_service() {
    let server = Server::with(Arc::new(Memory::new()), |config| {
        // Nothing is sent there.
        config.advertise_address = Some([192, 0, 2, 1].into());
    })
    .await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let app = server.app.clone();
    let serving = tokio::spawn(async move { app.serve(listener, std::future::pending()).await });
    super::eventually("the endpoints are there", async || {
        server
            .get(&format!("{DEFAULT}/endpoints/kubernetes"))
            .await
            .code
            == 200
    })
    .await;
    super::eventually("the slice is there", async || {
        server
            .get("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes")
            .await
            .code
            == 200
    })
    .await;
    let service = server
        .get(&format!("{DEFAULT}/services/kubernetes"))
        .await
        .ok();
    assert_eq!(service["spec"]["ports"][0]["port"], 443);
    assert_eq!(service["spec"]["ports"][0]["name"], "https");
    let endpoints = server
        .get(&format!("{DEFAULT}/endpoints/kubernetes"))
        .await
        .ok();
    assert_eq!(endpoints["subsets"][0]["addresses"][0]["ip"], "192.0.2.1");
    assert_eq!(endpoints["subsets"][0]["ports"][0]["port"], port);
    let slice = server
        .get("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes")
        .await
        .ok();
    assert_eq!(slice["endpoints"][0]["addresses"], json!(["192.0.2.1"]));
    assert_eq!(slice["ports"][0]["name"], "https");
    serving.abort();
}

/// [sig-network] Services should find a service from listing all namespaces [Conformance]
/// [sig-network] Services should delete a collection of services [Conformance]
#[tokio::test]
async fn services() {
    let server = Server::new().await;
    let services = format!("{DEFAULT}/services");
    for i in 0..3 {
        let body = json!({"metadata": {"name": format!("e2e-svc-{i}"), "labels": {"e2e": "x"}}, "spec": {"ports": [{"port": 80}]}});
        server.post(&services, &body).await.ok();
    }
    assert_eq!(
        names(&server.get("/api/v1/services").await.ok()),
        ["e2e-svc-0", "e2e-svc-1", "e2e-svc-2", "kubernetes"]
    );
    server
        .delete(&format!("{services}?labelSelector=e2e%3Dx"))
        .await
        .ok();
    assert_eq!(
        names(&server.get("/api/v1/services").await.ok()),
        ["kubernetes"]
    );
}

/// [sig-instrumentation] Events API should delete a collection of events [Conformance]
/// [sig-instrumentation] Events should delete a collection of events [Conformance]
#[tokio::test]
async fn events() {
    let server = Server::new().await;
    let old = |name: &str| json!({"metadata": {"name": name, "labels": {"set": "x"}}, "reason": "Test", "type": "Normal", "involvedObject": {"namespace": "default"}});
    let new = |name: &str| {
        json!({
            "metadata": {"name": name, "labels": {"set": "x"}}, "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "c",
            "reportingInstance": "i", "action": "Do", "reason": "Test", "type": "Normal", "regarding": {"namespace": "default"},
        })
    };
    let (core, group) = (
        format!("{DEFAULT}/events"),
        "/apis/events.k8s.io/v1/namespaces/default/events".to_owned(),
    );
    for (path, other) in [(&core, &group), (&group, &core)] {
        for i in 0..3 {
            server.post(&core, &old(&format!("old-{i}"))).await.ok();
            server.post(&group, &new(&format!("new-{i}"))).await.ok();
        }
        server
            .delete(&format!("{path}?labelSelector=set%3Dx"))
            .await
            .ok();
        assert!(names(&server.get(other).await.ok()).is_empty());
    }
}

/// [sig-auth] ServiceAccounts should update a ServiceAccount [Conformance]
#[tokio::test]
async fn service_accounts() {
    let server = Server::new().await;
    let path = format!("{DEFAULT}/serviceaccounts");
    let made = server
        .post(
            &path,
            &json!({"metadata": {"name": "e2e-sa"}, "automountServiceAccountToken": false}),
        )
        .await
        .ok();
    let mut new = made.clone();
    new["automountServiceAccountToken"] = true.into();
    assert_eq!(
        server.put(&format!("{path}/e2e-sa"), &new).await.ok()["automountServiceAccountToken"],
        true
    );
}

/// [sig-auth] SubjectReview should support SubjectReview API operations [Conformance]
#[tokio::test]
async fn reviews() {
    let server = Server::new().await;
    let group = "/apis/authorization.k8s.io/v1";
    let user = "system:serviceaccount:default:e2e";
    let asked = json!({"resourceAttributes": {"namespace": "default", "verb": "list", "resource": "configmaps", "version": "v1"}, "user": user});
    let review = server
        .post(
            &format!("{group}/subjectaccessreviews"),
            &json!({"spec": asked}),
        )
        .await
        .ok();
    assert_eq!(review["status"]["allowed"], false);
    let path = format!("{group}/namespaces/default/localsubjectaccessreviews");
    let review = server
        .post(
            &path,
            &json!({"metadata": {"namespace": "default"}, "spec": asked}),
        )
        .await
        .ok();
    assert_eq!(review["status"]["allowed"], false);
    let headers = [
        ("impersonate-user", user),
        ("content-type", "application/json"),
    ];
    let denied = server
        .send("GET", &format!("{DEFAULT}/configmaps"), &headers, "")
        .await;
    assert_eq!(denied.code, 403);
}

/// [sig-apps] CronJob should support CronJob API operations [Conformance]
#[tokio::test]
async fn cron_jobs() {
    let server = Server::new().await;
    let path = "/apis/batch/v1/namespaces/default/cronjobs";
    let template = json!({"spec": {"template": {"spec": {"restartPolicy": "OnFailure", "containers": [{"name": "c", "image": "i"}]}}}});
    let job = json!({"metadata": {"name": "e2e", "labels": {"special-label": "x"}}, "spec": {"schedule": "* */1 * * ?", "concurrencyPolicy": "Allow", "suspend": true, "jobTemplate": template}});
    server.post(path, &job).await.ok();
    let one = format!("{path}/e2e");
    let now = "2026-01-01T00:00:00Z";
    let patched = server.patch(&format!("{one}/status"), "merge", &json!({"metadata": {"annotations": {"patchedstatus": "true"}}, "status": {"lastScheduleTime": now}})).await.ok();
    assert_eq!(patched["status"]["lastScheduleTime"], now);
    assert_eq!(patched["metadata"]["annotations"]["patchedstatus"], "true");
    let mut whole = server.get(&one).await.ok();
    whole["status"]["lastScheduleTime"] = "2026-01-02T00:00:00Z".into();
    assert_eq!(
        server.put(&format!("{one}/status"), &whole).await.ok()["status"]["lastScheduleTime"],
        "2026-01-02T00:00:00Z"
    );
    server
        .delete(&format!("{path}?labelSelector=special-label%3Dx"))
        .await
        .ok();
    assert!(names(&server.get("/apis/batch/v1/cronjobs").await.ok()).is_empty());
}

/// [sig-storage] VolumeAttachment Conformance should run through the lifecycle of a VolumeAttachment [Conformance]
#[tokio::test]
async fn volume_attachments() {
    let server = Server::new().await;
    let path = "/apis/storage.k8s.io/v1/volumeattachments";
    let one = |name: &str| json!({"metadata": {"name": name, "labels": {"e2e": "x"}}, "spec": {"attacher": "e2e-test.example.com", "nodeName": "n", "source": {"persistentVolumeName": "pv"}}});
    for name in ["va1", "va2"] {
        server.post(path, &one(name)).await.ok();
    }
    let patched = server
        .patch(
            &format!("{path}/va1"),
            "merge",
            &json!({"metadata": {"labels": {"va1": "patched"}}}),
        )
        .await
        .ok();
    assert_eq!(patched["metadata"]["labels"]["va1"], "patched");
    assert_eq!(
        names(
            &server
                .get(&format!("{path}?labelSelector=va1%3Dpatched"))
                .await
                .ok()
        ),
        ["va1"]
    );
    server.delete(&format!("{path}/va1")).await.ok();
    server
        .delete(&format!("{path}?labelSelector=e2e%3Dx"))
        .await
        .ok();
    assert!(names(&server.get(path).await.ok()).is_empty());
}
