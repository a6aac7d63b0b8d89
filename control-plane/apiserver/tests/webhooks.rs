//! Admission webhooks over real HTTPS: who is asked, what is asked, and what the answers do.
#![allow(
    clippy::needless_pass_by_value,
    reason = "a table reads better with values in place"
)]

mod support;

use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa};
use serde_json::{Value, json};
use support::Server;
use support::hook::{Hook, patch, review};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";

fn map(name: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"a": "1"}})
}

/// A configuration of one webhook for ConfigMaps, with these changes.
fn configuration(kind: &str, name: &str, client: Value, change: Value) -> Value {
    let mut webhook = json!({
        "name": format!("{name}.example.com"), "clientConfig": client, "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "rules": [{"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}],
    });
    for (key, value) in change.as_object().unwrap() {
        webhook[key] = value.clone();
    }
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind,
        "metadata": {"name": name}, "webhooks": [webhook],
    })
}

async fn register(server: &Server, mutating: bool, name: &str, client: Value, change: Value) {
    let (kind, plural) = if mutating {
        (
            "MutatingWebhookConfiguration",
            "mutatingwebhookconfigurations",
        )
    } else {
        (
            "ValidatingWebhookConfiguration",
            "validatingwebhookconfigurations",
        )
    };
    let body = configuration(kind, name, client, change);
    server.post(&format!("{GROUP}/{plural}"), &body).await.ok();
}

#[tokio::test]
async fn a_webhook_refuses_and_says_why() {
    let server = Server::new().await;
    let hook = Hook::start(&[], |_, question| {
        let request = &question["request"];
        let name = request["name"].as_str().unwrap();
        let told = match name {
            "plain" => json!({"allowed": false}),
            "told" => json!({"allowed": false, "status": {"message": "not this one", "code": 418, "reason": "Teapot"}}),
            "reason" => json!({"allowed": false, "status": {"reason": "because"}}),
            "warned" => json!({"warnings": ["mind\nthe gap", ""]}),
            _ => json!({}),
        };
        review(question, told)
    })
    .await;
    register(&server, false, "guard", hook.client("/check"), json!({})).await;
    for (name, code, message) in [
        (
            "plain",
            400,
            "admission webhook \"guard.example.com\" denied the request without explanation",
        ),
        (
            "told",
            418,
            "admission webhook \"guard.example.com\" denied the request: not this one",
        ),
        (
            "reason",
            400,
            "admission webhook \"guard.example.com\" denied the request: because",
        ),
    ] {
        let reply = server.post(MAPS, &map(name)).await;
        assert_eq!(reply.refused(code), message);
        assert_eq!(server.get(&format!("{MAPS}/{name}")).await.code, 404);
    }
    assert_eq!(
        server.post(MAPS, &map("told")).await.json()["reason"],
        "Teapot"
    );
    let warned = server.post(MAPS, &map("warned")).await;
    warned.ok();
    assert_eq!(warned.header("warning"), "299 - \"mind the gap\"");

    // What is asked.
    let question = hook.last();
    assert_eq!(question["apiVersion"], "admission.k8s.io/v1");
    let request = &question["request"];
    let configmaps = json!({"group": "", "version": "v1", "resource": "configmaps"});
    let kind = json!({"group": "", "version": "v1", "kind": "ConfigMap"});
    for (key, expected) in [
        ("kind", kind.clone()),
        ("requestKind", kind),
        ("resource", configmaps.clone()),
        ("requestResource", configmaps),
        ("namespace", json!("default")),
        ("name", json!("warned")),
        ("operation", json!("CREATE")),
        ("oldObject", json!(null)),
        ("dryRun", json!(false)),
        (
            "options",
            json!({"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"}),
        ),
    ] {
        assert_eq!(request[key], expected, "{key}");
    }
    assert_eq!(request["object"]["data"]["a"], "1");
    assert_eq!(request["object"]["kind"], "ConfigMap");
    assert_eq!(request["userInfo"]["groups"][0], "system:masters");

    // Updates and deletions, and trials.
    let path = format!("{MAPS}/warned");
    server
        .patch(
            &format!("{path}?dryRun=All"),
            "merge",
            &json!({"data": {"a": "2"}}),
        )
        .await
        .ok();
    let request = hook.last()["request"].clone();
    assert_eq!(
        (&request["operation"], &request["dryRun"]),
        (&json!("UPDATE"), &json!(true))
    );
    assert_eq!(
        (
            &request["oldObject"]["data"]["a"],
            &request["object"]["data"]["a"]
        ),
        (&json!("1"), &json!("2"))
    );
    assert_eq!(request["options"]["kind"], "PatchOptions");
    server.delete(&path).await.ok();
    let request = hook.last()["request"].clone();
    assert_eq!(
        (&request["operation"], &request["object"]),
        (&json!("DELETE"), &json!(null))
    );
    assert_eq!(request["oldObject"]["data"]["a"], "1");

    // Nobody is asked about those who ask, or they could not be removed.
    let asked = hook.count();
    let all = json!({"rules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]}]});
    register(&server, false, "all", hook.client("/"), all).await;
    server
        .delete(&format!("{GROUP}/validatingwebhookconfigurations/all"))
        .await
        .ok();
    assert_eq!(hook.count(), asked);
}

#[tokio::test]
async fn webhooks_change_objects_in_turn() {
    let server = Server::new().await;
    // Each adds its number to what it saw; the first is asked again when another changed something.
    let hook = Hook::start(&[], |path, question| {
        let object = &question["request"]["object"];
        if object.is_null() {
            return review(question, json!({}));
        }
        let own = path.split(['/', '?']).nth(1).unwrap();
        let seen = object["data"]["seen"].as_str().unwrap_or("");
        review(
            question,
            patch(&json!([{"op": "add", "path": "/data/seen", "value": format!("{seen}{own}")}])),
        )
    })
    .await;
    register(&server, true, "b", hook.client("/2"), json!({})).await;
    register(
        &server,
        true,
        "a",
        hook.client("/1"),
        json!({"reinvocationPolicy": "IfNeeded"}),
    )
    .await;
    let made = server.post(MAPS, &map("m")).await.ok();
    assert_eq!(made["data"]["seen"], "121");
    // What a webhook wrote is nobody's.
    let owned = made["metadata"]["managedFields"].to_string();
    assert!(!owned.contains("seen"), "{owned}");
    let asked = hook.count();
    server.delete(&format!("{MAPS}/m")).await.ok();
    assert_eq!(hook.count(), asked + 2);
}

#[tokio::test]
async fn defaults_and_validation_follow_what_webhooks_do() {
    let server = Server::new().await;
    let hook = Hook::start(&[], |_, question| {
        let name = question["request"]["object"]["metadata"]["name"].clone();
        let bad = json!([{"op": "replace", "path": "/spec/containers/0/image", "value": ""}]);
        let good = json!([{"op": "add", "path": "/spec/initContainers", "value": [{"name": "init", "image": "i"}]}]);
        review(question, patch(if name == "bad" { &bad } else { &good }))
    })
    .await;
    let rules = json!({"rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]});
    register(&server, true, "pods", hook.client("/"), rules).await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod = |name: &str| json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "x"}]}});
    let made = server.post(pods, &pod("good")).await.ok();
    let init = &made["spec"]["initContainers"][0];
    assert_eq!(
        (
            &init["terminationMessagePath"],
            &init["terminationMessagePolicy"]
        ),
        (&json!("/dev/termination-log"), &json!("File"))
    );
    let refused = server.post(pods, &pod("bad")).await.refused(422);
    assert!(
        refused.contains("spec.containers[0].image: Required value"),
        "{refused}"
    );
}

#[tokio::test]
async fn failures_are_told_or_ignored() {
    let server = Server::new().await;
    let hook = Hook::start(&[], |path, question| {
        match path.split('?').next().unwrap() {
            "/slow" => std::thread::sleep(Duration::from_secs(3)),
            "/broken" => return (500, json!("out of order")),
            "/nonsense" => return (200, json!({"kind": "Pod"})),
            "/other" => return (200, json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": {"uid": "x", "allowed": true}})),
            "/badpatch" => return review(question, patch(&json!([{"op": "remove", "path": "/nope"}]))),
            "/badpath" => return review(question, patch(&json!([{"op": "remove", "path": "/no/pe"}]))),
            _ => {}
        }
        review(question, json!({}))
    })
    .await;
    let stranger = Hook::start(&[], |_, question| review(question, json!({}))).await;
    let mut untrusted = hook.client("/");
    untrusted["caBundle"] = stranger.ca_bundle.clone().into();
    let closed = json!({"url": "https://127.0.0.1:1/", "caBundle": hook.ca_bundle});
    let url = |path: &str| format!("Post \"https://{}{path}?timeout=1s\"", hook.address);
    #[rustfmt::skip]
    let cases = [
        (hook.client("/slow"), format!("{}: context deadline exceeded", url("/slow"))),
        (hook.client("/broken"), "an error on the server (\"\\\"out of order\\\"\") has prevented the request from succeeding".to_owned()),
        (hook.client("/nonsense"), "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got /, Kind=Pod".to_owned()),
        (hook.client("/other"), "expected response.uid=".to_owned()),
        (untrusted, "tls: ".to_owned()),
        (closed, "dial tcp 127.0.0.1:1: connect: connection refused".to_owned()),
    ];
    for (client, why) in cases {
        let one = json!({"timeoutSeconds": 1});
        register(&server, false, "f", client.clone(), one).await;
        let begun = Instant::now();
        let refused = server.post(MAPS, &map("m")).await.refused(500);
        assert!(begun.elapsed() < Duration::from_secs(3), "{why}");
        let head = "Internal error occurred: failed calling webhook \"f.example.com\": ";
        assert!(
            refused.starts_with(head) && refused.contains(&why),
            "{refused} {why}"
        );
        let path = format!("{GROUP}/validatingwebhookconfigurations/f");
        let ignored =
            json!([{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Ignore"}]);
        server.patch(&path, "json", &ignored).await.ok();
        server
            .post(&format!("{MAPS}?dryRun=All"), &map("m"))
            .await
            .ok();
        server.delete(&path).await.ok();
    }
    // It answered: its failurePolicy is not asked.
    let ignore = || json!({"failurePolicy": "Ignore"});
    for (path, why) in [
        (
            "/badpatch",
            "error in remove for path: '/nope': Unable to remove nonexistent key: nope: missing value",
        ),
        (
            "/badpath",
            "remove operation does not apply: doc is missing path: \"/no/pe\": missing value",
        ),
    ] {
        register(&server, true, "p", hook.client(path), ignore()).await;
        let refused = server.post(MAPS, &map("m")).await.refused(500);
        assert_eq!(refused, format!("Internal error occurred: {why}"));
        let path = format!("{GROUP}/mutatingwebhookconfigurations/p");
        server.delete(&path).await.ok();
    }
    register(&server, false, "p", hook.client("/badpatch"), json!({})).await;
    let refused = server.post(MAPS, &map("m")).await.refused(500);
    assert!(
        refused.ends_with(": validating webhook may not return response.patch"),
        "{refused}"
    );
}

/// As `openssl req -x509` makes it: one that may sign others.
fn authority(name: &str) -> CertificateParams {
    let mut certificate = CertificateParams::new(vec![name.to_owned()]).unwrap();
    certificate.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    certificate
}

#[tokio::test]
async fn a_webhook_is_believed_that_shows_the_certificate_of_its_bundle() {
    let server = Server::new().await;
    let valid = || authority("127.0.0.1");
    let ago = time::OffsetDateTime::now_utc() - time::Duration::days(1);
    let mut expired = valid();
    (expired.not_before, expired.not_after) = (ago - time::Duration::days(1), ago);
    let mut for_clients = valid();
    for_clients.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let cases = [
        (valid(), None),
        (authority("127.0.0.2"), Some("tls: ")),
        (expired, Some("tls: ")),
        (for_clients, Some("tls: ")),
    ];
    for (certificate, refused) in cases {
        let hook = Hook::show(certificate, |_, question| {
            review(question, json!({"allowed": true}))
        })
        .await;
        register(&server, false, "f", hook.client("/"), json!({})).await;
        let written = server.post(&format!("{MAPS}?dryRun=All"), &map("m")).await;
        match refused {
            None => {
                written.ok();
            }
            Some(why) => {
                let refused = written.refused(500);
                assert!(refused.contains(why), "{refused}");
            }
        }
        let path = format!("{GROUP}/validatingwebhookconfigurations/f");
        server.delete(&path).await.ok();
    }
    // Another authority of the same kind is nobody.
    let hook = Hook::show(valid(), |_, question| {
        review(question, json!({"allowed": true}))
    })
    .await;
    let other = Hook::show(valid(), |_, question| review(question, json!({}))).await;
    let mut client = hook.client("/");
    client["caBundle"] = other.ca_bundle.clone().into();
    register(&server, false, "f", client, json!({})).await;
    server.post(MAPS, &map("m")).await.refused(500);
}

#[tokio::test]
async fn selectors_conditions_and_equivalent_versions() {
    let server = Server::new().await;
    let hook = Hook::start(&[], |_, question| {
        review(question, json!({"allowed": false}))
    })
    .await;
    let namespace = json!({"metadata": {"name": "prod", "labels": {"env": "prod"}}});
    server.post("/api/v1/namespaces", &namespace).await.ok();
    let guarded = json!({
        "namespaceSelector": {"matchLabels": {"env": "prod"}},
        "objectSelector": {"matchExpressions": [{"key": "free", "operator": "DoesNotExist"}]},
        "matchConditions": [
            {"name": "skip", "expression": "!has(object.data) || !('skip' in object.data)"},
            {"name": "who", "expression": "'system:masters' in request.userInfo.groups"},
        ],
    });
    register(&server, false, "guard", hook.client("/"), guarded).await;
    let maps = "/api/v1/namespaces/prod/configmaps";
    server.post(MAPS, &map("a")).await.ok();
    assert_eq!(server.post(maps, &map("a")).await.code, 400);
    server
        .post(
            maps,
            &json!({"metadata": {"name": "b", "labels": {"free": "y"}}}),
        )
        .await
        .ok();
    server
        .post(
            maps,
            &json!({"metadata": {"name": "c"}, "data": {"skip": "y"}}),
        )
        .await
        .ok();

    // An expression that fails refuses, or is passed over.
    let failing =
        json!({"matchConditions": [{"name": "x", "expression": "object.nope.nope == 1"}]});
    register(&server, false, "failing", hook.client("/"), failing).await;
    let refused = server.post(MAPS, &map("d")).await.refused(403);
    assert!(
        refused.contains("is forbidden: expression 'object.nope.nope == 1' resulted in error: "),
        "{refused}"
    );
    let bad = configuration(
        "ValidatingWebhookConfiguration",
        "bad",
        hook.client("/"),
        json!({"matchConditions": [{"name": "x", "expression": "nope ==", }, {"name": "y", "expression": "1"}]}),
    );
    let refused = server
        .post(&format!("{GROUP}/validatingwebhookconfigurations"), &bad)
        .await
        .refused(422);
    assert!(
        refused.contains("webhooks[0].matchConditions[0].expression: Invalid value"),
        "{refused}"
    );

    // A rule for one version catches requests for the other, and the webhook sees the version of its rule.
    let scalers = json!({"rules": [{"operations": ["CREATE"], "apiGroups": ["autoscaling"], "apiVersions": ["v1"], "resources": ["horizontalpodautoscalers"]}]});
    register(&server, false, "scalers", hook.client("/"), scalers).await;
    let scaler = json!({"metadata": {"name": "h"}, "spec": {"maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"},
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}}]}});
    let path = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
    assert_eq!(server.post(path, &scaler).await.code, 400);
    let request = hook.last()["request"].clone();
    assert_eq!(
        (
            &request["resource"]["version"],
            &request["requestResource"]["version"]
        ),
        (&json!("v1"), &json!("v2"))
    );
    assert_eq!(request["object"]["apiVersion"], "autoscaling/v1");
    assert_eq!(
        request["object"]["spec"]["targetCPUUtilizationPercentage"],
        70
    );
}

#[tokio::test]
async fn who_connects_to_a_pod_can_be_refused() {
    let server = Server::new().await;
    let hook = Hook::start(&[], |_, question| {
        review(question, json!({"allowed": false, "status": {"message": "attaching to pod 'to-be-attached-pod' is not allowed"}}))
    })
    .await;
    let rules = json!({"rules": [{"operations": ["CONNECT"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods/attach", "pods/exec"]}]});
    register(&server, false, "attach", hook.client("/"), rules).await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod = json!({"metadata": {"name": "to-be-attached-pod"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    server.post(pods, &pod).await.ok();
    let path = format!("{pods}/to-be-attached-pod/attach?container=c&stdin=true");
    let refused = server.get(&path).await.refused(400);
    assert!(
        refused
            .ends_with("denied the request: attaching to pod 'to-be-attached-pod' is not allowed"),
        "{refused}"
    );
    let request = hook.last()["request"].clone();
    assert_eq!(
        (&request["operation"], &request["subResource"]),
        (&json!("CONNECT"), &json!("attach"))
    );
    assert_eq!(
        request["object"],
        json!({"kind": "PodAttachOptions", "apiVersion": "v1", "container": "c", "stdin": true})
    );
    assert_eq!(request["kind"]["kind"], "PodAttachOptions");
    let exec = format!("{pods}/to-be-attached-pod/exec?command=sh&command=-c");
    assert_eq!(server.get(&exec).await.code, 400);
    assert_eq!(
        hook.last()["request"]["object"]["command"],
        json!(["sh", "-c"])
    );
}

#[tokio::test]
async fn a_webhook_behind_a_service() {
    let server = Server::new().await;
    let hook = Hook::start(&["check.default.svc"], |_, question| {
        review(
            question,
            json!({"allowed": false, "status": {"message": "found"}}),
        )
    })
    .await;
    let client = json!({"service": {"name": "check", "namespace": "default", "port": 8443, "path": "/x"}, "caBundle": hook.ca_bundle});
    register(&server, false, "svc", client, json!({})).await;
    let refused = server.post(MAPS, &map("m")).await.refused(500);
    assert!(
        refused.ends_with(
            "Post \"https://check.default.svc:8443/x?timeout=10s\": service \"check\" not found"
        ),
        "{refused}"
    );
    let service = json!({"metadata": {"name": "check"}, "spec": {"ports": [{"port": 8443}]}});
    server
        .post("/api/v1/namespaces/default/services", &service)
        .await
        .ok();
    let refused = server.post(MAPS, &map("m")).await.refused(500);
    assert!(
        refused.ends_with("no endpoints available for service \"check\""),
        "{refused}"
    );
    // No client can write an endpoint on loopback.
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "check-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "check"}},
        "endpoints": [{"addresses": ["127.0.0.1"]}], "ports": [{"name": "", "port": hook.address.port()}],
    });
    let write = storage::Write::Create {
        key: "/registry/endpointslices/default/check-1".into(),
        value: slice.to_string().into(),
    };
    server.storage.write(vec![write]).await.unwrap();
    let refused = server.post(MAPS, &map("m")).await.refused(400);
    assert_eq!(
        refused,
        "admission webhook \"svc.example.com\" denied the request: found"
    );
}
